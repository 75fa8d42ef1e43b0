//! A row of the binary protocol to the Avro bytes that the binlog path writes for the same row.

use std::ops::Range;

use mysql_async::Value;
use schemas::{
    avro_schema::{AvroOptions, default_of, is_double, is_optional},
    avro_write::{write_bytes, write_long, write_unscaled},
    column_type::ColumnType,
    json_text,
};

use super::server_value as sv;
use crate::{
    encode::{
        charset::{Charset, write_text},
        decimal,
        plan::{null_bytes, value_branch},
        temporal,
    },
    mysql::catalog::CatalogTable,
};

/// Writes the rows of one table shape.
#[derive(Debug)]
pub struct RowWriter {
    columns: Vec<ColumnWriter>,
    key: Vec<usize>,
    /// Zero or partly zero dates so far that became NULL or, where that is not possible, the epoch.
    pub zero_dates: u64,
    /// Texts so far with bytes that mean nothing in their character set.
    pub invalid_texts: u64,
    // Where each column's value lies in the output, without the union's branch.
    places: Vec<Range<usize>>,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct ColumnWriter {
    name: String,
    column_type: ColumnType,
    optional: bool,
    /// The byte in front of a value in a union with null.
    branch: u8,
    /// What NULL and, in a column that is no union, a zero date is written as; empty for the epoch.
    null: Vec<u8>,
    float_as_double: bool,
    debezium_years: bool,
    decoding: Charset,
    unsigned_as_decimal: bool,
    json_form: json_text::JsonForm,
}

/// Where a row's key datum and row datum lie in the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenRow {
    /// The key record; empty for a table without a key.
    pub key: Range<usize>,
    /// The `Value` record.
    pub row: Range<usize>,
}

impl RowWriter {
    /// Prepares for a table.
    pub fn new(table: &CatalogTable, options: AvroOptions) -> Self {
        let schema = &table.schema;
        let columns = schema.columns.iter().enumerate().map(|(i, column)| ColumnWriter {
            name: column.name.clone(),
            column_type: column.column_type.clone(),
            optional: is_optional(schema, i, options),
            branch: value_branch(default_of(column, options)),
            null: null_bytes(default_of(column, options), is_optional(schema, i, options)),
            float_as_double: is_double(column, options),
            debezium_years: options.debezium_compat,
            decoding: table
                .texts
                .get(i)
                .and_then(Option::as_ref)
                .map_or(Charset::Utf8, |t| t.decoding),
            unsigned_as_decimal: !options.debezium_compat,
            json_form: options.json_form(),
        });
        Self {
            columns: columns.collect(),
            key: schema.key.clone(),
            zero_dates: 0,
            invalid_texts: 0,
            places: vec![0..0; schema.columns.len()],
            scratch: Vec::new(),
        }
    }

    /// Appends a row; a value that does not fit its column gives the sentence that says which. On an error `out` is as
    /// it was.
    pub fn write(
        &mut self,
        values: &[Option<Value>],
        out: &mut Vec<u8>,
    ) -> Result<WrittenRow, String> {
        let start = out.len();
        for (i, column) in self.columns.iter().enumerate() {
            let value = values.get(i).and_then(Option::as_ref).unwrap_or(&Value::NULL);
            let scratch = &mut self.scratch;
            match column.write(value, out, scratch) {
                Ok(Written { value_start, zero_date, invalid_texts }) => {
                    self.zero_dates += u64::from(zero_date);
                    self.invalid_texts += invalid_texts;
                    if let Some(place) = self.places.get_mut(i) {
                        *place = value_start..out.len();
                    }
                }
                Err(what) => {
                    out.truncate(start);
                    return Err(format!("column {} holds {what}", column.name));
                }
            }
        }
        let row = start..out.len();
        for &i in &self.key {
            // Key columns are never optional, so the key's bytes are those in the row.
            if let Some(place) = self.places.get(i) {
                out.extend_from_within(place.clone());
            }
        }
        Ok(WrittenRow { key: row.end..out.len(), row })
    }
}

