//! The connection for rows: large rows, errors, ends in the middle, and the same session as the driver's connections.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use cdc_reader::{
    ReaderError, SourceConfig,
    config::SslMode,
    mysql::{
        connect,
        rows::{Flow, RowConnection, RowLink},
    },
    snapshot::{
        avro_row::RowWriter,
        chunk_plan::ChunkRange,
        chunk_read::{Overflow, ReadFailure, read_chunk},
    },
};
use mysql_async::prelude::Queryable;
use schemas::avro_schema::AvroOptions;
use tokio_util::sync::CancellationToken;

use super::server::{Database, block_on, connect_rows, shared};

/// Each row's values as texts.
fn texts(connection: &mut RowConnection, sql: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    connection
        .select(sql, |row| {
            let values = row.values().expect("a row");
            let texts = values.iter().map(|value| match value.bytes() {
                Some(bytes) => text(bytes),
                None => value.integer().map(|number| number.to_string()).unwrap_or_default(),
            });
            rows.push(texts.collect());
            Flow::Go
        })
        .unwrap_or_else(|failure| panic!("{sql}: {failure:?}"));
    rows
}

fn connection_id(connection: &mut RowConnection) -> String {
    texts(connection, "SELECT CONNECTION_ID()")[0][0].clone()
}

/// Waits until the server has ended a connection.
async fn wait_until_gone(db: &mut Database, id: &str) {
    let began = Instant::now();
    let sql =
        format!("SELECT COUNT(*) FROM performance_schema.threads WHERE PROCESSLIST_ID = {id}");
    while db.connection.query_first::<u64, _>(&sql).await.expect("answers") != Some(0) {
        assert!(began.elapsed() < Duration::from_secs(120), "connection {id} does not end");
        tokio::task::yield_now().await;
    }
}

#[test]
fn session_is_that_of_the_other_connections() {
    block_on(async {
        let config = shared().config("root", &[]);
        let sql = "SHOW SESSION VARIABLES";
        let mut driver = connect::connect(&config).await.expect("connects");
        let theirs: Vec<(String, String)> = driver.query(sql).await.expect("answers");
        let theirs: BTreeMap<String, String> = theirs.into_iter().collect();
        let ours: BTreeMap<String, String> = texts(&mut connect_rows(&config), sql)
            .into_iter()
            .map(|row| (row[0].clone(), row[1].clone()))
            .collect();
        let own = ["pseudo_thread_id", "timestamp", "rand_seed1", "rand_seed2", "statement_id"];
        assert!(ours.len() > 500, "{}", ours.len());
        for (name, value) in &ours {
            // Those of the whole server are changed by tests that run at the same time.
            let global = name.starts_with("gtid") || name.starts_with("binlog");
            if !own.contains(&name.as_str()) && !global {
                assert_eq!(Some(value), theirs.get(name), "{name}");
            }
        }
        assert_eq!(ours["time_zone"], "+00:00");
        assert_eq!(ours["character_set_results"], "utf8mb4");
    });
}

#[test]
fn rows_of_every_size_are_put_together() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE large (id INT PRIMARY KEY, b LONGBLOB)").await;
        // Around the buffer, and around one and two packets: a row has 10 or 15 bytes besides the value's.
        const PACKET: usize = 0xff_ffff;
        const BUFFER: usize = 256 * 1024;
        let mut sizes: Vec<usize> = vec![0, 250, 251, 65_535, 65_536, 1 << 20, 40 << 20];
        for border in [BUFFER, PACKET, 2 * PACKET] {
            sizes.extend((border - 16)..(border - 8));
        }
        for (id, size) in sizes.iter().enumerate() {
            let insert =
                format!("INSERT INTO large VALUES ({id}, REPEAT(CHAR(65 + {id} % 26), {size}))");
            db.run(&insert).await;
        }
        let mut seen = 0;
        let sql = format!("SELECT id, b FROM {}.large ORDER BY id", db.name);
        db.rows()
            .select(&sql, |row| {
                let values = row.values().expect("a row");
                let id = values[0].integer().expect("a number") as usize;
                let value = values[1].bytes().expect("bytes");
                assert_eq!((id, value.len()), (seen, sizes[seen]));
                assert!(value == vec![65 + (id % 26) as u8; value.len()], "{id}");
                seen += 1;
                Flow::Go
            })
            .expect("reads");
        assert_eq!(seen, sizes.len());
    });
}

