//! What the cdc-reader needs of a log. Calls block: it is used from a thread of its own.

use std::{fmt, time::Duration};

use crate::{error::LogError, record::EncodedBatch};

/// A topic known to one writer, cheap to copy into each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicHandle(pub u32);

/// What happens to a topic's old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cleanup {
    /// Records are removed by the configured retention. The embedded log also needs them consumed by every sink.
    Delete,
    /// The last record of each key is kept.
    Compact,
    /// Records are removed by the configured retention alone: no sink reads them. One partition, for one order.
    Expire,
}

/// A topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// The topic's name.
    pub name: String,
    /// Its clean-up policy.
    pub cleanup: Cleanup,
}

/// What a writer asks and tells while the log takes nothing.
pub struct Waiting {
    /// Whether to stop: a wait then ends within seconds, with [`LogError::Aborted`].
    pub stopped: Box<dyn Fn() -> bool + Send>,
    /// Told again and again how long the log has taken nothing, and zero when it does again.
    pub stalled: Box<dyn Fn(Duration) + Send>,
}

impl Default for Waiting {
    /// Waits without end and tells nobody.
    fn default() -> Self {
        Self { stopped: Box::new(|| false), stalled: Box::new(|_| ()) }
    }
}

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

/// The single writer of one source. Opening it fences an older one: from then on each of the older writer's commits
/// fails with [`LogError::Fenced`] and leaves nothing visible.
pub trait LogWriter: Send {
    /// The position of the last committed transaction, as given to [`LogWriter::commit`]; `None` for a new source.
    /// Read after the older writer was fenced.
    fn last_position(&self) -> Option<&[u8]>;

    /// How the writer is to wait from now on. A log that never waits for long ignores it.
    fn wait_as(&mut self, _: Waiting) {}

    /// How many records were set apart because their topic does not take them, since the writer was opened.
    /// A log that takes all sizes has none.
    fn records_too_large(&self) -> u64 {
        0
    }

    /// Creates the topic when it is missing and returns its handle; the same name gives the same handle.
    fn topic(&mut self, spec: &TopicSpec) -> Result<TopicHandle, LogError>;

    /// Adds records to the open transaction (opened by the first append). Records of one topic keep their order;
    /// records with equal keys go to one partition (murmur2 of the key, as Java's default partitioner does).
    fn append(&mut self, batch: &EncodedBatch) -> Result<(), LogError>;

    /// Makes the open transaction and the position durable and visible, together; returns when they are. Without
    /// an append before it, the position alone is committed.
    fn commit(&mut self, position: &[u8]) -> Result<(), LogError>;
}
