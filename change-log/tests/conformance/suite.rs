//! What every change log promises. Each function gets a log that holds nothing of its source.

use std::{
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use change_log::{Cleanup, EncodedBatch, LogError, TopicSpec, open_writer};
use schemas::table_id::positions_topic;

use crate::test_log::{
    PATIENCE, TestLog, all_numbers, append_numbers, compacted_topic, data_topic, next_records,
    numbers, push, read_all, read_numbers,
};

pub fn records_of_a_topic_keep_their_order(log: &TestLog) {
    let mut writer = log.writer();
    let topics: Vec<_> = (0..5).map(|n| log.topic(&format!("t{n}"))).collect();
    let handles: Vec<_> = topics.iter().map(|name| data_topic(&mut *writer, name)).collect();
    let mut number = 0;
    for commit in 0..10 {
        for _ in 0..3 {
            let mut batch = EncodedBatch::default();
            for _ in 0..200 {
                let value = number.to_string();
                push(&mut batch, handles[number % 5], Some(b"k"), Some(value.as_bytes()), 5);
                number += 1;
            }
            writer.append(&batch).expect("append");
        }
        writer.commit(format!("p{commit}").as_bytes()).expect("commit");
    }
    for (index, topic) in topics.iter().enumerate() {
        let wanted: Vec<u64> = (0..number as u64).filter(|n| n % 5 == index as u64).collect();
        assert_eq!(all_numbers(log, topic), wanted);
    }
}

pub fn records_keep_key_value_and_time(log: &TestLog) {
    let mut writer = log.writer();
    let topic = log.topic("t");
    let handle = data_topic(&mut *writer, &topic);
    let large = vec![7_u8; 3_000_000];
    // Brokers keep records by their time, so it is a recent one.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    type Record<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, i64);
    let records: [Record<'_>; 6] = [
        (Some(b"key"), Some(b"value"), now - 1_000_000),
        (None, Some(b"no key"), now - 2_000_000),
        (Some(b"deleted"), None, now - 1),
        (Some(b""), Some(b""), now),
        (None, None, now - 3),
        (Some(b"large"), Some(&large), now - 10_000_000),
    ];
    let mut batch = EncodedBatch::default();
    for (key, value, timestamp_ms) in records {
        push(&mut batch, handle, key, value, timestamp_ms);
    }
    writer.append(&batch).expect("append");
    writer.commit(b"p").expect("commit");
    let mut found = Vec::new();
    for consumed in read_all(log, &topic) {
        assert_eq!((&*consumed.topic, consumed.partition), (&*topic, 0));
        for span in &consumed.records {
            let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
            found.push((owned(consumed.key(span)), owned(consumed.value(span)), span.timestamp_ms));
        }
    }
    let wanted = records
        .map(|(key, value, time)| (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec), time));
    assert!(found == wanted, "the records differ");
}

pub fn nothing_is_visible_before_the_commit(log: &TestLog) {
    let mut writer = log.writer();
    let (topic, other) = (log.topic("t"), log.topic("other"));
    let handle = data_topic(&mut *writer, &topic);
    let marker = data_topic(&mut *writer, &other);
    append_numbers(&mut *writer, marker, [1]);
    writer.commit(b"p1").expect("commit");
    // More than any implementation gathers in memory.
    let value = vec![b'0'; 1000];
    let mut batch = EncodedBatch::default();
    for _ in 0..30_000 {
        push(&mut batch, handle, None, Some(&value), 5);
    }
    writer.append(&batch).expect("append");
    let mut reader = log.reader();
    reader.assign(&topic, 0, 0).expect("assign");
    reader.assign(&other, 0, 0).expect("assign");
    // The other topic's record shows that the reader has looked.
    assert_eq!(&*next_records(&mut *reader).topic, &*other);
    for _ in 0..5 {
        let found = reader.poll(Duration::from_millis(100)).expect("poll");
        assert!(found.is_none_or(|consumed| consumed.records.is_empty()), "an uncommitted record");
    }
    assert_eq!(log.reader().bounds(&topic, 0).expect("bounds"), (0, 0));
    writer.commit(b"p2").expect("commit");
    let mut count = 0;
    while count < 30_000 {
        count += next_records(&mut *reader).records.len();
    }
    assert_eq!(count, 30_000);
}

pub fn uncommitted_records_of_a_dropped_writer_never_appear(log: &TestLog) {
    let topic = log.topic("t");
    for round in 0..3_u64 {
        let mut writer = log.writer();
        let handle = data_topic(&mut *writer, &topic);
        append_numbers(&mut *writer, handle, round * 10..round * 10 + 10);
        writer.commit(round.to_string().as_bytes()).expect("commit");
        append_numbers(&mut *writer, handle, 1000..21_000);
        drop(writer);
    }
    let writer = log.writer();
    assert_eq!(writer.last_position(), Some(b"2".as_slice()));
    assert_eq!(all_numbers(log, &topic), (0..30).collect::<Vec<_>>());
}

