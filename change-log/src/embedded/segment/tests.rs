//! Segments come back as they were written, and damage is noticed.

use proptest::{collection::vec, option, prelude::*};

use super::*;

type Record = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>, i64);

/// What is stored: layout and payload.
fn build(base_offset: i64, records: &[Record]) -> (Vec<u8>, Vec<u8>) {
    let mut builder = SegmentBuilder::default();
    builder.restart(base_offset);
    for (key, value, headers, timestamp_ms) in records {
        builder.push(key.as_deref(), value.as_deref(), headers, *timestamp_ms);
    }
    assert_eq!(builder.next_offset(), base_offset + records.len() as i64);
    let mut compressed = b"of another segment".to_vec();
    let (layout, payload) = builder.seal(&mut compressed);
    (layout.to_vec(), payload.to_vec())
}

/// As a reader does: the offset after the last record, its spans, and the bytes that they point into.
fn read(
    stored: &StoredSegment<'_>,
    start: usize,
    wanted: i64,
) -> Result<(i64, Vec<RecordSpan>, Vec<u8>), DamagedSegment> {
    let (mut spans, mut bytes) = (Vec::new(), vec![0; start]);
    let next = stored.spans(start, wanted, &mut spans)?;
    stored.append_payload(&mut bytes)?;
    assert_eq!(stored.payload_length(), Ok(bytes.len() - start));
    Ok((next, spans, bytes))
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let bytes = || option::of(vec(any::<u8>(), 0..300));
    // Segments without any headers are made as well: they have the other version.
    let headers = prop_oneof![
        2 => vec(Just(Vec::new()), 20),
        3 => vec(prop_oneof![Just(Vec::new()), vec(any::<u8>(), 1..200)], 20),
    ];
    // Often enough they are worth compressing.
    let times = prop_oneof![Just(1), 30..60_usize];
    (vec((bytes(), bytes(), any::<i64>()), 0..20), headers, times).prop_map(
        |(records, headers, times)| {
            let once: Vec<Record> = records
                .into_iter()
                .zip(headers)
                .map(|((key, value, time), headers)| (key, value, headers, time))
                .collect();
            (0..times).flat_map(|_| once.clone()).collect::<Vec<_>>()
        },
    )
}

#[test]
fn segments_written_before_there_were_headers_are_read_and_written_alike() {
    // Bytes as version 1 has always had them: two records, "k" = "v" at 5 ms and a tombstone of "k" at 7 ms.
    let mut layout = vec![1, 0, 0, 0, 0];
    layout.extend_from_slice(&9_i64.to_le_bytes());
    layout.extend_from_slice(&2_u32.to_le_bytes());
    layout.extend_from_slice(&[2, 2, 10, 2, 0, 4]);
    let payload = b"kvk";
    let sum = checksum(&layout[CHECKED_FROM..], payload);
    layout[1..5].copy_from_slice(&sum.to_le_bytes());
    let stored = StoredSegment { base_offset: 9, layout: &layout, payload };
    let mut spans = Vec::new();
    assert_eq!(stored.spans(0, 9, &mut spans), Ok(11));
    let record = |offset, timestamp_ms, key, value| RecordSpan {
        offset,
        timestamp_ms,
        key,
        value,
        headers: (0, 0),
    };
    let wanted = [record(9, 5, Some((0, 1)), Some((1, 2))), record(10, 7, Some((2, 3)), None)];
    assert_eq!(spans, wanted);
    let key = || Some(b"k".to_vec());
    let built =
        build(9, &[(key(), Some(b"v".to_vec()), Vec::new(), 5), (key(), None, Vec::new(), 7)]);
    assert_eq!(built, (layout, payload.to_vec()));
}

#[test]
fn a_segment_of_a_newer_version_says_what_to_do() {
    let (mut layout, _) = build(0, &[]);
    layout[0] = 5;
    let stored = StoredSegment { base_offset: 0, layout: &layout, payload: &[] };
    let error = stored.spans(0, 0, &mut Vec::new()).expect_err("unknown");
    assert_eq!(error, DamagedSegment::Version(5));
    assert!(error.to_string().contains("start that version"), "{error}");
}

