//! MariaDB: its snapshot, its events, its GTIDs.

use std::sync::OnceLock;

use cdc_reader::mysql::check;

use super::{
    reading::{Reading, purge_to},
    server::{Database, Running, block_on, start_by},
};

pub fn shared() -> &'static Running {
    static SHARED: OnceLock<Running> = OnceLock::new();
    SHARED.get_or_init(|| start_by("mariadb.sh", &["--collation-server=utf8mb4_general_ci"]))
}

async fn reading(db: &Database) -> Reading {
    let mut reading = Reading::new(db.config.clone());
    reading.config.name.clone_from(&db.name);
    reading
}

#[test]
fn snapshot_and_stream_meet_and_go_on_after_a_restart() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE t (k INT PRIMARY KEY, v VARCHAR(20), g POINT, w VARCHAR(20) CHARACTER SET latin1);\n\
             INSERT INTO t VALUES (1,'우동',NULL,'é'),(2,NULL,NULL,NULL);\n\
             CREATE TABLE log (v INT);\nINSERT INTO log VALUES (7),(7)",
        )
        .await;
        let (t, log) = (format!("{}.t", db.name), format!("{}.log", db.name));
        let mut reading = reading(&db).await;
        reading.start();
        let mut expected = vec!["r 1,우동,-,é", "r 2,-,-,-"];
        reading.wait_for(&t, &expected).await;
        reading.wait_for(&log, &["r 7", "r 7"]).await;
        db.run("INSERT INTO t VALUES (3,'x',NULL,'ü');\nFLUSH BINARY LOGS").await;
        db.run(
            "BEGIN;\nUPDATE t SET v = 'y' WHERE k = 3;\nSAVEPOINT a;\nDELETE FROM t;\nROLLBACK TO SAVEPOINT a;\n\
             INSERT INTO log VALUES (8);\nCOMMIT",
        )
        .await;
        expected.extend(["c 3,x,-,ü", "u 3,y,-,ü"]);
        reading.wait_for(&t, &expected).await;
        reading.wait_for(&log, &["r 7", "r 7", "c 8"]).await;
        reading.stop().await;
        assert!(reading.position().gtid_set.starts_with("0-1-"), "{:?}", reading.position());

        db.run("DELETE FROM t WHERE k = 1;\nFLUSH BINARY LOGS").await;
        db.run("ALTER TABLE t DROP COLUMN g, DROP COLUMN w;\nTRUNCATE TABLE t").await;
        db.run("SET SESSION gtid_domain_id = 9;\nINSERT INTO t VALUES (6,'z')").await;
        reading.start();
        expected.extend(["d 1,우동,-,é", "t -", "c 6,z"]);
        reading.wait_for(&t, &expected).await;
        reading.stop().await;
        assert!(reading.position().gtid_set.contains(",9-1-"), "{:?}", reading.position());
    });
}

#[test]
fn compressed_statements_and_rows_are_read() {
    let server = start_by(
        "mariadb.sh",
        &[
            "--collation-server=utf8mb4_general_ci",
            "--log-bin-compress=ON",
            "--log-bin-compress-min-len=10",
        ],
    );
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY, v VARCHAR(2000))").await;
        let t = format!("{}.t", db.name);
        let mut reading = reading(&db).await;
        reading.start();
        reading.wait_read(&t).await;
        db.run(
            "INSERT INTO t VALUES (1, REPEAT('a', 30)),(2, REPEAT('b', 30));\nUPDATE t SET v = 'c' WHERE k = 1;\n\
             DELETE FROM t WHERE k = 2",
        )
        .await;
        // A statement long enough to be compressed.
        db.run(&format!("CREATE TABLE u (k INT PRIMARY KEY) COMMENT '{}'", "c".repeat(500))).await;
        db.run("INSERT INTO u VALUES (1);\nTRUNCATE TABLE t").await;
        let (a, b) = ("a".repeat(30), "b".repeat(30));
        let expected = [
            format!("c 1,{a}"),
            format!("c 2,{b}"),
            "u 1,c".into(),
            format!("d 2,{b}"),
            "t -".into(),
        ];
        reading.wait_for(&t, &expected.each_ref().map(String::as_str)).await;
        reading.wait_for(&format!("{}.u", db.name), &["c 1"]).await;
        reading.stop().await;
    });
}

#[test]
fn rows_of_create_select_belong_to_its_transaction() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1),(2)").await;
        let mut reading = reading(&db).await;
        reading.start();
        reading.wait_for(&format!("{}.t", db.name), &["r 1", "r 2"]).await;
        db.run("CREATE TABLE u (k INT PRIMARY KEY) AS SELECT k FROM t").await;
        reading.wait_for(&format!("{}.u", db.name), &["c 1", "c 2"]).await;
        reading.stop().await;
    });
}

