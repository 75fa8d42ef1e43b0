//! Turns a worker's buffer into a commit: makes the table or adds columns if needed, writes files, commits, and
//! remembers. Until the commit is made the buffer stays as it is, so that any step can be done again.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use arrow::datatypes::SchemaRef;
use tracing::{debug, info};

use super::{
    RETRY_FIRST, TableWorker,
    lake_side::{Contents, OpenTable, on_blocking_thread},
};
use crate::{
    buffer::{Buffer, drop_committed},
    config::Mode,
    decode::table_decoder::KeyColumns,
    delta::{
        commit::{CommitOutcome, CommitRequest, Content, commit},
        data_file::{StagedFile, now_ms},
        table::TableSpec,
    },
    error::SinkError,
    flow::{ChangeBatch, DeadLetter},
    modes::{
        history,
        state::{StagedState, StateTable},
    },
    router::Command,
    schema_evolution::{Evolution, evolve},
};

/// What a round of flushing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Nothing is left.
    Done,
    /// Somebody else committed first.
    Conflicted,
}

/// Files that wait for their commit, with what to remember afterwards.
enum Staged {
    State(StagedState),
    History(Vec<StagedFile>, Vec<DeadLetter>),
}

impl TableWorker {
    /// Flushes, again and again while errors may pass.
    pub(super) async fn flush_until_done(&mut self) -> Result<(), SinkError> {
        let mut wait = RETRY_FIRST;
        while !self.shared.shutdown.is_cancelled() {
            match self.flush().await {
                Ok(Flushed::Done) => return Ok(()),
                Ok(Flushed::Conflicted) => {
                    self.shared.metrics.conflicts.with_label_values(&[&self.name]).inc();
                    info!(table = self.name, "somebody else committed; table is loaded anew");
                }
                Err(error) => self.endure(error, &mut wait).await?,
            }
        }
        Ok(())
    }

    /// One attempt. After an error or a conflict the table is opened anew by the next one.
    pub(super) async fn flush(&mut self) -> Result<Flushed, SinkError> {
        self.decoder.seal(&mut self.buffer).map_err(|stop| self.stopped(stop))?;
        if !self.prepare_table().await? {
            self.forget_buffer();
            return Ok(Flushed::Done);
        }
        if self.buffer.is_empty() {
            // Another sink was quicker.
            self.forget_buffer();
            return Ok(Flushed::Done);
        }
        let Some(open) = self.lake_side.take() else { return Ok(Flushed::Conflicted) };
        // From here on `open` is put back only when it is known to be right.
        let _permit = Arc::clone(&self.shared.writers).acquire_owned().await;
        let started = Instant::now();
        let (schema, added) = self.evolved(&open)?;
        let changes = Arc::new(std::mem::take(&mut self.buffer.changes));
        let written = stage(open, Arc::clone(&schema), Arc::clone(&changes)).await;
        // The staging thread is done with it: no copy is made.
        self.buffer.changes = Arc::unwrap_or_clone(changes);
        let (mut open, staged) = written?;
        let staged = staged?;
        // Before the commit: a record is rather noted twice than not at all.
        self.set_apart(staged.lost()).await?;
        let request = CommitRequest {
            adds: staged.adds(),
            removes: staged.removes(),
            schema: added.then(|| Arc::clone(&schema)),
            next_offsets: self.offsets_to_commit(),
            content: Content::Changed,
        };
        let next_offsets = request.next_offsets.clone();
        match commit(&mut open.table, request).await {
            Ok(CommitOutcome::Committed) => {
                open.table.schema = schema;
                staged.apply(&mut open.contents);
                self.lake_side.put_back(open);
            }
            Ok(CommitOutcome::CommittedAndOvertaken) => {}
            Ok(CommitOutcome::Conflicted) => {
                self.lake_side.open().await?;
                self.lake_side.discard_unused(&staged.adds());
                return Ok(Flushed::Conflicted);
            }
            Err(error) => return Err(error),
        }
        self.finished(next_offsets, started).await;
        Ok(Flushed::Done)
    }

    /// Makes sure that the table is there and open, and that the buffer holds only what it does not contain. `false`
    /// when there is no table and nothing to make one of.
    async fn prepare_table(&mut self) -> Result<bool, SinkError> {
        if !self.lake_side.is_open() && self.lake_side.exists() {
            self.lake_side.open().await?;
            self.check_mode()?;
        }
        if !self.lake_side.is_open() {
            let Some(spec) = self.spec_of_new()? else { return Ok(false) };
            self.lake_side.create(spec.mode, spec).await?;
            self.check_mode()?;
        }
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = drop_committed(buffer, self.lake_side.next_offsets());
        for (partition, next_offset) in self.lake_side.next_offsets() {
            let position = self.positions.entry(*partition).or_insert(*next_offset);
            *position = (*position).max(*next_offset);
        }
        let (mode, next_offsets) = (self.lake_side.mode(), self.lake_side.next_offsets());
        self.shared.metrics.status().update(&self.name, |status| {
            status.mode = mode;
            status.next_offsets.extend(next_offsets);
        });
        Ok(true)
    }

