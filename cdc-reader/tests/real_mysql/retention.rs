//! The watch over the binlog's retention on servers that really remove files.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use cdc_reader::{
    ReaderMetrics, SourceConfig,
    mysql::{
        connect,
        place::{binlog_end, binlog_files, gtid_executed},
        retention::{ByTime, Clock, rds_retention, retention},
    },
    retention_guard::{
        RetentionGuard, Watched,
        outlook::{Outlook, State},
    },
};
use mysql_async::{Conn, prelude::Queryable};
use schemas::position::Position;
use tokio::sync::{Semaphore, watch};

use super::{
    reading::{Reading, purge_to},
    server::{Database, block_on, start, start_by},
};

const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(50);

/// A watch beside a reader that stands still at the given position.
fn watching(
    config: &SourceConfig,
    position: Position,
) -> (RetentionGuard, watch::Sender<Position>) {
    let (committed, last_committed) = watch::channel(position);
    let guard = RetentionGuard::new(Watched {
        config: Arc::new(config.clone()),
        committed: last_committed,
        expected: watch::channel(BTreeMap::new()).1,
        brief_connection: Arc::new(Semaphore::new(1)),
        metrics: ReaderMetrics::new(&prometheus::Registry::new()).source("udon"),
    });
    (guard, committed)
}

async fn now(db: &mut Database) -> Position {
    let clock: Option<String> =
        db.connection.query_first("SELECT UNIX_TIMESTAMP(NOW(3))").await.expect("answers");
    let seconds: f64 = clock.and_then(|text| text.parse().ok()).expect("a time");
    Position {
        server_uuid: db.server.uuid.clone(),
        gtid_set: gtid_executed(&mut db.connection, &db.server).await.expect("answers"),
        place: binlog_end(&mut db.connection, &db.server).await.expect("answers"),
        source_time_ms: (seconds * 1000.0) as i64,
        ..Position::default()
    }
}

async fn look(guard: &mut RetentionGuard) -> Outlook {
    guard.connect_and_look().await.expect("looks")
}

async fn oldest(db: &mut Database) -> String {
    let files = binlog_files(&mut db.connection, &db.server).await.expect("are listed");
    files.into_iter().next().expect("a file").0
}

#[test]
fn warning_comes_before_the_file_is_removed_and_an_error_after() {
    let server = start(&["--binlog-expire-logs-seconds=8"]);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1)").await;
        let position = now(&mut db).await;
        let file = position.place.file.clone();
        let (mut guard, _committed) = watching(&db.config, position);
        // Being written, it is kept for the whole time.
        assert_eq!(look(&mut guard).await, Outlook { headroom_seconds: 8.0, state: State::Safe });
        db.run("INSERT INTO t VALUES (2);\nFLUSH BINARY LOGS").await;
        let (started, mut before) = (Instant::now(), 8.0);
        let warned = loop {
            let outlook = look(&mut guard).await;
            assert!(outlook.headroom_seconds <= before, "{outlook:?}");
            before = outlook.headroom_seconds;
            match outlook.state {
                State::Safe => {}
                State::Short(sentence) => break sentence,
                State::Gone(sentence) => panic!("not warned before: {sentence}"),
            }
            assert!(started.elapsed() < PATIENCE, "no warning");
            tokio::time::sleep(TICK).await;
        };
        assert!(warned.contains(&format!("binlog file {file}, which source udon reads on from")));
        assert!(warned.contains("(binlog_expire_logs_seconds = 8)"), "{warned}");
        assert!(warned.ends_with("SET PERSIST binlog_expire_logs_seconds = 86400"), "{warned}");
        // The server has not removed it by then, and removes it when the time is over.
        db.run("FLUSH BINARY LOGS").await;
        assert_eq!(oldest(&mut db).await, file);
        while oldest(&mut db).await == file {
            let headroom = look(&mut guard).await.headroom_seconds;
            db.run("FLUSH BINARY LOGS").await;
            let is_there = oldest(&mut db).await == file;
            assert!(is_there || headroom < 2.0, "removed with {headroom} s of headroom");
            assert!(started.elapsed() < PATIENCE, "it stays");
            tokio::time::sleep(TICK).await;
        }
        let outlook = look(&mut guard).await;
        assert_eq!(outlook.headroom_seconds, 0.0);
        let State::Gone(sentence) = outlook.state else { panic!("{:?}", outlook.state) };
        assert!(sentence.starts_with(&format!("binlog file {file}")), "{sentence}");
        assert!(sentence.contains("was removed; the oldest is"), "{sentence}");
        assert!(sentence.contains("the binlog no longer contains"), "{sentence}");
    });
}

