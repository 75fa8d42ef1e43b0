//! A reader of committed records: one consumer for all assigned partitions, without a consumer group's assignment.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tracing::{debug, warn};

use super::{
    client::{Isolation, LogConsumer, check_reachable, consumer, unavailable},
    headers::add_headers,
    topics::{Presence, presence, without_leader},
    watermarks::watermarks,
};
use crate::{
    config::KafkaConfig,
    error::LogError,
    reader::{Consumed, LogReader, RecordSpan, TopicInfo},
};

const BATCH_BYTES: usize = 4 * 1024 * 1024;
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How often a topic that does not exist yet is looked for.
const WAITING_INTERVAL: Duration = Duration::from_millis(250);

/// A reader of all topics of a Kafka cluster.
pub struct KafkaReader {
    consumer: LogConsumer,
    kafka: KafkaConfig,
    timeout: Duration,
    assigned: HashMap<Arc<str>, HashMap<i32, AssignedPartition>>,
    ever_assigned: HashSet<(Arc<str>, i32)>,
    waiting_checked: Option<Instant>,
    /// Read but not yet returned: one batch, and behind it the first record of the next.
    gathered: VecDeque<Consumed>,
    /// Read but not yet returned, of paused partitions.
    held: Vec<Consumed>,
    end_reached: bool,
    committers: HashMap<String, LogConsumer>,
}

#[derive(Debug)]
struct AssignedPartition {
    /// The offset after the last record that was gathered.
    next_offset: i64,
    paused: bool,
    /// The topic does not exist yet.
    waiting: bool,
    /// Whether the consumer's position is of this assignment and can't be left from an earlier one.
    position_counts: bool,
}

impl fmt::Debug for KafkaReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaReader").field("assigned", &self.assigned).finish_non_exhaustive()
    }
}

impl KafkaReader {
    /// Opens a reader; fails when no broker answers within `timeout`.
    pub fn open(kafka: &KafkaConfig, timeout: Duration) -> Result<Self, LogError> {
        let consumer = consumer(kafka, "binlake-reader", Isolation::ReadCommitted)?;
        check_reachable(&consumer, kafka, timeout)?;
        Ok(Self {
            consumer,
            kafka: kafka.clone(),
            timeout,
            assigned: HashMap::new(),
            ever_assigned: HashSet::new(),
            waiting_checked: None,
            gathered: VecDeque::new(),
            held: Vec::new(),
            end_reached: false,
            committers: HashMap::new(),
        })
    }

    fn failed(&self, error: &KafkaError) -> LogError {
        unavailable(&self.kafka, error)
    }

    fn partition_mut(
        &mut self,
        topic: &str,
        partition: i32,
    ) -> Result<&mut AssignedPartition, LogError> {
        self.assigned
            .get_mut(topic)
            .and_then(|partitions| partitions.get_mut(&partition))
            .ok_or_else(|| LogError::Unfit {
                place: format!("{topic}[{partition}]"),
                reason: "it is not assigned to this reader".to_owned(),
            })
    }

