//! A table's plan: made once per shape from TABLE_MAP, it holds one operation per column and all constant bytes.

use std::sync::Arc;

use schemas::{
    avro_schema::{AvroOptions, default_of, envelope_schema, is_double, is_optional, key_schema},
    avro_write::write_bytes,
    column_type::ColumnType,
    default_value::DefaultValue,
    json_text::JsonForm,
    table_id::TableId,
    table_schema::{Column, TableSchema},
    wire_format::{SchemaReference, fingerprint, write_framing},
};

use super::{
    address::AddressKind,
    charset::{Charset, decode, of_collation},
    insert_default::{self, TableDefaults},
    key_header::KeyText,
};
use crate::binlog::table_map::{TableMap, WireColumn, WireType};

/// The collation number of `binary`.
const BINARY: u16 = 63;

/// A schema's text and the framing that names it.
#[derive(Clone, Debug)]
pub struct SchemaText {
    /// The Avro schema.
    pub text: String,
    /// CRC-64-AVRO of the text.
    pub fingerprint: u64,
    /// The bytes before each datum.
    pub framing: Vec<u8>,
}

impl SchemaText {
    /// Names the schema by its fingerprint.
    pub fn new(text: String) -> Self {
        let fingerprint = fingerprint(&text);
        let mut framing = Vec::new();
        write_framing(&mut framing, SchemaReference::Fingerprint(fingerprint));
        Self { text, fingerprint, framing }
    }

    /// Names it in another way.
    pub fn name_by(&mut self, reference: SchemaReference) {
        self.framing.clear();
        write_framing(&mut self.framing, reference);
    }
}

/// The schemas of one table shape, for rows from the binlog and from a snapshot alike.
#[derive(Clone, Debug)]
pub struct TableSchemas {
    /// The shape.
    pub schema: Arc<TableSchema>,
    /// The key record's schema; `None` for a table without a key.
    pub key: Option<SchemaText>,
    /// The envelope's schema.
    pub value: SchemaText,
}

impl TableSchemas {
    /// Makes both texts.
    pub fn new(schema: Arc<TableSchema>, options: AvroOptions) -> Self {
        let key = key_schema(&schema, options).map(SchemaText::new);
        let value = SchemaText::new(envelope_schema(&schema, options));
        Self { schema, key, value }
    }
}

/// What to do with one column's bytes.
#[derive(Clone, Debug)]
pub(super) struct ColumnPlan {
    pub wire: WireType,
    /// The Avro type is a union with null.
    pub optional: bool,
    /// The byte in front of a value in that union.
    pub branch: u8,
    /// All bytes that stand for NULL and, in a column that is no union, for a zero date; empty for the epoch.
    pub null: Vec<u8>,
    /// FLOAT as a double.
    pub float_as_double: bool,
    /// What a BINARY of MariaDB's binlog really is.
    pub address: Option<AddressKind>,
    /// Debezium's years: 0000 of YEAR is 1900, and a date's year below 100 lies between 1970 and 2069.
    pub debezium_years: bool,
    /// NULL can occur in the row image.
    pub nullable: bool,
    /// BIGINT UNSIGNED as a decimal.
    pub unsigned_as_decimal: bool,
    /// How JSON is spelled.
    pub json_form: JsonForm,
    /// `None`: the bytes are no text.
    pub charset: Option<Charset>,
    /// Members of ENUM as ready Avro strings, the first for index 0; of SET as UTF-8.
    pub members: Vec<Vec<u8>>,
    /// The place in the key.
    pub key_part: Option<usize>,
    /// What an inserted row has where its image lacks the column, with its branch; `None` when that is not known.
    pub default: Option<Vec<u8>>,
}

/// The plan of one table shape.
#[derive(Clone, Debug)]
pub struct EncodePlan {
    /// The table's schemas.
    pub schemas: TableSchemas,
    pub(super) columns: Vec<ColumnPlan>,
    pub(super) key_text: KeyText,
}

