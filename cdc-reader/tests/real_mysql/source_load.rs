//! What a reader does to its source, as the source saw it: with the least privileges, a whole snapshot beside a busy
//! stream writes nothing, locks no table, and keeps no transaction open.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cdc_reader::{
    SourceConfig,
    mysql::{check, connect},
};
use mysql_async::{Conn, prelude::Queryable};

use super::{
    reading::Reading,
    server::{Running, block_on, start, start_by},
};

const ROWS: u32 = 100_000;
const CHUNK: u32 = 2_000;
/// Far above a chunk's few milliseconds.
const HELD: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(2);

/// Everything that the user's connections may have done.
const ALLOWED: [&str; 6] = [
    "statement/sql/select",
    "statement/sql/set_option",
    "statement/sql/begin",
    "statement/sql/commit",
    "statement/sql/rollback",
    // A question about XA transactions; it decides none.
    "statement/sql/xa_recover",
];

/// What sampling the server found.
#[derive(Default)]
struct Seen {
    samples: u64,
    lock_types: HashSet<String>,
    lock_times: HashMap<(u64, u64, String), (Instant, Instant)>,
    handle_locks: HashSet<(Option<String>, Option<String>)>,
    transaction_times: HashMap<(u64, String), (Instant, Instant)>,
}

fn add<K: std::hash::Hash + Eq>(times: &mut HashMap<K, (Instant, Instant)>, key: K, now: Instant) {
    times.entry(key).or_insert((now, now)).1 = now;
}

fn longest<K>(times: &HashMap<K, (Instant, Instant)>) -> Duration {
    times.values().map(|(first, last)| last.duration_since(*first)).max().unwrap_or_default()
}

/// Samples until told to end.
async fn sample(config: SourceConfig, ended: Arc<AtomicBool>) -> Seen {
    let mut connection = connect::connect(&config).await.expect("connects");
    let mut seen = Seen::default();
    while !ended.load(Ordering::Relaxed) {
        seen.sample(&mut connection).await;
        tokio::time::sleep(TICK).await;
    }
    seen
}

impl Seen {
    async fn sample(&mut self, connection: &mut Conn) {
        let now = Instant::now();
        let locks: Vec<(u64, u64, String, String)> = connection
            .query(
                "SELECT l.OWNER_THREAD_ID, l.OWNER_EVENT_ID, l.OBJECT_NAME, l.LOCK_TYPE \
                 FROM performance_schema.metadata_locks l \
                 JOIN performance_schema.threads t ON t.THREAD_ID = l.OWNER_THREAD_ID \
                 WHERE t.PROCESSLIST_USER = 'least' AND l.OBJECT_TYPE = 'TABLE' AND l.OBJECT_SCHEMA = 'load_1'",
            )
            .await
            .expect("locks");
        for (thread, event, table, kind) in locks {
            self.lock_types.insert(kind);
            add(&mut self.lock_times, (thread, event, table), now);
        }
        let handles: Vec<(Option<String>, Option<String>)> = connection
            .query(
                "SELECT h.INTERNAL_LOCK, h.EXTERNAL_LOCK FROM performance_schema.table_handles h \
                 JOIN performance_schema.threads t ON t.THREAD_ID = h.OWNER_THREAD_ID \
                 WHERE t.PROCESSLIST_USER = 'least' AND h.OBJECT_SCHEMA = 'load_1'",
            )
            .await
            .expect("handles");
        self.handle_locks.extend(handles);
        let transactions: Vec<(u64, String)> = connection
            .query(
                "SELECT x.trx_mysql_thread_id, CAST(x.trx_started AS CHAR) FROM information_schema.innodb_trx x \
                 JOIN performance_schema.threads t ON t.PROCESSLIST_ID = x.trx_mysql_thread_id \
                 WHERE t.PROCESSLIST_USER = 'least'",
            )
            .await
            .expect("transactions");
        for transaction in transactions {
            add(&mut self.transaction_times, transaction, now);
        }
        self.samples += 1;
    }
}

