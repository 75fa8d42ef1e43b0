//! A batch's column in canonical form: each value's bytes, one after the other, without an allocation per value.

use std::io::Write;

use arrow::{
    array::{Array, ArrayRef, AsArray},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
        Int64Type, TimestampMicrosecondType,
    },
};
use schemas::row_digest::{date_text, datetime_text};

use crate::decode::decimal;

/// The canonical values of a column; cheap to ask for one.
#[derive(Debug, Default)]
pub struct CanonicalColumn {
    bytes: Vec<u8>,
    /// Where each row's value ends.
    ends: Vec<usize>,
    nulls: Vec<bool>,
}

impl CanonicalColumn {
    /// Brings a column into canonical form, in the memory of an earlier one.
    pub fn fill(&mut self, column: &ArrayRef) {
        self.bytes.clear();
        self.ends.clear();
        self.nulls.clear();
        for row in 0..column.len() {
            let is_null = column.is_null(row);
            if !is_null {
                write_value(column, row, &mut self.bytes);
            }
            self.nulls.push(is_null);
            self.ends.push(self.bytes.len());
        }
    }

    /// Makes every row NULL.
    pub fn fill_null(&mut self, rows: usize) {
        self.bytes.clear();
        self.ends.clear();
        self.nulls.clear();
        self.ends.resize(rows, 0);
        self.nulls.resize(rows, true);
    }

    /// A row's value; `None` for NULL.
    pub fn value(&self, row: usize) -> Option<&[u8]> {
        if self.nulls.get(row).copied().unwrap_or(true) {
            return None;
        }
        let start = if row == 0 { 0 } else { *self.ends.get(row - 1)? };
        self.bytes.get(start..*self.ends.get(row)?)
    }
}

fn write_value(column: &ArrayRef, row: usize, out: &mut Vec<u8>) {
    // Writing to a vector never fails.
    let _ = match column.data_type() {
        DataType::Int16 => write!(out, "{}", column.as_primitive::<Int16Type>().value(row)),
        DataType::Int32 => write!(out, "{}", column.as_primitive::<Int32Type>().value(row)),
        DataType::Int64 => write!(out, "{}", column.as_primitive::<Int64Type>().value(row)),
        DataType::Float32 => {
            write!(out, "{}", f64::from(column.as_primitive::<Float32Type>().value(row)))
        }
        DataType::Float64 => write!(out, "{}", column.as_primitive::<Float64Type>().value(row)),
        DataType::Boolean => {
            out.write_all(if column.as_boolean().value(row) { b"1" } else { b"0" })
        }
        DataType::Utf8 => out.write_all(column.as_string::<i32>().value(row).as_bytes()),
        DataType::Binary => out.write_all(column.as_binary::<i32>().value(row)),
        DataType::Date32 => {
            let days = column.as_primitive::<Date32Type>().value(row);
            out.write_all(date_text(days.into()).as_bytes())
        }
        DataType::Timestamp(_, _) => {
            let micros = column.as_primitive::<TimestampMicrosecondType>().value(row);
            out.write_all(datetime_text(micros).as_bytes())
        }
        DataType::Decimal128(_, scale) => {
            let value = column.as_primitive::<Decimal128Type>().value(row);
            decimal::write_text(value, u32::try_from(*scale).unwrap_or(0), out);
            Ok(())
        }
        DataType::Struct(_) => {
            let geometry = column.as_struct();
            let srid = geometry.column(1).as_primitive::<Int32Type>();
            let srid = if srid.is_null(row) { 0 } else { srid.value(row) };
            let wkb = geometry.column(0).as_binary::<i32>();
            let wkb = if wkb.is_null(row) { &[] } else { wkb.value(row) };
            out.write_all(&srid.to_le_bytes()).and_then(|()| out.write_all(wkb))
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            for item in items.as_primitive::<Float32Type>().values() {
                out.extend_from_slice(&item.to_le_bytes());
            }
            Ok(())
        }
        _ => Ok(()),
    };
}
