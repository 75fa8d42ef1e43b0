//! The windows of chunks in flight: which keys the stream changed since a chunk's window was opened. Pure.
//!
//! A key that the stream changed after the window opened needs no chunk row: that event and all later ones of the key
//! are in the log behind it. A key that it did not change until the stream reached the chunk's `high` place has in the
//! chunk exactly the row that the stream's place implies. See the argument in `snapshot/mod.rs`.

use std::collections::{HashMap, HashSet};

use schemas::position::BinlogPlace;

use crate::flow::SnapshotChunk;

/// Memory of one window's keys; a window is open for the time of one chunk.
const WINDOW_BYTES_MAX: usize = 64 << 20;
/// What a remembered key takes beside its bytes.
const KEY_OVERHEAD: usize = 48;

/// Open windows by `database.table`, and chunks that wait for the stream.
#[derive(Debug, Default)]
pub struct Windows {
    open: HashMap<String, Window>,
    waiting: Vec<SnapshotChunk>,
}

/// What the stream has done to a table since its window was opened.
#[derive(Debug, Default)]
pub struct Window {
    changed: HashSet<Box<[u8]>>,
    key_bytes: usize,
    emptied: bool,
    overflowed: bool,
}

impl Window {
    /// Notes a key that the stream changed. A window that holds too much is given up: its chunk is read again.
    pub fn note(&mut self, key: &[u8]) {
        if self.overflowed || !self.changed.insert(key.into()) {
            return;
        }
        self.key_bytes += key.len() + KEY_OVERHEAD;
        if self.key_bytes > WINDOW_BYTES_MAX {
            self.overflowed = true;
            self.changed = HashSet::new();
        }
    }
}

impl Windows {
    /// Starts remembering the table's changed keys.
    pub fn open(&mut self, table: &str) {
        self.open.insert(table.to_owned(), Window::default());
    }

    /// The table's window; `None` when none is open, which is the usual case.
    pub fn of(&mut self, table: &str) -> Option<&mut Window> {
        if self.open.is_empty() {
            return None;
        }
        self.open.get_mut(table)
    }

    /// TRUNCATE or DROP emptied the table: no row of an open window's chunk is left, whether it has been read yet or
    /// not. Rows that were inserted since, and may be in the chunk too, come with their own events.
    pub fn empty(&mut self, table: &str) {
        if let Some(window) = self.open.get_mut(table) {
            window.emptied = true;
        }
    }

    /// Keeps a chunk until the stream has reached its `high` place.
    pub fn wait(&mut self, chunk: SnapshotChunk) {
        self.waiting.push(chunk);
    }

    /// Takes a chunk whose `high` place the stream has reached, without the rows that the stream has changed since,
    /// and closes its window. A chunk whose window is gone is dropped: its reader sees that and reads again.
    pub fn take_ready(&mut self, stream: &BinlogPlace) -> Option<SnapshotChunk> {
        loop {
            let at = self.waiting.iter().position(|chunk| stream.reached(&chunk.high))?;
            let mut chunk = self.waiting.swap_remove(at);
            let Some(window) = self.open.remove(&table_of(&chunk)) else { continue };
            if window.overflowed {
                continue;
            }
            if window.emptied {
                chunk.rows.clear();
            } else if !window.changed.is_empty() {
                let bytes = &chunk.bytes;
                chunk.rows.retain(|(key, _)| !window.changed.contains(&bytes[key.clone()]));
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
            keyless: None,
            committed,
        };
        (chunk, answer)
    }

    #[test]
    fn chunk_waits_for_its_place_and_loses_the_keys_that_the_stream_changed() {
        let mut windows = Windows::default();
        windows.open("d.t");
        windows.wait(chunk().0);
        assert!(windows.take_ready(&place(99)).is_none());
        windows.of("d.t").expect("open").note(b"a");
        let ready = windows.take_ready(&place(100)).expect("reached");
        assert_eq!(ready.rows, [(1..2, 1..2)]);
        assert!(windows.of("d.t").is_none());
    }

    #[test]
    fn emptied_table_leaves_no_row_of_the_chunk() {
        let mut windows = Windows::default();
        windows.open("d.t");
        windows.empty("d.t");
        windows.wait(chunk().0);
        assert!(windows.take_ready(&place(100)).expect("reached").rows.is_empty());
    }

    #[test]
    fn chunk_without_a_window_is_not_taken() {
        let mut windows = Windows::default();
        let (chunk, mut answer) = chunk();
        windows.wait(chunk);
        assert!(windows.take_ready(&place(100)).is_none());
        assert!(answer.try_recv().is_err(), "the chunk's reader sees that it was dropped");
    }

    #[test]
    fn window_that_holds_too_much_gives_its_chunk_up() {
        let mut windows = Windows::default();
        windows.open("d.t");
        let window = windows.of("d.t").expect("open");
        let large = vec![0; WINDOW_BYTES_MAX];
        window.note(&large);
        windows.wait(chunk().0);
        assert!(windows.take_ready(&place(100)).is_none());
    }
}
