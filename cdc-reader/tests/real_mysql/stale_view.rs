//! The stream ahead of what a SELECT sees: a transaction that waits for a semi-synchronous replica is in the binlog, and
//! was sent to every reader of it, and no read view has it. A chunk that is read then brings the row as it was before.

use std::{collections::BTreeMap, time::Instant};

use cdc_reader::{
    flow::StreamState,
    mysql::{connect, place::binlog_end},
};
use mysql_async::prelude::Queryable;

use super::{
    following::PATIENCE,
    protocol::Played,
    server::{Database, Running, block_on, start, start_by},
};

/// How a kind of server is told to hold commits up, and how one sees that the reader waits for them.
struct Held<'a> {
    hold: &'a str,
    release: &'a str,
    /// How many commits are held up.
    holds: &'a str,
    /// The GTIDs of what can be seen; empty without GTIDs.
    seen: &'a str,
    /// A number that rises while the reader waits.
    waits: &'a str,
}

const MYSQL_HOLD: &str = "SET GLOBAL rpl_semi_sync_source_timeout = 600000;\n\
                          SET GLOBAL rpl_semi_sync_source_enabled = 1";
const MYSQL_HOLDS: &str = "SELECT COUNT(*) FROM performance_schema.processlist \
                           WHERE STATE LIKE 'Waiting for semi-sync ACK%'";
const MYSQL_RELEASE: &str = "SET GLOBAL rpl_semi_sync_source_enabled = 0";

#[test]
fn stale_view_with_gtids_is_waited_out() {
    let server = start(&["--plugin-load-add=semisync_source.so"]);
    let held = Held {
        hold: MYSQL_HOLD,
        release: MYSQL_RELEASE,
        holds: MYSQL_HOLDS,
        seen: "SELECT @@GLOBAL.gtid_executed",
        waits: "SELECT COUNT(*) FROM performance_schema.processlist \
                WHERE INFO LIKE 'SELECT WAIT_FOR_EXECUTED_GTID_SET%' AND ID <> CONNECTION_ID()",
    };
    chunk_has_what_the_stream_has(&server, &held);
}

#[test]
fn stale_view_without_gtids_is_waited_out() {
    let server = start(&[
        "--plugin-load-add=semisync_source.so",
        "--gtid-mode=OFF",
        "--enforce-gtid-consistency=OFF",
    ]);
    let held = Held {
        hold: MYSQL_HOLD,
        release: MYSQL_RELEASE,
        holds: MYSQL_HOLDS,
        seen: "SELECT ''",
        waits: "SELECT COALESCE(SUM(COUNT_STAR), 0) FROM \
                performance_schema.events_statements_summary_by_digest \
                WHERE DIGEST_TEXT LIKE 'SHOW GLOBAL STATUS%'",
    };
    chunk_has_what_the_stream_has(&server, &held);
}

#[test]
fn stale_view_of_mariadb_is_waited_out() {
    let server = start_by("mariadb.sh", &["--collation-server=utf8mb4_general_ci"]);
    let held = Held {
        hold: "SET GLOBAL rpl_semi_sync_master_timeout = 600000;\n\
               SET GLOBAL rpl_semi_sync_master_wait_point = 'AFTER_SYNC';\n\
               SET GLOBAL rpl_semi_sync_master_enabled = 1",
        release: "SET GLOBAL rpl_semi_sync_master_enabled = 0",
        holds: "SELECT COUNT(*) FROM information_schema.PROCESSLIST \
                WHERE STATE LIKE 'Waiting for semi-sync ACK%'",
        seen: "SELECT @@GLOBAL.gtid_binlog_pos",
        waits: "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS \
                WHERE VARIABLE_NAME = 'COM_ROLLBACK'",
    };
    chunk_has_what_the_stream_has(&server, &held);
}

fn chunk_has_what_the_stream_has(server: &Running, held: &Held<'_>) {
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY, v INT NOT NULL);\nINSERT INTO t VALUES (1, 1)")
            .await;
        let tables = db.catalog().await.tables;
        let seen: Option<String> = db.connection.query_first(held.seen).await.expect("is asked");
        db.run(held.hold).await;
        let (config, update) = (db.config.clone(), format!("UPDATE {}.t SET v = 2", db.name));
        let writing = tokio::spawn(async move {
            let mut writer = connect::connect(&config).await.expect("connects");
            writer.query_drop(update).await.expect("updates");
        });
        until(&mut db, held.holds, 1).await;

        let mut played = Played::start(&mut db, tables, BTreeMap::new(), 10).await;
        let place = binlog_end(&mut db.connection, &db.server).await.expect("a place");
        let gtid_set = with_the_next(seen.expect("a set").trim());
        played.state = StreamState { gtid_set, place, ..StreamState::default() };
        let waits = number(&mut db, held.waits).await;
        let mut chunk = Box::pin(played.chunk());
        tokio::select! {
            chunk = &mut chunk => panic!("read while the update could not be seen: {chunk:?}"),
            () = until(&mut db, held.waits, waits + 1) => {}
        }
        db.run(held.release).await;
        let chunk = tokio::time::timeout(PATIENCE, chunk).await.expect("in time").expect("a chunk");
        writing.await.expect("joins");
        // Zigzag: the key 1 and the value 2.
        let rows: Vec<&[u8]> =
            chunk.rows.iter().map(|(_, row)| &chunk.bytes[row.clone()]).collect();
        assert_eq!(rows, [[2, 4]]);
        played.shutdown.cancel();
        drop(chunk);
        played.run.await.expect("joins").expect("ends well");
    });
}

/// `uuid:1-7` or `0-1-7` with the transaction that comes next.
fn with_the_next(set: &str) -> String {
    let rest = set.trim_end_matches(|c: char| c.is_ascii_digit());
    let last = set[rest.len()..].parse::<u64>();
    last.map_or(String::new(), |last| format!("{rest}{}", last + 1))
}

async fn until(db: &mut Database, sql: &str, wanted: u64) {
    let started = Instant::now();
    while number(db, sql).await < wanted {
        assert!(started.elapsed() < PATIENCE, "not {wanted}: {sql}");
    }
}

async fn number(db: &mut Database, sql: &str) -> u64 {
    db.connection.query_first(sql).await.expect("is asked").expect("a number")
}
