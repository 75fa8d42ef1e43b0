//! Brokers that go away, and deliveries without transactions.

use std::{
    path::Path,
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use change_log::{
    Delivery, EncodedBatch, KafkaConfig, LogConfig, LogError, LogWriter, RecordTooLarge, Waiting,
    headers, kafka::too_large::header, open_reader, open_writer,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};
use schemas::table_id::dead_letters_topic;
use tempfile::TempDir;

use crate::kafka_broker::{Afterwards, free_port, serve};
use crate::test_log::{
    PATIENCE, TestLog, append_numbers, data_topic, kafka, next_records, push, read_all,
    read_numbers,
};

/// A broker of a test's own, to be killed and started again.
struct OwnBroker {
    folder: TempDir,
    port: u16,
    child: Option<Child>,
}

impl OwnBroker {
    fn start() -> Option<Self> {
        // Says loudly when there is no Kafka to be had.
        kafka("own-broker")?;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port().expect("a port");
        let mut broker = Self { folder, port, child: None };
        broker.start_again();
        Some(broker)
    }

    fn start_again(&mut self) {
        self.child = Some(serve_at(self.folder.path(), self.port));
    }

    /// Kills the broker as a crash would.
    fn kill(&mut self) {
        let mut child = self.child.take().expect("a running broker");
        child.kill().and_then(|()| child.wait()).expect("the broker's end");
    }

    fn config(&self) -> KafkaConfig {
        KafkaConfig::new(format!("127.0.0.1:{}", self.port))
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

fn serve_at(folder: &Path, port: u16) -> Child {
    serve(folder, port, Afterwards::Keep).expect("a broker")
}

/// What a writer asks and tells.
#[derive(Clone, Default)]
struct Told {
    stopped: Arc<AtomicBool>,
    stalled_ms: Arc<AtomicU64>,
}

impl Told {
    fn waiting(&self) -> Waiting {
        let (stopped, stalled_ms) = (self.stopped.clone(), self.stalled_ms.clone());
        Waiting {
            stopped: Box::new(move || stopped.load(Ordering::SeqCst)),
            stalled: Box::new(move |waited| {
                stalled_ms.store(waited.as_millis() as u64, Ordering::SeqCst);
            }),
        }
    }

    fn wait_until_stalled(&self) {
        let deadline = Instant::now() + PATIENCE;
        while self.stalled_ms.load(Ordering::SeqCst) < 1500 {
            assert!(Instant::now() < deadline, "the writer never told that it waits");
            std::thread::yield_now();
        }
    }
}

fn last_number(writer: &dyn LogWriter) -> u64 {
    let position =
        writer.last_position().map_or("0", |bytes| std::str::from_utf8(bytes).expect("text"));
    position.parse().expect("a number")
}

#[test]
fn a_commit_waits_for_brokers_that_come_back_and_tells_that_it_does() {
    let Some(mut broker) = OwnBroker::start() else { return };
    let log = LogConfig::Kafka(broker.config());
    let mut writer = open_writer(&log, "away", PATIENCE).expect("a writer");
    let told = Told::default();
    writer.wait_as(told.waiting());
    let mut handle = data_topic(&mut *writer, "away.db.t");
    append_numbers(&mut *writer, handle, 0..10);
    writer.commit(b"10").expect("commit");
    append_numbers(&mut *writer, handle, 10..20);
    broker.kill();
    let committed = std::thread::scope(|scope| {
        let committing = scope.spawn(|| writer.commit(b"20"));
        told.wait_until_stalled();
        broker.start_again();
        committing.join().expect("the commit")
    });
    // A broker that was killed may have lost what it had of the transaction: then it is begun again.
    if let Err(error) = committed {
        assert!(matches!(error, LogError::Aborted { .. }), "{error}");
        writer = open_writer(&log, "away", PATIENCE).expect("a writer");
        handle = data_topic(&mut *writer, "away.db.t");
        let from = last_number(&*writer);
        append_numbers(&mut *writer, handle, from..20);
        writer.commit(b"20").expect("commit");
    } else {
        assert_eq!(told.stalled_ms.load(Ordering::SeqCst), 0, "the wait is over");
    }
    let mut reader = open_reader(&log, PATIENCE).expect("a reader");
    reader.assign("away.db.t", 0, 0).expect("assign");
    assert!(read_numbers(&mut *reader, 20).into_iter().eq(0..20));
}

#[test]
fn a_stop_ends_a_wait_for_brokers_that_stay_away() {
    let Some(mut broker) = OwnBroker::start() else { return };
    for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
        let log = LogConfig::Kafka(KafkaConfig { delivery, ..broker.config() });
        let source = format!("stopped-{delivery:?}");
        let mut writer = open_writer(&log, &source, PATIENCE).expect("a writer");
        let told = Told::default();
        writer.wait_as(told.waiting());
        let topic = format!("{source}.db.t");
        let handle = data_topic(&mut *writer, &topic);
        append_numbers(&mut *writer, handle, 0..10);
        writer.commit(b"10").expect("commit");
        broker.kill();
        append_numbers(&mut *writer, handle, 10..20);
        let began = Instant::now();
        let error = std::thread::scope(|scope| {
            let committing = scope.spawn(|| writer.commit(b"20"));
            told.wait_until_stalled();
            told.stopped.store(true, Ordering::SeqCst);
            committing.join().expect("the commit").expect_err("nobody took it")
        });
        assert!(
            matches!(&error, LogError::Aborted { reason } if reason.contains("stopped")),
            "{error}"
        );
        drop(writer);
        assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
        broker.start_again();
        // What was not committed is not there, or comes again from the position.
        let mut writer = open_writer(&log, &source, PATIENCE).expect("a writer");
        assert_eq!(last_number(&*writer), 10);
        let handle = data_topic(&mut *writer, &topic);
        append_numbers(&mut *writer, handle, 10..20);
        writer.commit(b"20").expect("commit");
        let mut reader = open_reader(&log, PATIENCE).expect("a reader");
        reader.assign(&topic, 0, 0).expect("assign");
        assert!(read_numbers(&mut *reader, 20).into_iter().eq(0..20), "{delivery:?}");
    }
}

#[test]
fn a_queue_of_records_for_absent_brokers_is_bounded_and_comes_through() {
    let Some(mut broker) = OwnBroker::start() else { return };
    let log = LogConfig::Kafka(broker.config());
    let mut writer = open_writer(&log, "bounded", PATIENCE).expect("a writer");
    let told = Told::default();
    writer.wait_as(told.waiting());
    let handle = data_topic(&mut *writer, "bounded.db.t");
    writer.commit(b"0").expect("commit");
    broker.kill();
    let batch = {
        let mut batch = EncodedBatch::default();
        for _ in 0..1024 {
            push(&mut batch, handle, Some(b"k"), Some(&[7; 1024]), 5);
        }
        batch
    };
    let appended = AtomicU64::new(0);
    let committed = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for _ in 0..64 {
                writer.append(&batch)?;
                appended.fetch_add(1, Ordering::SeqCst);
            }
            writer.commit(b"64")
        });
        told.wait_until_stalled();
        let waiting = appended.load(Ordering::SeqCst);
        assert!((32..=34).contains(&waiting), "{waiting} MB wait in memory");
        broker.start_again();
        writing.join().expect("the writing")
    });
    match committed {
        Ok(()) => {
            let reader = open_reader(&log, PATIENCE);
            let (_, end) = reader.expect("a reader").bounds("bounded.db.t", 0).expect("bounds");
            assert!(end >= 64 * 1024, "{end} records");
        }
        Err(error) => assert!(matches!(error, LogError::Aborted { .. }), "{error}"),
    }
}

