//! Tables without a key whose existing rows are still to be read: their events are held until the read view settles
//! which of them it contains (see [`crate::flow::KeylessView`]).

use std::collections::{HashMap, HashSet};

use change_log::EncodedBatch;
use schemas::{gtid_set::GtidSet, position::BinlogPlace};

use crate::{
    binlog::transaction::TransactionStart,
    flow::{KeylessView, SnapshotChunk},
};

/// How many bytes of events are held for one table; beyond it the view is taken anew.
const HELD_BYTES_MAX: usize = 64 << 20;

/// The tables by `database.table`.
#[derive(Debug, Default)]
pub(super) struct KeylessTables {
    tables: HashMap<String, Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    /// A window is open: events are held. Without one they are dropped, for a later view has them as rows.
    open: bool,
    held: EncodedBatch,
    transactions: Vec<HeldTransaction>,
}

#[derive(Debug)]
struct HeldTransaction {
    start: TransactionStart,
    end: BinlogPlace,
    /// Its records end before this index.
    records_end: usize,
}

impl Pending {
    fn clear(&mut self, open: bool) {
        self.open = open;
        self.held.clear();
        self.transactions.clear();
    }
}

impl KeylessTables {
    pub(super) fn new(pending: HashSet<String>) -> Self {
        Self { tables: pending.into_iter().map(|name| (name, Pending::default())).collect() }
    }

    /// A table whose existing rows are to be read from now on.
    pub(super) fn add(&mut self, table: &str) {
        self.tables.insert(table.to_owned(), Pending::default());
    }

    /// Opens a window (or a new one in place of it).
    pub(super) fn open(&mut self, table: &str) {
        if let Some(pending) = self.tables.get_mut(table) {
            pending.clear(true);
        }
    }

    /// Where the table's records go while its snapshot is not done; `None` for every other table.
    pub(super) fn batch(&mut self, table: &str) -> Option<&mut EncodedBatch> {
        if self.tables.is_empty() {
            return None;
        }
        self.tables.get_mut(table).map(|pending| &mut pending.held)
    }

    /// After each rows event: drops what is not to be held, and closes a window that holds too much.
    pub(super) fn limit(&mut self, table: &str) {
        if let Some(pending) = self.tables.get_mut(table)
            && (!pending.open || pending.held.bytes.len() > HELD_BYTES_MAX)
        {
            pending.clear(false);
        }
    }

    /// Notes where a transaction ended.
    pub(super) fn end_transaction(&mut self, start: &TransactionStart, end: &BinlogPlace) {
        for pending in self.tables.values_mut() {
            let known = pending.transactions.last().map_or(0, |last| last.records_end);
            let records_end = pending.held.records.len();
            if records_end > known {
                pending.transactions.push(HeldTransaction {
                    start: start.clone(),
                    end: end.clone(),
                    records_end,
                });
            }
        }
    }

    /// A DDL of the table: an open window is closed, its chunk will not be taken.
    pub(super) fn reset(&mut self, table: &str) {
        if let Some(pending) = self.tables.get_mut(table) {
            pending.clear(false);
        }
    }

    /// The table's existing rows are given up; answers what is held, which the stream has shown since its window opened.
    pub(super) fn give_up(&mut self, table: &str) -> Option<EncodedBatch> {
        let pending = self.tables.remove(table)?;
        (!pending.held.records.is_empty()).then_some(pending.held)
    }

    /// The table is no longer of interest.
    pub(super) fn forget(&mut self, table: &str) {
        self.tables.remove(table);
    }

