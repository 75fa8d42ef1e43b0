//! What a Kafka client's error asks of the writer: to call again, to give the transaction up, or to stop.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// What to do about a producer's error (librdkafka's INTRODUCTION.md, "Transactional producer", "Error handling").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same call again: nothing has happened, or it goes on where it was.
    Retriable,
    /// The open transaction is lost: abort it, and begin again at the last committed position.
    Abortable,
    /// The producer is of no use any more.
    Fatal,
}

/// The class of an error of any call of a producer.
pub fn classify(error: &KafkaError) -> Class {
    match error {
        KafkaError::Transaction(error) if error.is_fatal() => Class::Fatal,
        KafkaError::Transaction(error) if error.txn_requires_abort() => Class::Abortable,
        KafkaError::Transaction(error) if error.is_retriable() => Class::Retriable,
        error if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) => Class::Fatal,
        // A call that ran out of time goes on in the background; asked again, it is waited for.
        KafkaError::Transaction(error) if error.code() == RDKafkaErrorCode::OperationTimedOut => {
            Class::Retriable
        }
        _ => Class::Abortable,
    }
}

/// Whether a producer's error says that a newer one took its place.
pub fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
    )
}

/// Whether the same record would be refused again.
pub fn refuses_for_ever(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
    )
}

/// Whether the brokers do not know (any more) how to do what was asked, whoever asks.
pub fn lacks_transactions(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::UnsupportedFeature
            | RDKafkaErrorCode::UnsupportedVersion
            | RDKafkaErrorCode::UnsupportedForMessageFormat
    )
}