/// An open transaction is one that sampling sees.
async fn ensure_sampling_sees(root: &SourceConfig, least: &SourceConfig) {
    let mut connection = connect::connect(root).await.expect("connects");
    let mut holds = connect::connect(least).await.expect("connects");
    holds.query_drop("START TRANSACTION").await.expect("begins");
    holds.query_drop("SELECT * FROM load_1.t LIMIT 1").await.expect("reads");
    let (mut seen, started) = (Seen::default(), Instant::now());
    while longest(&seen.transaction_times) < HELD || longest(&seen.lock_times) < HELD {
        assert!(started.elapsed() < 60 * HELD, "it is not seen");
        seen.sample(&mut connection).await;
        tokio::time::sleep(TICK).await;
    }
    holds.disconnect().await.expect("ends");
}

/// Changes rows all over the table until told to end; answers how many statements that were.
async fn write(config: SourceConfig, ended: Arc<AtomicBool>) -> u64 {
    let mut connection = connect::connect(&config).await.expect("connects");
    let mut random = fastrand::Rng::with_seed(5);
    let mut statements = 0;
    while !ended.load(Ordering::Relaxed) {
        let key = random.u32(0..2 * ROWS);
        let sql = match random.u8(0..4) {
            0 => format!("INSERT IGNORE INTO load_1.t VALUES ({key}, 'new')"),
            1 => format!("DELETE FROM load_1.t WHERE k = {key}"),
            2 => format!("INSERT INTO load_1.log VALUES ({key})"),
            _ => format!("UPDATE load_1.t SET v = 'other' WHERE k BETWEEN {key} AND {key} + 5"),
        };
        connection.query_drop(sql).await.expect("is written");
        statements += 1;
        tokio::time::sleep(TICK).await;
    }
    statements
}

