//! Which keys the file may hold, and where they stand in it, so that a wrong one is named with its line and the
//! nearest right one.

use std::{collections::HashMap, ops::Range, path::Path};

use cdc_reader::SourceConfig;
use change_log::LogConfig;
use serde::de::DeserializeOwned;
use sink_lake::{LakeConfig, TableRule};
use toml::{
    Table, Value,
    de::{DeTable, DeValue},
};

use super::{ConfigError, ConsoleConfig, export::ExportConfig};

/// The file's sections, and whether each is a list.
pub const SECTIONS: [(&str, bool); 6] = [
    ("source", true),
    ("change_log", false),
    ("lake", false),
    ("table", true),
    ("export", true),
    ("console", false),
];

/// `[lake]`, `[[source]]`.
pub fn title(section: &str) -> String {
    match SECTIONS.iter().find(|(name, _)| *name == section) {
        Some((_, true)) => format!("[[{section}]]"),
        _ => format!("[{section}]"),
    }
}

/// The keys of a section; of `[change_log]` those of its `kind`.
pub fn known_keys(section: &str, table: &Table) -> Vec<String> {
    match section {
        "source" => fields::<SourceConfig>(&Table::new()),
        "lake" => fields::<LakeConfig>(&Table::new()),
        "table" => fields::<TableRule>(&Table::new()),
        "export" => fields::<ExportConfig>(&Table::new()),
        "console" => fields::<ConsoleConfig>(&Table::new()),
        _ => {
            let kind = table.get("kind").cloned().unwrap_or_else(|| "embedded".into());
            let mut keys = fields::<LogConfig>(&Table::from_iter([("kind".to_string(), kind)]));
            keys.push("kind".into());
            keys
        }
    }
}

/// Asks serde for the fields of `T`: an unknown key makes it list them. Empty when `given` does not fit either.
fn fields<T: DeserializeOwned>(given: &Table) -> Vec<String> {
    const PROBE: &str = "__unknown__";
    let mut table = given.clone();
    table.insert(PROBE.into(), Value::Boolean(true));
    let Err(error) = Value::Table(table).try_into::<T>() else { return Vec::new() };
    let message = error.message();
    if !message.contains(PROBE) {
        return Vec::new();
    }
    // The message is: unknown field `__unknown__`, expected one of `a`, `b`.
    message.split('`').skip(3).step_by(2).map(String::from).collect()
}

/// Whether `T` refuses this value because of its type (and not because other keys are missing).
pub fn refuses_type(section: &str, key: &str, value: &Value, table: &Table) -> bool {
    let mut probe = Table::from_iter([(key.to_string(), value.clone())]);
    if let Some(kind) = table.get("kind").filter(|_| section == "change_log" && key != "kind") {
        probe.insert("kind".into(), kind.clone());
    }
    let probe = Value::Table(probe);
    let message = match section {
        "source" => probe.try_into::<SourceConfig>().err(),
        "lake" => probe.try_into::<LakeConfig>().err(),
        "table" => probe.try_into::<TableRule>().err(),
        "export" => probe.try_into::<ExportConfig>().err(),
        "console" => probe.try_into::<ConsoleConfig>().err(),
        _ => probe.try_into::<LogConfig>().err(),
    };
    message.is_some_and(|e| e.message().contains("invalid type"))
}

/// `did you mean ...?`, or all known keys when none is near.
pub fn advice(key: &str, known: &[String]) -> String {
    let nearest = known.iter().map(|k| (distance(key, k), k)).min();
    match nearest {
        Some((distance, nearest)) if distance <= 2.max(key.len() / 3) => {
            format!("did you mean `{nearest}`?")
        }
        _ => format!("known keys are {}", known.join(", ")),
    }
}

/// How many single letters must be put in, left out, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

/// The line, from 1, at which a span starts; 1 when there is none.
pub fn line_of(text: &str, span: Option<Range<usize>>) -> usize {
    let start = span.map_or(0, |span| span.start).min(text.len());
    text.as_bytes()[..start].iter().filter(|&&b| b == b'\n').count() + 1
}

/// A parser's message on one line.
pub fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where each key of each section stands.
pub struct Lines {
    file: String,
    // By section, index in its list, key; the empty key is the section itself.
    lines: HashMap<(String, usize, String), usize>,
}

