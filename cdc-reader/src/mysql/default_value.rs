//! `COLUMN_DEFAULT` to the default that Debezium's schemas carry (`BinlogDefaultValueConverter`). Expressions have none,
//! but for CURRENT_TIMESTAMP, which is the epoch.

use schemas::{
    avro_write::read_bytes, column_type::ColumnType, default_value::DefaultValue,
    row_digest::days_from_civil,
};

use super::flavor::Kind;
use crate::encode::{decimal, temporal};

/// What `information_schema.COLUMNS` says about a column's default.
#[derive(Clone, Copy, Debug)]
pub struct DefaultDefinition<'a> {
    /// `COLUMN_DEFAULT`.
    pub text: &'a str,
    /// `EXTRA`.
    pub extra: &'a str,
    /// Whose server it is: MariaDB quotes literals.
    pub kind: Kind,
    /// Whether the column may be NULL.
    pub nullable: bool,
    /// FLOAT(M,D).
    pub float_with_digits: bool,
}

/// A literal's value or the clock.
enum Source {
    Literal(Vec<u8>),
    Now,
}

/// The default; `None` for an expression, for NULL and for what the column's type cannot have.
pub fn default_value(
    definition: &DefaultDefinition<'_>,
    column_type: &ColumnType,
) -> Option<DefaultValue> {
    if definition.extra.to_ascii_uppercase().contains(" GENERATED")
        || definition.extra.to_ascii_uppercase().starts_with("GENERATED")
    {
        return None;
    }
    match source(definition)? {
        Source::Now => match column_type {
            ColumnType::DateTime { .. } => Some(DefaultValue::Long(0)),
            ColumnType::Timestamp { .. } if !definition.nullable => Some(zoned(0, 0)),
            _ => None,
        },
        Source::Literal(bytes) => literal(&bytes, definition, column_type),
    }
}

fn source(definition: &DefaultDefinition<'_>) -> Option<Source> {
    let text = definition.text;
    let lower = text.to_ascii_lowercase();
    if lower.starts_with("current_timestamp") || lower.starts_with("now(") {
        return Some(Source::Now);
    }
    let literal = match definition.kind {
        Kind::MySql if definition.extra.contains("DEFAULT_GENERATED") => return None,
        Kind::MySql => match lower.split_at_checked(2) {
            Some(("b'", _)) => bits(text)?,
            _ => text.as_bytes().to_vec(),
        },
        Kind::MariaDb if lower == "null" => return None,
        Kind::MariaDb => match lower.split_at_checked(2) {
            Some(("b'", _)) => bits(text)?,
            Some(("x'", _)) => from_hex(text.get(2..)?.strip_suffix('\'')?)?,
            _ if text.starts_with('\'') => unquoted(text)?.into_bytes(),
            _ if text.parse::<f64>().is_ok() => text.as_bytes().to_vec(),
            _ => return None,
        },
    };
    Some(Source::Literal(literal))
}

/// `b'101'` as the digits of its number.
fn bits(text: &str) -> Option<Vec<u8>> {
    let digits = text.get(2..)?.strip_suffix('\'')?;
    let digits = if digits.is_empty() { "0" } else { digits };
    Some(u64::from_str_radix(digits, 2).ok()?.to_string().into_bytes())
}

fn from_hex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

fn unquoted(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('\'')?.strip_suffix('\'')?.chars();
    let mut plain = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                chars.next().filter(|&next| next == '\'')?;
                plain.push('\'');
            }
            '\\' => plain.push(match chars.next()? {
                '0' => '\0',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'b' => '\u{8}',
                'Z' => '\u{1a}',
                other => other,
            }),
            other => plain.push(other),
        }
    }
    Some(plain)
}

fn literal(
    bytes: &[u8],
    definition: &DefaultDefinition<'_>,
    column_type: &ColumnType,
) -> Option<DefaultValue> {
    let text = || std::str::from_utf8(bytes).ok();
    // Zero dates: no default where NULL is possible, and the epoch where it is not.
    let instant = |text: &str| match instant_micros(text) {
        Some(micros) => Some(micros),
        None if definition.nullable => None,
        None => Some(0),
    };
    Some(match column_type {
        // Debezium takes a detour over a double.
        ColumnType::BigInt { unsigned: true } => {
            DefaultValue::Long(text()?.trim().parse::<f64>().ok()?.round() as i64)
        }
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. } => DefaultValue::Long(text()?.trim().parse().ok()?),
        ColumnType::Year => {
            let year: i64 = text()?.parse().ok()?;
            DefaultValue::Long(if year == 0 { 1900 } else { year })
        }
        ColumnType::Float if !definition.float_with_digits => {
            DefaultValue::Float(text()?.parse::<f32>().ok()?.to_bits())
        }
        ColumnType::Float | ColumnType::Double => {
            DefaultValue::Double(text()?.parse::<f64>().ok()?.to_bits())
        }
        ColumnType::Decimal { scale, .. } => {
            let mut datum = Vec::new();
            decimal::encode_text(bytes, *scale, &mut datum).ok()?;
            DefaultValue::Bytes(read_bytes(&mut &datum[..])?.to_vec())
        }
        ColumnType::Bit { width: 1 } => {
            DefaultValue::Boolean(text()?.parse::<u64>().ok()? & 1 == 1)
        }
        ColumnType::Bit { width } => {
            let bytes = text()?.parse::<u64>().ok()?.to_le_bytes();
            DefaultValue::Bytes(bytes.get(..usize::from(*width).div_ceil(8))?.to_vec())
        }
        ColumnType::Date => {
            let days = instant(text()?)?.div_euclid(86_400_000_000);
            DefaultValue::Long(temporal::recent_days(days, true))
        }
        ColumnType::DateTime { digits } => {
            let micros = temporal::recent_micros(instant(text()?)?, true);
            DefaultValue::Long(if *digits > 3 { micros } else { micros.div_euclid(1000) })
        }
        ColumnType::Timestamp { digits } => zoned(instant(text()?)?, *digits),
        ColumnType::Time { .. } => DefaultValue::Long(time_micros(text()?)?),
        ColumnType::Text
        | ColumnType::Enum { .. }
        | ColumnType::Set { .. }
        | ColumnType::Uuid
        | ColumnType::Inet4
        | ColumnType::Inet6 => DefaultValue::Text(text()?.to_owned()),
        ColumnType::Binary { length } => {
            let mut bytes = binary(bytes, definition.kind);
            bytes.resize(bytes.len().max(usize::from(*length)), 0);
            DefaultValue::Bytes(bytes)
        }
        ColumnType::Bytes => DefaultValue::Bytes(binary(bytes, definition.kind)),
        ColumnType::Json | ColumnType::Geometry | ColumnType::Point | ColumnType::Vector => {
            return None;
        }
    })
}

