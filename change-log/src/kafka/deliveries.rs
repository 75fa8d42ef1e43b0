//! What became of the records that the brokers did not take.

use std::{
    error::Error,
    sync::{Mutex, PoisonError},
};

use rdkafka::{
    ClientContext, Message,
    client::OAuthToken,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::ProducerContext,
};

use super::security::TokenFile;
use crate::config::KafkaConfig;

/// Keeps the first record that the brokers refused.
#[derive(Debug)]
pub struct Deliveries {
    failed: Mutex<Option<FailedDelivery>>,
    token: Option<TokenFile>,
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
    /// Of a producer as it is configured.
    pub fn of(kafka: &KafkaConfig) -> Self {
        Self { failed: Mutex::default(), token: TokenFile::of(kafka) }
    }

    /// The first failure.
    pub fn failed(&self) -> Option<FailedDelivery> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Deliveries {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let token = self.token.as_ref().ok_or("there is no sasl_token_file")?;
        Ok(token.read()?)
    }

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
