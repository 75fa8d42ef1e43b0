//! Snapshots give way: to a rate, to a busy server, to replicas that are behind. And connections are counted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cdc_reader::{
    ReaderMetrics, SourceConfig,
    mysql::{
        check, connect,
        load::{ReplicaLag, flavor, replica_lag, threads_running},
    },
    snapshot::throttle::Throttle,
};
use mysql_async::{Conn, prelude::Queryable};
use tokio::task::JoinHandle;

use super::{
    reading::Reading,
    server::{Database, Running, block_on, shared, start, start_by},
};

const PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(20);

fn throttle(config: &SourceConfig) -> Arc<Throttle> {
    let metrics = ReaderMetrics::new(&prometheus::Registry::new()).source("udon");
    Arc::new(Throttle::new(config, metrics).expect("usable limits"))
}

async fn connected(config: &SourceConfig) -> Conn {
    connect::connect(config).await.expect("connects")
}

async fn run(connection: &mut Conn, sql: &str) {
    for statement in sql.split(";\n") {
        connection.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(TICK).await;
    }
}

/// A reader that reads one empty chunk after the other.
struct Passing {
    chunks: Arc<AtomicU64>,
    run: JoinHandle<()>,
}

impl Passing {
    fn start(throttle: &Arc<Throttle>, config: &SourceConfig) -> Self {
        let chunks = Arc::new(AtomicU64::new(0));
        let (counted, throttle, config) = (chunks.clone(), throttle.clone(), config.clone());
        let run = tokio::spawn(async move {
            let mut connection = connected(&config).await;
            loop {
                throttle.before_chunk(&mut connection).await.expect("is let through");
                throttle.read(0);
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(TICK).await;
            }
        });
        Self { chunks, run }
    }

    async fn goes_on(&self) {
        let before = self.chunks.load(Ordering::Relaxed);
        wait_until("it goes on", async || {
            assert!(!self.run.is_finished(), "it ended");
            self.chunks.load(Ordering::Relaxed) > before
        })
        .await;
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        self.run.abort();
    }
}

async fn wait_for_state(throttle: &Throttle, wanted: &str) {
    let holds = async || throttle.state().is_some_and(|state| state.contains(wanted));
    wait_until(&format!("{wanted}: {:?}", throttle.state()), holds).await;
}

#[test]
fn rate_holds_for_all_readers_together_and_each_gets_its_share() {
    block_on(async {
        let mut config = shared().config("root", &[]);
        config.snapshot_max_rows_per_second = 1000;
        config.snapshot_chunk_rows = 50;
        let throttle = throttle(&config);
        let ended = Arc::new(AtomicBool::new(false));
        let mut connections = Vec::new();
        for _ in 0..4 {
            connections.push(connected(&config).await);
        }
        let started = Instant::now();
        let readers: Vec<JoinHandle<u64>> = connections
            .into_iter()
            .map(|mut connection| {
                let (throttle, ended) = (throttle.clone(), ended.clone());
                tokio::spawn(async move {
                    let mut rows = 0;
                    while !ended.load(Ordering::Relaxed) {
                        throttle.before_chunk(&mut connection).await.expect("is let through");
                        throttle.read(50);
                        rows += 50;
                    }
                    rows
                })
            })
            .collect();
        tokio::time::timeout(PATIENCE, async {
            while started.elapsed() < Duration::from_secs(2) {
                tokio::time::sleep(TICK).await;
            }
        })
        .await
        .expect("in time");
        ended.store(true, Ordering::Relaxed);
        let mut shares = Vec::new();
        for reader in readers {
            shares.push(reader.await.expect("no panic"));
        }
        let (rows, seconds) = (shares.iter().sum::<u64>() as f64, started.elapsed().as_secs_f64());
        assert!(rows <= 1000.0 * seconds + 50.0, "{rows} rows in {seconds} s");
        assert!(rows >= 1000.0 * seconds * 0.5, "{rows} rows in {seconds} s");
        let (least, most) = (shares.iter().min(), shares.iter().max());
        assert!(most.expect("one") - least.expect("one") <= 100, "{shares:?}");
        assert_eq!(throttle.state(), None);
    });
}

#[test]
fn snapshot_is_as_slow_as_it_is_told_to_be() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "SET SESSION cte_max_recursion_depth = 100000;\nCREATE TABLE t (k INT PRIMARY KEY);\n\
             INSERT INTO t WITH RECURSIVE n AS (SELECT 1 k UNION ALL SELECT k + 1 FROM n WHERE k < 3000) \
             SELECT k FROM n",
        )
        .await;
        let mut reading = Reading::new(db.config.clone());
        reading.config.snapshot_max_rows_per_second = 1500;
        let started = Instant::now();
        reading.start();
        reading.wait_read(&format!("{}.t", db.name)).await;
        // The first chunk, of a second's rows, goes at once.
        assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
        let waits = reading.metrics.source(&reading.config.name).snapshot_waits;
        assert!(waits.rows_per_second.get() > 0.5, "{}", waits.rows_per_second.get());
        reading.stop().await;
    });
}

