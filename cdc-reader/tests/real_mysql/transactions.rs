//! Transactions in unusual forms: XA, savepoints, tables without transactions, statements instead of rows.

use super::{
    reading::Reading,
    server::{Database, block_on, shared, start},
};

fn reading(db: &Database) -> Reading {
    let mut reading = Reading::new(db.config.clone());
    // A server ends the connection of a replica whose id a second one uses; the id comes from the name.
    reading.config.name.clone_from(&db.name);
    reading
}

/// Another connection in the same database.
async fn beside(db: &Database) -> Database {
    let connection = cdc_reader::mysql::connect(&db.config).await.expect("connects");
    let (name, config, server) = (db.name.clone(), db.config.clone(), db.server.clone());
    let mut other = Database { name, config, connection, server, rows: None };
    other.run(&format!("USE {}", db.name)).await;
    other
}

async fn xa_is_emitted_when_committed(mut db: Database, restart_names_parts: bool) {
    db.run("CREATE TABLE t (k INT PRIMARY KEY, v LONGTEXT);\nINSERT INTO t VALUES (1,'a')").await;
    let t = format!("{}.t", db.name);
    let mut reading = reading(&db);
    reading.start();
    reading.wait_for(&t, &["r 1,a"]).await;
    let name = db.name.clone();
    db.run(&format!(
        "XA START '{name}','a';\nINSERT INTO t VALUES (2,'b');\nUPDATE t SET v = 'c' WHERE k = 2;\n\
         XA END '{name}','a';\nXA PREPARE '{name}','a'"
    ))
    .await;
    let mut other = beside(&db).await;
    other
        .run(&format!(
            "XA START '{name}','b';\nINSERT INTO t VALUES (3,'b');\nXA END '{name}','b';\nXA PREPARE '{name}','b'"
        ))
        .await;
    let mut third = beside(&db).await;
    third
        .run(&format!(
            "XA START '{name}','c';\nINSERT INTO t VALUES (4,'d');\nXA END '{name}','c';\n\
             XA COMMIT '{name}','c' ONE PHASE"
        ))
        .await;
    reading.wait_for(&t, &["r 1,a", "c 4,d"]).await;
    // What is prepared is read again, what is in the log is not.
    reading.stop().await;
    assert_eq!(reading.position().prepared.len(), if restart_names_parts { 2 } else { 0 });
    reading.start();
    third.run("FLUSH BINARY LOGS;\nINSERT INTO t VALUES (5,'e')").await;
    reading.wait_for(&t, &["r 1,a", "c 4,d", "c 5,e"]).await;
    third.run(&format!("XA COMMIT '{name}','a'")).await;
    third.run(&format!("XA ROLLBACK '{name}','b'")).await;
    third.run("INSERT INTO t VALUES (6,'f')").await;
    let expected = ["r 1,a", "c 4,d", "c 5,e", "c 2,b", "u 2,c", "c 6,f"];
    reading.wait_for(&t, &expected).await;
    reading.stop().await;
    assert_eq!(reading.position().prepared, []);
    reading.start();
    third.run("INSERT INTO t VALUES (7,'g')").await;
    let mut expected = expected.to_vec();
    expected.push("c 7,g");
    reading.wait_for(&t, &expected).await;
    reading.stop().await;
}

#[test]
fn xa_transactions_are_emitted_when_they_are_committed() {
    block_on(async {
        xa_is_emitted_when_committed(shared().database().await, false).await;
    });
}

#[test]
fn xa_transactions_without_gtids_are_read_again_from_their_place() {
    let server = start(&["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    block_on(async {
        xa_is_emitted_when_committed(server.database().await, true).await;
    });
}

#[test]
fn xa_transaction_larger_than_memory_comes_whole_and_compressed() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY, v LONGTEXT)").await;
        let t = format!("{}.t", db.name);
        let mut reading = reading(&db);
        reading.start();
        reading.wait_read(&t).await;
        let name = db.name.clone();
        for (xid, compression, first) in [("a", "OFF", 0), ("b", "ON", 100)] {
            db.run(&format!("SET SESSION binlog_transaction_compression = {compression}")).await;
            db.run(&format!("XA START '{name}','{xid}'")).await;
            for k in first..first + 20 {
                db.run(&format!("INSERT INTO t VALUES ({k}, REPEAT('x', 500000))")).await;
            }
            db.run(&format!("XA END '{name}','{xid}';\nXA PREPARE '{name}','{xid}'")).await;
            beside(&db).await.run(&format!("XA COMMIT '{name}','{xid}'")).await;
        }
        let long = "x".repeat(500_000);
        let keys = (0..20).chain(100..120);
        let expected: Vec<String> = keys.map(|k| format!("c {k},{long}")).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        reading.wait_for(&t, &expected).await;
        reading.stop().await;
    });
}

