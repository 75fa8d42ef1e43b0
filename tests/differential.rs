//! Random tables, random values, random changes: what the log says afterwards is what the server says of each row.
//!
//! The oracle is the server's own text of its rows. Each round makes tables of random types, character sets, NULLs and
//! keys, changes them in random ways (in every row image), and replays the log's records: each `before` must be the
//! `after` that came before it, and the rows that remain must be the server's. Then a second reader takes a snapshot of
//! the same tables: its rows must be the same values.
//!
//! A failure names its seed; `BINLAKE_SEED=<seed> cargo test --test differential` repeats it, and
//! `BINLAKE_ROUNDS=<n>` makes the search longer.

mod harness;

#[path = "differential/avro_text.rs"]
mod avro_text;
#[path = "differential/changes.rs"]
mod changes;
#[path = "differential/kinds.rs"]
mod kinds;
#[path = "differential/log_rows.rs"]
mod log_rows;

use std::time::Duration;

use cdc_reader::{ReaderMetrics, SourceConfig};
use change_log::{LogConfig, LogReader, open_reader};
use harness::{MySql, eventually_some};
use tokio_util::sync::CancellationToken;

use self::{
    changes::{RandomTable, change},
    kinds::Flavor,
    log_rows::{LogRows, replay},
};

const TABLES: usize = 5;
const CHANGES: usize = 60;
const CATCH_UP: Duration = Duration::from_secs(120);

#[test]
fn mysql_rows_are_in_the_log_as_the_server_shows_them() {
    let zones = ["+00:00", "-05:00", "+05:30"];
    for (round, zone) in zones.into_iter().enumerate() {
        let zone = format!("--default-time-zone={zone}");
        // Odd rounds have a strict server, even ones take zero dates.
        let mode = ["--sql-mode=", "--sql-mode=STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE"];
        let Some(mysql) = MySql::start(&[&zone, mode[round % 2]]) else { return };
        for _ in 0..rounds() {
            check(&mysql, Flavor::MySql, round % 2 == 0);
        }
    }
}

#[test]
fn mariadb_rows_are_in_the_log_as_the_server_shows_them() {
    for zone in ["+00:00", "+05:30"] {
        let zone = format!("--default-time-zone={zone}");
        let Some(mariadb) = MySql::start_mariadb(&[&zone, "--sql-mode="]) else { return };
        for _ in 0..rounds() {
            check(&mariadb, Flavor::MariaDb, true);
        }
    }
}

fn rounds() -> usize {
    std::env::var("BINLAKE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1)
}

fn check(mysql: &MySql, flavor: Flavor, zero_dates: bool) {
    let seed = std::env::var("BINLAKE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("BINLAKE_SEED={seed} repeats this round");
    let mut random = fastrand::Rng::with_seed(seed);
    let database = mysql.new_database("differential");
    let mut session = mysql.session();
    session.exec(&format!("set time_zone = '+00:00'; use `{database}`"));
    let mut tables: Vec<RandomTable> = (0..TABLES)
        .map(|number| RandomTable::new(format!("t{number}"), flavor, zero_dates, &mut random))
        .collect();
    for table in &tables {
        session.exec(&table.create());
    }
    let streamed = Reading::start(mysql, &database);
    streamed.wait_started(&database, &mut session);
    for _ in 0..CHANGES {
        change(&mut session, &mut tables, flavor, &mut random);
    }
    session.exec("create table stream_end (id int primary key); insert into stream_end values (1)");
    let from_stream = streamed.finish(&format!("t.{database}.stream_end"), &database, &tables);
    let snapshot = Reading::start(mysql, &database);
    let from_snapshot = snapshot.finish_snapshot(&database, &tables);

    for ((table, stream), snapshot) in tables.iter().zip(from_stream).zip(from_snapshot) {
        let theirs = table.server_rows(&mut session);
        let what = format!("{} (seed {seed})", table.create());
        let ours = table.our_rows(&stream);
        assert_eq!(ours.len(), theirs.len(), "rows of {what}");
        for (our, their) in ours.iter().zip(&theirs) {
            assert_eq!(our, their, "a row from the stream, then from the server, of {what}");
        }
        assert_eq!(
            table.our_rows(&snapshot),
            ours,
            "rows of the snapshot, of the stream, of {what}"
        );
    }
}

/// A reader that runs into an embedded log of its own.
struct Reading {
    runtime: tokio::runtime::Runtime,
    running: tokio::task::JoinHandle<Result<(), cdc_reader::ReaderError>>,
    stop: CancellationToken,
    reader: Box<dyn LogReader>,
    _folder: tempfile::TempDir,
}

impl Reading {
    fn start(mysql: &MySql, database: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogConfig::Embedded { path: folder.path().into(), retention_hours: 24 };
        let config: SourceConfig = serde_json::from_value(serde_json::json!({
            "name": "t", "url": mysql.url(), "tables": [format!("{database}.*")],
        }))
        .expect("a configuration");
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let stop = CancellationToken::new();
        let metrics = ReaderMetrics::new(&prometheus::Registry::new());
        let running = runtime.spawn(cdc_reader::run(config, log.clone(), stop.clone(), metrics));
        let reader =
            eventually_some(CATCH_UP, "the log", || open_reader(&log, Duration::from_secs(5)).ok());
        Self { runtime, running, stop, reader, _folder: folder }
    }

    /// Waits until the stream is followed, so that what comes now is read from the binlog.
    fn wait_started(&self, database: &str, session: &mut harness::Session) {
        session.exec("create table stream_start (id int primary key)");
        eventually_some(CATCH_UP, "the stream is followed", || {
            session.exec("replace into stream_start values (1)");
            let mut reader = self.reader_again();
            reader.topics(&format!("t.{database}.stream_start")).ok()?.pop()
        });
    }

    fn reader_again(&self) -> Box<dyn LogReader> {
        let log = LogConfig::Embedded { path: self._folder.path().into(), retention_hours: 24 };
        open_reader(&log, Duration::from_secs(5)).expect("the log opens")
    }

    fn finish(mut self, last_topic: &str, database: &str, tables: &[RandomTable]) -> Vec<LogRows> {
        eventually_some(CATCH_UP, last_topic, || {
            assert!(!self.running.is_finished(), "the reader has ended");
            self.reader.topics(last_topic).ok()?.pop()
        });
        self.end(database, tables)
    }

    /// The position says when all tables are read.
    fn finish_snapshot(mut self, database: &str, tables: &[RandomTable]) -> Vec<LogRows> {
        eventually_some(CATCH_UP, "the snapshot", || {
            assert!(!self.running.is_finished(), "the reader has ended");
            let position = log_rows::position(self.reader.as_mut(), "t")?;
            let done = |table: &RandomTable| {
                position
                    .snapshots
                    .get(&format!("{database}.{}", table.name))
                    .is_some_and(|s| s.done)
            };
            assert_eq!(position.stopped.get(database), None);
            tables.iter().all(done).then_some(())
        });
        self.end(database, tables)
    }

    fn end(mut self, database: &str, tables: &[RandomTable]) -> Vec<LogRows> {
        let position = log_rows::position(self.reader.as_mut(), "t").expect("a position");
        assert!(position.stopped.is_empty(), "stopped tables: {:?}", position.stopped);
        self.stop.cancel();
        self.runtime.block_on(self.running).expect("joins").expect("the reader stops in order");
        tables
            .iter()
            .map(|table| replay(self.reader.as_mut(), "t", &format!("t.{database}.{}", table.name)))
            .collect()
    }
}
