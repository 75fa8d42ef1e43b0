//! How one column's Avro value becomes a lake value: chosen once per schema from the type and Connect's attributes,
//! then applied to every record.

use std::sync::Arc;

use arrow::datatypes::DataType;
use schemas::{
    avro_write::{read_bytes, read_long},
    row_digest::time_text,
};

use super::{
    avro_schema::{AvroKind, AvroType, optional, read_blocks, skip},
    column_builder::{ColumnBuilder, Values},
    decimal, zoned_timestamp,
};
use crate::delta::arrow_types::{TIMESTAMP, geometry_fields, list_item};

/// Digits of the largest decimal that Delta has.
const DECIMAL_DIGITS_MAX: u32 = 38;

/// A column of a row record.
#[derive(Debug)]
pub struct ColumnReader {
    /// The union branch that stands for NULL; `None` when the column is no union.
    null_branch: Option<i64>,
    conversion: Conversion,
}

/// Why a value can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// The bytes end early or don't fit the schema.
    Damaged,
    /// The value does not fit the column's type in the lake.
    OutOfRange,
    /// A text that is not UTF-8.
    NotUtf8,
    /// A timestamp that is none.
    NotATimestamp,
}

impl ValueError {
    /// The finding in words; never the value.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Damaged => "its bytes end early or don't fit its schema",
            Self::OutOfRange => "a value does not fit its column's type in the lake",
            Self::NotUtf8 => "a text is not UTF-8",
            Self::NotATimestamp => "a timestamp's text is none",
        }
    }
}

#[derive(Debug)]
enum Conversion {
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    Boolean,
    Text,
    Binary,
    Date,
    TimestampMillis,
    TimestampMicros,
    ZonedTimestamp,
    TimeMicros,
    Decimal { precision: u32, scale: u32 },
    DecimalText { scale: u32 },
    Geometry(Vec<GeometryPart>),
    Floats,
}

#[derive(Debug)]
enum GeometryPart {
    Wkb { null_branch: Option<i64> },
    Srid { null_branch: Option<i64> },
    Other(Arc<AvroType>),
}

impl ColumnReader {
    /// The reader of a column's type; the error says in words why there is none.
    pub fn of(avro_type: &Arc<AvroType>) -> Result<Self, String> {
        let (null_branch, value_type) =
            optional(avro_type).ok_or("its type is a union of more than one type and null")?;
        Ok(Self { null_branch, conversion: conversion(value_type)? })
    }

    /// The column's type in the lake.
    pub fn data_type(&self) -> DataType {
        match &self.conversion {
            Conversion::Int16 => DataType::Int16,
            Conversion::Int32 => DataType::Int32,
            Conversion::Int64 => DataType::Int64,
            Conversion::Float32 => DataType::Float32,
            Conversion::Float64 => DataType::Float64,
            Conversion::Boolean => DataType::Boolean,
            Conversion::Text | Conversion::TimeMicros | Conversion::DecimalText { .. } => {
                DataType::Utf8
            }
            Conversion::Binary => DataType::Binary,
            Conversion::Date => DataType::Date32,
            Conversion::TimestampMillis
            | Conversion::TimestampMicros
            | Conversion::ZonedTimestamp => TIMESTAMP.clone(),
            Conversion::Decimal { precision, scale } => {
                DataType::Decimal128(*precision as u8, *scale as i8)
            }
            Conversion::Geometry(_) => DataType::Struct(geometry_fields()),
            Conversion::Floats => DataType::List(list_item()),
        }
    }

    /// Reads one value and adds it to the column. After an error the column may hold a part of it.
    #[inline]
    pub fn read(&self, input: &mut &[u8], column: &mut ColumnBuilder) -> Result<(), ValueError> {
        if let Some(null_branch) = self.null_branch {
            match read_long(input) {
                Some(branch) if branch == null_branch => {
                    column.push_null();
                    return Ok(());
                }
                // Two branches: 0 and 1.
                Some(0 | 1) => {}
                _ => return Err(ValueError::Damaged),
            }
        }
        self.read_value(input, &mut column.values)?;
        column.validity.push(true);
        Ok(())
    }

