//! One source's file as a reader sees it: its topics, and batches of their committed records.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, params};

use super::{
    database::{open_for_reading, sqlite_error, unfit},
    segment::{DamagedSegment, StoredSegment},
};
use crate::{
    error::LogError,
    reader::{Consumed, RecordSpan},
};

/// A batch ends before the segment that would make it larger than this.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// A topic as it stands in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredTopic {
    /// The topic's number in the file.
    pub id: i64,
    /// Whether only the last record of each key is kept.
    pub compacted: bool,
    /// The first offset that is still there.
    pub first_offset: i64,
    /// The offset after the last committed record.
    pub next_offset: i64,
}

/// An open log file.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    connection: Connection,
    data_version: Option<i64>,
    topics: HashMap<Arc<str>, StoredTopic>,
}

impl LogFile {
    /// Opens the file; `None` while its writer has not finished making it.
    pub fn open(path: &Path) -> Result<Option<Self>, LogError> {
        let Some(connection) = open_for_reading(path)? else {
            return Ok(None);
        };
        let path = path.to_owned();
        Ok(Some(Self { path, connection, data_version: None, topics: HashMap::new() }))
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A topic as of the last [`LogFile::refresh`].
    pub fn topic(&self, name: &str) -> Option<&StoredTopic> {
        self.topics.get(name)
    }

    /// The names of its topics, in no order.
    pub fn topic_names(&self) -> impl Iterator<Item = &str> {
        self.topics.keys().map(AsRef::as_ref)
    }

    /// Reads the topics anew when another process committed since the last time.
    pub fn refresh(&mut self) -> Result<(), LogError> {
        self.try_refresh().map_err(|error| sqlite_error(&self.path, error))
    }

    /// The committed records from `offset` on, as many as fit a batch; `None` when there are none.
    pub fn read(&mut self, topic: &str, offset: i64) -> Result<Option<Consumed>, LogError> {
        let Some((name, &stored)) = self.topics.get_key_value(topic) else {
            return Ok(None);
        };
        if offset >= stored.next_offset {
            return Ok(None);
        }
        let gone = |first| LogError::OffsetGone {
            topic: topic.to_owned(),
            partition: 0,
            wanted: offset,
            first,
        };
        if offset < stored.first_offset {
            return Err(gone(stored.first_offset));
        }
        let mut consumed = Consumed {
            topic: Arc::clone(name),
            partition: 0,
            bytes: Vec::new(),
            records: Vec::new(),
            next_offset: offset,
        };
        let read = if stored.compacted {
            self.read_keyed(stored, &mut consumed)
        } else {
            self.read_segments(stored, &mut consumed)
        };
        match read {
            Ok(Found::Records) => Ok(Some(consumed)),
            // Retention was quicker than this reader.
            Ok(Found::OffsetGone { first }) => Err(gone(first)),
            Ok(Found::Damage { offset, reason }) => {
                let reason = format!("{topic} is damaged at offset {offset}: {reason}");
                Err(unfit(&self.path, reason))
            }
            Err(error) => Err(sqlite_error(&self.path, error)),
        }
    }

    fn try_refresh(&mut self) -> rusqlite::Result<()> {
        let version: i64 = self
            .connection
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        if self.data_version == Some(version) {
            return Ok(());
        }
        // Read after the version: a commit in between is then seen once more, never missed.
        let mut statement = self
            .connection
            .prepare_cached("SELECT name, id, compacted, first_offset, next_offset FROM topic")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let stored = StoredTopic {
                id: row.get(1)?,
                compacted: row.get(2)?,
                first_offset: row.get(3)?,
                next_offset: row.get(4)?,
            };
            let name = row.get_ref(0)?.as_str()?;
            match self.topics.get_mut(name) {
                Some(known) => *known = stored,
                None => {
                    self.topics.insert(name.into(), stored);
                }
            }
        }
        self.data_version = Some(version);
        Ok(())
    }

