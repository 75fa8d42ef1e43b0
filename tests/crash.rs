//! kill -9 of the reader and of the sink at random moments, while a shop is doing business: nothing is missing,
//! doubled or stale afterwards, on either change log.
//!
//! A moment is chosen by how many transactions the source commits until then, so every run of a seed kills under the
//! same load, however fast the machine is. `BINLAKE_TEST_SEED=n` runs one seed again.

mod harness;
mod scenario;

use std::time::Duration;

use schemas::gtid_set::GtidSet;

use harness::{Binlake, BinlakeCommand, Kafka, MySql, eventually};
use scenario::{CATCH_UP, SOURCE, Scenario};

/// Each part is killed at least this often.
const KILLS: usize = 20;
/// Transactions between two kills: up to two seconds of the workload below.
const TRANSACTIONS_MAX: u64 = 28;
/// The load is spread over this many seconds; the kills need about two thirds of it.
const LOAD_SECONDS: &str = "100";
const ORDERS: &str = "24000";
/// Long enough for the load on a machine that does something else as well.
const LOAD_TIMEOUT: Duration = Duration::from_secs(400);

const TABLES: [&str; 8] = [
    "market.users",
    "market.products",
    "market.orders",
    "market.order_items",
    "market.order_events",
    "market.user_events",
    "delivery.riders",
    "delivery.deliveries",
];

#[test]
fn killed_parts_lose_and_double_nothing_on_the_embedded_log() {
    let Some(mysql) = MySql::start(&[]) else { return };
    survives_kills(&mysql, "[change_log]\nkind = \"embedded\"\n");
}

#[test]
fn killed_parts_lose_and_double_nothing_on_kafka() {
    let Some(kafka) = Kafka::shared() else { return };
    let Some(mysql) = MySql::start(&[]) else { return };
    let servers = kafka.bootstrap_servers();
    survives_kills(
        &mysql,
        &format!("[change_log]\nkind = \"kafka\"\nbootstrap_servers = \"{servers}\"\n"),
    );
}

fn survives_kills(mysql: &MySql, change_log: &str) {
    let seed = seed();
    println!("BINLAKE_TEST_SEED={seed}");
    let history = "[[table]]\nmatch = \"*_events\"\nmode = \"history\"\n";
    let patterns = ["market.*", "delivery.*"];
    let scenario = Scenario::new(mysql, SOURCE, &patterns, &format!("{change_log}\n{history}"));
    workload(mysql, seed, &["--phase", "prepare"]).run(LOAD_TIMEOUT).success();

    let mut parts = [Part::new(&scenario, "reader"), Part::new(&scenario, "sink")];
    let mut load = Load::start(mysql, seed);
    let mut rng = fastrand::Rng::with_seed(seed);
    while parts.iter().any(|part| part.kills < KILLS) {
        load.wait_for_transactions(rng.u64(0..TRANSACTIONS_MAX));
        // Now and then both at once, as when a machine goes down.
        let both = rng.u8(0..8) == 0;
        let victim = rng.usize(0..parts.len());
        // Half of the kills hit a part that has got something done since its start; the others come at any moment.
        if rng.bool() {
            parts[victim].wait_for_a_commit();
        }
        for (index, part) in parts.iter_mut().enumerate() {
            if both || index == victim {
                part.kill();
            }
        }
        for part in &mut parts {
            part.start_again(&scenario);
        }
    }
    println!("{} and {} kills under load", parts[0].kills, parts[1].kills);

    load.finish();
    let said = scenario.verify();
    for table in TABLES {
        assert!(said.contains(&format!("{SOURCE}.{table}")), "{table} was not compared: {said}");
    }
    history_is_whole(mysql, &scenario);
    assert!(parts.iter_mut().all(|part| part.process.is_running()), "a part gave up");
}

/// The shop's business; when the planned part is over before the last kill, a trickle goes on.
struct Load<'a> {
    mysql: &'a MySql,
    seed: u64,
    planned: Binlake,
    trickle: Option<Binlake>,
}

