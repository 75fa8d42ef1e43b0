//! A table's Avro schemas as text: the key, and Debezium's envelope for MySQL (version 3.1 and later), with
//! Connect's attributes, attribute order and union order as Confluent's AvroConverter writes them.
//!
//! The text is built directly: a round trip through a schema library drops `connect.*` attributes of primitives.

use std::borrow::Cow;

use crate::{
    avro_names::{field_name, full_name},
    column_type::ColumnType,
    default_value::DefaultValue,
    json_text::JsonForm,
    table_schema::{Column, TableSchema},
};

/// Where we differ from Debezium unless told not to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AvroOptions {
    /// Be Debezium to the byte: BIGINT UNSIGNED as a `long` that wraps above 2^63-1, and zero dates in NOT NULL
    /// columns as the epoch. Otherwise BIGINT UNSIGNED is a decimal(20,0), and temporal columns outside the key
    /// are nullable so that a zero date can be NULL.
    pub debezium_compat: bool,
}

impl AvroOptions {
    /// How JSON is spelled.
    pub fn json_form(self) -> JsonForm {
        if self.debezium_compat { JsonForm::Debezium } else { JsonForm::MySql }
    }
}

/// Whether a column's Avro type is a union with null: `["null", T]`, or `[T, "null"]` with a default. Key records use the plain type for every key column.
pub fn is_optional(schema: &TableSchema, index: usize, options: AvroOptions) -> bool {
    let Some(column) = schema.columns.get(index) else { return true };
    if matches!(column.column_type, ColumnType::Geometry) || column.nullable {
        return true;
    }
    let may_be_zero_date = matches!(
        column.column_type,
        ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. }
    );
    may_be_zero_date && !options.debezium_compat && !schema.key.contains(&index)
}

/// Whether a FLOAT is an Avro `double`: Debezium's way for FLOAT(M,D).
pub fn is_double(column: &Column, options: AvroOptions) -> bool {
    column.details.float_with_digits && options.debezium_compat
}

/// The name of a column's field, here and in the lake: the column's own, or what Debezium makes of it.
pub fn column_field(column: &Column, options: AvroOptions) -> Cow<'_, str> {
    if options.debezium_compat { field_name(&column.name) } else { Cow::Borrowed(&column.name) }
}

/// The key record's schema; `None` for a table without a key.
pub fn key_schema(schema: &TableSchema, options: AvroOptions) -> Option<String> {
    if schema.key.is_empty() {
        return None;
    }
    let topic = schema.id.topic();
    let topic = full_name(&topic);
    let mut named = NamedRecords::default();
    let fields: Vec<String> =
        schema.key_columns().map(|column| field_text(column, false, options, &mut named)).collect();
    Some(format!(
        r#"{{"type":"record","name":"Key","namespace":{},"fields":[{}],"connect.name":{}}}"#,
        quoted(&topic),
        fields.join(","),
        quoted(&format!("{topic}.Key")),
    ))
}

/// The value's schema: the envelope with `before`, `after`, `source`, `transaction`, `op` and the time stamps.
pub fn envelope_schema(schema: &TableSchema, options: AvroOptions) -> String {
    let topic = schema.id.topic();
    let topic = full_name(&topic);
    let mut named = NamedRecords::default();
    let mut row = String::new();
    for (i, column) in schema.columns.iter().enumerate() {
        if i > 0 {
            row.push(',');
        }
        row.push_str(&field_text(column, is_optional(schema, i, options), options, &mut named));
    }
    let value_name = quoted(&format!("{topic}.Value"));
    let envelope_name = quoted(&format!("{topic}.Envelope"));
    let namespace = quoted(&topic);
    format!(
        concat!(
            r#"{{"type":"record","name":"Envelope","namespace":{namespace},"fields":["#,
            r#"{{"name":"before","type":["null",{{"type":"record","name":"Value","fields":[{row}],"#,
            r#""connect.name":{value_name}}}],"default":null}},"#,
            r#"{{"name":"after","type":["null","Value"],"default":null}},"#,
            r#"{source},{transaction},"#,
            r#"{{"name":"op","type":"string"}},"#,
            r#"{{"name":"ts_ms","type":["null","long"],"default":null}},"#,
            r#"{{"name":"ts_us","type":["null","long"],"default":null}},"#,
            r#"{{"name":"ts_ns","type":["null","long"],"default":null}}],"#,
            r#""connect.version":2,"connect.name":{envelope_name}}}"#,
        ),
        namespace = namespace,
        row = row,
        value_name = value_name,
        source = SOURCE_FIELD,
        transaction = TRANSACTION_FIELD,
        envelope_name = envelope_name,
    )
}

