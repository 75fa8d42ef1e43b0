//! A log for one test, and short forms of what the tests do with it.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use change_log::{
    Cleanup, Consumed, EncodedBatch, EncodedRecord, KafkaConfig, LogConfig, LogReader, LogWriter,
    TopicHandle, TopicSpec, headers, open_reader, open_writer,
};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use tempfile::TempDir;

use crate::kafka_broker;

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A fresh log, and a source name that no other test has.
pub struct TestLog {
    pub config: LogConfig,
    pub source: String,
    _folder: Option<TempDir>,
}

/// An embedded log in a folder of its own.
pub fn embedded(test: &str) -> TestLog {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = LogConfig::Embedded { path: folder.path().join("log"), retention_hours: 24 };
    TestLog { config, source: source_name(test), _folder: Some(folder) }
}

/// A source of its own on the shared broker; `None` when there is no broker to be had.
pub fn kafka(test: &str) -> Option<TestLog> {
    let bootstrap_servers = kafka_broker::bootstrap_servers()?;
    let config = LogConfig::Kafka(KafkaConfig::new(bootstrap_servers));
    Some(TestLog { config, source: source_name(test), _folder: None })
}

fn source_name(test: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", test.replace('_', "-"), COUNT.fetch_add(1, Ordering::Relaxed))
}

impl TestLog {
    pub fn writer(&self) -> Box<dyn LogWriter> {
        open_writer(&self.config, &self.source, PATIENCE).expect("a writer")
    }

    pub fn reader(&self) -> Box<dyn LogReader> {
        open_reader(&self.config, PATIENCE).expect("a reader")
    }

    pub fn topic(&self, table: &str) -> String {
        format!("{}.db.{table}", self.source)
    }
}

pub fn data_topic(writer: &mut dyn LogWriter, name: &str) -> TopicHandle {
    let spec = TopicSpec { name: name.to_owned(), cleanup: Cleanup::Delete };
    writer.topic(&spec).expect("a data topic")
}

pub fn compacted_topic(writer: &mut dyn LogWriter, name: &str) -> TopicHandle {
    let spec = TopicSpec { name: name.to_owned(), cleanup: Cleanup::Compact };
    writer.topic(&spec).expect("a compacted topic")
}

pub fn push(
    batch: &mut EncodedBatch,
    topic: TopicHandle,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    timestamp_ms: i64,
) {
    push_with_headers(batch, topic, key, value, &[], timestamp_ms);
}

pub fn push_with_headers(
    batch: &mut EncodedBatch,
    topic: TopicHandle,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&str, &[u8])],
    timestamp_ms: i64,
) {
    let mut part = |bytes: &[u8]| {
        let from = batch.bytes.len();
        batch.bytes.extend_from_slice(bytes);
        from..batch.bytes.len()
    };
    let (key, value) = (key.map(&mut part), value.map(&mut part));
    let from = batch.bytes.len();
    for (name, value) in headers {
        headers::write(&mut batch.bytes, name, value).expect("a short name");
    }
    let headers = from..batch.bytes.len();
    batch.records.push(EncodedRecord { topic, key, value, headers, timestamp_ms });
}

/// Appends records whose values are the given numbers.
pub fn append_numbers(
    writer: &mut dyn LogWriter,
    topic: TopicHandle,
    numbers: impl IntoIterator<Item = u64>,
) {
    let mut batch = EncodedBatch::default();
    for number in numbers {
        let key = (number % 7).to_string();
        push(
            &mut batch,
            topic,
            Some(key.as_bytes()),
            Some(number.to_string().as_bytes()),
            1_700_000_000_000,
        );
    }
    writer.append(&batch).expect("append");
}

/// The numbers in a batch, in order.
pub fn numbers(consumed: &Consumed) -> Vec<u64> {
    let number =
        |value: &[u8]| std::str::from_utf8(value).expect("text").parse().expect("a number");
    consumed.records.iter().map(|span| number(consumed.value(span).expect("a value"))).collect()
}

/// The next batch that has records.
pub fn next_records(reader: &mut dyn LogReader) -> Consumed {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(consumed) = reader.poll(Duration::from_millis(200)).expect("poll")
            && !consumed.records.is_empty()
        {
            check_batch(&consumed);
            return consumed;
        }
        assert!(Instant::now() < deadline, "no records came");
    }
}

/// Reads numbers until there are `count`.
pub fn read_numbers(reader: &mut dyn LogReader, count: usize) -> Vec<u64> {
    let mut found = Vec::new();
    while found.len() < count {
        found.extend(numbers(&next_records(reader)));
    }
    found
}

/// Reads a topic from its first record to the end that the log reports once all is decided.
pub fn read_all(log: &TestLog, topic: &str) -> Vec<Consumed> {
    let mut reader = log.reader();
    let (first, end) = settled_bounds(log, &mut *reader, topic);
    reader.assign(topic, 0, first).expect("assign");
    let mut batches = Vec::new();
    let mut next_offset = first;
    let deadline = Instant::now() + PATIENCE;
    while next_offset < end {
        if let Some(consumed) = reader.poll(Duration::from_millis(200)).expect("poll") {
            check_batch(&consumed);
            next_offset = consumed.next_offset;
            batches.push(consumed);
        }
        assert!(Instant::now() < deadline, "{topic} was not read to {end}, only to {next_offset}");
    }
    batches
}

/// The bounds once everything that was written is decided: a broker answers a commit before the partitions have its
/// markers, and until then their stable end is before what was committed.
fn settled_bounds(log: &TestLog, reader: &mut dyn LogReader, topic: &str) -> (i64, i64) {
    let mut bounds = || reader.bounds(topic, 0).expect("bounds");
    let LogConfig::Kafka(kafka) = &log.config else { return bounds() };
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .set("isolation.level", "read_uncommitted")
        .create()
        .expect("a consumer");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = bounds();
        let (_, written) = consumer.fetch_watermarks(topic, 0, PATIENCE).expect("the end");
        if found.1 == written {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{topic} ends at {} and is stable to {}",
            written,
            found.1
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// All numbers of a topic.
pub fn all_numbers(log: &TestLog, topic: &str) -> Vec<u64> {
    read_all(log, topic).iter().flat_map(numbers).collect()
}

/// What holds for every batch.
pub fn check_batch(consumed: &Consumed) {
    assert!(consumed.records.is_sorted_by(|a, b| a.offset < b.offset), "offsets rise");
    if let Some(last) = consumed.records.last() {
        assert!(last.offset < consumed.next_offset, "reading goes on after the last record");
    }
}
