//! Settings of Kafka clients, and what a client's error means for the log.

use std::time::Duration;

use rdkafka::{
    ClientConfig, ClientContext,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use crate::{config::KafkaConfig, error::LogError};

/// The largest record: below the 100 MiB that a broker takes in one request by default.
pub const RECORD_BYTES_MAX: usize = 96 * 1024 * 1024;

/// A transaction that is open for longer is ended by the broker; it counts from the transaction's beginning, however
/// steadily records come. The first is what brokers allow unless told otherwise (`transaction.max.timeout.ms`): the rows
/// of a table without a key are one transaction, however large it is. The second is for brokers that allow less.
/// A writer that is dead holds back nobody but the readers of what it did not finish, until it is started again.
pub const TRANSACTION_TIMEOUTS: [Duration; 2] = [Duration::from_secs(900), Duration::from_secs(60)];

/// How long a record may take to the brokers before its transaction is given up and begun again. Kafka allows no more
/// than the transaction's own time.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(300);

/// What a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Committed records only.
    ReadCommitted,
    /// All records, also of open and aborted transactions.
    ReadUncommitted,
}

/// How a consumer's events are told: the end of a partition is no error, and brokers that are away for a moment are a
/// warning, for the client comes back by itself.
#[derive(Debug)]
pub struct ConsumerEvents;

impl ClientContext for ConsumerEvents {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::warn!(%error, reason, "kafka");
        }
    }
}

impl ConsumerContext for ConsumerEvents {}

/// A consumer of the log.
pub type LogConsumer = BaseConsumer<ConsumerEvents>;

/// Settings that all clients share.
pub fn client_config(kafka: &KafkaConfig) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.bootstrap_servers);
    config.set("client.id", "binlake");
    config.set("socket.nagle.disable", "true");
    // A broker that comes back is found quickly.
    config.set("reconnect.backoff.max.ms", "2000");
    config
}

/// Settings of a source's producer; transactional with a time-out of transactions.
pub fn producer_config(
    kafka: &KafkaConfig,
    source_name: &str,
    transaction_timeout: Option<Duration>,
) -> ClientConfig {
    let mut config = client_config(kafka);
    let mut message_timeout = MESSAGE_TIMEOUT;
    if let Some(timeout) = transaction_timeout {
        message_timeout = message_timeout.min(timeout);
        config.set("transactional.id", format!("binlake.{source_name}"));
        config.set("transaction.timeout.ms", timeout.as_millis().to_string());
    }
    config.set("message.timeout.ms", message_timeout.as_millis().to_string());
    config.set("enable.idempotence", "true");
    config.set("compression.codec", "lz4");
    // A commit flushes at once, so lingering delays nobody.
    config.set("linger.ms", "50");
    config.set("batch.num.messages", "100000");
    // The partition that Java's clients choose; librdkafka's own default chooses others.
    config.set("partitioner", "murmur2_random");
    config.set("message.max.bytes", RECORD_BYTES_MAX.to_string());
    config.set("queue.buffering.max.kbytes", (128 * 1024).to_string());
    config.set("queue.buffering.max.messages", "1000000");
    config.set("delivery.report.only.error", "true");
    config
}

/// A consumer that is told its partitions and never commits by itself.
pub fn consumer(
    kafka: &KafkaConfig,
    group: &str,
    isolation: Isolation,
) -> Result<LogConsumer, LogError> {
    let mut config = client_config(kafka);
    config.set("group.id", group);
    config.set(
        "isolation.level",
        match isolation {
            Isolation::ReadCommitted => "read_committed",
            Isolation::ReadUncommitted => "read_uncommitted",
        },
    );
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    // Records that are gone are an error, never skipped.
    config.set("auto.offset.reset", "error");
    // Control records are passed silently; the end of the partition tells how far that went.
    config.set("enable.partition.eof", "true");
    config.set("queued.max.messages.kbytes", (16 * 1024).to_string());
    config.set("fetch.message.max.bytes", (1024 * 1024).to_string());
    config.set("fetch.max.bytes", (16 * 1024 * 1024).to_string());
    config.set("receive.message.max.bytes", (110 * 1024 * 1024).to_string());
    config.set("fetch.wait.max.ms", "100");
    config.set("fetch.error.backoff.ms", "50");
    config.create_with_context(ConsumerEvents).map_err(|error| unavailable(kafka, &error))
}

/// Fails when no broker answers within `timeout`.
pub fn check_reachable(
    consumer: &LogConsumer,
    kafka: &KafkaConfig,
    timeout: Duration,
) -> Result<(), LogError> {
    match consumer.client().fetch_metadata(Some("binlake"), timeout) {
        Ok(_) => Ok(()),
        Err(error) => Err(unavailable(kafka, &error)),
    }
}

/// A call that failed because the brokers can't be reached or refuse this client.
pub fn unavailable(kafka: &KafkaConfig, error: &KafkaError) -> LogError {
    let cure = match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed,
        ) => "give binlake's user the right to do this",
        _ => "check bootstrap_servers and that the brokers are up",
    };
    LogError::Unavailable {
        place: kafka.bootstrap_servers.clone(),
        reason: format!("{error}; {cure}"),
    }
}