#[test]
fn least_privileges_are_enough_and_the_source_is_only_read() {
    let server = start(&[]);
    block_on(async {
        let root = server.config("root", &[]);
        let mut connection = connect::connect(&root).await.expect("connects");
        for statement in [
            "CREATE DATABASE load_1",
            "CREATE DATABASE loadX1",
            "CREATE TABLE loadX1.secret (k INT PRIMARY KEY)",
            "CREATE TABLE load_1.t (k INT PRIMARY KEY, v VARCHAR(1000))",
            "CREATE TABLE load_1.log (v INT)",
            "SET SESSION cte_max_recursion_depth = 1000000",
            &format!(
                "INSERT INTO load_1.t WITH RECURSIVE n AS (SELECT 1 k UNION ALL SELECT k + 2 FROM n WHERE k < {}) \
                 SELECT k, REPEAT('x', 900) FROM n",
                2 * ROWS
            ),
            "INSERT INTO load_1.log VALUES (1), (2), (3)",
            "CREATE USER least@'%'",
        ] {
            connection.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }

        let config = server.config("least", &["load_1.*"]);
        let report = check(&config).await.expect("is checked");
        assert_eq!(report.findings().len(), 3, "{:?}", report.findings());
        let least = report.privileges.expect("are known").least;
        assert_eq!(
            least,
            [
                "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'least'@'%'",
                r"GRANT SELECT ON `load\_1`.* TO 'least'@'%'",
            ]
        );
        for grant in &least {
            connection.query_drop(grant).await.expect("is granted");
        }
        let report = check(&config).await.expect("is checked");
        assert_eq!(report.findings(), Vec::<String>::new());
        assert_eq!(report.privileges.expect("are known").more_than_needed, Vec::<String>::new());

        ensure_sampling_sees(&root, &config).await;
        let ended = Arc::new(AtomicBool::new(false));
        let sampling = tokio::spawn(sample(root.clone(), ended.clone()));
        let writing = tokio::spawn(write(root.clone(), ended.clone()));
        let mut reading = Reading::new(config);
        reading.config.snapshot_chunk_rows = CHUNK;
        // Long enough to be looked at, with pauses in which nothing may be held.
        reading.config.snapshot_max_rows_per_second = 20_000;
        let began = Instant::now();
        reading.start();
        reading.wait_read("load_1.t").await;
        reading.wait_read("load_1.log").await;
        let took = began.elapsed();
        ended.store(true, Ordering::Relaxed);
        assert!(writing.await.expect("no panic") > 100, "too little was written to mean anything");
        let seen = sampling.await.expect("no panic");
        // The stream works with these privileges, too, and so does a table that comes later.
        for statement in
            ["CREATE TABLE load_1.later (k INT PRIMARY KEY)", "INSERT INTO load_1.later VALUES (7)"]
        {
            connection.query_drop(statement).await.expect("is run");
        }
        reading.wait_for("load_1.later", &["c 7"]).await;
        reading.stop().await;

        assert!(seen.samples > 200, "{} samples", seen.samples);
        // A table is locked as by any SELECT, or by a look at its definition: against being changed under it, and not
        // against reading and writing.
        for kind in &seen.lock_types {
            let is_shared = ["SHARED_READ", "SHARED_HIGH_PRIO", "SHARED"].contains(&kind.as_str());
            assert!(is_shared, "{kind}");
        }
        assert!(seen.lock_types.contains("SHARED_READ"), "{:?}", seen.lock_types);
        // How many of the short ones are seen is chance; that they can be is known from `ensure_sampling_sees`.
        assert!(seen.lock_times.len() > 1, "{} locks", seen.lock_times.len());
        // A machine that stands still for a while makes one chunk long, but not all of them one.
        let most = (took / 2).max(HELD);
        let longest_lock = longest(&seen.lock_times);
        assert!(longest_lock < most, "a table was locked for {longest_lock:?} of {took:?}");
        for (internal, external) in &seen.handle_locks {
            for lock in [internal, external].into_iter().flatten() {
                assert!(!lock.contains("WRITE"), "{lock}");
            }
        }
        let longest_transaction = longest(&seen.transaction_times);
        assert!(longest_transaction < most, "one was open for {longest_transaction:?} of {took:?}");

        let done: Vec<String> = connection
            .query(
                "SELECT EVENT_NAME FROM performance_schema.events_statements_summary_by_user_by_event_name \
                 WHERE USER = 'least' AND COUNT_STAR > 0",
            )
            .await
            .expect("statements");
        assert!(done.iter().any(|name| name == "statement/com/Execute"), "{done:?}");
        let is_allowed = |name: &&String| {
            name.starts_with("statement/com/")
                || name.starts_with("statement/sql/show_")
                || ALLOWED.contains(&name.as_str())
        };
        let others: Vec<_> = done.iter().filter(|name| !is_allowed(name)).collect();
        assert!(others.is_empty(), "{others:?}");
    });
}

