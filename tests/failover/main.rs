//! The server dies under load and its replica takes its place: nothing is lost and nothing comes twice, also of a
//! transaction that is in the change log in part, whose rows the replica cuts into other events.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../scenario/mod.rs"]
mod scenario;
#[path = "../writers/mod.rs"]
mod writers;

use std::time::{Duration, Instant};

use change_log::{KafkaConfig, LogConfig, open_reader};
use harness::{Kafka, MySql, Proxy, Python, Session, eventually};
use scenario::{CATCH_UP, Scenario};
use schemas::{position::Position, table_id::positions_topic};
use writers::{WRITERS, Workload, Writer, judge, prepare};

const DATABASE: &str = "shop";
/// The rows of the large transaction; it is committed to the change log in parts.
const WIDE_ROWS: u64 = 14_000;
const WIDE_ROW_BYTES: u64 = 8_000;
/// Where in the large transaction the network stops: behind its first part, before its end.
const STALL_BYTES: u64 = WIDE_ROWS * WIDE_ROW_BYTES * 3 / 4;
/// Transactions under way before and after the change of servers.
const TRANSACTIONS: u64 = 300;
const WAIT: Duration = Duration::from_secs(180);

#[test]
fn a_replica_is_gone_on_with() {
    fails_over("failover-connected", false);
}

#[test]
fn a_replica_is_gone_on_with_by_a_reader_that_died_too() {
    fails_over("failover-killed", true);
}

fn fails_over(source: &str, kill_reader: bool) {
    let (Some(mut servers), Some(kafka), Some(python)) =
        (Servers::start(), Kafka::shared(), Python::shared())
    else {
        return;
    };
    let seed = fastrand::u64(1..1_000_000);
    let began = Instant::now();
    let tell = |what: &str| println!("{:6.1} s  {what}", began.elapsed().as_secs_f64());
    tell(&format!("seed {seed}"));
    prepare(&mut servers.primary.session(), DATABASE);
    let create = format!("CREATE TABLE {DATABASE}.wide (id INT PRIMARY KEY, note MEDIUMTEXT)");
    servers.primary.exec(&create);
    let bootstrap = kafka.bootstrap_servers();
    let log = format!(
        "[change_log]\nkind = \"kafka\"\nbootstrap_servers = \"{bootstrap}\"\n\n[[table]]\nmatch = \"*.events\"\nmode = \
         \"history\"\n"
    );
    let scenario = Scenario::new(&servers.primary, source, &["shop.*"], &log);
    let network = Proxy::to(servers.primary.port());
    scenario.edit(&servers.primary.url(), &format!("mysql://root@127.0.0.1:{}", network.port()));
    let mut reader = scenario.start("reader");
    let _sink = scenario.start("sink");
    reader.wait_logged(CATCH_UP, "new source");
    wait_position(&bootstrap, source, "the tables are read", |position| {
        position.snapshots.values().filter(|table| table.done).count() == 4
    });

    tell("the snapshot is in the log");
    // The writers find the new server as applications do: by the same address.
    let address = Proxy::to(servers.primary.port());
    let writers = (0..WRITERS).map(|n| Writer::new(n, DATABASE, address.port(), seed)).collect();
    let load = Workload::start(writers);
    wait_transactions(&load, TRANSACTIONS);
    network.stall_after(STALL_BYTES);
    let mut session = servers.primary.session();
    session.exec(&format!("SET SESSION cte_max_recursion_depth = {WIDE_ROWS}"));
    session.exec(&format!(
        "INSERT INTO {DATABASE}.wide WITH RECURSIVE n (id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < \
         {WIDE_ROWS}) SELECT id, REPEAT('w', {WIDE_ROW_BYTES}) FROM n"
    ));
    wait_position(&bootstrap, source, "a part is in the log", |position| {
        position.open_transaction.is_some()
    });
    tell("the network stalls inside the large transaction");
    if kill_reader {
        reader.kill9();
    }
    // What the reader has seen, the replica has; a reader that is ahead of a new server is refused elsewhere.
    servers.wait_until_replicated();
    wait_transactions(&load, load.transactions() + TRANSACTIONS);
    servers.fail_over();
    tell("the replica has taken over");
    address.lead_to(servers.replica.port());
    network.lead_to(servers.replica.port());
    network.go_on();
    if kill_reader {
        reader = scenario.start("reader");
    }

    wait_transactions(&load, load.transactions() + TRANSACTIONS);
    let mut session = servers.replica.session();
    let writers = load.stop(&mut session);
    tell("the writers have stopped");
    let said = scenario.verify();
    tell("verified");
    assert!(said.contains(&format!("{source}.shop.wide")), "{said}");
    let log = (bootstrap.as_str(), source, DATABASE);
    tell(&judge(&writers, &mut session, log, scenario.folder(), python));
    assert!(reader.is_running(), "{}", reader.stderr());
    let records = values(&bootstrap, &format!("{source}.shop.wide")).len() as u64;
    assert_eq!(records, WIDE_ROWS, "records of the large transaction");
}

