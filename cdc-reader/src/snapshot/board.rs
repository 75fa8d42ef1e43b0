//! Which parts of which tables are still to be read. Readers take their work here, several of one table when there are
//! more readers than tables.
//!
//! A table is a list of open ranges (see `schemas::position::TableSnapshot`). A reader takes the first of them. Where the
//! range has no end and other readers have nothing to do, it first asks the server where the range's first chunk ends and
//! puts the rest back; else it reads as much as a chunk may have and puts the rest back then. A chunk that the encode
//! thread did not take comes back as a range.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use schemas::{
    position::{OpenRange, TableSnapshot},
    table_id::TableId,
};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::{chunk_plan::is_key_of, request::Request};
use crate::{error::ReaderError, mysql::catalog::CatalogTable};

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often progress is logged.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What a reader is to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Find out what the table is, and enter it.
    Load(TableId, u64),
    /// Read a part of it.
    Read(Part),
}

/// A part of a table, as one reader has it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Which entry of the board.
    entry: u64,
    pub(super) table: Arc<CatalogTable>,
    pub(super) name: Arc<str>,
    pub(super) generation: u64,
    /// The encode thread is to begin the walk again first.
    pub(super) restart: bool,
    pub(super) range: OpenRange,
    /// At most so many rows.
    pub(super) rows: u64,
    /// Others wait for the rest of the range.
    pub(super) split: bool,
}

/// See the module.
pub(super) struct Board {
    state: Mutex<State>,
    news: Notify,
    readers: usize,
    chunk_rows: u64,
    chunk_bytes: u64,
}

#[derive(Default)]
struct State {
    tables: Vec<Table>,
    to_load: VecDeque<(TableId, u64, Instant)>,
    loading: usize,
    entries: u64,
    /// Tables that could not be read.
    failed: Vec<String>,
    /// Tables that were paused, whether they are here already or not.
    paused: HashSet<String>,
}

struct Table {
    entry: u64,
    table: Arc<CatalogTable>,
    name: Arc<str>,
    generation: u64,
    restart: bool,
    paused: bool,
    open: BTreeMap<u64, OpenRange>,
    /// Readers that are at it.
    reading: usize,
    /// Chunks that are not in the log yet.
    uncommitted: usize,
    row_bytes: u64,
    rows: u64,
    pause: Duration,
    not_before: Option<Instant>,
    reported: Instant,
}

impl Table {
    /// Why it cannot be gone on with from where it was, is said by the caller.
    fn begin(&mut self) {
        let whole = TableSnapshot::default().open_ranges();
        self.open = whole.into_iter().map(|range| (range.order, range)).collect();
        (self.uncommitted, self.rows) = (0, 0);
    }

    fn put_off(&mut self, range: OpenRange) {
        self.open.insert(range.order, range);
        self.not_before = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }

    fn is_free(&self, now: Instant) -> bool {
        let alone = self.restart || self.table.schema.key.is_empty();
        let barred = self.paused || alone && self.reading > 0;
        !barred && !self.open.is_empty() && self.not_before.is_none_or(|at| at <= now)
    }

    fn is_done(&self) -> bool {
        self.open.is_empty() && self.reading == 0 && self.uncommitted == 0
    }
}

impl Board {
    pub(super) fn new(
        tables: Vec<CatalogTable>,
        progress: &BTreeMap<String, TableSnapshot>,
        readers: usize,
        chunk_rows: u32,
        chunk_bytes: usize,
    ) -> Self {
        let board = Self {
            state: Mutex::default(),
            news: Notify::new(),
            readers,
            chunk_rows: u64::from(chunk_rows),
            chunk_bytes: chunk_bytes as u64,
        };
        for table in tables {
            let done = progress.get(&table.name()).cloned().unwrap_or_default();
            if !done.done {
                board.add(table, 0, done);
            }
        }
        board
    }

