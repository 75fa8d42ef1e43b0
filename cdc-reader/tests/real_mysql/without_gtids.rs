//! MySQL with `gtid_mode = OFF`: the binlog is read by file and offset.

use std::time::Duration;

use cdc_reader::mysql::{connect, visible::wait_until_visible};
use mysql_async::prelude::Queryable;

use super::{
    reading::{Reading, purge_to},
    server::{block_on, start},
};

const OFF: [&str; 2] = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"];

#[test]
fn stream_goes_on_across_rotation_and_restart_by_file_and_offset() {
    let server = start(&OFF);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY, v INT);\nINSERT INTO t VALUES (1,1),(2,2)")
            .await;
        db.run("CREATE TABLE log (v INT);\nINSERT INTO log VALUES (7),(7)").await;
        let (t, log) = (format!("{}.t", db.name), format!("{}.log", db.name));
        let mut reading = Reading::new(db.config.clone());
        reading.start();
        reading.wait_for(&t, &["r 1,1", "r 2,2"]).await;
        reading.wait_for(&log, &["r 7", "r 7"]).await;
        db.run("INSERT INTO t VALUES (3,3);\nINSERT INTO log VALUES (8);\nFLUSH BINARY LOGS").await;
        db.run("UPDATE t SET v = 4 WHERE k = 3").await;
        let mut expected = vec!["r 1,1", "r 2,2", "c 3,3", "u 3,4"];
        reading.wait_for(&t, &expected).await;
        reading.wait_for(&log, &["r 7", "r 7", "c 8"]).await;
        reading.stop().await;
        let position = reading.position();
        assert!(position.by_place && position.gtid_set.is_empty());
        assert!(position.place.file.ends_with("000002") && position.file_created > 0);

        db.run("DELETE FROM t WHERE k = 1;\nFLUSH BINARY LOGS;\nINSERT INTO t VALUES (5,5)").await;
        reading.start();
        expected.extend(["d 1,1", "c 5,5"]);
        reading.wait_for(&t, &expected).await;
        reading.stop().await;
    });
}

#[test]
fn reset_purge_and_another_server_are_named_and_not_resumed_from() {
    let server = start(&OFF);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1)").await;
        let t = format!("{}.t", db.name);
        let mut reading = Reading::new(db.config.clone());
        let begin = async |reading: &mut Reading| {
            *reading = Reading::new(reading.config.clone());
            reading.start();
            reading.wait_for(&t, &["r 1"]).await;
            reading.stop().await;
            reading.position()
        };

        let place = begin(&mut reading).await.place;
        db.run("FLUSH BINARY LOGS;\nFLUSH BINARY LOGS").await;
        purge_to(&mut db, "binlog.000003").await;
        reading.start();
        let sentence = reading.failure().await;
        let wanted = format!("the binlog no longer contains {}:{}", place.file, place.offset);
        assert!(sentence.contains(&wanted), "{sentence}");

        begin(&mut reading).await;
        db.run("RESET BINARY LOGS AND GTIDS").await;
        reading.start();
        let sentence = reading.failure().await;
        assert!(sentence.contains("has no binlog file binlog.000003"), "{sentence}");

        // The same name again, and longer than the position.
        let place = begin(&mut reading).await.place;
        assert!(place.file.ends_with("000001"));
        // Files are told apart by the second in which they were begun.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        db.run(
            "RESET BINARY LOGS AND GTIDS;\nINSERT INTO t VALUES (2);\nDELETE FROM t WHERE k = 2",
        )
        .await;
        db.run("INSERT INTO t VALUES (3);\nDELETE FROM t WHERE k = 3").await;
        reading.start();
        let sentence = reading.failure().await;
        assert!(sentence.contains("is another one than the file of that name"), "{sentence}");

        begin(&mut reading).await;
        let other = start(&OFF);
        reading.config.url = format!("mysql://root@127.0.0.1:{}", other.port);
        reading.start();
        let sentence = reading.failure().await;
        assert!(sentence.contains("without GTIDs a place holds on one server only"), "{sentence}");
    });
}