/// A server on which more threads run than a snapshot likes. It has to be a server of the test's own.
pub struct Busy(Vec<JoinHandle<()>>);

impl Busy {
    pub async fn start(db: &mut Database) -> Self {
        let place = connect::place(&db.config);
        // Whoever waits for a lock is running, as far as the server counts.
        run(&mut db.connection, "SELECT GET_LOCK('busy', 0)").await;
        let mut waiters = Vec::new();
        for _ in 0..12 {
            let mut connection = connected(&db.config).await;
            waiters.push(tokio::spawn(async move {
                let _ = connection.query_drop("SELECT GET_LOCK('busy', 100)").await;
                run(&mut connection, "DO RELEASE_ALL_LOCKS()").await;
            }));
        }
        wait_until("they wait", async || {
            threads_running(&mut db.connection, &place).await.expect("answers") > 12
        })
        .await;
        Self(waiters)
    }

    /// Starts a reader, and waits until its snapshot pauses.
    pub async fn pause(&self, reading: &mut Reading) {
        reading.config.snapshot_pause_threads_running = 10;
        let waits = reading.metrics.source(&reading.config.name).snapshot_waits;
        reading.start();
        wait_until("the snapshot pauses", async || waits.threads_running.get() > 1.5).await;
    }

    pub async fn end(self, db: &mut Database) {
        run(&mut db.connection, "DO RELEASE_LOCK('busy')").await;
        for waiter in self.0 {
            waiter.await.expect("no panic");
        }
    }
}

#[test]
fn snapshot_pauses_while_the_server_is_busy() {
    let server = start(&[]);
    block_on(async {
        let mut db = server.database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1),(2)").await;
        let busy = Busy::start(&mut db).await;
        let mut reading = Reading::new(db.config.clone());
        busy.pause(&mut reading).await;
        assert_eq!(reading.records(&format!("{}.t", db.name)), Vec::<String>::new());
        busy.end(&mut db).await;
        reading.wait_for(&format!("{}.t", db.name), &["r 1", "r 2"]).await;
        reading.stop().await;
    });
}

async fn replicate(source: &Running, replica: &Running) -> Conn {
    let mut connection = connected(&replica.config("root", &[])).await;
    run(
        &mut connection,
        &format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, SOURCE_USER = 'root', \
             SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1;\nSTART REPLICA",
            source.port
        ),
    )
    .await;
    connection
}

#[test]
fn snapshot_pauses_while_a_replica_is_behind_stopped_or_away() {
    let (source, replica) = (start(&[]), start(&["--server-id=2"]));
    block_on(async {
        let mut at_replica = replicate(&source, &replica).await;
        let mut config = source.config("root", &["*.*"]);
        config.snapshot_pause_replica_lag_seconds = 2;
        config.snapshot_replicas = vec![replica.config("root", &[]).url];
        let limited = throttle(&config);
        let passing = Passing::start(&limited, &config);
        passing.goes_on().await;

        run(&mut at_replica, "STOP REPLICA").await;
        wait_for_state(&limited, "does not replicate").await;
        let report = check(&config).await.expect("is checked");
        let line = report.settings.iter().find(|line| line.name.starts_with("replication lag"));
        assert_eq!(line.expect("a line").actual, "not replicating");
        assert_eq!(report.findings(), Vec::<String>::new());
        run(&mut at_replica, "START REPLICA").await;
        passing.goes_on().await;

        // It replicates and cannot keep up: a table that somebody has locked there.
        let mut at_source = connected(&config).await;
        run(&mut at_source, "CREATE DATABASE d;\nCREATE TABLE d.t (k INT PRIMARY KEY)").await;
        wait_until("the table is there", async || {
            at_replica.query_drop("SELECT 1 FROM d.t").await.is_ok()
        })
        .await;
        run(&mut at_replica, "LOCK TABLES d.t READ").await;
        run(&mut at_source, "INSERT INTO d.t VALUES (1)").await;
        let (mut asks, server) = (connected(&replica.config("root", &[])).await, "the replica");
        let version = flavor(&mut asks, server).await.expect("answers");
        wait_until("it falls behind", async || {
            let lag = replica_lag(&mut asks, &version, server).await.expect("answers");
            matches!(lag, ReplicaLag::Seconds(3..))
        })
        .await;
        wait_for_state(&limited, "s behind its source").await;
        // The replica as a source of its own gives way to its own lag.
        let mut own = replica.config("root", &["*.*"]);
        own.snapshot_pause_replica_lag_seconds = 2;
        let own_limited = throttle(&own);
        let own_passing = Passing::start(&own_limited, &own);
        wait_for_state(&own_limited, "s behind its source").await;
        run(&mut at_replica, "UNLOCK TABLES").await;
        passing.goes_on().await;
        own_passing.goes_on().await;
    });
}

