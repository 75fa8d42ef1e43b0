//! What became of the records that the brokers did not take.

use std::sync::{Mutex, PoisonError};

use rdkafka::{
    ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::ProducerContext,
};

/// Keeps the first record that the brokers refused.
#[derive(Debug, Default)]
pub struct Deliveries {
    failed: Mutex<Option<FailedDelivery>>,
}

/// A record that was not delivered.
#[derive(Clone, Debug)]
pub struct FailedDelivery {
    /// Its topic.
    pub topic: String,
    /// The error's code.
    pub code: Option<RDKafkaErrorCode>,
    /// The error's text.
    pub reason: String,
}

impl Deliveries {
    /// The first failure.
    pub fn failed(&self) -> Option<FailedDelivery> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        // What it means for the writer comes with the calls; brokers that are away are told by the wait for them.
        tracing::debug!(%error, reason, "kafka");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            // What fails because the transaction was given up says nothing about why.
            let purged = matches!(
                error.rdkafka_error_code(),
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight)
            );
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
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
