//! What the sink is doing, for programs in the same process: cheap to ask at any time.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use crate::config::Mode;

/// A handle that stays up to date.
#[derive(Clone, Debug, Default)]
pub struct SinkStatus {
    tables: Arc<RwLock<BTreeMap<String, TableStatus>>>,
}

/// One table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableStatus {
    /// Whether it runs.
    pub state: TableState,
    /// How it is kept; `None` until its first record.
    pub mode: Option<Mode>,
    /// Changes of rows that were committed since the sink started.
    pub rows_written: u64,
    /// Commits since the sink started.
    pub commits: u64,
    /// Changes that wait for the next commit.
    pub rows_waiting: u64,
    /// Records that could not be decoded since the sink started.
    pub dead_letters: u64,
    /// Per partition: the offset that the lake's table goes on from.
    pub next_offsets: BTreeMap<i32, i64>,
    /// When the last commit was made, in milliseconds since 1970.
    pub last_commit_ms: Option<i64>,
    /// The log's time stamp of the oldest change that waits, in milliseconds since 1970.
    pub oldest_waiting_ms: Option<i64>,
}

/// Whether a table runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TableState {
    /// It is being opened.
    #[default]
    Opening,
    /// It runs.
    Running,
    /// It stopped; the sentence says why and what to do.
    Stopped(String),
}

impl SinkStatus {
    /// All tables by name, as they are now.
    pub fn tables(&self) -> BTreeMap<String, TableStatus> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes a table's status.
    pub(crate) fn update(&self, table: &str, change: impl FnOnce(&mut TableStatus)) {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        match tables.get_mut(table) {
            Some(status) => change(status),
            None => change(tables.entry(table.to_owned()).or_default()),
        }
    }
}
