//! JSON differences (`binlog_row_value_options = PARTIAL_JSON`): the documents are the server's.
//!
//! `BINLAKE_TEST_SEED=n` runs one seed again.

use cdc_reader::{
    binlog::{
        event::{EventHeader, HEADER_LENGTH, kind},
        table_map,
    },
    encode::plan::EncodePlan,
    mysql::place::binlog_end,
};
use schemas::avro_schema::AvroOptions;

use super::{
    row_images::{Model, seed},
    server::{block_on, shared},
};

fn json_value(random: &mut fastrand::Rng, depth: u8) -> String {
    match random.u8(0..if depth == 0 { 6 } else { 8 }) {
        0 => "CAST('null' AS JSON)".into(),
        1 => format!("{}", random.i64(-70000..70000)),
        2 => ["true", "false"][random.usize(0..2)].into(),
        3 => format!("'te\"xt \\n{}'", "ü".repeat(random.usize(0..200))),
        4 => format!("{}", random.u64(..)),
        5 => format!("{}.5", random.i16(..)),
        6 => {
            let items: Vec<String> =
                (0..random.usize(0..4)).map(|_| json_value(random, depth - 1)).collect();
            format!("JSON_ARRAY({})", items.join(", "))
        }
        _ => {
            let members: Vec<String> = (0..random.usize(0..4))
                .map(|i| format!("'m{}', {}", i, json_value(random, depth - 1)))
                .collect();
            format!("JSON_OBJECT({})", members.join(", "))
        }
    }
}

fn json_path(random: &mut fastrand::Rng) -> String {
    let mut path = "$".to_owned();
    for _ in 0..random.usize(1..4) {
        path.push_str(match random.u8(0..14) {
            0..3 => ".a",
            3 | 4 => ".list",
            5 => ".m0",
            6 => ".\"quo\\\\\"ted ü.[0]\"",
            7 => ".\"\"",
            8 => "[0]",
            9 => "[1]",
            10 => "[7]",
            11 => "[last]",
            12 => "[last-1]",
            _ => ".longerName",
        });
    }
    path
}

fn json_change(column: &str, random: &mut fastrand::Rng) -> String {
    let mut value = column.to_owned();
    for _ in 0..random.usize(1..3) {
        let function = ["JSON_SET", "JSON_SET", "JSON_REPLACE", "JSON_REMOVE"][random.usize(0..4)];
        let steps: Vec<String> = (0..random.usize(1..4))
            .map(|_| match function {
                "JSON_REMOVE" => format!("'{}'", json_path(random)),
                _ => format!("'{}', {}", json_path(random), json_value(random, 2)),
            })
            .collect();
        value = format!("{function}({value}, {})", steps.join(", "));
    }
    format!("{column} = {value}")
}

const BASE: &str = r#"'{"a": {"a": 1, "list": [1, 2, 3], "m0": {}}, "list": [[1], {"a": null}, "x", 4.25],
 "quo\\"ted ü.[0]": {"": [0]}, "longerName": "FILLER", "": 5, "u": 18446744073709551615}'"#;

#[test]
fn json_differences_give_the_servers_documents() {
    block_on(async {
        let seed = seed();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (part VARCHAR(5) NOT NULL, id INT PRIMARY KEY, j JSON, note TEXT, k JSON, l JSON NOT NULL)")
            .await;
        db.run("FLUSH BINARY LOGS").await;
        let from = binlog_end(&mut db.connection, &db.server).await.expect("a place");
        db.run("SET SESSION binlog_row_value_options = 'PARTIAL_JSON'").await;
        // One document in the large binary format.
        for (id, filler) in [(1, 10), (2, 300), (3, 70_000), (4, 2000)] {
            let base = BASE.replace("FILLER", &"f".repeat(filler));
            let other = if id == 4 {
                "NULL"
            } else {
                "'[1, 2, [3, 4, {\"a\": \"b\"}], \"some longer text\"]'"
            };
            db.run(&format!("INSERT INTO t VALUES ('p', {id}, {base}, 'n', {other}, {base})"))
                .await;
        }
        for step in 0..500 {
            let image = ["FULL", "NOBLOB"][random.usize(0..2)];
            db.run(&format!("SET SESSION binlog_row_image = '{image}'")).await;
            let mut columns = Vec::new();
            for column in ["j", "k", "l"] {
                if random.bool() {
                    columns.push(json_change(column, &mut random));
                }
            }
            if columns.is_empty() {
                continue;
            }
            let filter = match random.u8(0..3) {
                0 => "TRUE".to_owned(),
                _ => format!("id = {}", random.u8(1..5)),
            };
            let sql = format!("UPDATE t SET {} WHERE {filter}", columns.join(", "));
            // The server refuses what is no change of a document, such as removing the whole of it.
            let result =
                mysql_async::prelude::Queryable::query_drop(&mut db.connection, &sql).await;
            if let Err(error) = result {
                assert!(step > 0 && !error.to_string().contains("syntax"), "{sql}: {error}");
            }
            if step % 50 == 0 {
                db.run(&format!("UPDATE t SET j = {} WHERE id = 1", BASE)).await;
                db.run(&format!("UPDATE t SET l = {} WHERE id = 2", BASE)).await;
            }
        }
        let mut model = Model::new("t");
        model.follow(&mut db, &shared().folder, &from.file).await;
        model.check(&mut db).await;
        assert!(model.differences > 50, "{} events with differences", model.differences);
    });
}

#[test]
fn difference_without_its_document_is_refused_with_the_cure() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE t (id INT PRIMARY KEY, j JSON);\n\
                INSERT INTO t VALUES (1, JSON_OBJECT('a', 1, 'b', REPEAT('x', 200)))",
        )
        .await;
        db.run("FLUSH BINARY LOGS").await;
        let from = binlog_end(&mut db.connection, &db.server).await.expect("a place");
        db.run(
            "SET SESSION binlog_row_value_options = 'PARTIAL_JSON', binlog_row_image = 'MINIMAL';\n\
                UPDATE t SET j = JSON_SET(j, '$.a', 2)",
        )
        .await;
        // Other tests may have begun a new file meanwhile.
        let place = binlog_end(&mut db.connection, &db.server).await.expect("a place");
        let mut file = Vec::new();
        for name in [&from.file, &place.file] {
            let path = shared().folder.join("data").join(name);
            let events = std::fs::read(path).expect("the binlog is there");
            file.extend_from_slice(if file.is_empty() { &events } else { &events[4..] });
        }
        let (mut model, mut at, mut refused) = (Model::new("t"), 4, None);
        while at < file.len() {
            let header = EventHeader::parse(&file[at..]).expect("a header");
            let end = at + header.size as usize;
            let body = &file[at + HEADER_LENGTH..end - 4];
            if header.kind == kind::TABLE_MAP {
                let map = table_map::parse(body).expect("a table map");
                if map.database == db.name {
                    let plan = EncodePlan::new(&map, "udon", &[], AvroOptions::default());
                    model.plan = Some(plan.expect("a plan"));
                }
            }
            if header.kind == kind::PARTIAL_UPDATE_ROWS && refused.is_none() && model.plan.is_some()
            {
                refused = model.encode(header.kind, body).err();
            }
            at = end;
        }
        let refused = refused.expect("is refused");
        assert!(refused.contains("set binlog_row_image = 'FULL' or 'NOBLOB'"), "{refused}");
    });
}
