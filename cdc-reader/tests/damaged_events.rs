//! What fuzzing found: events with damage end in a sentence, and what is written stays readable.

use cdc_reader::{
    ReaderError, ReaderMetrics, SourceConfig,
    binlog::{byte_reader::Malformed, event::kind, table_map},
    capture::{self, CaptureSetup},
    encode::{
        envelope::EnvelopeParts,
        plan::EncodePlan,
        row::RowScratch,
        rows_event::{RowsContext, encode_rows_event},
    },
    flow::Input,
    table_filter::TableFilter,
};
use change_log::{EncodedBatch, LogError, LogWriter, TopicHandle, TopicSpec};
use schemas::avro_schema::AvroOptions;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// `d.t(d json not null)` with names.
const JSON_MAP: &[u8] =
    &[7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 1, 245, 1, 4, 0, 4, 2, 1, b'd'];

#[test]
fn bytes_in_json_that_are_no_text_are_replaced_and_counted() {
    // The string "a\x8d", a document of 4 bytes.
    let encoded = encode_insert(JSON_MAP, 1, &[0, 4, 0, 0, 0, 12, 2, b'a', 0x8d]);
    let (bytes, invalid_texts) = encoded.expect("encodes");
    let text = "\"a\u{fffd}\"".as_bytes();
    assert!(bytes.windows(text.len()).any(|window| window == text), "{bytes:?}");
    assert_eq!(invalid_texts, 1);
}

#[test]
fn an_srid_above_an_int_keeps_its_bits() {
    // The same column as GEOMETRY, SRID 0xfffffffe, without coordinates.
    let mut map = JSON_MAP.to_vec();
    map[15] = 255;
    let encoded = encode_insert(&map, 1, &[0, 4, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
    let (bytes, _) = encoded.expect("encodes");
    // An Avro record of no bytes, the second branch, and -2.
    assert!(bytes.windows(3).any(|window| window == [0, 2, 3]), "{bytes:?}");
}

#[test]
fn rows_of_a_table_without_columns_end() {
    let map = [7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 0, 0];
    assert_eq!(encode_insert(&map, 0, &[1, 2, 3]), Err(Malformed("its rows have no bytes")));
}

#[test]
fn a_primary_key_whose_column_can_be_null_is_refused() {
    // Without the check a NULL in it would leave the key of the row before.
    let map = |nullable, key: &[u8]| {
        let mut map = vec![7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 1, 3, 0, nullable];
        map.extend_from_slice(&[4, 2, 1, b'i', 8, key.len() as u8]);
        map.extend_from_slice(key);
        table_map::parse(&map)
    };
    assert!(map(0, &[0]).is_ok());
    assert!(map(1, &[0]).is_err());
    assert!(map(0, &[0, 0]).is_err());
}

/// The batch's bytes and the count of invalid texts after the rows of an insert into a table of up to 8 columns.
fn encode_insert(map: &[u8], columns: u8, rows: &[u8]) -> Result<(Vec<u8>, u64), Malformed> {
    let map = table_map::parse(map).expect("a table map");
    let options = AvroOptions { debezium_compat: false };
    let plan = EncodePlan::new(&map, "s", &[], options).expect("a plan");
    let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, columns];
    body.extend_from_slice(&[0xff, 0][..usize::from(columns > 0)]);
    body.extend_from_slice(rows);
    let (mut scratch, mut batch) = (RowScratch::default(), EncodedBatch::default());
    let mut parts = EnvelopeParts::default();
    let context = RowsContext {
        plan: &plan,
        topic: TopicHandle(0),
        timestamp_ms: 0,
        skip_rows: 0,
        headers: &[],
    };
    let (kind, parts, scratch) = (kind::WRITE_ROWS, &mut parts, &mut scratch);
    encode_rows_event(&context, kind, &body, parts, scratch, &mut batch, |_| {})?;
    Ok((batch.bytes, scratch.invalid_texts))
}

#[test]
fn a_gtid_without_a_possible_number_is_refused() {
    for number in [0, i64::MAX as u64, u64::MAX] {
        let mut body = vec![0];
        body.extend_from_slice(&[0xab; 16]);
        body.extend_from_slice(&number.to_le_bytes());
        let reason = refused(&event(kind::GTID, &body));
        assert!(reason.contains("a GTID's number is not between 1 and 2^63 - 2"), "{reason}");
    }
}

/// An event as the replication connection hands it on.
fn event(event_kind: u8, body: &[u8]) -> Vec<u8> {
    let length = 19 + body.len() as u32;
    let mut event = length.to_le_bytes().to_vec();
    event.extend_from_slice(&[1, 0, 0, 0, event_kind, 1, 0, 0, 0]);
    event.extend_from_slice(&(length + 4).to_le_bytes());
    event.extend_from_slice(&[100, 0, 0, 0, 0, 0]);
    event.extend_from_slice(body);
    event
}

/// The sentence with which the encode thread refuses these events.
fn refused(events: &[u8]) -> String {
    match capture(events) {
        Err(ReaderError::BadEvent { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

fn capture(events: &[u8]) -> Result<(), ReaderError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let config = serde_json::json!({ "name": "s", "url": "", "commit_interval_ms": 0 });
    let config: SourceConfig = serde_json::from_value(config).expect("a configuration");
    let filter = TableFilter::new(&config.tables).expect("a pattern");
    let metrics = ReaderMetrics::new(&prometheus::Registry::new()).source("s");
    let setup = CaptureSetup::new(&config, filter, Box::new(NoLog), metrics);
    let (inbox, received) = mpsc::channel(1);
    inbox.try_send(Input::Events(events.to_vec())).expect("there is room");
    drop(inbox);
    capture::run(setup, received, runtime.handle(), &CancellationToken::new())
}

struct NoLog;

impl LogWriter for NoLog {
    fn last_position(&self) -> Option<&[u8]> {
        None
    }

    fn topic(&mut self, _: &TopicSpec) -> Result<TopicHandle, LogError> {
        Ok(TopicHandle(0))
    }

    fn append(&mut self, _: &EncodedBatch) -> Result<(), LogError> {
        Ok(())
    }

    fn commit(&mut self, _: &[u8]) -> Result<(), LogError> {
        Ok(())
    }
}
