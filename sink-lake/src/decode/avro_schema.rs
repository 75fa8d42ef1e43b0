//! An Avro schema's text as a tree, with the attributes by which Connect names the meaning of a type, and skipping
//! over values that nobody needs.

use std::{collections::HashMap, sync::Arc};

use schemas::avro_write::{read_bytes, read_long};
use serde_json::{Map, Value};
use thiserror::Error;

/// A type as written in a schema.
#[derive(Debug)]
pub struct AvroType {
    /// The encoding.
    pub kind: AvroKind,
    /// `connect.name`.
    pub semantic: Option<String>,
    /// `logicalType`.
    pub logical: Option<String>,
    /// `connect.type`.
    pub connect_type: Option<String>,
    /// `precision` and `scale` of a decimal.
    pub decimal: Option<(u32, u32)>,
}

/// How a value is encoded.
#[derive(Debug)]
pub enum AvroKind {
    /// Nothing.
    Null,
    /// One byte.
    Boolean,
    /// Zig-zag.
    Int,
    /// Zig-zag.
    Long,
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// Length and bytes.
    Bytes,
    /// Length and UTF-8.
    String,
    /// The index of a symbol.
    Enum,
    /// So many bytes.
    Fixed(usize),
    /// The fields, one after the other.
    Record(Vec<AvroField>),
    /// Blocks of items.
    Array(Arc<AvroType>),
    /// Blocks of keys and values.
    Map(Arc<AvroType>),
    /// The index of a branch, then its value.
    Union(Vec<Arc<AvroType>>),
}

/// A field of a record.
#[derive(Debug)]
pub struct AvroField {
    /// Its name.
    pub name: String,
    /// Its type.
    pub avro_type: Arc<AvroType>,
}

/// Why a schema can't be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("schema can't be used: {0}")]
pub struct SchemaTextError(pub String);

/// Reads a schema's text.
pub fn parse(text: &str) -> Result<Arc<AvroType>, SchemaTextError> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| SchemaTextError(format!("no JSON: {error}")))?;
    Parser { named: HashMap::new() }.read(&value, "")
}

/// The names of a record's fields.
pub fn field_names(record: &AvroType) -> Option<Vec<String>> {
    match &record.kind {
        AvroKind::Record(fields) => Some(fields.iter().map(|field| field.name.clone()).collect()),
        _ => None,
    }
}

/// A type that may be NULL as (the branch that is null, the other branch). `Some((None, type))` for a plain type,
/// `None` for other unions.
pub fn optional(avro_type: &Arc<AvroType>) -> Option<(Option<i64>, &Arc<AvroType>)> {
    let AvroKind::Union(branches) = &avro_type.kind else { return Some((None, avro_type)) };
    let [first, second] = branches.as_slice() else { return None };
    match (&first.kind, &second.kind) {
        (AvroKind::Null, AvroKind::Null) => None,
        (AvroKind::Null, _) => Some((Some(0), second)),
        (_, AvroKind::Null) => Some((Some(1), first)),
        _ => None,
    }
}

/// Steps over one value. `None` when the bytes don't fit the type.
pub fn skip(avro_type: &AvroType, input: &mut &[u8]) -> Option<()> {
    match &avro_type.kind {
        AvroKind::Null => Some(()),
        AvroKind::Boolean => skip_bytes(input, 1),
        AvroKind::Int | AvroKind::Long | AvroKind::Enum => read_long(input).map(|_| ()),
        AvroKind::Float => skip_bytes(input, 4),
        AvroKind::Double => skip_bytes(input, 8),
        AvroKind::Bytes | AvroKind::String => read_bytes(input).map(|_| ()),
        AvroKind::Fixed(length) => skip_bytes(input, *length),
        AvroKind::Record(fields) => {
            fields.iter().try_for_each(|field| skip(&field.avro_type, input))
        }
        AvroKind::Union(branches) => {
            let branch = usize::try_from(read_long(input)?).ok()?;
            skip(branches.get(branch)?, input)
        }
        AvroKind::Array(items) => read_blocks(input, |input| skip(items, input)),
        AvroKind::Map(values) => read_blocks(input, |input| {
            read_bytes(input)?;
            skip(values, input)
        }),
    }
}

/// Reads an array's or a map's blocks, item by item.
pub fn read_blocks(
    input: &mut &[u8],
    mut item: impl FnMut(&mut &[u8]) -> Option<()>,
) -> Option<()> {
    loop {
        let mut count = read_long(input)?;
        if count == 0 {
            return Some(());
        }
        if count < 0 {
            count = count.checked_neg()?;
            read_long(input)?;
        }
        // Items of at least one byte each; a larger count is no block but foreign bytes.
        if count > input.len() as i64 {
            return None;
        }
        for _ in 0..count {
            item(input)?;
        }
    }
}