#[test]
fn errors_of_the_server_leave_the_connection_and_its_statements_in_order() {
    block_on(async {
        let config = shared().config("root", &[]);
        let mut rows = connect_rows(&config);
        let code = |rows: &mut RowConnection, sql: &str| {
            rows.select(sql, |_| Flow::Go).expect_err("fails").code
        };
        assert_eq!(code(&mut rows, "SELECT nothing FROM nowhere.never"), Some(1049));
        assert_eq!(code(&mut rows, "SELECT nothing FROM mysql.user"), Some(1054));
        // Found only when it is run, or after the first row.
        assert_eq!(code(&mut rows, "SELECT (SELECT 1 UNION SELECT 2)"), Some(1242));
        assert_eq!(
            code(
                &mut rows,
                "SELECT IF(n = 1, 1, EXP(1000 * n)) FROM (SELECT 1 n UNION ALL SELECT 2) q"
            ),
            Some(1690)
        );
        assert_eq!(rows.execute("SET nothing = 1").expect_err("fails").code, Some(1193));
        rows.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").expect("no rows");
        rows.execute("COMMIT").expect("no rows");
        assert_eq!(texts(&mut rows, "SELECT 1 FROM dual WHERE 1 = 0").len(), 0);
        let left = "SELECT COUNT(*) FROM performance_schema.prepared_statements_instances \
                    WHERE OWNER_THREAD_ID = PS_CURRENT_THREAD_ID()";
        // This one.
        assert_eq!(texts(&mut rows, left), [["1"]]);
        assert!(rows.is_open());
        // Rows that nobody asked for make the connection useless.
        let failure = rows.execute("SELECT 1").expect_err("rows");
        assert!(matches!(failure.error, ReaderError::Query { .. }), "{failure:?}");
        assert!(!rows.is_open());
        let failure = rows.execute("COMMIT").expect_err("closed");
        assert!(matches!(failure.error, ReaderError::Transient { .. }), "{failure:?}");
    });
}

/// More rows than any socket holds.
const ENDLESS: &str = "SELECT REPEAT('x', 1000) FROM information_schema.COLLATIONS a, \
                       information_schema.COLLATIONS b, information_schema.COLLATIONS c";

#[test]
fn stop_in_the_middle_ends_the_connection_at_once() {
    block_on(async {
        let mut db = shared().database().await;
        let mut rows = connect_rows(&db.config);
        let id = connection_id(&mut rows);
        let mut seen = 0;
        rows.select(ENDLESS, |_| {
            seen += 1;
            if seen < 1000 { Flow::Go } else { Flow::Stop }
        })
        .expect("is no error");
        assert_eq!((seen, rows.is_open()), (1000, false));
        wait_until_gone(&mut db, &id).await;
    });
}

#[test]
fn other_thread_ends_what_waits() {
    block_on(async {
        let mut db = shared().database().await;
        for sql in ["SELECT SLEEP(600)", ENDLESS] {
            let mut rows = connect_rows(&db.config);
            let id = connection_id(&mut rows);
            let interrupt = rows.interrupt().expect("a handle");
            let reading = std::thread::spawn(move || rows.select(sql, |_| Flow::Go));
            let seen = format!(
                "SELECT COUNT(*) FROM performance_schema.threads WHERE PROCESSLIST_ID = {id} AND \
                 PROCESSLIST_COMMAND = 'Execute'"
            );
            while db.connection.query_first::<u64, _>(&seen).await.expect("answers") != Some(1) {}
            let began = Instant::now();
            interrupt.interrupt();
            let failure = reading.join().expect("no panic").expect_err("is ended");
            assert!(matches!(failure.error, ReaderError::Transient { .. }), "{failure:?}");
            assert!(began.elapsed() < Duration::from_secs(60));
            // A server that sleeps looks for its client every few seconds.
            wait_until_gone(&mut db, &id).await;
        }
    });
}

/// In front of a server, and silent for longer than one read waits before each of its answers.
fn slow_answers(server: String) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("is bound").port();
    std::thread::spawn(move || {
        let (client, _) = listener.accept().expect("a client");
        let server = TcpStream::connect(server).expect("connects");
        let copy = |mut from: TcpStream, mut to: TcpStream, pause: Duration| {
            std::thread::spawn(move || {
                let mut bytes = vec![0; 1 << 16];
                while let Ok(length @ 1..) = from.read(&mut bytes) {
                    std::thread::sleep(pause);
                    if to.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
            })
        };
        let clone = |stream: &TcpStream| stream.try_clone().expect("an open socket");
        copy(clone(&client), clone(&server), Duration::ZERO);
        copy(server, client, Duration::from_millis(700));
    });
    port
}

#[test]
fn handshake_of_a_slow_server_is_waited_for() {
    block_on(async {
        let db = shared().database().await;
        let (rest, server) = db.config.url.rsplit_once('@').expect("a user");
        let slow = slow_answers(server.split('/').next().expect("a server").to_owned());
        let config = SourceConfig {
            url: format!("{rest}@127.0.0.1:{slow}"),
            ssl_mode: SslMode::Required,
            ..db.config.clone()
        };
        assert_eq!(texts(&mut connect_rows(&config), "SELECT 'here'"), [["here"]]);
    });
}

