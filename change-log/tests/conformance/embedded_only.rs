//! What only the embedded log promises: retention by acknowledgement, one file per source, clear errors.

use std::{fs, thread, time::Duration};

use change_log::{
    Cleanup, EncodedBatch, LogConfig, LogError, LogReader, TopicHandle, TopicSpec, open_reader,
    open_writer,
};

use crate::test_log::{
    PATIENCE, TestLog, all_numbers, append_numbers, data_topic, embedded, next_records, push,
    read_numbers,
};

/// A log whose records are old at once.
fn without_retention(test: &str) -> TestLog {
    let mut log = embedded(test);
    if let LogConfig::Embedded { retention_hours, .. } = &mut log.config {
        *retention_hours = 0;
    }
    log
}

fn first_offset(reader: &mut dyn LogReader, topic: &str) -> i64 {
    reader.bounds(topic, 0).expect("bounds").0
}

#[test]
fn retention_waits_for_every_group_and_then_names_the_gone_offset() {
    let log = without_retention("retention");
    let (topic, other) = (log.topic("t"), log.topic("other"));
    let mut writer = log.writer();
    for name in [&topic, &other] {
        let handle = data_topic(&mut *writer, name);
        for from in [0, 10, 20] {
            append_numbers(&mut *writer, handle, from..from + 10);
            writer.commit(b"p").expect("commit");
        }
    }
    let mut reader = log.reader();
    // Nobody has acknowledged anything: everything stays. Opening a writer cleans up.
    log.writer();
    assert_eq!(first_offset(&mut *reader, &topic), 0);
    reader.acknowledge("fast", &topic, 0, 30).expect("acknowledge");
    reader.acknowledge("slow", &topic, 0, 15).expect("acknowledge");
    log.writer();
    assert_eq!(first_offset(&mut *reader, &topic), 10, "whole segments below the slowest group go");
    assert_eq!(first_offset(&mut *reader, &other), 0);
    let error = reader.assign(&topic, 0, 9).expect_err("gone");
    assert!(matches!(error, LogError::OffsetGone { wanted: 9, first: 10, .. }), "{error}");
    reader.assign(&topic, 0, 10).expect("assign");

    // A reader that retention overtakes is told so.
    let mut overtaken = log.reader();
    overtaken.assign(&topic, 0, 10).expect("assign");
    reader.acknowledge("slow", &topic, 0, 30).expect("acknowledge");
    let mut writer = log.writer();
    let error = overtaken.poll(Duration::ZERO).map(|found| found.is_some());
    assert!(matches!(error, Ok(false) | Err(LogError::OffsetGone { .. })), "{error:?}");
    // The offsets go on although no record is left.
    assert_eq!(reader.bounds(&topic, 0).expect("bounds"), (30, 30));
    let handle = data_topic(&mut *writer, &topic);
    append_numbers(&mut *writer, handle, [30]);
    writer.commit(b"p").expect("commit");
    let error = overtaken.poll(Duration::ZERO).expect_err("gone");
    assert!(matches!(error, LogError::OffsetGone { wanted: 10, first: 30, .. }), "{error}");
    assert_eq!(all_numbers(&log, &topic), [30]);
    // A sink that reads its table anew holds the rest back.
    reader.acknowledge("slow", &topic, 0, 0).expect("acknowledge");
    log.writer();
    assert_eq!(reader.bounds(&topic, 0).expect("bounds"), (30, 31));
}

#[test]
fn a_topic_that_no_sink_reads_keeps_its_records_for_the_retention_only() {
    let log = without_retention("expire");
    let topic = log.topic("t");
    let expire = || TopicSpec { name: topic.clone(), cleanup: Cleanup::Expire };
    let mut writer = log.writer();
    let handle = writer.topic(&expire()).expect("a topic");
    append_numbers(&mut *writer, handle, 0..10);
    writer.commit(b"p").expect("commit");
    let mut writer = log.writer();
    // Opening the log does not know the topic yet; its writer's next clean-up does.
    assert_eq!(writer.topic(&expire()).expect("the same topic"), TopicHandle(1));
    writer.commit(b"q").expect("commit");
    let mut reader = log.reader();
    assert_eq!(reader.bounds(&topic, 0).expect("bounds"), (10, 10));

    let kept = embedded("expire-later");
    let mut writer = kept.writer();
    let handle = writer.topic(&expire()).expect("a topic");
    append_numbers(&mut *writer, handle, 0..10);
    writer.commit(b"p").expect("commit");
    writer.commit(b"q").expect("commit");
    assert_eq!(all_numbers(&kept, &topic), (0..10).collect::<Vec<_>>());
}

