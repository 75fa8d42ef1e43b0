//! One row image to one Avro row record.

use std::ops::Range;

use schemas::avro_write::{write_bytes, write_long, write_unscaled};

use super::{
    charset::{Charset, write_text},
    compressed_column::ColumnInflater,
    decimal, json,
    plan::{ColumnPlan, EncodePlan},
    temporal,
};
use crate::binlog::{
    byte_reader::{Malformed, bit, take, take_array, take_le},
    table_map::WireType,
};

/// What encoding keeps from row to row: scratch memory and counts of values that a policy changed.
#[derive(Debug, Default)]
pub struct RowScratch {
    /// Where the headers of the event's records lie in the batch.
    pub(super) headers: Range<usize>,
    /// A changed key as text.
    pub(super) key_text: Vec<u8>,
    /// Where each key part's datum lies in the output, in key order.
    pub key_parts: Vec<Range<usize>>,
    /// Zero or partly zero dates that became NULL or, in columns that cannot be NULL, the epoch.
    pub zero_dates: u64,
    /// Texts with bytes that mean nothing in their character set.
    pub invalid_texts: u64,
    /// `key_parts` of the row before an update.
    pub(super) old_key_parts: Vec<Range<usize>>,
    /// The row after an update that changes the key, on its way into a record of its own.
    pub(super) moved: Vec<u8>,
    /// The table's rows are still being read for the first time.
    pub snapshot_open: bool,
    /// Set while `snapshot_open`: updates without all columns, as indices of their records.
    pub lacking: Vec<usize>,
    /// Set while `snapshot_open`: such an update changed the key.
    pub lacking_moved: bool,
    pub(super) json: Vec<u8>,
    inflate: ColumnInflater,
}

/// Reads one row image from the front of `input` and appends the `Value` record.
#[inline]
pub fn encode_row(
    plan: &EncodePlan,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    scratch: &mut RowScratch,
) -> Result<(), Malformed> {
    let nulls = take(input, plan.columns.len().div_ceil(8))?;
    for (i, column) in plan.columns.iter().enumerate() {
        let is_null = column.nullable && bit(nulls, i);
        if is_null {
            out.extend_from_slice(&column.null);
            continue;
        }
        if column.optional {
            out.push(column.branch);
        }
        let start = out.len();
        encode_value(column, input, out, scratch)?;
        if let Some(part) = column.key_part
            && let Some(range) = scratch.key_parts.get_mut(part)
        {
            *range = start..out.len();
        }
    }
    Ok(())
}

