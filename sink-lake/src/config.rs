//! What the sink is told: where the lake is, how fresh it has to be, and which table is kept in which mode.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{error::SinkError, share::Share};

/// The sink's part of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// The lake.
    #[serde(default)]
    pub lake: LakeConfig,
    /// Rules by table name; the last one that matches counts.
    #[serde(default)]
    pub tables: Vec<TableRule>,
    /// Which tables are this sink's, where several share the work.
    #[serde(skip)]
    pub share: Share,
}

/// Where the lake is and how it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LakeConfig {
    /// `file:./lake` or `file:///var/lake`.
    pub url: String,
    /// A change is in the lake at most this long after it was read. 10 s is a compromise: each commit of a state
    /// table rewrites the files that hold changed keys.
    #[serde(deserialize_with = "read_duration", serialize_with = "write_duration")]
    pub freshness: Duration,
    /// A commit is made when this many rows of a table wait.
    pub commit_rows_max: usize,
    /// A commit is made when this many bytes of a table wait.
    pub commit_bytes_max: usize,
    /// All tables together buffer at most about this many bytes; then reading pauses.
    pub memory_bytes_max: usize,
}

impl Default for LakeConfig {
    fn default() -> Self {
        Self {
            url: "file:./lake".to_owned(),
            freshness: Duration::from_secs(10),
            commit_rows_max: 200_000,
            commit_bytes_max: 64 * 1024 * 1024,
            memory_bytes_max: 256 * 1024 * 1024,
        }
    }
}

impl LakeConfig {
    /// The lake's folder.
    pub fn folder(&self) -> Result<PathBuf, SinkError> {
        let refuse =
            |reason: &str| SinkError::LakeUrl { url: self.url.clone(), reason: reason.to_owned() };
        let path = match self.url.split_once(':') {
            Some(("file", rest)) => rest.strip_prefix("//").unwrap_or(rest),
            Some((scheme, rest)) if rest.starts_with("//") => {
                return Err(refuse(&format!(
                    "object stores ({scheme}://) come with a later release; use file:./folder or file:///folder"
                )));
            }
            _ => self.url.as_str(),
        };
        if path.is_empty() {
            return Err(refuse("it names no folder; use file:./folder or file:///folder"));
        }
        let path = PathBuf::from(path);
        std::path::absolute(&path).map_err(|error| refuse(&error.to_string()))
    }
}

/// A rule for the tables whose `source.database.table` matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableRule {
    /// A pattern over `source.database.table`; `*` stands for any characters, `?` for one.
    #[serde(rename = "match")]
    pub pattern: String,
    /// How the table is kept.
    pub mode: Mode,
}

/// How a table is kept in the lake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One row per key, equal to the source.
    State,
    /// Rows are only added: one per version of a source row.
    History,
}

impl Mode {
    /// The name in the configuration and in a table's properties.
    pub fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::History => "history",
        }
    }

    /// The mode of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::State, Self::History].into_iter().find(|mode| mode.name() == name)
    }
}

/// The mode that the rules give a table; `None` when no rule matches.
pub fn mode_of(rules: &[TableRule], table: &str) -> Option<Mode> {
    let matching = |rule: &&TableRule| glob_matches(&rule.pattern, table);
    rules.iter().rev().find(matching).map(|rule| rule.mode)
}

/// Whether `text` matches `pattern`, in which `*` stands for any characters and `?` for one.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some(&c) if c == b'?' || c == text[t] => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    p = after;
                    t = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// Reads `500ms`, `10s`, `5m`, `2h` or `7d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "ms" => return Some(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs)
}

fn read_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).filter(|duration| !duration.is_zero()).ok_or_else(|| {
        D::Error::custom(format!("`{text}` is no duration; write for example \"10s\" or \"500ms\""))
    })
}

fn write_duration<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) {
        serializer.serialize_str(&format!("{}s", millis / 1000))
    } else {
        serializer.serialize_str(&format!("{millis}ms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, matches) in [
            ("udon.market.*_events", "udon.market.page_events", true),
            ("udon.market.*_events", "udon.market.events", false),
            ("*", "a.b.c", true),
            ("*.*.c", "a.b.c", true),
            ("a.b.?", "a.b.cc", false),
            ("a*b*c", "aXbYbZc", true),
            ("", "a", false),
        ] {
            assert_eq!(glob_matches(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn the_last_matching_rule_counts() {
        let rule = |pattern: &str, mode| TableRule { pattern: pattern.into(), mode };
        let rules = [rule("*", Mode::History), rule("a.*", Mode::State)];
        assert_eq!(mode_of(&rules, "a.b.c"), Some(Mode::State));
        assert_eq!(mode_of(&rules, "x.b.c"), Some(Mode::History));
        assert_eq!(mode_of(&[], "x.b.c"), None);
    }

    #[test]
    fn urls() {
        let folder = |url: &str| LakeConfig { url: url.into(), ..LakeConfig::default() }.folder();
        assert_eq!(folder("file:///x/lake").expect("is a folder"), PathBuf::from("/x/lake"));
        assert!(folder("file:./lake").expect("is a folder").ends_with("lake"));
        let refused = folder("s3://bucket/prefix").expect_err("is refused").to_string();
        assert!(refused.contains("later release"), "{refused}");
    }

    #[test]
    fn configuration_reads_and_refuses_unknown_keys() {
        let json = r#"{"lake": {"url": "file:/l", "freshness": "500ms"},
            "tables": [{"match": "a.b.*", "mode": "history"}]}"#;
        let config: SinkConfig = serde_json::from_str(json).expect("reads");
        assert_eq!(config.lake.freshness, Duration::from_millis(500));
        assert_eq!(config.lake.commit_rows_max, 200_000);
        assert!(serde_json::from_str::<SinkConfig>(r#"{"lake": {"urls": "x"}}"#).is_err());
        let text = serde_json::to_string(&config).expect("serialises");
        assert_eq!(serde_json::from_str::<SinkConfig>(&text).expect("reads back"), config);
    }
}
