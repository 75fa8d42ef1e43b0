//! What the status page, `binlake status` and `/api/status` show. Gathered by the program, only displayed here.

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

/// A table's first reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// Whether all rows are in the change log.
    pub done: bool,
    /// Rows read so far.
    pub rows: u64,
    /// The server's estimate of all rows.
    pub rows_estimated: u64,
    /// Percent of the estimate; 100 only when done.
    pub percent: f64,
    /// Seconds to go at the present speed.
    pub eta_seconds: Option<f64>,
}

impl SnapshotStatus {
    /// Progress from counts.
    pub fn new(done: bool, rows: u64, rows_estimated: u64, rows_per_second: Option<f64>) -> Self {
        let percent = match (done, rows_estimated) {
            (true, _) => 100.0,
            (false, 0) => 0.0,
            // The estimate is InnoDB's and may be too low.
            (false, estimate) => (rows as f64 * 100.0 / estimate as f64).min(99.0),
        };
        let left = rows_estimated.saturating_sub(rows) as f64;
        let eta_seconds = rows_per_second.filter(|&rate| !done && rate > 0.0).map(|r| left / r);
        Self { done, rows, rows_estimated, percent, eta_seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshot_says_hundred_percent_only_when_done() {
        let over = SnapshotStatus::new(false, 120, 100, Some(10.0));
        assert_eq!((over.percent, over.eta_seconds), (99.0, Some(0.0)));
        let half = SnapshotStatus::new(false, 50, 100, Some(10.0));
        assert_eq!((half.percent, half.eta_seconds), (50.0, Some(5.0)));
        assert_eq!(SnapshotStatus::new(true, 5, 0, None).percent, 100.0);
    }
}
