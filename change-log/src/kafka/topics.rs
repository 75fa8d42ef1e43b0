//! Makes the topics of a source, and refuses those that would lose records or mix up their order.

use std::{
    collections::HashMap,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::Consumer,
    error::{KafkaError, RDKafkaErrorCode},
    types::RDKafkaRespErr,
};

use super::client::{Events, LogConsumer, RECORD_BYTES_MAX, authorize, client_config, unavailable};
use crate::{
    config::KafkaConfig,
    error::LogError,
    writer::{Cleanup, TopicSpec},
};

const HOUR_MS: i64 = 60 * 60 * 1000;
const METADATA_INTERVAL: Duration = Duration::from_millis(20);

/// A topic as Kafka has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KafkaTopic {
    /// How many partitions it has.
    pub partitions: i32,
    /// How long it keeps records by their time; `None` for ever.
    pub retention_ms: Option<i64>,
    /// How large a record may be when it is compressed (`max.message.bytes`).
    pub record_bytes_max: Option<usize>,
}

/// Makes and looks at topics.
pub struct Topics {
    admin: AdminClient<Events>,
    kafka: KafkaConfig,
    timeout: Duration,
}

impl Topics {
    /// Opens a client of its own.
    pub fn open(kafka: &KafkaConfig, timeout: Duration) -> Result<Self, LogError> {
        let admin = client_config(kafka)?
            .create_with_context(Events::of(kafka))
            .map_err(|error| unavailable(kafka, &error))?;
        Ok(Self { admin, kafka: kafka.clone(), timeout })
    }

    /// Makes the topic when it is missing, checks that it fits, and waits until its partitions can be used.
    pub fn ensure(&self, consumer: &LogConsumer, spec: &TopicSpec) -> Result<KafkaTopic, LogError> {
        let deadline = Instant::now() + self.timeout;
        // Nobody polls these two: they would not see that their tokens run out.
        authorize(self.admin.inner(), &self.kafka)?;
        authorize(consumer.client(), &self.kafka)?;
        let look = || {
            presence(consumer, &spec.name, self.timeout)
                .map_err(|error| unavailable(&self.kafka, &error))
        };
        // One that has lost its leader for a moment is there: only one that the brokers do not know is made.
        if look()? == Presence::Absent {
            self.create(spec)?;
        }
        let partitions = loop {
            match look()? {
                Presence::Partitions(partitions) => break partitions,
                _ if Instant::now() < deadline => thread::sleep(METADATA_INTERVAL),
                _ => return Err(without_leader(&self.kafka, &spec.name)),
            }
        };
        let settings = self.settings(&spec.name)?;
        let policy = settings.get("cleanup.policy").map_or("delete", String::as_str);
        check_fit(spec, partitions, policy)?;
        let retention_ms = settings
            .get("retention.ms")
            .and_then(|value| value.parse().ok())
            .filter(|&value| value >= 0 && spec.cleanup != Cleanup::Compact);
        let record_bytes_max =
            settings.get("max.message.bytes").and_then(|value| value.parse().ok());
        Ok(KafkaTopic { partitions, retention_ms, record_bytes_max })
    }

    fn create(&self, spec: &TopicSpec) -> Result<(), LogError> {
        let retention_ms = (i64::from(self.kafka.retention_hours) * HOUR_MS).to_string();
        let record_bytes = RECORD_BYTES_MAX.to_string();
        let replication = TopicReplication::Fixed(self.kafka.replication);
        let topic = match spec.cleanup {
            Cleanup::Delete | Cleanup::Expire => {
                let partitions =
                    if spec.cleanup == Cleanup::Expire { 1 } else { self.kafka.partitions };
                NewTopic::new(&spec.name, partitions, replication)
                    .set("cleanup.policy", "delete")
                    .set("retention.ms", &retention_ms)
            }
            // Small segments: Kafka compacts closed ones only, and the positions are many.
            Cleanup::Compact => NewTopic::new(&spec.name, 1, replication)
                .set("cleanup.policy", "compact")
                .set("segment.bytes", "16777216")
                .set("segment.ms", "3600000"),
        };
        let topic = topic.set("max.message.bytes", &record_bytes);
        let options = AdminOptions::new()
            .request_timeout(Some(self.timeout))
            .operation_timeout(Some(self.timeout));
        let results = block_on(self.admin.create_topics([&topic], &options))
            .map_err(|error| unavailable(&self.kafka, &error))?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    let error = KafkaError::AdminOp(code);
                    let LogError::Unavailable { place, reason } = unavailable(&self.kafka, &error)
                    else {
                        continue;
                    };
                    let reason = format!("topic {topic} can't be made: {reason}");
                    return Err(LogError::Unavailable { place, reason });
                }
            }
        }
        Ok(())
    }

    fn settings(&self, topic: &str) -> Result<HashMap<String, String>, LogError> {
        let options = AdminOptions::new().request_timeout(Some(self.timeout));
        let failed = |error: KafkaError| unavailable(&self.kafka, &error);
        let results =
            block_on(self.admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options))
                .map_err(failed)?;
        let mut settings = HashMap::new();
        for result in results {
            let resource = result.map_err(|code| failed(KafkaError::AdminOp(code)))?;
            let entries = resource.entries.into_iter();
            settings.extend(entries.filter_map(|entry| Some((entry.name, entry.value?))));
        }
        Ok(settings)
    }
}

