//! Tables without a key whose existing rows are still to be read: their events are held until the read view settles
//! which of them it contains (see [`crate::flow::KeylessView`]), and from then on until the view's rows are written.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use change_log::EncodedBatch;
use schemas::{gtid_set::GtidSet, position::BinlogPlace};
use tokio::sync::oneshot;

use super::held_records::HeldRecords;
use crate::{
    binlog::transaction::TransactionStart,
    error::ReaderError,
    flow::{KeylessView, ViewFit, ViewRequest},
    spool::folder,
};

/// Transactions of one table from the opening of its window until its view is told, which takes moments; beyond it the
/// view is taken anew.
const TRANSACTIONS_MAX: usize = 100_000;

/// The tables by `database.table`.
#[derive(Debug)]
pub(super) struct KeylessTables {
    folder: PathBuf,
    tables: HashMap<String, Pending>,
}

#[derive(Debug)]
struct Pending {
    stage: Stage,
    held: HeldRecords,
    /// How many records are held of transactions that have ended.
    ended: u64,
}

#[derive(Debug)]
enum Stage {
    /// Events are dropped, for a later view has them as rows.
    Closed,
    /// A window is open; what the view contains is not known yet.
    Open(Vec<HeldTransaction>),
    /// The view is known; the stream has not reached its `high` place.
    Viewing { view: KeylessView, before: GtidSet, answer: oneshot::Sender<ViewFit> },
    /// What is held is what the view does not contain.
    Settled,
}

#[derive(Debug)]
struct HeldTransaction {
    start: TransactionStart,
    end: BinlogPlace,
    /// Its records end before this number.
    ended: u64,
}

/// Where a transaction is.
enum Side {
    InView,
    AfterView,
    /// It may or may not be in the view.
    InDoubt,
}

impl Pending {
    fn new(table: &str, folder: &Path) -> Self {
        Self { stage: Stage::Closed, held: HeldRecords::new(table, folder), ended: 0 }
    }

    fn begin(&mut self, stage: Stage) {
        self.stage = stage;
        self.held.clear();
        self.ended = 0;
    }

    fn end_transaction(&mut self, start: &TransactionStart, end: &BinlogPlace) {
        let (first, ended) = (self.ended, self.held.len());
        if ended == first {
            return;
        }
        self.ended = ended;
        let side = match &mut self.stage {
            Stage::Closed => {
                self.begin(Stage::Closed);
                return;
            }
            Stage::Open(transactions) if transactions.len() < TRANSACTIONS_MAX => {
                transactions.push(HeldTransaction {
                    start: start.clone(),
                    end: end.clone(),
                    ended,
                });
                return;
            }
            Stage::Open(_) => Side::InDoubt,
            Stage::Viewing { view, before, .. } => side(view, before, start, end),
            Stage::Settled => return,
        };
        match side {
            Side::AfterView => {}
            Side::InView => {
                self.held.leave_out(first..ended);
                self.ended = self.held.len();
            }
            Side::InDoubt => self.refuse(),
        }
    }

    fn view(&mut self, request: ViewRequest) {
        let ViewRequest { view, fit: answer, .. } = request;
        let Stage::Open(transactions) = std::mem::replace(&mut self.stage, Stage::Closed) else {
            // The answer is dropped: the reader begins anew.
            self.begin(Stage::Closed);
            return;
        };
        let before = view.executed_before.parse().unwrap_or_default();
        self.stage = Stage::Viewing { view, before, answer };
        let mut first = 0;
        for transaction in transactions {
            let Stage::Viewing { view, before, .. } = &self.stage else { return };
            match side(view, before, &transaction.start, &transaction.end) {
                Side::AfterView => {}
                Side::InView => self.held.leave_out(first..transaction.ended),
                Side::InDoubt => return self.refuse(),
            }
            first = transaction.ended;
        }
        self.ended = self.ended.min(self.held.len());
    }

