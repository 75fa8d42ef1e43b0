//! What the stream has done to each table whose snapshot is under way, and the chunks that wait for it. Pure.
//!
//! From the moment at which the stream starts to be captured until the table's snapshot is done, every key is
//! remembered that the stream changes. Such a key needs no chunk row: its event and all later ones are in the log. So a
//! row never follows its own newer version, and a row that was inserted while the snapshot ran is in the log once, not
//! as an insert and again as a row of a later chunk. See the argument in `snapshot/mod.rs`.

use std::collections::{HashMap, HashSet};

use schemas::{position::BinlogPlace, row_digest::row_digest};

use crate::flow::SnapshotChunk;

/// Keys remembered for all tables together, 16 bytes and the set's own overhead each: about 100 MB.
const KEYS_MAX: usize = 2_000_000;

/// The digest by which a key datum is remembered. 128 bits: two keys that share one are not to be expected.
pub fn key_digest(key: &[u8]) -> u128 {
    row_digest([Some(key)])
}

/// Bytes of held records for one chunk; beyond it the chunk is read again.
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
    changed: HashSet<u128>,
    /// A chunk may be taken: it was asked for, and nothing made it void since.
    chunk_asked: bool,
    emptied: bool,
    /// Keys from before the last `ask` were forgotten for lack of memory.
    forgetful: bool,
    /// The table's rows became others: its reader is to begin at the first key again.
    from_start: bool,
    /// Updates that lack columns since the chunk was asked for, by the digest of their key.
    held: Vec<(u128, HeldUpdate)>,
    held_bytes: usize,
}

impl Window {
    /// Holds an update that lacks columns. The chunk's row may be older than it, and must come before it; an update from
    /// before the chunk was asked for is in the chunk's row.
    pub fn hold(&mut self, key: &[u8], update: HeldUpdate) {
        let digest = key_digest(key);
        if !self.chunk_asked || self.changed.contains(&digest) {
            return;
        }
        self.held_bytes += update.key.len() + update.value.len() + update.headers.len();
        if self.held_bytes > HELD_BYTES_MAX {
            self.chunk_asked = false;
            self.held = Vec::new();
            return;
        }
        self.held.push((digest, update));
    }

    /// Notes a key that the stream changed.
    pub fn note(&mut self, key: &[u8]) {
        if self.changed.len() >= KEYS_MAX {
            // Nobody asks for chunks of a table that cannot be read; one that was asked for is read again.
            self.changed = HashSet::new();
            self.chunk_asked = false;
            self.forgetful = true;
        }
        self.changed.insert(key_digest(key));
    }
}

/// All windows by `database.table`.
#[derive(Debug, Default)]
pub struct Windows {
    open: HashMap<String, Window>,
    waiting: Vec<SnapshotChunk>,
    keys: usize,
}

impl Windows {
    /// Opens a table's window with the keys that the log shows as changed since its snapshot began.
    pub fn open(&mut self, table: &str, changed: HashSet<u128>) {
        self.keys += changed.len();
        self.open.insert(table.to_owned(), Window { changed, ..Window::default() });
    }

    /// The table's rows became others without events. Answers whether its snapshot was under way: then it begins again,
    /// and what was read is void.
    pub fn begin_again(&mut self, table: &str) -> bool {
        let Some(window) = self.open.get_mut(table) else { return false };
        *window = Window { from_start: true, ..Window::default() };
        self.waiting.retain(|chunk| table_of(chunk) != table);
        self.recount();
        true
    }

    /// A chunk of the table is about to be read. What was asked for before is void. Answers whether the table is to be
    /// read from its start.
    pub fn ask(&mut self, table: &str) -> bool {
        let window = self.open.entry(table.to_owned()).or_default();
        if self.keys > KEYS_MAX || window.forgetful {
            if !window.forgetful {
                tracing::warn!(
                    table,
                    "so many rows change while they are read for the first time that rows inserted meanwhile can be \
                     in a history table twice; tables kept as state are not affected"
                );
            }
            // From here on only the chunk itself is protected, which keeps every state right.
            self.keys = self.keys.saturating_sub(window.changed.len());
            window.changed = HashSet::new();
            window.forgetful = true;
        }
        window.chunk_asked = true;
        window.held.clear();
        window.held_bytes = 0;
        window.emptied = false;
        let from_start = std::mem::take(&mut window.from_start);
        self.waiting.retain(|chunk| table_of(chunk) != table);
        from_start
    }

    /// The table's window; `None` when its snapshot is done, which is the usual case.
    pub fn of(&mut self, table: &str) -> Option<&mut Window> {
        if self.open.is_empty() {
            return None;
        }
        self.open.get_mut(table)
    }

    /// Counts the keys again after some were noted.
    pub fn recount(&mut self) {
        self.keys = self.open.values().map(|window| window.changed.len()).sum();
    }

    /// TRUNCATE or DROP emptied the table: no row of the chunk that was asked for is left, whether it has been read yet
    /// or not. Rows that were inserted since, and may be in the chunk too, come with their own events.
    pub fn empty(&mut self, table: &str) {
        if let Some(window) = self.open.get_mut(table) {
            window.emptied = true;
        }
    }

    /// The table's snapshot is done, or given up.
    pub fn close(&mut self, table: &str) {
        self.open.remove(table);
        self.recount();
    }

