//! The writer of a source: transactional, or for brokers without transactions one that waits for its records before it
//! writes the position.

use std::{
    collections::HashMap,
    fmt,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    error::KafkaError,
    producer::{BaseRecord, Producer, PurgeConfig},
};
use schemas::table_id::{dead_letters_topic, positions_topic};
use tracing::{debug, error};

use super::{
    client::{Isolation, LogConsumer, check_reachable, consumer},
    error_class::{Class, classify, is_fenced, refuses_for_ever},
    headers::to_kafka,
    positions::{PositionQuery, last_position},
    producer::open_producer,
    sender::{SendError, Sender},
    too_large::{self, Parts, refusal},
    topics::{KafkaTopic, Topics},
};
use crate::{
    config::{KafkaConfig, RecordTooLarge},
    error::LogError,
    record::{EncodedBatch, EncodedRecord},
    writer::{Cleanup, LogWriter, TopicHandle, TopicSpec, Waiting},
};

const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Brokers refuse records from the future; a source's clock may run ahead a little.
const FUTURE_MS_MAX: i64 = 60_000;
/// A queue that is full gets room by polling; asking it for each record is not needed.
const RECORDS_PER_POLL: usize = 10_000;

/// The writer of one source.
pub struct KafkaWriter {
    sender: Sender,
    probe: LogConsumer,
    topics: Topics,
    source_name: String,
    position: Option<Vec<u8>>,
    positions_topic: String,
    written: Vec<WrittenTopic>,
    handles: HashMap<String, TopicHandle>,
    transaction_began: Option<Instant>,
    /// `None` without transactions.
    transaction_timeout: Option<Duration>,
    /// Where records go that their topic does not take; `None` to stop at one.
    dead_letters: Option<String>,
    records_too_large: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Fenced,
    Lost,
}

#[derive(Debug)]
struct WrittenTopic {
    name: String,
    cleanup: Cleanup,
    topic: KafkaTopic,
}

