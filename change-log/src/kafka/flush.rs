//! Waits until the producer's records are with the brokers.
//!
//! `BaseProducer::flush` asks librdkafka to flush for no time at all and then waits for events, which do not come for
//! records that were delivered (`delivery.report.only.error`): each commit would wait for the linger time and for up to
//! 100 ms more. librdkafka's own call ignores the linger time while it waits, and returns when the last record is out.
#![allow(unsafe_code)]

use std::time::Duration;

use rdkafka::{
    bindings::rd_kafka_flush,
    producer::{BaseProducer, Producer, ProducerContext},
    types::RDKafkaRespErr,
};

/// Waits at most `timeout`; `true` when no record is left. The caller polls the producer in between, because records
/// that failed count until their report was taken.
pub fn flush<C: ProducerContext>(producer: &BaseProducer<C>, timeout: Duration) -> bool {
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointer belongs to `producer`, which outlives the call, and librdkafka's handles may be used from
    // any thread.
    let result = unsafe { rd_kafka_flush(producer.client().native_ptr(), timeout_ms) };
    result == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}
