//! A rows event after a TABLE_MAP, both foreign: what is encoded has to be Avro that its own schema reads whole.
//!
//! Input: the TABLE_MAP body's length in two bytes, its body, the rows event's type, its body.
#![no_main]

use cdc_reader::{
    binlog::table_map,
    encode::{
        envelope::{EnvelopeParts, SourceBlock},
        plan::{EncodePlan, SchemaText},
        row::RowScratch,
        rows_event::{RowsContext, encode_rows_event},
    },
};
use change_log::{EncodedBatch, TopicHandle};
use libfuzzer_sys::fuzz_target;
use schemas::{avro_schema::AvroOptions, wire_format::read_framing};

/// Reading back is slow: so many records of an event are.
const READ_BACK: usize = 4;

fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first_chunk::<2>() else { return };
    let Some((map, rest)) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length))) else {
        return;
    };
    let Some((&event_kind, body)) = rest.split_first() else { return };
    let Ok(map) = table_map::parse(map) else { return };
    let options = AvroOptions { debezium_compat: event_kind & 0x80 != 0 };
    let Ok(plan) = EncodePlan::new(&map, "s", &[], options) else { return };
    let mut parts = EnvelopeParts::default();
    let block = SourceBlock {
        version: "1",
        source: "s",
        snapshot: "false",
        database: "d",
        table: "t",
        committed_at_us: 1_795_370_627_697_625,
        server_id: 1,
        gtid: "3e11fa47-71ca-11e1-9e33-c80aa9429562:5",
        file: "binlog.000002",
        offset: 4,
        thread: 7,
    };
    parts.fill(&block, 1_795_370_627_697_625);
    let context = RowsContext {
        plan: &plan,
        topic: TopicHandle(0),
        timestamp_ms: 0,
        skip_rows: 0,
        headers: &[],
    };
    let (mut scratch, mut batch) = (RowScratch::default(), EncodedBatch::default());
    let mut keys = 0;
    let event_kind = event_kind & 0x7f;
    let encoded =
        encode_rows_event(&context, event_kind, body, &mut parts, &mut scratch, &mut batch, |_| {
            keys += 1
        });
    let Ok(rows) = encoded else {
        assert!(
            batch.bytes.is_empty() && batch.records.is_empty(),
            "an error leaves the batch as it was"
        );
        return;
    };
    assert!(batch.records.len() as u64 >= rows);
    // An update that lacks columns is told to the snapshot in another way.
    if batch.records.iter().all(|record| record.headers.is_empty()) {
        assert_eq!(keys > 0, rows > 0 && plan.schemas.key.is_some());
    } else {
        assert!(keys == 0 || plan.schemas.key.is_some());
    }
    for record in batch.records.iter().take(READ_BACK) {
        if let (Some(schema), Some(range)) = (&plan.schemas.key, &record.key) {
            read_back(schema, &batch.bytes[range.clone()]);
        }
        if let Some(range) = &record.value {
            read_back(&plan.schemas.value, &batch.bytes[range.clone()]);
        }
    }
});

fn read_back(schema: &SchemaText, record: &[u8]) {
    // A foreign table map has names that Avro's specification does not allow; real consumers are told of them
    // elsewhere, and here they only mean that this reader cannot help.
    let Ok(avro) = apache_avro::Schema::parse_str(&schema.text) else { return };
    let (_, mut datum) = read_framing(record).expect("framed");
    let reader =
        apache_avro::reader::datum::GenericDatumReader::builder(&avro).build().expect("a reader");
    reader.read_value(&mut datum).expect("reads back");
    assert!(datum.is_empty(), "{} bytes are left over", datum.len());
}
