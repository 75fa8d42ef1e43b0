//! What only Kafka can show.

use std::{
    net::TcpListener,
    time::{Duration, Instant},
};

use change_log::{
    Cleanup, EncodedBatch, KafkaConfig, LogConfig, LogError, TopicSpec, open_reader, open_writer,
};
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};
use schemas::table_id::positions_topic;

use crate::kafka_broker::{Afterwards, free_port, serve};
use crate::test_log::{
    PATIENCE, TestLog, append_numbers, data_topic, kafka, next_records, numbers, push, read_all,
};

fn with_partitions(test: &str, wanted: i32) -> Option<TestLog> {
    let mut log = kafka(test)?;
    if let LogConfig::Kafka(kafka) = &mut log.config {
        kafka.partitions = wanted;
    }
    Some(log)
}

fn bootstrap_servers(log: &TestLog) -> &str {
    match &log.config {
        LogConfig::Kafka(kafka) => &kafka.bootstrap_servers,
        LogConfig::Embedded { .. } => unreachable!("it is kafka"),
    }
}

#[test]
fn equal_keys_go_to_the_partition_that_java_clients_choose() {
    let Some(log) = with_partitions("partitions", 3) else { return };
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    let keys = ["21", "foobar", "a-little-bit-long-string", "abc"];
    let mut batch = EncodedBatch::default();
    for _ in 0..5 {
        for key in keys {
            push(&mut batch, handle, Some(key.as_bytes()), Some(b"1"), 5);
        }
    }
    writer.append(&batch).expect("append");
    writer.commit(b"p").expect("commit");
    // Hashes of org.apache.kafka.common.utils.UtilsTest.testMurmur2.
    let hashes = [-973_932_308_i32, -790_332_482, -985_981_536, 479_470_107];
    let mut reader = log.reader();
    for partition in 0..3 {
        reader.assign(&topic, partition, 0).expect("assign");
    }
    let mut count = 0;
    while count < 20 {
        let consumed = next_records(&mut *reader);
        for span in &consumed.records {
            let index = keys
                .iter()
                .position(|key| Some(key.as_bytes()) == consumed.key(span))
                .expect("a key");
            assert_eq!(consumed.partition, (hashes[index] & i32::MAX) % 3, "{}", keys[index]);
            count += 1;
        }
    }
}

#[test]
fn unreachable_brokers_are_named_with_what_to_check() {
    let free =
        TcpListener::bind(("127.0.0.1", 0)).expect("a port").local_addr().expect("its address");
    let config = LogConfig::Kafka(KafkaConfig::new(free.to_string()));
    let timeout = Duration::from_secs(2);
    let began = Instant::now();
    let errors = [
        open_writer(&config, "source", timeout).err().expect("refused"),
        open_reader(&config, timeout).err().expect("refused"),
    ];
    for error in errors {
        assert!(matches!(error, LogError::Unavailable { .. }), "{error}");
        let text = error.to_string();
        assert!(
            text.contains(&free.to_string()) && text.contains("check bootstrap_servers"),
            "{text}"
        );
    }
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_compacted_topic_with_several_partitions_is_refused() {
    let Some(log) = with_partitions("unfit", 2) else { return };
    let topic = log.topic("t");
    data_topic(&mut *log.writer(), &topic);
    let spec = TopicSpec { name: topic.clone(), cleanup: Cleanup::Compact };
    let error = log.writer().topic(&spec).expect_err("refused");
    assert!(matches!(&error, LogError::Unfit { place, .. } if place.contains(&topic)), "{error}");
}

#[test]
fn an_unfinished_transaction_of_another_source_does_not_hide_the_position() {
    let Some(log) = kafka("other-transaction") else { return };
    let shared = log.topic("shared");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &shared);
    append_numbers(&mut *writer, handle, [1]);
    writer.commit(b"mine").expect("commit");
    let mut other =
        open_writer(&log.config, &format!("{}-other", log.source), PATIENCE).expect("a writer");
    let handle = data_topic(&mut *other, &shared);
    append_numbers(&mut *other, handle, [2]);
    assert_eq!(log.writer().last_position(), Some(b"mine".as_slice()));
}

#[test]
fn the_last_position_is_found_behind_many_aborted_ones() {
    let Some(log) = kafka("aborted-positions") else { return };
    let mut writer = log.writer();
    writer.commit(b"wanted").expect("commit");
    // Records of aborted transactions in the position's own topic, more than the first look back covers.
    let positions = TopicSpec { name: positions_topic(&log.source), cleanup: Cleanup::Compact };
    for _ in 0..3 {
        let handle = writer.topic(&positions).expect("its topic");
        let mut batch = EncodedBatch::default();
        for _ in 0..300 {
            push(&mut batch, handle, Some(log.source.as_bytes()), Some(b"lost"), 5);
        }
        writer.append(&batch).expect("append");
        writer = log.writer();
        assert_eq!(writer.last_position(), Some(b"wanted".as_slice()));
    }
}

