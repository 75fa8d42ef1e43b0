//! What the replication connection hands on: every form of event, whole, once, and verified.

use std::time::Instant;

use cdc_reader::{
    ReaderError, SourceConfig,
    binlog::{
        dump::DumpStart,
        event::kind,
        transaction::{parse_gtid, parse_tagged_gtid},
    },
    config::SslMode,
    mysql::connect,
};
use mysql_async::{Conn, prelude::Queryable};
use schemas::{gtid_set::GtidSet, position::BinlogPlace};

use super::{
    following::{Damage, Following, PATIENCE, Taken, proxy},
    server::{Running, block_on, shared, start},
};

const FORMAT_DESCRIPTION: u8 = 15;

/// A connection and the GTIDs so far.
async fn session(running: &Running, table: &str) -> (Conn, GtidSet) {
    let mut connection = connect::connect(&running.config("root", &[])).await.expect("connects");
    for statement in [
        "CREATE DATABASE IF NOT EXISTS dumped".to_owned(),
        format!("CREATE TABLE dumped.{table} (id BIGINT PRIMARY KEY AUTO_INCREMENT, b LONGBLOB)"),
        "USE dumped".to_owned(),
    ] {
        connection.query_drop(&statement).await.expect("runs");
    }
    let set = executed(&mut connection).await;
    (connection, set)
}

async fn executed(connection: &mut Conn) -> GtidSet {
    let text: Option<String> =
        connection.query_first("SELECT @@GLOBAL.gtid_executed").await.expect("answers");
    text.unwrap_or_default().replace(['\n', ' '], "").parse().expect("a set")
}

async fn run(connection: &mut Conn, sql: &str) {
    for statement in sql.split(";\n") {
        connection.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

/// The GTIDs among events, in their order.
fn gtids(events: &[Taken]) -> Vec<String> {
    events
        .iter()
        .filter_map(|event| match event.kind {
            kind::GTID => Some(parse_gtid(&event.body, false).expect("a GTID").gtid()),
            kind::TAGGED_GTID_PLAIN => Some(parse_tagged_gtid(&event.body).expect("a GTID").gtid()),
            _ => None,
        })
        .collect()
}

fn holds(event: &Taken, mark: &str) -> bool {
    // Marks stand at the end of their event: the last column of the last row.
    event.body.ends_with(mark.as_bytes())
}

/// Writes a row that a reader can wait for.
async fn mark(connection: &mut Conn, table: &str, text: &str) {
    run(connection, &format!("INSERT INTO {table} (b) VALUES ('{text}')")).await;
}

fn plain(config: SourceConfig) -> SourceConfig {
    SourceConfig { ssl_mode: SslMode::Disabled, ..config }
}

#[test]
fn transactions_come_whole_and_once_over_rotations_and_flushes() {
    block_on(async {
        let running = shared();
        let (mut connection, before) = session(running, "rotated").await;
        for number in 0..20 {
            mark(&mut connection, "rotated", &format!("row {number}")).await;
            run(&mut connection, "FLUSH BINARY LOGS").await;
        }
        mark(&mut connection, "rotated", "the end of rotated").await;
        for mode in [SslMode::Disabled, SslMode::Required] {
            let config = SourceConfig { ssl_mode: mode, ..running.config("root", &[]) };
            let mut following = Following::start(&config, DumpStart::Gtid(before.clone()));
            let events = following.until(|event| holds(event, "the end of rotated")).await;
            let rows = |number: usize| {
                events.iter().filter(|event| holds(event, &format!("row {number}"))).count()
            };
            assert!((0..20).all(|number| rows(number) == 1));
            assert!(events.iter().filter(|event| event.kind == FORMAT_DESCRIPTION).count() >= 20);
            let mut once = gtids(&events);
            let all = once.len();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), all);
            following.stop().await;
        }
        // From a place in a file: after the end there are only heartbeats, which carry the place.
        let end: Option<(String, u64)> = connection
            .exec_map("SHOW BINARY LOG STATUS", (), |row: mysql_async::Row| {
                (row.get(0).expect("a file"), row.get(1).expect("an offset"))
            })
            .await
            .expect("answers")
            .pop();
        let (file, offset) = end.expect("a row");
        let place = BinlogPlace { file: file.clone(), offset };
        let mut following = Following::start(&running.config("root", &[]), DumpStart::Place(place));
        let events = following.until(|event| event.kind == kind::HEARTBEAT).await;
        assert!(
            events.iter().all(|event| gtids(std::slice::from_ref(event)).is_empty()),
            "{events:?}"
        );
        let heartbeat = events.last().expect("one");
        assert_eq!(
            (heartbeat.body.as_slice(), u64::from(heartbeat.next_offset)),
            (file.as_bytes(), offset)
        );
        following.stop().await;
    });
}

