//! Reads the last committed position of a source from its compacted topic. The older writer must be fenced before.

use std::time::{Duration, Instant};

use rdkafka::{Message, Offset, TopicPartitionList, consumer::Consumer, error::KafkaError};

use super::{
    client::{Isolation, LogConsumer, consumer, unavailable},
    watermarks::{is_passing, watermarks},
};
use crate::{config::KafkaConfig, error::LogError};

const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The last position is the last record or close to it: behind it are only records of aborted transactions.
const FIRST_STEP: i64 = 200;

/// Where the positions are, and how long to wait for them.
#[derive(Clone, Copy, Debug)]
pub struct PositionQuery<'a> {
    /// The brokers.
    pub kafka: &'a KafkaConfig,
    /// The source, which is the records' key.
    pub source_name: &'a str,
    /// The topic.
    pub topic: &'a str,
    /// When to give up.
    pub deadline: Instant,
}

/// The last position; `None` when there is none.
pub fn last_position(
    query: &PositionQuery<'_>,
    uncommitted: &LogConsumer,
) -> Result<Option<Vec<u8>>, LogError> {
    let failed = |error: KafkaError| unavailable(query.kafka, &error);
    // The high watermark, and not the last stable offset: another transaction must not hide our last record.
    let (low, high) = watermarks(uncommitted, query.topic, 0, query.deadline).map_err(failed)?;
    let mut step = FIRST_STEP;
    let mut to = high;
    while to > low {
        let from = high.saturating_sub(step).max(low);
        let found = read_range(query, from, high).map_err(|error| match error {
            ReadError::Kafka(error) => failed(error),
            ReadError::TooSlow => LogError::Unavailable {
                place: query.kafka.bootstrap_servers.clone(),
                reason: format!(
                    "{} was not read to its end in time; check that the brokers are up",
                    query.topic
                ),
            },
        })?;
        if found.is_some() {
            return Ok(found);
        }
        to = from;
        step = step.saturating_mul(16);
    }
    Ok(None)
}

enum ReadError {
    Kafka(KafkaError),
    TooSlow,
}

impl From<KafkaError> for ReadError {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

fn read_range(
    query: &PositionQuery<'_>,
    from: i64,
    high: i64,
) -> Result<Option<Vec<u8>>, ReadError> {
    let committed = consumer(query.kafka, "binlake-positions", Isolation::ReadCommitted)
        .map_err(|_| ReadError::TooSlow)?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(query.topic, 0, Offset::Offset(from))?;
    committed.assign(&assignment)?;
    let mut found = None;
    let mut next_offset = from;
    while next_offset < high {
        match committed.poll(POLL_INTERVAL) {
            Some(Ok(message)) => {
                next_offset = message.offset() + 1;
                if message.key() == Some(query.source_name.as_bytes()) {
                    found = message.payload().map(<[u8]>::to_vec);
                }
            }
            // The end of what is stable, or of the partition; control records have moved the position.
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                let position = committed.position()?;
                let stored = position.find_partition(query.topic, 0);
                if let Some(Offset::Offset(offset)) = stored.map(|element| element.offset()) {
                    next_offset = next_offset.max(offset);
                }
            }
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(error)) => return Err(ReadError::Kafka(error)),
        }
        if Instant::now() >= query.deadline && next_offset < high {
            return Err(ReadError::TooSlow);
        }
    }
    Ok(found)
}