fn skip_bytes(input: &mut &[u8], length: usize) -> Option<()> {
    *input = input.get(length..)?;
    Some(())
}

struct Parser {
    named: HashMap<String, Arc<AvroType>>,
}

impl Parser {
    fn read(&mut self, value: &Value, namespace: &str) -> Result<Arc<AvroType>, SchemaTextError> {
        match value {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => {
                let branches = branches
                    .iter()
                    .map(|branch| self.read(branch, namespace))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Arc::new(plain(AvroKind::Union(branches))))
            }
            Value::Object(object) => self.read_object(object, namespace),
            _ => Err(SchemaTextError("a type is neither text, list nor object".to_owned())),
        }
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Arc<AvroType>, SchemaTextError> {
        if let Some(kind) = primitive(name) {
            return Ok(Arc::new(plain(kind)));
        }
        let full = full_name(name, namespace);
        self.named
            .get(&full)
            .or_else(|| self.named.get(name))
            .cloned()
            .ok_or_else(|| SchemaTextError(format!("type {full} is unknown or contains itself")))
    }

    fn read_object(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
    ) -> Result<Arc<AvroType>, SchemaTextError> {
        let type_value =
            object.get("type").ok_or_else(|| SchemaTextError("a type has no `type`".to_owned()))?;
        let Value::String(type_name) = type_value else {
            return self.read(type_value, namespace);
        };
        let own_namespace = object.get("namespace").and_then(Value::as_str);
        let full = object
            .get("name")
            .and_then(Value::as_str)
            .map(|name| full_name(name, own_namespace.unwrap_or(namespace)));
        let inner = full.as_deref().and_then(|name| name.rsplit_once('.')).map_or("", |n| n.0);
        let kind = match type_name.as_str() {
            "record" => AvroKind::Record(self.read_fields(object, inner)?),
            "enum" => AvroKind::Enum,
            "fixed" => {
                let size = object.get("size").and_then(Value::as_u64);
                let size = size.and_then(|size| usize::try_from(size).ok());
                AvroKind::Fixed(size.ok_or_else(|| SchemaTextError("a fixed has no size".into()))?)
            }
            "array" => AvroKind::Array(self.read_part(object, "items", namespace)?),
            "map" => AvroKind::Map(self.read_part(object, "values", namespace)?),
            name => match primitive(name) {
                Some(kind) => kind,
                None => return self.by_name(name, namespace),
            },
        };
        let text = |key: &str| object.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |key: &str| {
            object.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok())
        };
        let avro_type = Arc::new(AvroType {
            kind,
            semantic: text("connect.name"),
            logical: text("logicalType"),
            connect_type: text("connect.type"),
            decimal: number("precision").map(|p| (p, number("scale").unwrap_or(0))),
        });
        if let (Some(full), "record" | "enum" | "fixed") = (full, type_name.as_str()) {
            self.named.insert(full, Arc::clone(&avro_type));
        }
        Ok(avro_type)
    }

    fn read_part(
        &mut self,
        object: &Map<String, Value>,
        key: &str,
        namespace: &str,
    ) -> Result<Arc<AvroType>, SchemaTextError> {
        let part = object.get(key);
        self.read(part.ok_or_else(|| SchemaTextError(format!("a type has no `{key}`")))?, namespace)
    }

    fn read_fields(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
    ) -> Result<Vec<AvroField>, SchemaTextError> {
        let fields = object.get("fields").and_then(Value::as_array);
        fields
            .ok_or_else(|| SchemaTextError("a record has no fields".to_owned()))?
            .iter()
            .map(|field| {
                let name = field.get("name").and_then(Value::as_str);
                let name = name.ok_or_else(|| SchemaTextError("a field has no name".to_owned()))?;
                let field_type = field.get("type");
                let field_type = field_type
                    .ok_or_else(|| SchemaTextError(format!("field {name} has no type")))?;
                Ok(AvroField {
                    name: name.to_owned(),
                    avro_type: self.read(field_type, namespace)?,
                })
            })
            .collect()
    }
}

fn plain(kind: AvroKind) -> AvroType {
    AvroType { kind, semantic: None, logical: None, connect_type: None, decimal: None }
}

fn primitive(name: &str) -> Option<AvroKind> {
    Some(match name {
        "null" => AvroKind::Null,
        "boolean" => AvroKind::Boolean,
        "int" => AvroKind::Int,
        "long" => AvroKind::Long,
        "float" => AvroKind::Float,
        "double" => AvroKind::Double,
        "bytes" => AvroKind::Bytes,
        "string" => AvroKind::String,
        _ => return None,
    })
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}
