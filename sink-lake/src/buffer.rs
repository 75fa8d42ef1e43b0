//! A table's decoded changes that wait for their commit, and what the commit needs to know about them.

use std::{collections::BTreeMap, time::Instant};

use crate::flow::{ChangeBatch, PartialRow, RowBatch};

/// Changes since the last commit, in log order.
#[derive(Debug, Default)]
pub struct Buffer {
    /// The changes.
    pub changes: Vec<ChangeBatch>,
    /// Rows in them.
    pub rows: usize,
    /// About how many bytes they hold.
    pub bytes: usize,
    /// Per partition: the offset to go on from once they are committed.
    pub next_offsets: BTreeMap<i32, i64>,
    /// When the oldest came in.
    pub oldest: Option<Instant>,
    /// The log's time stamp of the oldest, in milliseconds since 1970.
    pub oldest_ms: Option<i64>,
}

impl Buffer {
    /// Adds rows.
    pub fn push_rows(&mut self, batch: RowBatch) {
        self.rows += batch.offsets.len();
        self.bytes += batch.bytes;
        self.changes.push(ChangeBatch::Rows(batch));
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.next_offsets.is_empty()
    }
}

/// Drops what a table already contains: rows before `next_offsets`. Another sink may have written them meanwhile.
pub fn drop_committed(buffer: Buffer, committed: &BTreeMap<i32, i64>) -> Buffer {
    let is_new = |partition: i32, offset: i64| {
        committed.get(&partition).is_none_or(|&next_offset| offset >= next_offset)
    };
    let mut kept =
        Buffer { oldest: buffer.oldest, oldest_ms: buffer.oldest_ms, ..Buffer::default() };
    for change in buffer.changes {
        match change {
            ChangeBatch::Truncate { partition, offset } if is_new(partition, offset) => {
                kept.changes.push(ChangeBatch::Truncate { partition, offset });
            }
            ChangeBatch::Truncate { .. } => {}
            ChangeBatch::Rows(batch) => {
                // Offsets rise within a batch.
                let first =
                    batch.offsets.partition_point(|&offset| !is_new(batch.partition, offset));
                if first < batch.offsets.len() {
                    kept.push_rows(rows_from(batch, first));
                }
            }
        }
    }
    kept.next_offsets = buffer
        .next_offsets
        .into_iter()
        .filter(|&(partition, offset)| committed.get(&partition).is_none_or(|&next| offset > next))
        .collect();
    if kept.next_offsets.is_empty() {
        return Buffer::default();
    }
    kept
}

fn rows_from(batch: RowBatch, first: usize) -> RowBatch {
    if first == 0 {
        return batch;
    }
    let left = batch.offsets.len() - first;
    let partial = batch.partial.into_iter().filter(|partial| partial.row >= first);
    let partial = partial.map(|partial| PartialRow { row: partial.row - first, ..partial });
    RowBatch {
        partition: batch.partition,
        rows: batch.rows.slice(first, left),
        operations: batch.operations[first..].to_vec(),
        bytes: batch.bytes / batch.offsets.len().max(1) * left,
        changed_at_us: batch.changed_at_us[first..].to_vec(),
        offsets: batch.offsets[first..].to_vec(),
        partial: partial.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, RecordBatch};

    use super::*;
    use crate::flow::Operation;

    fn batch(partition: i32, offsets: &[i64]) -> RowBatch {
        let ids = Arc::new(Int64Array::from(offsets.to_vec()));
        RowBatch {
            partition,
            rows: RecordBatch::try_from_iter([("id", ids as _)]).expect("one column"),
            operations: vec![Operation::Create; offsets.len()],
            offsets: offsets.to_vec(),
            changed_at_us: vec![0; offsets.len()],
            partial: Vec::new(),
            bytes: 8 * offsets.len(),
        }
    }

    #[test]
    fn a_replay_keeps_only_what_the_table_does_not_have() {
        let mut buffer = Buffer { oldest: Some(Instant::now()), ..Buffer::default() };
        buffer.push_rows(batch(0, &[3, 4, 7]));
        buffer.changes.push(ChangeBatch::Truncate { partition: 0, offset: 5 });
        buffer.push_rows(batch(1, &[0, 1]));
        buffer.next_offsets = BTreeMap::from([(0, 8), (1, 2)]);
        let kept = drop_committed(buffer, &BTreeMap::from([(0, 6)]));
        assert_eq!((kept.rows, kept.changes.len()), (3, 2));
        assert_eq!(kept.next_offsets, BTreeMap::from([(0, 8), (1, 2)]));
        let kept = drop_committed(kept, &BTreeMap::from([(0, 8), (1, 2)]));
        assert!(kept.is_empty() && kept.changes.is_empty());
    }
}
