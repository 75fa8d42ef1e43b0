//! A growing column that can be cut back to an earlier row, so that half a record leaves nothing behind, and that
//! becomes an Arrow array without copying.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, Date32Array, Decimal128Array,
        Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, ListArray, StringArray,
        StructArray, TimestampMicrosecondArray,
    },
    buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Field, Fields},
    error::ArrowError,
};

use super::super::delta::arrow_types::{UTC, geometry_fields, list_item};

/// NULLs so far: nothing is kept until the first one comes.
#[derive(Debug, Default)]
pub struct Validity {
    bits: Option<BooleanBufferBuilder>,
    rows: usize,
}

/// Values of one encoding.
#[derive(Debug)]
pub enum Values {
    /// `short`.
    Int16(Vec<i16>),
    /// `int`.
    Int32(Vec<i32>),
    /// `date`.
    Date(Vec<i32>),
    /// `long`.
    Int64(Vec<i64>),
    /// `timestamp`.
    Timestamp(Vec<i64>),
    /// `decimal(precision, scale)`.
    Decimal(Vec<i128>, u8, i8),
    /// `float`.
    Float32(Vec<f32>),
    /// `double`.
    Float64(Vec<f64>),
    /// `boolean`.
    Boolean(BooleanBufferBuilder),
    /// `string`.
    Text(Bytes),
    /// `binary`.
    Binary(Bytes),
    /// `struct{wkb, srid}`.
    Geometry {
        /// Well-known binary.
        wkb: Bytes,
        /// Which of them are there.
        wkb_validity: Validity,
        /// Spatial reference.
        srid: Vec<i32>,
        /// Which of them are there.
        srid_validity: Validity,
    },
    /// `array<float>`.
    Floats {
        /// Where each row's floats end.
        ends: Vec<i32>,
        /// All floats.
        items: Vec<f32>,
    },
}

/// Byte strings one after the other.
#[derive(Debug)]
pub struct Bytes {
    ends: Vec<i32>,
    data: Vec<u8>,
}

/// A column.
#[derive(Debug)]
pub struct ColumnBuilder {
    /// Its NULLs.
    pub validity: Validity,
    /// Its values; NULL rows hold a placeholder.
    pub values: Values,
}

impl Validity {
    /// Adds a row.
    #[inline(always)]
    pub fn push(&mut self, valid: bool) {
        if let Some(bits) = &mut self.bits {
            bits.append(valid);
        } else if !valid {
            let mut bits = BooleanBufferBuilder::new(1024.max(self.rows + 1));
            bits.append_n(self.rows, true);
            bits.append(false);
            self.bits = Some(bits);
        }
        self.rows += 1;
    }

    fn truncate(&mut self, rows: usize) {
        if let Some(bits) = &mut self.bits {
            bits.truncate(rows.min(self.rows));
        }
        self.rows = self.rows.min(rows);
    }

    fn finish(&mut self) -> Option<NullBuffer> {
        self.rows = 0;
        self.bits.take().map(|bits| NullBuffer::new(bits.build()))
    }
}

impl Default for Bytes {
    fn default() -> Self {
        Self { ends: vec![0], data: Vec::new() }
    }
}

impl Bytes {
    /// Adds a value; `None` when the column would pass 2 GB, Arrow's limit.
    #[inline(always)]
    pub fn push(&mut self, value: &[u8]) -> Option<()> {
        self.data.extend_from_slice(value);
        self.end_row()
    }

    /// The bytes, to write a value's text at their end; `end_row` completes the row.
    pub fn data_mut(&mut self) -> &mut Vec<u8> {
        &mut self.data
    }

    /// Ends the row whose bytes were written through `data_mut`.
    pub fn end_row(&mut self) -> Option<()> {
        self.ends.push(i32::try_from(self.data.len()).ok()?);
        Some(())
    }

    fn truncate(&mut self, rows: usize) {
        self.ends.truncate(rows + 1);
        self.data.truncate(self.ends.last().map_or(0, |&end| end as usize));
    }

    fn finish(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let bytes = std::mem::take(self);
        (OffsetBuffer::new(ScalarBuffer::from(bytes.ends)), Buffer::from_vec(bytes.data))
    }
}

