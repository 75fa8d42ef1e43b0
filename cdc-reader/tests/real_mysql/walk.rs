//! The walk by keys: whatever the key and wherever it is cut, every row comes exactly once, in the server's order.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use cdc_reader::{
    mysql::catalog::CatalogTable,
    snapshot::{
        avro_row::RowWriter,
        chunk_plan::{ChunkRange, KeyText, boundary_select, chunk_select},
        chunk_read::{Overflow, ReadRows, read_boundary, read_chunk},
    },
};
use mysql_async::{Row, prelude::Queryable};
use schemas::avro_schema::AvroOptions;

use super::{
    reading::Reading,
    server::{Database, block_on, shared},
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn chunk(
    db: &mut Database,
    table: &CatalogTable,
    after: Option<&KeyText>,
    rows: u64,
    bytes_max: usize,
) -> ReadRows {
    let mut writer = RowWriter::new(table, AvroOptions::default());
    let range = ChunkRange { after: after.map(Vec::as_slice), rows, ..Default::default() };
    read_chunk(db.rows(), table, range, bytes_max, Overflow::CutShort, &mut writer).expect("reads")
}

fn keys(read: &ReadRows) -> Vec<Vec<u8>> {
    read.rows.iter().map(|(key, _)| read.bytes[key.clone()].to_vec()).collect()
}

/// Finds where each part of `size` rows ends before any is read, as parallel readers do.
fn by_boundaries(db: &mut Database, table: &CatalogTable, size: u64) -> Vec<Vec<u8>> {
    let (mut ends, mut after): (Vec<KeyText>, Option<KeyText>) = (Vec::new(), None);
    loop {
        let end = read_boundary(db.rows(), table, after.as_deref(), None, size - 1).expect("reads");
        let Some(end) = end else { break };
        ends.push(end.clone());
        after = Some(end);
    }
    let mut walked = Vec::new();
    let starts = std::iter::once(None).chain(ends.iter().map(Some));
    for (start, end) in starts.zip(ends.iter().map(Some).chain([None])) {
        let after = start.map(Vec::as_slice);
        let upto = end.map(Vec::as_slice);
        let mut writer = RowWriter::new(table, AvroOptions::default());
        let range = ChunkRange { after, upto, rows: 1_000_000, ..Default::default() };
        let read = read_chunk(db.rows(), table, range, usize::MAX, Overflow::CutShort, &mut writer)
            .expect("reads");
        assert!(read.complete);
        if end.is_some() {
            assert_eq!(read.rows.len() as u64, size);
            assert_eq!(read.last_key.as_ref(), end, "the boundary is the last row's key");
            let inside = read_boundary(db.rows(), table, after, upto, size).expect("reads");
            assert_eq!(inside, None, "no row of the range is behind it");
        }
        walked.extend(keys(&read));
    }
    walked
}

/// Walks in chunks of every size, each time as a restarted reader would: with nothing but the last key's text.
async fn check_walk(db: &mut Database, name: &str, expected_rows: usize) {
    let table = db.table(name).await;
    assert!(!table.schema.key.is_empty(), "{name} has a key");
    let whole = keys(&chunk(db, &table, None, 1_000_000, usize::MAX).await);
    assert_eq!(whole.len(), expected_rows, "{name}");
    assert_eq!(
        whole.iter().collect::<HashSet<_>>().len(),
        expected_rows,
        "{name}: keys are distinct"
    );
    for size in [1, 2, 3, 7, (expected_rows as u64).max(1), expected_rows as u64 + 1] {
        let mut walked = Vec::new();
        let mut after: Option<KeyText> = None;
        loop {
            let read = chunk(db, &table, after.as_ref(), size, usize::MAX).await;
            assert!(read.rows.len() as u64 <= size);
            walked.extend(keys(&read));
            if read.complete {
                break;
            }
            let stored = serde_json::to_string(&read.last_key).expect("serialises");
            after = serde_json::from_str(&stored).expect("reads back");
            assert!(walked.len() <= expected_rows, "{name} in chunks of {size} does not end");
        }
        assert_eq!(by_boundaries(db, &table, size), whole, "{name} in parts of {size}");
        assert_eq!(walked, whole, "{name} in chunks of {size}");
    }
}

#[test]
fn every_kind_of_key_is_walked_completely() {
    block_on(async {
        let mut db = shared().database().await;
        let cases: [(&str, &str, &[&str]); 22] = [
            ("k_int", "INT", &["-2147483648", "-1", "0", "1", "2147483647"]),
            (
                "k_ubig",
                "BIGINT UNSIGNED",
                &["0", "1", "9223372036854775807", "9223372036854775808", "18446744073709551615"],
            ),
            (
                "k_dec",
                "DECIMAL(65,30)",
                &[
                    "-0.000000000000000000000000000001",
                    "0",
                    "99999999999999999999999999999999999.999999999999999999999999999999",
                    "-12345678901234567890.5",
                    "1.1",
                ],
            ),
            ("k_decz", "DECIMAL(6,2) UNSIGNED ZEROFILL", &["0.01", "12.5", "9999.99"]),
            ("k_float", "FLOAT", &["1.1", "-1.1", "0", "3.4e38", "1e-38", "16777217"]),
            ("k_double", "DOUBLE", &["0.1", "1e300", "-1e-300", "0.30000000000000004", "0.3"]),
            (
                "k_bit",
                "BIT(64)",
                &["b'0'", "b'1'", "0xFFFFFFFFFFFFFFFF", "0x8000000000000000", "0x8000000000000001"],
            ),
            ("k_date", "DATE", &["'0000-00-00'", "'1000-01-01'", "'2024-02-29'", "'9999-12-31'"]),
            (
                "k_dt6",
                "DATETIME(6)",
                &[
                    "'0000-00-00'",
                    "'2024-02-29 23:59:59.999999'",
                    "'2024-03-01'",
                    "'2024-02-29 23:59:59.999998'",
                ],
            ),
            (
                "k_ts6",
                "TIMESTAMP(6)",
                &[
                    "'1970-01-01 00:00:01'",
                    "'2024-10-27 00:30:00.000001'",
                    "'2024-10-27 01:30:00.000001'",
                    "'2038-01-19 03:14:07.999999'",
                ],
            ),
            (
                "k_time",
                "TIME(3)",
                &["'-838:59:59'", "'-00:00:00.001'", "'00:00:00'", "'838:59:59'", "'100:00:00.5'"],
            ),
            ("k_year", "YEAR", &["0", "1901", "2155", "2024"]),
            ("k_enum", "ENUM('z','a','m','')", &["'z'", "'a'", "'m'", "''"]),
            ("k_set", "SET('z','a','m')", &["''", "'z'", "'a'", "'z,a'", "'m'", "'z,m'"]),
            ("k_bin", "BINARY(4)", &["''", "X'00FF'", "X'01'", "X'FFFFFFFF'", "'AB'", "'ab'"]),
            ("k_vbin", "VARBINARY(20)", &["''", "X'00'", "X'0000'", "'a'", "'a '", "X'FF'"]),
            (
                "k_ci",
                "VARCHAR(50) COLLATE utf8mb4_0900_ai_ci",
                &[
                    "''", "'a'", "'a '", "'b'", "'ä1'", "'Z'", "'é'", "'f'", "'ß'", "'우동'",
                    "'🍜'", "'\\\\'", "'\\''", "'%'",
                ],
            ),
            (
                "k_bin4",
                "VARCHAR(50) COLLATE utf8mb4_bin",
                &["''", "'a'", "'A'", "'ä'", "'Ä'", "'b'", "'🍜'"],
            ),
            (
                "k_pad",
                "VARCHAR(50) COLLATE utf8mb4_general_ci",
                &["''", "'a'", "'a\\t'", "'b'", "'ab'", "'ö'"],
            ),
            (
                "k_lat",
                "VARCHAR(50) CHARACTER SET latin1 COLLATE latin1_german2_ci",
                &["'a'", "'b'", "'oz'", "'pa'", "'ö'", "'z'", "'€'"],
            ),
            ("k_sjis", "VARCHAR(50) CHARACTER SET sjis", &["'a'", "'日本'", "'表'", "'ソ'", "'b'"]),
            ("k_char", "CHAR(8) COLLATE utf8mb4_0900_as_cs", &["''", "'a'", "'A'", "'a b'", "'á'"]),
        ];
        for (name, column_type, values) in cases {
            db.run(&format!(
                "CREATE TABLE {name} (v INT, k {column_type} NOT NULL, PRIMARY KEY (k))"
            ))
            .await;
            let rows: Vec<String> = values.iter().map(|value| format!("({value}, 1)")).collect();
            db.run(&format!("INSERT INTO {name} (k, v) VALUES {}", rows.join(", "))).await;
            check_walk(&mut db, name, values.len()).await;
        }
    });
}

#[test]
fn composite_and_unique_keys_are_walked_completely() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE c3 (a INT NOT NULL, n VARCHAR(20) COLLATE utf8mb4_0900_ai_ci NOT NULL, t DATETIME(6) NOT NULL, \
             v INT, PRIMARY KEY (n, t, a));\n\
             CREATE TABLE u2 (a INT NOT NULL, b ENUM('q','p') NOT NULL, v INT, UNIQUE KEY (b, a));\n\
             CREATE TABLE hidden_index (a INT NOT NULL, b INT NOT NULL, UNIQUE z (b), UNIQUE a (a) INVISIBLE);\n\
             CREATE TABLE nothing (a INT PRIMARY KEY)",
        )
        .await;
        for n in ["'a'", "'é'", "'z'"] {
            for t in ["'2024-01-01 00:00:00.000001'", "'2024-01-01 00:00:00.000002'"] {
                db.run(&format!(
                    "INSERT INTO c3 VALUES (-1, {n}, {t}, 1), (0, {n}, {t}, 2), (5, {n}, {t}, 3)"
                ))
                .await;
            }
        }
        db.run("INSERT INTO u2 VALUES (1,'p',0),(2,'p',0),(1,'q',0),(2,'q',0),(-3,'q',0)").await;
        db.run("INSERT INTO hidden_index VALUES (3,1),(1,2),(2,3)").await;
        check_walk(&mut db, "c3", 18).await;
        check_walk(&mut db, "u2", 5).await;
        check_walk(&mut db, "hidden_index", 3).await;
        check_walk(&mut db, "nothing", 0).await;
    });
}

