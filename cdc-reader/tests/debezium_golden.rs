//! A raw binlog file and the records that the real Debezium 3.6 with Confluent's AvroConverter wrote for it: ours are
//! the same bytes, but for the schema ids in the framing and the envelope's own time stamps (Debezium's clock).

use cdc_reader::{
    binlog::{
        event::{EventHeader, HEADER_LENGTH, kind},
        table_map,
        transaction::{TransactionStart, parse_gtid},
    },
    encode::{
        envelope::{EnvelopeParts, SourceBlock},
        plan::EncodePlan,
        row::RowScratch,
        rows_event::{RowsContext, encode_rows_event},
    },
};
use change_log::{EncodedBatch, TopicHandle, headers};
use schemas::{avro_schema::AvroOptions, avro_write::write_long, wire_format::read_framing};
use serde_json::Value;

const CLOCK_US: i64 = 1_795_370_627_697_625;

struct Record {
    headers: Vec<(String, Vec<u8>)>,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

#[test]
fn records_of_a_binlog_slice_are_debeziums_bytes() {
    let expected = golden();
    let actual = encoded();
    assert_eq!(actual.len(), expected.len());
    assert_eq!(expected.len(), 12);
    // ts_ms, ts_us and ts_ns at the end are Debezium's clock: three present longs of the same length as ours.
    let mut clock = Vec::new();
    for time in [CLOCK_US / 1000, CLOCK_US, CLOCK_US * 1000] {
        clock.push(2);
        write_long(&mut clock, time);
    }
    for (i, (ours, theirs)) in actual.iter().zip(&expected).enumerate() {
        assert_eq!(ours.key, theirs.key, "key of record {i}");
        assert_eq!(ours.headers, theirs.headers, "headers of record {i}");
        match (&ours.value, &theirs.value) {
            (None, None) => {}
            (Some(ours), Some(theirs)) => {
                assert_eq!(ours.len(), theirs.len(), "length of record {i}");
                let end = ours.len() - clock.len();
                assert_eq!(ours[..end], theirs[..end], "record {i}");
            }
            _ => panic!("record {i}: only one of the two is a tombstone"),
        }
    }
}

fn encoded() -> Vec<Record> {
    let file = include_bytes!("golden/orders_slice.binlog");
    let mut batch = EncodedBatch::default();
    let (mut plan, mut start, mut thread) = (None, TransactionStart::default(), 0);
    let (mut parts, mut scratch) = (EnvelopeParts::default(), RowScratch::default());
    let mut context_headers = Vec::new();
    for (name, value) in
        golden()[0].headers.iter().filter(|(name, _)| name.starts_with("__debezium.context."))
    {
        headers::write(&mut context_headers, name, value).expect("a short name");
    }
    let mut at = 4;
    while at < file.len() {
        let header = EventHeader::parse(&file[at..]).expect("a header");
        let end = at + header.size as usize;
        let body = &file[at + HEADER_LENGTH..end - 4];
        match header.kind {
            kind::GTID => start = parse_gtid(body, false).expect("a GTID"),
            kind::QUERY => thread = u32::from_le_bytes(body[..4].try_into().expect("four bytes")),
            kind::TABLE_MAP => {
                let map = table_map::parse(body).expect("a table map");
                let options = AvroOptions { debezium_compat: true };
                plan = Some(EncodePlan::new(&map, "dbz", &[], options).expect("a plan"));
            }
            kind::WRITE_ROWS..=kind::DELETE_ROWS => {
                parts.fill(
                    &SourceBlock {
                        version: "3.6.1.Final",
                        source: "dbz",
                        snapshot: "false",
                        database: "udon",
                        table: "orders",
                        committed_at_us: start.committed_at_us,
                        server_id: header.server_id,
                        gtid: &start.gtid(),
                        file: "binlog.000002",
                        offset: at as u64,
                        thread,
                    },
                    CLOCK_US,
                );
                let context = RowsContext {
                    plan: plan.as_ref().expect("a table map came before"),
                    topic: TopicHandle(0),
                    timestamp_ms: 0,
                    skip_rows: 0,
                    headers: &context_headers,
                };
                encode_rows_event(
                    &context,
                    header.kind,
                    body,
                    &mut parts,
                    &mut scratch,
                    &mut batch,
                    |_| {},
                )
                .expect("encodes");
            }
            _ => {}
        }
        at = end;
    }
    let datum = |range: &std::ops::Range<usize>| {
        read_framing(&batch.bytes[range.clone()]).expect("framed").1.to_vec()
    };
    batch
        .records
        .iter()
        .map(|record| Record {
            key: datum(record.key.as_ref().expect("has a key")),
            value: record.value.as_ref().map(datum),
            headers: headers::iter(&batch.bytes[record.headers.clone()])
                .map(|header| header.expect("whole"))
                .map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.to_vec()))
                .collect(),
        })
        .collect()
}

fn golden() -> Vec<Record> {
    include_str!("golden/orders_slice.jsonl")
        .lines()
        .map(|line| {
            let record: Value = serde_json::from_str(line).expect("JSON");
            let unhex = |hex: &str| -> Vec<u8> {
                (0..hex.len())
                    .step_by(2)
                    .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex"))
                    .collect()
            };
            let bytes = |name: &str| {
                let framed = unhex(record[name].as_str()?);
                Some(read_framing(&framed).expect("framed").1.to_vec())
            };
            let headers = record["headers"].as_array().expect("headers").iter().map(|header| {
                let text = |i: usize| header[i].as_str().expect("text");
                (text(0).to_owned(), unhex(text(1)))
            });
            let headers = headers.collect();
            Record { headers, key: bytes("key_hex").expect("has a key"), value: bytes("value_hex") }
        })
        .collect()
}
