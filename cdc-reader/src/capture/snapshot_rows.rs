//! Rows of snapshot chunks into the log, once the stream has reached the place at which they hold.

use std::ops::Range;

use change_log::EncodedRecord;
use schemas::{position::BinlogPlace, table_id::TableId, wire_format::read_framing};

use super::Capture;
use crate::{
    encode::envelope::{SOURCE_VERSION, SourceBlock},
    error::ReaderError,
    flow::{SnapshotChunk, TablePart},
    snapshot::window::{HeldUpdate, ReadyChunk, table_of},
};

impl Capture {
    /// Emits every chunk that the stream has reached. Only between transactions.
    pub(super) fn emit_ready_chunks(&mut self) -> Result<(), ReaderError> {
        if self.transaction.is_some() {
            return Ok(());
        }
        while let Some(ready) = self.windows.take_ready(&self.boundary)? {
            self.emit_chunk(ready)?;
        }
        self.emit_spooled_tables()
    }

    fn emit_chunk(&mut self, ready: ReadyChunk) -> Result<(), ReaderError> {
        let ReadyChunk { chunk, updates } = ready;
        let table = table_of(&chunk);
        // A chunk of a table without a key is the end of one that is gone.
        let held = self.keyless.give_up(&table);
        // The chunk that ends a table which is gone has no shape.
        if !chunk.rows.is_empty() && !self.position.stopped.contains_key(&table) {
            let again = self.position.snapshots.get(&table).is_some_and(|progress| progress.again);
            let appended =
                self.append_rows(&chunk, again).and_then(|()| self.append_updates(&chunk, updates));
            self.stop_refused(appended)?;
        }
        if let Some(held) = held {
            self.append_held(held)?;
        }
        let now_ms = self.now_us / 1000;
        let progress = self.position.snapshots.entry(table.clone()).or_default();
        if progress.began_ms == 0 {
            progress.began_ms = now_ms;
        }
        progress.rows += chunk.rows.len() as u64;
        progress.bytes += chunk.bytes.len() as u64;
        progress.rows_estimated = chunk.rows_estimated.max(progress.rows);
        match chunk.part {
            TablePart::Range(range) => {
                progress.key_shape = Some(chunk.schema.key_shape());
                progress.enter(range);
            }
            TablePart::Rest => progress.finish(),
        }
        if progress.done {
            self.windows.close(&table);
        }
        self.buffers.give(chunk.bytes);
        if !self.windows.any() {
            self.buffers.clear();
        }
        self.metrics.snapshot_rows.inc_by(chunk.rows.len() as u64);
        self.metrics.zero_dates.inc_by(chunk.zero_dates);
        self.metrics.invalid_texts.inc_by(chunk.invalid_texts);
        self.answers.push(chunk.committed);
        self.moved = true;
        // Several chunks share a commit: their readers have gone on meanwhile.
        self.commit_if_due()
    }

    /// A table whose schema the registry refuses is stopped before a row of it is written; the others go on.
    pub(super) fn stop_refused(
        &mut self,
        result: Result<(), ReaderError>,
    ) -> Result<(), ReaderError> {
        match result {
            Err(ReaderError::SchemaRefused { table, reason }) => {
                self.stop_table(&table, &reason);
                Ok(())
            }
            result => result,
        }
    }

    /// The walk of a table is begun at its first key again, because its key is another one. The keys that the stream
    /// changed before say nothing of the ones now; and a table that had none is an ordinary one.
    pub(super) fn restart_walk(&mut self, table: &str, has_key: bool) {
        self.windows.begin_again(table);
        if has_key {
            self.keyless.forget(table);
        }
        if let Some(progress) = self.position.snapshots.get_mut(table) {
            *progress = progress.restarted();
        }
    }