#[test]
fn chunk_of_large_rows_is_cut_by_bytes_and_nothing_is_lost() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE big (k INT PRIMARY KEY, v LONGTEXT)").await;
        db.run("INSERT INTO big SELECT value, REPEAT('x', 10000) FROM \
                (WITH RECURSIVE n AS (SELECT 1 AS value UNION ALL SELECT value + 1 FROM n WHERE value < 50) SELECT * FROM n) q")
            .await;
        let table = db.table("big").await;
        let (mut rows, mut chunks, mut after) = (0, 0, None);
        loop {
            let read = chunk(&mut db, &table, after.as_ref(), 1000, 100_000).await;
            assert!(read.bytes.len() < 120_000);
            rows += read.rows.len();
            chunks += 1;
            if read.complete {
                break;
            }
            after = read.last_key;
        }
        assert_eq!(rows, 50);
        assert!(chunks >= 5, "{chunks}");
    });
}

#[test]
fn boundary_is_found_by_range_access() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE r (n VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german1_ci NOT NULL, m VARCHAR(20) NOT NULL, \
             a BIGINT UNSIGNED NOT NULL, v INT, PRIMARY KEY (n, m, a));\n\
             INSERT INTO r SELECT LPAD(value, 5, '0'), 'm', value, 1 FROM \
             (WITH RECURSIVE n AS (SELECT 1 AS value UNION ALL SELECT value + 1 FROM n WHERE value < 1000) SELECT * FROM n) q",
        )
        .await;
        let table = db.table("r").await;
        let first = chunk(&mut db, &table, None, 500, usize::MAX).await;
        let after = first.last_key.as_deref();
        let upto = chunk(&mut db, &table, first.last_key.as_ref(), 300, usize::MAX).await.last_key;
        let upto = upto.as_deref();
        let open = ChunkRange { after, rows: 10, ..Default::default() };
        for sql in [
            chunk_select(&table, open),
            chunk_select(&table, ChunkRange { upto, filter: Some("v > 0"), ..open }),
            chunk_select(&table, ChunkRange { after: None, upto, ..open }),
            boundary_select(&table, after, None, 99),
            boundary_select(&table, after, upto, 99),
        ] {
            let sql = sql.expect("fits");
            let plan: Option<Row> = db
                .connection
                .query_first(format!("EXPLAIN FORMAT=TRADITIONAL {sql}"))
                .await
                .expect("explains");
            let plan = plan.expect("a line");
            assert_eq!(plan.get::<String, _>("type").as_deref(), Some("range"), "{sql}");
            assert_eq!(plan.get::<String, _>("key").as_deref(), Some("PRIMARY"), "{sql}");
            let extra = plan.get::<Option<String>, _>("Extra").flatten().unwrap_or_default();
            assert!(!extra.contains("filesort"), "{sql}: {extra}");
        }
        let wanted = ChunkRange { after, upto, filter: Some("a % 2 = 0 -- even"), rows: 1000 };
        let mut writer = RowWriter::new(&table, AvroOptions::default());
        let read =
            read_chunk(db.rows(), &table, wanted, usize::MAX, Overflow::CutShort, &mut writer)
                .expect("reads");
        assert_eq!((read.rows.len(), read.complete), (150, true));
    });
}

