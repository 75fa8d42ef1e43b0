//! A change of a table's definition as Debezium's schema-change topic tells it: the statement, and the table's columns
//! after it. The schema texts are what Confluent's AvroConverter prints of Debezium 3.6's Connect schemas.

use schemas::avro_write::{write_bytes, write_long};

use super::envelope::EnvelopeParts;

/// The key of the schema-change topic.
pub const SCHEMA_CHANGE_KEY: &str = include_str!("../../schemas/schema_change.key.avsc");
/// The value of the schema-change topic.
pub const SCHEMA_CHANGE_VALUE: &str = include_str!("../../schemas/schema_change.value.avsc");

/// What happened to a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChange {
    /// `CREATE`, `ALTER` or `DROP`.
    pub kind: &'static str,
    /// The MySQL schema.
    pub database: String,
    /// The table; after a rename its new name.
    pub table: String,
    /// What it is now; `None` when it is gone or not known.
    pub description: Option<TableDescription>,
}

/// A table as Debezium describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableDescription {
    /// The table's character set.
    pub charset: Option<String>,
    /// The primary key's columns, in key order.
    pub primary_key: Vec<String>,
    /// All columns in order.
    pub columns: Vec<ColumnDescription>,
}

/// A column as Debezium describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnDescription {
    /// The name.
    pub name: String,
    /// The type's number in `java.sql.Types`.
    pub jdbc_type: i32,
    /// `INT UNSIGNED`.
    pub type_name: String,
    /// The character set of a text.
    pub charset: Option<String>,
    /// The first number in the type's brackets.
    pub length: Option<i32>,
    /// The second one.
    pub scale: Option<i32>,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// AUTO_INCREMENT, or ON UPDATE.
    pub automatic: bool,
    /// The default's text.
    pub default: Option<String>,
    /// Members of ENUM and SET as the definition writes them, in their quotes.
    pub members: Option<Vec<String>>,
}

/// Writes the value. `source` is filled for this statement.
pub fn write_schema_change(
    out: &mut Vec<u8>,
    source: &EnvelopeParts,
    ts_ms: i64,
    database: &str,
    ddl: &str,
    changes: &[TableChange],
) {
    source.write_source(out, 0);
    write_long(out, ts_ms);
    write_optional(out, Some(database));
    // There is no schema between database and table.
    write_optional(out, None);
    write_optional(out, Some(ddl));
    write_array(out, changes, |out, change| {
        write_bytes(out, change.kind.as_bytes());
        let quoted = |name: &str| name.replace('"', "\"\"");
        let id = format!("\"{}\".\"{}\"", quoted(&change.database), quoted(&change.table));
        write_bytes(out, id.as_bytes());
        match &change.description {
            Some(description) => {
                out.push(2);
                write_description(out, description);
            }
            None => out.push(0),
        }
    });
}

fn write_description(out: &mut Vec<u8>, table: &TableDescription) {
    write_optional(out, table.charset.as_deref());
    out.push(2);
    write_array(out, &table.primary_key, |out, name| write_bytes(out, name.as_bytes()));
    let mut position = 0;
    write_array(out, &table.columns, |out, column| {
        position += 1;
        write_column(out, column, position);
    });
    // The table's comment: Debezium leaves comments out unless told otherwise.
    out.push(0);
}

fn write_column(out: &mut Vec<u8>, column: &ColumnDescription, position: i64) {
    write_bytes(out, column.name.as_bytes());
    write_long(out, column.jdbc_type.into());
    // nativeType
    out.push(0);
    write_bytes(out, column.type_name.as_bytes());
    write_optional(out, Some(&column.type_name));
    write_optional(out, column.charset.as_deref());
    for number in [column.length, column.scale] {
        match number {
            Some(number) => {
                out.push(2);
                write_long(out, number.into());
            }
            None => out.push(0),
        }
    }
    write_long(out, position);
    for flag in [column.nullable, column.automatic, column.automatic] {
        out.extend_from_slice(&[2, u8::from(flag)]);
    }
    // comment
    out.push(0);
    write_optional(out, column.default.as_deref());
    match &column.members {
        Some(members) => {
            out.push(2);
            write_array(out, members, |out, member| write_bytes(out, member.as_bytes()));
        }
        None => out.push(0),
    }
}

fn write_optional(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => {
            out.push(2);
            write_bytes(out, text.as_bytes());
        }
        None => out.push(0),
    }
}

