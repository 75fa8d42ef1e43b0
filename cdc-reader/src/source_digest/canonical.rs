//! A value of the binary protocol in the canonical form of `schemas::row_digest`. Pure.

use schemas::{
    avro_schema::{AvroOptions, default_of, is_optional},
    column_type::ColumnType,
    default_value::DefaultValue,
    json_text,
    row_digest::{date_text, datetime_text, row_digest, time_text},
};

use crate::{
    encode::{
        charset::{Charset, decode},
        temporal::recent_micros,
    },
    mysql::{catalog::CatalogTable, rows::RowValue},
    snapshot::avro_row::{enum_label, set_labels},
};

/// Brings the rows of one table shape into their canonical form.
#[derive(Debug)]
pub struct Canonical {
    columns: Vec<CanonicalColumn>,
    key: Vec<usize>,
    buffer: Vec<u8>,
    // The end of each value in `buffer`, and whether it is NULL.
    ends: Vec<(usize, bool)>,
}

#[derive(Debug)]
struct CanonicalColumn {
    name: String,
    column_type: ColumnType,
    decoding: Charset,
    /// A zero date can be NULL in the log; where it cannot, the log and the lake have the epoch.
    optional: bool,
    /// The log has BIGINT UNSIGNED as a `long` that wraps.
    wraps: bool,
    /// What the log has in place of NULL.
    default: Option<DefaultValue>,
    json_form: json_text::JsonForm,
}

/// A row's two digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowDigests {
    /// Over the key columns in key order; over all columns for a table without a key.
    pub key: u128,
    /// Over all columns in the server's order.
    pub row: u128,
}

const WRONG: &str = "a value of an unexpected kind";

impl Canonical {
    /// Prepares for a table.
    pub fn new(table: &CatalogTable, options: AvroOptions) -> Self {
        let schema = &table.schema;
        let columns = schema.columns.iter().enumerate().map(|(i, column)| CanonicalColumn {
            name: column.name.clone(),
            column_type: column.column_type.clone(),
            decoding: table
                .texts
                .get(i)
                .and_then(Option::as_ref)
                .map_or(Charset::Utf8, |t| t.decoding),
            optional: is_optional(schema, i, options),
            wraps: options.debezium_compat,
            default: default_of(column, options).cloned(),
            json_form: options.json_form(),
        });
        Self {
            columns: columns.collect(),
            key: schema.key.clone(),
            buffer: Vec::new(),
            ends: Vec::new(),
        }
    }

