//! Going on with GTIDs: after rotation, purge and reset, and on another server with the same history.

use mysql_async::prelude::Queryable;

use super::{
    reading::{Reading, purge_to},
    server::{block_on, start},
};

#[test]
fn purge_and_reset_are_named_and_not_resumed_from() {
    let server = start(&[]);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1)").await;
        let t = format!("{}.t", db.name);
        let mut reading = Reading::new(db.config.clone());
        reading.start();
        reading.wait_for(&t, &["r 1"]).await;
        db.run("FLUSH BINARY LOGS;\nINSERT INTO t VALUES (2)").await;
        reading.wait_for(&t, &["r 1", "c 2"]).await;
        reading.stop().await;
        let uuid = db.server.uuid.clone();
        let done = reading.position().gtid_set;

        db.run("INSERT INTO t VALUES (3);\nFLUSH BINARY LOGS").await;
        purge_to(&mut db, "binlog.000003").await;
        reading.start();
        let sentence = reading.failure().await;
        let wanted = format!("the binlog no longer contains {uuid}:5, which was not read yet");
        assert!(sentence.contains(&wanted), "{done}: {sentence}");

        db.run("RESET BINARY LOGS AND GTIDS;\nINSERT INTO t VALUES (4)").await;
        reading.start();
        let sentence = reading.failure().await;
        assert!(sentence.contains(&format!("the server never executed {uuid}:2-4")), "{sentence}");
    });
}

#[test]
fn another_server_with_the_same_history_is_gone_on_with() {
    let server = start(&[]);
    let replica = start(&["--server-id=2"]);
    block_on(async {
        let mut db = server.database().await;
        let mut copy = replica.database().await;
        let drop = format!("DROP DATABASE {}", copy.name);
        copy.run(&format!("{drop};\nRESET BINARY LOGS AND GTIDS")).await;
        copy.run(&format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, SOURCE_USER = 'root', \
             GET_SOURCE_PUBLIC_KEY = 1, SOURCE_AUTO_POSITION = 1;\nSTART REPLICA",
            server.port
        ))
        .await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY, v INT);\nINSERT INTO t VALUES (1,1)").await;
        db.run("CREATE TABLE log (v INT);\nINSERT INTO log VALUES (7)").await;
        let (t, log) = (format!("{}.t", db.name), format!("{}.log", db.name));
        let mut reading = Reading::new(db.config.clone());
        reading.start();
        reading.wait_for(&t, &["r 1,1"]).await;
        reading.wait_for(&log, &["r 7"]).await;
        db.run("FLUSH BINARY LOGS;\nFLUSH BINARY LOGS;\nINSERT INTO t VALUES (2,2)").await;
        reading.wait_for(&t, &["r 1,1", "c 2,2"]).await;
        reading.stop().await;
        let before = reading.position();

        // Unread on the old server, written on the new one; its files have other names and sizes.
        db.run("INSERT INTO t VALUES (3,3);\nINSERT INTO log VALUES (8)").await;
        let executed: Option<String> =
            db.connection.query_first("SELECT @@GLOBAL.gtid_executed").await.expect("is asked");
        let executed = executed.expect("a set").replace('\n', "");
        copy.run(&format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{executed}', 60)")).await;
        copy.run(&format!("STOP REPLICA;\nUPDATE {t} SET v = 4 WHERE k = 3")).await;
        copy.run(&format!(
            "CREATE TABLE {}.n (k INT PRIMARY KEY);\nINSERT INTO {}.n VALUES (1)",
            db.name, db.name
        ))
        .await;
        reading.config.url = format!("mysql://root@127.0.0.1:{}", replica.port);
        reading.start();
        reading.wait_for(&t, &["r 1,1", "c 2,2", "c 3,3", "u 3,4"]).await;
        reading.wait_for(&log, &["r 7", "c 8"]).await;
        reading.wait_for(&format!("{}.n", db.name), &["c 1"]).await;
        reading.stop().await;
        let after = reading.position();
        assert_ne!(after.server_uuid, before.server_uuid);
        assert!(before.place.reached(&after.place), "{before:?} {after:?}");
    });
}
