//! What the status page, `binlake status` and `/api/status` show. Gathered by the program, only displayed here.

use schemas::{position::TableSnapshot, snapshot_state::SnapshotState};
use serde::{Deserialize, Serialize};

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Milliseconds since 1970 when it was gathered; 0 before the first time.
    pub taken_ms: i64,
    /// The sources in the configuration's order.
    pub sources: Vec<SourceStatus>,
    /// The tables by name.
    pub tables: Vec<TableStatus>,
    /// The exports in the configuration's order.
    #[serde(default)]
    pub exports: Vec<ExportStatus>,
    /// What could not be looked at, one sentence each.
    pub problems: Vec<String>,
}

/// A source and its reader.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// The source's name.
    pub name: String,
    /// The reader's position as a GTID set; empty without GTIDs.
    pub gtid_set: String,
    /// The reader's position as `file:offset`; empty when the reader has not run yet.
    pub place: String,
    /// What the server has executed, when it could be asked.
    pub server_gtid_set: Option<String>,
    /// The end of the server's binlog as `file:offset`, when it could be asked.
    pub server_place: Option<String>,
    /// Transactions of the server that are not in the change log yet.
    pub transactions_behind: Option<u64>,
    /// Seconds that the reader is behind the server; 0 when it has everything.
    pub lag_seconds: Option<f64>,
    /// Rows per second that came into the change log lately.
    pub rows_per_second: Option<f64>,
    /// Tables that the reader stopped are named with their tables; this is what is wrong with the source itself.
    pub problem: Option<String>,
}

/// A table on its way from the source into the lake.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableStatus {
    /// `source.database.table`.
    pub name: String,
    /// `state`, `history` ...; empty when the table is not in the lake yet.
    pub mode: String,
    /// Rows in the lake.
    pub rows: Option<u64>,
    /// Data files in the lake.
    pub files: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// The Delta version.
    pub version: Option<i64>,
    /// Milliseconds since 1970 of the last commit.
    pub last_commit_ms: Option<i64>,
    /// The next record that the lake needs, summed over partitions.
    pub sink_offset: i64,
    /// The end of the table's topic, summed over partitions.
    pub log_end: i64,
    /// Records in the change log that are not in the lake (Kafka counts its own control records too).
    pub lag_records: i64,
    /// Age of the oldest record that is not in the lake; 0 when all are.
    pub lag_seconds: f64,
    /// The snapshot, once it has begun.
    pub snapshot: Option<SnapshotStatus>,
    /// Why the table is stopped, and what to do.
    pub stopped: Option<String>,
}

/// A scheduled export and its last run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExportStatus {
    /// Its name in the configuration.
    pub name: String,
    /// `source.database.table`, which it reads.
    pub from: String,
    /// Its table in the lake, as SQL names it.
    pub table: String,
    /// `every 24h`, `at 03:00 Asia/Seoul`, `by hand`.
    pub schedule: String,
    /// Whether a run is under way.
    pub running: bool,
    /// Milliseconds since 1970 when the last run that came to its end began.
    pub last_ms: Option<i64>,
    /// Its rows.
    pub rows: Option<u64>,
    /// How long it took.
    pub seconds: Option<f64>,
    /// The Delta version that it made.
    pub version: Option<u64>,
    /// Its zero or partly zero dates, which became NULL.
    pub zero_dates: u64,
    /// Its texts with bytes that mean nothing in their character set.
    pub invalid_texts: u64,
    /// Milliseconds since 1970 when the next run is due; none for an export that is only run by hand.
    pub next_ms: Option<i64>,
    /// Runs that failed since the last one that came to its end.
    pub failures: u32,
    /// Why the last of them failed.
    pub error: Option<String>,
}

/// The reading of a table's rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// What it is doing: `waiting`, `reading`, `paused`, `done`, or `stopped`: ended, and the lake lacks rows.
    pub state: SnapshotState,
    /// Why it waits or is paused, where that is known.
    pub reason: Option<String>,
    /// Whether all rows that are wanted are in the change log.
    pub done: bool,
    /// Rows read so far.
    pub rows: u64,
    /// The server's estimate of all rows.
    pub rows_estimated: u64,
    /// Percent of the estimate; 100 only when done.
    pub percent: f64,
    /// Bytes of keys and rows read so far.
    pub bytes: u64,
    /// Rows per second of late.
    pub rows_per_second: Option<f64>,
    /// Bytes per second of late.
    pub bytes_per_second: Option<f64>,
    /// Seconds to go at the present speed.
    pub eta_seconds: Option<f64>,
    /// Chunks that are being read or wait for their place in the stream.
    pub chunks_in_flight: u32,
    /// Only rows for which this SQL expression is true are read.
    pub filter: Option<String>,
}