#[inline(always)]
pub(super) fn encode_value(
    column: &ColumnPlan,
    input: &mut &[u8],
    out: &mut Vec<u8>,
    scratch: &mut RowScratch,
) -> Result<(), Malformed> {
    match column.wire {
        WireType::Integer { bytes: 8, unsigned: true } if column.unsigned_as_decimal => {
            write_unscaled(out, u64::from_le_bytes(take_array(input)?).into());
        }
        WireType::Integer { bytes, unsigned } => write_long(out, integer(input, bytes, unsigned)?),
        WireType::Float if column.float_as_double => {
            let value = f32::from_le_bytes(take_array(input)?);
            out.extend_from_slice(&f64::from(value).to_le_bytes());
        }
        WireType::Float => out.extend_from_slice(take(input, 4)?),
        WireType::Double => out.extend_from_slice(take(input, 8)?),
        WireType::Decimal { precision, scale } => decimal::encode(input, precision, scale, out)?,
        WireType::Year => {
            let [year] = take_array::<1>(input)?;
            let zero = year == 0 && !column.debezium_years;
            write_long(out, if zero { 0 } else { 1900 + i64::from(year) });
        }
        WireType::Date => {
            let days = temporal::date(input)?;
            let days = days.map(|days| temporal::recent_days(days, column.debezium_years));
            write_instant(column, days, out, scratch, write_long);
        }
        WireType::Time { digits } => write_long(out, temporal::time(input, digits)?),
        WireType::DateTime { digits } => {
            let micros = temporal::datetime(input, digits)?;
            let micros = micros.map(|at| temporal::recent_micros(at, column.debezium_years));
            write_instant(column, micros, out, scratch, |out, micros| {
                write_long(out, if digits > 3 { micros } else { micros.div_euclid(1000) });
            });
        }
        WireType::Timestamp { digits } => {
            let micros = temporal::timestamp(input, digits)?;
            write_instant(column, micros, out, scratch, |out, micros| {
                temporal::write_zoned(out, micros, digits);
            });
        }
        WireType::Short { length_bytes, maximum, fixed: true } if column.charset.is_none() => {
            let value = take_sized(input, length_bytes)?;
            match column.address {
                Some(address) => address.write_stored(value, out),
                None => write_padded(value, usize::from(maximum), out),
            }
        }
        WireType::Short { length_bytes, .. } => {
            let value = take_sized(input, length_bytes)?;
            write_characters(column, value, out, scratch);
        }
        WireType::Compressed { length_bytes } => {
            let value = take_sized(input, length_bytes)?;
            let inflated = scratch.inflate.inflated(value)?;
            match column.charset {
                Some(charset) => scratch.invalid_texts += write_text(charset, inflated, out),
                None => write_bytes(out, inflated),
            }
        }
        WireType::Blob { length_bytes } => {
            let value = take_sized(input, length_bytes)?;
            write_characters(column, value, out, scratch);
        }
        WireType::Json { length_bytes } => {
            let document = take_sized(input, length_bytes)?;
            scratch.json.clear();
            json::write_document(document, column.json_form, &mut scratch.json)?;
            scratch.invalid_texts += write_text(Charset::Utf8, &scratch.json, out);
        }
        WireType::Geometry { length_bytes, point } => {
            write_geometry(take_sized(input, length_bytes)?, point, out)?;
        }
        WireType::Vector { length_bytes } => write_vector(take_sized(input, length_bytes)?, out)?,
        WireType::Enum { bytes } => {
            let index = take_le(input, usize::from(bytes))? as usize;
            let member = column.members.get(index);
            out.extend_from_slice(member.ok_or(Malformed("an ENUM index has no member"))?);
        }
        WireType::Set { bytes } => {
            write_set(&column.members, take_le(input, usize::from(bytes))?, out)?;
        }
        WireType::Bit { width: 1 } => out.push(take(input, 1)?[0] & 1),
        WireType::Bit { width } => {
            let bytes = usize::from(width).div_ceil(8);
            let value = take(input, bytes)?;
            write_long(out, bytes as i64);
            out.extend(value.iter().rev());
        }
        WireType::Unknown(_) => return Err(Malformed("a column has an unknown type")),
    }
    Ok(())
}

/// Appends what stands for a column that the binlog did not carry: null or, where the type is not optional, its empty
/// value.
pub(super) fn write_empty(column: &ColumnPlan, out: &mut Vec<u8>) {
    if column.optional {
        out.extend_from_slice(&column.null);
        return;
    }
    match column.wire {
        WireType::Integer { bytes: 8, unsigned: true } if column.unsigned_as_decimal => {
            write_unscaled(out, 0);
        }
        WireType::Decimal { .. } => write_unscaled(out, 0),
        WireType::Float if !column.float_as_double => out.extend_from_slice(&[0; 4]),
        WireType::Float | WireType::Double => out.extend_from_slice(&[0; 8]),
        WireType::Timestamp { digits } => temporal::write_zoned(out, 0, digits),
        WireType::Json { .. } => write_bytes(out, b"null"),
        // x, y, WKB, SRID.
        WireType::Geometry { point: true, .. } => {
            out.extend_from_slice(&[0; 16]);
            out.extend_from_slice(&[2, 0, 0]);
        }
        WireType::Geometry { .. } => out.extend_from_slice(&[0, 0]),
        // The number 0, the boolean false, no bytes, no items.
        _ => out.push(0),
    }
}

