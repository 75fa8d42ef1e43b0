//! Compares the records of two readers, topic by topic and in order, leaf by leaf.

use std::{
    collections::{BTreeMap, HashMap},
    iter::Peekable,
};

use serde_json::Value;

use crate::record::{Leaf, Record, leaves};

/// What two readers legitimately say differently in every record: who wrote it and when it was processed.
const MASKED: [&str; 4] = ["source.version", "ts_ms", "ts_us", "ts_ns"];
/// What a record of a snapshot says of the snapshot and not of its row: Debezium reads all tables at one place, we
/// read each chunk at the place where it holds.
const MASKED_IN_SNAPSHOT: [&str; 6] = [
    "source.ts_ms",
    "source.ts_us",
    "source.ts_ns",
    "source.snapshot",
    "source.file",
    "source.pos",
];

/// What of a record differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// There is no such record on one side.
    Record,
    Headers,
    KeySchema,
    ValueSchema,
    Key,
    Value,
}

/// One way in which two records differ.
#[derive(Clone, Debug)]
pub struct Difference {
    pub part: Part,
    pub snapshot: bool,
    /// A column's MySQL type, or a field of the envelope.
    pub kind: String,
    pub topic: String,
    /// The column's or field's bytes (its text where it is one), empty where there is none.
    pub ours: Vec<u8>,
    pub theirs: Vec<u8>,
}

impl Difference {
    /// What differences of one class have in common.
    pub fn class(&self) -> String {
        let phase = if self.snapshot { "snapshot" } else { "stream" };
        format!("{:?} of {} ({phase})", self.part, self.kind)
    }
}

/// What a comparison found.
#[derive(Default)]
pub struct Report {
    pub compared: usize,
    pub snapshot: usize,
    pub tombstones: usize,
    pub equal: usize,
    pub differences: Vec<Difference>,
}

/// Column types by topic and column, for naming what differs.
pub type ColumnTypes = HashMap<(String, String), String>;

/// Both readers' records by topic.
pub fn compare(
    ours: &HashMap<String, Vec<Record>>,
    theirs: &HashMap<String, Vec<Record>>,
    types: &ColumnTypes,
) -> Report {
    let mut report = Report::default();
    let mut topics: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
    topics.sort();
    topics.dedup();
    for topic in topics {
        let none = Vec::new();
        let ours = in_order(ours.get(topic).unwrap_or(&none));
        let theirs = in_order(theirs.get(topic).unwrap_or(&none));
        let (mut our_rest, mut their_rest) = (ours.iter().peekable(), theirs.iter().peekable());
        while let Some((ours, theirs)) = pair(&mut our_rest, &mut their_rest) {
            let mut comparison = Comparison { topic, types, snapshot: false, found: Vec::new() };
            match (ours, theirs) {
                (Some(ours), Some(theirs)) => {
                    report.compared += 1;
                    comparison.snapshot = operation(theirs) == Some('r');
                    report.snapshot += usize::from(comparison.snapshot);
                    report.tombstones +=
                        usize::from(ours.value.is_none() && theirs.value.is_none());
                    comparison.records(ours, theirs);
                    report.equal += usize::from(comparison.found.is_empty());
                }
                (ours, theirs) => comparison.lone(ours, theirs),
            }
            report.differences.extend(comparison.found);
        }
    }
    report
}

/// What is left of a topic's records.
type Rest<'a> = Peekable<std::slice::Iter<'a, &'a Record>>;
/// Ours and theirs.
type Pair<'a> = (Option<&'a Record>, Option<&'a Record>);

/// The next two records of a topic. One that empties the table or reads a row (`t`, `r`) and that the other side does
/// not have stands alone, so that what follows it is still compared.
fn pair<'a>(ours: &mut Rest<'a>, theirs: &mut Rest<'a>) -> Option<Pair<'a>> {
    let letter = |record: Option<&&&Record>| record.and_then(|record| operation(record));
    let (our_letter, their_letter) = (letter(ours.peek()), letter(theirs.peek()));
    let alone = |letter, other| matches!(letter, Some('t' | 'r')) && letter != other;
    match (alone(our_letter, their_letter), alone(their_letter, our_letter)) {
        (true, _) => Some((ours.next().copied(), None)),
        (_, true) => Some((None, theirs.next().copied())),
        _ => match (ours.next(), theirs.next()) {
            (None, None) => None,
            (ours, theirs) => Some((ours.copied(), theirs.copied())),
        },
    }
}

