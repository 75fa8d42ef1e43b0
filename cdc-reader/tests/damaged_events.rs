//! What fuzzing found: events with damage end in a sentence, and what is written stays readable.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use cdc_reader::{
    ReaderError, ReaderMetrics,
    binlog::{event::kind, table_map},
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
use schemas::{avro_schema::AvroOptions, position::Position};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// `d.t(d json not null)` with names.
const JSON_MAP: &[u8] =
    &[7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, 1, 245, 1, 4, 0, 4, 2, 1, b'd'];

#[test]
fn bytes_in_json_that_are_no_text_are_replaced_and_counted() {
    let map = table_map::parse(JSON_MAP).expect("a table map");
    let plan =
        EncodePlan::new(&map, "s", &[], AvroOptions { debezium_compat: false }).expect("a plan");
    // One row: the string "a\x8d", a document of 4 bytes.
    let body = [7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 1, 0xff, 0, 4, 0, 0, 0, 12, 2, b'a', 0x8d];
    let (mut scratch, mut batch) = (RowScratch::default(), EncodedBatch::default());
    let mut parts = EnvelopeParts::default();
    let context = RowsContext { plan: &plan, topic: TopicHandle(0), timestamp_ms: 0, skip_rows: 0 };
    encode_rows_event(
        &context,
        kind::WRITE_ROWS,
        &body,
        &mut parts,
        &mut scratch,
        &mut batch,
        |_| {},
    )
    .expect("encodes");
    let text = "\"a\u{fffd}\"".as_bytes();
    assert!(batch.bytes.windows(text.len()).any(|window| window == text), "{:?}", batch.bytes);
    assert_eq!(scratch.invalid_texts, 1);
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
    let setup = CaptureSetup {
        source: "s".into(),
        options: AvroOptions { debezium_compat: false },
        commit_interval: Duration::ZERO,
        filter: TableFilter::new(&["*.*".to_owned()]).expect("a pattern"),
        writer: Box::new(NoLog),
        position: Position::default(),
        catalog: HashMap::new(),
        keyless_pending: HashSet::new(),
        unfinished: HashMap::new(),
        metrics: ReaderMetrics::new(&prometheus::Registry::new()).source("s"),
    };
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