impl ColumnBuilder {
    /// A column of `data_type`; `None` for a type that no lake column has.
    pub fn new(data_type: &DataType) -> Option<Self> {
        let values = match data_type {
            DataType::Int16 => Values::Int16(Vec::new()),
            DataType::Int32 => Values::Int32(Vec::new()),
            DataType::Int64 => Values::Int64(Vec::new()),
            DataType::Date32 => Values::Date(Vec::new()),
            DataType::Timestamp(_, _) => Values::Timestamp(Vec::new()),
            DataType::Decimal128(p, s) => Values::Decimal(Vec::new(), *p, *s),
            DataType::Float32 => Values::Float32(Vec::new()),
            DataType::Float64 => Values::Float64(Vec::new()),
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(1024)),
            DataType::Utf8 => Values::Text(Bytes::default()),
            DataType::Binary => Values::Binary(Bytes::default()),
            DataType::Struct(_) => Values::Geometry {
                wkb: Bytes::default(),
                wkb_validity: Validity::default(),
                srid: Vec::new(),
                srid_validity: Validity::default(),
            },
            DataType::List(_) => Values::Floats { ends: vec![0], items: Vec::new() },
            _ => return None,
        };
        Some(Self { validity: Validity::default(), values })
    }

    /// Adds a NULL.
    #[inline(always)]
    pub fn push_null(&mut self) {
        match &mut self.values {
            Values::Int16(values) => values.push(0),
            Values::Int32(values) | Values::Date(values) => values.push(0),
            Values::Int64(values) | Values::Timestamp(values) => values.push(0),
            Values::Decimal(values, _, _) => values.push(0),
            Values::Float32(values) => values.push(0.0),
            Values::Float64(values) => values.push(0.0),
            Values::Boolean(values) => values.append(false),
            Values::Text(bytes) | Values::Binary(bytes) => {
                bytes.ends.push(bytes.ends.last().copied().unwrap_or(0));
            }
            Values::Geometry { wkb, wkb_validity, srid, srid_validity } => {
                wkb.ends.push(wkb.ends.last().copied().unwrap_or(0));
                wkb_validity.push(false);
                srid.push(0);
                srid_validity.push(false);
            }
            Values::Floats { ends, .. } => ends.push(ends.last().copied().unwrap_or(0)),
        }
        self.validity.push(false);
    }

    /// Cuts the column back to its first `rows` rows, also when the last row is there in part.
    pub fn truncate(&mut self, rows: usize) {
        match &mut self.values {
            Values::Int16(values) => values.truncate(rows),
            Values::Int32(values) | Values::Date(values) => values.truncate(rows),
            Values::Int64(values) | Values::Timestamp(values) => values.truncate(rows),
            Values::Decimal(values, _, _) => values.truncate(rows),
            Values::Float32(values) => values.truncate(rows),
            Values::Float64(values) => values.truncate(rows),
            Values::Boolean(values) => values.truncate(rows.min(values.len())),
            Values::Text(bytes) | Values::Binary(bytes) => bytes.truncate(rows),
            Values::Geometry { wkb, wkb_validity, srid, srid_validity } => {
                wkb.truncate(rows);
                wkb_validity.truncate(rows);
                srid.truncate(rows);
                srid_validity.truncate(rows);
            }
            Values::Floats { ends, items } => {
                ends.truncate(rows + 1);
                items.truncate(ends.last().map_or(0, |&end| end as usize));
            }
        }
        self.validity.truncate(rows);
    }

    /// The column as an array; the builder is empty afterwards.
    pub fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let nulls = self.validity.finish();
        Ok(match &mut self.values {
            Values::Int16(values) => Arc::new(Int16Array::try_new(taken(values), nulls)?),
            Values::Int32(values) => Arc::new(Int32Array::try_new(taken(values), nulls)?),
            Values::Date(values) => Arc::new(Date32Array::try_new(taken(values), nulls)?),
            Values::Int64(values) => Arc::new(Int64Array::try_new(taken(values), nulls)?),
            Values::Timestamp(values) => Arc::new(
                TimestampMicrosecondArray::try_new(taken(values), nulls)?.with_timezone(UTC),
            ),
            Values::Decimal(values, precision, scale) => Arc::new(
                Decimal128Array::try_new(taken(values), nulls)?
                    .with_precision_and_scale(*precision, *scale)?,
            ),
            Values::Float32(values) => Arc::new(Float32Array::try_new(taken(values), nulls)?),
            Values::Float64(values) => Arc::new(Float64Array::try_new(taken(values), nulls)?),
            Values::Boolean(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Text(bytes) => {
                let (offsets, data) = bytes.finish();
                Arc::new(StringArray::try_new(offsets, data, nulls)?)
            }
            Values::Binary(bytes) => {
                let (offsets, data) = bytes.finish();
                Arc::new(BinaryArray::try_new(offsets, data, nulls)?)
            }
            Values::Geometry { wkb, wkb_validity, srid, srid_validity } => {
                let (offsets, data) = wkb.finish();
                let wkb = BinaryArray::try_new(offsets, data, wkb_validity.finish())?;
                let srid = Int32Array::try_new(taken(srid), srid_validity.finish())?;
                let fields: Fields = geometry_fields();
                let columns: Vec<ArrayRef> = vec![Arc::new(wkb), Arc::new(srid)];
                Arc::new(StructArray::try_new(fields, columns, nulls)?)
            }
            Values::Floats { ends, items } => {
                let offsets = std::mem::replace(ends, vec![0]);
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                let items: ArrayRef = Arc::new(Float32Array::try_new(taken(items), None)?);
                let field: Arc<Field> = list_item();
                Arc::new(ListArray::try_new(field, offsets, items, nulls)?)
            }
        })
    }

    /// About how many bytes the column holds.
    pub fn bytes(&self) -> usize {
        match &self.values {
            Values::Int16(values) => values.len() * 2,
            Values::Int32(values) | Values::Date(values) => values.len() * 4,
            Values::Int64(values) | Values::Timestamp(values) => values.len() * 8,
            Values::Decimal(values, _, _) => values.len() * 16,
            Values::Float32(values) => values.len() * 4,
            Values::Float64(values) => values.len() * 8,
            Values::Boolean(values) => values.len() / 8,
            Values::Text(bytes) | Values::Binary(bytes) => bytes.data.len() + bytes.ends.len() * 4,
            Values::Geometry { wkb, srid, .. } => wkb.data.len() + srid.len() * 8,
            Values::Floats { ends, items } => (ends.len() + items.len()) * 4,
        }
    }
}

fn taken<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    ScalarBuffer::from(std::mem::take(values))
}
