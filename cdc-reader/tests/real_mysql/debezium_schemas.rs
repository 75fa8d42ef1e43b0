//! The catalog's schemas with `debezium_compat` are, to the byte, those that Debezium registers for the same tables
//! (`tests/golden/debezium_schemas.txt`, written by Debezium 3.6.3 and Confluent's AvroConverter).

use cdc_reader::mysql::{catalog::load, connect};
use cdc_reader::table_filter::TableFilter;
use mysql_async::prelude::Queryable;
use schemas::avro_schema::{AvroOptions, envelope_schema, key_schema};

use super::server::{block_on, shared};

const TABLES: &str = include_str!("../golden/debezium_tables.sql");
const SCHEMAS: &str = include_str!("../golden/debezium_schemas.txt");

/// Table, key schema and envelope schema.
fn golden() -> Vec<(&'static str, Option<&'static str>, &'static str)> {
    let mut lines = SCHEMAS.lines();
    let mut all = Vec::new();
    while let (Some(head), Some(key), Some(value)) = (lines.next(), lines.next(), lines.next()) {
        let table = head.strip_prefix("### inventory.").and_then(|rest| rest.split(' ').next());
        let key = key.strip_prefix("KEY ").expect("a key");
        let value = value.strip_prefix("VALUE ").expect("a value");
        all.push((table.expect("a table"), Some(key).filter(|key| *key != "null"), value));
    }
    all
}

#[test]
fn schemas_are_debeziums_to_the_byte() {
    block_on(async {
        let config = shared().config("root", &["inventory.*"]);
        let mut connection = connect::connect(&config).await.expect("connects");
        connection.query_drop("CREATE DATABASE inventory").await.expect("created");
        connection.query_drop("USE inventory").await.expect("used");
        for table in TABLES.split(";\n").filter(|table| !table.trim().is_empty()) {
            connection.query_drop(table).await.unwrap_or_else(|e| panic!("{table}: {e}"));
        }
        let server =
            connect::server(&mut connection, &connect::place(&config)).await.expect("answers");
        let filter = TableFilter::new(&config.tables).expect("valid");
        let catalog = load(&mut connection, &server, "dbserver1", &filter).await.expect("loads");
        assert_eq!(catalog.unsupported, []);
        let options = AvroOptions { debezium_compat: true };
        let golden = golden();
        assert_eq!((golden.len(), catalog.tables.len()), (5, 5));
        for (name, key, value) in golden {
            let table = catalog.tables.iter().find(|table| table.schema.id.table == name);
            let schema = &table.expect("is there").schema;
            assert_eq!(key_schema(schema, options).as_deref(), key, "{name}");
            // Debezium ran with `field.name.adjustment.mode = avro`; we keep names.
            let ours = envelope_schema(schema, options).replace("weird-name", "weird_name");
            let (ours, theirs) = if name == "streamddl" {
                (without_ddl_words(&ours), without_ddl_words(value))
            } else {
                (ours, value.to_owned())
            };
            assert_eq!(ours, theirs, "{name}");
        }
    });
}

/// From the words of a DDL statement in its stream (not in its snapshot), Debezium takes BOOL for a boolean and REAL for
/// a float. The binlog's rows do not tell them from TINYINT(1) and DOUBLE.
fn without_ddl_words(schema: &str) -> String {
    let mut schema = schema.to_owned();
    for (type_text, column) in [
        (r#"["null","boolean"],"default":null"#, "a"),
        (r#"["null",{"type":"int","connect.type":"int16"}],"default":null"#, "a"),
        (r#"{"type":"boolean","connect.default":true},"default":true"#, "b"),
        (r#"{"type":"int","connect.default":1,"connect.type":"int16"},"default":1"#, "b"),
        (r#"["null","float"],"default":null"#, "c"),
        (r#"["null","double"],"default":null"#, "c"),
    ] {
        schema = schema.replace(
            &format!(r#"{{"name":"{column}","type":{type_text}}}"#),
            &format!(r#"{{"name":"{column}"}}"#),
        );
    }
    schema
}
