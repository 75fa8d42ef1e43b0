//! A key column's value as an exact text, and that text as a literal in the server's SQL. Pure.
//!
//! | type | text | literal |
//! |---|---|---|
//! | integers, YEAR, DECIMAL | plain digits | as it is |
//! | BIT, ENUM, SET | the number | as it is (all three sort by it) |
//! | FLOAT, DOUBLE | shortest digits of the value as a double, with exponent | as it is |
//! | DATE, TIME, DATETIME, TIMESTAMP (UTC) | with six fraction digits | quoted |
//! | BINARY, VARBINARY, BLOB | hexadecimal | `X'..'` |
//! | UUID, INET4, INET6 | the server's text | quoted |
//! | text | `collation:` and its own bytes, hexadecimal | `_charset X'..' COLLATE collation` |
//!
//! Text carries its collation because a boundary means nothing in another order: after an ALTER the walk starts anew.
//! The text comes back from a stored position, so it is checked before it becomes SQL.

use schemas::column_type::ColumnType;

use super::chunk_plan::KeyText;
use crate::mysql::{
    catalog::{CatalogTable, TextColumn, hex},
    rows::{RowValue, ValueKind, value::DateParts},
};

/// The text of a key from its values' bytes, one after the other in key order (`RowWriter::key_bytes`); `None` for a
/// table without a key, and when the walk cannot go on from this key. `kinds` are those of all columns.
pub fn of_bytes(table: &CatalogTable, kinds: &[ValueKind], mut bytes: &[u8]) -> Option<KeyText> {
    if table.schema.key.is_empty() {
        return None;
    }
    let parts = table.schema.key.iter();
    parts
        .map(|&i| {
            let value = RowValue::take(*kinds.get(i)?, &mut bytes).ok()?;
            of_column(table, i, value)
        })
        .collect()
}

/// The text of a key column's value.
pub fn of_column(table: &CatalogTable, index: usize, value: RowValue<'_>) -> Option<String> {
    let column = table.schema.columns.get(index)?;
    of_value(&column.column_type, table.texts.get(index)?.as_ref(), value)
}

/// The text of a key column's value as the chunk's SELECT gave it; `None` for NULL and for types without an order.
pub fn of_value(
    column_type: &ColumnType,
    text: Option<&TextColumn>,
    value: RowValue<'_>,
) -> Option<String> {
    Some(match column_type {
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. }
        | ColumnType::Year
        | ColumnType::Enum { .. }
        | ColumnType::Set { .. } => value.integer()?.to_string(),
        ColumnType::Bit { .. } => value.bits()?.to_string(),
        ColumnType::Decimal { .. } => {
            String::from_utf8(value.bytes()?.to_vec()).ok().filter(|t| is_decimal(t))?
        }
        ColumnType::Float | ColumnType::Double => format!("{:e}", value.double()?),
        ColumnType::Date => {
            let DateParts { year, month, day, .. } = value.instant()?;
            format!("{year:04}-{month:02}-{day:02}")
        }
        ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
            let DateParts { year, month, day, hour, minute, second, micros } = value.instant()?;
            format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micros:06}")
        }
        ColumnType::Time { .. } => schemas::row_digest::time_text(value.time()?),
        ColumnType::Binary { .. } | ColumnType::Bytes => hex(value.bytes()?),
        ColumnType::Text => format!("{}:{}", text?.collation, hex(value.bytes()?)),
        ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => {
            let text = std::str::from_utf8(value.bytes()?).ok()?;
            is_address(text).then(|| text.to_owned())?
        }
        ColumnType::Json | ColumnType::Geometry | ColumnType::Point | ColumnType::Vector => {
            return None;
        }
    })
}

