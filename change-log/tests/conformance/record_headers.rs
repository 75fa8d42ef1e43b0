//! What every change log promises of record headers.

use change_log::{EncodedBatch, headers};

use crate::test_log::{
    TestLog, compacted_topic, data_topic, next_records, push_with_headers, read_all,
};

pub fn headers_come_back_in_order(log: &TestLog) {
    let mut writer = log.writer();
    let topic = log.topic("t");
    let handle = data_topic(&mut *writer, &topic);
    let long_name = "n".repeat(255);
    let long_value = vec![0_u8; 70_000];
    let first: &[(&str, &[u8])] = &[("b", b"1"), ("a", b""), ("b", b"\xff\x00"), ("", b"unnamed")];
    let long: &[(&str, &[u8])] = &[(&long_name, &long_value), ("名", b"text")];
    type Wanted<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, &'a [(&'a str, &'a [u8])]);
    let records: [Wanted<'_>; 6] = [
        (Some(b"k"), Some(b"v"), &[]),
        (Some(b"k"), Some(b"v"), first),
        (Some(b"k"), None, first),
        (Some(b"k"), Some(b"v"), &[]),
        (None, None, &[("only", b"headers")]),
        (Some(b"k"), Some(b"v"), long),
    ];
    let mut batch = EncodedBatch::default();
    for (key, value, headers) in records {
        push_with_headers(&mut batch, handle, key, value, headers, 1_700_000_000_000);
    }
    for commit in 0..3 {
        // Once in one segment with the next commit's, and once far along in one.
        writer.append(&batch).expect("append");
        writer.append(&batch).expect("append");
        writer.commit(&[commit]).expect("commit");
    }
    let mut found = 0;
    for consumed in read_all(log, &topic) {
        for span in &consumed.records {
            let (key, value, headers) = records[found % records.len()];
            assert_eq!((consumed.key(span), consumed.value(span)), (key, value), "record {found}");
            let read: Vec<_> = headers::iter(consumed.headers(span))
                .map(|header| header.expect("whole"))
                .collect();
            let wanted: Vec<_> =
                headers.iter().map(|(name, value)| (name.as_bytes(), *value)).collect();
            assert!(read == wanted, "the headers of record {found} differ");
            found += 1;
        }
    }
    assert_eq!(found, 6 * records.len());
    // Reading may start behind the first records of what was written together.
    let mut reader = log.reader();
    reader.assign(&topic, 0, 2).expect("assign");
    let consumed = next_records(&mut *reader);
    let read = headers::iter(consumed.headers(&consumed.records[0])).count();
    assert_eq!((consumed.records[0].offset, read), (2, first.len()));
}

pub fn a_compacted_topic_takes_no_headers(log: &TestLog) {
    let mut writer = log.writer();
    let handle = compacted_topic(&mut *writer, &log.topic("compacted"));
    let mut batch = EncodedBatch::default();
    push_with_headers(&mut batch, handle, Some(b"k"), Some(b"v"), &[("h", b"1")], 5);
    let error = writer.append(&batch).expect_err("refused").to_string();
    assert!(error.contains("has headers"), "{error}");
}