    fn partition_exists(&self, topic: &str, partition: i32) -> Result<bool, LogError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let found = presence(&self.consumer, topic, self.timeout);
            match found.map_err(|error| self.failed(&error))? {
                Presence::Absent => return Ok(false),
                Presence::Partitions(count) => return Ok(partition < count),
                // Not absent: its offsets would be taken for those of a log that was made anew.
                Presence::WithoutLeader if Instant::now() < deadline => {
                    std::thread::sleep(POLL_INTERVAL);
                }
                Presence::WithoutLeader => return Err(without_leader(&self.kafka, topic)),
            }
        }
    }

    fn ends(&self, topic: &str, partition: i32) -> Result<(i64, i64), LogError> {
        let deadline = Instant::now() + self.timeout;
        let found = watermarks(&self.consumer, topic, partition, deadline);
        found.map_err(|error| self.failed(&error))
    }

    /// Fails when the offset is not in the partition (any more).
    fn check_offset(&self, topic: &str, partition: i32, wanted: i64) -> Result<(), LogError> {
        let (first, end) = self.ends(topic, partition)?;
        if (first..=end).contains(&wanted) {
            return Ok(());
        }
        Err(LogError::OffsetGone { topic: topic.to_owned(), partition, wanted, first })
    }

    fn start(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), LogError> {
        let add = |offset| {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic, partition, offset)?;
            self.consumer.incremental_assign(&list)
        };
        add(Offset::Offset(offset)).map_err(|error| self.failed(&error))?;
        if self.partition_mut(topic, partition)?.paused {
            self.set_paused(topic, partition)?;
        }
        Ok(())
    }

    fn set_paused(&mut self, topic: &str, partition: i32) -> Result<(), LogError> {
        let assigned = self.partition_mut(topic, partition)?;
        if assigned.waiting {
            return Ok(());
        }
        let paused = assigned.paused;
        let list = one(topic, partition);
        let done = if paused { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        done.map_err(|error| self.failed(&error))
    }

    /// Starts the partitions whose topics exist by now.
    fn start_waiting(&mut self) -> Result<(), LogError> {
        if self.waiting_checked.is_some_and(|at| at.elapsed() < WAITING_INTERVAL) {
            return Ok(());
        }
        self.waiting_checked = Some(Instant::now());
        let waiting: Vec<(Arc<str>, i32, i64)> = self
            .assigned
            .iter()
            .flat_map(|(topic, partitions)| {
                let waiting = partitions.iter().filter(|(_, assigned)| assigned.waiting);
                waiting.map(|(&partition, assigned)| {
                    (Arc::clone(topic), partition, assigned.next_offset)
                })
            })
            .collect();
        for (topic, partition, offset) in waiting {
            if self.partition_exists(&topic, partition)? {
                self.check_offset(&topic, partition, offset)?;
                self.partition_mut(&topic, partition)?.waiting = false;
                self.start(&topic, partition, offset)?;
            }
        }
        Ok(())
    }

    /// Takes what the consumer has, up to one batch of one partition; waits for the first record at most `timeout`.
    fn gather(&mut self, timeout: Duration) -> Result<(), LogError> {
        let mut timeout = timeout;
        loop {
            let found = match self.consumer.poll(timeout) {
                None => Gathered::Nothing,
                Some(Ok(message)) => {
                    let assigned = self
                        .assigned
                        .get_key_value(message.topic())
                        .map(|(topic, _)| Arc::clone(topic));
                    match assigned {
                        Some(topic) => {
                            add_message(&mut self.assigned, &mut self.gathered, topic, &message)?
                        }
                        None => Gathered::More,
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.end_reached = true;
                    Gathered::More
                }
                Some(Err(error)) => {
                    self.judge(error)?;
                    Gathered::More
                }
            };
            match found {
                Gathered::More => timeout = Duration::ZERO,
                Gathered::Full => return Ok(()),
                Gathered::Nothing => break,
            }
        }
        if std::mem::take(&mut self.end_reached) {
            self.pass_control_records()?;
        }
        Ok(())
    }

    /// At the end of a partition the consumer's position is behind the control records, which it does not return.
    fn pass_control_records(&mut self) -> Result<(), LogError> {
        let positions = self.consumer.position().map_err(|error| self.failed(&error))?;
        for element in positions.elements() {
            let Offset::Offset(offset) = element.offset() else {
                continue;
            };
            let Some((topic, partitions)) = self.assigned.get_key_value(element.topic()) else {
                continue;
            };
            let (topic, partition) = (Arc::clone(topic), element.partition());
            let passed = partitions
                .get(&partition)
                .is_some_and(|assigned| assigned.position_counts && assigned.next_offset < offset);
            if !passed {
                continue;
            }
            self.partition_mut(&topic, partition)?.next_offset = offset;
            let last = self.gathered.iter_mut().rfind(|batch| is_of(batch, &topic, partition));
            match last {
                Some(batch) => batch.next_offset = offset,
                None => self.gathered.push_back(Consumed {
                    topic,
                    partition,
                    bytes: Vec::new(),
                    records: Vec::new(),
                    next_offset: offset,
                }),
            }
        }
        Ok(())
    }

    fn judge(&mut self, error: KafkaError) -> Result<(), LogError> {
        if matches!(error, KafkaError::MessageConsumptionFatal(_)) {
            return Err(self.failed(&error));
        }
        match error.rdkafka_error_code() {
            // The error does not say which partition it is about.
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                for (topic, partitions) in &self.assigned {
                    for (&partition, assigned) in partitions.iter().filter(|(_, it)| !it.waiting) {
                        self.check_offset(topic, partition, assigned.next_offset)?;
                    }
                }
                Err(self.failed(&error))
            }
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::BadMessage,
            ) => Err(self.failed(&error)),
            // librdkafka goes on by itself when the brokers are back.
            _ => {
                warn!(%error, "reading from kafka is interrupted");
                Ok(())
            }
        }
    }

    fn forget_gathered(&mut self, topic: &str, partition: i32) {
        self.gathered.retain(|batch| !is_of(batch, topic, partition));
        self.held.retain(|batch| !is_of(batch, topic, partition));
    }
}