    /// The view is not exact: everything begins anew.
    fn refuse(&mut self) {
        if let Stage::Viewing { answer, .. } = std::mem::replace(&mut self.stage, Stage::Closed) {
            let _ = answer.send(ViewFit::InDoubt);
        }
        self.begin(Stage::Closed);
    }

    fn reach(&mut self, place: &BinlogPlace) {
        if let Stage::Viewing { view, .. } = &self.stage
            && place.reached(&view.high)
            && let Stage::Viewing { answer, .. } =
                std::mem::replace(&mut self.stage, Stage::Settled)
        {
            let _ = answer.send(ViewFit::Exact);
        }
    }
}

impl KeylessTables {
    pub(super) fn new(pending: HashSet<String>) -> Self {
        let mut tables = Self { folder: folder(), tables: HashMap::new() };
        pending.iter().for_each(|table| tables.add(table));
        tables
    }

    /// A table whose existing rows are to be read from now on.
    pub(super) fn add(&mut self, table: &str) {
        self.tables.insert(table.to_owned(), Pending::new(table, &self.folder));
    }

    /// Opens a window (or a new one in place of it).
    pub(super) fn open(&mut self, table: &str) {
        if let Some(pending) = self.tables.get_mut(table) {
            pending.begin(Stage::Open(Vec::new()));
        }
    }

    /// Takes what the table's view contains, and answers as soon as it can be said whether every event is on one side
    /// of it.
    pub(super) fn view(&mut self, request: ViewRequest) {
        match self.tables.get_mut(&request.table) {
            Some(pending) => pending.view(request),
            None => {
                let _ = request.fit.send(ViewFit::Unwanted);
            }
        }
    }

    /// The stream stands between two transactions at this place.
    pub(super) fn reach(&mut self, place: &BinlogPlace) {
        self.tables.values_mut().for_each(|pending| pending.reach(place));
    }

    /// Where the table's records go while its snapshot is not done; `None` for every other table.
    pub(super) fn batch(&mut self, table: &str) -> Option<&mut EncodedBatch> {
        if self.tables.is_empty() {
            return None;
        }
        self.tables.get_mut(table).map(|pending| &mut pending.held.batch)
    }

    /// After each rows event: drops what is not to be held, and keeps much of it in a file.
    pub(super) fn limit(&mut self, table: &str) -> Result<(), ReaderError> {
        let Some(pending) = self.tables.get_mut(table) else { return Ok(()) };
        if matches!(pending.stage, Stage::Closed) {
            pending.begin(Stage::Closed);
        }
        pending.held.spill_if_full()
    }

    /// Notes where a transaction ended.
    pub(super) fn end_transaction(&mut self, start: &TransactionStart, end: &BinlogPlace) {
        self.tables.values_mut().for_each(|pending| pending.end_transaction(start, end));
    }

    /// A DDL of the table: an open window is closed, its view will not do.
    pub(super) fn reset(&mut self, table: &str) {
        if let Some(pending) = self.tables.get_mut(table) {
            pending.refuse();
        }
    }

    /// The table is no longer of interest.
    pub(super) fn forget(&mut self, table: &str) {
        if let Some(Pending { stage: Stage::Viewing { answer, .. }, .. }) =
            self.tables.remove(table)
        {
            let _ = answer.send(ViewFit::Unwanted);
        }
    }

    /// Whether the table's snapshot is still to be settled.
    pub(super) fn is_pending(&self, table: &str) -> bool {
        self.tables.contains_key(table)
    }

    /// The rows of the table's view are at hand: the records that come after them. The table is an ordinary one from
    /// then on. `None` when the view was not exact, or something came in between.
    pub(super) fn take_settled(&mut self, table: &str) -> Option<HeldRecords> {
        let pending = self.tables.get(table)?;
        if !matches!(pending.stage, Stage::Settled) {
            return None;
        }
        self.tables.remove(table).map(|pending| pending.held)
    }

    /// The table's existing rows are given up: the stream goes on from the window.
    pub(super) fn give_up(&mut self, table: &str) -> Option<HeldRecords> {
        self.tables.remove(table).map(|pending| pending.held)
    }
}

