//! Asks for a partition's first and next offset, and again while its leader is changing.

use std::{
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::client::LogConsumer;

const ASK_INTERVAL: Duration = Duration::from_millis(50);

/// The first offset and the high watermark of a partition, by the deadline.
///
/// librdkafka gives an answer of a broker that leads no longer, or not yet, back to its caller: a topic that was made
/// a moment ago has its leader in the metadata before that broker knows of it.
pub fn watermarks(
    consumer: &LogConsumer,
    topic: &str,
    partition: i32,
    deadline: Instant,
) -> Result<(i64, i64), KafkaError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match consumer.fetch_watermarks(topic, partition, left.max(ASK_INTERVAL)) {
            Err(error) if is_passing(&error) && Instant::now() + ASK_INTERVAL < deadline => {
                thread::sleep(ASK_INTERVAL);
            }
            found => return found,
        }
    }
}

/// Whether a consumer's error goes by itself, for brokers come back and leaders are elected.
pub fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{
        AllBrokersDown, BrokerTransportFailure, LeaderNotAvailable, NotLeaderForPartition,
        OperationTimedOut, Resolve, UnknownPartition, UnknownTopicOrPartition,
    };
    matches!(
        error.rdkafka_error_code(),
        Some(
            AllBrokersDown
                | BrokerTransportFailure
                | LeaderNotAvailable
                | NotLeaderForPartition
                | OperationTimedOut
                | Resolve
                | UnknownPartition
                | UnknownTopicOrPartition
        )
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::{
        mocking::MockCluster,
        types::{RDKafkaApiKey, RDKafkaRespErr},
    };

    use super::*;
    use crate::{
        config::KafkaConfig,
        kafka::client::{Isolation, consumer},
    };

    /// No server can be made to answer so when it is asked; librdkafka's own test cluster can.
    #[test]
    fn an_election_is_waited_for_and_a_refusal_is_not() {
        let cluster = MockCluster::new(1).expect("a cluster");
        cluster.create_topic("t", 1, 1).expect("a topic");
        let kafka = KafkaConfig::new(cluster.bootstrap_servers());
        let consumer = consumer(&kafka, "watermarks", Isolation::ReadUncommitted);
        let consumer = consumer.expect("a consumer");
        let answer_with = |error| {
            cluster.clear_request_errors(RDKafkaApiKey::ListOffsets);
            cluster.request_errors(RDKafkaApiKey::ListOffsets, &[error; 12]);
            watermarks(&consumer, "t", 0, Instant::now() + Duration::from_secs(60))
        };
        let elected = answer_with(RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION);
        assert_eq!(elected, Ok((0, 0)));
        let refused = answer_with(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED);
        assert_eq!(
            refused,
            Err(KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed))
        );
    }
}
