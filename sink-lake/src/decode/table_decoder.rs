//! A table's records in, buffered changes out. It keeps the plans of the schemas it has seen, opens a new batch when
//! the schema or the partition changes, and sets apart what can't be decoded.

use std::{collections::HashMap, sync::Arc, time::Instant};

use arrow::error::ArrowError;
use change_log::{Consumed, RecordSpan, headers};
use schemas::wire_format::{SchemaReference, read_framing};

use super::{
    avro_schema::{field_names, parse},
    column_reader::ValueError,
    envelope::EnvelopePlan,
    key_reader::KeyReader,
    rows::{Added, OpenRows},
};
use crate::{
    buffer::Buffer,
    flow::{ChangeBatch, DeadLetter, PartialRow},
};

/// The header that tells which columns of the row the binlog did not carry.
const AFTER_ABSENT: &[u8] = b"binlake.after.absent";
/// The header with the key that such a row had before.
const OLD_KEY: &[u8] = b"binlake.old.key";
/// The header of such a row that a snapshot may still bring.
const BEFORE_SNAPSHOT: &[u8] = b"binlake.before.snapshot";
/// A batch is closed at this size, so that a batch and one large record stay below Arrow's 2 GB.
const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
const BATCH_ROWS_MAX: usize = 128 * 1024;
/// Summing up the columns' sizes for each row would cost more than it tells.
const SIZE_CHECK_ROWS: usize = 256;

/// Decodes one table's records.
#[derive(Debug, Default)]
pub struct TableDecoder {
    plans: HashMap<SchemaReference, Arc<EnvelopePlan>>,
    keys: HashMap<SchemaReference, Arc<Vec<String>>>,
    key_readers: HashMap<SchemaReference, KeyReader>,
    open: Option<OpenRows>,
    key: Option<KeyColumns>,
    key_schema: Option<SchemaReference>,
    key_is_ignored: bool,
}

/// What the records tell about the table's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyColumns {
    /// The records have no keys.
    None,
    /// The key's columns in key order.
    Columns(Arc<Vec<String>>),
}

/// Why a table's records can't be decoded at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DecodeStop {
    /// No record of this schema can be kept.
    Unfit(String),
    /// The key has other columns than before.
    KeyChanged {
        /// The columns so far.
        before: String,
        /// The columns now.
        now: String,
    },
}

enum Finding {
    Dead(String),
    Stop(DecodeStop),
}

impl TableDecoder {
    /// The key as the records had it; `None` before the first record.
    pub fn key(&self) -> Option<&KeyColumns> {
        self.key.as_ref()
    }

    /// Lets the key change: for tables whose rows are not found by it.
    pub fn ignore_key_changes(&mut self) {
        self.key_is_ignored = true;
    }

    /// The schemas that these records name and that this decoder has not seen.
    pub fn unknown_schemas(&self, consumed: &Consumed) -> Vec<SchemaReference> {
        let mut unknown = Vec::new();
        for span in &consumed.records {
            for (framed, is_key) in [(consumed.value(span), false), (consumed.key(span), true)] {
                let Some(Ok((id, _))) = framed.map(read_framing) else { continue };
                let known =
                    if is_key { self.keys.contains_key(&id) } else { self.plans.contains_key(&id) };
                if !known && unknown.last() != Some(&id) && !unknown.contains(&id) {
                    unknown.push(id);
                }
            }
        }
        unknown
    }

    /// Learns a schema's text, for the records that name it.
    pub fn learn(&mut self, schema: SchemaReference, text: &str) -> Result<(), DecodeStop> {
        let avro_type = parse(text).map_err(|error| DecodeStop::Unfit(error.to_string()))?;
        let names = field_names(&avro_type).unwrap_or_default();
        if names.iter().any(|name| name == "op") && names.iter().any(|name| name == "after") {
            let plan = EnvelopePlan::compile(&avro_type).map_err(DecodeStop::Unfit)?;
            self.plans.insert(schema, Arc::new(plan));
        }
        if let Some(reader) = KeyReader::of(&avro_type) {
            self.key_readers.insert(schema, reader);
        }
        // Any record may be a key; an envelope never is, and its names do no harm.
        self.keys.insert(schema, Arc::new(names));
        Ok(())
    }

    /// Decodes the records from `from_offset` on into the buffer; returns those that can't be decoded.
    pub fn decode(
        &mut self,
        consumed: &Consumed,
        from_offset: i64,
        buffer: &mut Buffer,
    ) -> Result<Vec<DeadLetter>, DecodeStop> {
        let mut dead_letters = Vec::new();
        let mut any = false;
        for span in consumed.records.iter().filter(|span| span.offset >= from_offset) {
            if !any {
                any = true;
                buffer.oldest.get_or_insert_with(Instant::now);
                buffer.oldest_ms.get_or_insert(span.timestamp_ms);
            }
            // A tombstone follows a delete that says the same.
            let Some(value) = consumed.value(span) else { continue };
            match self.record(consumed, span, value, buffer) {
                Ok(()) => {}
                Err(Finding::Dead(reason)) => {
                    dead_letters.push(dead_letter(consumed, span, reason));
                }
                Err(Finding::Stop(stop)) => return Err(stop),
            }
        }
        if any {
            buffer.next_offsets.insert(consumed.partition, consumed.next_offset);
        }
        Ok(dead_letters)
    }

    /// Rows that are decoded but not yet in the buffer.
    pub fn open_rows(&self) -> usize {
        self.open.as_ref().map_or(0, OpenRows::rows)
    }

