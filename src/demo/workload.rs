//! Udon Market's databases and a seeded stretch of its business, written into a MySQL server.
//!
//! `prepare` makes the databases and everything that happened before Binlake was started; `run` is what happens while
//! it runs, over several connections; `go_on` keeps a gentle trickle going. The rows at the end depend on the seed and
//! the size alone: see `stages.rs`.

mod order;
mod people;
mod schema;
mod sql_text;
mod stages;

use std::{
    ops::RangeInclusive,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use fastrand::Rng;
use futures_util::future::try_join_all;
use mysql_async::{Conn, Opts, OptsBuilder, prelude::Queryable};
use schemas::gtid_set::GtidSet;
use thiserror::Error;
use tokio::{sync::watch, time::Instant};

use order::{Fate, Order, Sizes};
use stages::{Batch, STAGES, Transaction};

/// No number at all.
const NOTHING: RangeInclusive<u64> = RangeInclusive::new(1, 0);
/// Rows of one transaction of `prepare`.
const PREPARE_ORDERS: u64 = 500;
/// A deadlock is resolved by trying again; this often in a row means that something else is wrong.
const ATTEMPTS: usize = 20;
/// Rows that one DELETE of the purge takes: short locks, as a careful administrator does it.
const PURGE_ROWS: u64 = 20_000;
/// A batch of `go_on` starts this long after the one before.
const GENTLE_INTERVAL: Duration = Duration::from_millis(400);

/// How much business, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct WorkloadOptions {
    /// The same seed and number of orders write the same rows.
    pub seed: u64,
    /// Orders in all; the first half of them by `prepare`.
    pub orders: u64,
    /// Connections to write over.
    pub connections: usize,
    /// The time to spread `run` over at least; zero is as fast as the server takes it.
    pub spread: Duration,
}

/// Counts what is written; may be read at any time.
#[derive(Debug, Default)]
pub struct Progress {
    transactions: AtomicU64,
    rows: AtomicU64,
    retries: AtomicU64,
}

/// What has been written so far.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Committed transactions.
    pub transactions: u64,
    /// Rows inserted, updated and deleted in them.
    pub rows: u64,
    /// Transactions that were started again after a deadlock.
    pub retries: u64,
}

impl Progress {
    /// The counts at this moment.
    pub fn snapshot(&self) -> Written {
        Written {
            transactions: self.transactions.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
        }
    }
}

/// Why writing failed.
#[derive(Debug, Error)]
pub enum WorkloadError {
    /// The URL cannot be used.
    #[error("{0} is not a MySQL URL such as mysql://root@127.0.0.1:3306")]
    Url(String),
    /// The server cannot be reached or refuses the login.
    #[error("cannot use MySQL: {}", innermost(.0))]
    Connect(#[source] mysql_async::Error),
    /// Databases of our names are not ours.
    #[error(
        "the server has a database `market` or `delivery` that the demo did not make; it is left alone"
    )]
    Strangers,
    /// A statement failed.
    #[error("MySQL refused {statement:?}: {source}")]
    Statement {
        /// Its beginning.
        statement: String,
        /// What the server said.
        source: mysql_async::Error,
    },
}

/// Udon Market, planned.
#[derive(Debug)]
pub struct Workload {
    options: WorkloadOptions,
    sizes: Sizes,
    opts: Opts,
    batches: Vec<Planned>,
    /// What has been written.
    pub progress: Progress,
}

/// The orders that one batch makes and the older ones that it takes along.
#[derive(Debug)]
struct Planned {
    orders: RangeInclusive<u64>,
    aged: RangeInclusive<u64>,
}

impl Workload {
    /// Plans the business; nothing is written yet.
    pub fn new(url: &str, options: WorkloadOptions) -> Result<Workload, WorkloadError> {
        let opts = Opts::from_url(url).map_err(|_| WorkloadError::Url(url.to_owned()))?;
        let session = "SET SESSION time_zone = '+00:00', sql_mode = 'STRICT_TRANS_TABLES', \
                       transaction_isolation = 'READ-COMMITTED'";
        let opts = OptsBuilder::from_opts(opts)
            .prefer_socket(false)
            .db_name(None::<String>)
            .init(vec![session.to_owned()]);
        Ok(Workload {
            options,
            sizes: Sizes::for_orders(options.orders),
            opts: opts.into(),
            batches: plan(&options),
            progress: Progress::default(),
        })
    }