    fn read_value(&self, input: &mut &[u8], values: &mut Values) -> Result<(), ValueError> {
        use ValueError::{Damaged, NotATimestamp, OutOfRange};
        match (&self.conversion, values) {
            (Conversion::Int16, Values::Int16(values)) => {
                let value = read_long(input).ok_or(Damaged)?;
                values.push(i16::try_from(value).map_err(|_| OutOfRange)?);
            }
            (Conversion::Int32, Values::Int32(values))
            | (Conversion::Date, Values::Date(values)) => {
                let value = read_long(input).ok_or(Damaged)?;
                values.push(i32::try_from(value).map_err(|_| OutOfRange)?);
            }
            (Conversion::Int64, Values::Int64(values))
            | (Conversion::TimestampMicros, Values::Timestamp(values)) => {
                values.push(read_long(input).ok_or(Damaged)?);
            }
            (Conversion::TimestampMillis, Values::Timestamp(values)) => {
                let millis = read_long(input).ok_or(Damaged)?;
                values.push(millis.checked_mul(1000).ok_or(OutOfRange)?);
            }
            (Conversion::ZonedTimestamp, Values::Timestamp(values)) => {
                let text = read_bytes(input).ok_or(Damaged)?;
                values.push(zoned_timestamp::parse(text).ok_or(NotATimestamp)?);
            }
            (Conversion::Float32, Values::Float32(values)) => {
                values.push(f32::from_le_bytes(read_array(input).ok_or(Damaged)?));
            }
            (Conversion::Float64, Values::Float64(values)) => {
                values.push(f64::from_le_bytes(read_array(input).ok_or(Damaged)?));
            }
            (Conversion::Boolean, Values::Boolean(values)) => {
                match read_array(input).ok_or(Damaged)? {
                    [0] => values.append(false),
                    [1] => values.append(true),
                    _ => return Err(Damaged),
                }
            }
            (Conversion::Text, Values::Text(bytes)) => {
                let text = read_bytes(input).ok_or(Damaged)?;
                std::str::from_utf8(text).map_err(|_| ValueError::NotUtf8)?;
                bytes.push(text).ok_or(OutOfRange)?;
            }
            (Conversion::TimeMicros, Values::Text(bytes)) => {
                let micros = read_long(input).ok_or(Damaged)?;
                bytes.push(time_text(micros).as_bytes()).ok_or(OutOfRange)?;
            }
            (Conversion::Binary, Values::Binary(bytes)) => {
                bytes.push(read_bytes(input).ok_or(Damaged)?).ok_or(OutOfRange)?;
            }
            (Conversion::Decimal { precision, .. }, Values::Decimal(values, _, _)) => {
                let value = decimal::unscaled(read_bytes(input).ok_or(Damaged)?);
                let value = value.filter(|&value| decimal::fits(value, *precision));
                values.push(value.ok_or(OutOfRange)?);
            }
            (Conversion::DecimalText { scale }, Values::Text(bytes)) => {
                let value = read_bytes(input).ok_or(Damaged)?;
                decimal::write_wide_text(value, *scale, bytes.data_mut()).ok_or(OutOfRange)?;
                bytes.end_row().ok_or(OutOfRange)?;
            }
            (Conversion::Geometry(parts), values) => read_geometry(parts, input, values)?,
            (Conversion::Floats, Values::Floats { ends, items }) => {
                read_blocks(input, |input| {
                    items.push(f32::from_le_bytes(read_array(input)?));
                    Some(())
                })
                .ok_or(Damaged)?;
                ends.push(i32::try_from(items.len()).map_err(|_| OutOfRange)?);
            }
            _ => return Err(OutOfRange),
        }
        Ok(())
    }
}

