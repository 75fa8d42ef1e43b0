//! When the log is committed, and with which position.

use std::time::Duration;

use change_log::EncodedBatch;
use schemas::position::OpenTransaction;

use super::Capture;
use crate::error::ReaderError;

/// The batch is appended to the log when it is this large.
const APPEND_BYTES: usize = 1 << 20;
/// A commit between transactions is due at this size even if it is not by time.
const COMMIT_BYTES: usize = 16 << 20;
/// A transaction is committed in parts of this size.
const PART_BYTES: usize = 64 << 20;
/// How long the position alone may wait: `verify` and lag figures see it.
const POSITION_INTERVAL: Duration = Duration::from_secs(1);

impl Capture {
    /// Hands the batch to the log when it is large enough.
    pub(super) fn append_if_full(&mut self) -> Result<(), ReaderError> {
        if self.batch.bytes.len() >= APPEND_BYTES { self.append() } else { Ok(()) }
    }

    /// Hands other records to the log, after the batch.
    pub(super) fn append_batch(&mut self, other: &EncodedBatch) -> Result<(), ReaderError> {
        self.append()?;
        self.writer.append(other)?;
        self.metrics.bytes.inc_by(other.bytes.len() as u64);
        self.bytes_uncommitted += other.bytes.len();
        Ok(())
    }

    fn append(&mut self) -> Result<(), ReaderError> {
        if self.batch.records.is_empty() {
            return Ok(());
        }
        self.writer.append(&self.batch)?;
        self.metrics.bytes.inc_by(self.batch.bytes.len() as u64);
        self.bytes_uncommitted += self.batch.bytes.len();
        self.batch.clear();
        Ok(())
    }

    /// Commits when it is due: between transactions by time or bytes, inside one by bytes alone.
    pub(super) fn commit_if_due(&mut self) -> Result<(), ReaderError> {
        let bytes = self.bytes_uncommitted + self.batch.bytes.len();
        self.tell_metrics_if_due();
        self.moved |= *self.held_back.borrow() != self.position.snapshots_held_back;
        let waited = self.now.duration_since(self.last_commit);
        let due = match &self.transaction {
            Some(_) => bytes >= PART_BYTES,
            None => {
                bytes >= COMMIT_BYTES
                    || (bytes > 0 || !self.answers.is_empty()) && waited >= self.commit_interval
                    || self.moved && waited >= POSITION_INTERVAL
            }
        };
        if due { self.commit() } else { Ok(()) }
    }

    /// Makes everything appended so far durable, together with the position it stands for.
    pub(super) fn commit(&mut self) -> Result<(), ReaderError> {
        self.tables.write_history(self.writer.as_mut(), &mut self.batch)?;
        self.append()?;
        self.position.gtid_set = self.consumed.to_string();
        if self.file_created.0 == self.boundary.file {
            self.position.file_created = self.file_created.1;
        } else if self.position.place.file != self.boundary.file {
            self.position.file_created = 0;
        }
        self.position.place = self.boundary.clone();
        self.tell_progress();
        // A transaction that is being read again keeps what the position says of it until its rows pass that point.
        if let Some(transaction) = &self.transaction
            && (transaction.has_rows() || transaction.metadata.is_some())
        {
            let (id, rows_done) = (transaction.id(), transaction.rows_done());
            self.position.open_transaction = Some(OpenTransaction { id, rows_done });
        }
        let position = serde_json::to_vec(&self.position).map_err(|error| {
            ReaderError::PositionLost(format!("the position cannot be written: {error}"))
        })?;
        self.writer.commit(&position)?;
        if self.committed.receiver_count() > 0 {
            self.committed.send_replace(self.position.clone());
        }
        self.metrics.commits.inc();
        let too_large = self.writer.records_too_large();
        self.metrics.records_too_large.inc_by(too_large - self.too_large_told);
        self.too_large_told = too_large;
        if self.position.source_time_ms > 0 {
            self.metrics.lag_ms.set((self.now_us / 1000 - self.position.source_time_ms).max(0));
        }
        for answer in self.answers.drain(..) {
            let _ = answer.send(());
        }
        self.bytes_uncommitted = 0;
        self.moved = false;
        self.last_commit = self.now;
        Ok(())
    }

    /// Enters the chunks in flight, for whoever looks at the position, and tells the metrics.
    fn tell_progress(&mut self) {
        self.position.snapshots_held_back = self.held_back.borrow().clone();
        for (table, chunks) in self.windows.in_flight() {
            if let Some(progress) = self.position.snapshots.get_mut(table) {
                progress.in_flight = u32::try_from(chunks).unwrap_or(u32::MAX);
            }
        }
        self.metrics_behind = true;
        self.tell_metrics_if_due();
    }

    /// Not with each commit, but what the last one said is told in the end.
    fn tell_metrics_if_due(&mut self) {
        let due =
            self.metrics_told.is_none_or(|at| self.now.duration_since(at) >= POSITION_INTERVAL);
        if self.metrics_behind && due {
            (self.metrics_behind, self.metrics_told) = (false, Some(self.now));
            self.metrics.snapshots.tell(&self.position);
        }
    }

    /// Commits what is complete before a stop. An open transaction is left out: it is read again.
    pub(super) fn finish(&mut self) -> Result<(), ReaderError> {
        if self.transaction.is_none() { self.commit() } else { Ok(()) }
    }
}
