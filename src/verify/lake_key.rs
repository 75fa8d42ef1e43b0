//! A key's canonical values, as the lake has them, in the form in which the source can be asked for the row. Pure; the
//! counterpart of `cdc_reader::snapshot::key_text`.

use std::fmt::Write;

use cdc_reader::{mysql::CatalogTable, snapshot::chunk_plan::KeyText};
use schemas::column_type::ColumnType;

/// The key's texts from its values in key order; `None` when one of them has no such form.
pub fn key_text(table: &CatalogTable, values: &[Option<Vec<u8>>]) -> Option<KeyText> {
    let columns = table.schema.key.iter();
    columns
        .zip(values)
        .map(|(&index, value)| {
            let text = table.texts.get(index).and_then(Option::as_ref);
            let text = text.map(|t| (t.charset.as_str(), t.collation.as_str()));
            of_canonical(&table.schema.columns.get(index)?.column_type, text, value.as_deref()?)
        })
        .collect()
}

fn of_canonical(
    column_type: &ColumnType,
    text: Option<(&str, &str)>,
    value: &[u8],
) -> Option<String> {
    let plain = || std::str::from_utf8(value).ok();
    Some(match column_type {
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. }
        | ColumnType::Decimal { .. }
        | ColumnType::Year
        | ColumnType::Date
        | ColumnType::Time { .. }
        | ColumnType::DateTime { .. }
        | ColumnType::Timestamp { .. }
        | ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6
        | ColumnType::Bit { width: 1 } => plain()?.to_owned(),
        ColumnType::Float | ColumnType::Double => format!("{:e}", plain()?.parse::<f64>().ok()?),
        ColumnType::Bit { .. } => {
            value.iter().rev().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte)).to_string()
        }
        ColumnType::Binary { .. } | ColumnType::Bytes => hex(value),
        ColumnType::Text => {
            let (charset, collation) = text?;
            // In other character sets the bytes of the lake's UTF-8 are not the column's.
            let same = matches!(charset, "utf8mb4" | "utf8mb3" | "utf8") || plain()?.is_ascii();
            same.then(|| format!("{collation}:{}", hex(value)))?
        }
        ColumnType::Enum { members } => {
            let label = plain()?;
            (members.iter().position(|member| member == label)? + 1).to_string()
        }
        ColumnType::Set { members } => {
            let labels = plain()?.split(',').filter(|label| !label.is_empty());
            let bit = |label| members.iter().position(|member| member == label);
            let bits = labels.map(bit).collect::<Option<Vec<_>>>()?;
            bits.into_iter().fold(0u64, |set, bit| set | 1 << bit).to_string()
        }
        ColumnType::Json | ColumnType::Geometry | ColumnType::Point | ColumnType::Vector => {
            return None;
        }
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_that_the_source_takes() {
        let members = || ["a", "b,c", "d"].map(String::from).to_vec();
        let utf8 = Some(("utf8mb4", "utf8mb4_0900_ai_ci"));
        let latin = Some(("latin1", "latin1_swedish_ci"));
        for (column_type, text, value, expected) in [
            (
                ColumnType::BigInt { unsigned: true },
                None,
                &b"18446744073709551615"[..],
                Some("18446744073709551615"),
            ),
            (ColumnType::Decimal { precision: 5, scale: 2 }, None, b"-1.50", Some("-1.50")),
            (ColumnType::Double, None, b"1.5", Some("1.5e0")),
            (ColumnType::Bit { width: 10 }, None, &[1, 2], Some("513")),
            (ColumnType::Binary { length: 2 }, None, &[0xff, 0], Some("FF00")),
            (ColumnType::Text, utf8, "메".as_bytes(), Some("utf8mb4_0900_ai_ci:EBA994")),
            (ColumnType::Text, latin, b"ab", Some("latin1_swedish_ci:6162")),
            (ColumnType::Text, latin, "ä".as_bytes(), None),
            (ColumnType::Enum { members: members() }, None, b"d", Some("3")),
            (ColumnType::Set { members: members() }, None, b"a,d", Some("5")),
            (ColumnType::Json, None, b"{}", None),
        ] {
            assert_eq!(
                of_canonical(&column_type, text, value).as_deref(),
                expected,
                "{column_type:?}"
            );
        }
    }
}
