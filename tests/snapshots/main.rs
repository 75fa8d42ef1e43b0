//! Snapshots beside a busy stream: random tables and keys under a heavy workload, with kill -9 at random chunks; and the
//! faults that readers of databases have had here, one test each.
//!
//! A failure names its seed; `BINLAKE_SEED=<seed> cargo test --test snapshots` repeats its tables, statements and kills
//! (not the moments at which they meet), and `BINLAKE_ROUNDS=<n>` makes the search longer.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../scenario/mod.rs"]
mod scenario;

mod faults;
mod keys;
mod log_audit;
#[path = "../differential/log_rows.rs"]
mod log_rows;
mod memory;
mod tables;
mod workload;

use change_log::LogConfig;
use fastrand::Rng;
use harness::{Kafka, MySql};
use log_audit::{Audit, Log};
use scenario::{SOURCE, Scenario};
use tables::{Key, Table};
use workload::Workload;

/// Tables of a round: most have a key.
const KEYS: [Key; 8] = [
    Key::Primary,
    Key::Primary,
    Key::Primary,
    Key::Primary,
    Key::Primary,
    Key::Unique,
    Key::NullableUnique,
    Key::None,
];
const ROWS_MAX: usize = 3000;
const KILLS: std::ops::RangeInclusive<u64> = 3..=6;

#[test]
fn killed_snapshots_beside_writers_leave_the_lake_equal_to_the_source() {
    let Some(mysql) = MySql::start(&[]) else { return };
    for round in 0..rounds() {
        // One reader at first, then any number.
        Round::new(&mysql, seed(), if round == 0 { 1..=1 } else { 2..=8 }, None).run();
    }
}

#[test]
fn killed_snapshots_beside_writers_leave_the_lake_equal_to_the_source_on_kafka() {
    let Some(kafka) = Kafka::shared() else { return };
    let Some(mysql) = MySql::start(&[]) else { return };
    Round::new(&mysql, seed(), 2..=8, Some(kafka)).run();
}