/// A primary, and a replica that has each transaction before its client is answered.
struct Servers {
    primary: MySql,
    replica: MySql,
}

impl Servers {
    fn start() -> Option<Servers> {
        let source = [
            "--plugin-load-add=semisync_source.so",
            "--rpl-semi-sync-source-timeout=600000",
            "--binlog-row-event-max-size=8192",
        ];
        let copy = [
            "--server-id=2",
            "--plugin-load-add=semisync_replica.so",
            "--rpl-semi-sync-replica-enabled=ON",
            "--binlog-row-event-max-size=262144",
        ];
        let servers = Servers { primary: MySql::start(&source)?, replica: MySql::start(&copy)? };
        servers.replica.exec(&format!(
            "RESET BINARY LOGS AND GTIDS; CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, \
             SOURCE_USER = 'root', GET_SOURCE_PUBLIC_KEY = 1, SOURCE_AUTO_POSITION = 1; START REPLICA",
            servers.primary.port()
        ));
        let status = "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_clients'";
        servers.primary.exec("SET GLOBAL rpl_semi_sync_source_enabled = ON");
        eventually(WAIT, "the replica is connected", || {
            servers.primary.rows(status)[0][1].as_deref() == Some("1")
        });
        Some(servers)
    }

    /// Until the replica has what the primary has now.
    fn wait_until_replicated(&self) {
        let executed = self.primary.value("SELECT @@GLOBAL.gtid_executed").expect("a GTID set");
        wait_executed(&mut self.replica.session(), &executed);
    }

    /// Kills the primary and makes the replica writable, when it has applied what it has got.
    fn fail_over(&mut self) {
        self.primary.kill9();
        let mut session = self.replica.session();
        session.exec("STOP REPLICA IO_THREAD");
        let received =
            "SELECT RECEIVED_TRANSACTION_SET FROM performance_schema.replication_connection_status";
        let received = session.rows(received)[0][0].clone().expect("a GTID set");
        wait_executed(&mut session, &received);
        session.exec("STOP REPLICA; RESET REPLICA ALL");
    }
}

fn wait_executed(session: &mut Session, set: &str) {
    let set = set.replace('\n', "");
    let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{set}', {})", WAIT.as_secs());
    assert_eq!(session.rows(&sql)[0][0].as_deref(), Some("0"), "{set} is applied in time");
}

fn wait_transactions(load: &Workload, count: u64) {
    eventually(WAIT, &format!("{count} transactions are answered"), || {
        load.transactions() >= count
    });
}

/// The values of a topic with one partition, from the first to the last.
fn values(bootstrap_servers: &str, topic: &str) -> Vec<Vec<u8>> {
    let config = LogConfig::Kafka(KafkaConfig::new(bootstrap_servers.to_owned()));
    let mut reader = open_reader(&config, WAIT).expect("a reader");
    let (first, end) = reader.bounds(topic, 0).expect("bounds");
    reader.assign(topic, 0, first).expect("assigned");
    let (mut values, mut next) = (Vec::new(), first);
    while next < end {
        let batch = reader.poll(WAIT).expect("polls").expect("records");
        let found = batch.records.iter().filter_map(|span| batch.value(span));
        values.extend(found.map(<[u8]>::to_vec));
        next = batch.next_offset;
    }
    values
}

fn wait_position(
    bootstrap_servers: &str,
    source: &str,
    what: &str,
    reached: impl Fn(&Position) -> bool,
) {
    let topic = positions_topic(source);
    eventually(WAIT, what, || {
        let last = values(bootstrap_servers, &topic).pop();
        let position = last.and_then(|json| serde_json::from_slice(&json).ok());
        position.is_some_and(|position| reached(&position))
    });
}
