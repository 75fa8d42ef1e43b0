//! The types that lake columns have, in Arrow and in Delta, and the way between the two.

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};
use deltalake::kernel::{ArrayType, DataType as DeltaType, PrimitiveType, StructField, StructType};

/// The time zone of all timestamps.
pub const UTC: &str = "UTC";

/// `timestamp`: microseconds since 1970 in UTC.
pub static TIMESTAMP: LazyLock<DataType> =
    LazyLock::new(|| DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into())));

static GEOMETRY_FIELDS: LazyLock<Fields> = LazyLock::new(|| {
    Fields::from(vec![
        Field::new("wkb", DataType::Binary, true),
        Field::new("srid", DataType::Int32, true),
    ])
});

static LIST_ITEM: LazyLock<FieldRef> =
    LazyLock::new(|| Arc::new(Field::new("element", DataType::Float32, true)));

/// The fields of a spatial value.
pub fn geometry_fields() -> Fields {
    GEOMETRY_FIELDS.clone()
}

/// The items of a vector.
pub fn list_item() -> FieldRef {
    Arc::clone(&LIST_ITEM)
}

/// A schema as Delta's metadata has it, every column nullable; the error names the column that has no Delta type.
pub fn to_delta(fields: &Fields) -> Result<StructType, String> {
    let fields = fields
        .iter()
        .map(|field| Ok(StructField::new(field.name().as_str(), delta_type(field)?, true)))
        .collect::<Result<Vec<_>, String>>()?;
    StructType::try_new(fields).map_err(|error| error.to_string())
}

/// Delta's schema in our Arrow types; the error names a column of a type that we never write.
pub fn from_delta(schema: &StructType) -> Result<SchemaRef, String> {
    let fields = schema
        .fields()
        .map(|field| {
            let data_type = arrow_type(field.data_type()).ok_or_else(|| {
                format!(
                    "column {} has type {}, which this sink never writes",
                    field.name(),
                    field.data_type()
                )
            })?;
            Ok(Field::new(field.name(), data_type, true))
        })
        .collect::<Result<Vec<_>, String>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

/// A type's name in messages, as SQL writes it.
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Int16 => "short".into(),
        DataType::Int32 => "int".into(),
        DataType::Int64 => "long".into(),
        DataType::Float32 => "float".into(),
        DataType::Float64 => "double".into(),
        DataType::Boolean => "boolean".into(),
        DataType::Utf8 => "string".into(),
        DataType::Binary => "binary".into(),
        DataType::Date32 => "date".into(),
        DataType::Timestamp(_, _) => "timestamp".into(),
        DataType::Decimal128(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::Struct(_) => "struct<wkb:binary,srid:int>".into(),
        DataType::List(_) => "array<float>".into(),
        other => other.to_string(),
    }
}

fn delta_type(field: &Field) -> Result<DeltaType, String> {
    Ok(match field.data_type() {
        DataType::Int16 => DeltaType::SHORT,
        DataType::Int32 => DeltaType::INTEGER,
        DataType::Int64 => DeltaType::LONG,
        DataType::Float32 => DeltaType::FLOAT,
        DataType::Float64 => DeltaType::DOUBLE,
        DataType::Boolean => DeltaType::BOOLEAN,
        DataType::Utf8 => DeltaType::STRING,
        DataType::Binary => DeltaType::BINARY,
        DataType::Date32 => DeltaType::DATE,
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => DeltaType::TIMESTAMP,
        DataType::Decimal128(precision, scale) => {
            let scale = u8::try_from(*scale).map_err(|error| error.to_string())?;
            DeltaType::decimal(*precision, scale).map_err(|error| error.to_string())?
        }
        DataType::Struct(fields) => DeltaType::Struct(Box::new(to_delta(fields)?)),
        DataType::List(item) => DeltaType::Array(Box::new(ArrayType::new(delta_type(item)?, true))),
        other => return Err(format!("column {} has no delta type for {other}", field.name())),
    })
}

fn arrow_type(data_type: &DeltaType) -> Option<DataType> {
    Some(match data_type {
        DeltaType::Primitive(primitive) => match primitive {
            PrimitiveType::Short => DataType::Int16,
            PrimitiveType::Integer => DataType::Int32,
            PrimitiveType::Long => DataType::Int64,
            PrimitiveType::Float => DataType::Float32,
            PrimitiveType::Double => DataType::Float64,
            PrimitiveType::Boolean => DataType::Boolean,
            PrimitiveType::String => DataType::Utf8,
            PrimitiveType::Binary => DataType::Binary,
            PrimitiveType::Date => DataType::Date32,
            PrimitiveType::Timestamp => TIMESTAMP.clone(),
            PrimitiveType::Decimal(decimal) => {
                DataType::Decimal128(decimal.precision(), i8::try_from(decimal.scale()).ok()?)
            }
            _ => return None,
        },
        DeltaType::Struct(fields) => {
            let names: Vec<&String> = fields.fields().map(|field| field.name()).collect();
            (names == ["wkb", "srid"]).then(|| DataType::Struct(geometry_fields()))?
        }
        DeltaType::Array(array) if *array.element_type() == DeltaType::FLOAT => {
            DataType::List(list_item())
        }
        _ => return None,
    })
}
