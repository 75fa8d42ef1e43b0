//! What the limits of a source's load come to: whether they can be used, and what is left for snapshots.

use super::{SnapshotMode, SourceConfig};
use crate::error::ReaderError;

/// Connections that are not readers': the stream, the definitions of tables, the watch over the binlog's retention, and the
/// status page. What asks for defaults and the watch take turns.
const STANDING_CONNECTIONS: u32 = 4;

/// One for rows, one for questions.
const CONNECTIONS_PER_READER: u32 = 2;

impl SourceConfig {
    /// Why the limits cannot be used, and what to do; `None` when they can.
    pub fn limits_finding(&self) -> Option<String> {
        let readers = u32::from(self.reads_rows()) * CONNECTIONS_PER_READER;
        let least = self.standing_connections() + readers;
        if self.max_connections > 0 && self.max_connections < least {
            return Some(format!(
                "max_connections = {} is too small: the stream, the questions about tables, the watch over the binlog and \
                 the status page need {}{}; set it to {least} or more, or 0 for no limit",
                self.max_connections,
                self.standing_connections(),
                if self.reads_rows() { ", and the snapshot two more" } else { "" },
            ));
        }
        if !self.snapshot_replicas.is_empty() && self.snapshot_pause_replica_lag_seconds == 0 {
            return Some(
                "snapshot_replicas are named, but not how far they may be behind: set snapshot_pause_replica_lag_seconds, \
                 for example to 10"
                    .into(),
            );
        }
        None
    }

    /// Refuses limits that cannot be used.
    pub fn ensure_limits(&self) -> Result<(), ReaderError> {
        match self.limits_finding() {
            None => Ok(()),
            Some(reason) => Err(ReaderError::Config { source_name: self.name.clone(), reason }),
        }
    }

    /// How many of the wanted snapshot readers fit into `max_connections`; at least one.
    pub fn readers_that_fit(&self, wanted: u32) -> u32 {
        match self.max_connections {
            0 => wanted.max(1),
            most => {
                let left = most.saturating_sub(self.standing_connections());
                wanted.min(left / CONNECTIONS_PER_READER).max(1)
            }
        }
    }

    /// Rows of one chunk: what was configured, and no more than may be read in a second, for a chunk is read at once.
    pub fn chunk_rows(&self) -> u32 {
        match u32::try_from(self.snapshot_max_rows_per_second) {
            Ok(rate @ 1..) => self.snapshot_chunk_rows.min(rate),
            _ => self.snapshot_chunk_rows,
        }
    }

    /// The replicas as sources of their own, for connecting to them.
    pub fn replicas(&self) -> Vec<SourceConfig> {
        let replica = |url: &String| Self { url: url.clone(), ..self.clone() };
        self.snapshot_replicas.iter().map(replica).collect()
    }

    fn reads_rows(&self) -> bool {
        self.snapshot != SnapshotMode::Never
    }

    fn standing_connections(&self) -> u32 {
        STANDING_CONNECTIONS + u32::from(self.schema_changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(limits: serde_json::Value) -> SourceConfig {
        let mut json = serde_json::json!({ "name": "udon", "url": "mysql://u@h" });
        for (key, value) in limits.as_object().expect("an object") {
            json[key] = value.clone();
        }
        serde_json::from_value(json).expect("a source")
    }

    #[test]
    fn readers_are_reduced_to_fit() {
        for (most, wanted, expected) in [(0, 2, 2), (0, 0, 1), (6, 8, 1), (9, 8, 2), (20, 8, 8)] {
            let source = source(serde_json::json!({ "max_connections": most }));
            assert_eq!(source.limits_finding(), None);
            assert_eq!(source.readers_that_fit(wanted), expected, "{most} {wanted}");
        }
    }

    #[test]
    fn too_few_connections_are_refused_with_the_number_that_is_needed() {
        let finding = |limits| source(limits).limits_finding().expect("a finding");
        let text = finding(serde_json::json!({ "max_connections": 4 }));
        assert!(text.contains("max_connections = 4 is too small"), "{text}");
        assert!(text.contains("set it to 6 or more"), "{text}");
        let text = finding(serde_json::json!({ "max_connections": 6, "schema_changes": true }));
        assert!(text.contains("set it to 7 or more"), "{text}");
        let stream_only = serde_json::json!({ "max_connections": 4, "snapshot": "never" });
        assert_eq!(source(stream_only).limits_finding(), None);
    }

    #[test]
    fn replicas_need_a_limit() {
        let replicas = serde_json::json!({ "snapshot_replicas": ["mysql://u@r"] });
        let text = source(replicas).limits_finding().expect("a finding");
        assert!(text.contains("set snapshot_pause_replica_lag_seconds"), "{text}");
    }

    #[test]
    fn chunk_is_no_larger_than_a_second_allows() {
        for (rate, expected) in [(0, 50_000), (500, 500), (80_000, 50_000), (1u64 << 40, 50_000)] {
            let source = source(serde_json::json!({ "snapshot_max_rows_per_second": rate }));
            assert_eq!(source.chunk_rows(), expected, "{rate}");
        }
    }
}