#[test]
fn offsets_are_dense_from_zero() {
    let log = embedded("dense");
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    append_numbers(&mut *writer, handle, 0..3);
    writer.commit(b"p").expect("commit");
    append_numbers(&mut *writer, handle, 100..200);
    drop(writer);
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    append_numbers(&mut *writer, handle, 3..6);
    writer.commit(b"p").expect("commit");
    let mut reader = log.reader();
    assert_eq!(reader.bounds(&topic, 0).expect("bounds"), (0, 6));
    reader.assign(&topic, 0, 0).expect("assign");
    let consumed = next_records(&mut *reader);
    let offsets: Vec<_> = consumed.records.iter().map(|span| span.offset).collect();
    assert_eq!((offsets, consumed.next_offset), ((0..6).collect(), 6));
}

#[test]
fn sources_write_side_by_side_and_one_reader_sees_all() {
    const COUNT: u64 = 3000;
    let log = embedded("sources");
    let sources = ["a", "b", "c/d"];
    let topic = |source: &str| format!("{source}.db.t");
    let mut reader = log.reader();
    for source in sources {
        reader.assign(&topic(source), 0, 0).expect("assign");
    }
    thread::scope(|scope| {
        for source in sources {
            let log = &log;
            scope.spawn(move || {
                let mut writer = open_writer(&log.config, source, PATIENCE).expect("a writer");
                let handle = data_topic(&mut *writer, &topic(source));
                for from in (0..COUNT).step_by(50) {
                    append_numbers(&mut *writer, handle, from..from + 50);
                    writer.commit(b"p").expect("commit");
                }
            });
        }
        read_numbers(&mut *reader, COUNT as usize * sources.len());
    });
    for source in sources {
        assert!(all_numbers(&log, &topic(source)).into_iter().eq(0..COUNT));
    }
    assert_eq!(reader.topics("").expect("topics").len(), 6);
    assert!(reader.poll(Duration::ZERO).expect("poll").is_none());
}

#[test]
fn the_write_ahead_log_stays_small_while_readers_read() {
    let log = embedded("wal");
    let LogConfig::Embedded { path, .. } = &log.config else { unreachable!("it is embedded") };
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    let mut reader = log.reader();
    reader.assign(&topic, 0, 0).expect("assign");
    let value = vec![b'5'; 1_000_000];
    let mut batch = EncodedBatch::default();
    for _ in 0..10 {
        push(&mut batch, handle, None, Some(&value), 5);
    }
    let mut largest = 0;
    for _ in 0..30 {
        writer.append(&batch).expect("append");
        writer.commit(b"p").expect("commit");
        next_records(&mut *reader);
        let file = path.join(format!("{}.sqlite-wal", log.source));
        largest = largest.max(fs::metadata(file).expect("the write-ahead log").len());
    }
    assert!(largest < 100_000_000, "the write-ahead log grew to {largest} bytes");
}

#[test]
fn a_place_that_cannot_hold_a_log_is_named() {
    let folder = tempfile::tempdir().expect("folder");
    let file = folder.path().join("file");
    fs::write(&file, "text").expect("write");
    fs::write(
        folder.path().join("source.sqlite"),
        "no SQLite file, but long enough to be read ".repeat(30),
    )
    .expect("write");
    let errors = |path: &std::path::Path| {
        let config = LogConfig::Embedded { path: path.to_owned(), retention_hours: 1 };
        let writing =
            open_writer(&config, "source", Duration::ZERO).err().expect("refused").to_string();
        let reading = open_reader(&config, Duration::ZERO).err().expect("refused").to_string();
        [writing, reading]
    };
    for error in errors(&file) {
        assert!(error.contains("not a folder") && error.contains("file"), "{error}");
    }
    for error in errors(folder.path()) {
        assert!(error.contains("source.sqlite") && error.contains("not a change log"), "{error}");
    }
}
