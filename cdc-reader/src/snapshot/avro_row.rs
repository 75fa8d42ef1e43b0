//! A row of the binary protocol to the Avro bytes that the binlog path writes for the same row: from the packet straight
//! into the output, with nothing allocated and no value made in between.

use std::ops::Range;

use schemas::{
    avro_schema::{AvroOptions, default_of, is_double, is_optional},
    avro_write::{write_bytes, write_long, write_unscaled},
    column_type::ColumnType,
    json_text,
    table_schema::TableSchema,
};

use crate::{
    binlog::byte_reader::Malformed,
    encode::{
        charset::{Charset, write_text},
        decimal,
        plan::{null_bytes, value_branch},
        temporal,
    },
    mysql::{
        catalog::CatalogTable,
        rows::value::{
            DateParts, TOO_LONG, ValueKind, bits, is_null, split_row, take_bytes, take_double,
            take_float, take_instant, take_integer, take_time,
        },
    },
};

/// Writes the rows of one table shape.
#[derive(Debug)]
pub struct RowWriter {
    columns: Vec<ColumnWriter>,
    kinds: Vec<ValueKind>,
    key: Vec<usize>,
    /// Zero or partly zero dates so far that became NULL or, where that is not possible, the epoch.
    pub zero_dates: u64,
    /// Texts so far with bytes that mean nothing in their character set.
    pub invalid_texts: u64,
    places: Vec<Places>,
    key_bytes: Vec<u8>,
    scratch: Vec<u8>,
}

/// Where a column's value lies.
#[derive(Clone, Debug, Default)]
struct Places {
    /// In the output, without the union's branch.
    written: Range<usize>,
    /// In the packet, after its bitmap.
    read: Range<usize>,
}

#[derive(Debug)]
struct ColumnWriter {
    name: String,
    column_type: ColumnType,
    kind: ValueKind,
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
        Self::of_schema(table, &table.schema, options)
    }

    /// The same for rows that are written as those of a table without a key; the key is still known, to walk by.
    pub fn without_key(table: &CatalogTable, options: AvroOptions) -> Self {
        let schema = TableSchema { key: Vec::new(), ..TableSchema::clone(&table.schema) };
        Self::of_schema(table, &schema, options)
    }

    fn of_schema(table: &CatalogTable, schema: &TableSchema, options: AvroOptions) -> Self {
        let columns = schema.columns.iter().enumerate().map(|(i, column)| ColumnWriter {
            name: column.name.clone(),
            column_type: column.column_type.clone(),
            kind: ValueKind::Null,
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
            kinds: Vec::new(),
            key: table.schema.key.clone(),
            zero_dates: 0,
            invalid_texts: 0,
            places: vec![Places::default(); schema.columns.len()],
            key_bytes: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Takes note of the form in which the rows that follow come; a form that does not fit the table gives the sentence
    /// that says which.
    pub fn expect(&mut self, kinds: &[ValueKind]) -> Result<(), String> {
        if kinds.len() != self.columns.len() {
            return Err(format!(
                "{} columns instead of {}; the table may have been changed meanwhile",
                kinds.len(),
                self.columns.len()
            ));
        }
        for (column, &kind) in self.columns.iter_mut().zip(kinds) {
            if !column.fits(kind) {
                return Err(format!("column {} holds {WRONG}", column.name));
            }
            column.kind = kind;
        }
        self.kinds.clear();
        self.kinds.extend_from_slice(kinds);
        Ok(())
    }

    /// What was expected.
    pub fn kinds(&self) -> &[ValueKind] {
        &self.kinds
    }

    /// The key columns' values of the row that was written last, as they came, in key order.
    pub fn key_bytes(&self) -> &[u8] {
        &self.key_bytes
    }

    /// Appends a row, given as its packet; a value that does not fit its column gives the sentence that says which. On
    /// an error `out` is as it was.
    pub fn write(&mut self, packet: &[u8], out: &mut Vec<u8>) -> Result<WrittenRow, String> {
        let start = out.len();
        let written = self.write_columns(packet, out);
        let values = written.inspect_err(|_| out.truncate(start))?;
        let row = start..out.len();
        self.key_bytes.clear();
        for &i in &self.key {
            // Key columns are never optional, so the key's bytes are those in the row.
            if let Some(places) = self.places.get(i) {
                out.extend_from_within(places.written.clone());
                let read = values.get(places.read.clone()).unwrap_or_default();
                self.key_bytes.extend_from_slice(read);
            }
        }
        Ok(WrittenRow { key: row.end..out.len(), row })
    }

    /// Answers the packet's values.
    #[inline(always)]
    fn write_columns<'a>(
        &mut self,
        packet: &'a [u8],
        out: &mut Vec<u8>,
    ) -> Result<&'a [u8], String> {
        let (nulls, values) =
            split_row(packet, self.columns.len()).map_err(|error| error.to_string())?;
        let input = &mut { values };
        for ((i, column), places) in self.columns.iter().enumerate().zip(&mut self.places) {
            let read_start = values.len() - input.len();
            let value = (!is_null(nulls, i)).then_some(&mut *input);
            let (written_start, note) = column
                .write(value, out, &mut self.scratch)
                .map_err(|Unfit(what)| format!("column {} holds {what}", column.name))?;
            match note {
                Note::None => {}
                Note::ZeroDate => self.zero_dates += 1,
                Note::InvalidText => self.invalid_texts += 1,
            }
            *places = Places {
                written: written_start..out.len(),
                read: read_start..values.len() - input.len(),
            };
        }
        if input.is_empty() { Ok(values) } else { Err(TOO_LONG.to_string()) }
    }
}