fn side(view: &KeylessView, before: &GtidSet, start: &TransactionStart, end: &BinlogPlace) -> Side {
    let executed =
        start.origin.as_ref().is_some_and(|origin| before.contains(origin, start.number));
    if executed || view.visible_before.as_ref().is_some_and(|before| before.reached(end)) {
        return Side::InView;
    }
    if *end != view.high && end.reached(&view.high) { Side::AfterView } else { Side::InDoubt }
}

#[cfg(test)]
mod tests {
    use change_log::{EncodedRecord, TopicHandle};
    use proptest::prelude::*;
    use schemas::gtid_set::Origin;

    use super::*;
    use crate::capture::held_records::MEMORY_MAX;

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn place(offset: u64) -> BinlogPlace {
        BinlogPlace { file: "b.000001".into(), offset }
    }

    /// A record whose value is its transaction's number and some filling.
    fn hold_record(tables: &mut KeylessTables, number: u64, filling: usize) {
        let batch = tables.batch("d.t").expect("pending");
        let start = batch.bytes.len();
        batch.bytes.extend_from_slice(&number.to_le_bytes());
        batch.bytes.resize(start + 8 + filling + 1, 7);
        let end = batch.bytes.len();
        batch.records.push(EncodedRecord {
            topic: TopicHandle(3),
            key: None,
            value: Some(start..end - 1),
            headers: end - 1..end,
            timestamp_ms: number as i64,
        });
        tables.limit("d.t").expect("room");
    }

    fn end(tables: &mut KeylessTables, number: u64, end: u64) {
        let origin = Origin { uuid: UUID.into(), tag: String::new() };
        let start =
            TransactionStart { origin: Some(origin), number, ..TransactionStart::default() };
        tables.end_transaction(&start, &place(end));
        tables.reach(&place(end));
    }

    fn hold(tables: &mut KeylessTables, number: u64, at: u64) {
        hold_record(tables, number, 10);
        end(tables, number, at);
    }

    fn view(tables: &mut KeylessTables, executed: &str, high: u64) -> oneshot::Receiver<ViewFit> {
        let (fit, answer) = oneshot::channel();
        let view = KeylessView {
            executed_before: executed.into(),
            visible_before: None,
            high: place(high),
        };
        tables.view(ViewRequest { table: "d.t".into(), view, fit });
        answer
    }

    fn kept(tables: &mut KeylessTables) -> Vec<u64> {
        let held = tables.take_settled("d.t").expect("settled");
        let mut records = held.into_records().expect("read");
        let mut numbers = Vec::new();
        while let Some(batch) = records.next().expect("read") {
            for record in &batch.records {
                let value = &batch.bytes[record.value.clone().expect("a value")];
                let number = u64::from_le_bytes(*value.first_chunk().expect("eight bytes"));
                assert_eq!((record.timestamp_ms as u64, record.topic), (number, TopicHandle(3)));
                assert_eq!(
                    (&batch.bytes[record.headers.clone()], &record.key),
                    (&[7u8][..], &None)
                );
                numbers.push(number);
            }
        }
        numbers
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
        let mut answer = view(&mut tables, &format!("{UUID}:1"), 150);
        assert!(
            answer.try_recv().is_err(),
            "the stream is asked for its place between transactions"
        );
        tables.reach(&place(200));
        assert_eq!(answer.try_recv(), Ok(ViewFit::Exact));
        hold(&mut tables, 3, 300);
        assert_eq!(kept(&mut tables), [2, 3]);
        assert!(!tables.is_pending("d.t"));
    }

    #[test]
    fn transactions_that_come_after_the_view_is_told_are_divided_too() {
        let mut tables = tables();
        let mut answer = view(&mut tables, &format!("{UUID}:1-2"), 250);
        hold(&mut tables, 1, 100);
        hold(&mut tables, 2, 200);
        assert!(answer.try_recv().is_err(), "it is not at the end of the view");
        assert_eq!(tables.tables["d.t"].held.len(), 0, "nothing is kept of what the view has");
        hold(&mut tables, 3, 300);
        assert_eq!(answer.try_recv(), Ok(ViewFit::Exact));
        assert_eq!(kept(&mut tables), [3]);
    }

