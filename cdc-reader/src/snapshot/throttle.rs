//! Holds snapshots back, so that the load on a source stays within the configured limits: rows per second over all its
//! readers, the server's `Threads_running`, and the lag of its replicas. One for each source, shared by its readers.
//!
//! Readers pass one by one, in the order in which they came, as through a turnstile; whoever is at its head asks the
//! server and the replicas, about once a second, and the others wait behind. So nothing is asked once per reader, and
//! readers that wait together do not set off together. No window and no transaction is open meanwhile.
//!
//! What cannot be found out is no reason to stop the source: it holds the snapshot back and is told, like a replica that
//! is behind.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mysql_async::Conn;
use tokio::sync::{Notify, watch};
use tracing::{info, warn};

use super::token_bucket::TokenBucket;
use crate::{
    config::SourceConfig,
    error::{Action, ReaderError},
    metrics::SourceMetrics,
    mysql::{
        connect::{opts, place, reconnect},
        flavor::Flavor,
        load::{ReplicaLag, flavor, replica_lag, threads_running},
    },
};

/// How long an answer holds.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A replica that does not answer holds the snapshot back; its next chance comes after this.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub struct Throttle {
    source: String,
    bucket: Option<Mutex<TokenBucket>>,
    rows_per_second: u64,
    looks: bool,
    /// The turnstile: held while waiting, which is its purpose. It lets waiters through in their order.
    gate: tokio::sync::Mutex<Gate>,
    /// A chunk was settled, so that the next may be due earlier than it seemed.
    settled: Notify,
    state: watch::Sender<Option<String>>,
    began: Instant,
    metrics: SourceMetrics,
}

/// Why a reader waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    RowsPerSecond,
    ThreadsRunning,
    ReplicaLag,
}

impl Throttle {
    /// The limits of this source. Fails when one of its replicas' urls cannot be used.
    pub fn new(config: &SourceConfig, metrics: SourceMetrics) -> Result<Self, ReaderError> {
        let lag_max = u64::from(config.snapshot_pause_replica_lag_seconds);
        let replicas = if lag_max > 0 { config.replicas() } else { Vec::new() };
        let replicas = replicas.into_iter().map(|config| {
            opts(&config)?;
            Ok(Replica { place: place(&config), config, link: None, paused: false })
        });
        let threads_max = u64::from(config.snapshot_pause_threads_running);
        let rows_per_second = config.snapshot_max_rows_per_second;
        let bucket = TokenBucket::new(rows_per_second, u64::from(config.chunk_rows()));
        Ok(Self {
            source: config.name.clone(),
            bucket: (rows_per_second > 0).then(|| Mutex::new(bucket)),
            rows_per_second,
            looks: threads_max > 0 || lag_max > 0,
            gate: tokio::sync::Mutex::new(Gate {
                threads_max,
                lag_max,
                place: place(config),
                flavor: None,
                replicas: replicas.collect::<Result<_, ReaderError>>()?,
                threads_paused: false,
                own_lag_paused: false,
                looked: None,
                pause: None,
            }),
            settled: Notify::new(),
            state: watch::Sender::new(None),
            began: Instant::now(),
            metrics,
        })
    }

    /// Waits while the limits say so. To be called before a chunk's window is opened, on the connection that will read
    /// it; may be dropped at any time.
    pub async fn before_chunk(&self, connection: &mut Conn) -> Result<(), ReaderError> {
        if !self.looks && self.bucket.is_none() {
            return Ok(());
        }
        let mut gate = self.gate.lock().await;
        let mut waiting = Waiting { throttle: self, reason: None, since: Instant::now() };
        loop {
            if self.looks
                && let Some(pause) = gate.look(connection).await?
            {
                waiting.because(pause.reason, &pause.sentence);
                tokio::time::sleep(LOOK_INTERVAL).await;
                continue;
            }
            // Made before the bucket is asked, so that no settling in between is missed.
            let settled = self.settled.notified();
            let Err(wait) = self.take_chunk() else { return Ok(()) };
            let most = format!("at most {} rows are read in a second", self.rows_per_second);
            waiting.because(Reason::RowsPerSecond, &most);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = settled => {}
            }
        }
    }

    /// Counts the rows of a chunk that was read after [`Self::before_chunk`].
    pub fn read(&self, rows: u64) {
        if let Some(bucket) = &self.bucket {
            unpoisoned(bucket).settle(rows);
            self.settled.notify_waiters();
        }
    }

    /// Why snapshots wait at this moment; `None` when they do not.
    pub fn state(&self) -> Option<String> {
        self.state.borrow().clone()
    }

    /// [`Self::state`], for whoever keeps asking.
    pub fn states(&self) -> watch::Receiver<Option<String>> {
        self.state.subscribe()
    }

    fn take_chunk(&self) -> Result<(), Duration> {
        match &self.bucket {
            Some(bucket) => unpoisoned(bucket).take_chunk(self.began.elapsed()),
            None => Ok(()),
        }
    }
}