/// With semi-synchronous replication and no replica, a commit is in the binlog for seconds before it is visible.
#[test]
fn what_the_binlog_holds_is_waited_for_until_it_is_visible() {
    let server = start(&OFF);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY)").await;
        db.run("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'").await;
        db.run("CREATE USER plain@'%';\nGRANT SELECT, REPLICATION CLIENT ON *.* TO plain@'%'")
            .await;
        for user in ["root", "plain"] {
            db.run(
                "SET GLOBAL rpl_semi_sync_source_enabled = 0;\n\
                 SET GLOBAL rpl_semi_sync_source_timeout = 2000;\n\
                 SET GLOBAL rpl_semi_sync_source_enabled = 1",
            )
            .await;
            let config = server.config(user, &["*.*"]);
            let mut other = connect::connect(&config).await.expect("connects");
            let mut third = connect::connect(&config).await.expect("connects");
            let select = format!("SELECT COUNT(*) FROM {}.t", db.name);
            let before: Option<u64> = other.query_first(&select).await.expect("counts");
            let (name, config) = (db.name.clone(), db.config.clone());
            let writing = tokio::spawn(async move {
                let mut writer = connect::connect(&config).await.expect("connects");
                let insert = format!("INSERT INTO {name}.t SELECT COUNT(*) FROM {name}.t");
                writer.query_drop(insert).await.expect("inserts");
            });
            loop {
                let waiting: Option<u64> = db
                    .connection
                    .query_first(
                        "SELECT COUNT(*) FROM performance_schema.processlist \
                         WHERE STATE LIKE 'Waiting for semi-sync ACK%'",
                    )
                    .await
                    .expect("is asked");
                if waiting == Some(1) {
                    break;
                }
                assert!(!writing.is_finished(), "the commit was not held up");
            }
            let hidden: Option<u64> = third.query_first(&select).await.expect("counts");
            assert_eq!(hidden, before, "it is in the binlog and cannot be seen");
            wait_until_visible(&mut other, &db.server, Duration::from_secs(30))
                .await
                .expect("is waited for");
            let after: Option<u64> = other.query_first(&select).await.expect("counts");
            assert_eq!(after, before.map(|count| count + 1), "{user}");
            writing.await.expect("joins");
        }
    });
}

/// Commits that never pause: the end of each single one is seen all the same.
#[test]
fn busy_server_does_not_keep_the_wait_from_ending() {
    let server = start(&OFF);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k BIGINT AUTO_INCREMENT PRIMARY KEY)").await;
        let stop = tokio_util::sync::CancellationToken::new();
        let mut writers = Vec::new();
        for _ in 0..4 {
            let (config, name, stop) = (db.config.clone(), db.name.clone(), stop.clone());
            writers.push(tokio::spawn(async move {
                let mut writer = connect::connect(&config).await.expect("connects");
                while !stop.is_cancelled() {
                    writer
                        .query_drop(format!("INSERT INTO {name}.t VALUES (DEFAULT)"))
                        .await
                        .expect("inserts");
                }
            }));
        }
        for _ in 0..20 {
            wait_until_visible(&mut db.connection, &db.server, Duration::from_secs(10))
                .await
                .expect("ends");
        }
        stop.cancel();
        for writer in writers {
            writer.await.expect("joins");
        }
    });
}

#[test]
fn compressed_transaction_is_committed_with_the_place_behind_it() {
    let server = start(&OFF);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1)").await;
        let t = format!("{}.t", db.name);
        let mut reading = Reading::new(db.config.clone());
        reading.start();
        reading.wait_for(&t, &["r 1"]).await;
        db.run("SET SESSION binlog_transaction_compression = ON;\nINSERT INTO t VALUES (2)").await;
        reading.wait_for(&t, &["r 1", "c 2"]).await;
        let end: mysql_async::Row = db
            .connection
            .query_first("SHOW BINARY LOG STATUS")
            .await
            .expect("asks")
            .expect("a row");
        let end: (String, u64) = (end.get(0).expect("a file"), end.get(1).expect("an offset"));
        // A reader that is killed now goes on from there; nothing else moves the position.
        let place = reading.position().place;
        assert_eq!((place.file, place.offset), end);
        reading.stop().await;
    });
}