pub fn position_is_read_back_after_reopening(log: &TestLog) {
    let mut writer = log.writer();
    assert_eq!(writer.last_position(), None);
    let handle = data_topic(&mut *writer, &log.topic("t"));
    append_numbers(&mut *writer, handle, 0..10);
    writer.commit(b"first").expect("commit");
    assert_eq!(writer.last_position(), Some(b"first".as_slice()));
    append_numbers(&mut *writer, handle, 10..20);
    writer.commit(b"second").expect("commit");
    append_numbers(&mut *writer, handle, 20..30);
    let writer = log.writer();
    assert_eq!(writer.last_position(), Some(b"second".as_slice()));
    // Another source has a position of its own.
    let other =
        open_writer(&log.config, &format!("{}-other", log.source), PATIENCE).expect("a writer");
    assert_eq!(other.last_position(), None);
}

pub fn position_alone_can_be_committed(log: &TestLog) {
    let mut writer = log.writer();
    for position in [b"a".as_slice(), b"", &[0, 255, 10]] {
        writer.commit(position).expect("commit");
        writer = log.writer();
        assert_eq!(writer.last_position(), Some(position));
    }
}

pub fn position_stands_in_its_topic(log: &TestLog) {
    let mut writer = log.writer();
    for number in 0..5_u64 {
        writer.commit(number.to_string().as_bytes()).expect("commit");
    }
    let batches = read_all(log, &positions_topic(&log.source));
    let consumed =
        batches.iter().rfind(|consumed| !consumed.records.is_empty()).expect("a position");
    let last = consumed.records.last().expect("a record");
    assert_eq!(consumed.key(last), Some(log.source.as_bytes()));
    assert_eq!(consumed.value(last), Some(b"4".as_slice()));
}

pub fn a_second_writer_fences_the_first(log: &TestLog) {
    let topic = log.topic("t");
    let mut first = log.writer();
    let handle = data_topic(&mut *first, &topic);
    append_numbers(&mut *first, handle, 0..10);
    first.commit(b"first").expect("commit");
    append_numbers(&mut *first, handle, 100..110);
    let mut second = log.writer();
    assert_eq!(second.last_position(), Some(b"first".as_slice()));
    for _ in 0..2 {
        let error = first.commit(b"late").expect_err("fenced");
        assert!(
            matches!(&error, LogError::Fenced { source_name } if *source_name == log.source),
            "{error}"
        );
    }
    let handle = data_topic(&mut *second, &topic);
    append_numbers(&mut *second, handle, 10..20);
    second.commit(b"second").expect("commit");
    assert_eq!(all_numbers(log, &topic), (0..20).collect::<Vec<_>>());
    assert_eq!(log.writer().last_position(), Some(b"second".as_slice()));
}

pub fn a_second_writer_fences_a_large_open_transaction(log: &TestLog) {
    let topic = log.topic("t");
    let mut first = log.writer();
    let handle = data_topic(&mut *first, &topic);
    let value = vec![b'9'; 1000];
    let mut batch = EncodedBatch::default();
    for _ in 0..20_000 {
        push(&mut batch, handle, None, Some(&value), 5);
    }
    first.append(&batch).expect("append");
    // It does not wait for the first one, which may hang.
    let mut second = log.writer();
    let handle = data_topic(&mut *second, &topic);
    append_numbers(&mut *second, handle, 0..10);
    let late = first.append(&batch).and_then(|()| first.commit(b"late"));
    assert!(matches!(late, Err(LogError::Fenced { .. })), "{late:?}");
    second.commit(b"second").expect("commit");
    assert_eq!(all_numbers(log, &topic), (0..10).collect::<Vec<_>>());
}

pub fn readers_read_side_by_side(log: &TestLog) {
    const COUNT: u64 = 20_000;
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut reader = log.reader();
                    reader.assign(&topic, 0, 0).expect("assign");
                    read_numbers(&mut *reader, COUNT as usize)
                })
            })
            .collect();
        for from in (0..COUNT).step_by(500) {
            append_numbers(&mut *writer, handle, from..from + 500);
            writer.commit(b"p").expect("commit");
        }
        for reader in readers {
            assert_eq!(reader.join().expect("a reader"), (0..COUNT).collect::<Vec<_>>());
        }
    });
}

pub fn a_hundred_thousand_records_arrive_once(log: &TestLog) {
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    let mut batch = EncodedBatch::default();
    for number in 0..100_000 {
        push(&mut batch, handle, Some(b"key"), Some(format!("{number:0350}").as_bytes()), number);
    }
    writer.append(&batch).expect("append");
    writer.commit(b"p").expect("commit");
    let batches = read_all(log, &topic);
    let found: Vec<u64> = batches.iter().flat_map(numbers).collect();
    assert!(found.iter().copied().eq(0..100_000), "records are missing, doubled or out of order");
    assert!(batches.iter().all(|batch| batch.bytes.len() <= 5_000_000), "a batch is too large");
}