fn write_array<T>(out: &mut Vec<u8>, items: &[T], mut write: impl FnMut(&mut Vec<u8>, &T)) {
    if !items.is_empty() {
        write_long(out, items.len() as i64);
        items.iter().for_each(|item| write(out, item));
    }
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode::envelope::SourceBlock;

    /// The value that Debezium 3.6.3 wrote for this statement.
    fn check(
        golden: &str,
        block: &SourceBlock<'_>,
        ts_ms: i64,
        ddl: &str,
        changes: &[TableChange],
    ) {
        let mut parts = EnvelopeParts::default();
        parts.fill(block, 0);
        let mut out = Vec::new();
        write_schema_change(&mut out, &parts, ts_ms, block.database, ddl, changes);
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, golden, "{ddl}");
    }

    fn block<'a>(
        database: &'a str,
        table: &'a str,
        gtid: &'a str,
        ts_ms: i64,
        offset: u64,
    ) -> SourceBlock<'a> {
        SourceBlock {
            version: "3.6.3.Final",
            source: "dbz",
            snapshot: "false",
            database,
            table,
            committed_at_us: ts_ms * 1000,
            server_id: 1,
            gtid,
            file: "binlog.000001",
            offset,
            thread: 0,
        }
    }

    #[test]
    fn schema_changes_are_debeziums_bytes() {
        let uuid = "a0ca88ad-e6cc-11f1-bc64-02fc00000001";
        let int = |name: &str, nullable| ColumnDescription {
            name: name.into(),
            jdbc_type: 4,
            type_name: "INT".into(),
            nullable,
            ..ColumnDescription::default()
        };
        let text = |name: &str, type_name: &str, length| ColumnDescription {
            name: name.into(),
            jdbc_type: 12,
            type_name: type_name.into(),
            charset: Some("utf8mb4".into()),
            length,
            nullable: true,
            ..ColumnDescription::default()
        };
        let change = |kind, database: &str, table: &str, description| TableChange {
            kind,
            database: database.into(),
            table: table.into(),
            description,
        };
        let (charset, a) = (Some("utf8mb4".to_owned()), int("a", true));
        let columns = vec![a, text("b", "VARCHAR", Some(5))];
        let nokey = TableDescription { charset: charset.clone(), primary_key: vec![], columns };
        let columns = vec![int("id", false), text("v", "TEXT", None), int("z", true)];
        let t = TableDescription { charset, primary_key: vec!["id".into()], columns };
        check(
            "16332e362e332e46696e616c0a6d7973716c0664627af4f4c6d9c068000a66616c73650873686f700002a0aa81d2bbb9b00602808ab2daf8f9c0ea31020a6e6f6b657902024c61306361383861642d653663632d313166312d626336342d3032666330303030303030313a361a62696e6c6f672e303030303031a419000000a2f7c6d9c068020873686f70000250435245415445205441424c45206e6f6b657920286120696e742c2062207661726368617228352929020c4352454154451c2273686f70222e226e6f6b65792202020e757466386d62340200040261080006494e540206494e5400000002020102000200000000026218000e56415243484152020e56415243484152020e757466386d6234020a0004020102000200000000000000",
            &block("shop", "nokey", &format!("{uuid}:6"), 1_795_390_233_914, 1618),
            1_795_390_234_065,
            "CREATE TABLE nokey (a int, b varchar(5))",
            &[change("CREATE", "shop", "nokey", Some(nokey))],
        );
        check(
            "16332e362e332e46696e616c0a6d7973716c0664627aa8f9c6d9c068000a66616c73650a6f746865720002c0e0a3d2bbb9b0060280f4a9e7faf9c0ea3102027402024e61306361383861642d653663632d313166312d626336342d3032666330303030303030313a31371a62696e6c6f672e303030303031a055000000d2fcc6d9c068020a6f74686572000248414c544552205441424c45206f746865722e742041444420434f4c554d4e207a20696e74020a414c54455216226f74686572222e22742202020e757466386d623402020469640006046964080006494e540206494e5400000002020002000200000000027618000854455854020854455854020e757466386d6234000004020102000200000000027a080006494e540206494e5400000006020102000200000000000000",
            &block("other", "t", &format!("{uuid}:17"), 1_795_390_234_196, 5456),
            1_795_390_234_409,
            "ALTER TABLE other.t ADD COLUMN z int",
            &[change("ALTER", "other", "t", Some(t))],
        );
        check(
            "16332e362e332e46696e616c0a6d7973716c0664627ae2f7c6d9c068000a66616c73650873686f700002d0d597d2bbb9b0060280f9f488faf9c0ea31020002024e61306361383861642d653663632d313166312d626336342d3032666330303030303030313a31341a62696e6c6f672e303030303031d44b0000008afcc6d9c068020873686f7000023843524541544520494e4445582069204f4e206f72646572732028752900",
            &block("shop", "", &format!("{uuid}:14"), 1_795_390_234_097, 4842),
            1_795_390_234_373,
            "CREATE INDEX i ON orders (u)",
            &[],
        );
        check(
            "16332e362e332e46696e616c0a6d7973716c0664627aaaf8c6d9c068000a66616c73650873686f70000290889cd2bbb9b0060280bd9fabfaf9c0ea31021c6f7264657273322c6e6f6b65793202024e61306361383861642d653663632d313166312d626336342d3032666330303030303030313a31361a62696e6c6f672e303030303031ec51000000aafcc6d9c068020873686f7000023444524f50205441424c45206073686f70602e606e6f6b65793260020844524f501e2273686f70222e226e6f6b657932220000",
            &block("shop", "orders2,nokey2", &format!("{uuid}:16"), 1_795_390_234_133, 5238),
            1_795_390_234_389,
            "DROP TABLE `shop`.`nokey2`",
            &[change("DROP", "shop", "nokey2", None)],
        );
    }

    #[test]
    fn the_schemas_parse() {
        for text in [SCHEMA_CHANGE_KEY, SCHEMA_CHANGE_VALUE] {
            apache_avro::Schema::parse_str(text).expect("parses");
        }
    }
}
