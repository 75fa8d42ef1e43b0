//! The transactional writer.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseProducer, BaseRecord, Producer, ProducerContext},
    util::Timeout,
};
use schemas::table_id::positions_topic;
use tracing::{debug, warn};

use super::{
    client::{
        Isolation, LogConsumer, RECORD_BYTES_MAX, TRANSACTION_TIMEOUTS, check_reachable, consumer,
        is_fenced, producer_config, unavailable,
    },
    flush::flush,
    headers::to_kafka,
    positions::{PositionQuery, last_position},
    topics::{KafkaTopic, Topics},
};
use crate::{
    config::KafkaConfig,
    error::LogError,
    record::{EncodedBatch, EncodedRecord},
    writer::{Cleanup, LogWriter, TopicHandle, TopicSpec},
};

const FULL_QUEUE_INTERVAL: Duration = Duration::from_millis(2);
const FLUSH_INTERVAL: Duration = Duration::from_millis(100);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Brokers refuse records from the future; a source's clock may run ahead a little.
const FUTURE_MS_MAX: i64 = 60_000;
/// A queue that is full gets room by polling; asking it for each record is not needed.
const RECORDS_PER_POLL: usize = 10_000;

/// The writer of one source.
pub struct KafkaWriter {
    producer: BaseProducer<Deliveries>,
    probe: LogConsumer,
    topics: Topics,
    source_name: String,
    position: Option<Vec<u8>>,
    positions_topic: String,
    written: Vec<WrittenTopic>,
    handles: HashMap<String, TopicHandle>,
    transaction_began: Option<Instant>,
    transaction_timeout: Duration,
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

/// Keeps the first record that the brokers refused.
#[derive(Debug, Default)]
struct Deliveries {
    failed: Mutex<Option<FailedDelivery>>,
}

#[derive(Clone, Debug)]
struct FailedDelivery {
    topic: String,
    code: Option<RDKafkaErrorCode>,
    reason: String,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            // What fails because the transaction was given up says nothing about why.
            let purged = matches!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
            );
            if failed.is_none() && !purged {
                *failed = Some(FailedDelivery {
                    topic: message.topic().to_owned(),
                    code: error.rdkafka_error_code(),
                    reason: error.to_string(),
                });
            }
        }
    }
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
        let failed = |error: KafkaError| unavailable(kafka, &error);
        let probe = consumer(kafka, "binlake-probe", Isolation::ReadUncommitted)?;
        check_reachable(&probe, kafka, timeout)?;
        let topics = Topics::open(kafka, timeout)?;
        let positions = TopicSpec { name: positions_topic(source_name), cleanup: Cleanup::Compact };
        topics.ensure(&probe, &positions)?;
        let (producer, transaction_timeout) =
            open_producer(kafka, source_name, deadline).map_err(failed)?;
        let query = PositionQuery { kafka, source_name, topic: &positions.name, deadline };
        let position = last_position(&query, &probe)?;
        Ok(Self {
            producer,
            probe,
            topics,
            source_name: source_name.to_owned(),
            position,
            positions_topic: positions.name,
            written: Vec::new(),
            handles: HashMap::new(),
            transaction_began: None,
            transaction_timeout,
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
        if self.transaction_began.is_none() {
            if let Err(error) = self.producer.begin_transaction() {
                return Err(self.lose(&error));
            }
            self.transaction_began = Some(Instant::now());
        }
        Ok(())
    }

    /// Gives up the open transaction and says why it was lost.
    fn lose(&mut self, error: &KafkaError) -> LogError {
        self.state = State::Lost;
        let began = self.transaction_began.take();
        let timed_out = began.is_some_and(|began| began.elapsed() >= self.transaction_timeout);
        let mut reason = error.to_string();
        let mut fatal = classify(error) == Class::Fatal;
        let mut fenced = error.rdkafka_error_code().is_some_and(is_fenced);
        if !fatal && began.is_some() {
            match self.producer.abort_transaction(ABORT_TIMEOUT) {
                Ok(()) => {}
                Err(abort) => {
                    fatal = classify(&abort) == Class::Fatal;
                    fenced |= abort.rdkafka_error_code().is_some_and(is_fenced);
                    debug!(%abort, "the transaction was not aborted; opening the log anew does it");
                }
            }
        }
        if let Some((code, text)) = self.producer.client().fatal_error() {
            fatal = true;
            fenced |= is_fenced(code);
            reason = format!("{reason}: {text}");
        }
        let failed = self.producer.context().failed.lock();
        let failed = failed.unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(failed) = &failed {
            reason = format!("{}: {}", failed.topic, failed.reason);
            if let Some(code) = failed.code
                && refuses_for_ever(code)
            {
                return LogError::Unfit {
                    place: format!("topic {}", failed.topic),
                    reason: format!("{reason}; raise max.message.bytes or leave the column out"),
                };
            }
            fenced |= failed.code.is_some_and(|code| is_fenced(code) && fatal);
        }
        // The broker ends a transaction that is open for too long the same way as it fences.
        if fatal && fenced && !timed_out {
            self.state = State::Fenced;
            return LogError::Fenced { source_name: self.source_name.clone() };
        }
        if timed_out {
            reason = format!(
                "{reason} (it was open for more than {:?}; a table without a key is one transaction: give the table a \
                 key, or the brokers more room)",
                self.transaction_timeout
            );
        }
        LogError::Aborted { reason }
    }

    fn send(&self, record: BaseRecord<'_, [u8], [u8]>) -> Result<(), KafkaError> {
        let mut record = record;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(FULL_QUEUE_INTERVAL);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    fn append_record(
        &self,
        bytes: &[u8],
        record: &EncodedRecord,
        now_ms: i64,
    ) -> Result<(), AppendError> {
        let unfit = |place: &str, reason: &str| {
            let (place, reason) = (place.to_owned(), reason.to_owned());
            AppendError::Log(LogError::Unfit { place, reason })
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
        let length = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers.len();
        if length > RECORD_BYTES_MAX - 1024 {
            return Err(unfit(&topic.name, "a record is larger than 96 MB; leave its column out"));
        }
        let mut out = BaseRecord::to(&topic.name).timestamp(record_time(
            record.timestamp_ms,
            now_ms,
            topic.topic.retention_ms,
        ));
        out.key = key;
        out.payload = value;
        if !headers.is_empty() {
            out.headers = Some(to_kafka(headers).map_err(|error| AppendError::Log(error.into()))?);
        }
        if topic.topic.partitions == 1 {
            out.partition = Some(0);
        }
        self.send(out).map_err(AppendError::Kafka)
    }

    fn send_position(&self, position: &[u8]) -> Result<(), KafkaError> {
        self.send(
            BaseRecord::to(&self.positions_topic)
                .partition(0)
                .key(self.source_name.as_bytes())
                .payload(position)
                .timestamp(now_ms()),
        )
    }

    fn commit_transaction(&self) -> Result<(), KafkaError> {
        while !flush(&self.producer, FLUSH_INTERVAL) {
            self.producer.poll(Duration::ZERO);
        }
        self.producer.poll(Duration::ZERO);
        loop {
            // A commit that timed out has an unknown outcome, so librdkafka asks to wait for it without limit.
            match self.producer.commit_transaction(Timeout::Never) {
                Ok(()) => return Ok(()),
                Err(error) if classify(&error) == Class::Retriable => {
                    warn!(%error, "committing to kafka again");
                    thread::sleep(RETRY_INTERVAL);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

enum AppendError {
    Log(LogError),
    Kafka(KafkaError),
}

impl LogWriter for KafkaWriter {
    fn last_position(&self) -> Option<&[u8]> {
        self.position.as_deref()
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
        let now_ms = now_ms();
        for records in batch.records.chunks(RECORDS_PER_POLL) {
            for record in records {
                match self.append_record(&batch.bytes, record, now_ms) {
                    Ok(()) => {}
                    Err(AppendError::Kafka(error)) => return Err(self.lose(&error)),
                    Err(AppendError::Log(error)) => {
                        self.lose(&KafkaError::Canceled);
                        return Err(error);
                    }
                }
            }
            self.producer.poll(Duration::ZERO);
        }
        Ok(())
    }

    fn commit(&mut self, position: &[u8]) -> Result<(), LogError> {
        self.check_open()?;
        self.begin()?;
        let sent = self.send_position(position);
        if let Err(error) = sent.and_then(|()| self.commit_transaction()) {
            return Err(self.lose(&error));
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
            && let Err(error) = self.producer.abort_transaction(Duration::from_secs(2))
        {
            debug!(%error, "the open transaction was not aborted");
        }
    }
}

/// A producer whose transactions may last as long as the brokers let them.
fn open_producer(
    kafka: &KafkaConfig,
    source_name: &str,
    deadline: Instant,
) -> Result<(BaseProducer<Deliveries>, Duration), KafkaError> {
    let [longest, shorter] = TRANSACTION_TIMEOUTS;
    let open = |timeout| {
        let producer: BaseProducer<Deliveries> = producer_config(kafka, source_name, timeout)
            .create_with_context(Deliveries::default())?;
        init_transactions(&producer, deadline)?;
        Ok((producer, timeout))
    };
    open(longest).or_else(|error: KafkaError| match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::InvalidTransactionTimeout) => open(shorter),
        _ => Err(error),
    })
}

fn init_transactions(
    producer: &BaseProducer<Deliveries>,
    deadline: Instant,
) -> Result<(), KafkaError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match producer.init_transactions(left.max(Duration::from_secs(1))) {
            Ok(()) => return Ok(()),
            Err(error) if classify(&error) == Class::Retriable && Instant::now() < deadline => {
                thread::sleep(RETRY_INTERVAL);
            }
            Err(error) => return Err(error),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Retriable,
    Abortable,
    Fatal,
}

fn classify(error: &KafkaError) -> Class {
    match error {
        KafkaError::Transaction(error) if error.is_fatal() => Class::Fatal,
        KafkaError::Transaction(error) if error.txn_requires_abort() => Class::Abortable,
        KafkaError::Transaction(error) if error.is_retriable() => Class::Retriable,
        error if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) => Class::Fatal,
        _ => Class::Abortable,
    }
}

/// Whether the same record would be refused again.
fn refuses_for_ever(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
    )
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
