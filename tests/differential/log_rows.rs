//! Replays a table's records: which rows are there at the end, and whether each `before` is the `after` before it.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use change_log::{LogReader, headers};
use schemas::{
    position::Position,
    table_id::{positions_topic, schemas_topic},
    wire_format::{SchemaReference, read_framing},
};

use super::harness::eventually_some;

const LEADER: Duration = Duration::from_secs(30);

/// A row's columns by name.
pub type Row = HashMap<String, Value>;

/// The rows that a topic's records leave.
#[derive(Default)]
pub struct LogRows {
    /// By the key's bytes; those of a table without a key by number.
    pub rows: BTreeMap<Vec<u8>, Row>,
    /// Rows without a key so far.
    numbered: u64,
}

/// A record's framed key and value; a tombstone has no value.
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    headers: HashMap<String, Vec<u8>>,
}

impl Record {
    /// The columns of an image that the binlog carried.
    fn present(&self, image: Value, header: &str) -> Row {
        let Value::Record(columns) = image else { panic!("an image is no record") };
        let absent = self.headers.get(header);
        let carried = |at: usize| absent.is_none_or(|bits| bits[at / 8] >> (at % 8) & 1 == 0);
        columns.into_iter().enumerate().filter(|(at, _)| carried(*at)).map(|(_, c)| c).collect()
    }
}

/// Reads a topic from its start.
pub fn replay(reader: &mut dyn LogReader, source: &str, topic: &str) -> LogRows {
    // Before the schemas, which are there when their records are.
    let records = read_all(reader, topic);
    let schemas: HashMap<u64, Schema> = read_all(reader, &schemas_topic(source))
        .into_iter()
        .filter_map(|record| {
            let fingerprint = u64::from_le_bytes(record.key?.try_into().ok()?);
            let text = String::from_utf8(record.value?).expect("UTF-8");
            Some((fingerprint, Schema::parse_str(&text).expect("a schema")))
        })
        .collect();
    let mut rows = LogRows::default();
    for record in records {
        rows.take(&schemas, topic, record);
    }
    rows
}

impl LogRows {
    fn take(&mut self, schemas: &HashMap<u64, Schema>, topic: &str, record: Record) {
        let Some(value) = &record.value else {
            let key = record.key.expect("a tombstone has a key");
            assert!(!self.rows.contains_key(&key), "a tombstone in {topic} without a delete");
            return;
        };
        let mut envelope = decode(schemas, value);
        let mut image = |name: &str, header: &str| match envelope.remove(name) {
            Some(Value::Union(_, row)) if *row != Value::Null => Some(record.present(*row, header)),
            _ => None,
        };
        let before = image("before", "binlake.before.absent");
        let after = image("after", "binlake.after.absent");
        let Some(Value::String(op)) = envelope.remove("op") else { panic!("op is no string") };
        match (op.as_str(), before, after) {
            ("t", None, None) => self.rows.clear(),
            ("c" | "r", None, Some(mut after)) => {
                // A row that has moved, and brings only what has changed with it.
                if let Some(moved) =
                    record.headers.get("binlake.old.key").and_then(|key| self.rows.get(key))
                {
                    for (column, value) in moved {
                        after.entry(column.clone()).or_insert_with(|| value.clone());
                    }
                }
                self.numbered += 1;
                let key = record.key.unwrap_or_else(|| self.numbered.to_be_bytes().to_vec());
                let earlier = self.rows.insert(key, after);
                assert!(earlier.is_none(), "{op} in {topic} of a row that is there: {earlier:?}");
            }
            ("u", Some(before), Some(after)) => {
                let key = record.key.unwrap_or_else(|| self.key_of(&before));
                let row = self.rows.get_mut(&key);
                let row =
                    row.unwrap_or_else(|| panic!("an update in {topic} of no row: {before:?}"));
                assert_carries(row, &before, topic);
                row.extend(after);
            }
            ("d", Some(before), None) => {
                let key = record.key.unwrap_or_else(|| self.key_of(&before));
                let row = self.rows.remove(&key);
                let row =
                    row.unwrap_or_else(|| panic!("a delete in {topic} of no row: {before:?}"));
                assert_carries(&row, &before, topic);
            }
            (op, before, after) => panic!("{op} with {before:?} and {after:?}"),
        }
    }

    /// Any row that is equal, where there is no key.
    fn key_of(&self, row: &Row) -> Vec<u8> {
        let found = self.rows.iter().find(|(_, candidate)| *candidate == row);
        found.map(|(key, _)| key.clone()).unwrap_or_default()
    }
}

/// The columns of an image before a change are those that the change before it left.
fn assert_carries(row: &Row, before: &Row, topic: &str) {
    for (column, value) in before {
        assert_eq!(Some(value), row.get(column), "{column} before a change in {topic}");
    }
}

/// The source's last position.
pub fn position(reader: &mut dyn LogReader, source: &str) -> Option<Position> {
    let last = read_all(reader, &positions_topic(source)).pop()?;
    serde_json::from_slice(&last.value?).ok()
}

/// A framed value's fields.
pub fn decode(schemas: &HashMap<u64, Schema>, value: &[u8]) -> Row {
    let (reference, mut datum) = read_framing(value).expect("framed");
    let SchemaReference::Fingerprint(fingerprint) = reference else { panic!("a registry id") };
    let decoder = GenericDatumReader::builder(&schemas[&fingerprint]).build().expect("a decoder");
    let Value::Record(fields) = decoder.read_value(&mut datum).expect("decodes") else {
        panic!("no record")
    };
    assert!(datum.is_empty(), "bytes are left after the envelope");
    fields.into_iter().collect()
}

/// A topic's records from the first to the last.
pub fn read_all(reader: &mut dyn LogReader, topic: &str) -> Vec<Record> {
    if !reader.topics(topic).expect("topics").iter().any(|found| found.name == topic) {
        return Vec::new();
    }
    // A broker that has just started may not lead the topic yet.
    let (first, end) = eventually_some(LEADER, topic, || reader.bounds(topic, 0).ok());
    reader.assign(topic, 0, first).expect("assigned");
    let (mut records, mut next) = (Vec::new(), first);
    while next < end {
        let Some(batch) = reader.poll(Duration::from_secs(10)).expect("polls") else { break };
        for span in &batch.records {
            records.push(Record {
                key: batch.key(span).map(<[u8]>::to_vec),
                value: batch.value(span).map(<[u8]>::to_vec),
                headers: headers::iter(batch.headers(span))
                    .map(|header| header.expect("headers"))
                    .map(|(name, value)| (String::from_utf8_lossy(name).into(), value.into()))
                    .collect(),
            });
        }
        next = batch.next_offset;
    }
    reader.unassign(topic, 0).expect("unassigned");
    records
}