const SOURCE_FIELD: &str = concat!(
    r#"{"name":"source","type":{"type":"record","name":"Source","namespace":"io.debezium.connector.mysql","fields":["#,
    r#"{"name":"version","type":"string"},{"name":"connector","type":"string"},{"name":"name","type":"string"},"#,
    r#"{"name":"ts_ms","type":"long"},"#,
    r#"{"name":"snapshot","type":[{"type":"string","connect.version":1,"connect.parameters":{"allowed":"#,
    r#""true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"#,
    r#""connect.default":"false","connect.name":"io.debezium.data.Enum"},"null"],"default":"false"},"#,
    r#"{"name":"db","type":"string"},{"name":"sequence","type":["null","string"],"default":null},"#,
    r#"{"name":"ts_us","type":["null","long"],"default":null},{"name":"ts_ns","type":["null","long"],"default":null},"#,
    r#"{"name":"table","type":["null","string"],"default":null},{"name":"server_id","type":"long"},"#,
    r#"{"name":"gtid","type":["null","string"],"default":null},{"name":"file","type":"string"},"#,
    r#"{"name":"pos","type":"long"},{"name":"row","type":"int"},"#,
    r#"{"name":"thread","type":["null","long"],"default":null},"#,
    r#"{"name":"query","type":["null","string"],"default":null}],"#,
    r#""connect.version":1,"connect.name":"io.debezium.connector.mysql.Source"}}"#,
);

const TRANSACTION_FIELD: &str = concat!(
    r#"{"name":"transaction","type":["null",{"type":"record","name":"block","namespace":"event","fields":["#,
    r#"{"name":"id","type":"string"},{"name":"total_order","type":"long"},"#,
    r#"{"name":"data_collection_order","type":"long"}],"connect.version":1,"connect.name":"event.block"}],"#,
    r#""default":null}"#,
);

/// Records that Avro lets us define once only; later uses are by full name.
#[derive(Default)]
struct NamedRecords {
    geometry: bool,
    point: bool,
}