    /// Bytes that are decoded but not yet in the buffer.
    pub fn open_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, OpenRows::bytes)
    }

    /// Moves the rows that are still being gathered into the buffer.
    pub fn seal(&mut self, buffer: &mut Buffer) -> Result<(), DecodeStop> {
        let Some(open) = self.open.take() else { return Ok(()) };
        let unfit = |error: ArrowError| DecodeStop::Unfit(error.to_string());
        if let Some(batch) = open.finish().map_err(unfit)? {
            buffer.push_rows(batch);
        }
        Ok(())
    }

    fn record(
        &mut self,
        consumed: &Consumed,
        span: &RecordSpan,
        value: &[u8],
        buffer: &mut Buffer,
    ) -> Result<(), Finding> {
        let (schema, datum) = read_reference(value)?;
        let partition = consumed.partition;
        let fits = self.open.as_ref().is_some_and(|open| {
            open.schema_reference == schema
                && open.partition == partition
                && (open.rows() % SIZE_CHECK_ROWS != 0
                    || open.rows() < BATCH_ROWS_MAX && open.bytes() < BATCH_BYTES_MAX)
        });
        if !fits {
            let plan = self.plans.get(&schema).cloned().ok_or_else(|| missing(schema))?;
            self.seal(buffer).map_err(Finding::Stop)?;
            self.open = OpenRows::new(schema, partition, plan);
        }
        // Before the row is added: a record whose key can't be understood is set apart as a whole.
        let key = self.changed_key(consumed.key(span))?;
        let partial = match consumed.headers(span) {
            [] => None,
            headers => self.absent_columns(headers)?,
        };
        let Some(open) = &mut self.open else {
            return Err(Finding::Stop(DecodeStop::Unfit("a column has no builder".to_owned())));
        };
        let added = open.add(span.offset, datum);
        match added.map_err(|error: ValueError| Finding::Dead(error.reason().to_owned()))? {
            Added::Row => {
                if let Some(partial) = partial {
                    let record = dead_letter(consumed, span, String::new());
                    let row = open.rows() - 1;
                    open.note_partial(PartialRow { row, record, ..partial });
                }
                key.map_or(Ok(()), |key| self.note_key(key))
            }
            // A truncate has no key, whatever the table's is.
            Added::Truncate => {
                self.seal(buffer).map_err(Finding::Stop)?;
                buffer.changes.push(ChangeBatch::Truncate { partition, offset: span.offset });
                Ok(())
            }
        }
    }

    /// What the headers tell of a row that lacks columns; which row and record it is, the caller knows.
    fn absent_columns(&self, bytes: &[u8]) -> Result<Option<PartialRow>, Finding> {
        let (mut absent, mut old_key, mut before_snapshot) = (None, None, false);
        for header in headers::iter(bytes) {
            let (name, value) = header.map_err(|error| Finding::Dead(error.to_string()))?;
            match name {
                AFTER_ABSENT => absent = Some(value.to_vec()),
                OLD_KEY => {
                    let (schema, datum) = read_reference(value)?;
                    let reader = self.key_readers.get(&schema);
                    let hash = reader.ok_or_else(|| missing(schema))?.hash(datum);
                    let hash = hash.ok_or(Finding::Dead("its old key can't be read".into()))?;
                    old_key = Some(hash);
                }
                BEFORE_SNAPSHOT => before_snapshot = true,
                _ => {}
            }
        }
        let record = DeadLetter::default();
        Ok(absent.map(|absent| PartialRow { row: 0, absent, old_key, before_snapshot, record }))
    }

    /// The record's key columns, when they are named by another schema than the last record's.
    fn changed_key(
        &self,
        key: Option<&[u8]>,
    ) -> Result<Option<(Option<SchemaReference>, KeyColumns)>, Finding> {
        let schema = match key {
            Some(key) => Some(read_reference(key)?.0),
            None => None,
        };
        if self.key.is_some() && schema == self.key_schema {
            return Ok(None);
        }
        let columns = match schema {
            None => KeyColumns::None,
            Some(id) => {
                KeyColumns::Columns(self.keys.get(&id).cloned().ok_or_else(|| missing(id))?)
            }
        };
        Ok(Some((schema, columns)))
    }

    fn note_key(
        &mut self,
        (schema, now): (Option<SchemaReference>, KeyColumns),
    ) -> Result<(), Finding> {
        self.key_schema = schema;
        if let Some(before) = &self.key
            && *before != now
            && !self.key_is_ignored
        {
            let (before, now) = (before.names(), now.names());
            return Err(Finding::Stop(DecodeStop::KeyChanged { before, now }));
        }
        self.key = Some(now);
        Ok(())
    }
}

impl KeyColumns {
    fn names(&self) -> String {
        match self {
            Self::None => "none".to_owned(),
            Self::Columns(names) => names.join(", "),
        }
    }
}

fn read_reference(framed: &[u8]) -> Result<(SchemaReference, &[u8]), Finding> {
    read_framing(framed).map_err(|error| Finding::Dead(error.to_string()))
}

fn missing(schema: SchemaReference) -> Finding {
    Finding::Dead(match schema {
        SchemaReference::Fingerprint(id) => {
            format!("its schema {id:016x} is not in the source's __schemas topic")
        }
        SchemaReference::Registry(id) => {
            format!(
                "its schema {id} is neither in the source's __schemas topic nor in a schema registry"
            )
        }
    })
}

fn dead_letter(consumed: &Consumed, span: &RecordSpan, reason: String) -> DeadLetter {
    DeadLetter {
        topic: consumed.topic.to_string(),
        partition: consumed.partition,
        offset: span.offset,
        reason,
        key: consumed.key(span).map(<[u8]>::to_vec),
        value: consumed.value(span).map(<[u8]>::to_vec),
    }
}