impl EncodePlan {
    /// Makes the plan. `unique_key` names the columns of the first UNIQUE key without NULLable columns; it is used
    /// when the table has no primary key. A shape that cannot be encoded gives the sentence that says why.
    pub fn new(
        map: &TableMap,
        source: &str,
        unique_key: &[String],
        options: AvroOptions,
    ) -> Result<Self, String> {
        Self::enriched(map, source, unique_key, options, None)
    }

    /// The same with what only the server's catalog tells, if `catalog` describes the same shape.
    pub fn enriched(
        map: &TableMap,
        source: &str,
        unique_key: &[String],
        options: AvroOptions,
        catalog: Option<&TableSchema>,
    ) -> Result<Self, String> {
        let id = TableId::new(source, &map.database, &map.table);
        let mut columns = Vec::with_capacity(map.columns.len());
        for column in &map.columns {
            if column.name.is_empty() {
                return Err(format!(
                    "the server sends no column names; run `SET PERSIST binlog_row_metadata = 'FULL'` and take \
                     a new snapshot of {id}"
                ));
            }
            let column_type = column_type(column)
                .map_err(|what| format!("column {} of {id} is {what}", column.name))?;
            columns.push(Column {
                name: column.name.clone(),
                column_type,
                nullable: column.nullable,
                details: Default::default(),
            });
        }
        let key = key_columns(map, unique_key);
        let schema = TableSchema { id, columns, key };
        let schema = Arc::new(catalog.and_then(|known| schema.enriched(known)).unwrap_or(schema));
        let columns = map
            .columns
            .iter()
            .enumerate()
            .map(|(i, column)| column_plan(&schema, i, column, options))
            .collect();
        let schemas = TableSchemas::new(schema, options);
        let key_text = schemas.key.as_ref().map(|key| KeyText::new(&key.text)).unwrap_or_default();
        Ok(Self { schemas, columns, key_text })
    }

    /// The plan with the columns' constant defaults, for inserted rows that lack columns.
    pub fn with_defaults(mut self, defaults: &TableDefaults) -> Self {
        for (plan, column) in self.columns.iter_mut().zip(&self.schemas.schema.columns) {
            plan.default = defaults
                .get(&column.name)
                .and_then(|default| insert_default::encode(plan, &column.column_type, default));
        }
        self
    }
}

fn key_columns(map: &TableMap, unique_key: &[String]) -> Vec<usize> {
    if !map.primary_key.is_empty() {
        return map.primary_key.clone();
    }
    let find = |name: &String| {
        map.columns.iter().position(|column| &column.name == name && !column.nullable)
    };
    unique_key.iter().map(find).collect::<Option<Vec<_>>>().unwrap_or_default()
}

fn column_plan(
    schema: &TableSchema,
    index: usize,
    column: &WireColumn,
    options: AvroOptions,
) -> ColumnPlan {
    let text = matches!(schema.columns[index].column_type, ColumnType::Text);
    let optional = is_optional(schema, index, options);
    let default = default_of(&schema.columns[index], options);
    let members = match &schema.columns[index].column_type {
        ColumnType::Enum { members } => std::iter::once("")
            .chain(members.iter().map(String::as_str))
            .map(|member| {
                let mut bytes = Vec::new();
                write_bytes(&mut bytes, member.as_bytes());
                bytes
            })
            .collect(),
        ColumnType::Set { members } => members.iter().map(|m| m.as_bytes().to_vec()).collect(),
        _ => Vec::new(),
    };
    ColumnPlan {
        wire: column.wire,
        optional,
        branch: value_branch(default),
        null: null_bytes(default, optional),
        float_as_double: is_double(&schema.columns[index], options),
        address: AddressKind::of(&schema.columns[index].column_type),
        debezium_years: options.debezium_compat,
        nullable: column.nullable,
        unsigned_as_decimal: !options.debezium_compat
            && matches!(column.wire, WireType::Integer { bytes: 8, unsigned: true }),
        json_form: options.json_form(),
        charset: if text { of_collation(column.collation) } else { None },
        members,
        key_part: schema.key.iter().position(|&key| key == index),
        default: None,
    }
}