#[test]
fn replica_that_cannot_be_reached_pauses_the_snapshot_and_nothing_else() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1)").await;
        db.run("CREATE TABLE log (v INT)").await;
        let mut reading = Reading::new(db.config.clone());
        reading.config.snapshot_pause_replica_lag_seconds = 10;
        reading.config.snapshot_replicas = vec!["mysql://root@127.0.0.1:1".into()];
        let limited = throttle(&reading.config);
        let passing = Passing::start(&limited, &reading.config);
        wait_for_state(&limited, "127.0.0.1:1 cannot be asked how far it is behind").await;
        assert_eq!(passing.chunks.load(Ordering::Relaxed), 0);
        let waits = reading.metrics.source(&reading.config.name).snapshot_waits;
        reading.start();
        wait_until("the snapshot pauses", async || waits.replica_lag.get() > 0.0).await;
        // The stream goes on, and the reader can be stopped while its snapshot waits.
        db.run("INSERT INTO t VALUES (2)").await;
        reading.wait_for(&format!("{}.t", db.name), &["c 2"]).await;
        reading.stop().await;
    });
}

#[test]
fn connections_stay_below_the_limit_that_the_server_enforces() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1);\n\
             CREATE USER few@'%' WITH MAX_USER_CONNECTIONS 6;\n\
             GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO few@'%'",
        )
        .await;
        let config = shared().config("few", &[&format!("{}.*", db.name)]);
        let mut reading = Reading::new(config);
        reading.config.max_connections = 6;
        reading.start();
        reading.wait_for(&format!("{}.t", db.name), &["r 1"]).await;
        // A definition is asked for, and a table read, while everything else is connected.
        db.run("CREATE TABLE u (k INT PRIMARY KEY) SELECT 7 AS k;\nINSERT INTO u VALUES (8)").await;
        reading.wait_for(&format!("{}.u", db.name), &["c 7", "c 8"]).await;
        assert_eq!(reading.metrics.source(&reading.config.name).reconnects.get(), 0);
        reading.stop().await;

        reading.config.max_connections = 4;
        reading.start();
        let text = reading.failure().await;
        assert!(text.contains("max_connections = 4 is too small"), "{text}");
    });
}

#[test]
fn mariadb_tells_its_lag_to_whoever_may_ask() {
    let options = ["--collation-server=utf8mb4_general_ci"];
    let source = start_by("mariadb.sh", &options);
    let replica = start_by("mariadb.sh", &[options[0], "--server-id=2"]);
    block_on(async {
        let config = source.config("root", &["*.*"]);
        let (mut at_source, mut at_replica) =
            (connected(&config).await, connected(&replica.config("root", &[])).await);
        let version = flavor(&mut at_source, "the source").await.expect("answers");
        let lag = async |connection: &mut Conn| {
            replica_lag(connection, &version, "the server").await.expect("answers")
        };
        assert_eq!(lag(&mut at_source).await, ReplicaLag::NoReplica);
        run(&mut at_replica, &format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'root', MASTER_USE_GTID = slave_pos",
            source.port
        ))
        .await;
        assert_eq!(lag(&mut at_replica).await, ReplicaLag::Stopped);
        run(&mut at_replica, "START SLAVE").await;
        wait_until("it replicates", async || lag(&mut at_replica).await == ReplicaLag::Seconds(0))
            .await;

        // The privilege that asking needs is one that `check` names.
        run(&mut at_source, "CREATE USER asks@'%'").await;
        let mut limited = source.config("asks", &["*.*"]);
        limited.snapshot_pause_replica_lag_seconds = 2;
        let report = check(&limited).await.expect("is checked");
        let line = report.settings.iter().find(|line| line.name.starts_with("replication lag"));
        let cure = line.and_then(|line| line.cure.clone()).expect("a cure");
        assert!(cure.contains("GRANT SLAVE MONITOR ON *.* TO 'asks'@'%'"), "{cure}");
        for grant in report.privileges.expect("are known").least {
            run(&mut at_source, &grant).await;
        }
        let report = check(&limited).await.expect("is checked");
        assert_eq!(report.findings(), Vec::<String>::new());
        assert!(!report.settings.iter().any(|line| line.name.starts_with("replication lag")));
        assert_eq!(report.privileges.expect("are known").more_than_needed, Vec::<String>::new());
        let limited_throttle = throttle(&limited);
        Passing::start(&limited_throttle, &limited).goes_on().await;
    });
}