pub fn reading_goes_on_from_an_offset(log: &TestLog) {
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    for from in [0, 50] {
        append_numbers(&mut *writer, handle, from..from + 50);
        writer.commit(b"p").expect("commit");
    }
    let mut offsets = Vec::new();
    for consumed in read_all(log, &topic) {
        offsets.extend(consumed.records.iter().map(|span| span.offset).zip(numbers(&consumed)));
    }
    let mut reader = log.reader();
    for &(offset, number) in offsets.iter().step_by(9) {
        reader.assign(&topic, 0, offset).expect("assign");
        let consumed = next_records(&mut *reader);
        assert_eq!((consumed.records[0].offset, numbers(&consumed)[0]), (offset, number));
    }
    // At the end there is nothing until there is more.
    let (first, end) = reader.bounds(&topic, 0).expect("bounds");
    assert_eq!(first, 0);
    reader.assign(&topic, 0, end).expect("assign");
    append_numbers(&mut *writer, handle, [100]);
    writer.commit(b"p").expect("commit");
    assert_eq!(numbers(&next_records(&mut *reader)), [100]);
    // What is no longer assigned is no longer read.
    reader.unassign(&topic, 0).expect("unassign");
    append_numbers(&mut *writer, handle, [101]);
    writer.commit(b"p").expect("commit");
    assert!(reader.poll(Duration::from_millis(300)).expect("poll").is_none());
}

pub fn a_paused_topic_waits_and_loses_nothing(log: &TestLog) {
    let (paused, other) = (log.topic("paused"), log.topic("other"));
    let mut writer = log.writer();
    let handles = [data_topic(&mut *writer, &paused), data_topic(&mut *writer, &other)];
    let mut reader = log.reader();
    let mut found = [Vec::new(), Vec::new()];
    for round in 0..5_u64 {
        for handle in handles {
            append_numbers(&mut *writer, handle, round * 100..round * 100 + 100);
        }
        writer.commit(b"p").expect("commit");
        if round == 0 {
            reader.assign(&paused, 0, 0).expect("assign");
            reader.assign(&other, 0, 0).expect("assign");
        }
        if round.is_multiple_of(2) {
            reader.pause(&paused, 0).expect("pause");
            while found[1].len() < (round as usize + 1) * 100 {
                let consumed = next_records(&mut *reader);
                assert_eq!(&*consumed.topic, &*other, "a paused topic was read");
                found[1].extend(numbers(&consumed));
            }
            reader.resume(&paused, 0).expect("resume");
        }
        while found.iter().any(|found| found.len() < (round as usize + 1) * 100) {
            let consumed = next_records(&mut *reader);
            found[usize::from(*consumed.topic == *other)].extend(numbers(&consumed));
        }
    }
    assert_eq!(found, [(0..500).collect::<Vec<_>>(), (0..500).collect::<Vec<_>>()]);
}

pub fn topics_take_turns(log: &TestLog) {
    let topics = [log.topic("large"), log.topic("small")];
    let mut writer = log.writer();
    let handles = topics.clone().map(|name| data_topic(&mut *writer, &name));
    let mut batch = EncodedBatch::default();
    let mut random = fastrand::Rng::with_seed(7);
    let mut value = vec![0; 10_000];
    for _ in 0..4000 {
        // What does not compress, so that it comes in many fetches.
        random.fill(&mut value);
        push(&mut batch, handles[0], None, Some(&value), 5);
    }
    push(&mut batch, handles[1], None, Some(b"1"), 5);
    writer.append(&batch).expect("append");
    writer.commit(b"p").expect("commit");
    let mut reader = log.reader();
    for topic in &topics {
        reader.assign(topic, 0, 0).expect("assign");
    }
    let mut batches_before = 0;
    while *next_records(&mut *reader).topic != *topics[1] {
        batches_before += 1;
        assert!(batches_before < 8, "the small topic waits for all of the large one");
    }
}

