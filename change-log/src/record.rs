//! Encoded records on their way into the log: all bytes in one vector, one small descriptor per record.

use std::ops::Range;

use crate::writer::TopicHandle;

/// One record as ranges of the batch's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRecord {
    /// Where it goes.
    pub topic: TopicHandle,
    /// The key's bytes; `None` for a table without a key.
    pub key: Option<Range<usize>>,
    /// The value's bytes; `None` is a tombstone.
    pub value: Option<Range<usize>>,
    /// The headers' bytes, as [`crate::headers::write`] writes them; empty for none.
    pub headers: Range<usize>,
    /// Milliseconds since 1970: when the source committed the change.
    pub timestamp_ms: i64,
}

/// Records of many tables in log order. It is reused: `clear` keeps the memory.
#[derive(Debug, Default)]
pub struct EncodedBatch {
    /// The bytes that the records' ranges point into.
    pub bytes: Vec<u8>,
    /// The records in order.
    pub records: Vec<EncodedRecord>,
}

impl EncodedBatch {
    /// Empties the batch and keeps its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }
}