/// What is held is whole at any time: a panic elsewhere does not make it wrong.
fn unpoisoned<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A reader at the head of the turnstile: says why it waits and counts how long, until it is dropped.
struct Waiting<'a> {
    throttle: &'a Throttle,
    reason: Option<Reason>,
    since: Instant,
}

impl Waiting<'_> {
    fn because(&mut self, reason: Reason, sentence: &str) {
        self.count();
        if self.reason != Some(reason) && reason != Reason::RowsPerSecond {
            info!(source = %self.throttle.source, reason = sentence, "snapshot pauses");
        }
        self.reason = Some(reason);
        self.throttle.state.send_replace(Some(sentence.to_owned()));
    }

    fn count(&mut self) {
        let now = Instant::now();
        let waited = now.duration_since(self.since).as_secs_f64();
        let waits = &self.throttle.metrics.snapshot_waits;
        match self.reason {
            None => {}
            Some(Reason::RowsPerSecond) => waits.rows_per_second.inc_by(waited),
            Some(Reason::ThreadsRunning) => waits.threads_running.inc_by(waited),
            Some(Reason::ReplicaLag) => waits.replica_lag.inc_by(waited),
        }
        self.since = now;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count();
        if matches!(self.reason, Some(Reason::ThreadsRunning | Reason::ReplicaLag)) {
            info!(source = %self.throttle.source, "snapshot goes on");
        }
        self.throttle.state.send_replace(None);
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pause {
    reason: Reason,
    sentence: String,
    /// Nobody knows whether the limit is kept.
    is_unknown: bool,
}

/// What the head of the turnstile knows of the servers.
#[derive(Debug)]
struct Gate {
    threads_max: u64,
    lag_max: u64,
    place: String,
    flavor: Option<Flavor>,
    replicas: Vec<Replica>,
    threads_paused: bool,
    own_lag_paused: bool,
    looked: Option<Instant>,
    pause: Option<Pause>,
}

#[derive(Debug)]
struct Replica {
    config: SourceConfig,
    place: String,
    link: Option<(Conn, Flavor)>,
    paused: bool,
}

impl Gate {
    /// Whether to pause, as of the last second.
    async fn look(&mut self, connection: &mut Conn) -> Result<Option<Pause>, ReaderError> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL) {
            let pause = self.ask(connection).await?;
            let is_unknown = |pause: &&Pause| pause.is_unknown;
            if let Some(pause) = pause.as_ref().filter(is_unknown)
                && self.pause.as_ref().filter(is_unknown).is_none()
            {
                warn!(reason = pause.sentence, "a limit of the snapshot's load cannot be checked");
            }
            self.pause = pause;
            self.looked = Some(Instant::now());
        }
        Ok(self.pause.clone())
    }

    async fn ask(&mut self, connection: &mut Conn) -> Result<Option<Pause>, ReaderError> {
        if self.threads_max > 0 {
            let most = self.threads_max;
            let reason = Reason::ThreadsRunning;
            let threads = match threads_running(connection, &self.place).await {
                Ok(threads) => threads,
                Err(error) if error.action() == Action::Retry => return Err(error),
                Err(error) => {
                    let sentence = format!(
                        "it cannot be asked how busy the server is ({error}): cure that, or set \
                         snapshot_pause_threads_running to 0"
                    );
                    return Ok(Some(Pause { reason, sentence, is_unknown: true }));
                }
            };
            self.threads_paused = is_too_much(threads, most, self.threads_paused);
            if self.threads_paused {
                let sentence = format!(
                    "Threads_running is {threads}: more than snapshot_pause_threads_running = {most} (goes on at {})",
                    resumes_at(most)
                );
                return Ok(Some(Pause { reason, sentence, is_unknown: false }));
            }
        }
        if self.lag_max == 0 {
            return Ok(None);
        }
        let own = self.own_lag(connection).await?;
        let most = self.lag_max;
        let mut pause = match own {
            // A source need not be a replica.
            Ok(ReplicaLag::NoReplica) => {
                self.own_lag_paused = false;
                None
            }
            own => lag_finding(&self.place, own, most, &mut self.own_lag_paused),
        };
        if pause.is_none() {
            let asked = self.replicas.iter_mut().map(|replica| replica.finding(most));
            pause = futures_util::future::join_all(asked).await.into_iter().flatten().next();
        }
        Ok(pause)
    }

    /// The source's own lag. An error that may pass is the reader's, which connects again.
    async fn own_lag(
        &mut self,
        connection: &mut Conn,
    ) -> Result<Result<ReplicaLag, ReaderError>, ReaderError> {
        let flavor = match &self.flavor {
            Some(flavor) => flavor,
            None => self.flavor.insert(flavor(connection, &self.place).await?),
        };
        match replica_lag(connection, flavor, &self.place).await {
            Err(error) if error.action() == Action::Retry => Err(error),
            answer => Ok(answer),
        }
    }
}