pub fn a_compacted_topic_keeps_the_last_record_of_each_key(log: &TestLog) {
    let topic = log.topic("c");
    let mut writer = log.writer();
    let handle = compacted_topic(&mut *writer, &topic);
    for round in 0..4 {
        let mut batch = EncodedBatch::default();
        for key in ["a", "b", "c"] {
            push(
                &mut batch,
                handle,
                Some(key.as_bytes()),
                Some(format!("{key}{round}").as_bytes()),
                5,
            );
        }
        writer.append(&batch).expect("append");
        writer.commit(b"p").expect("commit");
    }
    let mut batch = EncodedBatch::default();
    push(&mut batch, handle, Some(b"a"), None, 5);
    writer.append(&batch).expect("append");
    writer.commit(b"p").expect("commit");
    let mut last = std::collections::BTreeMap::new();
    for consumed in read_all(log, &topic) {
        for span in &consumed.records {
            let text =
                |part: Option<&[u8]>| part.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            last.insert(text(consumed.key(span)).expect("a key"), text(consumed.value(span)));
        }
    }
    let wanted = [("a", None), ("b", Some("b3")), ("c", Some("c3"))];
    assert_eq!(last, wanted.map(|(key, value)| (key.to_owned(), value.map(str::to_owned))).into());
}

pub fn a_topic_that_does_not_exist_yet_can_be_waited_for(log: &TestLog) {
    let topic = log.topic("later");
    let mut reader = log.reader();
    assert_eq!(reader.bounds(&topic, 0).expect("bounds"), (0, 0));
    reader.assign(&topic, 0, 0).expect("assign");
    assert!(reader.poll(Duration::from_millis(50)).expect("poll").is_none());
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    append_numbers(&mut *writer, handle, 0..3);
    writer.commit(b"p").expect("commit");
    assert_eq!(read_numbers(&mut *reader, 3), [0, 1, 2]);
}

pub fn an_offset_beyond_the_end_is_refused(log: &TestLog) {
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    append_numbers(&mut *writer, handle, 0..3);
    writer.commit(b"p").expect("commit");
    let mut reader = log.reader();
    let error = match reader.assign(&topic, 0, 1000) {
        Err(error) => error,
        Ok(()) => loop {
            match reader.poll(PATIENCE) {
                Err(error) => break error,
                Ok(found) => assert!(found.is_none_or(|consumed| consumed.records.is_empty())),
            }
        },
    };
    let LogError::OffsetGone { topic: named, wanted: 1000, first: 0, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(named, &topic);
}

pub fn the_same_topic_gives_the_same_handle(log: &TestLog) {
    let mut writer = log.writer();
    let (a, b) = (log.topic("a"), log.topic("b"));
    let handles = [&a, &b, &a, &b].map(|name| data_topic(&mut *writer, name));
    assert_eq!(handles[0], handles[2]);
    assert_eq!(handles[1], handles[3]);
    assert_ne!(handles[0], handles[1]);
    // An existing topic is taken over by the next writer.
    data_topic(&mut *log.writer(), &a);
}

pub fn topics_are_listed_by_prefix(log: &TestLog) {
    let mut reader = log.reader();
    let prefix = format!("{}.", log.source);
    assert_eq!(reader.topics(&prefix).expect("topics"), []);
    let mut writer = log.writer();
    for table in ["b", "a"] {
        data_topic(&mut *writer, &log.topic(table));
    }
    // Opening a writer makes the topic of its positions. Brokers hear of new topics a moment later.
    let wanted = [positions_topic(&log.source), log.topic("a"), log.topic("b")];
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let found = reader.topics(&prefix).expect("topics");
        let names: Vec<_> = found.iter().map(|topic| topic.name.clone()).collect();
        if names == wanted {
            assert!(found.iter().all(|topic| topic.partitions == 1));
            return;
        }
        assert!(std::time::Instant::now() < deadline, "{names:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub fn a_topic_of_another_kind_is_refused(log: &TestLog) {
    let topic = log.topic("t");
    data_topic(&mut *log.writer(), &topic);
    let error = log
        .writer()
        .topic(&TopicSpec { name: topic.clone(), cleanup: Cleanup::Compact })
        .expect_err("refused");
    assert!(
        matches!(&error, LogError::Unfit { .. }) && error.to_string().contains(&topic),
        "{error}"
    );
}

pub fn acknowledging_is_harmless(log: &TestLog) {
    let topic = log.topic("t");
    let mut writer = log.writer();
    let handle = data_topic(&mut *writer, &topic);
    append_numbers(&mut *writer, handle, 0..10);
    writer.commit(b"p").expect("commit");
    let mut reader = log.reader();
    reader.acknowledge("lake", &log.topic("unknown"), 0, 5).expect("acknowledge");
    reader.assign(&topic, 0, 0).expect("assign");
    let consumed = next_records(&mut *reader);
    reader.acknowledge("lake", &topic, 0, consumed.next_offset).expect("acknowledge");
    reader.acknowledge("other", &topic, 0, 3).expect("acknowledge");
    append_numbers(&mut *writer, handle, 10..20);
    writer.commit(b"p").expect("commit");
    assert_eq!(read_numbers(&mut *reader, 10), (10..20).collect::<Vec<_>>());
    assert_eq!(all_numbers(log, &topic), (0..20).collect::<Vec<_>>());
}