struct Written {
    value_start: usize,
    zero_date: bool,
    /// 0 or 1.
    invalid_texts: u64,
}

const WRONG: &str = "a value of an unexpected kind; the table may have been changed meanwhile";

impl ColumnWriter {
    fn write(
        &self,
        value: &Value,
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<Written, &'static str> {
        if *value == Value::NULL {
            if !self.optional {
                return Err("NULL although it is declared NOT NULL");
            }
            out.extend_from_slice(&self.null);
            return Ok(Written { value_start: out.len(), zero_date: false, invalid_texts: 0 });
        }
        let instant = match &self.column_type {
            ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
                Some(sv::instant_micros(value).ok_or(WRONG)?)
            }
            _ => None,
        };
        let zero_date = instant == Some(None);
        if zero_date && !self.null.is_empty() {
            let value_start = out.len();
            out.extend_from_slice(&self.null);
            return Ok(Written { value_start, zero_date, invalid_texts: 0 });
        }
        if self.optional {
            out.push(self.branch);
        }
        let value_start = out.len();
        let mut invalid_texts = 0;
        match instant {
            Some(micros) => {
                let adjust = self.debezium_years && micros.is_some();
                self.write_instant(temporal::recent_micros(micros.unwrap_or(0), adjust), out);
            }
            None => invalid_texts = self.write_value(value, out, scratch)?,
        }
        Ok(Written { value_start, zero_date, invalid_texts })
    }

    fn write_instant(&self, micros: i64, out: &mut Vec<u8>) {
        match self.column_type {
            ColumnType::Date => write_long(out, micros.div_euclid(86_400_000_000)),
            ColumnType::Timestamp { digits } => temporal::write_zoned(out, micros, digits),
            ColumnType::DateTime { digits: 0..=3 } => write_long(out, micros.div_euclid(1000)),
            _ => write_long(out, micros),
        }
    }

    /// Answers how many texts (0 or 1) had bytes that mean nothing.
    fn write_value(
        &self,
        value: &Value,
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<u64, &'static str> {
        match &self.column_type {
            ColumnType::BigInt { unsigned: true } if self.unsigned_as_decimal => {
                write_unscaled(out, sv::integer(value).ok_or(WRONG)?);
            }
            ColumnType::TinyInt { .. }
            | ColumnType::SmallInt { .. }
            | ColumnType::MediumInt { .. }
            | ColumnType::Int { .. }
            // Debezium's `long` wraps above 2^63-1; this is the switch that asks for it.
            | ColumnType::BigInt { .. } => write_long(out, sv::integer(value).ok_or(WRONG)? as i64),
            ColumnType::Year => match sv::integer(value).ok_or(WRONG)? as i64 {
                0 if self.debezium_years => write_long(out, 1900),
                year => write_long(out, year),
            },
            ColumnType::Float if self.float_as_double => {
                out.extend_from_slice(&sv::double(value).ok_or(WRONG)?.to_le_bytes());
            }
            ColumnType::Float => match value {
                Value::Float(number) => out.extend_from_slice(&number.to_le_bytes()),
                _ => return Err(WRONG),
            },
            ColumnType::Double => out.extend_from_slice(&sv::double(value).ok_or(WRONG)?.to_le_bytes()),
            ColumnType::Decimal { scale, .. } => {
                let text = sv::bytes(value).ok_or(WRONG)?;
                decimal::encode_text(text, *scale, out).map_err(|_| "a number that is no DECIMAL of it")?;
            }
            ColumnType::Bit { width: 1 } => out.push((sv::bits(value).ok_or(WRONG)? & 1) as u8),
            ColumnType::Bit { width } => {
                let bytes = usize::from(*width).div_ceil(8);
                let number = sv::bits(value).ok_or(WRONG)?.to_le_bytes();
                write_bytes(out, number.get(..bytes).ok_or(WRONG)?);
            }
            ColumnType::Time { .. } => write_long(out, sv::time_micros(value).ok_or(WRONG)?),
            ColumnType::Text => {
                return Ok(write_text(self.decoding, sv::bytes(value).ok_or(WRONG)?, out));
            }
            ColumnType::Binary { length } => {
                let bytes = sv::bytes(value).ok_or(WRONG)?;
                let padding = usize::from(*length).saturating_sub(bytes.len());
                write_long(out, (bytes.len() + padding) as i64);
                out.extend_from_slice(bytes);
                out.resize(out.len() + padding, 0);
            }
            // MariaDB sends these as their text.
            ColumnType::Bytes | ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => write_bytes(out, sv::bytes(value).ok_or(WRONG)?),
            ColumnType::Enum { members } => write_bytes(out, enum_label(members, value)?.as_bytes()),
            ColumnType::Set { members } => write_bytes(out, set_labels(members, value)?.as_bytes()),
            ColumnType::Json => {
                scratch.clear();
                json_text::compact(sv::bytes(value).ok_or(WRONG)?, self.json_form, scratch);
                write_bytes(out, scratch);
            }
            ColumnType::Geometry => write_geometry(sv::bytes(value).ok_or(WRONG)?, false, out)?,
            ColumnType::Point => write_geometry(sv::bytes(value).ok_or(WRONG)?, true, out)?,
            ColumnType::Vector => write_vector(sv::bytes(value).ok_or(WRONG)?, out)?,
            ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
                return Err(WRONG);
            }
        }
        Ok(0)
    }
}