impl fmt::Debug for KafkaWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaWriter")
            .field("source_name", &self.source_name)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl KafkaWriter {
    /// Opens the writer of a source, fences an older one and reads the last committed position.
    pub fn open(
        kafka: &KafkaConfig,
        source_name: &str,
        timeout: Duration,
    ) -> Result<Self, LogError> {
        let deadline = Instant::now() + timeout;
        let probe = consumer(kafka, "binlake-probe", Isolation::ReadUncommitted)?;
        check_reachable(&probe, kafka, timeout)?;
        let topics = Topics::open(kafka, timeout)?;
        let positions = TopicSpec { name: positions_topic(source_name), cleanup: Cleanup::Compact };
        topics.ensure(&probe, &positions)?;
        let dead_letters = match kafka.record_too_large {
            RecordTooLarge::Stop => None,
            RecordTooLarge::DeadLetter => {
                let name = dead_letters_topic(source_name);
                topics
                    .ensure(&probe, &TopicSpec { name: name.clone(), cleanup: Cleanup::Expire })?;
                Some(name)
            }
        };
        let opened = open_producer(kafka, source_name, deadline)?;
        let query = PositionQuery { kafka, source_name, topic: &positions.name, deadline };
        let position = last_position(&query, &probe)?;
        Ok(Self {
            sender: Sender::new(opened.producer, source_name),
            probe,
            topics,
            source_name: source_name.to_owned(),
            position,
            positions_topic: positions.name,
            written: Vec::new(),
            handles: HashMap::new(),
            transaction_began: None,
            transaction_timeout: opened.transaction_timeout,
            dead_letters,
            records_too_large: 0,
            state: State::Open,
        })
    }

    fn check_open(&self) -> Result<(), LogError> {
        match self.state {
            State::Open => Ok(()),
            State::Fenced => Err(LogError::Fenced { source_name: self.source_name.clone() }),
            State::Lost => Err(LogError::Aborted {
                reason: "an earlier write failed; open the log anew".to_owned(),
            }),
        }
    }

    fn begin(&mut self) -> Result<(), LogError> {
        if self.transaction_timeout.is_some() && self.transaction_began.is_none() {
            if let Err(error) = self.sender.producer.begin_transaction() {
                return Err(self.lose(&error));
            }
            self.transaction_began = Some(Instant::now());
        }
        Ok(())
    }

    fn failed(&mut self, error: SendError) -> LogError {
        match error {
            SendError::Kafka(error) => self.lose(&error),
            SendError::Log(error) => {
                self.lose(&KafkaError::Canceled);
                error
            }
            // The brokers are away: an abort would wait for them, and opening the log anew does it.
            SendError::Stopped => {
                self.state = State::Lost;
                self.transaction_began = None;
                LogError::Aborted {
                    reason: "stopped while the brokers took no records; what is not committed is read again".into(),
                }
            }
        }
    }

    /// Gives up what is not committed and says why it was lost.
    fn lose(&mut self, error: &KafkaError) -> LogError {
        self.state = State::Lost;
        let producer = &self.sender.producer;
        let began = self.transaction_began.take();
        let timed_out = began.zip(self.transaction_timeout);
        let timed_out = timed_out.filter(|(began, timeout)| began.elapsed() >= *timeout);
        let mut reason = error.to_string();
        let mut fatal = classify(error) == Class::Fatal;
        let mut fenced = error.rdkafka_error_code().is_some_and(is_fenced);
        if self.transaction_timeout.is_none() {
            producer.purge(PurgeConfig::default().queue().inflight());
        } else if !fatal && began.is_some() {
            match producer.abort_transaction(ABORT_TIMEOUT) {
                Ok(()) => {}
                Err(abort) => {
                    fatal = classify(&abort) == Class::Fatal;
                    fenced |= abort.rdkafka_error_code().is_some_and(is_fenced);
                    debug!(%abort, "the transaction was not aborted; opening the log anew does it");
                }
            }
        }
        if let Some((code, text)) = producer.client().fatal_error() {
            fatal = true;
            fenced |= is_fenced(code);
            reason = format!("{reason}: {text}");
        }
        if let Some(failed) = producer.context().failed() {
            reason = format!("{}: {}", failed.topic, failed.reason);
            if failed.code.is_some_and(refuses_for_ever) {
                return LogError::Unfit {
                    place: format!("topic {}", failed.topic),
                    reason: format!("{reason}; raise max.message.bytes or leave the column out"),
                };
            }
            fenced |= failed.code.is_some_and(|code| is_fenced(code) && fatal);
        }
        // The broker ends a transaction that is open for too long the same way as it fences.
        if fatal && fenced && timed_out.is_none() {
            self.state = State::Fenced;
            return LogError::Fenced { source_name: self.source_name.clone() };
        }
        if let Some((_, timeout)) = timed_out {
            reason = format!(
                "{reason} (it was open for more than {timeout:?}; a table without a key is one transaction: give the \
                 table a key, or the brokers more room)"
            );
        }
        LogError::Aborted { reason }
    }

    fn append_record(
        &mut self,
        bytes: &[u8],
        record: &EncodedRecord,
        now_ms: i64,
    ) -> Result<(), SendError> {
        let unfit = |place: &str, reason: &str| {
            let (place, reason) = (place.to_owned(), reason.to_owned());
            SendError::Log(LogError::Unfit { place, reason })
        };
        let Some(topic) = self.written.get(record.topic.0 as usize) else {
            return Err(unfit("the batch", "a record names a topic that this writer did not open"));
        };
        let part = |range: Option<&std::ops::Range<usize>>| {
            let reason = "a record lies outside its batch's bytes";
            range
                .map(|range| bytes.get(range.clone()).ok_or_else(|| unfit(&topic.name, reason)))
                .transpose()
        };
        let (key, value) = (part(record.key.as_ref())?, part(record.value.as_ref())?);
        if key.is_none() && topic.cleanup == Cleanup::Compact {
            return Err(unfit(&topic.name, "a record of a compacted topic has no key"));
        }
        let headers = part(Some(&record.headers))?.unwrap_or_default();
        if !headers.is_empty() && topic.cleanup == Cleanup::Compact {
            return Err(unfit(&topic.name, "a record of a compacted topic has headers"));
        }
        let parts = Parts { key, value, headers };
        let timestamp = record_time(record.timestamp_ms, now_ms, topic.topic.retention_ms);
        if let Some(refusal) = refusal(&parts, topic.topic.record_bytes_max) {
            return match &self.dead_letters {
                // Without its schema or the columns' names, nothing that follows could be read.
                Some(dead_letters) if topic.cleanup != Cleanup::Compact => {
                    self.records_too_large += 1;
                    set_apart(&mut self.sender, dead_letters, &topic.name, &refusal, &parts)
                }
                _ => Err(SendError::Log(too_large::stops(&topic.name, &refusal))),
            };
        }
        let mut out = BaseRecord::to(&topic.name).timestamp(timestamp);
        out.key = key;
        out.payload = value;
        if !headers.is_empty() {
            out.headers = Some(to_kafka(headers).map_err(|error| SendError::Log(error.into()))?);
        }
        if topic.topic.partitions == 1 {
            out.partition = Some(0);
        }
        self.sender.send(out)
    }

    fn append_records(&mut self, batch: &EncodedBatch) -> Result<(), SendError> {
        self.sender.make_room()?;
        self.sender.in_flight.add(batch.records.len(), batch.bytes.len());
        let now_ms = now_ms();
        for records in batch.records.chunks(RECORDS_PER_POLL) {
            for record in records {
                self.append_record(&batch.bytes, record, now_ms)?;
            }
            self.sender.poll();
        }
        Ok(())
    }

    fn send_position(&mut self, position: &[u8]) -> Result<(), SendError> {
        self.sender.send(
            BaseRecord::to(&self.positions_topic)
                .partition(0)
                .key(self.source_name.as_bytes())
                .payload(position)
                .timestamp(now_ms()),
        )
    }

    /// With transactions the position is the transaction's last record. Without, it must not be written before every
    /// record is with the brokers: it says that they are.
    fn commit_position(&mut self, position: &[u8]) -> Result<(), SendError> {
        if self.transaction_timeout.is_some() {
            self.send_position(position)?;
            self.sender.flush()?;
            return self.sender.commit_transaction();
        }
        self.sender.deliver()?;
        self.send_position(position)?;
        self.sender.deliver()
    }
}

