//! An `[[export]]` of the configuration: which table goes into the lake how, and when.

use std::{collections::HashSet, time::Duration};

use schemas::table_id::TableId;
use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor, value::MapAccessDeserializer},
};
use sink_lake::{
    config::parse_duration,
    export::{CATALOG, EXPORTED_AT_COLUMN, ExportColumn, ExportMode, LakeType, table_id},
};

use crate::exports::schedule::{DayTime, Schedule, Zone};

/// An `[[export]]`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportConfig {
    /// Its name, and with `exports.<source>.` its table's in the lake.
    pub name: String,
    /// The `[[source]]` that has the table.
    pub source: String,
    /// `database.table`.
    pub table: String,
    /// Which columns, in which order; all without it.
    #[serde(default)]
    pub columns: Vec<ColumnConfig>,
    /// Which rows: a condition in the server's SQL.
    #[serde(default, rename = "where")]
    pub filter: Option<String>,
    /// How long after the beginning of a run the next one begins.
    #[serde(default, deserialize_with = "read_every")]
    pub every: Option<Duration>,
    /// At which time of each day a run begins.
    #[serde(default, deserialize_with = "read_at")]
    pub at: Option<DayTime>,
    /// Where `at` is that time.
    #[serde(default, deserialize_with = "read_zone")]
    pub time_zone: Option<Zone>,
    /// Whether a run replaces the table's rows or adds to them.
    #[serde(default)]
    pub mode: ExportMode,
    /// How many older contents stay for their readers; without it those of a week.
    #[serde(default)]
    pub keep: Option<usize>,
    /// Whether all rows are read in one transaction.
    #[serde(default)]
    pub consistent: bool,
}

impl ExportConfig {
    /// The table in the source; checked by [`finding`].
    pub fn source_table(&self) -> TableId {
        let (database, table) = self.table.split_once('.').unwrap_or_default();
        TableId::new(&self.source, database, table)
    }

    /// The table in the lake.
    pub fn lake_table(&self) -> TableId {
        table_id(&self.source, &self.name)
    }

    /// When it runs; `None` when only by hand.
    pub fn schedule(&self) -> Option<Schedule> {
        let daily = |at| Schedule::Daily(at, self.time_zone.unwrap_or_default());
        self.every.map(Schedule::Every).or_else(|| self.at.map(daily))
    }

    /// The columns as the writer takes them.
    pub fn lake_columns(&self) -> Vec<ExportColumn> {
        let columns = self.columns.iter().map(|chosen| ExportColumn {
            column: chosen.column.clone(),
            name: chosen.name().to_owned(),
            lake_type: chosen.lake_type,
        });
        columns.collect()
    }
}

/// An item of `columns`.
#[derive(Clone, Debug, PartialEq)]
pub struct ColumnConfig {
    /// The source's column.
    pub column: String,
    /// `as`.
    pub renamed: Option<String>,
    /// `type`.
    pub lake_type: Option<LakeType>,
}

impl ColumnConfig {
    fn name(&self) -> &str {
        self.renamed.as_deref().unwrap_or(&self.column)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ColumnTable {
    column: String,
    #[serde(default, rename = "as")]
    renamed: Option<String>,
    #[serde(default, rename = "type")]
    lake_type: Option<String>,
}

// By hand: of an untagged enum serde tells no more than that no variant matches.
impl<'de> Deserialize<'de> for ColumnConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ColumnVisitor)
    }
}

struct ColumnVisitor;