impl LogReader for KafkaReader {
    fn topics(&mut self, prefix: &str) -> Result<Vec<TopicInfo>, LogError> {
        let metadata = self.consumer.client().fetch_metadata(None, self.timeout);
        let metadata = metadata.map_err(|error| self.failed(&error))?;
        let fits = |name: &str| name.starts_with(prefix);
        let mut topics: Vec<_> = metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none() && fits(topic.name()))
            .map(|topic| TopicInfo {
                name: topic.name().to_owned(),
                partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
            })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    fn bounds(&mut self, topic: &str, partition: i32) -> Result<(i64, i64), LogError> {
        if !self.partition_exists(topic, partition)? {
            return Ok((0, 0));
        }
        self.ends(topic, partition)
    }

    fn assign(&mut self, topic: &str, partition: i32, offset: i64) -> Result<(), LogError> {
        let exists = self.partition_exists(topic, partition)?;
        if exists {
            self.check_offset(topic, partition, offset)?;
        } else if offset > 0 {
            let topic = topic.to_owned();
            return Err(LogError::OffsetGone { topic, partition, wanted: offset, first: 0 });
        }
        let paused = self.partition_mut(topic, partition).is_ok_and(|assigned| assigned.paused);
        self.unassign(topic, partition)?;
        let name: Arc<str> = match self.assigned.get_key_value(topic) {
            Some((name, _)) => Arc::clone(name),
            None => topic.into(),
        };
        let position_counts = self.ever_assigned.insert((Arc::clone(&name), partition));
        let assigned =
            AssignedPartition { next_offset: offset, paused, waiting: !exists, position_counts };
        self.assigned.entry(name).or_default().insert(partition, assigned);
        if exists { self.start(topic, partition, offset) } else { Ok(()) }
    }

    fn unassign(&mut self, topic: &str, partition: i32) -> Result<(), LogError> {
        self.forget_gathered(topic, partition);
        let Some(partitions) = self.assigned.get_mut(topic) else {
            return Ok(());
        };
        let Some(removed) = partitions.remove(&partition) else {
            return Ok(());
        };
        if partitions.is_empty() {
            self.assigned.remove(topic);
        }
        if removed.waiting {
            return Ok(());
        }
        let done = self.consumer.incremental_unassign(&one(topic, partition));
        done.map_err(|error| self.failed(&error))
    }

    fn pause(&mut self, topic: &str, partition: i32) -> Result<(), LogError> {
        self.partition_mut(topic, partition)?.paused = true;
        self.set_paused(topic, partition)?;
        let (held, kept): (Vec<_>, Vec<_>) =
            self.gathered.drain(..).partition(|batch| is_of(batch, topic, partition));
        self.held.extend(held);
        self.gathered = kept.into();
        Ok(())
    }

