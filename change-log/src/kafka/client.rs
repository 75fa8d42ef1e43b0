//! Settings of Kafka clients, and what a client's error means for the log.

use std::{
    error::Error,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext,
    client::{Client, OAuthToken},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::security::{TokenFile, secure};
use crate::{config::KafkaConfig, error::LogError};

/// How long one try to reach a broker takes before it is asked why it failed.
const REACH_INTERVAL: Duration = Duration::from_secs(1);

const EVENTS_LOOKED_AT: usize = 20;
const EVENT_INTERVAL: Duration = Duration::from_millis(5);

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

/// How a client's events are told: the end of a partition is no error, and brokers that are away for a moment are a
/// warning, for the client comes back by itself.
#[derive(Debug, Default)]
pub struct Events {
    token: Option<TokenFile>,
    /// Why the brokers refused this client, or could not be reached, at last.
    refused: Mutex<Option<(RDKafkaErrorCode, String)>>,
}

impl Events {
    /// Of a client as it is configured.
    pub fn of(kafka: &KafkaConfig) -> Self {
        Self { token: TokenFile::of(kafka), refused: Mutex::default() }
    }

    fn refused(&self) -> Option<(RDKafkaErrorCode, String)> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Events {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn error(&self, error: KafkaError, reason: &str) {
        let code =
            error.rdkafka_error_code().filter(|&code| code != RDKafkaErrorCode::PartitionEOF);
        let Some(code) = code else { return };
        tracing::warn!(%error, reason, "kafka");
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        // That all brokers are down says less than why.
        if code != RDKafkaErrorCode::AllBrokersDown || refused.is_none() {
            *refused = Some((code, reason.to_owned()));
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let token = self.token.as_ref().ok_or("there is no sasl_token_file")?;
        Ok(token.read()?)
    }
}

impl ConsumerContext for Events {}

/// A consumer of the log.
pub type LogConsumer = BaseConsumer<Events>;

/// Settings that all clients share.
pub fn client_config(kafka: &KafkaConfig) -> Result<ClientConfig, LogError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.bootstrap_servers);
    config.set("client.id", "binlake");
    config.set("socket.nagle.disable", "true");
    // A broker that comes back is found quickly.
    config.set("reconnect.backoff.max.ms", "2000");
    secure(&mut config, kafka)?;
    Ok(config)
}

/// Gives a client its token, where one is used.
pub fn authorize<C: ClientContext>(
    client: &Client<C>,
    kafka: &KafkaConfig,
) -> Result<(), LogError> {
    let Some(token) = TokenFile::of(kafka) else { return Ok(()) };
    let failed = |reason| LogError::Unavailable { place: kafka.bootstrap_servers.clone(), reason };
    token.give(client).map_err(failed)
}

/// Settings of a source's producer; transactional with a time-out of transactions.
pub fn producer_config(
    kafka: &KafkaConfig,
    source_name: &str,
    transaction_timeout: Option<Duration>,
) -> Result<ClientConfig, LogError> {
    let mut config = client_config(kafka)?;
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
    Ok(config)
}

/// A consumer that is told its partitions and never commits by itself.
pub fn consumer(
    kafka: &KafkaConfig,
    group: &str,
    isolation: Isolation,
) -> Result<LogConsumer, LogError> {
    let mut config = client_config(kafka)?;
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
    let consumer: LogConsumer = config
        .create_with_context(Events::of(kafka))
        .map_err(|error| unavailable(kafka, &error))?;
    authorize(consumer.client(), kafka)?;
    Ok(consumer)
}

/// Fails when no broker answers within `timeout`, or at once when they refuse this client.
pub fn check_reachable(
    consumer: &LogConsumer,
    kafka: &KafkaConfig,
    timeout: Duration,
) -> Result<(), LogError> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let step = left.min(REACH_INTERVAL).max(Duration::from_millis(1));
        let error = match consumer.client().fetch_metadata(Some("binlake"), step) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // Why it failed comes as events; not every one of them ends a poll with a value.
        for _ in 0..EVENTS_LOOKED_AT {
            let _ = consumer.poll(EVENT_INTERVAL);
        }
        let refused = consumer.client().context().refused();
        match refused {
            Some((code, reason)) if cure_of_refusal(code, &reason).is_some() => {
                return Err(refusal(kafka, code, &reason));
            }
            Some((code, reason)) if Instant::now() >= deadline => {
                return Err(refusal(kafka, code, &reason));
            }
            None if Instant::now() >= deadline => return Err(unavailable(kafka, &error)),
            Some(_) | None => {}
        }
    }
}

/// What to do when trying again is of no use until something is changed.
fn cure_of_refusal(code: RDKafkaErrorCode, reason: &str) -> Option<&'static str> {
    match code {
        RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
            Some("check sasl_mechanism, sasl_username and its password, or sasl_token_file")
        }
        // OpenSSL says the same of a wrong CA and of a wrong name.
        RDKafkaErrorCode::SSL if reason.contains("verify failed") => Some(
            "check ssl_ca (the brokers' CA) and that the certificate names this host (ssl_verify_identity = false asks for \
             no name)",
        ),
        // A broker that refuses the client's certificate says so after the handshake.
        _ if code == RDKafkaErrorCode::SSL || reason.contains("SSL routines") => {
            Some("check ssl_cert and ssl_key, if the brokers ask for a certificate")
        }
        RDKafkaErrorCode::BrokerTransportFailure if reason.contains("security.protocol") => {
            Some("check security_protocol: does this port speak TLS?")
        }
        _ => None,
    }
}

fn refusal(kafka: &KafkaConfig, code: RDKafkaErrorCode, reason: &str) -> LogError {
    // A port that speaks TLS closes other connections without a word.
    let cure = cure_of_refusal(code, reason).unwrap_or(
        "check bootstrap_servers, that the brokers are up, and security_protocol (does this port speak TLS?)",
    );
    LogError::Unavailable {
        place: kafka.bootstrap_servers.clone(),
        reason: format!("{reason}; {cure}"),
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
