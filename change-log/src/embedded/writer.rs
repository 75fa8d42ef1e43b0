//! The embedded log's writer: gathers records, stages them when they grow large, commits them with the position.

use std::{
    collections::HashMap,
    fs, mem,
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior, params};
use schemas::table_id::positions_topic;
use tracing::{debug, warn};

use super::{
    acknowledgements::acknowledged_by_all,
    database::{acknowledged_file, log_file, make_folder, open_for_writing, sqlite_error, unfit},
    retention::{RetentionRun, remove_old_records, retention_due},
    segment::SegmentBuilder,
    write_transaction::{
        ClosedSegment, KeyedRecord, WriteError, WrittenTopic, check_epoch, now_ms, open_topic,
        take_over, write_keyed_records, write_segments,
    },
};
use crate::{
    error::LogError,
    record::{EncodedBatch, EncodedRecord},
    writer::{Cleanup, LogWriter, TopicHandle, TopicSpec},
};

/// A segment is closed when it reaches this size.
const SEGMENT_BYTES: usize = 1024 * 1024;
/// Above this, what was gathered is staged in the file.
const GATHERED_BYTES: usize = 8 * 1024 * 1024;
/// How large the write-ahead log grows before it is folded back beside the readers, ...
const FOLD_BYTES: u64 = 32 * 1024 * 1024;
/// ... and before the writer waits for readers to let go of it.
const FOLD_WAITING_BYTES: u64 = 512 * 1024 * 1024;
/// SQLite refuses values above 1,000,000,000 bytes.
const RECORD_BYTES_MAX: usize = 900_000_000;
const RETENTION_INTERVAL: Duration = Duration::from_secs(60);
const RETENTION_TIME_MAX: Duration = Duration::from_millis(200);
/// Other processes hold the write lock only while they take over.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Memory of written segments that is kept for the next ones.
const SPARE_SEGMENTS_MAX: usize = 8;

/// The writer of one source.
#[derive(Debug)]
pub struct EmbeddedWriter {
    connection: Connection,
    file: PathBuf,
    source_name: String,
    epoch: i64,
    retention: Duration,
    retention_ran: Option<Instant>,
    position: Option<Vec<u8>>,
    position_topic: usize,
    topics: Vec<WrittenTopic>,
    handles: HashMap<String, TopicHandle>,
    closed: Vec<ClosedSegment>,
    spare: Vec<SegmentBuilder>,
    gathered_bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Fenced,
    Lost,
}

impl EmbeddedWriter {
    /// Opens the writer of a source in `folder`, fences an older one and reads the last committed position.
    pub fn open(
        folder: &Path,
        source_name: &str,
        retention: Duration,
        timeout: Duration,
    ) -> Result<Self, LogError> {
        make_folder(folder)?;
        let file = log_file(folder, source_name);
        let mut connection = open_for_writing(&file, timeout)?;
        let positions = positions_topic(source_name);
        let (epoch, position) = match take_over(&mut connection, &positions) {
            Ok(taken) => taken,
            Err(WriteError::Fenced) => {
                return Err(LogError::Fenced { source_name: source_name.to_owned() });
            }
            Err(WriteError::Sqlite(error)) => return Err(sqlite_error(&file, error)),
        };
        connection.busy_timeout(LOCK_TIMEOUT).map_err(|error| sqlite_error(&file, error))?;
        let mut writer = Self {
            connection,
            file,
            source_name: source_name.to_owned(),
            epoch,
            retention,
            retention_ran: None,
            position,
            position_topic: 0,
            topics: Vec::new(),
            handles: HashMap::new(),
            closed: Vec::new(),
            spare: Vec::new(),
            gathered_bytes: 0,
            state: State::Open,
        };
        let handle = writer.topic(&TopicSpec { name: positions, cleanup: Cleanup::Compact })?;
        writer.position_topic = handle.0 as usize;
        writer.maintain();
        Ok(writer)
    }

    fn check_open(&self) -> Result<(), LogError> {
        match self.state {
            State::Open => Ok(()),
            State::Fenced => Err(self.fenced()),
            State::Lost => Err(LogError::Aborted {
                reason: "an earlier write failed; open the log anew".to_owned(),
            }),
        }
    }

    fn fenced(&self) -> LogError {
        LogError::Fenced { source_name: self.source_name.clone() }
    }

