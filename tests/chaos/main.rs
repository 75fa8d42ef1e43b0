//! Everything that may fail is made to, again and again, from a seed: `cargo test --test chaos -- --seed 7 --minutes 50`.
//! Reader and sink are the real program, in processes of their own; MySQL and Kafka are real. Then an independent
//! consumer reads the change log, and `binlake verify` compares the lake.
//!
//! Without arguments it runs for a minute, or for five where CI is set. `BINLAKE_TEST_PROGRAM` names another binlake.

// This test has arguments, and so a main function of its own, whose words are its log.
#![allow(missing_docs)]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../scenario/mod.rs"]
mod scenario;

#[path = "../writers/mod.rs"]
mod writers;

mod faults;

use std::{
    collections::BTreeMap,
    process::ExitCode,
    time::{Duration, Instant},
};

use faults::{Fault, Part, World};
use harness::{Kafka, MySql, Proxy, Python, Registry};
use scenario::Scenario;
use writers::{WRITERS, Workload, Writer, judge, prepare};

const SOURCE: &str = "chaos";
const DATABASE: &str = "shop";
/// How long the lake may take to hold everything, after the last fault.
const CATCH_UP: Duration = Duration::from_secs(600);
/// How often all is let to come to rest and compared.
const REST_INTERVAL: Duration = Duration::from_secs(150);
/// One fault in so many has a snapshot asked for before it.
const SNAPSHOT_EVERY: u32 = 8;

struct Options {
    seed: u64,
    time: Duration,
}

/// `None` when the arguments ask for other tests.
fn options() -> Option<Options> {
    let on_ci = std::env::var_os("CI").is_some();
    let minutes = if on_ci { 5.0 } else { 1.0 };
    let (mut seed, mut minutes) = (fastrand::u64(1..1_000_000), minutes);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value behind it");
        match argument.as_str() {
            "--seed" => seed = value().parse().expect("a whole number"),
            "--minutes" => minutes = value().parse().expect("a number"),
            "--list" => return None,
            "--test-threads" | "--format" | "--skip" => drop(value()),
            filter if !filter.starts_with('-') && !"chaos".contains(filter) => return None,
            _ => {}
        }
    }
    Some(Options { seed, time: Duration::from_secs_f64(minutes * 60.0) })
}

fn main() -> ExitCode {
    let Some(options) = options() else { return ExitCode::SUCCESS };
    let (Some(mysql), Some(kafka), Some(registry), Some(python)) =
        (MySql::start(&[]), Kafka::start(&[]), Registry::start(), Python::shared())
    else {
        return ExitCode::SUCCESS;
    };
    println!("chaos: seed {}, {:.1} minutes", options.seed, options.time.as_secs_f64() / 60.0);
    run(&options, mysql, kafka, registry, python);
    println!("\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
    ExitCode::SUCCESS
}

fn run(options: &Options, mysql: MySql, kafka: Kafka, registry: Registry, python: &Python) {
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let partitions = rng.u32(1..4);
    println!("{partitions} partitions");
    let log = format!(
        "[change_log]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\npartitions = {partitions}\n\
         schema_registry_url = \"{}\"\n\n[[table]]\nmatch = \"*.events\"\nmode = \"history\"\n",
        kafka.bootstrap_servers(),
        registry.url()
    );
    prepare(&mut mysql.session(), DATABASE);
    let settings = "snapshot_chunk_rows = 2000";
    let tables = [&format!("{DATABASE}.*") as &str];
    let scenario = Scenario::with_source_settings(&mysql, SOURCE, &tables, settings, &log);
    let network = Proxy::to(mysql.port());
    scenario.edit(&mysql.url(), &format!("mysql://root@127.0.0.1:{}", network.port()));
    let began = Instant::now();
    let mut world = World {
        reader: Part::start(&scenario, "reader", "reading the binlog"),
        sink: Part::start(&scenario, "sink", "sink started"),
        scenario,
        mysql,
        network,
        kafka,
        registry,
        began,
    };
    // What the writers do is the stream's: the snapshot has only the rows that were there before.
    world.reader.wait_logged(CATCH_UP, "new source");
    let port = world.mysql.port();
    let mut writers: Vec<Writer> =
        (0..WRITERS).map(|n| Writer::new(n, DATABASE, port, options.seed)).collect();
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let (mut transactions, mut snapshots) = (0, 0);
    while began.elapsed() < options.time {
        let workload = Workload::start(std::mem::take(&mut writers));
        let rest = Instant::now() + REST_INTERVAL.min(options.time);
        while Instant::now() < rest && began.elapsed() < options.time {
            world.let_run(Duration::from_millis(rng.u64(300..3500)));
            if rng.u32(0..SNAPSHOT_EVERY) == 0 {
                snapshots += u32::from(read_again(&world));
            }
            let fault = Fault::draw(&mut rng);
            world.tell(fault.name());
            *counts.entry(fault.name()).or_default() += 1;
            world.make(fault, &mut rng);
        }
        transactions += workload.transactions();
        writers = workload.stop(&mut world.mysql.session());
        world.tell("rest");
        check(&mut world, &writers, python);
    }
    let all: u32 = counts.values().sum();
    println!(
        "chaos: {all} faults in {:.0} s, {transactions} transactions answered, {snapshots} snapshots asked for, nothing \
         lost, nothing doubled",
        began.elapsed().as_secs_f64()
    );
    for (name, count) in counts {
        println!("  {count:4} {name}");
    }
}

/// Asks for the rows of a table again; refused while they are being read, or while a server is down.
fn read_again(world: &World) -> bool {
    let table = format!("{DATABASE}.accounts");
    let asked = world.scenario.command(&["snapshot", "add", &table]).run(CATCH_UP);
    world.tell(if asked.status.success() { "snapshot" } else { "no snapshot now" });
    asked.status.success()
}

/// Lets everything come to rest, and compares.
fn check(world: &mut World, writers: &[Writer], python: &Python) {
    let deadline = Instant::now() + CATCH_UP;
    loop {
        world.let_run(Duration::from_secs(1));
        let verified = world.scenario.command(&["verify"]).run(CATCH_UP);
        if verified.status.success() {
            world.tell(verified.stdout.lines().last().unwrap_or("verified"));
            break;
        }
        assert!(Instant::now() < deadline, "{}{}", verified.stdout, verified.stderr);
        // A part that was just started does not answer yet; a difference stays one.
        assert!(!verified.stdout.contains("DIFFERENT"), "{}", verified.stdout);
    }
    let servers = world.kafka.bootstrap_servers();
    let log = (servers.as_str(), SOURCE, DATABASE);
    let folder = world.scenario.folder();
    let said = judge(writers, &mut world.mysql.session(), log, folder, python);
    world.tell(&said);
}