#[test]
fn user_that_may_write_is_told_so_and_runs_all_the_same() {
    let server = start(&[]);
    block_on(async {
        let root = server.config("root", &["*.*"]);
        let mut connection = connect::connect(&root).await.expect("connects");
        for statement in [
            "CREATE ROLE writes",
            "GRANT INSERT ON *.* TO writes",
            "CREATE USER much@'%' DEFAULT ROLE writes",
            "GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO much@'%'",
            "CREATE DATABASE d",
            "GRANT UPDATE, DELETE ON d.* TO much@'%'",
        ] {
            connection.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
        let told = async |config: &SourceConfig| {
            let report = check(config).await.expect("is checked");
            assert_eq!(report.findings(), Vec::<String>::new());
            report.privileges.expect("are known").more_than_needed.join("\n")
        };
        let much = told(&server.config("much", &["*.*"])).await;
        assert!(much.contains("REVOKE UPDATE, DELETE ON `d`.* FROM 'much'@'%'"), "{much}");
        assert!(much.contains("'much'@'%' has INSERT on *.*"), "{much}");
        let all = told(&root).await;
        assert!(all.contains("a user of its own with the grants above is enough"), "{all}");
    });
}

/// Grants what `check` lists to a user that has nothing, and lets it read a table with a key, one without, and the stream.
async fn run_with_least(server: &Running, options: impl Fn(&mut SourceConfig)) -> Vec<String> {
    let mut connection = connect::connect(&server.config("root", &[])).await.expect("connects");
    for statement in [
        "CREATE DATABASE load_1",
        "CREATE TABLE load_1.t (k INT PRIMARY KEY)",
        "CREATE TABLE load_1.log (v INT)",
        "INSERT INTO load_1.t VALUES (1), (2)",
        "INSERT INTO load_1.log VALUES (3)",
        "CREATE USER least@'%'",
    ] {
        connection.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let mut config = server.config("least", &["load_1.*"]);
    options(&mut config);
    let report = check(&config).await.expect("is checked");
    let least = report.privileges.expect("are known").least;
    for grant in &least {
        connection.query_drop(grant).await.unwrap_or_else(|e| panic!("{grant}: {e}"));
    }
    let report = check(&config).await.expect("is checked");
    assert_eq!(report.findings(), Vec::<String>::new());
    assert_eq!(report.privileges.expect("are known").more_than_needed, Vec::<String>::new());
    let mut reading = Reading::new(config);
    reading.start();
    reading.wait_for("load_1.t", &["r 1", "r 2"]).await;
    reading.wait_for("load_1.log", &["r 3"]).await;
    for statement in
        ["CREATE TABLE load_1.later (k INT PRIMARY KEY)", "INSERT INTO load_1.later VALUES (7)"]
    {
        connection.query_drop(statement).await.expect("is run");
    }
    reading.wait_for("load_1.later", &["c 7"]).await;
    reading.stop().await;
    // Going on from a stored position asks for more than a new source does.
    reading.start();
    connection.query_drop("INSERT INTO load_1.log VALUES (4)").await.expect("is written");
    reading.wait_for("load_1.log", &["r 3", "c 4"]).await;
    reading.stop().await;
    least
}

#[test]
fn least_privileges_are_enough_without_gtids() {
    let server = start(&["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
    block_on(async {
        let least = run_with_least(&server, |_| {}).await;
        assert_eq!(least[2], "GRANT SELECT ON performance_schema.* TO 'least'@'%'", "{least:?}");
        assert_eq!(least.len(), 3, "{least:?}");
    });
}

#[test]
fn least_privileges_are_enough_on_mariadb_and_it_is_only_read() {
    let server = start_by(
        "mariadb.sh",
        &["--collation-server=utf8mb4_general_ci", "--general-log=ON", "--log-output=TABLE"],
    );
    block_on(async {
        let limited = |config: &mut SourceConfig| {
            config.snapshot_pause_replica_lag_seconds = 5;
            config.snapshot_pause_threads_running = 100;
        };
        let least = run_with_least(&server, limited).await;
        assert!(least[0].contains("REPLICATION CLIENT, SLAVE MONITOR ON *.*"), "{least:?}");
        assert_eq!(least.len(), 2, "{least:?}");
        let mut connection = connect::connect(&server.config("root", &[])).await.expect("connects");
        let statements: Vec<String> = connection
            .query(
                "SELECT CONVERT(argument USING utf8mb4) FROM mysql.general_log \
                 WHERE user_host LIKE 'least%' AND command_type IN ('Query', 'Execute', 'Prepare')",
            )
            .await
            .expect("statements");
        assert!(statements.len() > 50, "{} statements", statements.len());
        let reads =
            ["SELECT ", "SET ", "SHOW ", "START TRANSACTION", "COMMIT", "ROLLBACK", "XA RECOVER"];
        let others: Vec<_> = statements
            .iter()
            .filter(|sql| !reads.iter().any(|read| sql.trim_start().starts_with(read)))
            .collect();
        assert!(others.is_empty(), "{others:?}");
    });
}