impl Lines {
    /// Reads the places from the file's text.
    pub fn read(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let root = DeTable::parse(text).map_err(|e| ConfigError::Syntax {
            file: file.into(),
            line: line_of(text, e.span()),
            message: one_line(e.message()),
        })?;
        let mut lines = HashMap::new();
        for (name, value) in root.get_ref() {
            let section = name.get_ref().to_string();
            let items = match value.get_ref() {
                DeValue::Array(items) => items.iter().collect(),
                _ => vec![value],
            };
            lines.insert((section.clone(), 0, String::new()), line_of(text, Some(name.span())));
            for (i, item) in items.into_iter().enumerate() {
                let at = (section.clone(), i, String::new());
                lines.insert(at, line_of(text, Some(item.span())));
                for (key, _) in item.get_ref().as_table().into_iter().flatten() {
                    let at = (section.clone(), i, key.get_ref().to_string());
                    lines.insert(at, line_of(text, Some(key.span())));
                }
            }
        }
        Ok(Self { file: file.display().to_string(), lines })
    }

    /// The file, with the line of a key (or of its section) when it is in the file.
    fn place(&self, section: &str, index: usize, key: &str) -> String {
        let line = |key: &str| self.lines.get(&(section.to_string(), index, key.to_string()));
        match line(key).or_else(|| line("")) {
            Some(line) => format!("{}, line {line}", self.file),
            None => self.file.clone(),
        }
    }

    /// Refuses sections and keys that nothing reads, and sections of the wrong kind.
    pub fn refuse_unknown_keys(&self, root: &Table) -> Result<(), ConfigError> {
        for (name, value) in root {
            let Some(&(_, is_list)) = SECTIONS.iter().find(|(known, _)| known == name) else {
                let known: Vec<String> =
                    SECTIONS.iter().map(|(name, _)| name.to_string()).collect();
                return Err(ConfigError::UnknownKey {
                    place: self.place(name, 0, ""),
                    key: name.clone(),
                    section: "the file".into(),
                    advice: advice(name, &known),
                });
            };
            let items = match value {
                Value::Array(items) if is_list => items.iter().collect(),
                Value::Table(_) if !is_list => vec![value],
                _ => return Err(self.wrong_kind(name)),
            };
            for (i, item) in items.into_iter().enumerate() {
                let Some(table) = item.as_table() else { return Err(self.wrong_kind(name)) };
                self.refuse_unknown_keys_of(name, i, table)?;
            }
        }
        Ok(())
    }

    fn refuse_unknown_keys_of(
        &self,
        section: &str,
        index: usize,
        table: &Table,
    ) -> Result<(), ConfigError> {
        let known = known_keys(section, table);
        // An unknown `kind` leaves nothing to compare with; its own error comes later.
        let Some(key) = table.keys().find(|key| known.len() > 1 && !known.contains(key)) else {
            return Ok(());
        };
        Err(ConfigError::UnknownKey {
            place: self.place(section, index, key),
            key: key.clone(),
            section: title(section),
            advice: advice(key, &known),
        })
    }

    fn wrong_kind(&self, section: &str) -> ConfigError {
        ConfigError::Value {
            place: self.place(section, 0, ""),
            section: title(section),
            reason: format!("write it as {}", title(section)),
        }
    }

    /// A value that did not fit, from serde's error.
    pub fn value_error(&self, section: &str, index: usize, error: &toml::de::Error) -> ConfigError {
        // Display adds the path of keys on a line of its own: in `server_id`.
        let text = error.to_string();
        let key = text.rsplit_once("in `").and_then(|(_, rest)| rest.split('`').next());
        let message = one_line(error.message());
        let reason = match key {
            Some(key) => format!("{key}: {message}"),
            None => message,
        };
        let place = self.place(section, index, key.unwrap_or_default());
        ConfigError::Value { place, section: title(section), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serde_lists_the_fields() {
        let keys = known_keys("source", &Table::new());
        assert!(keys.contains(&"password_env".to_string()), "{keys:?}");
        let kafka = Table::from_iter([("kind".to_string(), Value::from("kafka"))]);
        let keys = known_keys("change_log", &kafka);
        assert!(keys.contains(&"bootstrap_servers".to_string()), "{keys:?}");
        assert!(known_keys("lake", &Table::new()).contains(&"freshness".to_string()));
        assert!(known_keys("table", &Table::new()).contains(&"match".to_string()));
    }

    #[test]
    fn distances() {
        for (a, b, expected) in
            [("", "ab", 2), ("url", "url", 0), ("lake", "leak", 2), ("ab", "ba", 1)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn far_key_gets_the_list() {
        let known = ["url".to_string(), "freshness".to_string()];
        assert_eq!(advice("compression", &known), "known keys are url, freshness");
        assert_eq!(advice("freshnes", &known), "did you mean `freshness`?");
    }
}