impl Replica {
    /// Why the snapshot has to wait for this replica.
    async fn finding(&mut self, most: u64) -> Option<Pause> {
        let asked = match tokio::time::timeout(REPLICA_TIMEOUT, self.ask()).await {
            Ok(asked) => asked,
            Err(_) => Err(ReaderError::Transient {
                place: self.place.clone(),
                reason: format!("no answer in {} s", REPLICA_TIMEOUT.as_secs()),
            }),
        };
        lag_finding(&self.place, asked, most, &mut self.paused)
    }

    /// Whatever goes wrong, the connection is given up.
    async fn ask(&mut self) -> Result<ReplicaLag, ReaderError> {
        let (mut connection, flavor) = match self.link.take() {
            Some(link) => link,
            None => {
                let mut connection = reconnect(&self.config).await?;
                let flavor = flavor(&mut connection, &self.place).await?;
                (connection, flavor)
            }
        };
        let lag = replica_lag(&mut connection, &flavor, &self.place).await?;
        self.link = Some((connection, flavor));
        Ok(lag)
    }
}

fn lag_finding(
    place: &str,
    lag: Result<ReplicaLag, ReaderError>,
    most: u64,
    paused: &mut bool,
) -> Option<Pause> {
    let seconds = lag.as_ref().ok().and_then(|lag| match lag {
        ReplicaLag::Seconds(seconds) => Some(*seconds),
        ReplicaLag::NoReplica | ReplicaLag::Stopped => None,
    });
    *paused = seconds.is_none_or(|seconds| is_too_much(seconds, most, *paused));
    let is_unknown = lag.is_err();
    let sentence = match lag {
        Ok(ReplicaLag::Seconds(seconds)) => format!(
            "{place} is {seconds} s behind its source: more than snapshot_pause_replica_lag_seconds = {most} (goes on \
             at {})",
            resumes_at(most)
        ),
        Ok(ReplicaLag::Stopped) => format!(
            "{place} does not replicate at the moment, so nobody knows how far it is behind: START REPLICA there, or \
             RESET REPLICA ALL if it is to be no replica any more"
        ),
        Ok(ReplicaLag::NoReplica) => {
            format!("{place} is named in snapshot_replicas and is no replica: take it out")
        }
        Err(error) => format!(
            "{place} cannot be asked how far it is behind ({error}): cure that, or take it out of snapshot_replicas, or \
             set snapshot_pause_replica_lag_seconds to 0"
        ),
    };
    paused.then_some(Pause { reason: Reason::ReplicaLag, sentence, is_unknown })
}

/// A pause begins above the limit and ends well below, so that a value around the limit does not switch all the time.
fn is_too_much(value: u64, most: u64, paused: bool) -> bool {
    value > if paused { resumes_at(most) } else { most }
}

fn resumes_at(most: u64) -> u64 {
    most - most / 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_begins_above_the_limit_and_ends_well_below() {
        let mut paused = false;
        let values = [(39, false), (40, false), (41, true), (40, true), (31, true), (30, false)];
        for (value, expected) in values {
            paused = is_too_much(value, 40, paused);
            assert_eq!(paused, expected, "{value}");
        }
        // The smallest limit can be fallen below, too.
        assert!(is_too_much(2, 1, false) && !is_too_much(1, 1, true));
    }

    #[test]
    fn what_is_not_known_of_a_replica_holds_the_snapshot_back() {
        let finding = |lag, paused: &mut bool| {
            let pause = lag_finding("db2:3306", lag, 10, paused);
            pause.map(|pause| pause.sentence)
        };
        let mut paused = false;
        assert_eq!(finding(Ok(ReplicaLag::Seconds(10)), &mut paused), None);
        let text = finding(Ok(ReplicaLag::Stopped), &mut paused).expect("a finding");
        assert!(text.starts_with("db2:3306 does not replicate") && paused, "{text}");
        // Then it has to come well below the limit.
        let text = finding(Ok(ReplicaLag::Seconds(9)), &mut paused).expect("a finding");
        assert!(text.contains("is 9 s behind"), "{text}");
        assert_eq!(finding(Ok(ReplicaLag::Seconds(8)), &mut paused), None);
        let text = finding(Ok(ReplicaLag::NoReplica), &mut paused).expect("a finding");
        assert!(text.contains("is no replica"), "{text}");
        let gone = ReaderError::Transient { place: "db2:3306".into(), reason: "gone".into() };
        let text = finding(Err(gone), &mut paused).expect("a finding");
        assert!(text.contains("cannot be asked") && text.contains("gone"), "{text}");
    }
}