#[inline(always)]
fn integer(input: &mut &[u8], bytes: u8, unsigned: bool) -> Result<i64, Malformed> {
    let raw = take_le(input, usize::from(bytes))?;
    if unsigned {
        return Ok(raw as i64);
    }
    let shift = 64 - 8 * u32::from(bytes);
    Ok(((raw << shift) as i64) >> shift)
}

#[inline(always)]
fn take_sized<'a>(input: &mut &'a [u8], length_bytes: u8) -> Result<&'a [u8], Malformed> {
    let length = take_le(input, usize::from(length_bytes))?;
    take(input, length as usize)
}

/// Writes what has an instant; otherwise NULL where the schema allows it, and the epoch where it does not.
#[inline(always)]
fn write_instant(
    column: &ColumnPlan,
    instant: Option<i64>,
    out: &mut Vec<u8>,
    scratch: &mut RowScratch,
    write: impl FnOnce(&mut Vec<u8>, i64),
) {
    match instant {
        Some(instant) => write(out, instant),
        None if !column.null.is_empty() => {
            scratch.zero_dates += 1;
            if column.optional {
                // The branch index was written as "a value": take it back.
                out.pop();
            }
            out.extend_from_slice(&column.null);
        }
        None => {
            scratch.zero_dates += 1;
            write(out, 0);
        }
    }
}

#[inline(always)]
fn write_characters(
    column: &ColumnPlan,
    value: &[u8],
    out: &mut Vec<u8>,
    scratch: &mut RowScratch,
) {
    match column.charset {
        Some(charset) => scratch.invalid_texts += write_text(charset, value, out),
        None => write_bytes(out, value),
    }
}

/// The binlog cuts BINARY(n)'s trailing zeros; they are put back.
#[inline]
fn write_padded(value: &[u8], full_length: usize, out: &mut Vec<u8>) {
    let padding = full_length.saturating_sub(value.len());
    write_long(out, (value.len() + padding) as i64);
    out.extend_from_slice(value);
    out.resize(out.len() + padding, 0);
}

/// MySQL stores the SRID in 4 bytes, then WKB.
fn write_geometry(value: &[u8], point: bool, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut wkb = value;
    let srid = u32::from_le_bytes(take_array(&mut wkb)?);
    if point {
        let mut coordinates = wkb.get(5..21).ok_or(Malformed("a POINT has no coordinates"))?;
        out.extend_from_slice(take(&mut coordinates, 16)?);
        out.push(2);
    }
    write_bytes(out, wkb);
    if srid == 0 {
        out.push(0);
    } else {
        out.push(2);
        // The schema's type is Java's int: numbers from 2^31 on keep their bits, as they do there.
        write_long(out, (srid as i32).into());
    }
    Ok(())
}

/// An Avro array of floats in one block; MySQL stores them as IEEE 754, little-endian, as Avro does.
fn write_vector(value: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    if !value.len().is_multiple_of(4) {
        return Err(Malformed("a VECTOR is not a whole number of floats"));
    }
    if !value.is_empty() {
        write_long(out, (value.len() / 4) as i64);
        out.extend_from_slice(value);
    }
    out.push(0);
    Ok(())
}

fn write_set(members: &[Vec<u8>], mask: u64, out: &mut Vec<u8>) -> Result<(), Malformed> {
    if members.len() < 64 && mask >> members.len() != 0 {
        return Err(Malformed("a SET has a bit without a member"));
    }
    let chosen = || members.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1).map(|(_, m)| m);
    let commas = (mask.count_ones() as usize).saturating_sub(1);
    write_long(out, (chosen().map(Vec::len).sum::<usize>() + commas) as i64);
    for (i, member) in chosen().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(member);
    }
    Ok(())
}
