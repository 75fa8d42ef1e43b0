//! Opens a source's producer.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, Producer},
};

use super::{
    client::{TRANSACTION_TIMEOUTS, producer_config, unavailable},
    deliveries::Deliveries,
    error_class::{Class, classify, lacks_transactions},
};
use crate::{
    config::{Delivery, KafkaConfig},
    error::LogError,
};

const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A producer, and how long its transactions may last; `None` when it has none.
pub struct OpenProducer {
    pub producer: BaseProducer<Deliveries>,
    pub transaction_timeout: Option<Duration>,
}

/// Opens the producer of a source. With transactions it fences the older one and ends what that left open, and its own
/// may last as long as the brokers let them.
pub fn open_producer(
    kafka: &KafkaConfig,
    source_name: &str,
    deadline: Instant,
) -> Result<OpenProducer, LogError> {
    let create = |timeout: Option<Duration>| {
        producer_config(kafka, source_name, timeout).create_with_context(Deliveries::default())
    };
    if kafka.delivery == Delivery::AtLeastOnce {
        let producer = create(None).map_err(|error| unavailable(kafka, &error))?;
        return Ok(OpenProducer { producer, transaction_timeout: None });
    }
    let open = |timeout| {
        let producer = create(Some(timeout))?;
        init_transactions(&producer, deadline)?;
        Ok(OpenProducer { producer, transaction_timeout: Some(timeout) })
    };
    let [longest, shorter] = TRANSACTION_TIMEOUTS;
    let opened = open(longest).or_else(|error: KafkaError| match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::InvalidTransactionTimeout) => open(shorter),
        _ => Err(error),
    });
    opened.map_err(|error| match error.rdkafka_error_code() {
        Some(code) if lacks_transactions(code) => LogError::Unfit {
            place: kafka.bootstrap_servers.clone(),
            reason: format!(
                "the brokers have no transactions ({error}); write delivery = \"at_least_once\" in [change_log], or use \
                 Kafka 2.5 or newer"
            ),
        },
        _ => unavailable(kafka, &error),
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