    /// Makes the databases with everything that happened before.
    pub async fn prepare(&self) -> Result<(), WorkloadError> {
        let mut connection = self.connect().await?;
        self.refuse_strangers(&mut connection).await?;
        for statement in schema::CREATE {
            self.execute(&mut connection, statement).await?;
        }
        for statement in people::statements(self.sizes) {
            self.execute(&mut connection, &statement).await?;
        }
        let connections = self.options.connections;
        try_join_all((0..connections).map(|number| self.prepare_orders(number))).await?;
        Ok(())
    }

    /// Everything that happens while Binlake runs.
    pub async fn run(&self) -> Result<(), WorkloadError> {
        // Announces the column that the second half of the batches writes to.
        let (announce, coupons) = watch::channel(false);
        let placed = watch::Sender::new(0);
        let connections = self.options.connections;
        let writers = try_join_all(
            (0..connections).map(|number| self.run_batches(number, &placed, coupons.clone())),
        );
        tokio::try_join!(writers, self.run_occasions(placed.subscribe(), announce))?;
        Ok(())
    }

    /// One small batch after another, until the future is dropped.
    pub async fn go_on(&self) -> Result<(), WorkloadError> {
        let mut connection = self.connect().await?;
        let mut first = self.options.orders + 1;
        for index in self.batches.len() as u64.. {
            let next = first + 1 + index % 4;
            let batch = self.batch(index, first..=next - 1, NOTHING);
            first = next;
            for stage in 0..STAGES {
                tokio::time::sleep(GENTLE_INTERVAL / STAGES as u32).await;
                self.commit_all(&mut connection, batch.stage(stage)).await?;
            }
        }
        Ok(())
    }

    /// What the server has executed so far; empty without GTIDs.
    pub async fn executed(&self) -> Result<GtidSet, WorkloadError> {
        let mut connection = self.connect().await?;
        let query = connection.query_first("SELECT @@GLOBAL.gtid_executed").await;
        let text: Option<String> = query.map_err(WorkloadError::Connect)?;
        // A set that cannot be read is another kind of server's, and as good as none.
        Ok(text.and_then(|text| text.parse().ok()).unwrap_or_default())
    }

    /// Nothing but rows of `market.orders`, as fast as the server takes them: the numbers from `first` on, as many as
    /// there are orders. Makes the databases anew when it begins with number 1. For measurements.
    pub async fn fill_orders(&self, first: u64) -> Result<(), WorkloadError> {
        if first <= 1 {
            let mut connection = self.connect().await?;
            self.refuse_strangers(&mut connection).await?;
            for statement in schema::CREATE {
                self.execute(&mut connection, statement).await?;
            }
        }
        let last = first + self.options.orders - 1;
        let fill = async |number: usize| {
            let mut connection = self.connect().await?;
            let firsts = (first..=last).step_by(PREPARE_ORDERS as usize);
            for first in firsts.skip(number).step_by(self.options.connections) {
                let ids = first..=(first + PREPARE_ORDERS - 1).min(last);
                let orders: Vec<Order> = ids.map(|id| self.order(id)).collect();
                self.commit_all(&mut connection, Batch::orders_only(&orders)).await?;
            }
            Ok(())
        };
        try_join_all((0..self.options.connections).map(fill)).await?;
        Ok(())
    }

    async fn refuse_strangers(&self, connection: &mut Conn) -> Result<(), WorkloadError> {
        let strangers: Option<u64> =
            connection.query_first(schema::STRANGERS).await.map_err(WorkloadError::Connect)?;
        if strangers == Some(0) { Ok(()) } else { Err(WorkloadError::Strangers) }
    }

    async fn prepare_orders(&self, number: usize) -> Result<(), WorkloadError> {
        let mut connection = self.connect().await?;
        let prepared = self.options.orders / 2;
        let firsts = (1..=prepared).step_by(PREPARE_ORDERS as usize);
        for first in firsts.skip(number).step_by(self.options.connections) {
            let last = (first + PREPARE_ORDERS - 1).min(prepared);
            let orders: Vec<Order> = (first..=last).map(|id| self.order(id)).collect();
            self.commit_all(&mut connection, Batch::history(&orders)).await?;
        }
        Ok(())
    }