    /// Forgets the open transaction: after a failed write the file's state is what counts.
    fn lose(&mut self, error: WriteError) -> LogError {
        self.closed.clear();
        self.gathered_bytes = 0;
        match error {
            WriteError::Fenced => {
                self.state = State::Fenced;
                self.fenced()
            }
            WriteError::Sqlite(error) => {
                self.state = State::Lost;
                sqlite_error(&self.file, error)
            }
        }
    }

    fn append_record(&mut self, bytes: &[u8], record: &EncodedRecord) -> Result<(), LogError> {
        let index = record.topic.0 as usize;
        let Some(topic) = self.topics.get_mut(index) else {
            return Err(unfit(&self.file, "a record names a topic that this writer did not open"));
        };
        let key = part(&self.file, bytes, record.key.as_ref())?;
        let value = part(&self.file, bytes, record.value.as_ref())?;
        let headers = part(&self.file, bytes, Some(&record.headers))?.unwrap_or_default();
        let length = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers.len();
        if length > RECORD_BYTES_MAX {
            return Err(unfit(&self.file, "a record is larger than 900 MB; leave its column out"));
        }
        topic.changed = true;
        if topic.cleanup == Cleanup::Compact {
            let Some(key) = key else {
                return Err(unfit(&self.file, "a record of a compacted topic has no key"));
            };
            if !headers.is_empty() {
                return Err(unfit(&self.file, "a record of a compacted topic has headers"));
            }
            topic.keyed.push(KeyedRecord {
                key: key.to_vec(),
                value: value.map(<[u8]>::to_vec),
                offset: topic.next_offset,
                timestamp_ms: record.timestamp_ms,
            });
            topic.next_offset += 1;
            return Ok(());
        }
        if !topic.segment.is_empty() && topic.segment.byte_length() + length > SEGMENT_BYTES {
            let segment = mem::take(&mut topic.segment);
            self.closed.push(ClosedSegment { topic: index, segment });
        }
        if topic.segment.is_empty() {
            topic.segment = self.spare.pop().unwrap_or_default();
            topic.segment.restart(topic.next_offset);
        }
        let before = topic.segment.byte_length();
        topic.segment.push(key, value, headers, record.timestamp_ms);
        topic.next_offset += 1;
        self.gathered_bytes += topic.segment.byte_length() - before;
        Ok(())
    }

    /// Writes what was gathered above the topics' next offsets, where no reader looks.
    fn stage(&mut self) -> Result<(), WriteError> {
        // The commit that makes these records visible syncs the write-ahead log, and them with it.
        self.connection.pragma_update(None, "synchronous", "normal")?;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        check_epoch(&transaction, self.epoch)?;
        write_segments(&transaction, &mut self.topics, &mut self.closed)?;
        transaction.commit()?;
        self.connection.pragma_update(None, "synchronous", "full")?;
        self.recycle();
        self.fold_write_ahead_log();
        Ok(())
    }

    fn write_commit(&mut self, position: &[u8]) -> Result<(), WriteError> {
        let positions = &mut self.topics[self.position_topic];
        positions.changed = true;
        positions.keyed.push(KeyedRecord {
            key: self.source_name.clone().into_bytes(),
            value: Some(position.to_vec()),
            offset: positions.next_offset,
            timestamp_ms: now_ms(),
        });
        positions.next_offset += 1;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        check_epoch(&transaction, self.epoch)?;
        write_segments(&transaction, &mut self.topics, &mut self.closed)?;
        write_keyed_records(&transaction, &self.topics)?;
        {
            let mut raise =
                transaction.prepare_cached("UPDATE topic SET next_offset = ?2 WHERE id = ?1")?;
            for topic in self.topics.iter().filter(|topic| topic.changed) {
                raise.execute(params![topic.id, topic.next_offset])?;
            }
        }
        transaction.commit()?;
        for topic in &mut self.topics {
            topic.changed = false;
            topic.keyed.clear();
        }
        self.recycle();
        Ok(())
    }

    fn recycle(&mut self) {
        self.gathered_bytes = 0;
        let written = self.closed.drain(..).map(|closed| closed.segment);
        self.spare.extend(written.filter(|segment| segment.capacity() <= 4 * SEGMENT_BYTES));
        self.spare.truncate(SPARE_SEGMENTS_MAX);
    }