#[test]
fn without_transactions_the_position_is_never_ahead_of_the_records() {
    let Some(mut log) = kafka("at-least-once") else { return };
    let LogConfig::Kafka(config) = &mut log.config else { return };
    config.delivery = Delivery::AtLeastOnce;
    let topic = log.topic("t");
    let mut next = 0;
    for round in 0..4 {
        let mut writer = log.writer();
        assert_eq!(last_number(&*writer), next, "round {round}");
        let handle = data_topic(&mut *writer, &topic);
        append_numbers(&mut *writer, handle, next..next + 1000);
        next += 1000;
        writer.commit(next.to_string().as_bytes()).expect("commit");
        // What no position covers comes again.
        append_numbers(&mut *writer, handle, next..next + 10);
    }
    let mut found = Vec::new();
    let mut reader = log.reader();
    reader.assign(&topic, 0, 0).expect("assign");
    while found.last().is_none_or(|&last| last < next - 1) {
        found.extend(crate::test_log::numbers(&next_records(&mut *reader)));
    }
    let mut seen = 0;
    for number in found {
        assert!(number <= seen, "{number} came where {seen} was due");
        seen = seen.max(number + 1);
    }
    assert!(seen >= next, "{seen} of {next}");
}

/// Makes a topic as somebody else would, with a small limit for records.
fn small_topic(log: &TestLog, name: &str) {
    let LogConfig::Kafka(kafka) = &log.config else { unreachable!("it is kafka") };
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &kafka.bootstrap_servers)
        .create()
        .expect("a client");
    let topic =
        NewTopic::new(name, 1, TopicReplication::Fixed(1)).set("max.message.bytes", "20000");
    let runtime = tokio_free_block_on(admin.create_topics([&topic], &AdminOptions::new()));
    for result in runtime.expect("an answer") {
        result.expect("a topic");
    }
}