#[test]
fn xa_transaction_prepared_before_the_source_was_begun() {
    let server = start(&[]);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY)").await;
        let t = format!("{}.t", db.name);
        db.run("XA START 'early';\nINSERT INTO t VALUES (1);\nXA END 'early';\nXA PREPARE 'early'")
            .await;
        let mut other = beside(&db).await;
        // Decided while the reader waits for it: the snapshot has its row.
        let mut waited = reading(&db);
        waited.start();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        other.run("XA COMMIT 'early'").await;
        waited.wait_for(&t, &["r 1"]).await;
        other.run("INSERT INTO t VALUES (2)").await;
        waited.wait_for(&t, &["r 1", "c 2"]).await;
        waited.stop().await;

        // Not decided in time: its commit cannot be followed, which is said.
        db = beside(&db).await;
        db.run("XA START 'late';\nINSERT INTO t VALUES (3);\nXA END 'late';\nXA PREPARE 'late'")
            .await;
        let mut late = reading(&db);
        late.start();
        late.wait_for(&t, &["r 1", "r 2"]).await;
        other.run("XA COMMIT 'late'").await;
        let sentence = late.failure().await;
        assert!(sentence.contains("XA transaction 6c617465,,1 is committed"), "{sentence}");
        assert!(sentence.contains("its rows were never seen"), "{sentence}");
    });
}

#[test]
fn savepoints_and_tables_without_transactions() {
    // With GTIDs the server refuses to mix tables with and without transactions.
    let server = start(&["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nCREATE TABLE m (k INT PRIMARY KEY) ENGINE = MyISAM")
            .await;
        let (t, m) = (format!("{}.t", db.name), format!("{}.m", db.name));
        let mut reading = reading(&db);
        reading.start();
        reading.wait_read(&t).await;
        reading.wait_read(&m).await;
        db.run(
            "INSERT INTO m VALUES (1),(2);\n\
             BEGIN;\nINSERT INTO t VALUES (1);\nSAVEPOINT a;\nINSERT INTO t VALUES (2);\nINSERT INTO m VALUES (3);\n\
             ROLLBACK TO SAVEPOINT a;\nRELEASE SAVEPOINT a;\nINSERT INTO t VALUES (4);\nCOMMIT;\n\
             BEGIN;\nINSERT INTO t VALUES (5);\nUPDATE m SET k = 7 WHERE k = 1;\nROLLBACK;\n\
             INSERT INTO t VALUES (6)",
        )
        .await;
        reading.wait_for(&t, &["c 1", "c 4", "c 6"]).await;
        reading.wait_for(&m, &["c 1", "c 2", "c 3", "d 1", "c 7"]).await;
        reading.stop().await;
        assert!(reading.position().stopped.is_empty(), "{:?}", reading.position().stopped);
    });
}

#[test]
fn statements_instead_of_rows_stop_their_table_alone() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE t (k INT PRIMARY KEY);\nCREATE TABLE u (k INT PRIMARY KEY);\n\
             CREATE TABLE l (k INT PRIMARY KEY)",
        )
        .await;
        let mut reading = reading(&db);
        reading.start();
        for table in ["t", "u", "l"] {
            reading.wait_read(&format!("{}.{table}", db.name)).await;
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "1\n2\n").expect("is written");
        let mut other = beside(&db).await;
        other
            .run(&format!(
                "SET SESSION binlog_format = STATEMENT;\nINSERT INTO t VALUES (1);\n\
                 LOAD DATA INFILE '{}' INTO TABLE l",
                file.path().display()
            ))
            .await;
        db.run("INSERT INTO u VALUES (1)").await;
        reading.wait_for(&format!("{}.u", db.name), &["c 1"]).await;
        for table in ["t", "l"] {
            let sentence = reading.wait_stopped(&format!("{}.{table}", db.name)).await;
            assert!(sentence.contains("binlog_format = STATEMENT"), "{sentence}");
        }
        reading.stop().await;
    });
}