/// The label of an ENUM's number; 0 is the empty text that stands for an error.
pub fn enum_label<'a>(members: &'a [String], value: &Value) -> Result<&'a str, &'static str> {
    match sv::integer(value).and_then(|index| usize::try_from(index).ok()).ok_or(WRONG)? {
        0 => Ok(""),
        index => {
            members.get(index - 1).map(String::as_str).ok_or("an ENUM number without a member")
        }
    }
}

/// The labels of a SET's bits, in the order of its members, with commas.
pub fn set_labels(members: &[String], value: &Value) -> Result<String, &'static str> {
    let mask = sv::integer(value).and_then(|mask| u64::try_from(mask).ok()).ok_or(WRONG)?;
    if members.len() < 64 && mask >> members.len() != 0 {
        return Err("a SET bit without a member");
    }
    let chosen: Vec<&str> = members
        .iter()
        .enumerate()
        .filter(|(i, _)| mask >> i & 1 == 1)
        .map(|(_, member)| member.as_str())
        .collect();
    Ok(chosen.join(","))
}

/// MySQL gives the SRID in 4 bytes, least significant first, then WKB.
fn write_geometry(value: &[u8], point: bool, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let (srid, wkb) = value.split_first_chunk::<4>().ok_or("a geometry of under 4 bytes")?;
    if point {
        out.extend_from_slice(wkb.get(5..21).ok_or("a POINT without coordinates")?);
        out.push(2);
    }
    write_bytes(out, wkb);
    match u32::from_le_bytes(*srid) {
        0 => out.push(0),
        srid => {
            out.push(2);
            write_long(out, srid.into());
        }
    }
    Ok(())
}