    /// A row's digests; a value that does not fit its column gives the sentence that says which.
    pub fn digests(&mut self, values: &[RowValue<'_>]) -> Result<RowDigests, String> {
        self.read(values)?;
        let row = row_digest((0..self.columns.len()).map(|i| self.value(i)));
        let key = if self.key.is_empty() {
            row
        } else {
            row_digest(self.key.iter().map(|&i| self.value(i)))
        };
        Ok(RowDigests { key, row })
    }

    /// A row's canonical values in the server's order, for naming a difference.
    pub fn values(&mut self, values: &[RowValue<'_>]) -> Result<Vec<Option<Vec<u8>>>, String> {
        self.read(values)?;
        Ok((0..self.columns.len()).map(|i| self.value(i).map(<[u8]>::to_vec)).collect())
    }

    fn read(&mut self, values: &[RowValue<'_>]) -> Result<(), String> {
        self.buffer.clear();
        self.ends.clear();
        for (i, column) in self.columns.iter().enumerate() {
            let value = values.get(i).copied().unwrap_or(RowValue::Null);
            let some = column
                .write(value, &mut self.buffer)
                .map_err(|what| format!("column {} holds {what}", column.name))?;
            self.ends.push((self.buffer.len(), some));
        }
        Ok(())
    }

    fn value(&self, index: usize) -> Option<&[u8]> {
        let &(end, some) = self.ends.get(index)?;
        let start = index.checked_sub(1).and_then(|i| self.ends.get(i)).map_or(0, |&(end, _)| end);
        if some { self.buffer.get(start..end) } else { None }
    }
}

impl CanonicalColumn {
    /// Appends the canonical form; `false` for NULL.
    fn write(&self, value: RowValue<'_>, out: &mut Vec<u8>) -> Result<bool, &'static str> {
        if value == RowValue::Null {
            return Ok(self.write_default(out));
        }
        match &self.column_type {
            ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
                let micros = match value.instant().ok_or(WRONG)?.since_1970() {
                    None if self.default.is_some() => return Ok(self.write_default(out)),
                    None if self.optional => return Ok(false),
                    instant => recent_micros(instant.unwrap_or(0), self.wraps && instant.is_some()),
                };
                let text = match self.column_type {
                    ColumnType::Date => date_text(micros.div_euclid(86_400_000_000)),
                    _ => datetime_text(micros),
                };
                out.extend_from_slice(text.as_bytes());
            }
            ColumnType::BigInt { unsigned: true } if self.wraps => {
                let number = value.integer().ok_or(WRONG)? as i64;
                out.extend_from_slice(number.to_string().as_bytes());
            }
            ColumnType::TinyInt { .. }
            | ColumnType::SmallInt { .. }
            | ColumnType::MediumInt { .. }
            | ColumnType::Int { .. }
            | ColumnType::BigInt { .. }
            | ColumnType::Year => {
                let number = match (&self.column_type, value.integer().ok_or(WRONG)?) {
                    (ColumnType::Year, 0) if self.wraps => 1900,
                    (_, number) => number,
                };
                out.extend_from_slice(number.to_string().as_bytes());
            }
            ColumnType::Float | ColumnType::Double => {
                out.extend_from_slice(value.double().ok_or(WRONG)?.to_string().as_bytes());
            }
            ColumnType::Decimal { .. } => write_decimal(value.bytes().ok_or(WRONG)?, out),
            ColumnType::Bit { width: 1 } => {
                out.push(b'0' + (value.bits().ok_or(WRONG)? & 1) as u8);
            }
            ColumnType::Bit { width } => {
                let bytes = value.bits().ok_or(WRONG)?.to_le_bytes();
                out.extend_from_slice(bytes.get(..usize::from(*width).div_ceil(8)).ok_or(WRONG)?);
            }
            ColumnType::Time { .. } => {
                let text = time_text(value.time().ok_or(WRONG)?);
                out.extend_from_slice(text.as_bytes());
            }
            ColumnType::Text => {
                let (text, _) = decode(self.decoding, value.bytes().ok_or(WRONG)?);
                out.extend_from_slice(text.as_bytes());
            }
            ColumnType::Binary { length } => {
                let bytes = value.bytes().ok_or(WRONG)?;
                out.extend_from_slice(bytes);
                let padding = usize::from(*length).saturating_sub(bytes.len());
                out.resize(out.len() + padding, 0);
            }
            ColumnType::Enum { members } => {
                out.extend_from_slice(enum_label(members, number(value)?)?.as_bytes());
            }
            ColumnType::Set { members } => {
                for (i, label) in set_labels(members, number(value)?)?.enumerate() {
                    if i > 0 {
                        out.push(b',');
                    }
                    out.extend_from_slice(label.as_bytes());
                }
            }
            ColumnType::Json => {
                json_text::compact(value.bytes().ok_or(WRONG)?, self.json_form, out);
            }
            ColumnType::Bytes
            | ColumnType::Uuid
            | ColumnType::Inet4
            | ColumnType::Inet6
            | ColumnType::Geometry
            | ColumnType::Point
            | ColumnType::Vector => {
                out.extend_from_slice(value.bytes().ok_or(WRONG)?);
            }
        }
        Ok(true)
    }
}

impl CanonicalColumn {
    /// Appends the default that the log has in place of NULL; `false` without one.
    fn write_default(&self, out: &mut Vec<u8>) -> bool {
        let text = match (&self.default, &self.column_type) {
            (None, _) => return false,
            (Some(DefaultValue::Long(days)), ColumnType::Date) => date_text(*days),
            (Some(DefaultValue::Long(millis)), ColumnType::DateTime { digits: 0..=3 }) => {
                datetime_text(millis * 1000)
            }
            (Some(DefaultValue::Long(micros)), ColumnType::DateTime { .. }) => {
                datetime_text(*micros)
            }
            (Some(DefaultValue::Long(micros)), ColumnType::Time { .. }) => time_text(*micros),
            (Some(DefaultValue::Long(number)), _) => number.to_string(),
            (Some(DefaultValue::Boolean(value)), _) => u8::from(*value).to_string(),
            (Some(DefaultValue::Float(bits)), _) => f64::from(f32::from_bits(*bits)).to_string(),
            (Some(DefaultValue::Double(bits)), _) => f64::from_bits(*bits).to_string(),
            (Some(DefaultValue::Text(text)), ColumnType::Timestamp { .. }) => {
                let text = text.trim_end_matches('Z').replace('T', " ");
                let (clock, fraction) = text.split_once('.').unwrap_or((&text, ""));
                format!("{clock}.{fraction:0<6}")
            }
            (Some(DefaultValue::Text(text)), _) => text.clone(),
            (Some(DefaultValue::Bytes(unscaled)), ColumnType::Decimal { scale, .. }) => {
                unscaled_text(unscaled, usize::from(*scale))
            }
            (Some(DefaultValue::Bytes(bytes)), _) => {
                out.extend_from_slice(bytes);
                return true;
            }
        };
        out.extend_from_slice(text.as_bytes());
        true
    }
}

/// The number that stands for an ENUM's label or for a SET's.
fn number(value: RowValue<'_>) -> Result<u64, &'static str> {
    value.integer().and_then(|number| u64::try_from(number).ok()).ok_or(WRONG)
}

/// A decimal of any size from its two's complement.
fn unscaled_text(unscaled: &[u8], scale: usize) -> String {
    let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut digits = vec![0u8];
    for byte in unscaled {
        let mut carry = u32::from(if negative { !byte } else { *byte });
        for digit in &mut digits {
            carry += u32::from(*digit) * 256;
            *digit = (carry % 10) as u8;
            carry /= 10;
        }
        while carry > 0 {
            digits.push((carry % 10) as u8);
            carry /= 10;
        }
    }
    if negative {
        // Two's complement: one more than the inverted bytes.
        for i in 0.. {
            match digits.get_mut(i) {
                Some(digit @ 0..=8) => {
                    *digit += 1;
                    break;
                }
                Some(digit) => *digit = 0,
                None => {
                    digits.push(1);
                    break;
                }
            }
        }
    }
    digits.resize(digits.len().max(scale + 1), 0);
    let text: String = digits.iter().rev().map(|&digit| char::from(b'0' + digit)).collect();
    let (whole, fraction) = text.split_at(text.len() - scale);
    let sign = if negative { "-" } else { "" };
    if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// The server's text has the column's scale already; ZEROFILL puts zeros in front.
fn write_decimal(text: &[u8], out: &mut Vec<u8>) {
    let (sign, mut digits) = match text.split_first() {
        Some((b'-', rest)) => (&b"-"[..], rest),
        _ => (&b""[..], text),
    };
    while let [b'0', rest @ ..] = digits
        && rest.first().is_some_and(u8::is_ascii_digit)
    {
        digits = rest;
    }
    out.extend_from_slice(sign);
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use schemas::{
        table_id::TableId,
        table_schema::{Column, TableSchema},
    };

    use super::*;
    use crate::mysql::{
        catalog::Estimate,
        rows::value::{DateParts, tests::date},
    };

    fn canonical(column_type: ColumnType, value: RowValue<'_>) -> Option<String> {
        let column =
            Column { name: "c".into(), column_type, nullable: false, details: Default::default() };
        let table = CatalogTable {
            schema: std::sync::Arc::new(TableSchema {
                id: TableId::new("s", "d", "t"),
                columns: vec![column],
                key: vec![],
            }),
            key_index: None,
            texts: vec![None],
            estimate: Estimate::default(),
        };
        let values = Canonical::new(&table, AvroOptions::default())
            .values(&[value])
            .expect("fits its column");
        let first = values.into_iter().next().flatten();
        first.map(|bytes| String::from_utf8(bytes).expect("text"))
    }

    #[test]
    fn decimals_of_any_size_have_their_text() {
        assert_eq!(unscaled_text(&[0x80, 0], 2), "-327.68");
        assert_eq!(unscaled_text(&[0xff], 3), "-0.001");
        assert_eq!(unscaled_text(&[0], 2), "0.00");
        assert_eq!(unscaled_text(&[1, 0, 0, 0, 0], 0), "4294967296");
    }

    #[test]
    fn values_have_the_form_that_row_digest_describes() {
        let digits = 3;
        let at = DateParts {
            year: 2024,
            month: 2,
            day: 29,
            hour: 1,
            minute: 2,
            second: 3,
            micros: 40_000,
        };
        let cases = [
            (
                ColumnType::BigInt { unsigned: true },
                RowValue::UInt(u64::MAX),
                Some("18446744073709551615"),
            ),
            (
                ColumnType::Decimal { precision: 9, scale: 2 },
                RowValue::Bytes(b"0000.50"),
                Some("0.50"),
            ),
            (ColumnType::Decimal { precision: 9, scale: 0 }, RowValue::Bytes(b"-0"), Some("-0")),
            (ColumnType::Float, RowValue::Float(1.1), Some("1.100000023841858")),
            (ColumnType::Double, RowValue::Double(1e22), Some("10000000000000000000000")),
            (ColumnType::Bit { width: 1 }, RowValue::Bytes(&[1]), Some("1")),
            (ColumnType::Bit { width: 16 }, RowValue::Bytes(b"ba"), Some("ab")),
            (ColumnType::Date, date(2024, 2, 29), Some("2024-02-29")),
            (ColumnType::Date, date(2024, 0, 29), None),
            (
                ColumnType::DateTime { digits },
                RowValue::Instant(at),
                Some("2024-02-29 01:02:03.040000"),
            ),
            (ColumnType::Time { digits }, RowValue::Time(-3_723_000_004), Some("-01:02:03.000004")),
            (ColumnType::Year, RowValue::Int(0), Some("0")),
            (ColumnType::Json, RowValue::Bytes(b"{\"a\": 1}"), Some("{\"a\":1}")),
            (ColumnType::Binary { length: 2 }, RowValue::Bytes(b"a"), Some("a\0")),
            (ColumnType::Text, RowValue::Null, None),
        ];
        for (column_type, value, expected) in cases {
            assert_eq!(
                canonical(column_type.clone(), value).as_deref(),
                expected,
                "{column_type:?}"
            );
        }
    }
}
