//! What a user is told when the server is not ready.

use cdc_reader::{
    ReaderError,
    binlog::dump::DumpStart,
    mysql::{check, connect, ensure_position, ensure_ready, place::gtid_executed, replica_id},
};
use schemas::position::Position;

use super::{
    following::Following,
    server::{block_on, shared, start},
};

#[test]
fn ready_server_has_no_findings_and_lists_its_tables() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (a INT PRIMARY KEY);\nCREATE TABLE log (a INT)").await;
        let report = check(&db.config).await.expect("is checked");
        assert_eq!(report.findings(), Vec::<String>::new());
        let tables: Vec<(&str, usize, bool)> = report
            .tables
            .iter()
            .map(|t| (t.name.split_once('.').expect("a dot").1, t.key.len(), t.note.is_some()))
            .collect();
        assert_eq!(tables, [("log", 0, true), ("t", 1, false)]);
        serde_json::to_string(&report).expect("serialises");
    });
}

#[test]
fn failure_to_connect_says_what_to_do() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE USER locked@'%' IDENTIFIED BY 'right' ACCOUNT LOCK;\nCREATE USER pw@'%' IDENTIFIED BY 'right'")
            .await;
        let port = shared().port;
        let cases = [
            ("mysql://pw:wrong@127.0.0.1:PORT", "check the user in the url"),
            ("mysql://locked:right@127.0.0.1:PORT", "ACCOUNT UNLOCK"),
            ("mysql://root@127.0.0.1:1", "connection refused"),
            ("mysql://root@127.0.0.1:PORT/nowhere", "no database is needed"),
            ("mysql://root@no-such-host.invalid:PORT", "host name cannot be resolved"),
        ];
        for (url, wanted) in cases {
            let mut config = db.config.clone();
            config.url = url.replace("PORT", &port.to_string());
            let error = connect::connect(&config).await.expect_err(url);
            assert!(matches!(error, ReaderError::Connect { .. }), "{url}");
            let text = error.to_string();
            assert!(text.contains(wanted), "{url}: {text}");
            assert!(!text.contains("wrong") || !text.contains("pw:wrong"), "{text}");
        }
        let mut right = db.config.clone();
        right.url = format!("mysql://pw:right@127.0.0.1:{port}");
        connect::connect(&right).await.expect("the password is right");
    });
}

#[test]
fn missing_grants_are_named_with_the_grant() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (a INT PRIMARY KEY);\nCREATE USER bare@'%';\nCREATE USER half@'%'")
            .await;
        db.run(&format!(
            "GRANT REPLICATION SLAVE ON *.* TO half@'%';\nGRANT SELECT ON {}.* TO half@'%'",
            db.name
        ))
        .await;
        let findings = async |user: &str| {
            let config = shared().config(user, &[&format!("{}.*", db.name)]);
            check(&config).await.expect("is checked").findings()
        };
        let bare = findings("bare").await;
        assert_eq!(bare.len(), 3, "{bare:?}");
        assert!(bare[0].contains("'bare'@'%' lacks REPLICATION SLAVE: GRANT REPLICATION SLAVE"));
        assert!(bare[1].contains("lacks REPLICATION CLIENT"));
        assert!(bare[2].contains("may read no table: GRANT SELECT"), "{}", bare[2]);
        let half = findings("half").await;
        assert_eq!(half.len(), 1, "{half:?}");
        assert!(half[0].contains("lacks REPLICATION CLIENT"));
    });
}

#[test]
fn wrong_settings_are_all_told_at_once() {
    let server = start(&[
        "--gtid-mode=OFF",
        "--enforce-gtid-consistency=OFF",
        "--binlog-row-metadata=MINIMAL",
        "--binlog-row-image=MINIMAL",
        "--binlog-row-value-options=PARTIAL_JSON",
        "--binlog-expire-logs-seconds=60",
    ]);
    block_on(async {
        let config = server.config("root", &["*.*"]);
        let mut connection = connect::connect(&config).await.expect("connects");
        let place = connect::place(&config);
        let server = connect::server(&mut connection, &place).await.expect("answers");
        let error = ensure_ready(&mut connection, &server, &config).await.expect_err("not ready");
        let ReaderError::Preflight { findings, .. } = error else { panic!("{error}") };
        let wanted = "SET PERSIST binlog_row_image = 'FULL'";
        assert!(findings.iter().any(|finding| finding.contains(wanted)), "{findings:?}");
        assert_eq!(findings.len(), 1, "metadata, retention and GTIDs are warnings: {findings:?}");
    });
}

#[test]
fn server_without_binlog_is_refused() {
    let server = start(&["--skip-log-bin", "--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    block_on(async {
        let report = check(&server.config("root", &["*.*"])).await.expect("is checked");
        assert!(report.findings()[0].starts_with("log_bin is OFF"), "{:?}", report.findings());
    });
}

#[test]
fn position_of_another_server_is_named() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (a INT PRIMARY KEY)").await;
        let executed = gtid_executed(&mut db.connection, &db.server).await.expect("is asked");
        let mut position = Position { gtid_set: executed, ..Position::default() };
        ensure_position(&mut db.connection, &db.server, &position).await.expect("is fine");
        position.gtid_set.push_str(",3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7");
        let error = ensure_position(&mut db.connection, &db.server, &position).await;
        let text = error.expect_err("is refused").to_string();
        assert!(text.contains("never executed 3e11fa47-71ca-11e1-9e33-c80aa9429562:1-7"), "{text}");
    });
}

#[test]
fn a_server_id_that_is_taken_is_told_before_two_replicas_end_each_others_connections() {
    let server = start(&[]);
    block_on(async {
        let mut db = server.database().await;
        let executed = gtid_executed(&mut db.connection, &db.server).await.expect("is asked");
        let start = DumpStart::Gtid(executed.parse().expect("a set"));
        // A reader of another source, connected.
        let mut other = Following::start_as(&db.config, start, 4711);
        db.run("CREATE TABLE t (a INT PRIMARY KEY)").await;
        other.chunk().await;
        let finding = async |name: &str, id: u32| {
            let mut config = db.config.clone();
            (config.name, config.server_id) = (name.into(), id);
            let report = check(&config).await.expect("is checked");
            assert_eq!(report.findings(), Vec::<String>::new(), "nothing is refused");
            let line = report.settings.into_iter().find(|l| l.name == "server_id of the reader");
            line.expect("a line").cure
        };
        let taken = finding("shop", 4711).await.expect("a finding");
        assert!(taken.contains("is connected with server_id 4711"), "{taken}");
        // The source's own reader, which is at work.
        assert_eq!(finding("udon4711", 4711).await, None);
        assert_eq!(finding("shop", 0).await, None);
        let own = finding("shop", 1).await.expect("a finding");
        assert!(own.contains("1 is the server's own server_id"), "{own}");
        let mut derived = db.config.clone();
        derived.name = "shop".into();
        let id = replica_id::server_id(&derived);
        derived.name = "kitchen".into();
        assert!(id >= 1_000_000_000 && id != replica_id::server_id(&derived), "{id}");
        other.stop().await;
    });
}