    fn read_segments(&self, stored: StoredTopic, out: &mut Consumed) -> rusqlite::Result<Found> {
        let transaction = self.connection.unchecked_transaction()?;
        // The offset may lie inside a segment.
        let start: Option<i64> = transaction
            .prepare_cached(
                "SELECT max(base_offset) FROM segment WHERE topic_id = ?1 AND base_offset <= ?2",
            )?
            .query_row(params![stored.id, out.next_offset], |row| row.get(0))?;
        let mut expected = start;
        let mut statement = transaction.prepare_cached(
            "SELECT base_offset, layout, payload FROM segment
             WHERE topic_id = ?1 AND base_offset >= ?2 AND base_offset < ?3 ORDER BY base_offset",
        )?;
        let mut rows = statement.query(params![
            stored.id,
            start.unwrap_or(out.next_offset),
            stored.next_offset
        ])?;
        let wanted = out.next_offset;
        while let Some(row) = rows.next()? {
            let base_offset: i64 = row.get(0)?;
            let (layout, payload) = (row.get_ref(1)?.as_blob()?, row.get_ref(2)?.as_blob()?);
            let segment = StoredSegment { base_offset, layout, payload };
            let damage = |error: DamagedSegment| {
                Ok(Found::Damage { offset: base_offset, reason: error.to_string() })
            };
            let length = match segment.payload_length() {
                Ok(length) => length,
                Err(error) => return damage(error),
            };
            if !out.records.is_empty() && out.bytes.len().saturating_add(length) > BATCH_BYTES {
                return Ok(Found::Records);
            }
            if expected != Some(base_offset) {
                break;
            }
            let start = out.bytes.len();
            let read = segment.spans(start, wanted, &mut out.records).and_then(|next_offset| {
                segment.append_payload(&mut out.bytes)?;
                Ok(next_offset)
            });
            match read {
                Ok(next_offset) => {
                    out.next_offset = next_offset;
                    expected = Some(next_offset);
                }
                Err(error) => return damage(error),
            }
        }
        if out.next_offset > wanted {
            return Ok(Found::Records);
        }
        let first: i64 = transaction
            .prepare_cached("SELECT first_offset FROM topic WHERE id = ?1")?
            .query_row([stored.id], |row| row.get(0))?;
        if wanted < first {
            return Ok(Found::OffsetGone { first });
        }
        Ok(Found::Damage { offset: wanted, reason: "its segment is missing".to_owned() })
    }

    fn read_keyed(&self, stored: StoredTopic, out: &mut Consumed) -> rusqlite::Result<Found> {
        let mut statement = self.connection.prepare_cached(
            "SELECT offset, timestamp_ms, key, value FROM keyed_record
             WHERE topic_id = ?1 AND offset >= ?2 AND offset < ?3 ORDER BY offset",
        )?;
        let mut rows = statement.query(params![stored.id, out.next_offset, stored.next_offset])?;
        while let Some(row) = rows.next()? {
            let offset = row.get(0)?;
            let key = row.get_ref(2)?.as_blob()?;
            let value = row.get_ref(3)?.as_blob_or_null()?;
            let length = key.len() + value.map_or(0, <[u8]>::len);
            if !out.records.is_empty() && out.bytes.len().saturating_add(length) > BATCH_BYTES {
                out.next_offset = offset;
                return Ok(Found::Records);
            }
            let mut span = |part: &[u8]| {
                let from = out.bytes.len() as u32;
                out.bytes.extend_from_slice(part);
                (from, out.bytes.len() as u32)
            };
            let record = RecordSpan {
                offset,
                timestamp_ms: row.get(1)?,
                key: Some(span(key)),
                value: value.map(span),
                headers: (0, 0),
            };
            out.records.push(record);
        }
        // Superseded records leave gaps, also at the end.
        out.next_offset = stored.next_offset;
        Ok(Found::Records)
    }
}

enum Found {
    Records,
    OffsetGone { first: i64 },
    Damage { offset: i64, reason: String },
}