#[test]
fn xa_transactions_are_emitted_when_they_are_committed() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1)").await;
        let t = format!("{}.t", db.name);
        let mut reading = reading(&db).await;
        reading.start();
        reading.wait_for(&t, &["r 1"]).await;
        let name = db.name.clone();
        let xa = |xid: &str, k: u32| {
            format!(
                "XA START '{name}','{xid}',7;\nINSERT INTO t VALUES ({k});\nXA END '{name}','{xid}',7"
            )
        };
        db.run(&format!("{};\nXA PREPARE '{name}','a',7", xa("a", 2))).await;
        let mut other = shared().database().await;
        other.run(&format!("USE {name};\n{};\nXA PREPARE '{name}','b',7", xa("b", 3))).await;
        let mut third = shared().database().await;
        third
            .run(&format!("USE {name};\n{};\nXA COMMIT '{name}','c',7 ONE PHASE", xa("c", 4)))
            .await;
        reading.wait_for(&t, &["r 1", "c 4"]).await;
        reading.stop().await;
        assert_eq!(reading.position().prepared.len(), 2);

        reading.start();
        db.run(&format!("XA COMMIT '{name}','a',7")).await;
        other.run(&format!("XA ROLLBACK '{name}','b',7")).await;
        third.run("INSERT INTO t VALUES (5)").await;
        reading.wait_for(&t, &["r 1", "c 4", "c 2", "c 5"]).await;
        reading.stop().await;
        assert_eq!(reading.position().prepared, []);
    });
}

#[test]
fn purge_and_reset_are_named_and_not_resumed_from() {
    let server = start_by("mariadb.sh", &["--collation-server=utf8mb4_general_ci"]);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY)").await;
        let mut reading = reading(&db).await;
        reading.start();
        reading.wait_read(&format!("{}.t", db.name)).await;
        db.run("INSERT INTO t VALUES (1)").await;
        reading.wait_for(&format!("{}.t", db.name), &["c 1"]).await;
        reading.stop().await;
        let position = reading.position();
        db.run("INSERT INTO t VALUES (2);\nFLUSH BINARY LOGS;\nFLUSH BINARY LOGS").await;
        purge_to(&mut db, "binlog.000003").await;
        reading.start();
        let sentence = reading.failure().await;
        assert!(sentence.contains("no longer contains all transactions up to 0-1-4"), "{sentence}");

        db.run("RESET MASTER;\nINSERT INTO t VALUES (3)").await;
        reading.start();
        let sentence = reading.failure().await;
        let wanted = format!("never executed {}", position.gtid_set);
        assert!(sentence.contains(&wanted), "{sentence}");
    });
}

#[test]
fn another_server_with_the_same_history_is_gone_on_with() {
    let options =
        ["--collation-server=utf8mb4_general_ci", "--log-slave-updates=ON", "--server-id=2"];
    let replica = start_by("mariadb.sh", &options);
    let server = start_by("mariadb.sh", &["--collation-server=utf8mb4_general_ci"]);
    block_on(async {
        let mut db = server.database().await;
        let mut copy = replica.database().await;
        copy.run(&format!("DROP DATABASE {};\nRESET MASTER", copy.name)).await;
        copy.run(&format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'root', \
             MASTER_SSL_VERIFY_SERVER_CERT = 0, MASTER_USE_GTID = slave_pos;\nSTART SLAVE",
            server.port
        ))
        .await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1)").await;
        let t = format!("{}.t", db.name);
        let mut reading = reading(&db).await;
        reading.start();
        reading.wait_for(&t, &["r 1"]).await;
        db.run("INSERT INTO t VALUES (2)").await;
        reading.wait_for(&t, &["r 1", "c 2"]).await;
        reading.stop().await;
        db.run("INSERT INTO t VALUES (3)").await;
        let gtid: Option<String> = mysql_async::prelude::Queryable::query_first(
            &mut db.connection,
            "SELECT @@GLOBAL.gtid_binlog_pos",
        )
        .await
        .expect("is asked");
        copy.run(&format!("SELECT MASTER_GTID_WAIT('{}', 60)", gtid.expect("a position"))).await;
        copy.run(&format!("STOP SLAVE;\nFLUSH BINARY LOGS;\nINSERT INTO {t} VALUES (4)")).await;
        reading.config.url = format!("mysql://root@127.0.0.1:{}", replica.port);
        reading.start();
        reading.wait_for(&t, &["r 1", "c 2", "c 3", "c 4"]).await;
        reading.stop().await;
    });
}

#[test]
fn settings_are_judged_in_mariadbs_words() {
    let options =
        ["--binlog-format=MIXED", "--binlog-row-metadata=NO_LOG", "--binlog-row-image=MINIMAL"];
    let server = start_by("mariadb.sh", &options);
    block_on(async {
        let ready = check(&shared().config("root", &["*.*"])).await.expect("is checked");
        assert_eq!(ready.findings(), Vec::<String>::new());
        let findings =
            check(&server.config("root", &["*.*"])).await.expect("is checked").findings();
        assert_eq!(findings.len(), 3, "{findings:?}");
        assert!(findings[0].contains("SET GLOBAL binlog_format = 'ROW'"), "{findings:?}");
        assert!(findings[1].contains("it must be MINIMAL or FULL"), "{findings:?}");
        assert!(findings.iter().all(|finding| !finding.contains("PERSIST")), "{findings:?}");
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (a INT PRIMARY KEY);\nCREATE USER bare@'%'").await;
        let bare = check(&shared().config("bare", &["*.*"])).await.expect("is checked").findings();
        assert!(bare[0].contains("lacks REPLICATION SLAVE"), "{bare:?}");
        assert!(bare[1].contains("lacks REPLICATION CLIENT"), "{bare:?}");
    });
}