    /// The table that the buffer's first rows make; `None` when it has none.
    fn spec_of_new(&self) -> Result<Option<TableSpec>, SinkError> {
        let first = self.buffer.changes.iter().find_map(|change| match change {
            ChangeBatch::Rows(batch) => Some(batch.rows.schema()),
            ChangeBatch::Truncate { .. } => None,
        });
        let Some(columns) = first else { return Ok(None) };
        let mode = self.mode_of_new(self.decoder.key())?;
        let key = match self.decoder.key() {
            Some(KeyColumns::Columns(names)) => names.to_vec(),
            _ => Vec::new(),
        };
        let no_columns: SchemaRef = Arc::new(arrow::datatypes::Schema::empty());
        // Names are checked here too: a table that can't be kept is never made.
        evolve(&no_columns, columns.fields()).map_err(|reason| self.schema_change(reason))?;
        let schema = match mode {
            Mode::State => columns,
            Mode::History => history::schema_of(&columns).map_err(|reason| self.unfit(reason))?,
        };
        Ok(Some(TableSpec { topic: self.topic.clone(), mode, key, schema }))
    }

    /// The table's columns after the buffer's rows, and whether there are new ones.
    fn evolved(&self, open: &OpenTable) -> Result<(SchemaRef, bool), SinkError> {
        let mut schema = Arc::clone(&open.table.schema);
        let mut added = false;
        for change in &self.buffer.changes {
            let ChangeBatch::Rows(batch) = change else { continue };
            let columns = match open.table.mode {
                Mode::State => batch.rows.schema(),
                Mode::History => history::schema_of(batch.rows.schema_ref())
                    .map_err(|reason| self.unfit(reason))?,
            };
            match evolve(&schema, columns.fields()).map_err(|reason| self.schema_change(reason))? {
                Evolution::Unchanged => {}
                Evolution::Added(with_new) => {
                    schema = with_new;
                    added = true;
                }
            }
        }
        Ok((schema, added))
    }

    /// All partitions, also those without records: their offsets are found again by counting from partition 0.
    fn offsets_to_commit(&self) -> BTreeMap<i32, i64> {
        let mut next_offsets = self.positions.clone();
        next_offsets.extend(self.lake_side.next_offsets());
        next_offsets.extend(&self.buffer.next_offsets);
        next_offsets
    }

    async fn finished(&mut self, next_offsets: BTreeMap<i32, i64>, started: Instant) {
        let rows = self.buffer.rows as u64;
        let seconds = started.elapsed().as_secs_f64();
        debug!(table = self.name, rows, seconds, "committed");
        let metrics = &self.shared.metrics;
        let labels = [self.name.as_str()];
        metrics.rows.with_label_values(&labels).inc_by(rows);
        metrics.commits.with_label_values(&labels).inc();
        metrics.commit_seconds.with_label_values(&labels).observe(seconds);
        metrics.lag_seconds.with_label_values(&labels).set(0.0);
        metrics.status().update(&self.name, |status| {
            status.rows_written += rows;
            status.commits += 1;
            status.rows_waiting = 0;
            status.oldest_waiting_ms = None;
            status.next_offsets.extend(&next_offsets);
            status.last_commit_ms = Some(now_ms());
        });
        self.lake_side.committed(next_offsets.clone());
        self.forget_buffer();
        self.lake_side.maintain().await;
        for (partition, next_offset) in next_offsets {
            let topic = self.topic.clone();
            let acknowledge = Command::Acknowledge { topic, partition, next_offset };
            // A router that is gone learns the offsets from the lake when it starts again.
            self.shared.commands.send(acknowledge).await.ok();
        }
    }

    fn forget_buffer(&mut self) {
        self.buffer = Buffer::default();
        self.memory.remove(self.buffered_bytes);
        self.buffered_bytes = 0;
    }

    fn schema_change(&self, reason: String) -> SinkError {
        SinkError::SchemaChange { table: self.name.clone(), reason }
    }
}

impl Staged {
    fn adds(&self) -> Vec<StagedFile> {
        match self {
            Self::State(staged) => staged.adds(),
            Self::History(staged, _) => staged.clone(),
        }
    }

    fn removes(&self) -> Vec<crate::delta::data_file::DataFile> {
        match self {
            Self::State(staged) => staged.removes(),
            Self::History(..) => Vec::new(),
        }
    }

    fn lost(&self) -> &[DeadLetter] {
        match self {
            Self::State(staged) => staged.lost(),
            Self::History(_, lost) => lost,
        }
    }

    fn apply(self, contents: &mut Contents) {
        match (self, contents) {
            (Self::State(staged), Contents::State(table)) => table.apply(staged),
            (Self::History(staged, _), Contents::History(table)) => {
                table.add(staged.into_iter().map(|staged| staged.file));
            }
            (Self::State(_), Contents::History(_)) | (Self::History(..), Contents::State(_)) => {}
        }
    }
}

/// Writes the files on a thread that may block; the table comes back with the result.
async fn stage(
    open: OpenTable,
    schema: SchemaRef,
    changes: Arc<Vec<ChangeBatch>>,
) -> Result<(OpenTable, Result<Staged, SinkError>), SinkError> {
    on_blocking_thread(move || {
        let folder = &open.table.folder;
        let staged = match &open.contents {
            Contents::State(table) => {
                let table: &StateTable = table;
                table.stage(folder, &schema, &open.table.key, &changes).map(Staged::State)
            }
            Contents::History(_) => history::stage(folder, &schema, &changes)
                .map(|staged| Staged::History(staged.files, staged.lost)),
        };
        (open, staged)
    })
    .await
}
