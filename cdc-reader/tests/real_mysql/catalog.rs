//! `information_schema` tells what TABLE_MAP tells.

use schemas::column_type::ColumnType::{self, *};

use super::server::{EVERY_TYPE, block_on, shared};

fn members(members: &[&str]) -> Vec<String> {
    members.iter().map(|member| (*member).into()).collect()
}

fn expected() -> Vec<(&'static str, ColumnType)> {
    vec![
        ("id", BigInt { unsigned: true }),
        ("ti", TinyInt { unsigned: false }),
        ("tiu", TinyInt { unsigned: true }),
        ("b", TinyInt { unsigned: false }),
        ("si", SmallInt { unsigned: false }),
        ("siu", SmallInt { unsigned: true }),
        ("mi", MediumInt { unsigned: false }),
        ("miu", MediumInt { unsigned: true }),
        ("i", Int { unsigned: false }),
        ("iu", Int { unsigned: true }),
        ("bi", BigInt { unsigned: false }),
        ("biu", BigInt { unsigned: true }),
        ("f", Float),
        ("f74", Float),
        ("f53", Double),
        ("d", Double),
        ("r", Double),
        ("dec52", Decimal { precision: 5, scale: 2 }),
        ("dec38", Decimal { precision: 38, scale: 10 }),
        ("dec65", Decimal { precision: 65, scale: 30 }),
        ("decz", Decimal { precision: 10, scale: 3 }),
        ("bit1", Bit { width: 1 }),
        ("bit9", Bit { width: 9 }),
        ("bit64", Bit { width: 64 }),
        ("da", Date),
        ("t0", Time { digits: 0 }),
        ("t6", Time { digits: 6 }),
        ("dt0", DateTime { digits: 0 }),
        ("dt3", DateTime { digits: 3 }),
        ("dt6", DateTime { digits: 6 }),
        ("ts0", Timestamp { digits: 0 }),
        ("ts2", Timestamp { digits: 2 }),
        ("ts6", Timestamp { digits: 6 }),
        ("y", Year),
        ("c", Text),
        ("c0", Text),
        ("nvc", Text),
        ("vc", Text),
        ("vl", Text),
        ("vs", Text),
        ("vu", Text),
        ("tt", Text),
        ("tx", Text),
        ("mt", Text),
        ("lt", Text),
        ("cb", Binary { length: 4 }),
        ("bin4", Binary { length: 4 }),
        ("bin255", Binary { length: 255 }),
        ("vb", Bytes),
        ("bl", Bytes),
        ("lb", Bytes),
        ("e", Enum { members: members(&["a", "b'c", "d,e", ""]) }),
        ("e2", Enum { members: members(&["ä", "ü"]) }),
        ("s", Set { members: members(&["x", "y", "z"]) }),
        ("j", Json),
        ("p", Point),
        ("g", Geometry),
        ("ls", Geometry),
        ("mp", Geometry),
        ("gc", Geometry),
        ("v", Vector),
        ("gv", Int { unsigned: false }),
        ("gs", Int { unsigned: false }),
        ("inv", Int { unsigned: false }),
        ("nn_da", Date),
        ("nn_dt", DateTime { digits: 6 }),
        ("nn_ts", Timestamp { digits: 0 }),
        ("nn_p", Point),
    ]
}

#[test]
fn every_type_is_mapped_and_invisible_and_generated_columns_are_there() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(EVERY_TYPE).await;
        let table = db.table("every_type").await;
        let found: Vec<(&str, ColumnType)> =
            table.schema.columns.iter().map(|c| (&c.name[..], c.column_type.clone())).collect();
        assert_eq!(found, expected());
        assert_eq!(table.schema.key, [0]);
        let not_null: Vec<&str> =
            table.schema.columns.iter().filter(|c| !c.nullable).map(|c| &c.name[..]).collect();
        assert_eq!(not_null, ["id", "nn_da", "nn_dt", "nn_ts", "nn_p"]);
    });
}

#[test]
fn key_is_found_and_members_are_unescaped() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE cpk (a INT, b VARCHAR(9), c INT, PRIMARY KEY (b, a));\n\
             CREATE TABLE uni (a INT, b INT NOT NULL, c INT NOT NULL, UNIQUE u1 (a), UNIQUE u2 (c, b));\n\
             CREATE TABLE prefixed (a VARCHAR(50) NOT NULL, PRIMARY KEY (a(10)));\n\
             CREATE TABLE functional (a INT NOT NULL, UNIQUE u ((a + 1)));\n\
             CREATE TABLE gipk (a INT);\n\
             CREATE TABLE odd (e ENUM('back\\\\slash', 'line\\nbreak', 'quo\\'te', '우동'), k INT PRIMARY KEY);\n\
             CREATE VIEW no_table AS SELECT 1",
        )
        .await;
        db.run("SET sql_generate_invisible_primary_key = ON;\nCREATE TABLE gipk2 (a INT)").await;
        for (name, key) in [
            ("cpk", &["b", "a"][..]),
            ("uni", &["c", "b"]),
            ("prefixed", &[]),
            ("functional", &[]),
            ("gipk", &[]),
            ("gipk2", &["my_row_id"]),
        ] {
            assert_eq!(db.table(name).await.key_names(), key, "{name}");
        }
        let odd = db.table("odd").await;
        let members = members(&["back\\slash", "line\nbreak", "quo'te", "우동"]);
        assert_eq!(odd.schema.columns[0].column_type, Enum { members });
        let catalog = db.catalog().await;
        assert!(catalog.tables.iter().all(|table| table.schema.id.table != "no_table"));
    });
}

#[test]
fn two_names_for_one_topic_are_told_and_only_one_is_captured() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE `주문` (a INT PRIMARY KEY);\nCREATE TABLE `고객` (a INT PRIMARY KEY)")
            .await;
        let catalog = db.catalog().await;
        assert_eq!(catalog.tables.len(), 1);
        let (_, reason) = &catalog.unsupported[0];
        assert!(reason.contains("is also that of") && reason.contains("rename one"), "{reason}");
    });
}