    #[test]
    fn a_transaction_that_may_be_in_the_view_makes_it_inexact() {
        for told_first in [false, true] {
            let mut tables = tables();
            let mut answer = told_first.then(|| view(&mut tables, &format!("{UUID}:1"), 150));
            hold(&mut tables, 2, 150);
            let mut answer =
                answer.take().unwrap_or_else(|| view(&mut tables, &format!("{UUID}:1"), 150));
            assert_eq!(answer.try_recv(), Ok(ViewFit::InDoubt));
            assert!(tables.take_settled("d.t").is_none());
            assert!(tables.is_pending("d.t"));
        }
    }

    #[test]
    fn without_gtids_the_place_tells_what_is_in_the_view() {
        let mut tables = tables();
        hold(&mut tables, 1, 100);
        hold(&mut tables, 2, 200);
        let (fit, mut answer) = oneshot::channel();
        let view = KeylessView {
            visible_before: Some(place(100)),
            high: place(150),
            ..KeylessView::default()
        };
        tables.view(ViewRequest { table: "d.t".into(), view, fit });
        tables.reach(&place(200));
        assert_eq!(answer.try_recv(), Ok(ViewFit::Exact));
        assert_eq!(kept(&mut tables), [2]);
    }

    #[test]
    fn ddl_makes_a_view_void_at_every_stage() {
        let mut tables = tables();
        tables.reset("d.t");
        let mut answer = view(&mut tables, "", 150);
        assert!(answer.try_recv().is_err_and(|e| e == oneshot::error::TryRecvError::Closed));
        tables.open("d.t");
        let mut answer = view(&mut tables, "", 150);
        tables.reset("d.t");
        assert_eq!(answer.try_recv(), Ok(ViewFit::InDoubt));
        tables.open("d.t");
        let mut answer = view(&mut tables, "", 150);
        tables.reach(&place(150));
        assert_eq!(answer.try_recv(), Ok(ViewFit::Exact));
        tables.reset("d.t");
        assert!(tables.take_settled("d.t").is_none());
        tables.forget("d.t");
        assert_eq!(view(&mut tables, "", 1).try_recv(), Ok(ViewFit::Unwanted));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn held_records_come_out_in_order_without_those_of_the_view(
            sizes in prop::collection::vec((1usize..40, 0usize..90_000), 1..60),
            in_view in 0usize..60,
            told_at in 0usize..60,
        ) {
            let mut tables = tables();
            let in_view = in_view.min(sizes.len());
            let mut answer = None;
            for (i, &(records, filling)) in sizes.iter().enumerate() {
                if i == told_at {
                    let high = in_view as u64 * 10 + 5;
                    answer = Some(view(&mut tables, &format!("{UUID}:1-{}", in_view.max(1)), high));
                }
                let number = i as u64 + 1;
                for record in 0..records {
                    hold_record(&mut tables, number, filling / (record + 1));
                }
                prop_assert!(tables.tables["d.t"].held.batch.bytes.len() < MEMORY_MAX);
                end(&mut tables, number, number * 10);
            }
            let in_view = in_view.max(1);
            let mut answer = answer.unwrap_or_else(|| {
                view(&mut tables, &format!("{UUID}:1-{in_view}"), in_view as u64 * 10 + 5)
            });
            tables.reach(&place(100_000));
            prop_assert_eq!(answer.try_recv(), Ok(ViewFit::Exact));
            let all = sizes.iter().enumerate();
            let expected: Vec<u64> = all
                .skip(in_view)
                .flat_map(|(i, &(records, _))| std::iter::repeat_n(i as u64 + 1, records))
                .collect();
            prop_assert_eq!(kept(&mut tables), expected);
        }
    }
}