/// Whether a topic is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// The brokers do not know it.
    Absent,
    /// It is there, and a partition has no leader: it is being made, or its broker is away.
    WithoutLeader,
    /// It is there, with so many partitions.
    Partitions(i32),
}

/// Asks the brokers for a topic.
pub fn presence(
    consumer: &LogConsumer,
    topic: &str,
    timeout: Duration,
) -> Result<Presence, KafkaError> {
    let metadata = consumer.client().fetch_metadata(Some(topic), timeout)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Ok(Presence::Absent);
    };
    match found.error() {
        None => {}
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::TopicAuthorizationFailed));
        }
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => {
            return Ok(Presence::Absent);
        }
        Some(_) => return Ok(Presence::WithoutLeader),
    }
    let partitions = found.partitions();
    if partitions.is_empty() || partitions.iter().any(|partition| partition.leader() < 0) {
        return Ok(Presence::WithoutLeader);
    }
    Ok(i32::try_from(partitions.len()).map_or(Presence::WithoutLeader, Presence::Partitions))
}

/// A topic that could not be waited for.
pub fn without_leader(kafka: &KafkaConfig, topic: &str) -> LogError {
    LogError::Unavailable {
        place: kafka.bootstrap_servers.clone(),
        reason: format!("topic {topic} has no leader; check the brokers"),
    }
}

fn check_fit(spec: &TopicSpec, partitions: i32, policy: &str) -> Result<(), LogError> {
    let compacts = policy.split(',').any(|part| part.trim() == "compact");
    let deletes = policy.split(',').any(|part| part.trim() == "delete");
    let reason = match spec.cleanup {
        Cleanup::Compact if !compacts || deletes => {
            format!(
                "it must have cleanup.policy=compact and has {policy}; change it with kafka-configs"
            )
        }
        Cleanup::Compact if partitions != 1 => {
            format!(
                "it must have one partition and has {partitions}; delete it or rename the source"
            )
        }
        Cleanup::Delete | Cleanup::Expire if compacts => format!(
            "compaction would remove changes: it must have cleanup.policy=delete and has {policy}; \
             change it with kafka-configs"
        ),
        Cleanup::Compact | Cleanup::Delete | Cleanup::Expire => return Ok(()),
    };
    Err(LogError::Unfit { place: format!("topic {}", spec.name), reason })
}

/// Waits for the admin client, whose own thread completes its futures.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_that_would_lose_or_mix_records_are_refused() {
        let check = |cleanup, partitions, policy| {
            let spec = TopicSpec { name: "t".to_owned(), cleanup };
            check_fit(&spec, partitions, policy).map_err(|error| error.to_string())
        };
        assert_eq!(check(Cleanup::Delete, 5, "delete"), Ok(()));
        assert_eq!(check(Cleanup::Compact, 1, "compact"), Ok(()));
        for (cleanup, partitions, policy, said) in [
            (Cleanup::Delete, 1, "compact", "cleanup.policy=delete"),
            (Cleanup::Delete, 1, "compact, delete", "cleanup.policy=delete"),
            (Cleanup::Compact, 1, "delete", "cleanup.policy=compact"),
            (Cleanup::Compact, 1, "compact,delete", "cleanup.policy=compact"),
            (Cleanup::Compact, 2, "compact", "one partition"),
        ] {
            let error = check(cleanup, partitions, policy).expect_err("refused");
            assert!(error.contains(said) && error.contains("topic t"), "{error}");
        }
    }
}