    /// One connection's share of the batches. They overlap like boats in a row of locks: while one is being placed,
    /// the one before is being paid for, and so on.
    async fn run_batches(
        &self,
        number: usize,
        placed: &watch::Sender<usize>,
        mut coupons: watch::Receiver<bool>,
    ) -> Result<(), WorkloadError> {
        let mut connection = self.connect().await?;
        let mine: Vec<usize> =
            (number..self.batches.len()).step_by(self.options.connections).collect();
        let steps = mine.len() + STAGES - 1;
        let started = Instant::now();
        for step in 0..steps {
            for stage in 0..STAGES {
                let Some(&index) = step.checked_sub(stage).and_then(|turn| mine.get(turn)) else {
                    continue;
                };
                if stage == 0 && self.has_coupons(index as u64) {
                    // An error means that the one who announces is gone, which run() reports.
                    drop(coupons.wait_for(|announced| *announced).await);
                }
                let Some(planned) = self.batches.get(index) else { continue };
                let batch = self.batch(index as u64, planned.orders.clone(), planned.aged.clone());
                self.commit_all(&mut connection, batch.stage(stage)).await?;
                if stage == 0 {
                    placed.send_modify(|count| *count += 1);
                }
            }
            let share = (step + 1) as f64 / steps as f64;
            tokio::time::sleep_until(started + self.options.spread.mul_f64(share)).await;
        }
        Ok(())
    }

    /// What happens once in a while: a new column when almost half of the batches are placed, a purge after more.
    async fn run_occasions(
        &self,
        mut placed: watch::Receiver<usize>,
        announce: watch::Sender<bool>,
    ) -> Result<(), WorkloadError> {
        let mut connection = self.connect().await?;
        let half = self.batches.len() / 2;
        // Batches before the half wait for nothing, so this many are placed for certain.
        let nearly_half = half.saturating_sub(2 * self.options.connections);
        drop(placed.wait_for(|&count| count >= nearly_half).await);
        self.execute(&mut connection, schema::ADD_COUPON).await?;
        announce.send_replace(true);

        drop(placed.wait_for(|&count| count >= self.batches.len() * 3 / 4).await);
        // Older than this are only rows of `prepare`, so what is purged does not depend on the moment.
        let boundary = sql_text::date_time(order::ordered_at(self.options.orders / 4));
        for table in ["market.order_events", "market.user_events"] {
            let purge = format!(
                "DELETE FROM {table} WHERE happened_at < {boundary} ORDER BY happened_at, id \
                 LIMIT {PURGE_ROWS}"
            );
            while self.execute(&mut connection, &purge).await? == PURGE_ROWS {}
        }
        Ok(())
    }

    fn has_coupons(&self, index: u64) -> bool {
        index >= self.batches.len() as u64 / 2
    }

    fn batch(&self, index: u64, ids: RangeInclusive<u64>, aged: RangeInclusive<u64>) -> Batch {
        let now = order::ordered_at(*ids.start());
        let new = |id| Order { fate_before: Fate::Created, ..self.order(id) };
        Batch {
            index,
            orders: ids.map(new).collect(),
            aged: aged.map(|id| self.order(id)).collect(),
            coupons: self.has_coupons(index),
            now,
        }
    }

    fn order(&self, id: u64) -> Order {
        Order::generate(self.options.seed, id, self.sizes)
    }

    async fn connect(&self) -> Result<Conn, WorkloadError> {
        Conn::new(self.opts.clone()).await.map_err(WorkloadError::Connect)
    }

    async fn commit_all(
        &self,
        connection: &mut Conn,
        transactions: Vec<Transaction>,
    ) -> Result<(), WorkloadError> {
        for transaction in transactions {
            self.commit(connection, &transaction).await?;
        }
        Ok(())
    }

