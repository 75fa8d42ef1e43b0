//! Watches, beside a running source, whether the server will still have the binlog that the source has to read on from:
//! warns before the place is lost, says so when it is, and measures the headroom. It only looks; nothing stops here.

pub mod outlook;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mysql_async::{Conn, prelude::Queryable};
use schemas::position::Position;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::outlook::{Look, Outlook, Outlooks, State};
use crate::{
    binlog::consumed::Coordinates,
    config::SourceConfig,
    error::ReaderError,
    metrics::SourceMetrics,
    mysql::{
        connect::{Server, classify, place, reconnect, server},
        place::binlog_files,
        resume::{coordinates_of, ensure_position},
        retention::{ByTime, Retention, retention},
    },
};

/// How often the server is looked at, unless it keeps its binlog for less than ten times as long.
const INTERVAL: Duration = Duration::from_secs(60);
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// What a watch starts with.
pub struct Watched {
    /// The source.
    pub config: Arc<SourceConfig>,
    /// The position as it was last committed.
    pub committed: watch::Receiver<Position>,
    /// The tables whose rows are to be read, with the server's estimates.
    pub expected: watch::Receiver<BTreeMap<String, u64>>,
    /// Taken while a connection is made that is given back at once, so that there is one of them at a time.
    pub brief_connection: Arc<Semaphore>,
    /// The source's metrics.
    pub metrics: SourceMetrics,
}

