//! What is done about the rows that tables have already: `snapshot` of a source.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Visitor},
};

/// Which existing rows are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotMode {
    /// Those of tables that were never read, beside the stream.
    #[default]
    Initial,
    /// None: only changes from now on are captured.
    Never,
    /// All; then the reader ends.
    Only,
    /// As `Initial`; when the binlog no longer holds what follows the stored position, everything is read anew.
    WhenNeeded,
}

const NAMES: [(&str, SnapshotMode); 4] = [
    ("initial", SnapshotMode::Initial),
    ("never", SnapshotMode::Never),
    ("only", SnapshotMode::Only),
    ("when_needed", SnapshotMode::WhenNeeded),
];
const ALL: &str = "\"initial\", \"never\", \"only\" or \"when_needed\"";

impl<'de> Deserialize<'de> for SnapshotMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Mode)
    }
}

/// A visitor, so that a boolean is told what to write in its place.
struct Mode;

impl Visitor<'_> for Mode {
    type Value = SnapshotMode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ALL)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SnapshotMode, E> {
        match (NAMES.iter().find(|(name, _)| *name == text), text.parse()) {
            (Some((_, mode)), _) => Ok(*mode),
            (None, Ok(value)) => self.visit_bool(value),
            (None, Err(_)) => Err(E::custom(format!("`{text}` is no snapshot mode; write {ALL}"))),
        }
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<SnapshotMode, E> {
        let instead = if value { "initial" } else { "never" };
        Err(E::custom(format!(
            "snapshot is a mode, not {value}: write \"{instead}\" (one of {ALL})"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_back_and_booleans_are_told_the_words() {
        for (name, mode) in NAMES {
            let text = serde_json::to_string(&mode).expect("serialises");
            assert_eq!(text, format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<SnapshotMode>(&text).expect("reads"), mode);
        }
        for (text, words) in [
            ("false", "write \"never\""),
            ("true", "write \"initial\""),
            ("\"false\"", "write \"never\""),
            ("\"sometimes\"", "`sometimes` is no snapshot mode"),
            ("1", "expected \"initial\""),
        ] {
            let error =
                serde_json::from_str::<SnapshotMode>(text).expect_err("refused").to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