fn conversion(value_type: &Arc<AvroType>) -> Result<Conversion, String> {
    let semantic = value_type.semantic.as_deref().unwrap_or("");
    let logical = value_type.logical.as_deref().unwrap_or("");
    Ok(match (&value_type.kind, semantic, logical) {
        (AvroKind::Int, "io.debezium.time.Date" | "org.apache.kafka.connect.data.Date", _)
        | (AvroKind::Int, _, "date") => Conversion::Date,
        (AvroKind::Int, _, _) if value_type.connect_type.as_deref() == Some("int16") => {
            Conversion::Int16
        }
        (AvroKind::Int, _, _) => Conversion::Int32,
        (
            AvroKind::Long,
            "io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp",
            _,
        )
        | (AvroKind::Long, _, "timestamp-millis") => Conversion::TimestampMillis,
        (AvroKind::Long, "io.debezium.time.MicroTimestamp", _)
        | (AvroKind::Long, _, "timestamp-micros") => Conversion::TimestampMicros,
        (AvroKind::Long, "io.debezium.time.MicroTime", _) => Conversion::TimeMicros,
        (AvroKind::Long, _, _) => Conversion::Int64,
        (AvroKind::Float, _, _) => Conversion::Float32,
        (AvroKind::Double, _, _) => Conversion::Float64,
        (AvroKind::Boolean, _, _) => Conversion::Boolean,
        (AvroKind::String, "io.debezium.time.ZonedTimestamp", _) => Conversion::ZonedTimestamp,
        (AvroKind::String, _, _) => Conversion::Text,
        (AvroKind::Bytes, _, "decimal") => {
            let (precision, scale) = value_type.decimal.ok_or("its decimal has no precision")?;
            if precision == 0 || scale > precision || precision > 255 {
                return Err(format!("decimal({precision},{scale}) is not possible"));
            }
            if precision <= DECIMAL_DIGITS_MAX {
                Conversion::Decimal { precision, scale }
            } else {
                Conversion::DecimalText { scale }
            }
        }
        (AvroKind::Bytes, _, _) => Conversion::Binary,
        (AvroKind::Record(fields), _, _) if fields.iter().any(|field| field.name == "wkb") => {
            let parts = fields.iter().map(|field| {
                let part = optional(&field.avro_type);
                match (field.name.as_str(), part) {
                    ("wkb", Some((null_branch, part))) if matches!(part.kind, AvroKind::Bytes) => {
                        GeometryPart::Wkb { null_branch }
                    }
                    ("srid", Some((null_branch, part))) if matches!(part.kind, AvroKind::Int) => {
                        GeometryPart::Srid { null_branch }
                    }
                    _ => GeometryPart::Other(Arc::clone(&field.avro_type)),
                }
            });
            Conversion::Geometry(parts.collect())
        }
        (AvroKind::Array(items), _, _) if matches!(items.kind, AvroKind::Float) => {
            Conversion::Floats
        }
        (kind, _, _) => return Err(format!("its type ({}) has no place in the lake", name(kind))),
    })
}

fn name(kind: &AvroKind) -> &'static str {
    match kind {
        AvroKind::Null => "null",
        AvroKind::Boolean => "boolean",
        AvroKind::Int => "int",
        AvroKind::Long => "long",
        AvroKind::Float => "float",
        AvroKind::Double => "double",
        AvroKind::Bytes => "bytes",
        AvroKind::String => "string",
        AvroKind::Enum => "enum",
        AvroKind::Fixed(_) => "fixed",
        AvroKind::Record(_) => "record",
        AvroKind::Array(_) => "array",
        AvroKind::Map(_) => "map",
        AvroKind::Union(_) => "union",
    }
}

fn read_geometry(
    parts: &[GeometryPart],
    input: &mut &[u8],
    values: &mut Values,
) -> Result<(), ValueError> {
    let Values::Geometry { wkb, wkb_validity, srid, srid_validity } = values else {
        return Err(ValueError::OutOfRange);
    };
    let (mut wkb_value, mut srid_value) = (None, None);
    for part in parts {
        match part {
            GeometryPart::Wkb { null_branch } => {
                if is_there(*null_branch, input)? {
                    wkb_value = Some(read_bytes(input).ok_or(ValueError::Damaged)?);
                }
            }
            GeometryPart::Srid { null_branch } => {
                if is_there(*null_branch, input)? {
                    let value = read_long(input).ok_or(ValueError::Damaged)?;
                    srid_value = Some(i32::try_from(value).map_err(|_| ValueError::OutOfRange)?);
                }
            }
            GeometryPart::Other(avro_type) => {
                skip(avro_type, input).ok_or(ValueError::Damaged)?;
            }
        }
    }
    wkb.push(wkb_value.unwrap_or_default()).ok_or(ValueError::OutOfRange)?;
    wkb_validity.push(wkb_value.is_some());
    srid.push(srid_value.unwrap_or_default());
    srid_validity.push(srid_value.is_some());
    Ok(())
}

fn is_there(null_branch: Option<i64>, input: &mut &[u8]) -> Result<bool, ValueError> {
    let Some(null_branch) = null_branch else { return Ok(true) };
    match read_long(input) {
        Some(branch @ (0 | 1)) => Ok(branch != null_branch),
        _ => Err(ValueError::Damaged),
    }
}

fn read_array<const N: usize>(input: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = input.split_first_chunk::<N>()?;
    *input = rest;
    Some(*head)
}