/// Looks about once a minute, from the first committed position on, until `stop`.
pub async fn run(mut watched: Watched, stop: CancellationToken) {
    let is_known = |position: &Position| !position.place.file.is_empty();
    tokio::select! {
        () = stop.cancelled() => return,
        // An error says that nobody commits any more; then `stop` comes.
        _ = watched.committed.wait_for(is_known) => {}
    }
    let mut guard = RetentionGuard::new(watched);
    loop {
        let look = tokio::time::timeout(LOOK_TIMEOUT, guard.connect_and_look());
        tokio::select! {
            () = stop.cancelled() => return,
            looked = look => match looked {
                Ok(Ok(_)) => {}
                // A server that cannot be reached is told of by the stream.
                Ok(Err(ReaderError::Transient { .. })) | Err(_) => {}
                Ok(Err(error)) => guard.note_failure(&error),
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(guard.interval) => {}
        }
    }
}

/// What was seen and told so far.
pub struct RetentionGuard {
    watched: Watched,
    outlooks: Outlooks,
    began: Instant,
    told: Told,
    failed: bool,
    interval: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Short,
    Gone,
}

impl RetentionGuard {
    /// Nothing is seen yet.
    pub fn new(watched: Watched) -> Self {
        Self {
            watched,
            outlooks: Outlooks::default(),
            began: Instant::now(),
            told: Told::Nothing,
            failed: false,
            interval: INTERVAL,
        }
    }

    /// Looks once, over a connection of its own.
    pub async fn connect_and_look(&mut self) -> Result<Outlook, ReaderError> {
        let turn = self.watched.brief_connection.clone();
        // It is never closed.
        let _turn = turn.acquire().await;
        let mut connection = reconnect(&self.watched.config).await?;
        let server = server(&mut connection, &place(&self.watched.config)).await?;
        let outlook = self.look(&mut connection, &server).await?;
        let _ = connection.disconnect().await;
        Ok(outlook)
    }

    async fn look(
        &mut self,
        connection: &mut Conn,
        server: &Server,
    ) -> Result<Outlook, ReaderError> {
        // Before the files: a place that is committed meanwhile may be in a file that is not listed yet.
        let position = self.watched.committed.borrow().clone();
        let retention = retention(connection, server).await?;
        self.interval = interval(&retention);
        let server_seconds: Option<String> = connection
            .query_first("SELECT UNIX_TIMESTAMP(NOW(3))")
            .await
            .map_err(|error| classify(error, &server.place))?;
        let server_seconds: f64 = server_seconds.and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let from = match coordinates_of(server, &position) {
            Coordinates::GtidSet => &position.place,
            // Reading begins where the oldest undecided XA transaction does.
            Coordinates::MariaDb | Coordinates::Place => {
                position.prepared.first().map_or(&position.place, |prepared| &prepared.place)
            }
        };
        let (rows_done, rows_left) = snapshot_rows(&position, &self.watched.expected.borrow());
        let look = Look {
            at: self.began.elapsed(),
            server_ms: (server_seconds * 1000.0) as i64,
            files: binlog_files(connection, server).await?,
            from: from.clone(),
            source_time_ms: position.source_time_ms,
            rows_done,
            rows_left,
            retention,
        };
        let mut outlook = self.outlooks.judge(&self.watched.config.name, &look);
        if let State::Gone(sentence) = &outlook.state {
            // With GTIDs a file may go of which everything is in the change log.
            outlook.state = match ensure_position(connection, server, &position).await {
                Err(ReaderError::PositionLost(lost)) => State::Gone(format!(
                    "{sentence}: the running reader goes on as long as it stays connected, but cannot be started again \
                     from here ({lost})"
                )),
                _ => State::Safe,
            };
        }
        self.failed = false;
        self.watched.metrics.binlog_headroom.set(outlook.headroom_seconds);
        self.tell(&outlook.state);
        Ok(outlook)
    }

    /// Once for each change of state.
    fn tell(&mut self, state: &State) {
        let source = &self.watched.config.name;
        let (now, before) = match state {
            State::Safe => (Told::Nothing, self.told),
            State::Short(_) => (Told::Short, self.told),
            State::Gone(_) => (Told::Gone, self.told),
        };
        if now != before {
            match state {
                State::Safe => info!(source, "the binlog is kept for long enough again"),
                State::Short(sentence) => warn!(source, "{sentence}"),
                State::Gone(sentence) => error!(source, "{sentence}"),
            }
        }
        self.told = now;
    }

    fn note_failure(&mut self, error: &ReaderError) {
        if !self.failed {
            warn!(
                source = %self.watched.config.name, %error,
                "cannot see how long the binlog is kept: nobody warns before the reader's place in it is lost"
            );
        }
        self.failed = true;
    }
}

fn interval(retention: &Retention) -> Duration {
    match retention.by_time {
        ByTime::After { seconds: seconds @ 1.., .. } => {
            Duration::from_secs(seconds / 10).clamp(INTERVAL_MIN, INTERVAL)
        }
        _ => INTERVAL,
    }
}

/// Rows that snapshots have read, and those that they are thought to have before them.
fn snapshot_rows(position: &Position, expected: &BTreeMap<String, u64>) -> (u64, u64) {
    let done = position.snapshots.values().map(|snapshot| snapshot.rows).sum();
    let is_to_come = |name: &String| !position.stopped.contains_key(name);
    let begun =
        position.snapshots.iter().filter(|(name, snapshot)| !snapshot.done && is_to_come(name));
    let left: u64 = begun
        .map(|(name, snapshot)| {
            let expected = expected.get(name).copied().unwrap_or(0);
            expected.max(snapshot.rows_estimated).saturating_sub(snapshot.rows)
        })
        .sum();
    let waiting = |(name, _): &(&String, &u64)| !position.snapshots.contains_key(*name);
    let waiting = expected.iter().filter(waiting).filter(|(name, _)| is_to_come(name));
    (done, left + waiting.map(|(_, rows)| rows).sum::<u64>())
}

#[cfg(test)]
mod tests {
    use schemas::position::TableSnapshot;

    use super::*;
    use crate::mysql::retention::Clock;

    #[test]
    fn rows_left_are_those_of_tables_begun_and_not_begun() {
        let mut position = Position::default();
        let table = |rows, rows_estimated, done| TableSnapshot {
            rows,
            rows_estimated,
            done,
            ..TableSnapshot::default()
        };
        position.snapshots.insert("d.done".into(), table(50, 40, true));
        position.snapshots.insert("d.begun".into(), table(30, 100, false));
        position.stopped.insert("d.stopped".into(), "a reason".into());
        let expected = [("d.begun", 90), ("d.later", 7), ("d.stopped", 1000)];
        let expected = expected.map(|(name, rows)| (name.to_owned(), rows)).into();
        assert_eq!(snapshot_rows(&position, &expected), (80, 77));
    }

    #[test]
    fn short_retention_is_looked_at_more_often() {
        let by_time = |seconds| ByTime::After { seconds, clock: Clock::Seconds };
        let every = |by_time| interval(&Retention { by_time, by_space: None });
        assert_eq!(every(by_time(2_592_000)), INTERVAL);
        assert_eq!(every(by_time(300)), Duration::from_secs(30));
        assert_eq!(every(by_time(3)), INTERVAL_MIN);
        assert_eq!(every(by_time(0)), INTERVAL);
        assert_eq!(every(ByTime::Never), INTERVAL);
    }
}