#[test]
fn large_events_come_in_chunks_of_their_own() {
    block_on(async {
        let running = start(&["--max-allowed-packet=128M"]);
        let (mut connection, before) = session(&running, "large").await;
        let config = running.config("root", &[]);
        let is_row = |event: &Taken| event.kind == kind::WRITE_ROWS;
        let insert = |size: usize| format!("INSERT INTO large (b) VALUES (REPEAT('x', {size}))");
        run(&mut connection, &insert(1000)).await;
        let mut following = Following::start(&config, DumpStart::Gtid(before.clone()));
        let body = following.until(is_row).await.pop().expect("the row").body.len();
        following.stop().await;
        // A packet is the status, the header, the body and the checksum. Its size is put around those at which the
        // buffer is full, a packet is, and two are; the next one after a full packet may be empty.
        let around = [256 * 1024 - 4, 0xff_ffff, 2 * 0xff_ffff];
        let overhead = 1 + 19 + body - 1000 + 4;
        let near = |size: usize| (size - overhead - 1)..=(size - overhead + 1);
        let mut sizes = vec![1000];
        sizes.extend(around.into_iter().flat_map(near));
        sizes.extend([40 << 20, 1, 100]);
        for size in &sizes[1..] {
            run(&mut connection, &insert(*size)).await;
        }
        mark(&mut connection, "large", "the end of large").await;
        for mode in [SslMode::Disabled, SslMode::Required] {
            let config = SourceConfig { ssl_mode: mode, ..config.clone() };
            let mut following = Following::start(&config, DumpStart::Gtid(before.clone()));
            let events = following.until(|event| holds(event, "the end of large")).await;
            let lengths: Vec<usize> = events
                .iter()
                .filter(|event| is_row(event))
                .map(|event| event.body.iter().rev().take_while(|&&byte| byte == b'x').count())
                .collect();
            // The last row is the mark.
            assert_eq!(lengths[..sizes.len()], sizes);
            following.stop().await;
        }
    });
}

#[test]
fn tagged_gtids_are_read_and_gone_on_from() {
    block_on(async {
        let running = shared();
        let (mut connection, before) = session(running, "tagged").await;
        for number in 0..3 {
            run(&mut connection, "SET gtid_next = 'AUTOMATIC:red'").await;
            mark(&mut connection, "tagged", &format!("red {number}")).await;
            run(&mut connection, "SET gtid_next = 'AUTOMATIC'").await;
            mark(&mut connection, "tagged", &format!("plain {number}")).await;
        }
        mark(&mut connection, "tagged", "the end of tagged").await;
        let config = running.config("root", &[]);
        let mut following = Following::start(&config, DumpStart::Gtid(before.clone()));
        let events = following.until(|event| holds(event, "the end of tagged")).await;
        let seen = gtids(&events);
        let red: Vec<&String> = seen.iter().filter(|gtid| gtid.contains(":red:")).collect();
        assert_eq!(red.len(), 3, "{seen:?}");
        following.stop().await;
        // What was seen first is not sent again.
        let mut after = before;
        after.union(&seen[..4].join(",").parse().expect("a set"));
        let mut following = Following::start(&config, DumpStart::Gtid(after));
        let events = following.until(|event| holds(event, "the end of tagged")).await;
        let again = gtids(&events);
        assert!(seen[..4].iter().all(|gtid| !again.contains(gtid)), "{seen:?} {again:?}");
        assert!(seen[4..].iter().all(|gtid| again.contains(gtid)), "{seen:?} {again:?}");
        following.stop().await;
    });
}