    /// Keeps the updates of an event that lack columns, until the chunk that may hold their rows has come.
    pub(super) fn hold_lacking(&mut self, table: &str) -> Result<(), ReaderError> {
        let lacking = std::mem::take(&mut self.scratch.lacking);
        if std::mem::take(&mut self.scratch.lacking_moved) {
            self.stop_table(
                table,
                "a key was changed while its rows were read for the first time, and the binlog lacks the row's other \
                 columns; set binlog_row_image = 'FULL' and take a new snapshot of the table",
            );
            return Ok(());
        }
        for record in lacking.iter().filter_map(|&at| self.batch.records.get(at)) {
            let bytes = |range: &std::ops::Range<usize>| self.batch.bytes[range.clone()].to_vec();
            let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
            let update = HeldUpdate {
                key: bytes(key),
                value: bytes(value),
                headers: bytes(&record.headers),
                timestamp_ms: record.timestamp_ms,
            };
            if let Ok((_, datum)) = read_framing(&self.batch.bytes[key.clone()]) {
                self.windows.hold(table, datum, update)?;
            }
        }
        Ok(())
    }

    fn append_updates(
        &mut self,
        chunk: &SnapshotChunk,
        updates: Vec<HeldUpdate>,
    ) -> Result<(), ReaderError> {
        if updates.is_empty() {
            return Ok(());
        }
        let target =
            self.tables.target_of_schema(&chunk.schema, self.writer.as_mut(), &mut self.batch)?;
        for update in updates {
            let mut push = |bytes: &[u8]| {
                let start = self.batch.bytes.len();
                self.batch.bytes.extend_from_slice(bytes);
                start..self.batch.bytes.len()
            };
            let (key, value, headers) =
                (push(&update.key), push(&update.value), push(&update.headers));
            self.batch.records.push(EncodedRecord {
                topic: target.topic,
                key: Some(key),
                value: Some(value),
                headers,
                timestamp_ms: update.timestamp_ms,
            });
            self.append_if_full()?;
        }
        Ok(())
    }

    /// What every row of a table says of itself.
    pub(super) fn fill_snapshot_parts(&mut self, id: &TableId, high: &BinlogPlace, again: bool) {
        let block = SourceBlock {
            version: SOURCE_VERSION,
            source: &self.source,
            snapshot: if again { "incremental" } else { "true" },
            database: &id.database,
            table: &id.table,
            committed_at_us: self.now_us,
            server_id: 0,
            gtid: "",
            file: &high.file,
            offset: high.offset,
            thread: 0,
        };
        self.parts.fill(&block, self.now_us);
        self.parts.set_op(b'r');
    }

    fn append_rows(&mut self, chunk: &SnapshotChunk, again: bool) -> Result<(), ReaderError> {
        let target =
            self.tables.target_of_schema(&chunk.schema, self.writer.as_mut(), &mut self.batch)?;
        self.fill_snapshot_parts(&chunk.schema.id, &chunk.high, again);
        let mut headers = BatchHeaders::default();
        for (key, row) in &chunk.rows {
            let bytes = &mut self.batch.bytes;
            let headers = headers.place(bytes, &self.metadata.headers);
            let start = bytes.len();
            bytes.extend_from_slice(&target.schemas.value.framing);
            bytes.extend_from_slice(&[0, 2]);
            bytes.extend_from_slice(&chunk.bytes[row.clone()]);
            self.parts.write(bytes, 0);
            let value = start..bytes.len();
            let key = target.schemas.key.as_ref().map(|schema| {
                let start = bytes.len();
                bytes.extend_from_slice(&schema.framing);
                bytes.extend_from_slice(&chunk.bytes[key.clone()]);
                start..bytes.len()
            });
            self.batch.records.push(EncodedRecord {
                topic: target.topic,
                key,
                value: Some(value),
                headers,
                timestamp_ms: self.now_us / 1000,
            });
            self.append_if_full()?;
            if self.batch.records.is_empty() {
                self.answer_readers();
            }
        }
        Ok(())
    }
}

/// Where the headers of a batch are: all its records point at the same ones.
#[derive(Default)]
pub(super) struct BatchHeaders(Option<Range<usize>>);

impl BatchHeaders {
    /// Writes them once into each batch.
    pub(super) fn place(&mut self, batch: &mut Vec<u8>, headers: &[u8]) -> Range<usize> {
        if batch.is_empty() {
            // What was there is in the log.
            self.0 = None;
        }
        let written = self.0.get_or_insert_with(|| {
            let start = batch.len();
            batch.extend_from_slice(headers);
            start..batch.len()
        });
        written.clone()
    }
}