impl<'de> Visitor<'de> for ColumnVisitor {
    type Value = ColumnConfig;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(
            "\"column\" or { column = \"price\", as = \"amount\", type = \"decimal(18,2)\" }",
        )
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ColumnConfig, E> {
        Ok(ColumnConfig { column: text.to_owned(), renamed: None, lake_type: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ColumnConfig, A::Error> {
        let read = ColumnTable::deserialize(MapAccessDeserializer::new(map))?;
        let lake_type = read.lake_type.map(|word| word.parse::<LakeType>()).transpose();
        let lake_type = lake_type.map_err(A::Error::custom)?;
        Ok(ColumnConfig { column: read.column, renamed: read.renamed, lake_type })
    }
}

fn read_every<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let every = parse_duration(&text).filter(|every| *every >= Duration::from_secs(1));
    every.map(Some).ok_or_else(|| {
        D::Error::custom(format!(
            "`{text}` is no duration of at least 1s; write for example \"24h\""
        ))
    })
}

fn read_at<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DayTime>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

fn read_zone<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zone>, D::Error> {
    String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
}

/// The first thing that does not fit, as a sentence.
pub fn finding(exports: &[ExportConfig], sources: &[String]) -> Option<String> {
    if !exports.is_empty() && sources.iter().any(|source| source == CATALOG) {
        return Some(format!(
            "a source is named {CATALOG}, the folder of the lake in which exports lie; give it another name"
        ));
    }
    let mut seen = HashSet::new();
    exports.iter().find_map(|export| {
        let name = &export.name;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        if name.is_empty() || !name.chars().all(legal) {
            return Some(format!("export name '{name}' may hold only letters, digits, _ and -"));
        }
        // Folders and environment variables do not always tell cases apart.
        if !seen.insert(name.to_lowercase().replace('-', "_")) {
            return Some(format!("two exports are named '{name}'; each needs a name of its own"));
        }
        one(export, sources).map(|reason| format!("export {name}: {reason}"))
    })
}

fn one(export: &ExportConfig, sources: &[String]) -> Option<String> {
    if !sources.contains(&export.source) {
        return Some(format!(
            "there is no source '{}'; the sources are {}",
            export.source,
            sources.join(", ")
        ));
    }
    if !export.table.split_once('.').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()) {
        return Some(format!("table '{}' is not \"database.table\"", export.table));
    }
    if export.every.is_some() && export.at.is_some() {
        return Some("it has `every` and `at`; keep one".into());
    }
    if export.time_zone.is_some() && export.at.is_none() {
        return Some("`time_zone` belongs to `at`, which is not there".into());
    }
    if export.filter.as_ref().is_some_and(|filter| filter.trim().is_empty()) {
        return Some("`where` is empty; leave it out for all rows".into());
    }
    if export.mode == ExportMode::Append && export.keep.is_some() {
        return Some(
            "`keep` is for mode \"replace\": nothing is replaced in mode \"append\"".into(),
        );
    }
    let mut names = HashSet::new();
    export.columns.iter().find_map(|column| {
        let name = column.name();
        // What Parquet and Hive do not take in names.
        if name.is_empty() || name.contains([' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '=']) {
            return Some(format!(
                "column name '{name}' may hold no spaces and none of ,;{{}}()=; rename it with `as`"
            ));
        }
        if export.mode == ExportMode::Append && name.eq_ignore_ascii_case(EXPORTED_AT_COLUMN) {
            return Some(format!(
                "column name {name} is taken by mode \"append\"; rename it with `as`"
            ));
        }
        let twice = !names.insert(name.to_lowercase());
        twice.then(|| format!("two columns are named {name}; rename one with `as`"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config::Config;

    const SOURCE: &str = "[[source]]\nname = \"udon\"\nurl = \"mysql://root@127.0.0.1:3306\"\n";

    fn parse(export: &str) -> Result<Config, String> {
        let text = format!("{SOURCE}[[export]]\n{export}\n");
        Config::parse(&text, Path::new("/etc/b/binlake.toml"), []).map_err(|e| e.to_string())
    }

    #[test]
    fn an_export_is_read_and_named() {
        let config = parse(
            "name = \"prices\"\nsource = \"udon\"\ntable = \"market.orders\"\nat = \"03:00\"\ntime_zone = \"Asia/Seoul\"\n\
             columns = [\"id\", { column = \"price\", as = \"price_krw\", type = \"decimal(18,2)\" }]",
        )
        .expect("reads");
        let export = &config.exports[0];
        assert_eq!(export.lake_table().to_string(), "exports.udon.prices");
        assert_eq!(export.source_table().to_string(), "udon.market.orders");
        assert_eq!(export.schedule().expect("has one").to_string(), "at 03:00 Asia/Seoul");
        assert_eq!(export.lake_columns()[1].name, "price_krw");
    }

    #[test]
    fn what_does_not_fit_is_named_with_what_to_do() {
        let fine = "name = \"a\"\nsource = \"udon\"\ntable = \"m.t\"";
        assert!(parse(fine).is_ok());
        for (text, sentence) in [
            (
                format!("{fine}\nevry = \"1h\""),
                "line 8: unknown key `evry` in [[export]]; did you mean `every`?",
            ),
            (format!("{fine}\nevery = \"soon\""), "`soon` is no duration of at least 1s"),
            (
                format!("{fine}\nevery = \"1h\"\nat = \"03:00\""),
                "export a: it has `every` and `at`; keep one",
            ),
            (format!("{fine}\nat = \"25:00\""), "`25:00` is no time of day"),
            (
                format!("{fine}\nat = \"03:00\"\ntime_zone = \"Asia/Soul\""),
                "`Asia/Soul` is no time zone",
            ),
            (format!("{fine}\ntime_zone = \"UTC\""), "`time_zone` belongs to `at`"),
            (
                format!("{fine}\nmode = \"merge\""),
                "unknown variant `merge`, expected `replace` or `append`",
            ),
            (
                format!("{fine}\ncolumns = [{{ column = \"a\", type = \"varchar\" }}]"),
                "`varchar` is no type of an export",
            ),
            (format!("{fine}\ncolumns = [{{ colum = \"a\" }}]"), "unknown field `colum`"),
            (format!("{fine}\ncolumns = [1]"), "expected \"column\" or { column"),
            (
                format!("{fine}\ncolumns = [\"a\", {{ column = \"b\", as = \"A\" }}]"),
                "two columns are named A",
            ),
            (format!("{fine}\ncolumns = [\"a b\"]"), "rename it with `as`"),
            (format!("{fine}\n[[export]]\n{fine}"), "two exports are named 'a'"),
            (
                fine.replace("udon", "soba"),
                "export a: there is no source 'soba'; the sources are udon",
            ),
            (fine.replace("m.t", "t"), "table 't' is not \"database.table\""),
            (fine.replace("\"a\"", "\"a/b\""), "may hold only letters"),
        ] {
            let error = parse(&text).expect_err("is refused");
            assert!(error.contains(sentence), "{error}");
        }
    }
}