/// Sends what is known of a record that its topic does not take.
fn set_apart(
    sender: &mut Sender,
    dead_letters: &str,
    topic: &str,
    refusal: &str,
    parts: &Parts<'_>,
) -> Result<(), SendError> {
    error!(
        topic,
        refusal, "a record is too large: set apart in {dead_letters}, the lake lacks this change"
    );
    let mut bytes = Vec::new();
    let headers = too_large::write_headers(&mut bytes, topic, refusal, parts)
        .and_then(|range| to_kafka(&bytes[range]))
        .map_err(|error| SendError::Log(error.into()))?;
    let mut out: BaseRecord<'_, [u8], [u8]> =
        BaseRecord::to(dead_letters).partition(0).timestamp(now_ms()).headers(headers);
    // A key that is itself too large says nothing that anybody could use.
    out.key = parts.key.filter(|key| key.len() < 64 * 1024);
    sender.send(out)
}

impl LogWriter for KafkaWriter {
    fn last_position(&self) -> Option<&[u8]> {
        self.position.as_deref()
    }

    fn wait_as(&mut self, waiting: Waiting) {
        self.sender.wait_as(waiting);
    }

    fn records_too_large(&self) -> u64 {
        self.records_too_large
    }

    fn topic(&mut self, spec: &TopicSpec) -> Result<TopicHandle, LogError> {
        self.check_open()?;
        if let Some(&handle) = self.handles.get(&spec.name) {
            return Ok(handle);
        }
        let topic = self.topics.ensure(&self.probe, spec)?;
        let handle = TopicHandle(u32::try_from(self.written.len()).unwrap_or(u32::MAX));
        self.written.push(WrittenTopic { name: spec.name.clone(), cleanup: spec.cleanup, topic });
        self.handles.insert(spec.name.clone(), handle);
        Ok(handle)
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), LogError> {
        self.check_open()?;
        self.begin()?;
        self.append_records(batch).map_err(|error| self.failed(error))
    }

    fn commit(&mut self, position: &[u8]) -> Result<(), LogError> {
        self.check_open()?;
        self.begin()?;
        if let Err(error) = self.commit_position(position) {
            return Err(self.failed(error));
        }
        self.transaction_began = None;
        self.position = Some(position.to_vec());
        Ok(())
    }
}

impl Drop for KafkaWriter {
    /// An open transaction would hold readers back until it times out.
    fn drop(&mut self) {
        if self.transaction_began.is_some()
            && let Err(error) = self.sender.producer.abort_transaction(Duration::from_secs(2))
        {
            debug!(%error, "the open transaction was not aborted");
        }
    }
}

/// Kafka's retention goes by the records' own time: changes from an old binlog would be removed before anyone reads
/// them, so their time is moved to half of the retention. The time of the change itself stands in the value.
fn record_time(timestamp_ms: i64, now_ms: i64, retention_ms: Option<i64>) -> i64 {
    let oldest = retention_ms.map_or(1, |retention_ms| now_ms.saturating_sub(retention_ms / 2));
    timestamp_ms.min(now_ms.saturating_add(FUTURE_MS_MAX)).max(oldest).max(1)
}

fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_times_stay_where_brokers_keep_them() {
        let now = 1_000_000_000;
        assert_eq!(record_time(now - 5, now, Some(1000)), now - 5);
        assert_eq!(record_time(now - 5000, now, Some(1000)), now - 500);
        assert_eq!(record_time(now - 5000, now, None), now - 5000);
        assert_eq!(record_time(0, now, None), 1);
        assert_eq!(record_time(i64::MAX, now, Some(i64::MAX)), now + FUTURE_MS_MAX);
    }
}
