//! How far each table's snapshot is. The labels are the source's and the table's names.

use std::collections::HashSet;

use prometheus::{IntGaugeVec, Opts, Registry};
use schemas::{position::Position, snapshot_state::SnapshotState};

const NAMES: [(&str, &str); 5] = [
    ("binlake_reader_snapshot_table_rows", "rows of the table's snapshot that are in the log"),
    ("binlake_reader_snapshot_table_rows_estimated", "the server's estimate of the table's rows"),
    ("binlake_reader_snapshot_table_bytes", "bytes of keys and rows of the table's snapshot"),
    (
        "binlake_reader_snapshot_table_chunks_in_flight",
        "chunks being read or waiting for the stream",
    ),
    (
        "binlake_reader_snapshot_table_state",
        "what the table's snapshot does: 0 waiting, 1 reading, 2 paused, 3 done, 4 stopped",
    ),
];

/// All sources' gauges, in the order of `NAMES`.
#[derive(Clone, Debug)]
pub(super) struct SnapshotGauges([IntGaugeVec; 5]);

impl SnapshotGauges {
    pub(super) fn new() -> Self {
        Self(NAMES.map(|(name, help)| {
            IntGaugeVec::new(Opts::new(name, help), &["source", "table"])
                .expect("constant names are valid")
        }))
    }

    pub(super) fn register(&self, registry: &Registry) {
        for gauge in &self.0 {
            if let Err(error) = registry.register(Box::new(gauge.clone())) {
                tracing::warn!(%error, "metric not registered");
            }
        }
    }

    pub(super) fn source(&self, source: &str) -> SnapshotMetrics {
        let gauges = self.clone();
        SnapshotMetrics { gauges, source: source.to_owned(), shown: HashSet::new() }
    }
}

/// One source's.
#[derive(Clone, Debug)]
pub struct SnapshotMetrics {
    gauges: SnapshotGauges,
    source: String,
    shown: HashSet<String>,
}

impl SnapshotMetrics {
    /// Shows what a position says; tables that are no longer captured go away.
    pub fn tell(&mut self, position: &Position) {
        for (table, progress) in &position.snapshots {
            let labels = [self.source.as_str(), table];
            if progress.left_out {
                if self.shown.remove(table) {
                    for gauge in &self.gauges.0 {
                        // It is there: it was shown.
                        let _ = gauge.remove_label_values(&labels);
                    }
                }
                continue;
            }
            let stopped = position.stopped.contains_key(table);
            let state = if stopped { SnapshotState::Stopped } else { progress.state() };
            let number = SnapshotState::ALL.iter().position(|known| *known == state);
            let values = [
                progress.rows,
                progress.rows_estimated,
                progress.bytes,
                u64::from(progress.in_flight),
                number.unwrap_or_default() as u64,
            ];
            for (gauge, value) in self.gauges.0.iter().zip(values) {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                gauge.with_label_values(&labels).set(value);
            }
            if !self.shown.contains(table) {
                self.shown.insert(table.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::position::TableSnapshot;

    use super::*;

    #[test]
    fn tables_are_shown_while_they_are_captured() {
        let registry = Registry::new();
        let gauges = SnapshotGauges::new();
        gauges.register(&registry);
        let mut metrics = gauges.source("udon");
        let mut position = Position::default();
        let progress = TableSnapshot { rows: 7, in_flight: 2, ..TableSnapshot::default() };
        position.snapshots.insert("d.t".into(), progress);
        metrics.tell(&position);
        let shown = |name: &str| {
            let found = registry.gather().into_iter().find(|family| family.name() == name)?;
            Some(found.get_metric().first()?.get_gauge().get_value() as i64)
        };
        let values = NAMES.map(|(name, _)| shown(name));
        assert_eq!(values, [Some(7), Some(0), Some(0), Some(2), Some(1)]);
        position.stopped.insert("d.t".into(), "why".into());
        metrics.tell(&position);
        assert_eq!(shown(NAMES[4].0), Some(4));
        position.snapshots.get_mut("d.t").expect("entered").left_out = true;
        metrics.tell(&position);
        assert_eq!(shown(NAMES[0].0), None);
    }
}
