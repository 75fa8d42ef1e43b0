//! The rows of a table without a key into the log, from the file they were read into: all in one log transaction,
//! followed by the events that were held meanwhile and the position that says `done`. A crash before its end leaves
//! nothing of it visible.
//!
//! The stream waits meanwhile; its connection bears that for an hour (`net_write_timeout`).

use change_log::EncodedRecord;

use super::{Capture, held_records::HeldRecords, snapshot_rows::BatchHeaders};
use crate::{error::ReaderError, flow::SpooledTable};

impl Capture {
    /// Writes the tables whose rows have come. Only between transactions.
    pub(super) fn emit_spooled_tables(&mut self) -> Result<(), ReaderError> {
        self.keyless.reach(&self.boundary);
        for table in std::mem::take(&mut self.spooled_tables) {
            let emitted = self.emit_spooled_table(table);
            self.stop_refused(emitted)?;
        }
        Ok(())
    }

    fn emit_spooled_table(&mut self, table: SpooledTable) -> Result<(), ReaderError> {
        let SpooledTable { schema, rows, high, zero_dates, invalid_texts, committed } = table;
        let name = format!("{}.{}", schema.id.database, schema.id.table);
        let Some(held) = self.keyless.take_settled(&name) else {
            // `committed` is dropped: the snapshot reader takes a new view.
            return Ok(());
        };
        let (count, read_bytes) = (rows.len(), rows.bytes());
        let again = self.position.snapshots.get(&name).is_some_and(|progress| progress.again);
        let target =
            self.tables.target_of_schema(&schema, self.writer.as_mut(), &mut self.batch)?;
        self.fill_snapshot_parts(&schema.id, &high, again);
        let mut rows = rows.into_entries()?;
        let mut headers = BatchHeaders::default();
        loop {
            let bytes = &mut self.batch.bytes;
            let headers = headers.place(bytes, &self.metadata.headers);
            let start = bytes.len();
            bytes.extend_from_slice(&target.schemas.value.framing);
            bytes.extend_from_slice(&[0, 2]);
            if rows.next(bytes)?.is_none() {
                bytes.truncate(start);
                break;
            }
            self.parts.write(bytes, 0);
            self.batch.records.push(EncodedRecord {
                topic: target.topic,
                key: None,
                value: Some(start..bytes.len()),
                headers,
                timestamp_ms: self.now_us / 1000,
            });
            self.append_if_full()?;
            if self.batch.records.is_empty() {
                self.go_on()?;
            }
        }
        self.append_held(held)?;
        self.windows.close(&name);
        let now_ms = self.now_us / 1000;
        let progress = self.position.snapshots.entry(name).or_default();
        if progress.began_ms == 0 {
            progress.began_ms = now_ms;
        }
        progress.rows = count;
        progress.rows_estimated = count;
        progress.bytes = read_bytes;
        progress.finish();
        self.metrics.snapshot_rows.inc_by(count);
        self.metrics.zero_dates.inc_by(zero_dates);
        self.metrics.invalid_texts.inc_by(invalid_texts);
        self.answers.push(committed);
        // The reader of the snapshot waits for it.
        self.commit()
    }

    /// The events that were held, after the rows of the view that does not contain them.
    pub(super) fn append_held(&mut self, held: HeldRecords) -> Result<(), ReaderError> {
        let mut records = held.into_records()?;
        while let Some(batch) = records.next()? {
            self.append_batch(&batch)?;
            self.go_on()?;
        }
        Ok(())
    }

    /// A stop does not wait for a large table: what was written of it is left out.
    fn go_on(&self) -> Result<(), ReaderError> {
        if self.stop.is_cancelled() {
            return Err(ReaderError::Transient {
                place: "this process".into(),
                reason: "it was stopped while a table's rows were written".into(),
            });
        }
        Ok(())
    }
}