    /// Executes a transaction, again from its start when the server chose it to end a deadlock.
    async fn commit(
        &self,
        connection: &mut Conn,
        transaction: &Transaction,
    ) -> Result<(), WorkloadError> {
        for attempt in 1.. {
            match self.attempt(connection, transaction).await {
                Err(error) if is_deadlock(&error) && attempt < ATTEMPTS => {
                    self.execute(connection, "ROLLBACK").await?;
                    self.progress.retries.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => return Err(error),
                Ok(rows) => {
                    if !transaction.rolled_back {
                        self.progress.rows.fetch_add(rows, Ordering::Relaxed);
                        self.progress.transactions.fetch_add(1, Ordering::Relaxed);
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn attempt(
        &self,
        connection: &mut Conn,
        transaction: &Transaction,
    ) -> Result<u64, WorkloadError> {
        let mut rows = 0;
        self.execute(connection, "START TRANSACTION").await?;
        for statement in &transaction.statements {
            rows += self.execute(connection, statement).await?;
        }
        let end = if transaction.rolled_back { "ROLLBACK" } else { "COMMIT" };
        self.execute(connection, end).await?;
        Ok(rows)
    }

    /// Executes one statement and returns how many rows it changed.
    async fn execute(&self, connection: &mut Conn, sql: &str) -> Result<u64, WorkloadError> {
        const SHOWN_CHARACTERS: usize = 200;
        match connection.query_drop(sql).await {
            Ok(()) => Ok(connection.affected_rows()),
            Err(source) => {
                let statement = sql.chars().take(SHOWN_CHARACTERS).collect();
                Err(WorkloadError::Statement { statement, source })
            }
        }
    }
}

/// Cuts the second half of the orders into batches, half of them of single orders, and shares out the older ones.
fn plan(options: &WorkloadOptions) -> Vec<Planned> {
    let mut rng = Rng::with_seed(options.seed);
    let prepared = options.orders / 2;
    let bulk = (options.orders / 100).clamp(5, 200);
    let mut ranges = Vec::new();
    let mut first = prepared + 1;
    while first <= options.orders {
        let size = if rng.bool() { rng.u64(1..=3) } else { rng.u64(bulk / 5..=bulk) };
        let last = (first + size - 1).min(options.orders);
        ranges.push(first..=last);
        first = last + 1;
    }
    let count = ranges.len() as u64;
    let share = |turn: u64| prepared * turn / count;
    let aged = (0..count).map(|turn| share(turn) + 1..=share(turn + 1));
    ranges.into_iter().zip(aged).map(|(orders, aged)| Planned { orders, aged }).collect()
}

/// The driver's own messages repeat themselves around this one.
fn innermost(error: &mysql_async::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn is_deadlock(error: &WorkloadError) -> bool {
    const ER_LOCK_WAIT_TIMEOUT: u16 = 1205;
    const ER_LOCK_DEADLOCK: u16 = 1213;
    let WorkloadError::Statement { source: mysql_async::Error::Server(server), .. } = error else {
        return false;
    };
    matches!(server.code, ER_LOCK_WAIT_TIMEOUT | ER_LOCK_DEADLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(seed: u64, orders: u64) -> Workload {
        let options = WorkloadOptions { seed, orders, connections: 4, spread: Duration::ZERO };
        Workload::new("mysql://root@127.0.0.1:3306", options).expect("the url is one")
    }

    #[test]
    fn every_order_is_in_one_batch() {
        for orders in [2, 3, 10, 999, 5000] {
            let workload = workload(orders, orders);
            let new = workload.batches.iter().flat_map(|planned| planned.orders.clone());
            assert!(new.eq(orders / 2 + 1..=orders), "{orders}");
            let aged = workload.batches.iter().flat_map(|planned| planned.aged.clone());
            assert!(aged.eq(1..=orders / 2), "{orders}");
        }
    }

    #[test]
    fn same_seed_writes_the_same_text() {
        let text = |seed| {
            let workload = workload(seed, 400);
            let planned = workload.batches.last().expect("there are batches");
            let batch = workload.batch(7, planned.orders.clone(), planned.aged.clone());
            (0..STAGES).map(|stage| batch.stage(stage)).collect::<Vec<_>>()
        };
        assert_eq!(text(1), text(1));
        assert_ne!(text(1), text(2));
    }

    #[test]
    fn no_statement_is_built_without_rows() {
        let workload = workload(3, 40);
        let empty = workload.batch(4, NOTHING, NOTHING);
        for stage in 0..STAGES {
            for transaction in empty.stage(stage) {
                for statement in transaction.statements {
                    assert!(!statement.ends_with("VALUES") && !statement.contains("CASE id END"));
                }
            }
        }
    }
}
