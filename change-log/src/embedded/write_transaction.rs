//! The transactions of the embedded writer: each first looks whether the writer is still the one.

use std::{
    mem,
    time::{SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::segment::SegmentBuilder;
use crate::writer::{Cleanup, TopicSpec};

const STAGED_PER_TRANSACTION: usize = 16;

/// A topic that the writer writes.
#[derive(Debug)]
pub struct WrittenTopic {
    /// Its number in the file.
    pub id: i64,
    /// What happens to its old records.
    pub cleanup: Cleanup,
    /// The offset of the next appended record; ahead of the file's while a transaction is open.
    pub next_offset: i64,
    /// Whether the open transaction has records of it.
    pub changed: bool,
    /// The segment being filled.
    pub segment: SegmentBuilder,
    /// Records of a compacted topic, written at the commit.
    pub keyed: Vec<KeyedRecord>,
}

/// A segment that is full, or about to be written.
#[derive(Debug)]
pub struct ClosedSegment {
    /// The topic's place among the writer's.
    pub topic: usize,
    /// The records.
    pub segment: SegmentBuilder,
}

/// A record of a compacted topic.
#[derive(Debug)]
pub struct KeyedRecord {
    /// The key.
    pub key: Vec<u8>,
    /// The value; `None` for a tombstone.
    pub value: Option<Vec<u8>>,
    /// The offset.
    pub offset: i64,
    /// The writer's time.
    pub timestamp_ms: i64,
}

/// Why a transaction was not written.
#[derive(Debug)]
pub enum WriteError {
    /// A later writer has raised the epoch.
    Fenced,
    /// SQLite could not.
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for WriteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Raises the epoch, removes what an older writer staged, and reads the last position.
pub fn take_over(
    connection: &mut Connection,
    positions: &str,
) -> Result<(i64, Option<Vec<u8>>), WriteError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let epoch = transaction.query_row(
        "UPDATE writer SET epoch = epoch + 1 RETURNING epoch",
        [],
        |row| row.get(0),
    )?;
    transaction.commit()?;
    // From here on the older writer writes nothing more.
    let staged = staged_segments(connection)?;
    for ids in staged.chunks(STAGED_PER_TRANSACTION) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // A third writer may have taken over meanwhile: what is staged then is its own.
        check_epoch(&transaction, epoch)?;
        for id in ids {
            transaction.prepare_cached("DELETE FROM segment WHERE id = ?1")?.execute([id])?;
        }
        transaction.commit()?;
    }
    let mut statement = connection.prepare(
        "SELECT k.value FROM topic t JOIN keyed_record k ON k.topic_id = t.id
         WHERE t.name = ?1 ORDER BY k.offset DESC LIMIT 1",
    )?;
    let mut rows = statement.query([positions])?;
    let position = match rows.next()? {
        Some(row) => row.get(0)?,
        None => None,
    };
    Ok((epoch, position))
}

fn staged_segments(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    connection
        .prepare(
            "SELECT s.id FROM topic t JOIN segment s
             ON s.topic_id = t.id AND s.base_offset >= t.next_offset",
        )?
        .query_map([], |row| row.get(0))?
        .collect()
}

/// Opens a topic, and makes it when it is missing.
pub fn open_topic(
    connection: &mut Connection,
    epoch: i64,
    spec: &TopicSpec,
) -> Result<WrittenTopic, WriteError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    check_epoch(&transaction, epoch)?;
    transaction.execute(
        "INSERT INTO topic (name, compacted) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
        params![spec.name, spec.cleanup == Cleanup::Compact],
    )?;
    let topic = transaction.query_row(
        "SELECT id, compacted, next_offset FROM topic WHERE name = ?1",
        [&spec.name],
        |row| {
            let cleanup = match (row.get(1)?, spec.cleanup) {
                (true, _) => Cleanup::Compact,
                // The file does not tell these two apart: it is the writer that removes old records.
                (false, Cleanup::Expire) => Cleanup::Expire,
                (false, _) => Cleanup::Delete,
            };
            Ok(WrittenTopic {
                id: row.get(0)?,
                cleanup,
                next_offset: row.get(2)?,
                changed: false,
                segment: SegmentBuilder::default(),
                keyed: Vec::new(),
            })
        },
    )?;
    transaction.commit()?;
    Ok(topic)
}

/// Fails when a later writer has taken over.
pub fn check_epoch(transaction: &Transaction<'_>, epoch: i64) -> Result<(), WriteError> {
    let current: i64 =
        transaction.prepare_cached("SELECT epoch FROM writer")?.query_row([], |row| row.get(0))?;
    if current == epoch { Ok(()) } else { Err(WriteError::Fenced) }
}

/// Writes all gathered segments; they stay in `closed` for their memory.
pub fn write_segments(
    transaction: &Transaction<'_>,
    topics: &mut [WrittenTopic],
    closed: &mut Vec<ClosedSegment>,
) -> Result<(), WriteError> {
    for (index, topic) in topics.iter_mut().enumerate() {
        if !topic.segment.is_empty() {
            closed.push(ClosedSegment { topic: index, segment: mem::take(&mut topic.segment) });
        }
    }
    let appended_ms = now_ms();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO segment (topic_id, base_offset, next_offset, appended_ms, layout, payload)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?;
    let mut compressed = Vec::new();
    for ClosedSegment { topic, segment } in closed {
        let (base_offset, next_offset) = (segment.base_offset(), segment.next_offset());
        let (layout, payload) = segment.seal(&mut compressed);
        let topic = topics[*topic].id;
        statement.execute(params![
            topic,
            base_offset,
            next_offset,
            appended_ms,
            layout,
            payload
        ])?;
    }
    Ok(())
}

/// Writes the gathered records of compacted topics over those with the same keys.
pub fn write_keyed_records(
    transaction: &Transaction<'_>,
    topics: &[WrittenTopic],
) -> Result<(), WriteError> {
    let appended_ms = now_ms();
    let mut statement = transaction.prepare_cached(
        "INSERT INTO keyed_record (topic_id, key, offset, timestamp_ms, appended_ms, value)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (topic_id, key) DO UPDATE SET offset = excluded.offset,
             timestamp_ms = excluded.timestamp_ms, appended_ms = excluded.appended_ms, value = excluded.value",
    )?;
    for topic in topics {
        for record in &topic.keyed {
            statement.execute(params![
                topic.id,
                record.key,
                record.offset,
                record.timestamp_ms,
                appended_ms,
                record.value,
            ])?;
        }
    }
    Ok(())
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}