    /// What a reader that panicked left is whole: no change is made in more than one step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a table.
    fn add(&self, table: CatalogTable, generation: u64, mut done: TableSnapshot) {
        let name: Arc<str> = table.name().into();
        let open = done.open_ranges();
        let mut ends = open.iter().flat_map(|range| [&range.after, &range.upto]).flatten();
        let all_fit = ends.all(|key| is_key_of(&table, key));
        drop(ends);
        let shape = done.key_shape.as_ref();
        let restart = !all_fit || shape.is_some_and(|shape| *shape != table.schema.key_shape());
        let rows_estimated = table.rows_estimated();
        let mut state = self.state();
        // Asked for twice, and loaded twice, it is read once.
        if state.tables.iter().any(|other| other.name == name && other.generation == generation) {
            return;
        }
        state.entries += 1;
        let mut entry = Table {
            entry: state.entries,
            row_bytes: table.estimate.row_bytes,
            table: Arc::new(table),
            name: name.clone(),
            generation,
            restart,
            paused: done.paused || state.paused.contains(&*name),
            open: open.into_iter().map(|range| (range.order, range)).collect(),
            reading: 0,
            uncommitted: 0,
            rows: done.rows,
            pause: PAUSE_MIN,
            not_before: None,
            reported: Instant::now(),
        };
        if restart {
            warn!(
                table = &*name,
                "key changed since the snapshot began, reading the table from its start"
            );
            entry.begin();
        }
        info!(table = &*name, rows_estimated, rows = entry.rows, "snapshot of table");
        state.tables.retain(|other| other.name != name);
        state.tables.push(entry);
        // Small tables first: most of a database is there soon.
        state.tables.sort_by_cached_key(|table| (table.table.rows_estimated(), table.name.clone()));
        drop(state);
        self.news.notify_waiters();
    }

    /// Does what is asked of a running snapshot.
    pub(super) fn take(&self, request: Request) {
        let mut state = self.state();
        match request {
            Request::Read { table, generation } => {
                let name = format!("{}.{}", table.database, table.table);
                state.paused.remove(&name);
                state.tables.retain(|table| *table.name != name);
                state.to_load.retain(|(waiting, ..)| *waiting != table);
                state.to_load.push_back((table, generation, Instant::now()));
            }
            Request::Pause(name) => state.set_paused(&name, true),
            Request::Resume(name) => state.set_paused(&name, false),
            Request::Stop(name) => state.tables.retain(|table| *table.name != name),
        }
        drop(state);
        self.news.notify_waiters();
    }

