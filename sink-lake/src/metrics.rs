//! The sink's Prometheus metrics: names, units and labels, and the status handle that goes with them.

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::status::SinkStatus;

const TABLE_LABEL: &[&str] = &["table"];

/// Changes of rows that are part of the lake, as counted before only the last one of each key was kept.
pub const ROWS: &str = "binlake_sink_rows_total";
/// Delta commits.
pub const COMMITS: &str = "binlake_sink_commits_total";
/// Commits that another program's commit overtook.
pub const CONFLICTS: &str = "binlake_sink_conflicts_total";
/// Seconds from the decision to commit until the commit was part of the table.
pub const COMMIT_SECONDS: &str = "binlake_sink_commit_duration_seconds";
/// Seconds between a change at the source and now, for the oldest change that is read and not committed; 0 when none.
pub const LAG_SECONDS: &str = "binlake_sink_lag_seconds";
/// Bytes read and not committed.
pub const BUFFERED_BYTES: &str = "binlake_sink_buffered_bytes";
/// Records that could not be decoded.
pub const DEAD_LETTERS: &str = "binlake_sink_dead_letters_total";
/// Tables that stopped and need somebody's hand.
pub const STOPPED_TABLES: &str = "binlake_sink_stopped_tables";

/// The metrics; cheap to clone.
#[derive(Clone, Debug)]
pub struct SinkMetrics {
    pub(crate) rows: IntCounterVec,
    pub(crate) commits: IntCounterVec,
    pub(crate) conflicts: IntCounterVec,
    pub(crate) commit_seconds: HistogramVec,
    pub(crate) lag_seconds: GaugeVec,
    pub(crate) buffered_bytes: IntGaugeVec,
    pub(crate) dead_letters: IntCounterVec,
    pub(crate) stopped_tables: IntGauge,
    status: SinkStatus,
}

impl SinkMetrics {
    /// Registers the metrics. Fails when the registry has metrics of these names already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| -> Result<IntCounterVec, prometheus::Error> {
            let metric = IntCounterVec::new(Opts::new(name, help), TABLE_LABEL)?;
            registry.register(Box::new(metric.clone()))?;
            Ok(metric)
        };
        let rows = counter(ROWS, "changes of rows that are part of the lake")?;
        let commits = counter(COMMITS, "delta commits")?;
        let conflicts = counter(CONFLICTS, "commits that another program's commit overtook")?;
        let dead_letters = counter(DEAD_LETTERS, "records that could not be decoded")?;
        let buckets = vec![0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
        let options =
            HistogramOpts::new(COMMIT_SECONDS, "from the decision to commit until committed");
        let commit_seconds = HistogramVec::new(options.buckets(buckets), TABLE_LABEL)?;
        let lag = "age of the oldest change that is read and not committed";
        let lag_seconds = GaugeVec::new(Opts::new(LAG_SECONDS, lag), TABLE_LABEL)?;
        let buffered = Opts::new(BUFFERED_BYTES, "bytes that are read and not committed");
        let buffered_bytes = IntGaugeVec::new(buffered, TABLE_LABEL)?;
        let stopped_tables = IntGauge::new(STOPPED_TABLES, "tables that stopped")?;
        registry.register(Box::new(commit_seconds.clone()))?;
        registry.register(Box::new(lag_seconds.clone()))?;
        registry.register(Box::new(buffered_bytes.clone()))?;
        registry.register(Box::new(stopped_tables.clone()))?;
        Ok(Self {
            rows,
            commits,
            conflicts,
            commit_seconds,
            lag_seconds,
            buffered_bytes,
            dead_letters,
            stopped_tables,
            status: SinkStatus::default(),
        })
    }

    /// What the sink is doing, table by table.
    pub fn status(&self) -> SinkStatus {
        self.status.clone()
    }
}
