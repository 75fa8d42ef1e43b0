//! What the stream has done to each table whose snapshot is under way, and the chunks that wait for it. Pure.
//!
//! From the moment at which the stream starts to be captured until the table's snapshot is done, every key is
//! remembered that the stream changes. Such a key needs no chunk row: its event and all later ones are in the log. So a
//! row never follows its own newer version, and a row that was inserted while the snapshot ran is in the log once, not
//! as an insert and again as a row of a later chunk. See the argument in `snapshot/mod.rs`.

use std::{
    collections::{HashMap, HashSet},
    io,
    ops::Range,
    path::Path,
};

use schemas::{position::BinlogPlace, row_digest::row_digest};

use super::key_memory::KeyMemory;
use crate::{error::ReaderError, flow::SnapshotChunk, spool::folder_failed};

/// The digest by which a key datum is remembered. 128 bits: two keys that share one are not to be expected.
pub fn key_digest(key: &[u8]) -> u128 {
    row_digest([Some(key)])
}

/// Bytes of held records for one table; beyond it the chunks that were asked for are read again.
const HELD_BYTES_MAX: usize = 32 << 20;

/// An update that lacks columns, of a row that a chunk may bring: written again after the chunk's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUpdate {
    /// The key record.
    pub key: Vec<u8>,
    /// The value record.
    pub value: Vec<u8>,
    /// Its headers.
    pub headers: Vec<u8>,
    /// When the source committed it.
    pub timestamp_ms: i64,
}

/// A table whose snapshot is under way.
#[derive(Debug, Default)]
pub struct Window {
    generation: u64,
    /// Under which number its keys are remembered.
    number: u32,
    /// Whether any key is.
    changed: bool,
    /// Digests of keys that are still to be remembered.
    noted: Vec<u128>,
    /// Chunks that may be taken, by their order: they were asked for, and nothing made them void since.
    asked: HashMap<u64, Asked>,
    /// Updates that lack columns since the first of `asked`, with the digest of their key.
    held: Vec<(u128, HeldUpdate)>,
    held_bytes: usize,
}

#[derive(Debug, Default)]
struct Asked {
    /// The table was emptied since.
    emptied: bool,
    /// How many updates were held then: they are in the chunk's rows.
    held_before: usize,
}

impl HeldUpdate {
    fn size(&self) -> usize {
        self.key.len() + self.value.len() + self.headers.len()
    }
}

impl Window {
    fn hold(&mut self, digest: u128, update: HeldUpdate) {
        self.held_bytes += update.size();
        if self.held_bytes > HELD_BYTES_MAX {
            self.asked.clear();
            self.forget_held();
            return;
        }
        self.held.push((digest, update));
    }

    /// Notes a key that the stream changed; [`Windows::remember`] is to follow.
    pub fn note(&mut self, key: &[u8]) {
        self.noted.push(key_digest(key));
    }

    fn forget_held(&mut self) {
        self.held = Vec::new();
        self.held_bytes = 0;
    }

    /// The held updates of the chunk's rows, in their order.
    fn updates_of(&mut self, chunk: &SnapshotChunk, asked: &Asked) -> Vec<HeldUpdate> {
        let held = self.held.get(asked.held_before..).unwrap_or_default();
        let mut updates = Vec::new();
        if !held.is_empty() {
            let keys: HashSet<u128> =
                chunk.rows.iter().map(|(key, _)| key_digest(&chunk.bytes[key.clone()])).collect();
            let of_rows = held.iter().filter(|(key, _)| keys.contains(key));
            updates.extend(of_rows.map(|(_, update)| update.clone()));
        }
        self.forget_held_before_all();
        updates
    }

    /// Forgets the updates that no chunk needs any more: all are in the rows of each that is still to come.
    fn forget_held_before_all(&mut self) {
        let needed = self.asked.values().map(|asked| asked.held_before).min();
        let Some(first) = needed else { return self.forget_held() };
        let first = first.min(self.held.len());
        let sizes = self.held.drain(..first).map(|(_, update)| update.size());
        self.held_bytes -= sizes.sum::<usize>();
        for asked in self.asked.values_mut() {
            asked.held_before = asked.held_before.saturating_sub(first);
        }
    }
}

/// A chunk to be written now.
#[derive(Debug)]
pub struct ReadyChunk {
    /// Without the rows that the stream has changed.
    pub chunk: SnapshotChunk,
    /// To be written after its rows.
    pub updates: Vec<HeldUpdate>,
}