/// The byte in front of a value in a union: with a default, null is the second branch.
pub(crate) fn value_branch(default: Option<&DefaultValue>) -> u8 {
    if default.is_some() { 0 } else { 2 }
}

/// What NULL is written as. With a default it is the default, as Connect's `Struct.get` has it.
pub(crate) fn null_bytes(default: Option<&DefaultValue>, optional: bool) -> Vec<u8> {
    let mut bytes = if optional { vec![0] } else { Vec::new() };
    if let Some(default) = default {
        default.write(&mut bytes);
    }
    bytes
}

/// The column's type; otherwise what it is and what to do, to follow "column x of t is".
fn column_type(column: &WireColumn) -> Result<ColumnType, String> {
    Ok(match column.wire {
        WireType::Integer { bytes: 1, unsigned } => ColumnType::TinyInt { unsigned },
        WireType::Integer { bytes: 2, unsigned } => ColumnType::SmallInt { unsigned },
        WireType::Integer { bytes: 3, unsigned } => ColumnType::MediumInt { unsigned },
        WireType::Integer { bytes: 4, unsigned } => ColumnType::Int { unsigned },
        WireType::Integer { unsigned, .. } => ColumnType::BigInt { unsigned },
        WireType::Float => ColumnType::Float,
        WireType::Double => ColumnType::Double,
        WireType::Decimal { precision, scale } => ColumnType::Decimal { precision, scale },
        WireType::Year => ColumnType::Year,
        WireType::Date => ColumnType::Date,
        WireType::Time { digits } => ColumnType::Time { digits },
        WireType::DateTime { digits } => ColumnType::DateTime { digits },
        WireType::Timestamp { digits } => ColumnType::Timestamp { digits },
        WireType::Short { fixed: true, maximum, .. } if column.collation == BINARY => {
            ColumnType::Binary { length: maximum }
        }
        WireType::Short { .. } | WireType::Blob { .. } | WireType::Compressed { .. }
            if column.collation == BINARY =>
        {
            ColumnType::Bytes
        }
        WireType::Short { .. } | WireType::Blob { .. } | WireType::Compressed { .. } => {
            known_charset(column)?;
            ColumnType::Text
        }
        WireType::Json { .. } => ColumnType::Json,
        WireType::Geometry { point: true, .. } => ColumnType::Point,
        WireType::Geometry { .. } => ColumnType::Geometry,
        WireType::Vector { .. } => ColumnType::Vector,
        WireType::Enum { .. } => ColumnType::Enum { members: members(column)? },
        WireType::Set { .. } => ColumnType::Set { members: members(column)? },
        WireType::Bit { width } => ColumnType::Bit { width },
        WireType::Unknown(number @ (7 | 11 | 12)) => {
            return Err(format!(
                "in a date format from before MySQL 5.6.4 (type {number}); run `ALTER TABLE ... FORCE` on it"
            ));
        }
        WireType::Unknown(number) => {
            return Err(format!(
                "of MySQL type {number}, which this release cannot read; take the table out with `!` in `tables`"
            ));
        }
    })
}

fn known_charset(column: &WireColumn) -> Result<Charset, String> {
    of_collation(column.collation).ok_or_else(|| {
        format!(
            "in the character set of collation {}, which this release cannot read; convert it to utf8mb4",
            column.collation
        )
    })
}

fn members(column: &WireColumn) -> Result<Vec<String>, String> {
    if column.members.is_empty() {
        return Err("an ENUM or SET whose members the server does not send; run `SET PERSIST \
                    binlog_row_metadata = 'FULL'`"
            .into());
    }
    // Members of a binary ENUM are bytes; they are shown as the text they most likely are.
    let charset = if column.collation == BINARY { Charset::Utf8 } else { known_charset(column)? };
    Ok(column.members.iter().map(|member| decode(charset, member).0).collect())
}
