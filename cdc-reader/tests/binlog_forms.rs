//! Events that a MySQL server does not write in a usual day, fed to the encode thread: a binlog file of MariaDB 11.8
//! (rows of version 1, compressed rows and statements, GTIDs of two domains, XA), incidents, unknown events.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use cdc_reader::{
    ReaderError, ReaderMetrics,
    binlog::{
        consumed::Coordinates,
        event::{EventHeader, kind},
    },
    capture::{self, CaptureSetup},
    flow::Input,
    snapshot::window::Windows,
    table_filter::TableFilter,
};
use change_log::{EncodedBatch, LogError, LogWriter, TopicHandle, TopicSpec};
use schemas::{avro_schema::AvroOptions, position::Position};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const FILE: &[u8] = include_bytes!("golden/mariadb_market.binlog");

#[test]
fn binlog_file_of_mariadb_gives_its_rows_and_its_position() {
    let log = KeptLog::default();
    capture(&events_of(FILE), Coordinates::MariaDb, &log).expect("is read");
    // Inserts 2, update, delete and its tombstone, compressed insert and update, XA insert, truncation.
    assert_eq!(log.records("s.market.orders"), 9);
    assert_eq!(log.records("s.market.copy"), 2, "rows of CREATE TABLE ... SELECT");
    let position = log.position();
    assert_eq!(position.gtid_set, "0-1-11,4-1-1");
    assert_eq!((position.place.file.as_str(), position.place.offset), ("binlog.000003", 4));
    assert!(position.stopped.is_empty() && position.prepared.is_empty(), "{position:?}");
}

#[test]
fn file_that_is_cut_anywhere_is_an_error_or_waits_for_more() {
    let events = events_of(FILE);
    for cut in (0..events.len()).step_by(7) {
        match capture(&events[..cut], Coordinates::MariaDb, &KeptLog::default()) {
            Ok(()) | Err(ReaderError::BadEvent { .. }) => {}
            Err(other) => panic!("{cut}: {other}"),
        }
    }
}

#[test]
fn unknown_event_is_passed_over_only_if_the_server_says_so() {
    let unknown = |flags| event(99, flags, b"whatever");
    capture(&unknown(0x80), Coordinates::GtidSet, &KeptLog::default()).expect("is ignorable");
    let error = capture(&unknown(0), Coordinates::GtidSet, &KeptLog::default());
    let sentence = error.expect_err("may mean anything").to_string();
    assert!(sentence.contains("it is of type 99, which this release does not know"), "{sentence}");
}

#[test]
fn incident_and_encryption_are_named() {
    let capture = |events: &[u8]| {
        capture(events, Coordinates::GtidSet, &KeptLog::default()).expect_err("ends")
    };
    let incident = capture(&event(kind::INCIDENT, 0, b"\x01\x00\x04lost")).to_string();
    assert!(incident.contains("changes are missing from the binlog of source s"), "{incident}");
    assert!(incident.contains("INCIDENT event: lost"), "{incident}");
    capture(&event(kind::INCIDENT, 0, b"\x01"));
    let encrypted = capture(&event(kind::MARIADB_START_ENCRYPTION, 0, &[1; 17])).to_string();
    assert!(encrypted.contains("the server sends its binlog encrypted"), "{encrypted}");
}

fn event(event_kind: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    let size = 19 + body.len() as u32;
    let header =
        EventHeader { timestamp: 1, kind: event_kind, server_id: 1, size, next_offset: 500, flags };
    let mut event = size.to_le_bytes().to_vec();
    event.extend_from_slice(&header.bytes());
    event.extend_from_slice(body);
    event
}

/// The file's events as the replication connection hands them on: without checksums.
fn events_of(file: &[u8]) -> Vec<u8> {
    let mut events = event(kind::ROTATE, 0x20, b"\x04\0\0\0\0\0\0\0binlog.000002");
    let mut at = 4;
    while at < file.len() {
        let header = EventHeader::parse(&file[at..]).expect("a header");
        let end = at + header.size as usize;
        let event = &file[at..end - 4];
        events.extend_from_slice(&(event.len() as u32).to_le_bytes());
        events.extend_from_slice(event);
        at = end;
    }
    events
}

fn capture(events: &[u8], coordinates: Coordinates, log: &KeptLog) -> Result<(), ReaderError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let setup = CaptureSetup {
        source: "s".into(),
        options: AvroOptions { debezium_compat: false },
        commit_interval: Duration::ZERO,
        filter: TableFilter::new(&["*.*".to_owned()]).expect("a pattern"),
        writer: Box::new(log.clone()),
        position: Position::default(),
        coordinates,
        mariadb: coordinates == Coordinates::MariaDb,
        debezium: Default::default(),
        catalog: HashMap::new(),
        keyless_pending: HashSet::new(),
        windows: Windows::new(&std::env::temp_dir()),
        emptied: Vec::new(),
        defaults: Box::new(|| Ok(Default::default())),
        metrics: ReaderMetrics::new(&prometheus::Registry::new()).source("s"),
        spent: mpsc::channel(1).0,
        live: Default::default(),
        history: Default::default(),
        schema_ids: None,
        committed: Default::default(),
        buffers: Default::default(),
        held_back: tokio::sync::watch::channel(None).1,
    };
    let (inbox, received) = mpsc::channel(1);
    inbox.try_send(Input::Events(events.to_vec())).expect("there is room");
    drop(inbox);
    capture::run(setup, received, runtime.handle(), &CancellationToken::new())
}

/// Counts records by topic, and keeps the last position.
#[derive(Clone, Default)]
struct KeptLog {
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    topics: Vec<(String, usize)>,
    position: Vec<u8>,
}

impl KeptLog {
    fn records(&self, topic: &str) -> usize {
        let kept = self.kept.lock().expect("not poisoned");
        kept.topics.iter().find(|(name, _)| name == topic).map_or(0, |(_, records)| *records)
    }

    fn position(&self) -> Position {
        let kept = self.kept.lock().expect("not poisoned");
        serde_json::from_slice(&kept.position).expect("a position")
    }
}

impl LogWriter for KeptLog {
    fn last_position(&self) -> Option<&[u8]> {
        None
    }

    fn topic(&mut self, spec: &TopicSpec) -> Result<TopicHandle, LogError> {
        let mut kept = self.kept.lock().expect("not poisoned");
        let known = kept.topics.iter().position(|(name, _)| *name == spec.name);
        let index = known.unwrap_or_else(|| {
            kept.topics.push((spec.name.clone(), 0));
            kept.topics.len() - 1
        });
        Ok(TopicHandle(index as u32))
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), LogError> {
        let mut kept = self.kept.lock().expect("not poisoned");
        for record in &batch.records {
            kept.topics[record.topic.0 as usize].1 += 1;
        }
        Ok(())
    }

    fn commit(&mut self, position: &[u8]) -> Result<(), LogError> {
        self.kept.lock().expect("not poisoned").position = position.to_vec();
        Ok(())
    }
}