fn write_vector(value: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    if !value.len().is_multiple_of(4) {
        return Err("a VECTOR that is not a whole number of floats");
    }
    if !value.is_empty() {
        write_long(out, (value.len() / 4) as i64);
        out.extend_from_slice(value);
    }
    out.push(0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use schemas::{
        table_id::TableId,
        table_schema::{Column, TableSchema},
    };

    use super::*;
    use crate::mysql::catalog::Estimate;

    fn table(column_type: ColumnType, nullable: bool) -> CatalogTable {
        let key = Column {
            name: "id".into(),
            column_type: ColumnType::Int { unsigned: false },
            nullable: false,
            details: Default::default(),
        };
        CatalogTable {
            schema: std::sync::Arc::new(TableSchema {
                id: TableId::new("s", "d", "t"),
                columns: vec![
                    Column { name: "c".into(), column_type, nullable, details: Default::default() },
                    key,
                ],
                key: vec![1],
            }),
            key_index: None,
            texts: vec![None, None],
            estimate: Estimate::default(),
        }
    }

    fn written(column_type: ColumnType, value: Value) -> Result<Vec<u8>, String> {
        let mut writer = RowWriter::new(&table(column_type, false), AvroOptions::default());
        let mut out = Vec::new();
        let places = writer.write(&[Some(value), Some(Value::Int(3))], &mut out)?;
        assert_eq!(out[places.key.clone()], [6]);
        assert_eq!(places.row.end, places.key.start);
        let row = &out[places.row];
        Ok(row[..row.len() - 1].to_vec())
    }

    #[test]
    fn values_have_the_bytes_of_the_binlog_path() {
        let point =
            [&[0xe6, 0x10, 0, 0, 1, 1, 0, 0, 0][..], &1.5f64.to_le_bytes(), &2.0f64.to_le_bytes()]
                .concat();
        let mut point_bytes = [&1.5f64.to_le_bytes()[..], &2.0f64.to_le_bytes(), &[2, 42]].concat();
        point_bytes.extend_from_slice(&point[4..]);
        point_bytes.extend_from_slice(&[2, 0xcc, 0x43]);
        let members = || vec!["a".to_owned(), "b,c".to_owned()];
        let cases: Vec<(ColumnType, Value, Vec<u8>)> = vec![
            (
                ColumnType::BigInt { unsigned: true },
                Value::UInt(u64::MAX),
                [&[18, 0][..], &[0xff; 8]].concat(),
            ),
            (ColumnType::Bit { width: 1 }, Value::Bytes(vec![1]), vec![1]),
            (ColumnType::Bit { width: 9 }, Value::Bytes(vec![1, 2]), vec![4, 2, 1]),
            (ColumnType::Binary { length: 3 }, Value::Bytes(vec![7]), vec![6, 7, 0, 0]),
            (ColumnType::Enum { members: members() }, Value::Int(0), vec![0]),
            (ColumnType::Set { members: members() }, Value::Int(3), b"\x0aa,b,c".to_vec()),
            (ColumnType::Json, Value::Bytes(b"[1, 2]".to_vec()), b"\x0a[1,2]".to_vec()),
            (
                ColumnType::Decimal { precision: 5, scale: 2 },
                Value::Bytes(b"-1.00".to_vec()),
                vec![2, 0x9c],
            ),
            (ColumnType::Date, Value::Date(1970, 1, 3, 0, 0, 0, 0), vec![2, 4]),
            (ColumnType::DateTime { digits: 0 }, Value::Date(0, 0, 0, 0, 0, 0, 0), vec![0]),
            (
                ColumnType::Timestamp { digits: 1 },
                Value::Date(2018, 6, 20, 13, 37, 3, 500_000),
                b"\x02\x2c2018-06-20T13:37:03.5Z".to_vec(),
            ),
            (ColumnType::Point, Value::Bytes(point), point_bytes),
            (ColumnType::Vector, Value::Bytes(vec![0, 0, 128, 63]), vec![2, 0, 0, 128, 63, 0]),
        ];
        for (column_type, value, expected) in cases {
            assert_eq!(written(column_type.clone(), value), Ok(expected), "{column_type:?}");
        }
    }

    #[test]
    fn broken_texts_are_counted() {
        let mut writer = RowWriter::new(&table(ColumnType::Text, false), AvroOptions::default());
        for text in ["whole".as_bytes(), b"br\xffken"] {
            let values = [Some(Value::Bytes(text.to_vec())), Some(Value::Int(3))];
            writer.write(&values, &mut Vec::new()).expect("is written");
        }
        assert_eq!(writer.invalid_texts, 1);
    }

    #[test]
    fn value_of_another_kind_names_its_column() {
        let error = written(ColumnType::Year, Value::Bytes(vec![1])).expect_err("no number");
        assert!(error.starts_with("column c holds a value of an unexpected kind"), "{error}");
        assert!(written(ColumnType::Year, Value::NULL).is_err());
    }
}