    /// The held updates of a chunk's rows, in their order.
    pub fn held_updates(&mut self, chunk: &SnapshotChunk) -> Vec<HeldUpdate> {
        let Some(window) = self.open.get_mut(&table_of(chunk)) else { return Vec::new() };
        let held = std::mem::take(&mut window.held);
        if held.is_empty() {
            return Vec::new();
        }
        let keys: HashSet<u128> =
            chunk.rows.iter().map(|(key, _)| key_digest(&chunk.bytes[key.clone()])).collect();
        held.into_iter().filter(|(key, _)| keys.contains(key)).map(|(_, held)| held).collect()
    }

    /// Keeps a chunk until the stream has reached its `high` place.
    pub fn wait(&mut self, chunk: SnapshotChunk) {
        self.waiting.push(chunk);
    }

    /// Takes a chunk whose `high` place the stream has reached, without the rows that the stream has changed. A chunk
    /// that was not asked for is dropped: its reader sees that and reads again.
    pub fn take_ready(&mut self, stream: &BinlogPlace) -> Option<SnapshotChunk> {
        loop {
            let at = self.waiting.iter().position(|chunk| stream.reached(&chunk.high))?;
            let mut chunk = self.waiting.swap_remove(at);
            let Some(window) = self.open.get_mut(&table_of(&chunk)) else { continue };
            if !std::mem::take(&mut window.chunk_asked) {
                continue;
            }
            if window.emptied {
                chunk.rows.clear();
            } else if !window.changed.is_empty() {
                let bytes = &chunk.bytes;
                chunk
                    .rows
                    .retain(|(key, _)| !window.changed.contains(&key_digest(&bytes[key.clone()])));
            }
            return Some(chunk);
        }
    }
}

/// `database.table` of a chunk.
pub fn table_of(chunk: &SnapshotChunk) -> String {
    format!("{}.{}", chunk.schema.id.database, chunk.schema.id.table)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schemas::{table_id::TableId, table_schema::TableSchema};
    use tokio::sync::oneshot;

    use super::*;

    fn place(offset: u64) -> BinlogPlace {
        BinlogPlace { file: "b.000001".into(), offset }
    }

    /// A chunk of the keys `a` and `b` that holds at 100.
    fn chunk() -> (SnapshotChunk, oneshot::Receiver<()>) {
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
            last_key: None,
            last: false,
            rows_estimated: 2,
            zero_dates: 0,
            invalid_texts: 0,
            keyless: None,
            committed,
        };
        (chunk, answer)
    }

    fn windows() -> Windows {
        let mut windows = Windows::default();
        windows.open("d.t", HashSet::new());
        windows
    }

    #[test]
    fn chunk_waits_for_its_place_and_loses_the_keys_that_the_stream_changed() {
        let mut windows = windows();
        windows.ask("d.t");
        windows.wait(chunk().0);
        assert!(windows.take_ready(&place(99)).is_none());
        windows.of("d.t").expect("open").note(b"a");
        let ready = windows.take_ready(&place(100)).expect("reached");
        assert_eq!(ready.rows, [(1..2, 1..2)]);
    }

    #[test]
    fn row_inserted_before_its_chunk_was_asked_for_is_not_in_the_log_twice() {
        let mut windows = windows();
        windows.of("d.t").expect("open").note(b"b");
        windows.ask("d.t");
        windows.wait(chunk().0);
        assert_eq!(windows.take_ready(&place(100)).expect("reached").rows, [(0..1, 0..1)]);
    }

    #[test]
    fn keys_that_the_log_shows_are_as_if_the_stream_had_just_changed_them() {
        let mut windows = Windows::default();
        windows.open("d.t", HashSet::from([key_digest(b"a")]));
        windows.ask("d.t");
        windows.wait(chunk().0);
        assert_eq!(windows.take_ready(&place(100)).expect("reached").rows, [(1..2, 1..2)]);
    }

    #[test]
    fn emptied_table_leaves_no_row_of_the_chunk() {
        let mut windows = windows();
        windows.ask("d.t");
        windows.empty("d.t");
        windows.wait(chunk().0);
        assert!(windows.take_ready(&place(100)).expect("reached").rows.is_empty());
    }

    #[test]
    fn walk_that_is_to_begin_again_loses_its_chunk_and_is_told_once() {
        let mut windows = windows();
        assert!(!windows.ask("d.t"));
        windows.of("d.t").expect("open").note(b"a");
        windows.wait(chunk().0);
        assert!(windows.begin_again("d.t"));
        assert!(windows.take_ready(&place(100)).is_none(), "read before the rows became others");
        assert!(windows.ask("d.t") && !windows.ask("d.t"));
        windows.wait(chunk().0);
        assert_eq!(windows.take_ready(&place(100)).expect("reached").rows.len(), 2);
        assert!(!windows.begin_again("d.other"));
    }

    #[test]
    fn chunk_that_was_not_asked_for_is_not_taken() {
        let mut windows = windows();
        let (chunk, mut answer) = chunk();
        windows.wait(chunk);
        assert!(windows.take_ready(&place(100)).is_none());
        assert!(answer.try_recv().is_err(), "the chunk's reader sees that it was dropped");
    }

    #[test]
    fn without_memory_for_all_keys_the_chunk_itself_stays_protected() {
        let mut windows = windows();
        windows.of("d.t").expect("open").note(b"a");
        windows.keys = KEYS_MAX + 1;
        windows.ask("d.t");
        windows.of("d.t").expect("open").note(b"b");
        windows.wait(chunk().0);
        assert_eq!(windows.take_ready(&place(100)).expect("reached").rows, [(0..1, 0..1)]);
    }
}