#[test]
fn walk_begins_again_when_the_members_of_its_key_change_places() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (e ENUM('a','b') NOT NULL, k INT NOT NULL, PRIMARY KEY (e, k))")
            .await;
        let rows = |e: &str| (0..150).map(|k| format!("('{e}',{k})")).collect::<Vec<_>>().join(",");
        db.run(&format!("INSERT INTO t VALUES {},{}", rows("a"), rows("b"))).await;
        let name = format!("{}.t", db.name);
        for restarts in [false, true] {
            let (first, second) = if restarts { ("a", "b") } else { ("b", "a") };
            let mut reading = Reading::new(db.config.clone());
            (reading.config.snapshot_chunk_rows, reading.config.snapshot_readers) = (10, 1);
            reading.config.snapshot_max_rows_per_second = 40;
            reading.start();
            let started = Instant::now();
            while reading.position().snapshots.get(&name).is_none_or(|table| table.rows == 0) {
                assert!(started.elapsed() < PATIENCE, "nothing is read");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if restarts {
                reading.stop().await;
            }
            assert!(reading.position().snapshots[&name].rows < 150);
            db.run(&format!("ALTER TABLE t MODIFY e ENUM('{first}','{second}') NOT NULL")).await;
            reading.config.snapshot_max_rows_per_second = 0;
            if restarts {
                reading.start();
            }
            reading.wait_read(&name).await;
            let keys: HashSet<String> =
                reading.records(&name).iter().map(|row| row[2..].to_owned()).collect();
            assert_eq!(keys.len(), 300);
            reading.stop().await;
        }
    });
}