    fn resume(&mut self, topic: &str, partition: i32) -> Result<(), LogError> {
        self.partition_mut(topic, partition)?.paused = false;
        self.set_paused(topic, partition)?;
        let (again, held): (Vec<_>, Vec<_>) =
            self.held.drain(..).partition(|batch| is_of(batch, topic, partition));
        self.held = held;
        for batch in again.into_iter().rev() {
            self.gathered.push_front(batch);
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Result<Option<Consumed>, LogError> {
        let deadline = Instant::now() + timeout;
        loop {
            self.start_waiting()?;
            // A batch is complete when another one stands behind it, or when the consumer has no more for now.
            if self.gathered.len() < 2 {
                let left = deadline.saturating_duration_since(Instant::now());
                let patience = if self.gathered.is_empty() { left } else { Duration::ZERO };
                self.gather(patience.min(POLL_INTERVAL))?;
            }
            if let Some(consumed) = self.gathered.pop_front() {
                return Ok(Some(consumed));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    fn acknowledge(
        &mut self,
        group: &str,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<(), LogError> {
        if !self.committers.contains_key(group) {
            let committer = consumer(&self.kafka, group, Isolation::ReadCommitted)?;
            self.committers.insert(group.to_owned(), committer);
        }
        let Some(committer) = self.committers.get(group) else {
            return Ok(());
        };
        // Outcomes of earlier commits are taken from the queue; a lost one only makes lag tools lag.
        while committer.poll(Duration::ZERO).is_some() {}
        let mut list = TopicPartitionList::new();
        let committed = list
            .add_partition_offset(topic, partition, Offset::Offset(offset))
            .and_then(|()| committer.commit(&list, CommitMode::Async));
        if let Err(error) = committed {
            debug!(group, topic, partition, %error, "the group's offset was not committed");
        }
        Ok(())
    }
}

enum Gathered {
    More,
    Full,
    Nothing,
}

fn add_message(
    assigned: &mut HashMap<Arc<str>, HashMap<i32, AssignedPartition>>,
    gathered: &mut VecDeque<Consumed>,
    topic: Arc<str>,
    message: &BorrowedMessage<'_>,
) -> Result<Gathered, LogError> {
    let (partition, offset) = (message.partition(), message.offset());
    let Some(state) = assigned.get_mut(&topic).and_then(|all| all.get_mut(&partition)) else {
        return Ok(Gathered::More);
    };
    // Left over from before the partition was moved.
    if offset < state.next_offset {
        return Ok(Gathered::More);
    }
    state.next_offset = offset + 1;
    state.position_counts = true;
    let (key, value) = (message.key(), message.payload());
    let length = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len);
    let fits = |batch: &Consumed| batch.bytes.len() + length <= BATCH_BYTES;
    let full = match gathered.back() {
        Some(batch) if is_of(batch, &topic, partition) && fits(batch) => false,
        Some(_) => {
            gathered.push_back(empty(topic, partition));
            true
        }
        None => {
            gathered.push_back(empty(topic, partition));
            false
        }
    };
    if let Some(batch) = gathered.back_mut() {
        let mut span = |part: &[u8]| {
            let from = batch.bytes.len() as u32;
            batch.bytes.extend_from_slice(part);
            (from, batch.bytes.len() as u32)
        };
        let (key, value) = (key.map(&mut span), value.map(&mut span));
        let timestamp_ms = message.timestamp().to_millis().unwrap_or(0);
        let headers = add_headers(message, &mut batch.bytes)?;
        batch.records.push(RecordSpan { offset, timestamp_ms, key, value, headers });
        batch.next_offset = offset + 1;
    }
    Ok(if full { Gathered::Full } else { Gathered::More })
}

fn is_of(batch: &Consumed, topic: &str, partition: i32) -> bool {
    &*batch.topic == topic && batch.partition == partition
}

fn empty(topic: Arc<str>, partition: i32) -> Consumed {
    Consumed { topic, partition, bytes: Vec::new(), records: Vec::new(), next_offset: 0 }
}

fn one(topic: &str, partition: i32) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition);
    list
}