fn rounds() -> u64 {
    std::env::var("BINLAKE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

fn seed() -> u64 {
    let given = std::env::var("BINLAKE_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

/// One set of tables, read from their first row to equality.
struct Round<'a> {
    mysql: &'a MySql,
    seed: u64,
    random: Rng,
    database: String,
    tables: Vec<Table>,
    rows: u64,
    kafka: bool,
    scenario: Scenario,
    log: Log,
}

impl<'a> Round<'a> {
    fn new(
        mysql: &'a MySql,
        seed: u64,
        readers: std::ops::RangeInclusive<u32>,
        kafka: Option<&Kafka>,
    ) -> Self {
        let mut random = Rng::with_seed(seed);
        let database = mysql.new_database("snapshots");
        let mut session = mysql.session();
        session.exec(&format!("use `{database}`"));
        let mut rows = 0;
        let tables: Vec<Table> = KEYS
            .into_iter()
            .enumerate()
            .map(|(number, key)| {
                // Every other one with a key is kept as history.
                let mode = if number % 2 == 0 { "state" } else { "history" };
                let table = Table::random(format!("{mode}_{number}"), key, &mut random);
                session.exec(&table.create());
                // One is empty or has a single row; many chunks cost time, so only some are large.
                let wanted = match number {
                    0 => 1,
                    1..=2 => ROWS_MAX,
                    _ => ROWS_MAX / 6,
                };
                table.fill(&mut session, random.usize(..=wanted), &mut random);
                rows += count(mysql, &format!("select count(*) from {database}.{}", table.name));
                table
            })
            .collect();
        let readers = random.u32(readers);
        let chunk_rows = random.u32(7..=200);
        println!(
            "BINLAKE_SEED={seed}: {rows} rows, {readers} readers, {chunk_rows} rows a chunk\n{}",
            tables.iter().map(|table| table.create() + ";\n").collect::<String>()
        );
        let settings = format!(
            "snapshot_chunk_rows = {chunk_rows}\ncommit_interval_ms = 50\nsnapshot_readers = {readers}"
        );
        let change_log = match kafka {
            Some(kafka) => {
                format!("kind = \"kafka\"\nbootstrap_servers = \"{}\"\n", kafka.bootstrap_servers())
            }
            None => "kind = \"embedded\"\n".into(),
        };
        let more = format!(
            "[change_log]\n{change_log}\n[[table]]\nmatch = \"*.history_*\"\nmode = \"history\"\n"
        );
        let patterns = [format!("{database}.*")];
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let scenario = Scenario::with_source_settings(mysql, SOURCE, &patterns, &settings, &more);
        let log = Log::new(log_config(&scenario, kafka), SOURCE);
        let kafka = kafka.is_some();
        Self { mysql, seed, random, database, tables, rows, kafka, scenario, log }
    }

    fn run(mut self) {
        let sink = self.scenario.start("sink");
        let tables = std::mem::take(&mut self.tables);
        let workload = Workload::start(self.mysql, &self.database, tables, self.seed);
        let mut reader = self.scenario.start("reader");
        let kills = self.random.u64(KILLS);
        let mut killed = 0;
        let names: Vec<String> =
            workload.names().iter().map(|name| format!("{}.{name}", self.database)).collect();
        let keep_up = |rows| workload.keep_up_with(rows);
        for _ in 0..kills {
            // Now and then before the first chunk; seldom so late that the last kills find all tables read.
            let rows = self.random.u64(..=3 * self.rows / 2 / (kills + 1));
            if self.log.wait_until_read(&mut reader, rows, &names, keep_up) {
                break;
            }
            reader.kill9();
            killed += 1;
            if !self.kafka {
                // A broker ends the transaction of a killed writer only when the next one comes.
                self.log.progress_is_that_of_the_records(&names);
            }
            reader = self.scenario.start("reader");
        }
        self.log.wait_until_read(&mut reader, u64::MAX, &names, keep_up);
        let (tables, changes) = workload.stop();
        println!("{killed} kills, {changes} transactions meanwhile");

        let said = self.scenario.verify();
        let mut session = self.mysql.session();
        for table in &tables {
            let name = format!("{}.{}", self.database, table.name);
            assert!(said.contains(&format!("{SOURCE}.{name}")), "{name} was not compared: {said}");
            let audit = self.log.audit(&name);
            let source = session.rows(&format!("select rid, v from {name} order by rid, v"));
            let source: Vec<(i64, i64)> =
                source.iter().map(|row| (number(&row[0]), number(&row[1]))).collect();
            assert_eq!(audit.rows, source, "{name} by its records and on the server");
            if table.name.starts_with("history") || !table.has_key() {
                self.history_has_each_version_once(&name, &audit);
            }
        }
        for mut part in [reader, sink] {
            assert!(part.is_running(), "a part gave up");
        }
    }

    fn history_has_each_version_once(&self, table: &str, audit: &Audit) {
        let counts = self.scenario.query(&format!(
            "SELECT COUNT(*) FROM {SOURCE}.{table} UNION ALL \
             SELECT COUNT(*) FROM (SELECT DISTINCT rid, v FROM {SOURCE}.{table}) versions"
        ));
        if audit.versions == 0 {
            return;
        }
        let versions = audit.versions.to_string();
        assert_eq!(
            counts,
            [versions.clone(), versions],
            "rows and versions of {table} in the lake"
        );
    }
}

/// Where a scenario's records are.
fn log_config(scenario: &Scenario, kafka: Option<&Kafka>) -> LogConfig {
    let text = match kafka {
        Some(kafka) => serde_json::json!({
            "kind": "kafka", "bootstrap_servers": kafka.bootstrap_servers(),
        }),
        None => {
            serde_json::json!({ "kind": "embedded", "path": scenario.folder().join("change-log") })
        }
    };
    serde_json::from_value(text).expect("a change log")
}

fn count(mysql: &MySql, sql: &str) -> u64 {
    mysql.value(sql).and_then(|text| text.parse().ok()).expect("a number")
}

fn number(text: &Option<String>) -> i64 {
    text.as_deref().and_then(|text| text.parse().ok()).expect("a number")
}