#[test]
fn removed_file_of_which_everything_was_read_is_no_loss_with_gtids() {
    let server = start(&[]);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY)").await;
        let position = now(&mut db).await;
        db.run("FLUSH BINARY LOGS").await;
        let next = now(&mut db).await.place.file;
        purge_to(&mut db, &next).await;
        let (mut guard, committed) = watching(&db.config, position.clone());
        assert_eq!(look(&mut guard).await.state, State::Safe);
        // The same file with one transaction less is a loss.
        db.run("INSERT INTO t VALUES (1);\nFLUSH BINARY LOGS").await;
        let next = now(&mut db).await.place.file;
        purge_to(&mut db, &next).await;
        assert!(matches!(look(&mut guard).await.state, State::Gone(_)));
        committed.send_replace(now(&mut db).await);
        assert_eq!(look(&mut guard).await.state, State::Safe);
    });
}

#[test]
fn running_reader_measures_its_headroom() {
    let server = start(&["--binlog-expire-logs-seconds=90000"]);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1)").await;
        let mut reading = Reading::new(db.config.clone());
        let headroom = reading.metrics.source(&reading.config.name).binlog_headroom;
        reading.start();
        reading.wait_for(&format!("{}.t", db.name), &["r 1"]).await;
        let started = Instant::now();
        while headroom.get() != 90_000.0 {
            assert!(started.elapsed() < PATIENCE, "{}", headroom.get());
            tokio::time::sleep(TICK).await;
        }
        reading.stop().await;
    });
}

#[test]
fn configuration_of_rds_is_read_by_whichever_way_the_user_may() {
    let server = start(&[]);
    block_on(async {
        let mut db = server.database().await;
        db.run(
            "CREATE TABLE mysql.rds_configuration (name VARCHAR(100) PRIMARY KEY, value VARCHAR(100), description TEXT);\n\
             INSERT INTO mysql.rds_configuration VALUES ('binlog retention hours', '24', 'x'), ('source delay', '0', 'y');\n\
             CREATE PROCEDURE mysql.rds_show_configuration() SELECT name, value, description FROM mysql.rds_configuration;\n\
             CREATE USER rds_reads@'%', rds_calls@'%', rds_nothing@'%';\n\
             GRANT SELECT ON mysql.rds_configuration TO rds_reads@'%';\n\
             GRANT EXECUTE ON PROCEDURE mysql.rds_show_configuration TO rds_calls@'%'",
        )
        .await;
        let ask = async |user: &str, server_of: &Database| {
            let mut connection: Conn =
                connect::connect(&server.config(user, &[])).await.expect("connects");
            rds_retention(&mut connection, &server_of.server).await.expect("answers")
        };
        let after = |seconds| ByTime::After { seconds, clock: Clock::Rds };
        assert_eq!(ask("rds_reads", &db).await, after(86_400));
        assert_eq!(ask("rds_calls", &db).await, after(86_400));
        assert!(matches!(ask("rds_nothing", &db).await, ByTime::NotTold(_)));
        db.run("UPDATE mysql.rds_configuration SET value = NULL").await;
        assert_eq!(ask("rds_calls", &db).await, after(0));
    });
}

#[test]
fn retention_of_mariadb_is_asked_for_and_kept_to() {
    let server = start_by(
        "mariadb.sh",
        &["--collation-server=utf8mb4_general_ci", "--binlog-expire-logs-seconds=8"],
    );
    block_on(async {
        let mut db = server.database().await;
        let asked = retention(&mut db.connection, &db.server).await.expect("answers");
        assert_eq!(asked.by_time, ByTime::After { seconds: 8, clock: Clock::MariaDb });
        // Where the server can limit the size of its binlog, that is seen too.
        let limit = "SET GLOBAL max_binlog_total_size = 1048576";
        if db.connection.query_drop(limit).await.is_ok() {
            let asked = retention(&mut db.connection, &db.server).await.expect("answers");
            assert_eq!(
                asked.by_space.expect("a limit").setting(),
                "max_binlog_total_size = 1048576"
            );
            db.run("SET GLOBAL max_binlog_total_size = 0").await;
        }
        db.run("CREATE TABLE t (k INT PRIMARY KEY)").await;
        let position = now(&mut db).await;
        let (mut guard, _committed) = watching(&db.config, position);
        assert_eq!(look(&mut guard).await.state, State::Safe);
        db.run("INSERT INTO t VALUES (2);\nFLUSH BINARY LOGS").await;
        let started = Instant::now();
        loop {
            if let State::Short(sentence) = look(&mut guard).await.state {
                assert!(sentence.contains("SET GLOBAL binlog_expire_logs_seconds"), "{sentence}");
                break;
            }
            assert!(started.elapsed() < PATIENCE, "no warning");
            tokio::time::sleep(TICK).await;
        }
    });
}