/// The literal of a key text; `None` when it does not have the column's form.
pub fn literal(column_type: &ColumnType, text: Option<&TextColumn>, key: &str) -> Option<String> {
    match column_type {
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. }
        | ColumnType::Year
        | ColumnType::Bit { .. }
        | ColumnType::Enum { .. }
        | ColumnType::Set { .. } => is_integer(key).then(|| key.to_owned()),
        ColumnType::Decimal { .. } => is_decimal(key).then(|| key.to_owned()),
        ColumnType::Float | ColumnType::Double => {
            let parsed = key.parse::<f64>().ok().filter(|number| number.is_finite());
            parsed.map(|number| format!("{number:e}"))
        }
        ColumnType::Date
        | ColumnType::Time { .. }
        | ColumnType::DateTime { .. }
        | ColumnType::Timestamp { .. } => is_temporal(key).then(|| format!("'{key}'")),
        ColumnType::Binary { .. } | ColumnType::Bytes => {
            is_hex(key).then(|| format!("_binary X'{key}'"))
        }
        ColumnType::Text => {
            let text = text?;
            let (collation, bytes) = key.split_once(':')?;
            let fits = collation == text.collation && is_hex(bytes) && is_name(&text.charset);
            fits.then(|| format!("_{} X'{bytes}' COLLATE {}", text.charset, text.collation))
        }
        ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => {
            is_address(key).then(|| format!("'{key}'"))
        }
        ColumnType::Json | ColumnType::Geometry | ColumnType::Point | ColumnType::Vector => None,
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    (1..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

fn is_decimal(text: &str) -> bool {
    let number = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits =
        |part: &str| (1..=66).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    digits(whole) && digits(fraction)
}

fn is_temporal(text: &str) -> bool {
    (8..=26).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'.' | b' '))
}

fn is_address(text: &str) -> bool {
    (2..=45).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b'-' | b':' | b'.'))
}

fn is_hex(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{encode::charset::Charset, mysql::rows::value::tests::date};

    fn latin1() -> TextColumn {
        TextColumn {
            charset: "latin1".into(),
            collation: "latin1_german1_ci".into(),
            decoding: Charset::Utf8,
        }
    }

    #[test]
    fn values_become_texts_and_texts_become_literals() {
        let latin1 = latin1();
        let digits = 6;
        let cases: [(ColumnType, RowValue<'_>, &str, &str); 12] = [
            (ColumnType::Int { unsigned: false }, RowValue::Int(-7), "-7", "-7"),
            (
                ColumnType::BigInt { unsigned: true },
                RowValue::UInt(u64::MAX),
                "18446744073709551615",
                "18446744073709551615",
            ),
            (ColumnType::Bit { width: 12 }, RowValue::Bytes(&[0x0f, 0xff]), "4095", "4095"),
            (
                ColumnType::Decimal { precision: 5, scale: 2 },
                RowValue::Bytes(b"-0.05"),
                "-0.05",
                "-0.05",
            ),
            (ColumnType::Float, RowValue::Float(1.1), "1.100000023841858e0", "1.100000023841858e0"),
            (ColumnType::Double, RowValue::Double(0.1), "1e-1", "1e-1"),
            (ColumnType::Date, date(2024, 2, 29), "2024-02-29", "'2024-02-29'"),
            (
                ColumnType::DateTime { digits },
                date(0, 0, 0),
                "0000-00-00 00:00:00.000000",
                "'0000-00-00 00:00:00.000000'",
            ),
            (
                ColumnType::Time { digits },
                RowValue::Time(-3_020_399_000_001),
                "-838:59:59.000001",
                "'-838:59:59.000001'",
            ),
            (ColumnType::Bytes, RowValue::Bytes(&[0, 0xff]), "00FF", "_binary X'00FF'"),
            (
                ColumnType::Text,
                RowValue::Bytes(&[0xe4]),
                "latin1_german1_ci:E4",
                "_latin1 X'E4' COLLATE latin1_german1_ci",
            ),
            (ColumnType::Year, RowValue::Int(0), "0", "0"),
        ];
        for (column_type, value, text, sql) in cases {
            let made = of_value(&column_type, Some(&latin1), value);
            assert_eq!(made.as_deref(), Some(text), "{column_type:?}");
            let made = literal(&column_type, Some(&latin1), text);
            assert_eq!(made.as_deref(), Some(sql), "{column_type:?}");
        }
        assert_eq!(of_value(&ColumnType::Year, None, RowValue::Null), None);
    }

    proptest! {
        #[test]
        fn no_stored_text_can_leave_its_literal(text in ".*") {
            let types = [
                ColumnType::Year, ColumnType::Decimal { precision: 9, scale: 2 }, ColumnType::Double,
                ColumnType::Date, ColumnType::Bytes, ColumnType::Text,
            ];
            for column_type in types {
                if let Some(sql) = literal(&column_type, Some(&latin1()), &text) {
                    prop_assert!(!sql.contains([';', '(', '"', '\\', '`', '#']), "{}", sql);
                    prop_assert!(matches!(sql.matches('\'').count(), 0 | 2));
                }
            }
        }
    }
}
