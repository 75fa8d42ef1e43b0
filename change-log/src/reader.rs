//! What the sink, `status` and `verify` need of a log. Only committed records are seen. Calls block for at most
//! their time-out.

use std::{sync::Arc, time::Duration};

use crate::error::LogError;

/// A topic as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicInfo {
    /// The topic's name.
    pub name: String,
    /// How many partitions it has, numbered from 0.
    pub partitions: i32,
}

/// One consumed record as ranges of [`Consumed::bytes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordSpan {
    /// The record's offset in its partition.
    pub offset: i64,
    /// Milliseconds since 1970, as the writer gave it.
    pub timestamp_ms: i64,
    /// Start and end of the key; `None` when the record has none.
    pub key: Option<(u32, u32)>,
    /// Start and end of the value; `None` for a tombstone.
    pub value: Option<(u32, u32)>,
    /// Start and end of the headers; equal when it has none.
    pub headers: (u32, u32),
}

/// Records of one partition in offset order. Offsets rise but may have gaps (Kafka's control records).
#[derive(Clone, Debug)]
pub struct Consumed {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The bytes that the spans point into; at most about 4 MB unless one record is larger.
    pub bytes: Vec<u8>,
    /// The records; may be empty when only control records were passed.
    pub records: Vec<RecordSpan>,
    /// The offset to go on from after this batch.
    pub next_offset: i64,
}

impl Consumed {
    /// A record's key.
    pub fn key(&self, span: &RecordSpan) -> Option<&[u8]> {
        span.key.and_then(|(from, to)| self.bytes.get(from as usize..to as usize))
    }

    /// A record's value.
    pub fn value(&self, span: &RecordSpan) -> Option<&[u8]> {
        span.value.and_then(|(from, to)| self.bytes.get(from as usize..to as usize))
    }

    /// A record's headers, for [`crate::headers::iter`]; empty when it has none.
    pub fn headers(&self, span: &RecordSpan) -> &[u8] {
        let (from, to) = span.headers;
        self.bytes.get(from as usize..to as usize).unwrap_or_default()
    }
}

/// Reads topics of one log. Several readers work side by side, in one process or in many.
pub trait LogReader: Send {
    /// All topics whose names start with `prefix`, sorted by name.
    fn topics(&mut self, prefix: &str) -> Result<Vec<TopicInfo>, LogError>;

    /// The first offset that is still there and the offset after the last committed record (both 0 when empty).
    /// On Kafka the second may be larger by control records.
    fn bounds(&mut self, topic: &str, partition: i32) -> Result<(i64, i64), LogError>;

    /// Starts (or moves) reading a partition at `offset`. An offset before the first one that is still there is
    /// refused with [`LogError::OffsetGone`], now or by `poll`, never skipped over.
    fn assign(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), LogError>;

    /// Stops reading a partition.
    fn unassign(&mut self, topic: &str, partition: i32) -> Result<(), LogError>;

    /// `poll` leaves the partition out until `resume`; what was not yet returned comes after `resume`.
    fn pause(&mut self, topic: &str, partition: i32) -> Result<(), LogError>;

    /// Ends a `pause`.
    fn resume(&mut self, topic: &str, partition: i32) -> Result<(), LogError>;

    /// The next records of any assigned partition that is not paused, in fair turns; `None` when `timeout` passed
    /// without any.
    fn poll(&mut self, timeout: Duration) -> Result<Option<Consumed>, LogError>;

    /// Tells the log how far a sink has made a partition durable (`offset` is the next one to read). The embedded
    /// log may then drop older records; Kafka commits it as the group's offset so that lag tools work.
    fn acknowledge(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), LogError>;
}
