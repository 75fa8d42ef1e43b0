//! Records that wait for the rows which come before them: in their order, most of them in a file when they are many.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use change_log::{EncodedBatch, EncodedRecord, TopicHandle};

use crate::{
    error::ReaderError,
    spool::{Spool, SpooledEntries},
};

/// Records of one table beyond this are in a file.
pub(super) const MEMORY_MAX: usize = 1 << 20;

/// The held records of one table.
#[derive(Debug)]
pub(super) struct HeldRecords {
    table: String,
    folder: PathBuf,
    spool: Spool,
    /// Those after what is spooled.
    pub(super) batch: EncodedBatch,
    /// The numbers of records that are not to be written, in order.
    left_out: Vec<Range<u64>>,
}

impl HeldRecords {
    pub(super) fn new(table: &str, folder: &Path) -> Self {
        Self {
            table: table.to_owned(),
            folder: folder.to_owned(),
            spool: new_spool(table, folder),
            batch: EncodedBatch::default(),
            left_out: Vec::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.batch.clear();
        if !self.spool.is_empty() {
            self.spool = new_spool(&self.table, &self.folder);
        }
        self.left_out.clear();
    }

    pub(super) fn len(&self) -> u64 {
        self.spool.len() + self.batch.records.len() as u64
    }

    /// Leaves out records up to the last one.
    pub(super) fn leave_out(&mut self, numbers: Range<u64>) {
        match self.left_out.last_mut() {
            Some(last) if last.end == numbers.start => last.end = numbers.end,
            _ => self.left_out.push(numbers),
        }
        if self.left_out[0] == (0..self.len()) {
            // As long as the stream is behind the view, nothing need be kept.
            self.clear();
        }
    }

    pub(super) fn spill_if_full(&mut self) -> Result<(), ReaderError> {
        if self.batch.bytes.len() < MEMORY_MAX {
            return Ok(());
        }
        for record in &self.batch.records {
            let bytes = &self.batch.bytes;
            let written: Result<(), std::convert::Infallible> = self.spool.push(|out| {
                write_record(bytes, record, out);
                Ok(())
            });
            let Ok(()) = written;
            self.spool.spill_if_full()?;
        }
        self.batch.clear();
        Ok(())
    }

    /// From the first record on.
    pub(super) fn into_records(self) -> Result<HeldRecordsOut, ReaderError> {
        Ok(HeldRecordsOut {
            spooled: self.spool.into_entries()?,
            last: Some(self.batch),
            left_out: self.left_out,
            number: 0,
        })
    }
}

fn new_spool(table: &str, folder: &Path) -> Spool {
    Spool::new(format!("changes of {table}, which is read for the first time,"), folder)
}

/// Held records on their way out.
pub(super) struct HeldRecordsOut {
    spooled: SpooledEntries,
    last: Option<EncodedBatch>,
    left_out: Vec<Range<u64>>,
    number: u64,
}

impl HeldRecordsOut {
    /// The next records; `None` when all are out.
    pub(super) fn next(&mut self) -> Result<Option<EncodedBatch>, ReaderError> {
        let mut batch = EncodedBatch::default();
        while batch.bytes.len() < MEMORY_MAX
            && let Some(entry) = self.spooled.next(&mut batch.bytes)?
        {
            if is_left_out(&self.left_out, self.number) {
                batch.bytes.truncate(entry.start);
            } else if let Some(record) = read_record(&batch.bytes, entry) {
                batch.records.push(record);
            }
            self.number += 1;
        }
        if !batch.bytes.is_empty() {
            return Ok(Some(batch));
        }
        let Some(mut last) = self.last.take() else { return Ok(None) };
        last.records.retain(|_| {
            self.number += 1;
            !is_left_out(&self.left_out, self.number - 1)
        });
        Ok(Some(last))
    }
}

fn is_left_out(left_out: &[Range<u64>], number: u64) -> bool {
    let after = left_out.partition_point(|range| range.start <= number);
    after.checked_sub(1).is_some_and(|i| left_out[i].contains(&number))
}

/// In front of a record's bytes: the topic, the time, and the lengths of key, value and headers.
const HEAD: usize = 4 + 8 + 3 * 4;
const ABSENT: u32 = u32::MAX;

fn write_record(bytes: &[u8], record: &EncodedRecord, out: &mut Vec<u8>) {
    let length = |part: Option<&Range<usize>>| {
        part.map_or(ABSENT, |part| u32::try_from(part.len()).unwrap_or(ABSENT)).to_le_bytes()
    };
    let parts = [record.key.as_ref(), record.value.as_ref(), Some(&record.headers)];
    out.extend_from_slice(&record.topic.0.to_le_bytes());
    out.extend_from_slice(&record.timestamp_ms.to_le_bytes());
    parts.iter().for_each(|part| out.extend_from_slice(&length(*part)));
    parts.into_iter().flatten().for_each(|part| out.extend_from_slice(&bytes[part.clone()]));
}

fn read_record(bytes: &[u8], entry: Range<usize>) -> Option<EncodedRecord> {
    let head = bytes.get(entry.start..entry.start + HEAD)?;
    let number = |at: usize| Some(u32::from_le_bytes(*head.get(at..)?.first_chunk()?));
    let mut next = entry.start + HEAD;
    let mut part = |at| {
        let length = number(at)?;
        (length != ABSENT).then(|| {
            let start = next;
            next += length as usize;
            start..next
        })
    };
    let (key, value, headers) = (part(12), part(16), part(20)?);
    Some(EncodedRecord {
        topic: TopicHandle(number(0)?),
        timestamp_ms: i64::from_le_bytes(*head.get(4..)?.first_chunk()?),
        key,
        value,
        headers,
    })
}