/// The records with those of the snapshot, which come first, in the order of their keys: each reader reads a table in
/// an order of its own. Rows without a key are in the order of their bytes.
fn in_order(records: &[Record]) -> Vec<&Record> {
    let mut records: Vec<&Record> = records.iter().collect();
    let is_read = |record: &&Record| operation(record) == Some('r');
    let end = records.iter().position(|record| !is_read(record)).unwrap_or(records.len());
    records[..end].sort_by_cached_key(|record| (record.key.clone(), row(record)));
    records
}

/// The bytes of the row after the change.
fn row(record: &Record) -> Vec<u8> {
    let after = |leaf: &Leaf| leaf.path.starts_with("after");
    parts(record).into_iter().filter(after).flat_map(|leaf| leaf.bytes).collect()
}

fn parts(record: &Record) -> Vec<Leaf> {
    let (Some(value), Some(schema)) = (&record.value, &record.value_schema) else {
        return Vec::new();
    };
    leaves(&parsed(schema), value).unwrap_or_default()
}

/// The letter of its operation, `-` for a tombstone.
fn operation(record: &Record) -> Option<char> {
    if record.value.is_none() {
        return Some('-');
    }
    let op = parts(record).into_iter().find(|leaf| leaf.path == "op")?;
    op.bytes.get(1).map(|byte| *byte as char)
}

fn parsed(schema: &str) -> Value {
    serde_json::from_str(schema).expect("a schema is JSON")
}

struct Comparison<'a> {
    topic: &'a str,
    types: &'a ColumnTypes,
    snapshot: bool,
    found: Vec<Difference>,
}

/// A datum and the text of its schema.
type Datum<'a> = Option<(&'a [u8], &'a str)>;