fn tokio_free_block_on<T>(future: impl Future<Output = T>) -> T {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    (0..bytes).map(|_| random.u8(..)).collect()
}

#[test]
fn a_record_too_large_for_its_topic_stops_the_source_with_the_cure() {
    let Some(log) = kafka("too-large-stop") else { return };
    let topic = log.topic("t");
    small_topic(&log, &topic);
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    let mut batch = EncodedBatch::default();
    // Its compressed form fits, and so it goes.
    push(&mut batch, handle, Some(b"a"), Some(&[0; 100_000]), 5);
    writer.append(&batch).expect("append");
    writer.commit(b"1").expect("commit");
    push(&mut batch, handle, Some(b"b"), Some(&noise(30_000)), 5);
    let error = writer.append(&batch).expect_err("refused");
    let text = error.to_string();
    assert!(matches!(error, LogError::Unfit { .. }), "{text}");
    for part in [topic.as_str(), "20000", "max.message.bytes", "dead_letter"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(last_number(&*log.writer()), 1);
}

#[test]
fn a_record_too_large_for_its_topic_is_set_apart_in_its_place() {
    let Some(mut log) = kafka("too-large-apart") else { return };
    let LogConfig::Kafka(config) = &mut log.config else { return };
    config.record_too_large = RecordTooLarge::DeadLetter;
    let topic = log.topic("t");
    small_topic(&log, &topic);
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    let mut batch = EncodedBatch::default();
    push(&mut batch, handle, Some(b"a"), Some(b"1"), 5);
    push(&mut batch, handle, Some(b"large"), Some(&noise(30_000)), 5);
    push(&mut batch, handle, Some(b"b"), Some(b"2"), 5);
    writer.append(&batch).expect("append");
    writer.commit(b"1").expect("commit");
    assert_eq!(writer.records_too_large(), 1);
    let numbers: Vec<u64> =
        read_all(&log, &topic).iter().flat_map(crate::test_log::numbers).collect();
    assert_eq!(numbers, [1, 2]);
    let batches = read_all(&log, &dead_letters_topic(&log.source));
    let [batch] = batches.iter().filter(|b| !b.records.is_empty()).collect::<Vec<_>>()[..] else {
        panic!("one batch")
    };
    let [span] = &batch.records[..] else { panic!("one record") };
    assert_eq!(batch.key(span), Some(b"large".as_slice()));
    assert_eq!(batch.value(span), None);
    let found: Vec<(String, String)> = headers::iter(batch.headers(span))
        .map(|header| header.expect("whole"))
        .map(|(name, value)| {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            (text(name), text(value))
        })
        .collect();
    assert_eq!(found[0], (header::TOPIC.to_owned(), topic));
    assert!(found[1].0 == header::REASON && found[1].1.contains("20000"), "{found:?}");
    assert_eq!(found[2], (header::BYTES.to_owned(), "30005".to_owned()));
}
