//! Records of random bytes, and records with bytes cut off or changed: never a panic, and never half a row.

use std::sync::Arc;

use apache_avro::{Schema, types::Value};
use proptest::prelude::*;
use schemas::{
    avro_schema::{AvroOptions, envelope_schema},
    column_type::ColumnType,
    table_id::TableId,
    table_schema::{Column, TableSchema},
    wire_format::SchemaReference,
};

use super::{
    avro_schema::{parse, skip},
    envelope::EnvelopePlan,
    rows::{Added, OpenRows},
};

fn table() -> TableSchema {
    let columns = [
        ("id", ColumnType::Int { unsigned: false }, false),
        ("name", ColumnType::Text, true),
        ("price", ColumnType::Decimal { precision: 10, scale: 2 }, true),
        ("wide", ColumnType::Decimal { precision: 65, scale: 3 }, true),
        ("at", ColumnType::Timestamp { digits: 0 }, true),
        ("place", ColumnType::Geometry, true),
        ("vector", ColumnType::Vector, true),
        ("flag", ColumnType::Bit { width: 1 }, true),
    ];
    let columns = columns.into_iter().map(|(name, column_type, nullable)| Column {
        name: name.into(),
        column_type,
        nullable,
        details: Default::default(),
    });
    TableSchema { id: TableId::new("s", "d", "t"), columns: columns.collect(), key: vec![0] }
}

fn open_rows() -> OpenRows {
    let envelope = parse(&envelope_schema(&table(), AvroOptions::default())).expect("parses");
    let plan = EnvelopePlan::compile(&envelope).expect("compiles");
    OpenRows::new(SchemaReference::Fingerprint(1), 0, Arc::new(plan))
        .expect("all columns have builders")
}

fn some(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

fn none() -> Value {
    Value::Union(0, Box::new(Value::Null))
}

fn datum(id: i32, name: &str) -> Vec<u8> {
    let text = |text: &str| Value::String(text.into());
    let geometry = Value::Record(vec![
        ("wkb".into(), Value::Bytes(vec![1, 2, 3])),
        ("srid".into(), some(Value::Int(4326))),
    ]);
    let decimal = |value: i128| Value::Decimal(apache_avro::Decimal::from(value.to_be_bytes()));
    let row = Value::Record(vec![
        ("id".into(), Value::Int(id)),
        ("name".into(), some(text(name))),
        ("price".into(), some(decimal(-1250))),
        ("wide".into(), some(decimal(7))),
        ("at".into(), some(text("2018-06-20T13:37:03Z"))),
        ("place".into(), some(geometry)),
        ("vector".into(), some(Value::Array(vec![Value::Float(1.0)]))),
        ("flag".into(), none()),
    ]);
    let source = Value::Record(vec![
        ("version".into(), text("1")),
        ("connector".into(), text("mysql")),
        ("name".into(), text("s")),
        ("ts_ms".into(), Value::Long(5)),
        ("snapshot".into(), Value::Union(0, Box::new(text("false")))),
        ("db".into(), text("d")),
        ("sequence".into(), none()),
        ("ts_us".into(), some(Value::Long(5001))),
        ("ts_ns".into(), none()),
        ("table".into(), none()),
        ("server_id".into(), Value::Long(1)),
        ("gtid".into(), none()),
        ("file".into(), text("f")),
        ("pos".into(), Value::Long(4)),
        ("row".into(), Value::Int(0)),
        ("thread".into(), none()),
        ("query".into(), none()),
    ]);
    let envelope = Value::Record(vec![
        ("before".into(), some(row.clone())),
        ("after".into(), some(row)),
        ("source".into(), source),
        ("transaction".into(), none()),
        ("op".into(), text("u")),
        ("ts_ms".into(), none()),
        ("ts_us".into(), none()),
        ("ts_ns".into(), none()),
    ]);
    let schema = Schema::parse_str(&envelope_schema(&table(), AvroOptions::default()));
    #[allow(deprecated)]
    apache_avro::to_avro_datum(&schema.expect("parses"), envelope).expect("encodes")
}

#[test]
fn a_cut_record_leaves_nothing_behind_and_its_neighbours_are_kept() {
    let whole = datum(7, "noodles");
    for cut in 0..whole.len() {
        let mut rows = open_rows();
        assert_eq!(rows.add(0, &whole), Ok(Added::Row));
        assert!(rows.add(1, &whole[..cut]).is_err(), "cut at {cut}");
        assert_eq!(rows.add(2, &whole), Ok(Added::Row));
        let batch = rows.finish().expect("builds").expect("has rows");
        assert_eq!(batch.offsets, [0, 2]);
        assert_eq!(batch.changed_at_us, [5001, 5001]);
        assert_eq!(batch.rows.slice(0, 1), batch.rows.slice(1, 1));
    }
}

#[test]
fn bytes_after_the_record_are_not_accepted() {
    let mut record = datum(7, "noodles");
    record.push(0);
    assert!(open_rows().add(0, &record).is_err());
}

#[test]
fn a_schema_that_contains_itself_is_refused() {
    let text = r#"{"type":"record","name":"A","fields":[{"name":"a","type":["null","A"]}]}"#;
    assert!(parse(text).is_err());
}

#[test]
fn a_block_count_beyond_the_bytes_ends_at_once() {
    let items = parse(r#"{"type":"array","items":"null"}"#).expect("parses");
    let mut record = Vec::new();
    schemas::avro_write::write_long(&mut record, i64::MAX);
    assert_eq!(skip(&items, &mut &record[..]), None);
}

proptest! {
    #[test]
    fn changed_bytes_never_panic_and_never_leave_half_a_row(
        changes in prop::collection::vec((0usize..400, any::<u8>()), 1..6),
        name in ".{0,20}",
    ) {
        let whole = datum(1, &name);
        let mut changed = whole.clone();
        for (at, byte) in changes {
            let at = at % changed.len();
            changed[at] = byte;
        }
        let mut rows = open_rows();
        let mut expected = 1;
        prop_assert_eq!(rows.add(0, &whole), Ok(Added::Row));
        expected += usize::from(rows.add(1, &changed) == Ok(Added::Row));
        prop_assert_eq!(rows.add(2, &whole), Ok(Added::Row));
        expected += 1;
        let batch = rows.finish().expect("builds").expect("has rows");
        prop_assert_eq!(batch.rows.num_rows(), expected);
        prop_assert_eq!(batch.rows.slice(0, 1), batch.rows.slice(expected - 1, 1));
    }

    #[test]
    fn random_bytes_never_panic(bytes: Vec<u8>) {
        let mut rows = open_rows();
        let _ = rows.add(0, &bytes);
        prop_assert!(rows.finish().is_ok());
    }

    #[test]
    fn random_schemas_never_panic(text in ".{0,60}") {
        let _ = parse(&text);
    }
}
