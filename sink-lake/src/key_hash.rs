//! A key as 128 bits: one function over Arrow columns, used for decoded records and for the lake's files alike, so that
//! both give the same hash. Integers of all widths hash alike, so that widening a key column keeps its hashes.
//! Two of a billion keys collide with a probability of about 10^-21.

use std::hash::{BuildHasherDefault, Hasher};

use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
        Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
        TimestampMicrosecondArray,
    },
    datatypes::DataType,
};
use xxhash_rust::xxh3::xxh3_128;

/// A key's hash.
pub type KeyHash = u128;

/// For hash maps whose keys are hashes already.
pub type KeyHashBuilder = BuildHasherDefault<KeyHasher>;

/// Takes the low half of a [`KeyHash`].
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

/// The hashes of all rows' keys; the error names a key column that is not there or can't be one.
pub fn key_hashes(rows: &RecordBatch, key: &[String]) -> Result<Vec<KeyHash>, String> {
    let columns = key
        .iter()
        .map(|name| {
            let column =
                rows.schema_ref().fields().iter().position(|field| {
                    field.name() == name || field.name().eq_ignore_ascii_case(name)
                });
            let column = column.ok_or_else(|| format!("key column {name} is not in its rows"))?;
            KeyColumn::of(rows.column(column)).ok_or_else(|| {
                let data_type = rows.column(column).data_type();
                format!("key column {name} has type {data_type}, which can't be a key")
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    let mut buffer = Vec::with_capacity(64);
    let hash = |row: usize| {
        buffer.clear();
        for column in &columns {
            column.write(row, &mut buffer);
        }
        xxh3_128(&buffer)
    };
    Ok((0..rows.num_rows()).map(hash).collect())
}

enum KeyColumn<'a> {
    Int16(&'a Int16Array),
    Int32(&'a Int32Array),
    Int64(&'a Int64Array),
    Date(&'a Date32Array),
    Timestamp(&'a TimestampMicrosecondArray),
    Decimal(&'a Decimal128Array),
    Boolean(&'a BooleanArray),
    Float32(&'a Float32Array),
    Float64(&'a Float64Array),
    Text(&'a StringArray),
    Binary(&'a BinaryArray),
}

impl<'a> KeyColumn<'a> {
    fn of(column: &'a ArrayRef) -> Option<Self> {
        let any = column.as_any();
        Some(match column.data_type() {
            DataType::Int16 => Self::Int16(any.downcast_ref()?),
            DataType::Int32 => Self::Int32(any.downcast_ref()?),
            DataType::Int64 => Self::Int64(any.downcast_ref()?),
            DataType::Date32 => Self::Date(any.downcast_ref()?),
            DataType::Timestamp(_, _) => Self::Timestamp(any.downcast_ref()?),
            DataType::Decimal128(_, _) => Self::Decimal(any.downcast_ref()?),
            DataType::Boolean => Self::Boolean(any.downcast_ref()?),
            DataType::Float32 => Self::Float32(any.downcast_ref()?),
            DataType::Float64 => Self::Float64(any.downcast_ref()?),
            DataType::Utf8 => Self::Text(any.downcast_ref()?),
            DataType::Binary => Self::Binary(any.downcast_ref()?),
            _ => return None,
        })
    }

    #[inline]
    fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.array().is_null(row) {
            out.push(0);
            return;
        }
        match self {
            Self::Int16(values) => write_integer(values.value(row).into(), out),
            Self::Int32(values) => write_integer(values.value(row).into(), out),
            Self::Int64(values) => write_integer(values.value(row), out),
            Self::Date(values) => write_integer(values.value(row).into(), out),
            Self::Timestamp(values) => write_integer(values.value(row), out),
            Self::Boolean(values) => write_integer(values.value(row).into(), out),
            Self::Decimal(values) => {
                out.push(2);
                out.extend_from_slice(&values.value(row).to_le_bytes());
            }
            Self::Float32(values) => write_float(values.value(row).into(), out),
            Self::Float64(values) => write_float(values.value(row), out),
            Self::Text(values) => write_bytes(values.value(row).as_bytes(), out),
            Self::Binary(values) => write_bytes(values.value(row), out),
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Int16(values) => *values,
            Self::Int32(values) => *values,
            Self::Int64(values) => *values,
            Self::Date(values) => *values,
            Self::Timestamp(values) => *values,
            Self::Decimal(values) => *values,
            Self::Boolean(values) => *values,
            Self::Float32(values) => *values,
            Self::Float64(values) => *values,
            Self::Text(values) => *values,
            Self::Binary(values) => *values,
        }
    }
}

fn write_integer(value: i64, out: &mut Vec<u8>) {
    out.push(1);
    out.extend_from_slice(&value.to_le_bytes());
}

fn write_float(value: f64, out: &mut Vec<u8>) {
    out.push(3);
    out.extend_from_slice(&value.to_bits().to_le_bytes());
}

fn write_bytes(value: &[u8], out: &mut Vec<u8>) {
    out.push(4);
    out.extend_from_slice(&(value.len() as u64).to_le_bytes());
    out.extend_from_slice(value);
}
