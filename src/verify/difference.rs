//! What is told about rows that differ: how many, and the first of them with its key and both values.

use serde::Serialize;
use sink_lake::CanonicalRow;

/// The first difference of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How many rows differ.
    pub count: u64,
    /// The first of them.
    pub first: String,
}

impl Difference {
    /// Rows that are in the lake more often than they should be.
    pub fn doubled(count: u64) -> Self {
        Self { count, first: "rows are in the lake twice".into() }
    }

    /// Rows of a table without a key that are not in the lake.
    pub fn missing(count: u64) -> Self {
        Self {
            count,
            first: "rows of MySQL are not in the lake; the table has no key to name them by".into(),
        }
    }

    /// Rows whose keys cannot be shown.
    pub fn extra(count: u64) -> Self {
        Self { count, first: "rows are in the lake and not in MySQL".into() }
    }

    /// Names the key and the first column that differs.
    pub fn between(
        columns: &[String],
        key: &[String],
        source: Option<&CanonicalRow>,
        lake: Option<&CanonicalRow>,
    ) -> Self {
        let value_of = |row: &CanonicalRow, name: &String| {
            columns.iter().position(|c| c == name).and_then(|at| row.get(at).cloned()).flatten()
        };
        let row = source.or(lake);
        let key_text: Vec<String> = key
            .iter()
            .map(|name| format!("{name} = {}", shown(row.and_then(|row| value_of(row, name)))))
            .collect();
        let what = match (source, lake) {
            (Some(source), Some(lake)) => columns
                .iter()
                .zip(source.iter().zip(lake))
                .find(|(_, (source, lake))| source != lake)
                .map_or_else(
                    || "differs".to_owned(),
                    |(name, (source, lake))| {
                        format!(
                            "{name}: {} in MySQL, {} in the lake",
                            shown(source.clone()),
                            shown(lake.clone())
                        )
                    },
                ),
            (Some(_), None) => "is not in the lake".to_owned(),
            (None, _) => "is in the lake and not in MySQL".to_owned(),
        };
        Self { count: 1, first: format!("{}: {what}", key_text.join(", ")) }
    }
}

/// A value in a message: whoever runs `verify` may read the tables.
fn shown(value: Option<Vec<u8>>) -> String {
    const LENGTH_MAX: usize = 60;
    match value {
        None => "NULL".to_owned(),
        Some(bytes) => match String::from_utf8(bytes) {
            Ok(text) if text.chars().count() > LENGTH_MAX => {
                format!("'{}...'", text.chars().take(LENGTH_MAX).collect::<String>())
            }
            Ok(text) => format!("'{text}'"),
            Err(error) => {
                let digits: String = error
                    .as_bytes()
                    .iter()
                    .take(LENGTH_MAX / 2)
                    .map(|b| format!("{b:02X}"))
                    .collect();
                format!("0x{digits}")
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[&str]) -> CanonicalRow {
        values.iter().map(|v| (*v != "-").then(|| v.as_bytes().to_vec())).collect()
    }

    #[test]
    fn first_difference_names_key_column_and_both_values() {
        let columns = ["id", "price", "memo"].map(String::from);
        let key = ["id".to_string()];
        let text = |source: Option<&CanonicalRow>, lake: Option<&CanonicalRow>| {
            Difference::between(&columns, &key, source, lake).first
        };
        let (ours, theirs) = (row(&["7", "1.50", "-"]), row(&["7", "1.50", "x"]));
        assert_eq!(
            text(Some(&ours), Some(&theirs)),
            "id = '7': memo: NULL in MySQL, 'x' in the lake"
        );
        assert_eq!(text(Some(&ours), None), "id = '7': is not in the lake");
        assert_eq!(text(None, Some(&theirs)), "id = '7': is in the lake and not in MySQL");
    }

    #[test]
    fn long_and_binary_values_are_cut() {
        let text = shown(Some("우".repeat(100).into_bytes()));
        assert!(text.chars().count() < 80 && text.ends_with("...'"), "{text}");
        assert_eq!(shown(Some(vec![0xff, 0xfe])), "0xFFFE");
    }
}