#[test]
fn dropped_future_ends_its_work() {
    block_on(async {
        let mut db = shared().database().await;
        let mut link = RowLink::new(Arc::new(db.config.clone()));
        let id: String = link
            .run::<_, ReaderError>(|rows| Ok(connection_id(rows)))
            .await
            .expect("connects and answers");
        assert!(link.is_open());
        let (began, started) = tokio::sync::oneshot::channel();
        let mut began = Some(began);
        let (ended, end) = tokio::sync::oneshot::channel();
        let work = link.run::<_, ReaderError>(move |rows| {
            let result = rows.select(ENDLESS, |_| {
                if let Some(began) = began.take() {
                    began.send(()).expect("is waited for");
                }
                Flow::Go
            });
            let _ = ended.send(());
            Ok(result?)
        });
        tokio::select! {
            _ = work => panic!("does not end by itself"),
            _ = started => {}
        }
        end.await.expect("the thread ends");
        wait_until_gone(&mut db, &id).await;
        assert!(!link.is_open());
        let again = link.run::<_, ReaderError>(|rows| Ok(connection_id(rows))).await;
        assert_ne!(again.expect("connects again"), id);
    });
}

#[test]
fn stop_ends_connecting() {
    // Takes the connection and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let config: SourceConfig = serde_json::from_value(serde_json::json!({
        "name": "udon", "url": format!("mysql://root@127.0.0.1:{port}"), "tables": [],
    }))
    .expect("a source");
    let stop = CancellationToken::new();
    let connecting = {
        let stop = stop.clone();
        std::thread::spawn(move || RowConnection::connect(&config, stop))
    };
    let _taken = listener.accept().expect("comes");
    stop.cancel();
    let error = connecting.join().expect("no panic").expect_err("is stopped");
    assert!(matches!(error, ReaderError::Transient { .. }), "{error}");
}

#[test]
fn cut_chunk_keeps_the_connection_only_if_little_is_left() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE wide (id INT PRIMARY KEY, b LONGBLOB);\n\
             INSERT INTO wide SELECT value, REPEAT('x', 1048576) FROM \
             (WITH RECURSIVE n AS (SELECT 1 AS value UNION ALL SELECT value + 1 FROM n WHERE value < 40) SELECT * FROM n) q",
        )
        .await;
        let table = db.table("wide").await;
        let mut rows = connect_rows(&db.config);
        let read = |rows: &mut RowConnection, limit, bytes_max, overflow| {
            let mut writer = RowWriter::new(&table, AvroOptions::default());
            let range = ChunkRange { rows: limit, ..Default::default() };
            read_chunk(rows, &table, range, bytes_max, overflow, &mut writer)
        };
        let part = read(&mut rows, 6, 1_500_000, Overflow::CutShort).expect("reads");
        assert_eq!((part.rows.len(), part.complete, rows.is_open()), (2, false, true));
        assert_eq!(part.last_key, Some(vec!["2".to_owned()]));
        let part = read(&mut rows, 40, 1_500_000, Overflow::CutShort).expect("reads");
        assert_eq!((part.rows.len(), part.complete, rows.is_open()), (2, false, false));
        let mut rows = connect_rows(&db.config);
        let failure = read(&mut rows, 6, 1_500_000, Overflow::Fail).expect_err("too large");
        assert!(matches!(failure, ReadFailure::TooLarge), "{failure:?}");
        assert!(!rows.is_open());
    });
}

#[test]
fn altered_columns_are_found_before_a_row_is_written() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE a (id INT PRIMARY KEY, v INT);\nINSERT INTO a VALUES (1, 2)").await;
        let table = db.table("a").await;
        for (change, wanted) in [
            ("MODIFY v VARCHAR(9)", "column v holds a value of an unexpected kind"),
            ("MODIFY v INT UNSIGNED", "column v holds a value of an unexpected kind"),
        ] {
            db.run(&format!("ALTER TABLE a {change}")).await;
            let mut writer = RowWriter::new(&table, AvroOptions::default());
            let range = ChunkRange { rows: 9, ..Default::default() };
            let failure =
                read_chunk(db.rows(), &table, range, usize::MAX, Overflow::CutShort, &mut writer);
            match failure.expect_err("is another shape") {
                ReadFailure::BadRow(what) => assert!(what.starts_with(wanted), "{what}"),
                other => panic!("{other:?}"),
            }
        }
        db.run("ALTER TABLE a DROP v").await;
        let mut writer = RowWriter::new(&table, AvroOptions::default());
        let range = ChunkRange { rows: 9, ..Default::default() };
        let failure =
            read_chunk(db.rows(), &table, range, usize::MAX, Overflow::CutShort, &mut writer);
        assert!(matches!(failure, Err(ReadFailure::TableChanged)), "{failure:?}");
    });
}