#[test]
fn server_without_checksums_is_read_and_may_change_its_mind() {
    block_on(async {
        let running = start(&["--binlog-checksum=NONE"]);
        let (mut connection, before) = session(&running, "bare").await;
        mark(&mut connection, "bare", "without").await;
        run(&mut connection, "SET GLOBAL binlog_checksum = CRC32").await;
        mark(&mut connection, "bare", "with").await;
        run(&mut connection, "SET GLOBAL binlog_checksum = NONE").await;
        mark(&mut connection, "bare", "the end of bare").await;
        let config = running.config("root", &[]);
        let mut following = Following::start(&config, DumpStart::Gtid(before));
        let events = following.until(|event| holds(event, "the end of bare")).await;
        for text in ["without", "with"] {
            // A rows event ends with its last value: nothing of a checksum is left at its end, nothing is missing.
            assert!(events.iter().any(|event| event.body.ends_with(text.as_bytes())), "{text}");
        }
        following.until(|event| event.kind == kind::HEARTBEAT).await;
        following.stop().await;
    });
}

#[test]
fn semi_synchronous_source_is_answered() {
    block_on(async {
        let running = start(&[
            "--plugin-load-add=semisync_source.so",
            "--rpl-semi-sync-source-timeout=60000",
        ]);
        let config = SourceConfig { semi_sync: true, ..running.config("root", &[]) };
        let (mut connection, before) = session(&running, "semi").await;
        let mut following = Following::start(&config, DumpStart::Gtid(before));
        following.until(|event| event.kind == kind::HEARTBEAT).await;
        run(&mut connection, "SET GLOBAL rpl_semi_sync_source_enabled = ON").await;
        // Without an answer each of these would take the minute of the time-out.
        let began = Instant::now();
        for number in 0..5 {
            mark(&mut connection, "semi", &format!("row {number}")).await;
        }
        run(&mut connection, "INSERT INTO semi (b) VALUES (REPEAT('y', 20000000))").await;
        mark(&mut connection, "semi", "the end of semi").await;
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        following.until(|event| holds(event, "the end of semi")).await;
        let acknowledged: Vec<(String, u64)> = connection
            .query("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source%tx'")
            .await
            .expect("answers");
        assert!(
            acknowledged.contains(&("Rpl_semi_sync_source_yes_tx".into(), 7)),
            "{acknowledged:?}"
        );
        assert!(
            acknowledged.contains(&("Rpl_semi_sync_source_no_tx".into(), 0)),
            "{acknowledged:?}"
        );
        // An ordinary reader of the same server is not held for a replica, and reads the same.
        let bystander = SourceConfig { semi_sync: false, ..config };
        let mut ordinary =
            Following::start(&bystander, DumpStart::Gtid(executed(&mut connection).await));
        ordinary.until(|event| event.kind == kind::HEARTBEAT).await;
        ordinary.stop().await;
        following.stop().await;
    });
}

#[test]
fn cut_connection_ends_in_a_retry_and_loses_nothing() {
    block_on(async {
        let running = start(&[]);
        let (mut connection, before) = session(&running, "cut").await;
        for number in 0..200 {
            mark(&mut connection, "cut", &format!("row {number:04} {}", "z".repeat(number * 13)))
                .await;
        }
        mark(&mut connection, "cut", "the end of cut").await;
        let all = executed(&mut connection).await.difference(&before);
        let (mut done, mut seen, mut cuts) = (before, Vec::new(), 0);
        loop {
            // Each connection lives a little longer, and is cut in the middle of something.
            let port = proxy(running.port, Damage::CutAfter(20_000 + 7_919 * cuts));
            let mut config = plain(running.config("root", &[]));
            config.url = config.url.replace(&running.port.to_string(), &port.to_string());
            let following = Following::start(&config, DumpStart::Gtid(done.clone()));
            let (events, error) =
                following.until_end_or(|event| holds(event, "the end of cut")).await;
            let is_last = error.is_none();
            if let Some(error) = error {
                assert!(matches!(error, ReaderError::Transient { .. }), "{error:?}");
            }
            // As the encode thread does: a transaction counts when its end has come.
            let mut open = None;
            for event in &events {
                match event.kind {
                    kind::GTID => open = gtids(std::slice::from_ref(event)).pop(),
                    kind::XID => {
                        let gtid = open.take().expect("an end has a start");
                        done.union(&gtid.parse().expect("a set"));
                        seen.push(gtid);
                    }
                    _ => {}
                }
            }
            cuts += 1;
            if is_last {
                break;
            }
        }
        assert!(cuts > 3, "{cuts}");
        assert_eq!(seen.len() as u64, all.count());
        assert!(done.contains_set(&all));
    });
}

