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
    client::{TRANSACTION_TIMEOUTS, authorize, producer_config, unavailable},
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
        let producer: BaseProducer<Deliveries> = producer_config(kafka, source_name, timeout)?
            .create_with_context(Deliveries::of(kafka))
            .map_err(|error| unavailable(kafka, &error))?;
        authorize(producer.client(), kafka)?;
        Ok::<_, LogError>(producer)
    };
    if kafka.delivery == Delivery::AtLeastOnce {
        return Ok(OpenProducer { producer: create(None)?, transaction_timeout: None });
    }
    let [longest, shorter] = TRANSACTION_TIMEOUTS;
    let mut timeout = longest;
    let mut producer = create(Some(timeout))?;
    let mut ready = init_transactions(&producer, deadline);
    if ready.as_ref().err().and_then(KafkaError::rdkafka_error_code)
        == Some(RDKafkaErrorCode::InvalidTransactionTimeout)
    {
        timeout = shorter;
        producer = create(Some(timeout))?;
        ready = init_transactions(&producer, deadline);
    }
    let opened = ready.map(|()| OpenProducer { producer, transaction_timeout: Some(timeout) });
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