#[test]
fn records_that_repeat_themselves_are_compressed_and_others_are_not() {
    let repeated: Vec<Record> = vec![(Some(vec![1; 4]), Some(vec![7; 300]), Vec::new(), 0); 100];
    let (layout, payload) = build(0, &repeated);
    assert_eq!((layout[0], payload.len() < 30_400 / 10), (VERSION_COMPRESSED, true));
    let random = (0..30_000).map(|_| fastrand::u8(..)).collect();
    let (layout, payload) = build(0, &[(None, Some(random), Vec::new(), 0)]);
    assert_eq!((layout[0], payload.len()), (VERSION, 30_000));
}

#[test]
fn a_length_that_no_payload_can_have_takes_no_memory() {
    let layout = [VERSION_COMPRESSED; HEADER_LENGTH];
    let stored = StoredSegment { base_offset: 0, layout: &layout, payload: &[255; 8] };
    assert_eq!(stored.payload_length(), Err(DamagedSegment::Payload));
    assert_eq!(stored.append_payload(&mut Vec::new()), Err(DamagedSegment::Payload));
}

proptest! {
    #[test]
    fn records_come_back_as_they_were_written(
        base_offset in 0..i64::MAX / 2, records in records(), start in 0_usize..1000, skip in 0_i64..25,
    ) {
        let (layout, payload) = build(base_offset, &records);
        let stored = StoredSegment { base_offset, layout: &layout, payload: &payload };
        let (next, spans, bytes) = read(&stored, start, base_offset + skip).expect("own bytes");
        prop_assert_eq!(next, base_offset + records.len() as i64);
        let part = |span: Option<(u32, u32)>| span.map(|(from, to)| bytes[from as usize..to as usize].to_vec());
        let found: Vec<Record> = spans.iter()
            .map(|span| (
                part(span.key),
                part(span.value),
                // A record without headers has an empty span anywhere.
                if span.headers.0 == span.headers.1 { Vec::new() } else { part(Some(span.headers)).unwrap_or_default() },
                span.timestamp_ms,
            ))
            .collect();
        let wanted = records.get(skip as usize..).unwrap_or_default();
        prop_assert_eq!(found.as_slice(), wanted);
        for (index, span) in spans.iter().enumerate() {
            prop_assert_eq!(span.offset, base_offset + skip + index as i64);
        }
    }

    #[test]
    fn foreign_bytes_are_refused_without_a_panic(
        layout in vec(any::<u8>(), 0..200), payload in vec(any::<u8>(), 0..200), base_offset in any::<i64>(),
    ) {
        let stored = StoredSegment { base_offset, layout: &layout, payload: &payload };
        prop_assert!(stored.spans(0, 0, &mut Vec::new()).is_err());
    }

    #[test]
    fn foreign_bytes_with_a_good_checksum_do_not_panic(
        body in vec(any::<u8>(), 0..200), count in 0_u32..50, base_offset in any::<i64>(),
        version in VERSION..=VERSION_COMPRESSED_WITH_HEADERS,
        payload in vec(any::<u8>(), 0..200),
    ) {
        let mut layout = vec![version, 0, 0, 0, 0];
        layout.extend_from_slice(&base_offset.to_le_bytes());
        layout.extend_from_slice(&count.to_le_bytes());
        layout.extend_from_slice(&body);
        let sum = checksum(&layout[CHECKED_FROM..], &payload);
        layout[1..5].copy_from_slice(&sum.to_le_bytes());
        let mut spans = Vec::new();
        let stored = StoredSegment { base_offset, layout: &layout, payload: &payload };
        let end = 7 + stored.payload_length().unwrap_or_default();
        let _ = stored.spans(7, i64::MIN, &mut spans);
        let _ = stored.append_payload(&mut Vec::new());
        for (from, to) in spans.iter().flat_map(|span| [span.key, span.value]).flatten() {
            prop_assert!(7 <= from && from <= to && to as usize <= end);
        }
        for (from, to) in spans.iter().map(|span| span.headers).filter(|span| *span != (0, 0)) {
            prop_assert!(7 <= from && from <= to && to as usize <= end);
        }
    }

    #[test]
    fn a_changed_byte_is_noticed(records in records(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let (mut layout, mut payload) = build(5, &records);
        let at = at.index(layout.len() + payload.len());
        let split = layout.len();
        if at < split { layout[at] ^= 1 << bit } else { payload[at - split] ^= 1 << bit }
        let stored = StoredSegment { base_offset: 5, layout: &layout, payload: &payload };
        prop_assert!(read(&stored, 0, 0).is_err());
    }
}