/// MySQL shows the default of a binary column as `0x01FF`.
fn binary(bytes: &[u8], kind: Kind) -> Vec<u8> {
    let digits = bytes.strip_prefix(b"0x").filter(|_| kind == Kind::MySql);
    digits
        .and_then(|digits| from_hex(std::str::from_utf8(digits).ok()?))
        .unwrap_or_else(|| bytes.to_vec())
}

fn zoned(micros: i64, digits: u8) -> DefaultValue {
    let mut datum = Vec::new();
    temporal::write_zoned(&mut datum, micros, digits);
    let text = read_bytes(&mut &datum[..]).unwrap_or_default().to_vec();
    DefaultValue::Text(String::from_utf8(text).unwrap_or_default())
}

/// Microseconds since 1970 of `2020-01-02[ 03:04:05[.6]]`; `None` for a zero date.
fn instant_micros(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(' ').unwrap_or((text, "0"));
    let mut parts = date.split('-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let whole = year != 0 && (1..=12).contains(&month) && day != 0;
    Some(whole.then(|| days_from_civil(year, month, day))? * 86_400_000_000 + time_micros(time)?)
}

/// Signed microseconds of `[-]HH:MM:SS[.ffffff]`.
fn time_micros(text: &str) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = whole
        .split(':')
        .try_fold(0i64, |seconds, part| Some(seconds * 60 + part.parse::<i64>().ok()?))?;
    let micros = format!("{fraction:0<6}").get(..6)?.parse::<i64>().ok()?;
    let magnitude = seconds * 1_000_000 + micros;
    Some(if negative { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, column_type: ColumnType, text: &str, extra: &str) -> Option<String> {
        let definition =
            DefaultDefinition { text, extra, kind, nullable: true, float_with_digits: false };
        default_value(&definition, &column_type).map(|default| default.json())
    }

    #[test]
    fn literals_are_read_as_both_servers_show_them() {
        use ColumnType::{Binary, Bytes, Date, DateTime, Decimal, Double, Text, Time, Timestamp};
        let digits = 3;
        let cases: [(Kind, ColumnType, &str, &str, Option<&str>); 17] = [
            (Kind::MySql, Text, "it's", "", Some("\"it's\"")),
            (Kind::MySql, Text, "uuid()", "DEFAULT_GENERATED", None),
            (Kind::MySql, ColumnType::Int { unsigned: false }, "1", "STORED GENERATED", None),
            (Kind::MySql, Bytes, "0x01FF", "", Some("\"\\u0001ÿ\"")),
            (Kind::MySql, Binary { length: 2 }, "0x41", "", Some("\"A\\u0000\"")),
            (Kind::MySql, ColumnType::Bit { width: 9 }, "b'101'", "", Some("\"\\u0005\\u0000\"")),
            (Kind::MySql, Date, "0000-00-00", "", None),
            (Kind::MySql, Date, "0018-04-01", "", Some("17622")),
            (Kind::MySql, Time { digits }, "-00:00:01.500", "", Some("-1500000")),
            (Kind::MySql, DateTime { digits }, "1970-01-02 00:00:01.250", "", Some("86401250")),
            (Kind::MySql, Timestamp { digits }, "CURRENT_TIMESTAMP(3)", "DEFAULT_GENERATED", None),
            (Kind::MariaDb, Text, r"'it''s \\ \n'", "", Some(r#""it's \\ \n""#)),
            (Kind::MariaDb, Text, "ucase('a')", "", None),
            (Kind::MariaDb, Text, "NULL", "", None),
            (Kind::MariaDb, Bytes, "x'01ff'", "", Some("\"\\u0001ÿ\"")),
            (Kind::MariaDb, Double, "10000000000", "", Some("1.0E10")),
            (Kind::MariaDb, Decimal { precision: 9, scale: 2 }, "1.00", "", Some("\"d\"")),
        ];
        for (kind, column_type, text, extra, expected) in cases {
            let shown = of(kind, column_type.clone(), text, extra);
            assert_eq!(shown.as_deref(), expected, "{text} of {column_type:?}");
        }
    }
}