    /// The next thing to do; waits until there is one.
    pub(super) async fn next(&self) -> Job {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            let wait = match self.try_next() {
                Ok(job) => return job,
                Err(wait) => wait,
            };
            tokio::select! {
                () = news => {}
                () = tokio::time::sleep(wait.unwrap_or(PAUSE_MAX)) => {}
            }
        }
    }

    fn try_next(&self) -> Result<Job, Option<Duration>> {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(at) = state.to_load.iter().position(|(_, _, not_before)| *not_before <= now)
            && let Some((table, generation, _)) = state.to_load.remove(at)
        {
            state.loading += 1;
            return Ok(Job::Load(table, generation));
        }
        let free = state.tables.iter().filter(|table| table.is_free(now)).count();
        let best = state
            .tables
            .iter_mut()
            .filter(|table| table.is_free(now))
            .min_by_key(|table| table.reading);
        let Some(table) = best else {
            let until = state.tables.iter().filter_map(|table| table.not_before);
            let until = until.chain(state.to_load.iter().map(|(_, _, not_before)| *not_before));
            return Err(until.min().map(|at| at.saturating_duration_since(now)));
        };
        let Some((_, range)) = table.open.pop_first() else { return Err(None) };
        table.reading += 1;
        table.not_before = None;
        let rows = self.chunk_rows.min(self.chunk_bytes / table.row_bytes.max(1)).max(1);
        let split = range.upto.is_none()
            && !table.table.schema.key.is_empty()
            && !table.restart
            && free < self.readers
            && table.table.rows_estimated() > rows;
        Ok(Job::Read(Part {
            entry: table.entry,
            table: table.table.clone(),
            name: table.name.clone(),
            generation: table.generation,
            restart: table.restart,
            range,
            rows,
            split,
        }))
    }

    /// What is not done of a reader's part is another part.
    pub(super) fn put_back(&self, part: &Part, range: OpenRange) {
        self.with_walk(part, |table| {
            table.open.insert(range.order, range);
        });
    }

    /// As [`Board::put_back`], for later: something came in between.
    pub(super) fn put_off(&self, part: &Part, range: OpenRange) {
        self.with_walk(part, |table| table.put_off(range));
    }

    /// The reader has sent a chunk of the part, with rows of this size.
    pub(super) fn sent(&self, part: &Part, rows: usize, bytes: usize) {
        self.with_walk(part, |table| {
            table.uncommitted += 1;
            if let Some(row_bytes) = bytes.checked_div(rows) {
                table.row_bytes = row_bytes as u64;
            }
        });
    }

    /// The chunk is in the log.
    pub(super) fn committed(&self, part: &Part, rows: u64) {
        self.with_walk(part, |table| {
            table.uncommitted = table.uncommitted.saturating_sub(1);
            table.rows += rows;
            table.pause = PAUSE_MIN;
            if table.reported.elapsed() >= REPORT_INTERVAL {
                table.reported = Instant::now();
                let rows_estimated = table.table.rows_estimated().max(table.rows);
                info!(table = &*table.name, rows = table.rows, rows_estimated, "snapshot progress");
            }
        });
    }

    /// The chunk was not taken.
    pub(super) fn refused(&self, part: &Part, range: OpenRange) {
        self.with_walk(part, |table| {
            warn!(table = &*table.name, "snapshot chunk was not taken, reading it again");
            table.uncommitted = table.uncommitted.saturating_sub(1);
            table.put_off(range);
        });
    }

    /// The reader has nothing more to do with the part.
    pub(super) fn leave(&self, part: &Part) {
        let mut state = self.state();
        if let Some(table) = state.tables.iter_mut().find(|table| table.entry == part.entry) {
            table.reading = table.reading.saturating_sub(1);
        }
        state.remove_done();
        drop(state);
        self.news.notify_waiters();
    }

    /// The encode thread says which walk it is now: another one begins at the first key.
    pub(super) fn set_generation(&self, part: &Part, generation: u64) {
        self.with_walk(part, |table| {
            let by_us = std::mem::take(&mut table.restart);
            table.generation = generation;
            if !by_us {
                info!(table = &*table.name, "reading the table from its start");
            }
            table.begin();
        });
    }

    /// The table was changed; `restart` when what was read of it is not in the order of its key any more.
    pub(super) fn replace(&self, part: &Part, table: CatalogTable, restart: bool) {
        self.with_walk(part, |entry| {
            entry.table = Arc::new(table);
            if restart {
                entry.restart = true;
                entry.begin();
            }
        });
    }

    /// Nothing more of the table is to be read.
    pub(super) fn remove(&self, part: &Part) {
        let mut state = self.state();
        state.tables.retain(|table| table.entry != part.entry);
        drop(state);
        self.news.notify_waiters();
    }

    /// Nothing more of the table can be read; why is said by the caller.
    pub(super) fn fail(&self, part: &Part) {
        self.state().failed.push(part.name.to_string());
        self.remove(part);
    }

    /// The sentence for a reader that was to read everything and could not.
    pub(super) fn all_or_failed(&self, source: &str) -> Result<(), ReaderError> {
        match self.state().failed.join(", ") {
            failed if failed.is_empty() => Ok(()),
            failed => Err(ReaderError::Query {
                place: source.to_owned(),
                reason: format!("not all rows of {failed} could be read; the log says why"),
            }),
        }
    }

    /// Ends a [`Job::Load`].
    pub(super) fn loaded(&self, table: Option<(CatalogTable, u64)>) {
        if let Some((table, generation)) = table {
            self.add(table, generation, TableSnapshot::default());
        }
        self.state().loading -= 1;
        self.news.notify_waiters();
    }

    /// A table that could not be loaded is tried again.
    pub(super) fn load_later(&self, table: TableId, generation: u64) {
        let mut state = self.state();
        state.loading -= 1;
        state.to_load.push_back((table, generation, Instant::now() + Duration::from_secs(1)));
        drop(state);
        self.news.notify_waiters();
    }

    /// Waits until everything is read.
    pub(super) async fn all_read(&self) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if self.state().is_all_read() {
                return;
            }
            news.await;
        }
    }

    /// Waits for work after everything was read.
    pub(super) async fn some_to_read(&self) {
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            news.as_mut().enable();
            if !self.state().is_all_read() {
                return;
            }
            news.await;
        }
    }

    /// Only when the part is still one of its table's present walk.
    fn with_walk(&self, part: &Part, change: impl FnOnce(&mut Table)) {
        let mut state = self.state();
        let table = state.tables.iter_mut().find(|table| table.entry == part.entry);
        if let Some(table) = table.filter(|table| table.generation == part.generation) {
            change(table);
        }
        state.remove_done();
        drop(state);
        self.news.notify_waiters();
    }
}

impl State {
    fn set_paused(&mut self, name: &str, paused: bool) {
        if paused {
            self.paused.insert(name.to_owned());
        } else {
            self.paused.remove(name);
        }
        if let Some(table) = self.tables.iter_mut().find(|table| &*table.name == name) {
            table.paused = paused;
        }
    }

    fn remove_done(&mut self) {
        self.tables.retain(|table| {
            if table.is_done() {
                info!(table = &*table.name, rows = table.rows, "snapshot of table complete");
            }
            !table.is_done()
        });
    }

    fn is_all_read(&self) -> bool {
        self.tables.is_empty() && self.to_load.is_empty() && self.loading == 0
    }
}
