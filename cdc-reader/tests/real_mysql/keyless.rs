//! Tables without a key: all of their rows, each once, whatever happens meanwhile.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cdc_reader::{
    SourceConfig,
    mysql::{connect, place::binlog_end},
};
use mysql_async::prelude::Queryable;
use schemas::wire_format::read_framing;

use super::{
    reading::Reading,
    server::{Database, block_on, shared, start},
    throttle::Busy,
};

/// More than were ever held in memory.
const ROWS: i64 = 1_100_000;
const WRITERS: i64 = 3;
const PATIENCE: Duration = Duration::from_secs(240);

type Row = (i64, i64);

/// A row's two columns, which are NOT NULL: two zigzag numbers behind the branch of their union.
fn row(datum: &mut &[u8]) -> Option<Row> {
    let (branch, rest) = datum.split_first().expect("a branch");
    *datum = rest;
    (*branch == 2).then(|| (number(datum), number(datum)))
}

fn number(datum: &mut &[u8]) -> i64 {
    let (mut value, mut shift) = (0u64, 0);
    loop {
        let (byte, rest) = datum.split_first().expect("a varint");
        *datum = rest;
        value |= u64::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            return (value >> 1) as i64 ^ -((value & 1) as i64);
        }
    }
}

/// How often each row is there after all records, and how often a row was added.
fn replay(values: &[Vec<u8>]) -> (HashMap<Row, i64>, usize) {
    let (mut rows, mut added) = (HashMap::new(), 0);
    for value in values {
        let (_, mut datum) = read_framing(value).expect("is framed");
        let (before, after) = (row(&mut datum), row(&mut datum));
        added += usize::from(before.is_none());
        if let Some(before) = before {
            *rows.entry(before).or_insert(0) -= 1;
        }
        if let Some(after) = after {
            *rows.entry(after).or_insert(0) += 1;
        }
    }
    rows.retain(|_, count| *count != 0);
    (rows, added)
}

/// Inserts, changes and deletes rows, identical ones among them, until it is told to stop; answers how many it inserted.
async fn write(config: SourceConfig, table: String, writer: i64, stop: Arc<AtomicBool>) -> usize {
    let mut connection = connect::connect(&config).await.expect("connects");
    connection
        .query_drop("SET SESSION transaction_isolation = 'READ-COMMITTED'")
        .await
        .expect("without locks on gaps");
    let mut inserted = 0;
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = ROWS + round * WRITERS + writer;
        let old = round * 97 % ROWS;
        let statements = [
            format!("INSERT INTO {table} VALUES ({id}, 0), (-1, 0), (-1, 0)"),
            format!("UPDATE {table} SET v = v + 1 WHERE id IN ({id}, {old})"),
            format!("DELETE FROM {table} WHERE id = {}", old + 1),
        ];
        for statement in statements {
            connection.query_drop(statement).await.expect("written");
        }
        inserted += 3;
    }
    inserted
}

async fn wait(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn rows_of(db: &mut Database, table: &str) -> HashMap<Row, i64> {
    let rows: Vec<(i64, i64, i64)> = db
        .connection
        .query(format!("SELECT id, v, COUNT(*) FROM {table} GROUP BY id, v"))
        .await
        .expect("counted");
    rows.into_iter().map(|(id, v, count)| ((id, v), count)).collect()
}

#[test]
fn large_table_beside_its_writers_has_each_row_once_even_after_a_restart() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE log (id BIGINT NOT NULL, v INT NOT NULL, KEY (id))").await;
        db.run("SET SESSION cte_max_recursion_depth = 2000000").await;
        db.run(&format!(
            "INSERT INTO log WITH RECURSIVE n AS (SELECT 0 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
             SELECT i, 0 FROM n",
            ROWS - 1
        ))
        .await;
        let (name, config) = (format!("{}.log", db.name), db.config.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| tokio::spawn(write(config.clone(), name.clone(), writer, stop.clone())))
            .collect();
        let mut reading = Reading::new(config);
        reading.start();
        wait("rows are on their way into the log", || reading.log_bytes() > 4 << 20).await;
        reading.stop().await;
        assert!(!reading.position().snapshots.get(&name).is_some_and(|table| table.done));
        assert_eq!(reading.values(&name).len(), 0, "nothing is in the log before everything is");
        reading.start();
        wait("the table is read", || {
            reading.position().snapshots.get(&name).is_some_and(|table| table.done)
        })
        .await;
        let after = binlog_end(&mut db.connection, &db.server).await.expect("an end");
        wait("the stream goes on", || reading.position().place.reached(&after)).await;
        stop.store(true, Ordering::Relaxed);
        let mut inserted = 0;
        for writer in writers {
            inserted += writer.await.expect("writes");
        }
        let expected = rows_of(&mut db, "log").await;
        let end = binlog_end(&mut db.connection, &db.server).await.expect("an end");
        wait("the stream ends", || reading.position().place.reached(&end)).await;
        reading.stop().await;
        let (rows, added) = replay(&reading.values(&name));
        assert!(rows == expected, "{} rows, expected {}", rows.len(), expected.len());
        // A row that a writer inserted and deleted or changed before the view is there as what it was then.
        assert!(added <= ROWS as usize + inserted && added > ROWS as usize / 2, "{added}");
    });
}

#[test]
fn generated_invisible_key_is_a_key_even_when_the_server_hides_it() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "SET SESSION sql_generate_invisible_primary_key = ON;\nCREATE TABLE log (a INT NOT NULL);\n\
             INSERT INTO log VALUES (7),(7),(7);\n\
             SET GLOBAL show_gipk_in_create_table_and_information_schema = OFF",
        )
        .await;
        let mut other = db.config.clone();
        (other.snapshot_chunk_rows, other.snapshot_readers) = (1, 1);
        let name = format!("{}.log", db.name);
        let mut reading = Reading::new(other);
        reading.start();
        reading.wait_read(&name).await;
        db.run("SET GLOBAL show_gipk_in_create_table_and_information_schema = ON").await;
        reading.stop().await;
        // Without a key the rows would come from one view, and have one column.
        let records = reading.records(&name);
        assert_eq!(records.len(), 3);
        for (i, record) in records.iter().enumerate() {
            // BIGINT UNSIGNED is a decimal in Avro.
            assert!(record.contains(&format!("value: {},", i + 1)), "{records:?}");
        }
    });
}

#[test]
fn table_that_gets_a_key_before_its_rows_are_read_has_them_and_all_later_ones() {
    let server = start(&[]);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT NOT NULL);\nINSERT INTO t VALUES (1),(2)").await;
        let name = format!("{}.t", db.name);
        let busy = Busy::start(&mut db).await;
        let mut reading = Reading::new(db.config.clone());
        busy.pause(&mut reading).await;
        db.run("ALTER TABLE t ADD PRIMARY KEY (k);\nINSERT INTO t VALUES (3)").await;
        busy.end(&mut db).await;
        reading.wait_read(&name).await;
        db.run("INSERT INTO t VALUES (4)").await;
        wait("the last row is there", || {
            reading.records(&name).last().is_some_and(|row| row == "c 4")
        })
        .await;
        let records = reading.records(&name);
        let mut rows: Vec<&str> = records.iter().map(|row| &row[2..]).collect();
        rows.sort_unstable();
        assert_eq!(rows, ["1", "2", "3", "4"], "{records:?}");
        reading.stop().await;
    });
}
