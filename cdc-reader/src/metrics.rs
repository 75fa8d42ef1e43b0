//! What the reader measures. Names and labels are constants with units; docs list them.

mod snapshots;

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, GenericCounter, GenericGauge},
};

pub use self::snapshots::SnapshotMetrics;

/// The reader's metrics; cheap to clone. The label is the source's name.
#[derive(Clone, Debug)]
pub struct ReaderMetrics {
    rows: IntCounterVec,
    bytes: IntCounterVec,
    commits: IntCounterVec,
    snapshot_rows: IntCounterVec,
    zero_dates: IntCounterVec,
    invalid_texts: IntCounterVec,
    lag_ms: IntGaugeVec,
    stopped_tables: IntGaugeVec,
    reconnects: IntCounterVec,
    snapshot_waits: CounterVec,
    binlog_headroom: GaugeVec,
    log_stalled: GaugeVec,
    records_too_large: IntCounterVec,
    snapshots: snapshots::SnapshotGauges,
}

/// One source's metrics.
#[derive(Clone, Debug)]
pub struct SourceMetrics {
    /// Rows taken from the binlog.
    pub rows: GenericCounter<prometheus::core::AtomicU64>,
    /// Bytes of keys and values written to the log.
    pub bytes: GenericCounter<prometheus::core::AtomicU64>,
    /// Transactions committed to the log.
    pub commits: GenericCounter<prometheus::core::AtomicU64>,
    /// Rows taken from tables by the snapshot.
    pub snapshot_rows: GenericCounter<prometheus::core::AtomicU64>,
    /// Values changed by the zero-date policy.
    pub zero_dates: GenericCounter<prometheus::core::AtomicU64>,
    /// Values changed because they are no text in their character set.
    pub invalid_texts: GenericCounter<prometheus::core::AtomicU64>,
    /// Milliseconds between the source's commit and the log's, of the newest transaction.
    pub lag_ms: GenericGauge<prometheus::core::AtomicI64>,
    /// Tables that were stopped.
    pub stopped_tables: GenericGauge<prometheus::core::AtomicI64>,
    /// How often the connection was made again.
    pub reconnects: GenericCounter<prometheus::core::AtomicU64>,
    /// How far each table's snapshot is.
    pub snapshots: SnapshotMetrics,
    /// Seconds that snapshots waited because of a limit of the source's load.
    pub snapshot_waits: SnapshotWaits,
    /// Seconds until the server may purge the binlog file that the reader has to read on from; infinite when it never
    /// does, NaN when it is not known.
    pub binlog_headroom: Gauge,
    /// Seconds for which the change log has taken nothing that waited for it; 0 while it does.
    pub log_stalled: Gauge,
    /// Records set apart because their topic does not take them.
    pub records_too_large: GenericCounter<prometheus::core::AtomicU64>,
}

/// Seconds waited, by what was waited for.
#[derive(Clone, Debug)]
pub struct SnapshotWaits {
    /// `snapshot_max_rows_per_second`.
    pub rows_per_second: Counter,
    /// `snapshot_pause_threads_running`.
    pub threads_running: Counter,
    /// `snapshot_pause_replica_lag_seconds`.
    pub replica_lag: Counter,
}

impl ReaderMetrics {
    /// Makes the metrics and registers them. Registering a second time in one registry is an error of the caller and
    /// leaves the first ones in place.
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self {
            rows: counter("binlake_reader_rows_total", "rows taken from the binlog"),
            bytes: counter("binlake_reader_log_bytes_total", "bytes of keys and values written"),
            commits: counter("binlake_reader_commits_total", "transactions committed to the log"),
            snapshot_rows: counter("binlake_reader_snapshot_rows_total", "rows taken by snapshots"),
            zero_dates: counter(
                "binlake_reader_zero_dates_total",
                "zero dates written as NULL, or as the epoch where NULL is not possible",
            ),
            invalid_texts: counter(
                "binlake_reader_invalid_texts_total",
                "texts with bytes that are invalid in their character set",
            ),
            lag_ms: gauge("binlake_reader_lag_milliseconds", "source commit to log commit"),
            stopped_tables: gauge("binlake_reader_stopped_tables", "tables that were stopped"),
            reconnects: counter("binlake_reader_reconnects_total", "connections made again"),
            snapshot_waits: CounterVec::new(
                Opts::new(
                    "binlake_reader_snapshot_wait_seconds_total",
                    "how long snapshots waited because of a limit of the source's load",
                ),
                &["source", "reason"],
            )
            .expect("constant names are valid"),
            binlog_headroom: GaugeVec::new(
                Opts::new(
                    "binlake_reader_binlog_headroom_seconds",
                    "how long the server keeps the binlog file that the reader has to read on from",
                ),
                &["source"],
            )
            .expect("constant names are valid"),
            log_stalled: GaugeVec::new(
                Opts::new(
                    "binlake_reader_log_stalled_seconds",
                    "how long the change log has taken nothing that waited for it",
                ),
                &["source"],
            )
            .expect("constant names are valid"),
            records_too_large: counter(
                "binlake_reader_records_too_large_total",
                "records set apart because their topic does not take them",
            ),
            snapshots: snapshots::SnapshotGauges::new(),
        };
        metrics.register(registry);
        metrics.snapshots.register(registry);
        metrics
    }

    /// The metrics of one source.
    pub fn source(&self, source: &str) -> SourceMetrics {
        let label = &[source];
        let waits = |reason: &str| self.snapshot_waits.with_label_values(&[source, reason]);
        SourceMetrics {
            rows: self.rows.with_label_values(label),
            bytes: self.bytes.with_label_values(label),
            commits: self.commits.with_label_values(label),
            snapshot_rows: self.snapshot_rows.with_label_values(label),
            zero_dates: self.zero_dates.with_label_values(label),
            invalid_texts: self.invalid_texts.with_label_values(label),
            lag_ms: self.lag_ms.with_label_values(label),
            stopped_tables: self.stopped_tables.with_label_values(label),
            reconnects: self.reconnects.with_label_values(label),
            snapshot_waits: SnapshotWaits {
                rows_per_second: waits("rows_per_second"),
                threads_running: waits("threads_running"),
                replica_lag: waits("replica_lag"),
            },
            binlog_headroom: self.binlog_headroom.with_label_values(label),
            log_stalled: self.log_stalled.with_label_values(label),
            records_too_large: self.records_too_large.with_label_values(label),
            snapshots: self.snapshots.source(source),
        }
    }

    fn register(&self, registry: &Registry) {
        let collectors: [Box<dyn Collector>; 13] = [
            Box::new(self.rows.clone()),
            Box::new(self.bytes.clone()),
            Box::new(self.commits.clone()),
            Box::new(self.snapshot_rows.clone()),
            Box::new(self.zero_dates.clone()),
            Box::new(self.invalid_texts.clone()),
            Box::new(self.lag_ms.clone()),
            Box::new(self.stopped_tables.clone()),
            Box::new(self.reconnects.clone()),
            Box::new(self.snapshot_waits.clone()),
            Box::new(self.binlog_headroom.clone()),
            Box::new(self.log_stalled.clone()),
            Box::new(self.records_too_large.clone()),
        ];
        for collector in collectors {
            if let Err(error) = registry.register(collector) {
                tracing::warn!(%error, "metric not registered");
            }
        }
    }
}

fn counter(name: &str, help: &str) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), &["source"]).expect("constant names are valid")
}

fn gauge(name: &str, help: &str) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), &["source"]).expect("constant names are valid")
}