impl SnapshotStatus {
    /// Progress as a position tells it.
    pub fn new(progress: &TableSnapshot) -> Self {
        let (rows, rows_estimated) = (progress.rows, progress.rows_estimated);
        let percent = match (progress.done, rows_estimated) {
            (true, _) => 100.0,
            (false, 0) => 0.0,
            // The estimate is InnoDB's and may be too low.
            (false, estimate) => (rows as f64 * 100.0 / estimate as f64).min(99.0),
        };
        Self {
            state: progress.state(),
            reason: progress.paused.then(|| "by `binlake snapshot pause`".to_owned()),
            done: progress.done,
            rows,
            rows_estimated,
            percent,
            bytes: progress.bytes,
            chunks_in_flight: progress.in_flight,
            filter: progress.filter.clone(),
            ..Self::default()
        }
    }

    /// With why the source's snapshots wait, if they do.
    pub fn held_back(mut self, reason: Option<&str>) -> Self {
        if !self.done && self.state != SnapshotState::Paused {
            self.reason = reason.map(|reason| format!("(held back: {reason})"));
        }
        self
    }

    /// With the speed of late.
    pub fn at_speed(mut self, rows_per_second: Option<f64>, bytes_per_second: Option<f64>) -> Self {
        if self.done || self.state == SnapshotState::Paused {
            return self;
        }
        // Of a part of the rows nobody knows how many they are.
        let whole = self.filter.is_none();
        let left = self.rows_estimated.saturating_sub(self.rows) as f64;
        self.eta_seconds = rows_per_second.filter(|&rate| whole && rate > 0.0).map(|r| left / r);
        self.rows_per_second = rows_per_second;
        self.bytes_per_second = bytes_per_second;
        self
    }

    /// One line for people.
    pub fn sentence(&self) -> String {
        let mut text = self.state.to_string();
        if let Some(reason) = &self.reason {
            text.push_str(&format!(" {reason}"));
        }
        if self.done {
            return text;
        }
        text.push_str(&format!(
            ", {:.0} % ({} of about {} rows)",
            self.percent, self.rows, self.rows_estimated
        ));
        if let Some(rate) = self.bytes_per_second {
            text.push_str(&format!(", {:.1} MB/s", rate / 1e6));
        }
        if let Some(seconds) = self.eta_seconds {
            text.push_str(&format!(", {seconds:.0} s to go"));
        }
        if self.chunks_in_flight > 0 {
            text.push_str(&format!(", {} chunks in flight", self.chunks_in_flight));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(rows: u64, rows_estimated: u64) -> TableSnapshot {
        TableSnapshot { rows, rows_estimated, in_flight: 2, ..TableSnapshot::default() }
    }

    #[test]
    fn snapshot_says_hundred_percent_only_when_done() {
        let at_speed = |progress| SnapshotStatus::new(&progress).at_speed(Some(10.0), Some(2e6));
        let over = at_speed(reading(120, 100));
        assert_eq!((over.percent, over.eta_seconds), (99.0, Some(0.0)));
        let half = at_speed(reading(50, 100));
        assert_eq!((half.percent, half.eta_seconds), (50.0, Some(5.0)));
        let words = "reading, 50 % (50 of about 100 rows), 2.0 MB/s, 5 s to go, 2 chunks in flight";
        assert_eq!(half.sentence(), words);
        let done = at_speed(TableSnapshot { done: true, ..reading(5, 0) });
        assert_eq!((done.percent, done.sentence().as_str()), (100.0, "done"));
        let paused = at_speed(TableSnapshot { paused: true, ..reading(50, 100) });
        assert_eq!(paused.eta_seconds, None);
        assert!(paused.sentence().starts_with("paused by `binlake snapshot pause`, 50 %"));
    }
}