impl Comparison<'_> {
    fn records(&mut self, ours: &Record, theirs: &Record) {
        self.datum(Part::Key, ours.key_datum(), theirs.key_datum());
        self.datum(Part::Value, ours.value_datum(), theirs.value_datum());
        self.headers(ours, theirs);
    }

    fn lone(&mut self, ours: Option<&Record>, theirs: Option<&Record>) {
        let text = |record: Option<&Record>| {
            record.map(|record| operation(record).unwrap_or('?').to_string()).unwrap_or_default()
        };
        self.note(Part::Record, "a record", text(ours), text(theirs));
    }

    /// Debezium's headers are ours, in their order; we have more, which begin with our name.
    fn headers(&mut self, ours: &Record, theirs: &Record) {
        let text = |record: &Record| -> String {
            let of_debezium =
                record.headers.iter().filter(|(name, _)| !name.starts_with("binlake."));
            let masked = of_debezium.map(|(name, value)| match name.as_str() {
                // Each start has one of its own.
                "__debezium.context.runId" => format!("{name}\n"),
                _ => format!("{name}={}\n", readable(value)),
            });
            masked.collect()
        };
        let (ours, theirs) = (text(ours), text(theirs));
        if ours != theirs {
            self.note(Part::Headers, "a record", ours, theirs);
        }
    }

    fn datum(&mut self, part: Part, ours: Datum<'_>, theirs: Datum<'_>) {
        let (our_bytes, our_text, their_bytes, their_text) = match (ours, theirs) {
            (Some((our_bytes, our_text)), Some((their_bytes, their_text))) => {
                (our_bytes, our_text, their_bytes, their_text)
            }
            (None, None) => return,
            (ours, theirs) => {
                let bytes = |datum: Option<(&[u8], &str)>| -> Vec<u8> {
                    datum.map(|(bytes, _)| bytes.to_vec()).unwrap_or_default()
                };
                return self.note(part, "all of it", bytes(ours), bytes(theirs));
            }
        };
        let (our_schema, their_schema) = (parsed(our_text), parsed(their_text));
        if our_text != their_text {
            self.schemas(part, &our_schema, &their_schema);
        }
        match (leaves(&our_schema, our_bytes), leaves(&their_schema, their_bytes)) {
            (Ok(ours), Ok(theirs)) => self.leaves(part, &ours, &theirs),
            (ours, theirs) => {
                let error = |leaves: Result<_, String>| leaves.err().unwrap_or_default();
                self.note(
                    part,
                    "bytes that do not follow their schema",
                    error(ours),
                    error(theirs),
                );
            }
        }
    }

    /// Columns whose fields differ; the whole text where no column's does.
    fn schemas(&mut self, part: Part, ours: &Value, theirs: &Value) {
        let (part, row) = match part {
            Part::Key => (Part::KeySchema, "/fields"),
            _ => (Part::ValueSchema, "/fields/0/type/1/fields"),
        };
        let columns = |schema: &Value| -> BTreeMap<String, String> {
            let fields = schema.pointer(row).and_then(Value::as_array).into_iter().flatten();
            fields.map(|field| (name(field).to_owned(), field.to_string())).collect()
        };
        let before = self.found.len();
        let (our_columns, their_columns) = (columns(ours), columns(theirs));
        for (column, ours) in &our_columns {
            let theirs = their_columns.get(column).map(String::as_str).unwrap_or_default();
            if ours != theirs {
                self.note(part, &self.kind(column), ours.as_str(), theirs);
            }
        }
        for (column, theirs) in &their_columns {
            if !our_columns.contains_key(column) {
                self.note(part, &self.kind(column), "", theirs.as_str());
            }
        }
        if self.found.len() == before {
            self.note(part, "the whole text", ours.to_string(), theirs.to_string());
        }
    }

    fn leaves(&mut self, part: Part, ours: &[Leaf], theirs: &[Leaf]) {
        let find = |leaves: &[Leaf], path: &str| {
            leaves.iter().find(|leaf| leaf.path == path).map(|leaf| leaf.bytes.clone())
        };
        let only_theirs = theirs.iter().filter(|leaf| find(ours, &leaf.path).is_none());
        for path in ours.iter().chain(only_theirs).map(|leaf| leaf.path.as_str()) {
            let masked = part == Part::Value
                && (MASKED.contains(&path) || self.snapshot && MASKED_IN_SNAPSHOT.contains(&path));
            let (ours, theirs) = (find(ours, path), find(theirs, path));
            if ours == theirs || masked && ours.is_some() && theirs.is_some() {
                continue;
            }
            let column = match part {
                Part::Key => Some(path),
                _ => path.strip_prefix("before.").or(path.strip_prefix("after.")),
            };
            let kind = column.map_or_else(|| path.to_owned(), |column| self.kind(column));
            self.note(part, &kind, ours.unwrap_or_default(), theirs.unwrap_or_default());
        }
    }

    fn kind(&self, column: &str) -> String {
        let name = (self.topic.to_owned(), column.to_owned());
        self.types.get(&name).cloned().unwrap_or_else(|| format!("{}.{column}", self.topic))
    }

    fn note(
        &mut self,
        part: Part,
        kind: &str,
        ours: impl Into<Vec<u8>>,
        theirs: impl Into<Vec<u8>>,
    ) {
        self.found.push(Difference {
            part,
            snapshot: self.snapshot,
            kind: kind.to_owned(),
            topic: self.topic.to_owned(),
            ours: ours.into(),
            theirs: theirs.into(),
        });
    }
}

fn name(field: &Value) -> &str {
    field["name"].as_str().unwrap_or_default()
}

/// Text as it is; other bytes as hex digits and what can be read of them.
pub fn readable(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 600;
    let shown = &bytes[..bytes.len().min(BYTES_MAX)];
    let text = String::from_utf8_lossy(shown);
    if !text.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
        return text.into_owned();
    }
    let digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{digits} {text:?}")
}