/// A column's field. With a default that is not NULL, Connect puts the value's type first.
fn field_text(
    column: &Column,
    optional: bool,
    options: AvroOptions,
    named: &mut NamedRecords,
) -> String {
    let name = quoted(&column_field(column, options));
    let type_text = column_type_text(column, options, named);
    let Some(default) = default_of(column, options) else {
        return if optional {
            format!(r#"{{"name":{name},"type":["null",{type_text}],"default":null}}"#)
        } else {
            format!(r#"{{"name":{name},"type":{type_text}}}"#)
        };
    };
    let type_text = with_default(&type_text, &default.json());
    let default = default.field_json();
    if optional {
        format!(r#"{{"name":{name},"type":[{type_text},"null"],"default":{default}}}"#)
    } else {
        format!(r#"{{"name":{name},"type":{type_text},"default":{default}}}"#)
    }
}

/// The default that the column's schema carries and that stands for NULL in its data: Debezium's way only.
pub fn default_of(column: &Column, options: AvroOptions) -> Option<&DefaultValue> {
    column.details.default.as_ref().filter(|_| options.debezium_compat)
}

/// Puts `connect.default` into a type's text, where Connect has it: before `connect.name`, else `connect.type`.
fn with_default(type_text: &str, default: &str) -> String {
    let attribute = format!(r#""connect.default":{default}"#);
    for next in [r#""connect.name":"#, r#""connect.type":"#] {
        if let Some((before, after)) = type_text.split_once(next) {
            return format!("{before}{attribute},{next}{after}");
        }
    }
    format!(r#"{{"type":{type_text},{attribute}}}"#)
}

fn column_type_text(column: &Column, options: AvroOptions, named: &mut NamedRecords) -> String {
    const INT16: &str = r#"{"type":"int","connect.type":"int16"}"#;
    match &column.column_type {
        ColumnType::TinyInt { .. } | ColumnType::SmallInt { unsigned: false } => INT16.into(),
        ColumnType::SmallInt { unsigned: true }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { unsigned: false } => r#""int""#.into(),
        ColumnType::Int { unsigned: true } | ColumnType::BigInt { unsigned: false } => {
            r#""long""#.into()
        }
        ColumnType::BigInt { unsigned: true } if options.debezium_compat => r#""long""#.into(),
        ColumnType::BigInt { unsigned: true } => decimal_text(20, 0),
        ColumnType::Float if is_double(column, options) => r#""double""#.into(),
        ColumnType::Float => r#""float""#.into(),
        ColumnType::Double => r#""double""#.into(),
        ColumnType::Decimal { precision, scale } => decimal_text(*precision, *scale),
        ColumnType::Bit { width: 1 } => r#""boolean""#.into(),
        ColumnType::Bit { width } => format!(
            r#"{{"type":"bytes","connect.version":1,"connect.parameters":{{"length":"{width}"}},"connect.name":"io.debezium.data.Bits"}}"#
        ),
        ColumnType::Date => semantic("int", "io.debezium.time.Date"),
        ColumnType::Time { .. } => semantic("long", "io.debezium.time.MicroTime"),
        ColumnType::DateTime { digits: 0..=3 } => semantic("long", "io.debezium.time.Timestamp"),
        ColumnType::DateTime { .. } => semantic("long", "io.debezium.time.MicroTimestamp"),
        ColumnType::Timestamp { .. } => semantic("string", "io.debezium.time.ZonedTimestamp"),
        ColumnType::Year => semantic("int", "io.debezium.time.Year"),
        ColumnType::Text | ColumnType::Uuid | ColumnType::Inet4 | ColumnType::Inet6 => {
            r#""string""#.into()
        }
        ColumnType::Binary { .. } | ColumnType::Bytes => r#""bytes""#.into(),
        ColumnType::Enum { members } => members_text(members, "io.debezium.data.Enum"),
        ColumnType::Set { members } => members_text(members, "io.debezium.data.EnumSet"),
        ColumnType::Json => semantic("string", "io.debezium.data.Json"),
        ColumnType::Geometry if std::mem::replace(&mut named.geometry, true) => {
            r#""io.debezium.data.geometry.Geometry""#.into()
        }
        ColumnType::Geometry => concat!(
            r#"{"type":"record","name":"Geometry","namespace":"io.debezium.data.geometry","fields":["#,
            r#"{"name":"wkb","type":"bytes"},{"name":"srid","type":["null","int"],"default":null}],"#,
            r#""connect.doc":"Geometry","connect.version":1,"connect.name":"io.debezium.data.geometry.Geometry"}"#,
        )
        .into(),
        ColumnType::Point if std::mem::replace(&mut named.point, true) => {
            r#""io.debezium.data.geometry.Point""#.into()
        }
        ColumnType::Point => concat!(
            r#"{"type":"record","name":"Point","namespace":"io.debezium.data.geometry","fields":["#,
            r#"{"name":"x","type":"double"},{"name":"y","type":"double"},"#,
            r#"{"name":"wkb","type":["null","bytes"],"default":null},"#,
            r#"{"name":"srid","type":["null","int"],"default":null}],"connect.doc":"Geometry (POINT)","#,
            r#""connect.version":1,"connect.name":"io.debezium.data.geometry.Point"}"#,
        )
        .into(),
        ColumnType::Vector => {
            r#"{"type":"array","items":"float","connect.version":1,"connect.name":"io.debezium.data.FloatVector"}"#
                .into()
        }
    }
}

fn semantic(avro: &str, name: &str) -> String {
    format!(r#"{{"type":"{avro}","connect.version":1,"connect.name":"{name}"}}"#)
}

fn decimal_text(precision: u8, scale: u8) -> String {
    format!(
        concat!(
            r#"{{"type":"bytes","scale":{scale},"precision":{precision},"connect.version":1,"#,
            r#""connect.parameters":{{"scale":"{scale}","connect.decimal.precision":"{precision}"}},"#,
            r#""connect.name":"org.apache.kafka.connect.data.Decimal","logicalType":"decimal"}}"#,
        ),
        scale = scale,
        precision = precision,
    )
}

fn members_text(members: &[String], name: &str) -> String {
    // Debezium joins the members with commas and escapes a comma inside one with a backslash.
    let allowed: Vec<String> = members.iter().map(|m| m.replace(',', "\\,")).collect();
    format!(
        r#"{{"type":"string","connect.version":1,"connect.parameters":{{"allowed":{}}},"connect.name":"{name}"}}"#,
        quoted(&allowed.join(","))
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table_id::TableId;

    fn column(name: &str, column_type: ColumnType, nullable: bool) -> Column {
        Column { name: name.into(), column_type, nullable, details: Default::default() }
    }

    fn orders() -> TableSchema {
        let members = ["created", "paid", "shipped", "done"].map(String::from).to_vec();
        TableSchema {
            id: TableId::new("dbz", "udon", "orders"),
            columns: vec![
                column("id", ColumnType::BigInt { unsigned: true }, false),
                column("user_id", ColumnType::Int { unsigned: false }, false),
                column("status", ColumnType::Enum { members }, true),
                column("price", ColumnType::Decimal { precision: 12, scale: 2 }, false),
                column("qty", ColumnType::SmallInt { unsigned: false }, true),
                column("memo", ColumnType::Text, true),
                column("address", ColumnType::Text, true),
                column("ordered_at", ColumnType::DateTime { digits: 6 }, true),
                column("updated_at", ColumnType::Timestamp { digits: 0 }, true),
                column("meta", ColumnType::Json, true),
                column("is_gift", ColumnType::TinyInt { unsigned: false }, true),
                column("ratio", ColumnType::Double, true),
            ],
            key: vec![0],
        }
    }

    #[test]
    fn debezium_compat_is_the_text_that_debezium_registered() {
        let options = AvroOptions { debezium_compat: true };
        assert_eq!(
            key_schema(&orders(), options).as_deref(),
            Some(include_str!("golden/orders.key.avsc"))
        );
        assert_eq!(envelope_schema(&orders(), options), include_str!("golden/orders.value.avsc"));
    }

    #[test]
    fn every_type_gives_a_schema_that_parses() {
        let all = [
            ColumnType::BigInt { unsigned: true },
            ColumnType::Bit { width: 1 },
            ColumnType::Bit { width: 9 },
            ColumnType::Date,
            ColumnType::Time { digits: 3 },
            ColumnType::DateTime { digits: 3 },
            ColumnType::Year,
            ColumnType::Binary { length: 4 },
            ColumnType::Bytes,
            ColumnType::Set { members: vec!["a\"b".into(), "c,d".into()] },
            ColumnType::Geometry,
            ColumnType::Geometry,
            ColumnType::Point,
            ColumnType::Point,
            ColumnType::Vector,
            ColumnType::Float,
            ColumnType::Decimal { precision: 65, scale: 30 },
        ];
        let columns = all
            .into_iter()
            .enumerate()
            .map(|(i, t)| column(&format!("c{i}"), t, i % 2 == 0))
            .collect();
        let schema = TableSchema { id: TableId::new("s", "d", "t"), columns, key: vec![0, 3] };
        for options in [AvroOptions::default(), AvroOptions { debezium_compat: true }] {
            let value = envelope_schema(&schema, options);
            apache_avro::Schema::parse_str(&value).expect("envelope parses");
            let key = key_schema(&schema, options).expect("has a key");
            apache_avro::Schema::parse_str(&key).expect("key parses");
        }
    }
}