#[test]
fn flipped_bit_is_found_by_the_checksum() {
    block_on(async {
        let running = start(&[]);
        let (mut connection, before) = session(&running, "flipped").await;
        for _ in 0..20 {
            mark(&mut connection, "flipped", &"w".repeat(5_000)).await;
        }
        // A large event is verified as well as small ones.
        run(&mut connection, "INSERT INTO flipped (b) VALUES (REPEAT('v', 3000000))").await;
        for at in [60_000, 2_000_000] {
            let port = proxy(running.port, Damage::FlipAt(at));
            let mut config = plain(running.config("root", &[]));
            config.url = config.url.replace(&running.port.to_string(), &port.to_string());
            let (events, ended) =
                Following::start(&config, DumpStart::Gtid(before.clone())).until_end().await;
            let error = ended.expect_err("damaged");
            assert!(matches!(error, ReaderError::Transient { .. }), "{error:?}");
            assert!(error.to_string().contains("arrived damaged"), "{error}");
            assert!(!events.is_empty());
        }
    });
}

#[test]
fn silent_network_and_shutdown_are_noticed() {
    block_on(async {
        let running = start(&[]);
        let (mut connection, before) = session(&running, "silent").await;
        mark(&mut connection, "silent", &"u".repeat(100_000)).await;
        let port = proxy(running.port, Damage::StallAfter(50_000));
        let mut config = plain(running.config("root", &[]));
        config.url = config.url.replace(&running.port.to_string(), &port.to_string());
        let stalled = Following::start(&config, DumpStart::Gtid(before.clone()));
        let stopped = Following::start(&config, DumpStart::Gtid(before));
        // Stopping does not wait for the network.
        let began = Instant::now();
        stopped.stop().await;
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
        let (_, ended) = stalled.until_end().await;
        let error = ended.expect_err("silent");
        assert!(matches!(error, ReaderError::Transient { .. }), "{error:?}");
        assert!(error.to_string().contains("went silent"), "{error}");
    });
}

#[test]
fn what_the_server_refuses_is_said() {
    block_on(async {
        let running = start(&[]);
        let (mut connection, before) = session(&running, "refused").await;
        let config = running.config("root", &[]);
        // A second reader with the same id and UUID makes the server end the first.
        let first = Following::start_as(&config, DumpStart::Gtid(before.clone()), 4711);
        let mut first = first;
        first.until(|event| event.kind == kind::HEARTBEAT).await;
        let mut second = Following::start_as(&config, DumpStart::Gtid(before.clone()), 4711);
        second.until(|event| event.kind == kind::HEARTBEAT).await;
        let (_, ended) = first.until_end().await;
        let error = ended.expect_err("is replaced");
        assert!(matches!(error, ReaderError::Transient { .. }), "{error:?}");
        second.stop().await;
        // The purged part of the binlog is not come back to.
        mark(&mut connection, "refused", "purged").await;
        run(&mut connection, "FLUSH BINARY LOGS").await;
        let file: Option<(String, u64, String)> =
            connection.query("SHOW BINARY LOGS").await.expect("answers").pop();
        run(&mut connection, &format!("PURGE BINARY LOGS TO '{}'", file.expect("a file").0)).await;
        let (_, ended) = Following::start(&config, DumpStart::Gtid(before)).until_end().await;
        let error = ended.expect_err("is gone");
        assert!(matches!(error, ReaderError::PositionLost(_)), "{error:?}");
        let place = BinlogPlace { file: "binlog.999999".into(), offset: 4 };
        let (_, ended) = Following::start(&config, DumpStart::Place(place)).until_end().await;
        assert!(matches!(ended, Err(ReaderError::PositionLost(_))), "{ended:?}");
        run(&mut connection, "CREATE USER nobody IDENTIFIED BY ''").await;
        let nobody = running.config("nobody", &[]);
        let (_, ended) =
            Following::start(&nobody, DumpStart::Place(BinlogPlace::default())).until_end().await;
        assert!(matches!(ended, Err(ReaderError::Query { .. })), "{ended:?}");
    });
}
