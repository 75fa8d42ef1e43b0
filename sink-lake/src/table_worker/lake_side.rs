//! A worker's Delta table with what it remembers of it: made with the first rows, opened again after a conflict.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use schemas::table_id::TableId;
use tracing::{info, warn};

use crate::{
    config::Mode,
    delta::{
        commit::{CommitOutcome, CommitRequest, Content, commit},
        data_file::{DataFile, StagedFile, discard},
        maintenance::{RETENTION, tidy},
        table::{Table, TableSpec, has_log, table_folder},
    },
    error::{SinkError, with_causes},
    modes::{
        history::{self, HistoryTable},
        state::StateTable,
    },
};

const TIDY_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// The lake's side of a worker.
pub struct LakeSide {
    folder: PathBuf,
    topic: String,
    open: Option<OpenTable>,
    next_offsets: BTreeMap<i32, i64>,
    tidied_at: Instant,
}

/// An open table and where its rows are.
pub struct OpenTable {
    /// The table.
    pub table: Table,
    /// Where its rows are.
    pub contents: Contents,
}

/// Where a table's rows are.
#[derive(Debug)]
pub enum Contents {
    /// Of a state table.
    State(StateTable),
    /// Of a history table.
    History(HistoryTable),
}

impl LakeSide {
    /// Nothing is opened yet.
    pub fn new(lake: &Path, table: &TableId, topic: &str) -> Self {
        Self {
            folder: table_folder(lake, table),
            topic: topic.to_owned(),
            open: None,
            next_offsets: BTreeMap::new(),
            tidied_at: Instant::now(),
        }
    }

    /// Opens the table anew, if there is one: its newest version, its offsets and its keys.
    pub async fn open(&mut self) -> Result<(), SinkError> {
        self.open = None;
        let Some(table) = Table::open(&self.folder).await? else { return Ok(()) };
        if table.topic() != self.topic {
            return Err(SinkError::Unfit {
                table: self.folder.display().to_string(),
                reason: format!(
                    "it is filled from topic {}, not from {}; move the folder away",
                    table.topic(),
                    self.topic
                ),
            });
        }
        self.next_offsets = table.next_offsets().await?;
        let files = table.files()?;
        let contents = match table.mode {
            Mode::History => Contents::History(HistoryTable::load(files)),
            Mode::State => Contents::State(load_state(&table, files).await?),
        };
        self.open = Some(OpenTable { table, contents });
        Ok(())
    }

    /// Makes the table, or opens the one that somebody else has just made.
    pub async fn create(&mut self, mode: Mode, spec: TableSpec) -> Result<(), SinkError> {
        match Table::create(&self.folder, &spec).await {
            Ok(_) => {
                info!(table = %self.folder.display(), mode = mode.name(), "made the delta table");
                // Another sink may have found it at once and written rows: what is remembered must be of the version that
                // is committed against.
                self.open().await
            }
            Err(_) if has_log(&self.folder) => self.open().await,
            Err(error) => Err(error),
        }
    }

    /// How the table is kept; `None` while there is none.
    pub fn mode(&self) -> Option<Mode> {
        self.open.as_ref().map(|open| open.table.mode)
    }

    /// Per partition: the offset after the last record that the table contains.
    pub fn next_offsets(&self) -> &BTreeMap<i32, i64> {
        &self.next_offsets
    }

    /// The table, to work on; whoever takes it puts it back or opens it anew.
    pub fn take(&mut self) -> Option<OpenTable> {
        self.open.take()
    }

    /// Puts the table back.
    pub fn put_back(&mut self, open: OpenTable) {
        self.open = Some(open);
    }

    /// Whether the table is there and open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Whether the folder holds a table, open or not.
    pub fn exists(&self) -> bool {
        has_log(&self.folder)
    }

    /// Remembers what was committed.
    pub fn committed(&mut self, next_offsets: BTreeMap<i32, i64>) {
        self.next_offsets.extend(next_offsets);
    }

    /// Removes files that were staged for a commit that did not come about.
    pub fn discard_unused(&self, staged: &[StagedFile]) {
        let Some(open) = &self.open else { return };
        let Ok(files) = open.table.files() else { return };
        let used: HashSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
        let unused = staged.iter().filter(|staged| !used.contains(staged.file.path.as_str()));
        discard(&self.folder, &unused.cloned().collect::<Vec<_>>());
    }

    /// The work between commits: folds a history table's small files and, now and then, removes old files. Its
    /// failures cost space, not data.
    pub async fn maintain(&mut self) {
        if let Err(error) = self.fold_history().await {
            warn!(table = %self.folder.display(), error = with_causes(&error), "small files were not folded");
            self.open = None;
        }
        let Some(open) = &self.open else { return };
        if self.tidied_at.elapsed() < TIDY_INTERVAL {
            return;
        }
        self.tidied_at = Instant::now();
        match tidy(&open.table, RETENTION).await {
            Ok(tidied) => info!(
                table = %self.folder.display(),
                data_files = tidied.data_files,
                log_files = tidied.log_files,
                "removed old files"
            ),
            Err(error) => {
                warn!(table = %self.folder.display(), error = with_causes(&error), "old files were not removed");
            }
        }
    }

    async fn fold_history(&mut self) -> Result<(), SinkError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let Contents::History(contents) = &mut open.contents else { return Ok(()) };
        let Some(files) = contents.foldable() else { return Ok(()) };
        let (folder, schema) = (self.folder.clone(), open.table.schema.clone());
        let folded = on_blocking_thread(move || history::fold(&folder, &schema, files)).await??;
        let request = CommitRequest {
            adds: folded.adds.clone(),
            removes: folded.removes.clone(),
            content: Content::Rearranged,
            ..CommitRequest::default()
        };
        match commit(&mut open.table, request).await? {
            CommitOutcome::Committed => contents.apply(folded),
            CommitOutcome::CommittedAndOvertaken => self.open = None,
            CommitOutcome::Conflicted => {
                discard(&self.folder, &folded.adds);
                self.open = None;
            }
        }
        Ok(())
    }
}

/// Runs work that reads and writes files.
pub async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SinkError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SinkError::Task {
        task: "table worker".to_owned(),
        reason: error.to_string(),
    })
}

async fn load_state(table: &Table, files: Vec<DataFile>) -> Result<StateTable, SinkError> {
    let (folder, schema) = (table.folder.clone(), table.schema.clone());
    let key = table.key.clone();
    let started = Instant::now();
    let state =
        on_blocking_thread(move || StateTable::load(&folder, &schema, &key, files)).await??;
    let seconds = started.elapsed().as_secs_f64();
    info!(table = %table.folder.display(), keys = state.keys(), seconds, "built the key index");
    Ok(state)
}
