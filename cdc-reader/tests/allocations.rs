//! The hot path allocates nothing per row: the same events with twice the rows cost the same number of allocations,
//! and once memory is warm, none at all.
//!
//! Events are built here as MySQL builds them, for the 12 columns of the benchmarks' table: all the types that are
//! hot in practice. `encode_rows_event` is counted by itself, and the whole encode thread with a log that keeps
//! nothing. A binary of its own, because a global allocator counts for all tests of a binary.

mod counting_allocator;

use std::sync::{Arc, Mutex};

use cdc_reader::{
    ReaderMetrics, SourceConfig,
    binlog::{
        event::{HEADER_LENGTH, kind},
        table_map,
    },
    capture::{self, CaptureSetup},
    encode::{
        envelope::{EnvelopeParts, SourceBlock},
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

use counting_allocator::allocations;

// --- the events ------------------------------------------------------------------------------------------------------

const TABLE_ID: [u8; 6] = [7, 0, 0, 0, 0, 0];
const COLUMNS: usize = 12;

/// The TABLE_MAP of `market.orders`: id BIGINT UNSIGNED, user_id INT, status ENUM, price DECIMAL(12,2), qty SMALLINT,
/// memo VARCHAR(200), address TEXT, ordered_at DATETIME(6), updated_at TIMESTAMP, meta JSON, is_gift TINYINT,
/// ratio DOUBLE; all but id, user_id and price can be NULL.
fn orders_map() -> Vec<u8> {
    let mut map = TABLE_ID.to_vec();
    map.extend_from_slice(&[1, 0, 6]);
    map.extend_from_slice(b"market\0\x06orders\0");
    map.push(COLUMNS as u8);
    map.extend_from_slice(&[8, 3, 254, 246, 2, 15, 252, 18, 17, 245, 1, 5]);
    // ENUM: its real type and one byte; DECIMAL(12,2); VARCHAR of 800 bytes; TEXT with 2 length bytes; digits; JSON
    // with 4 length bytes; DOUBLE of 8 bytes.
    let metadata = [247, 1, 12, 2, 0x20, 3, 2, 6, 0, 4, 8];
    map.push(metadata.len() as u8);
    map.extend_from_slice(&metadata);
    map.extend_from_slice(&[0b1111_0100, 0b1111]);
    // Signedness of the numeric columns, default collation of the texts, names, members, the key.
    let mut field = |code: u8, content: &[u8]| {
        map.extend_from_slice(&[code, content.len() as u8]);
        map.extend_from_slice(content);
    };
    field(1, &[0b1000_0000]);
    field(2, &[255 - 210]);
    let mut names = Vec::new();
    for name in [
        "id",
        "user_id",
        "status",
        "price",
        "qty",
        "memo",
        "address",
        "ordered_at",
        "updated_at",
        "meta",
        "is_gift",
        "ratio",
    ] {
        names.push(name.len() as u8);
        names.extend_from_slice(name.as_bytes());
    }
    field(4, &names);
    field(6, b"\x04\x07created\x04paid\x07shipped\x04done");
    field(8, &[0]);
    map
}

/// A row image. Every seventh has NULLs where they can be.
fn push_image(image: &mut Vec<u8>, number: u64) {
    let with_nulls = number.is_multiple_of(7);
    image.extend_from_slice(if with_nulls { &[0b1111_0100, 0b1111] } else { &[0, 0] });
    image.extend_from_slice(&number.to_le_bytes());
    image.extend_from_slice(&((number % 100_000) as u32).to_le_bytes());
    if !with_nulls {
        image.push((number % 4) as u8 + 1);
    }
    // DECIMAL(12,2): a group of 1 digit in 1 byte, one of 9 in 4, 2 fraction digits in 1; negative ones inverted.
    let price =
        [0x80 | (number % 10) as u8, 0, 0, (number >> 8) as u8, number as u8, (number % 100) as u8];
    let inverted = if number.is_multiple_of(3) { 0xff } else { 0 };
    image.extend(price.map(|byte| byte ^ inverted));
    if with_nulls {
        return;
    }
    image.extend_from_slice(&(number as u16 % 10).to_le_bytes());
    let memo = "memo über 수박 market";
    image.extend_from_slice(&(memo.len() as u16).to_le_bytes());
    image.extend_from_slice(memo.as_bytes());
    let address = "Seoul Gangnam-gu Teheran-ro 152, apt 1203";
    image.extend_from_slice(&(address.len() as u16).to_le_bytes());
    image.extend_from_slice(address.as_bytes());
    image.extend_from_slice(&[0x99, 0xb9, 0x6d, 0x10, 0xc3, 0, 0, (number % 200) as u8]);
    image.extend_from_slice(&(1_770_000_000 + number as u32).to_be_bytes());
    // {"a": number, "b": [1, 2, "x\n"], "d": 2.5}
    let json = json_object(number as u16);
    image.extend_from_slice(&(json.len() as u32).to_le_bytes());
    image.extend_from_slice(&json[..]);
    image.push((number % 2) as u8);
    image.extend_from_slice(&(number as f64 / 3.0).to_le_bytes());
}

fn json_object(number: u16) -> Vec<u8> {
    // Small object of 3 keys: count, size, 3 key entries of 4 bytes, 3 value entries of 3, the keys, the values.
    let array = [3, 0, 16, 0, 5, 1, 0, 5, 2, 0, 12, 13, 0, 2, b'x', b'\n'];
    let (keys, values) = (25u16, 28u16);
    let double_at = values + array.len() as u16;
    let mut json = vec![0, 3, 0];
    json.extend_from_slice(&(double_at + 8).to_le_bytes());
    for i in 0..3 {
        json.extend_from_slice(&(keys + i).to_le_bytes());
        json.extend_from_slice(&[1, 0]);
    }
    json.push(5);
    json.extend_from_slice(&(number & 0x7fff).to_le_bytes());
    json.push(2);
    json.extend_from_slice(&values.to_le_bytes());
    json.push(11);
    json.extend_from_slice(&double_at.to_le_bytes());
    json.extend_from_slice(b"abd");
    json.extend_from_slice(&array);
    json.extend_from_slice(&2.5f64.to_le_bytes());
    json
}

/// The body of a rows event of `rows` rows.
fn rows_body(event_kind: u8, rows: u64) -> Vec<u8> {
    let mut body = TABLE_ID.to_vec();
    body.extend_from_slice(&[1, 0, 2, 0, COLUMNS as u8, 0xff, 0xff]);
    if event_kind == kind::UPDATE_ROWS {
        body.extend_from_slice(&[0xff, 0xff]);
    }
    for number in 1..=rows {
        push_image(&mut body, number);
        if event_kind == kind::UPDATE_ROWS {
            // Every fifth changes the key: a delete and an insert.
            push_image(&mut body, if number % 5 == 0 { number + (1 << 40) } else { number });
        }
    }
    body
}

const ROWS_KINDS: [u8; 3] = [kind::WRITE_ROWS, kind::UPDATE_ROWS, kind::DELETE_ROWS];

// --- the tests -------------------------------------------------------------------------------------------------------

#[test]
fn encoding_rows_allocates_nothing() {
    let map = table_map::parse(&orders_map()).expect("a table map");
    for debezium_compat in [false, true] {
        let plan =
            EncodePlan::new(&map, "s", &[], AvroOptions { debezium_compat }).expect("a plan");
        let (mut parts, mut scratch) = (EnvelopeParts::default(), RowScratch::default());
        let mut batch = EncodedBatch::default();
        for event_kind in ROWS_KINDS {
            let bodies = [rows_body(event_kind, 2000), rows_body(event_kind, 1000)];
            let mut counts = Vec::new();
            // The first, of twice the rows, warms the memory.
            for body in [&bodies[0], &bodies[0], &bodies[1]] {
                batch.clear();
                let before = allocations();
                parts.fill(&source_block(), 1_795_370_627_697_625);
                let context = RowsContext {
                    headers: &[],
                    plan: &plan,
                    topic: TopicHandle(0),
                    timestamp_ms: 0,
                    skip_rows: 0,
                };
                let mut key_bytes = 0;
                let rows = encode_rows_event(
                    &context,
                    event_kind,
                    body,
                    &mut parts,
                    &mut scratch,
                    &mut batch,
                    |key| key_bytes += key.len(),
                );
                counts.push(allocations() - before);
                assert!(rows.expect("encodes") >= 1000 && key_bytes > 0);
            }
            assert_eq!(counts[1..], [0, 0], "kind {event_kind}, compat {debezium_compat}");
        }
        assert_eq!(scratch.invalid_texts + scratch.zero_dates, 0, "the events are as meant");
    }
}

#[test]
fn the_encode_thread_allocates_per_transaction_and_not_per_row() {
    // Transactions of 20 rows events, far more rows than the batch holds before it is handed on.
    let few = per_transaction(100);
    let many = per_transaction(200);
    assert_eq!(few, many, "twice the rows in each event");
    // A transaction's own: its GTID as text, the origin, the place where it began, the list of tables it touched.
    assert!(few <= 20, "{few} allocations per transaction of 20 events");
}

/// How many allocations the encode thread makes for one transaction of 20 events of `rows` rows, after warming up.
fn per_transaction(rows: u64) -> u64 {
    let transaction = |number: u64| {
        let mut chunk = Vec::new();
        let mut gtid = vec![0];
        gtid.extend_from_slice(&[0xab; 16]);
        gtid.extend_from_slice(&number.to_le_bytes());
        push_event(&mut chunk, kind::GTID, &gtid);
        push_event(&mut chunk, kind::TABLE_MAP, &orders_map());
        for i in 0..20 {
            let event_kind = ROWS_KINDS[i % 3];
            push_event(&mut chunk, event_kind, &rows_body(event_kind, rows));
        }
        push_event(&mut chunk, kind::XID, &number.to_le_bytes());
        chunk
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let log = CountingLog::default();
    // Every transaction is committed, so that the log sees each of them.
    let config = serde_json::json!({ "name": "s", "url": "", "commit_interval_ms": 0 });
    let config: SourceConfig = serde_json::from_value(config).expect("a configuration");
    let filter = TableFilter::new(&config.tables).expect("a pattern");
    let metrics = ReaderMetrics::new(&prometheus::Registry::new()).source("s");
    let setup = CaptureSetup::new(&config, filter, Box::new(log.clone()), metrics);
    let (inbox, received) = mpsc::channel(16);
    for number in 1..=12 {
        inbox.try_send(Input::Events(transaction(number))).expect("there is room");
    }
    drop(inbox);
    capture::run(setup, received, runtime.handle(), &CancellationToken::new()).expect("captures");
    let seen = log.seen.lock().expect("not poisoned");
    // Two commits besides the transactions': the first position, and the end.
    let commits: Vec<(u64, u64)> = seen.clone();
    let whole: Vec<u64> = commits.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    let rows_written: u64 = commits.iter().map(|commit| commit.1).sum();
    // 20 events: 7 inserts, 7 updates, of which every fifth is three records, and 6 deletes with their tombstones; and
    // two schemas.
    assert_eq!(rows_written, 12 * (rows * 26 + rows / 5 * 2 * 7) + 2);
    let last = &whole[whole.len() - 5..whole.len() - 1];
    assert!(last.iter().all(|count| count == &last[0]), "{whole:?}");
    last[0]
}

fn push_event(chunk: &mut Vec<u8>, event_kind: u8, body: &[u8]) {
    let length = (HEADER_LENGTH + body.len()) as u32;
    chunk.extend_from_slice(&length.to_le_bytes());
    chunk.extend_from_slice(&[1, 0, 0, 0, event_kind, 1, 0, 0, 0]);
    chunk.extend_from_slice(&(length + 4).to_le_bytes());
    chunk.extend_from_slice(&[0; 6]);
    chunk.extend_from_slice(body);
}

/// Notes at each commit how many allocations its thread has made, and how many records came since the one before.
#[derive(Clone, Default)]
struct CountingLog {
    seen: Arc<Mutex<Vec<(u64, u64)>>>,
    records: u64,
}

impl LogWriter for CountingLog {
    fn last_position(&self) -> Option<&[u8]> {
        None
    }

    fn topic(&mut self, _: &TopicSpec) -> Result<TopicHandle, LogError> {
        Ok(TopicHandle(0))
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), LogError> {
        self.records += batch.records.len() as u64;
        Ok(())
    }

    fn commit(&mut self, _: &[u8]) -> Result<(), LogError> {
        let mut seen = self.seen.lock().expect("not poisoned");
        seen.reserve(100);
        seen.push((allocations(), std::mem::take(&mut self.records)));
        Ok(())
    }
}

fn source_block() -> SourceBlock<'static> {
    SourceBlock {
        version: "1",
        source: "s",
        snapshot: "false",
        database: "market",
        table: "orders",
        committed_at_us: 1_795_370_627_697_625,
        server_id: 1,
        gtid: "abababab-abab-abab-abab-abababababab:7",
        file: "binlog.000002",
        offset: 4,
        thread: 7,
    }
}