/// What is to be counted of a value.
#[derive(Clone, Copy)]
enum Note {
    None,
    ZeroDate,
    InvalidText,
}

/// A value that its column cannot hold: what it is.
struct Unfit(&'static str);

impl From<Malformed> for Unfit {
    fn from(_: Malformed) -> Self {
        Self("a value that is cut off")
    }
}

const WRONG: &str = "a value of an unexpected kind; the table may have been changed meanwhile";

impl ColumnWriter {
    /// Whether values of this form are written.
    fn fits(&self, kind: ValueKind) -> bool {
        match &self.column_type {
            ColumnType::TinyInt { unsigned: expected }
            | ColumnType::SmallInt { unsigned: expected }
            | ColumnType::MediumInt { unsigned: expected }
            | ColumnType::Int { unsigned: expected }
            | ColumnType::BigInt { unsigned: expected } => {
                matches!(kind, ValueKind::Integer { unsigned, .. } if unsigned == *expected)
            }
            // The labels' numbers.
            ColumnType::Year | ColumnType::Enum { .. } | ColumnType::Set { .. } => {
                matches!(kind, ValueKind::Integer { .. })
            }
            ColumnType::Float if !self.float_as_double => kind == ValueKind::Float,
            ColumnType::Float | ColumnType::Double => {
                matches!(kind, ValueKind::Float | ValueKind::Double)
            }
            ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. } => {
                kind == ValueKind::Instant
            }
            ColumnType::Time { .. } => kind == ValueKind::Time,
            ColumnType::Decimal { .. }
            | ColumnType::Bit { .. }
            | ColumnType::Text
            | ColumnType::Binary { .. }
            | ColumnType::Bytes
            | ColumnType::Uuid
            | ColumnType::Inet4
            | ColumnType::Inet6
            | ColumnType::Json
            | ColumnType::Geometry
            | ColumnType::Point
            | ColumnType::Vector => kind == ValueKind::Bytes,
        }
    }

    /// Writes the value at the front of `input`, or NULL without one; answers where it starts behind the branch.
    #[inline(always)]
    fn write(
        &self,
        input: Option<&mut &[u8]>,
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<(usize, Note), Unfit> {
        let Some(input) = input else {
            if !self.optional {
                return Err(Unfit("NULL although it is declared NOT NULL"));
            }
            out.extend_from_slice(&self.null);
            return Ok((out.len(), Note::None));
        };
        if self.kind == ValueKind::Instant {
            return Ok(self.write_instant(take_instant(input)?, out));
        }
        if self.optional {
            out.push(self.branch);
        }
        let start = out.len();
        match self.kind {
            ValueKind::Integer { bytes, unsigned } => {
                self.write_integer(take_integer(input, bytes, unsigned)?, out)?;
            }
            ValueKind::Float => {
                let number = take_float(input)?;
                if self.float_as_double || self.column_type == ColumnType::Double {
                    out.extend_from_slice(&f64::from(number).to_le_bytes());
                } else {
                    out.extend_from_slice(&number.to_le_bytes());
                }
            }
            ValueKind::Double => out.extend_from_slice(&take_double(input)?.to_le_bytes()),
            ValueKind::Time => write_long(out, take_time(input)?),
            ValueKind::Bytes => {
                let note = self.write_string(take_bytes(input)?, out, scratch)?;
                return Ok((start, note));
            }
            ValueKind::Instant | ValueKind::Null => return Err(Unfit(WRONG)),
        }
        Ok((start, Note::None))
    }

    #[inline(always)]
    fn write_instant(&self, parts: DateParts, out: &mut Vec<u8>) -> (usize, Note) {
        let instant = parts.since_1970();
        if instant.is_none() && !self.null.is_empty() {
            let start = out.len();
            out.extend_from_slice(&self.null);
            return (start, Note::ZeroDate);
        }
        if self.optional {
            out.push(self.branch);
        }
        let start = out.len();
        let adjust = self.debezium_years && instant.is_some();
        let micros = temporal::recent_micros(instant.unwrap_or(0), adjust);
        match self.column_type {
            ColumnType::Date => write_long(out, micros.div_euclid(86_400_000_000)),
            ColumnType::Timestamp { digits } => temporal::write_zoned(out, micros, digits),
            ColumnType::DateTime { digits: 0..=3 } => write_long(out, micros.div_euclid(1000)),
            _ => write_long(out, micros),
        }
        (start, if instant.is_none() { Note::ZeroDate } else { Note::None })
    }

    #[inline(always)]
    fn write_integer(&self, number: u64, out: &mut Vec<u8>) -> Result<(), Unfit> {
        match &self.column_type {
            ColumnType::BigInt { unsigned: true } if self.unsigned_as_decimal => {
                write_unscaled(out, number.into());
            }
            ColumnType::Year if number == 0 && self.debezium_years => write_long(out, 1900),
            ColumnType::Enum { members } => {
                write_bytes(out, enum_label(members, number).map_err(Unfit)?.as_bytes());
            }
            ColumnType::Set { members } => write_set(members, number, out)?,
            // Debezium's `long` wraps above 2^63-1; `unsigned_as_decimal` is the switch that asks for it.
            _ => write_long(out, number as i64),
        }
        Ok(())
    }

    #[inline(always)]
    fn write_string(
        &self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        scratch: &mut Vec<u8>,
    ) -> Result<Note, Unfit> {
        match &self.column_type {
            ColumnType::Text => {
                if write_text(self.decoding, bytes, out) > 0 {
                    return Ok(Note::InvalidText);
                }
            }
            ColumnType::Decimal { scale, .. } => decimal::encode_text(bytes, *scale, out)
                .map_err(|_| Unfit("a number that is no DECIMAL of it"))?,
            ColumnType::Json => {
                scratch.clear();
                json_text::compact(bytes, self.json_form, scratch);
                write_bytes(out, scratch);
            }
            // MariaDB sends UUID, INET4 and INET6 as their text.
            ColumnType::Bytes | ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => {
                write_bytes(out, bytes);
            }
            ColumnType::Binary { length } => {
                let padding = usize::from(*length).saturating_sub(bytes.len());
                write_long(out, (bytes.len() + padding) as i64);
                out.extend_from_slice(bytes);
                out.resize(out.len() + padding, 0);
            }
            ColumnType::Bit { width: 1 } => out.push((bits(bytes).ok_or(Unfit(WRONG))? & 1) as u8),
            ColumnType::Bit { width } => {
                let number = bits(bytes).ok_or(Unfit(WRONG))?.to_le_bytes();
                let length = usize::from(*width).div_ceil(8);
                write_bytes(out, number.get(..length).ok_or(Unfit(WRONG))?);
            }
            ColumnType::Geometry => write_geometry(bytes, false, out).map_err(Unfit)?,
            ColumnType::Point => write_geometry(bytes, true, out).map_err(Unfit)?,
            ColumnType::Vector => write_vector(bytes, out).map_err(Unfit)?,
            _ => return Err(Unfit(WRONG)),
        }
        Ok(Note::None)
    }
}

/// The label of an ENUM's number; 0 is the empty text that stands for an error.
pub fn enum_label(members: &[String], number: u64) -> Result<&str, &'static str> {
    match usize::try_from(number).map_err(|_| WRONG)? {
        0 => Ok(""),
        index => {
            members.get(index - 1).map(String::as_str).ok_or("an ENUM number without a member")
        }
    }
}

/// The labels of a SET's bits, in the order of its members.
pub fn set_labels(
    members: &[String],
    mask: u64,
) -> Result<impl Iterator<Item = &str> + Clone, &'static str> {
    if members.len() < 64 && mask >> members.len() != 0 {
        return Err("a SET bit without a member");
    }
    let chosen = members.iter().take(64).enumerate().filter(move |(i, _)| mask >> i & 1 == 1);
    Ok(chosen.map(|(_, member)| member.as_str()))
}

/// With commas between the labels.
fn write_set(members: &[String], mask: u64, out: &mut Vec<u8>) -> Result<(), Unfit> {
    let labels = set_labels(members, mask).map_err(Unfit)?;
    let length: usize = labels.clone().map(|label| label.len() + 1).sum();
    write_long(out, length.saturating_sub(1) as i64);
    for (i, label) in labels.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(label.as_bytes());
    }
    Ok(())
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
mod tests;