    /// The work between transactions. Its failures cost nothing but space, so they never fail a commit.
    fn maintain(&mut self) {
        self.fold_write_ahead_log();
        if !retention_due(self.retention_ran, Instant::now(), RETENTION_INTERVAL) {
            return;
        }
        match self.remove_old_records() {
            Ok(true) => self.retention_ran = Some(Instant::now()),
            Ok(false) => {}
            Err(error) => {
                self.retention_ran = Some(Instant::now());
                warn!(file = %self.file.display(), %error, "old records were not removed");
            }
        }
    }

    fn remove_old_records(&mut self) -> rusqlite::Result<bool> {
        let mut acknowledged = acknowledged_by_all(&acknowledged_file(&self.file))?;
        for (name, handle) in &self.handles {
            let topic = self.topics.get(handle.0 as usize);
            if topic.is_some_and(|topic| topic.cleanup == Cleanup::Expire) {
                acknowledged.insert(name.clone(), i64::MAX);
            }
        }
        let retention_ms = i64::try_from(self.retention.as_millis()).unwrap_or(i64::MAX);
        let run = RetentionRun {
            appended_before_ms: now_ms().saturating_sub(retention_ms).saturating_add(1),
            acknowledged: &acknowledged,
            deadline: Instant::now() + RETENTION_TIME_MAX,
        };
        remove_old_records(&mut self.connection, &run)
    }

    fn fold_write_ahead_log(&self) {
        let mut name = self.file.clone().into_os_string();
        name.push("-wal");
        let length = fs::metadata(&name).map_or(0, |metadata| metadata.len());
        let mode = match length {
            0..FOLD_BYTES => return,
            FOLD_BYTES..FOLD_WAITING_BYTES => "passive",
            _ => "truncate",
        };
        let fold = || -> rusqlite::Result<()> {
            // Readers hold the log for the moment of one batch only.
            self.connection.busy_timeout(Duration::from_millis(500))?;
            self.connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
        };
        if let Err(error) = fold() {
            debug!(file = %self.file.display(), %error, "the write-ahead log was not folded back");
        }
        if let Err(error) = self.connection.busy_timeout(LOCK_TIMEOUT) {
            debug!(%error, "the lock time-out was not set");
        }
    }
}

impl LogWriter for EmbeddedWriter {
    fn last_position(&self) -> Option<&[u8]> {
        self.position.as_deref()
    }

    fn topic(&mut self, spec: &TopicSpec) -> Result<TopicHandle, LogError> {
        self.check_open()?;
        if let Some(&handle) = self.handles.get(&spec.name) {
            return Ok(handle);
        }
        let topic = match open_topic(&mut self.connection, self.epoch, spec) {
            Ok(topic) => topic,
            Err(error) => return Err(self.lose(error)),
        };
        if topic.cleanup != spec.cleanup {
            let reason = format!(
                "topic {} keeps its records as {:?}, not {:?}; give the topic another name",
                spec.name, topic.cleanup, spec.cleanup
            );
            return Err(unfit(&self.file, reason));
        }
        if topic.cleanup == Cleanup::Expire {
            // The clean-up of the opening did not know that its records may go.
            self.retention_ran = None;
        }
        let handle = TopicHandle(u32::try_from(self.topics.len()).unwrap_or(u32::MAX));
        self.topics.push(topic);
        self.handles.insert(spec.name.clone(), handle);
        Ok(handle)
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), LogError> {
        self.check_open()?;
        for record in &batch.records {
            if let Err(error) = self.append_record(&batch.bytes, record) {
                self.state = State::Lost;
                return Err(error);
            }
            if self.gathered_bytes >= GATHERED_BYTES
                && let Err(error) = self.stage()
            {
                return Err(self.lose(error));
            }
        }
        Ok(())
    }

    fn commit(&mut self, position: &[u8]) -> Result<(), LogError> {
        self.check_open()?;
        if let Err(error) = self.write_commit(position) {
            return Err(self.lose(error));
        }
        self.position = Some(position.to_vec());
        self.maintain();
        Ok(())
    }
}

fn part<'a>(
    file: &Path,
    bytes: &'a [u8],
    range: Option<&Range<usize>>,
) -> Result<Option<&'a [u8]>, LogError> {
    range
        .map(|range| {
            let reason = "a record lies outside its batch's bytes";
            bytes.get(range.clone()).ok_or_else(|| unfit(file, reason))
        })
        .transpose()
}