impl Load<'_> {
    fn start(mysql: &MySql, seed: u64) -> Load<'_> {
        let run = ["--phase", "run", "--seconds", LOAD_SECONDS];
        Load { mysql, seed, planned: workload(mysql, seed, &run).start(), trickle: None }
    }

    /// Returns when the source has committed this many more transactions.
    fn wait_for_transactions(&mut self, count: u64) {
        let commits = || {
            let executed = self.mysql.value("SELECT @@GLOBAL.gtid_executed").expect("a GTID set");
            executed.replace('\n', "").parse::<GtidSet>().expect("a GTID set").count()
        };
        let start = commits();
        let what = "the workload commits";
        eventually(LOAD_TIMEOUT, what, || {
            if !self.planned.is_running() && self.trickle.is_none() {
                let trickle = workload(self.mysql, self.seed, &["--phase", "go-on"]).start();
                self.trickle = Some(trickle);
            }
            commits() >= start + count
        });
    }

    fn finish(mut self) {
        let status = self.planned.wait_exit(LOAD_TIMEOUT);
        assert!(status.success(), "the workload ends well: {}", self.planned.stderr());
        // Dropping the trickle kills it; the server rolls back what it had not committed.
        assert!(self.trickle.as_mut().is_none_or(Binlake::is_running), "it went on");
    }
}

/// Independent of `verify`: events are written once each and never changed, so the lake has one row per id, and every
/// row that the source still has. What was purged before the first reading came to it cannot be there.
fn history_is_whole(mysql: &MySql, scenario: &Scenario) {
    for table in ["order_events", "user_events"] {
        let counts = scenario
            .query(&format!("SELECT COUNT(*), COUNT(DISTINCT id) FROM {SOURCE}.market.{table}"));
        let (rows, ids) = counts[0].split_once(',').expect("two columns");
        let kinds = format!(
            "SELECT _op, COUNT(*), COUNT(DISTINCT id) FROM {SOURCE}.market.{table} GROUP BY _op"
        );
        assert_eq!(rows, ids, "{table} holds rows twice: {:?}", scenario.query(&kinds));
        let left: u64 = number(mysql, &format!("SELECT COUNT(*) FROM market.{table}"));
        let kept: u64 = rows.parse().expect("a number");
        assert!(kept >= left, "{table}: {kept} rows in the lake, {left} in the source");
    }
}

struct Part {
    name: &'static str,
    process: Binlake,
    killed: bool,
    kills: usize,
}

impl Part {
    fn new(scenario: &Scenario, name: &'static str) -> Part {
        Part { name, process: scenario.start(name), killed: false, kills: 0 }
    }

    fn kill(&mut self) {
        assert!(self.process.is_running(), "the {} ended by itself", self.name);
        self.process.kill9();
        self.killed = true;
        self.kills += 1;
    }

    /// Returns when the part has committed something since it was started.
    fn wait_for_a_commit(&mut self) {
        eventually(CATCH_UP, &format!("the {} commits", self.name), || {
            assert!(self.process.is_running(), "the {} ended by itself", self.name);
            scenario::metric(&self.process, &format!("binlake_{}_commits_total", self.name)) > 0.0
        });
    }

    fn start_again(&mut self, scenario: &Scenario) {
        if std::mem::take(&mut self.killed) {
            self.process = scenario.start(self.name);
        }
    }
}

fn workload(mysql: &MySql, seed: u64, more: &[&str]) -> BinlakeCommand {
    let (url, seed) = (mysql.url(), seed.to_string());
    let arguments = ["demo-workload", "--mysql-url", &url, "--orders", ORDERS, "--seed", &seed];
    BinlakeCommand::new(arguments.iter().chain(more).map(|argument| argument.to_string()))
}

fn number(mysql: &MySql, sql: &str) -> u64 {
    mysql.value(sql).and_then(|text| text.parse().ok()).expect("a number")
}

fn seed() -> u64 {
    let given = std::env::var("BINLAKE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(1..1_000_000))
}