/// All windows by `database.table`.
#[derive(Debug)]
pub struct Windows {
    open: HashMap<String, Window>,
    waiting: Vec<SnapshotChunk>,
    generations: u64,
    memory: KeyMemory,
    numbers: u32,
}

impl Windows {
    /// No windows. Keys beyond what fits into memory go into files without names in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self {
            open: HashMap::new(),
            waiting: Vec::new(),
            generations: 0,
            memory: KeyMemory::new(folder),
            numbers: 0,
        }
    }

    /// Whether a table's snapshot is under way.
    pub fn any(&self) -> bool {
        !self.open.is_empty()
    }

    /// Opens a table's window.
    pub fn open(&mut self, table: &str) {
        self.close(table);
        self.numbers += 1;
        let (generation, number) = (self.generations, self.numbers);
        self.open.insert(table.to_owned(), Window { generation, number, ..Window::default() });
    }

    /// Opens the window of a table that is to be read from now on; answers the walk's generation.
    pub fn open_now(&mut self, table: &str) -> u64 {
        self.generations += 1;
        self.open(table);
        self.generations
    }

    /// The table's rows became others without events. Answers whether its snapshot was under way: then it begins again,
    /// and what was read is void.
    pub fn begin_again(&mut self, table: &str) -> bool {
        let under_way = self.open.contains_key(table);
        if under_way {
            self.open_now(table);
        }
        under_way
    }

    /// Which walk of the table is under way; `None` when the table is not to be read.
    pub fn generation(&self, table: &str) -> Option<u64> {
        self.open.get(table).map(|window| window.generation)
    }

    /// A chunk of the table's walk is about to be read.
    pub fn ask(&mut self, table: &str, order: u64) {
        let Some(window) = self.open.get_mut(table) else { return };
        let asked = Asked { emptied: false, held_before: window.held.len() };
        if window.asked.insert(order, asked).is_some() {
            self.waiting.retain(|chunk| table_of(chunk) != table || chunk.order != order);
        }
    }

    /// How many chunks of each table are being read or wait.
    pub fn in_flight(&self) -> impl Iterator<Item = (&str, usize)> {
        self.open.iter().map(|(table, window)| (table.as_str(), window.asked.len()))
    }

    /// The table's window; `None` when its snapshot is done, which is the usual case.
    pub fn of(&mut self, table: &str) -> Option<&mut Window> {
        if self.open.is_empty() {
            return None;
        }
        self.open.get_mut(table)
    }

    /// Remembers the keys that were noted for the table.
    pub fn remember(&mut self, table: &str) -> Result<(), ReaderError> {
        let Some(window) = self.of(table) else { return Ok(()) };
        let (number, mut noted) = (window.number, std::mem::take(&mut window.noted));
        window.changed |= !noted.is_empty();
        for digest in noted.drain(..) {
            self.memory.insert(number, digest).map_err(|error| self.memory_failed(&error))?;
        }
        if let Some(window) = self.of(table) {
            // For the next event.
            window.noted = noted;
        }
        Ok(())
    }

    fn memory_failed(&self, error: &io::Error) -> ReaderError {
        folder_failed("the keys that change while tables are read", self.memory.folder(), error)
    }

    /// Holds an update that lacks columns. A chunk's row may be older than it, and must come before it; an update from
    /// before the chunk was asked for is in the chunk's row.
    pub fn hold(&mut self, table: &str, key: &[u8], update: HeldUpdate) -> Result<(), ReaderError> {
        let Some(window) = self.open.get_mut(table).filter(|window| !window.asked.is_empty())
        else {
            return Ok(());
        };
        let digest = key_digest(key);
        match self.memory.contains(window.number, digest) {
            Ok(true) => {}
            Ok(false) => window.hold(digest, update),
            Err(error) => return Err(self.memory_failed(&error)),
        }
        Ok(())
    }

    /// The stream emptied the table: no row of a chunk that was asked for is left, whether it has been read yet
    /// or not. Rows that were inserted since, and may be in the chunk too, come with their own events.
    pub fn empty(&mut self, table: &str) {
        if let Some(window) = self.open.get_mut(table) {
            window.asked.values_mut().for_each(|asked| asked.emptied = true);
        }
    }

    /// The table's snapshot is done, or given up.
    pub fn close(&mut self, table: &str) {
        self.waiting.retain(|chunk| table_of(chunk) != table);
        let Some(window) = self.open.remove(table) else { return };
        if self.open.is_empty() {
            self.memory.clear();
        } else if window.changed {
            self.memory.forget(window.number);
        }
    }

    /// Keeps a chunk until the stream has reached its `high` place.
    pub fn wait(&mut self, chunk: SnapshotChunk) {
        self.waiting.push(chunk);
    }

    /// Takes a chunk whose `high` place the stream has reached, without the rows that the stream has changed. A chunk
    /// that was not asked for is dropped: its reader sees that and reads again.
    pub fn take_ready(&mut self, stream: &BinlogPlace) -> Result<Option<ReadyChunk>, ReaderError> {
        while let Some(at) = self.waiting.iter().position(|chunk| stream.reached(&chunk.high)) {
            // In the order in which they came: one after the other is cheaper for whoever reads the log.
            let mut chunk = self.waiting.remove(at);
            let Some(window) = self.open.get_mut(&table_of(&chunk)) else { continue };
            if window.generation != chunk.generation {
                continue;
            }
            let Some(asked) = window.asked.remove(&chunk.order) else { continue };
            if asked.emptied {
                chunk.rows.clear();
            } else if window.changed {
                let digest = |(key, _): &(Range<usize>, _)| key_digest(&chunk.bytes[key.clone()]);
                let keys: Vec<u128> = chunk.rows.iter().map(digest).collect();
                let changed = self.memory.contained(window.number, &keys);
                let mut changed = changed.map_err(|error| self.memory_failed(&error))?.into_iter();
                chunk.rows.retain(|_| !changed.next().unwrap_or_default());
            }
            let window = self.open.get_mut(&table_of(&chunk));
            let updates = window.map(|window| window.updates_of(&chunk, &asked));
            return Ok(Some(ReadyChunk { chunk, updates: updates.unwrap_or_default() }));
        }
        Ok(None)
    }
}