#[test]
fn reading_passes_control_records_up_to_the_end() {
    let Some(log) = kafka("control-records") else { return };
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    for number in 0..3 {
        append_numbers(&mut *writer, handle, [number]);
        writer.commit(b"p").expect("commit");
        // An aborted transaction leaves records and a marker that nobody sees.
        append_numbers(&mut *writer, handle, [100]);
        writer = log.writer();
        assert_eq!(data_topic(&mut *writer, &topic), handle);
    }
    // `read_all` ends at the last stable offset, which is behind the last marker.
    let batches = read_all(&log, &topic);
    let found: Vec<u64> = batches.iter().flat_map(numbers).collect();
    assert_eq!(found, [0, 1, 2]);
    let (_, end) = log.reader().bounds(&topic, 0).expect("bounds");
    assert_eq!(batches.last().expect("a batch").next_offset, end);
    assert!(end >= 9, "three records, three aborted ones, markers: {end}");
}

#[test]
fn acknowledged_offsets_are_the_groups_offsets() {
    let Some(log) = kafka("group-offsets") else { return };
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    append_numbers(&mut *writer, handle, 0..10);
    writer.commit(b"p").expect("commit");
    let group = format!("{}-lake", log.source);
    let mut reader = log.reader();
    reader.acknowledge(&group, &topic, 0, 7).expect("acknowledge");
    let asker: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap_servers(&log))
        .set("group.id", &group)
        .create()
        .expect("a consumer");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let found = asker.committed_offsets(list, PATIENCE).expect("offsets");
        if found.find_partition(&topic, 0).map(|element| element.offset())
            == Some(Offset::Offset(7))
        {
            break;
        }
        assert!(Instant::now() < deadline, "the group's offset never came");
        // Best effort: a sink acknowledges again and again.
        reader.acknowledge(&group, &topic, 0, 7).expect("acknowledge");
    }
}

#[test]
fn a_record_that_the_topic_refuses_is_named() {
    let Some(log) = kafka("too-large") else { return };
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    append_numbers(&mut *writer, handle, [1]);
    writer.commit(b"first").expect("commit");
    let mut batch = EncodedBatch::default();
    let value = vec![1; 97 * 1024 * 1024];
    push(&mut batch, handle, None, Some(&value), 5);
    let error = writer.append(&batch).expect_err("refused");
    assert!(matches!(&error, LogError::Unfit { place, .. } if place.contains(&topic)), "{error}");
    assert!(matches!(writer.commit(b"p"), Err(LogError::Aborted { .. })));
    let mut writer = log.writer();
    assert_eq!(writer.last_position(), Some(b"first".as_slice()));
    // A large one that fits goes through.
    let handle = data_topic(&mut *writer, &topic);
    let mut random = fastrand::Rng::with_seed(1);
    let value: Vec<u8> = (0..40 * 1024 * 1024).map(|_| random.u8(..)).collect();
    let mut batch = EncodedBatch::default();
    push(&mut batch, handle, Some(b"large"), Some(&value), 5);
    writer.append(&batch).expect("append");
    writer.commit(b"second").expect("commit");
    let found: usize = read_all(&log, &topic).iter().map(|batch| batch.bytes.len()).sum();
    assert!(found > value.len());
}

#[test]
fn a_broker_that_restarts_costs_neither_records_nor_order() {
    if kafka("restart").is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let port = free_port().expect("a port");
    let mut broker = serve(folder.path(), port, Afterwards::Keep).expect("a broker");
    let config = LogConfig::Kafka(KafkaConfig::new(format!("127.0.0.1:{port}")));
    let topic = "restart.db.t";
    let mut writer = open_writer(&config, "restart", PATIENCE).expect("a writer");
    let mut handle = data_topic(&mut *writer, topic);
    let mut reader = open_reader(&config, PATIENCE).expect("a reader");
    reader.assign(topic, 0, 0).expect("assign");
    let mut next = 0;
    let mut seen = Vec::new();
    for round in 0..2 {
        // The broker goes away with a transaction open, and comes back while the writer goes on.
        append_numbers(&mut *writer, handle, next..next + 100);
        drop(broker.stdin.take());
        broker.wait().expect("the broker's end");
        let restarted = std::thread::scope(|scope| {
            let restarted =
                scope.spawn(|| serve(folder.path(), port, Afterwards::Keep).expect("a broker"));
            let committed = writer.commit((next + 100).to_string().as_bytes());
            match committed {
                Ok(()) => next += 100,
                Err(LogError::Aborted { .. }) => {
                    writer = open_writer(&config, "restart", PATIENCE).expect("a writer");
                    handle = data_topic(&mut *writer, topic);
                    let position = writer.last_position().map(<[u8]>::to_vec);
                    next = position.map_or(0, |position| {
                        String::from_utf8(position).expect("text").parse().expect("a number")
                    });
                }
                Err(error) => panic!("round {round}: {error}"),
            }
            restarted.join().expect("a broker")
        });
        broker = restarted;
        append_numbers(&mut *writer, handle, next..next + 10);
        next += 10;
        writer.commit(next.to_string().as_bytes()).expect("commit");
        while (seen.len() as u64) < next {
            seen.extend(numbers(&next_records(&mut *reader)));
        }
        assert!(seen.iter().copied().eq(0..next), "round {round}");
    }
    drop((writer, reader));
    drop(broker.stdin.take());
    broker.wait().expect("the broker's end");
}