    /// Whether the table's snapshot is still to be settled.
    pub(super) fn is_pending(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// Divides what is held by the chunk's view. `Some`: the records that the view does not contain; the table is
    /// then an ordinary one. `None`: the view is not exact or its window was closed, so the chunk must not be taken.
    pub(super) fn settle(&mut self, table: &str, chunk: &SnapshotChunk) -> Option<EncodedBatch> {
        let pending = self.tables.get_mut(table)?;
        let Some(view) = &chunk.keyless else {
            // Existing rows are given up: the stream goes on from the window.
            return self.tables.remove(table).map(|pending| pending.held);
        };
        let keep = if pending.open { keep_flags(pending, view, &chunk.high) } else { None };
        let Some(keep) = keep else {
            pending.clear(false);
            return None;
        };
        let mut held = std::mem::take(&mut pending.held);
        let mut flags = keep.into_iter();
        held.records.retain(|_| flags.next().unwrap_or(true));
        self.tables.remove(table);
        Some(held)
    }
}

/// For each held record whether it is kept; `None` when a transaction may or may not be in the view.
fn keep_flags(pending: &Pending, view: &KeylessView, high: &BinlogPlace) -> Option<Vec<bool>> {
    let before: GtidSet = view.executed_before.parse().ok()?;
    let mut flags = Vec::with_capacity(pending.held.records.len());
    for transaction in &pending.transactions {
        let executed = transaction
            .start
            .origin
            .as_ref()
            .is_some_and(|origin| before.contains(origin, transaction.start.number));
        let in_view = executed
            || view.visible_before.as_ref().is_some_and(|before| before.reached(&transaction.end));
        let ends_after = transaction.end != *high && transaction.end.reached(high);
        if !in_view && !ends_after {
            return None;
        }
        flags.resize(transaction.records_end, !in_view);
    }
    Some(flags)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use change_log::{EncodedRecord, TopicHandle};
    use schemas::{gtid_set::Origin, table_id::TableId, table_schema::TableSchema};

    use super::*;
    use crate::flow::TablePart;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn place(offset: u64) -> BinlogPlace {
        BinlogPlace { file: "b.000001".into(), offset }
    }

    fn hold(tables: &mut KeylessTables, number: u64, end: u64) {
        let record = EncodedRecord {
            topic: TopicHandle(0),
            key: None,
            value: Some(0..1),
            headers: 0..0,
            timestamp_ms: number as i64,
        };
        tables.batch("d.t").expect("pending").records.push(record);
        let origin = Origin { uuid: UUID.into(), tag: String::new() };
        let start =
            TransactionStart { origin: Some(origin), number, ..TransactionStart::default() };
        tables.end_transaction(&start, &place(end));
    }

    fn chunk(executed: &str, high: u64) -> SnapshotChunk {
        let id = TableId::new("s", "d", "t");
        SnapshotChunk {
            schema: Arc::new(TableSchema { id, columns: Vec::new(), key: Vec::new() }),
            bytes: Vec::new(),
            rows: Vec::new(),
            high: place(high),
            order: 0,
            part: TablePart::Rest,
            generation: 0,
            rows_estimated: 0,
            zero_dates: 0,
            invalid_texts: 0,
            keyless: Some(KeylessView { executed_before: executed.into(), visible_before: None }),
            committed: tokio::sync::oneshot::channel().0,
        }
    }

    fn tables() -> KeylessTables {
        let mut tables = KeylessTables::new(HashSet::from(["d.t".to_owned()]));
        tables.open("d.t");
        tables
    }

    #[test]
    fn transactions_of_the_view_are_dropped_and_later_ones_kept() {
        let mut tables = tables();
        hold(&mut tables, 1, 100);
        hold(&mut tables, 2, 200);
        let kept = tables.settle("d.t", &chunk(&format!("{UUID}:1"), 150)).expect("exact");
        assert_eq!(kept.records.iter().map(|r| r.timestamp_ms).collect::<Vec<_>>(), [2]);
        assert!(!tables.is_pending("d.t"));
    }

    #[test]
    fn a_transaction_that_may_be_in_the_view_makes_it_inexact() {
        let mut tables = tables();
        hold(&mut tables, 2, 150);
        assert!(tables.settle("d.t", &chunk(&format!("{UUID}:1"), 150)).is_none());
        assert!(tables.is_pending("d.t"));
    }

    #[test]
    fn without_gtids_the_place_tells_what_is_in_the_view() {
        let mut tables = tables();
        hold(&mut tables, 1, 100);
        hold(&mut tables, 2, 200);
        let mut chunk = chunk("", 150);
        chunk.keyless =
            Some(KeylessView { visible_before: Some(place(100)), ..KeylessView::default() });
        let kept = tables.settle("d.t", &chunk).expect("exact");
        assert_eq!(kept.records.iter().map(|r| r.timestamp_ms).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_closed_window_takes_no_chunk() {
        let mut tables = tables();
        tables.reset("d.t");
        assert!(tables.settle("d.t", &chunk("", 150)).is_none());
    }
}