/// `database.table` of a chunk.
pub fn table_of(chunk: &SnapshotChunk) -> String {
    format!("{}.{}", chunk.schema.id.database, chunk.schema.id.table)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schemas::{position::DoneRange, table_id::TableId, table_schema::TableSchema};
    use tokio::sync::oneshot;

    use super::*;
    use crate::flow::TablePart;

    fn place(offset: u64) -> BinlogPlace {
        BinlogPlace { file: "b.000001".into(), offset }
    }

    /// A chunk of the keys `a` and `b` that holds at 100.
    fn chunk_of(generation: u64, order: u64) -> (SnapshotChunk, oneshot::Receiver<()>) {
        let (committed, answer) = oneshot::channel();
        let chunk = SnapshotChunk {
            schema: Arc::new(TableSchema {
                id: TableId::new("s", "d", "t"),
                columns: Vec::new(),
                key: Vec::new(),
            }),
            bytes: b"ab".to_vec(),
            rows: vec![(0..1, 0..1), (1..2, 1..2)],
            high: place(100),
            order,
            part: TablePart::Range(DoneRange { order, ..DoneRange::default() }),
            generation,
            rows_estimated: 2,
            zero_dates: 0,
            invalid_texts: 0,
            committed,
        };
        (chunk, answer)
    }

    fn chunk() -> SnapshotChunk {
        chunk_of(0, 1).0
    }

    fn windows() -> Windows {
        let mut windows = Windows::new(&std::env::temp_dir());
        windows.open("d.t");
        windows
    }

    fn note(windows: &mut Windows, key: &[u8]) {
        windows.of("d.t").expect("open").note(key);
        windows.remember("d.t").expect("in memory");
    }

    fn take(windows: &mut Windows, offset: u64) -> Option<ReadyChunk> {
        windows.take_ready(&place(offset)).expect("in memory")
    }

    fn rows_taken(windows: &mut Windows) -> Vec<(Range<usize>, Range<usize>)> {
        take(windows, 100).expect("reached").chunk.rows
    }

    #[test]
    fn chunk_waits_for_its_place_and_loses_the_keys_that_the_stream_changed() {
        let mut windows = windows();
        windows.ask("d.t", 1);
        assert_eq!(windows.generation("d.t"), Some(0));
        windows.wait(chunk());
        assert!(take(&mut windows, 99).is_none());
        note(&mut windows, b"a");
        assert_eq!(rows_taken(&mut windows), [(1..2, 1..2)]);
    }

    #[test]
    fn row_inserted_before_its_chunk_was_asked_for_is_not_in_the_log_twice() {
        let mut windows = windows();
        note(&mut windows, b"b");
        windows.ask("d.t", 1);
        windows.wait(chunk());
        assert_eq!(rows_taken(&mut windows), [(0..1, 0..1)]);
    }

    #[test]
    fn several_chunks_of_a_table_are_under_way_at_once() {
        let mut windows = windows();
        windows.ask("d.t", 1);
        windows.ask("d.t", 2);
        windows.wait(chunk_of(0, 2).0);
        note(&mut windows, b"a");
        windows.wait(chunk());
        for order in [2, 1] {
            let ready = take(&mut windows, 100).expect("reached").chunk;
            assert_eq!((ready.order, ready.rows.len()), (order, 1));
        }
    }

    #[test]
    fn emptied_table_leaves_no_row_of_any_chunk_that_was_asked_for() {
        let mut windows = windows();
        windows.ask("d.t", 1);
        windows.ask("d.t", 2);
        windows.empty("d.t");
        windows.ask("d.t", 3);
        for (order, rows) in [(1, 0), (2, 0), (3, 2)] {
            windows.wait(chunk_of(0, order).0);
            assert_eq!(rows_taken(&mut windows).len(), rows);
        }
    }

    #[test]
    fn walk_that_is_to_begin_again_loses_its_chunks_and_has_another_generation() {
        let mut windows = windows();
        windows.ask("d.t", 1);
        windows.ask("d.t", 2);
        note(&mut windows, b"a");
        windows.wait(chunk());
        assert!(windows.begin_again("d.t"));
        windows.wait(chunk_of(0, 2).0);
        assert!(take(&mut windows, 100).is_none(), "read before the rows became others");
        windows.ask("d.t", 1);
        assert_eq!(windows.generation("d.t"), Some(1));
        windows.wait(chunk());
        assert!(take(&mut windows, 100).is_none(), "of the walk before");
        windows.wait(chunk_of(1, 1).0);
        assert_eq!(rows_taken(&mut windows).len(), 2);
        assert!(!windows.begin_again("d.other"));
    }

    #[test]
    fn chunk_that_was_not_asked_for_is_not_taken() {
        let mut windows = windows();
        let (chunk, mut answer) = chunk_of(0, 1);
        windows.wait(chunk);
        assert!(take(&mut windows, 100).is_none());
        assert!(answer.try_recv().is_err(), "the chunk's reader sees that it was dropped");
        windows.close("d.t");
        windows.ask("d.t", 1);
        assert_eq!(windows.generation("d.t"), None);
    }

    #[test]
    fn updates_that_lack_columns_come_after_the_rows_of_chunks_asked_for_before_them() {
        let hold = |windows: &mut Windows, key: &[u8], timestamp_ms| {
            let (value, headers) = (Vec::new(), Vec::new());
            let update = HeldUpdate { key: Vec::new(), value, headers, timestamp_ms };
            windows.hold("d.t", key, update).expect("in memory");
        };
        let mut windows = windows();
        hold(&mut windows, b"a", 0);
        windows.ask("d.t", 1);
        hold(&mut windows, b"a", 1);
        windows.ask("d.t", 2);
        hold(&mut windows, b"c", 2);
        hold(&mut windows, b"b", 3);
        for (order, expected) in [(2, vec![3]), (1, vec![1, 3])] {
            windows.wait(chunk_of(0, order).0);
            let updates = take(&mut windows, 100).expect("reached").updates;
            assert_eq!(updates.iter().map(|u| u.timestamp_ms).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn held_updates_that_no_chunk_needs_any_more_are_forgotten() {
        let mut windows = windows();
        let hold = |windows: &mut Windows, mebibytes: usize| {
            let value = vec![0; mebibytes << 20];
            let (key, headers, timestamp_ms) = (Vec::new(), Vec::new(), 0);
            windows.hold("d.t", b"a", HeldUpdate { key, value, headers, timestamp_ms })
        };
        // One chunk after the other, each asked for before the one in front of it was taken.
        windows.ask("d.t", 0);
        for order in 0..20 {
            hold(&mut windows, 4).expect("in memory");
            windows.ask("d.t", order + 1);
            hold(&mut windows, 4).expect("in memory");
            windows.wait(chunk_of(0, order).0);
            // What was held since: half of the step before, and this one.
            let updates = take(&mut windows, 100).expect("not refused").updates.len();
            assert_eq!(updates, if order == 0 { 2 } else { 3 });
        }
    }

    #[test]
    fn keys_are_forgotten_with_their_window_and_not_with_another() {
        let mut windows = windows();
        windows.open("d.other");
        note(&mut windows, b"a");
        windows.close("d.other");
        windows.ask("d.t", 1);
        windows.wait(chunk());
        assert_eq!(rows_taken(&mut windows), [(1..2, 1..2)]);
        windows.open("d.other");
        windows.open("d.t");
        windows.ask("d.t", 1);
        windows.wait(chunk());
        assert_eq!(rows_taken(&mut windows).len(), 2);
    }
}
