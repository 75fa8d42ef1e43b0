//! Compares the records of two readers, topic by topic and in order, leaf by leaf.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::record::{Leaf, Record, leaves};

/// What the two readers legitimately say differently in every record: who wrote it and when it was processed.
const MASKED: [&str; 4] = ["source.version", "ts_ms", "ts_us", "ts_ns"];
/// What a snapshot's record says of itself and not of its row: Debezium reads all tables at one place, we read each
/// chunk at the place where it holds.
const MASKED_IN_SNAPSHOT: [&str; 6] = [
    "source.ts_ms",
    "source.ts_us",
    "source.ts_ns",
    "source.snapshot",
    "source.file",
    "source.pos",
];

/// One way in which records differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// What differs: a column's MySQL type or a field, and whether in schema, key or value.
    pub class: String,
    pub topic: String,
    pub ours: String,
    pub theirs: String,
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
        let (ours, theirs) = (ours.get(topic).unwrap_or(&none), theirs.get(topic).unwrap_or(&none));
        if ours.len() != theirs.len() {
            report.differences.push(Difference {
                class: "number of records".into(),
                topic: topic.clone(),
                ours: operations(ours),
                theirs: operations(theirs),
            });
        }
        for (ours, theirs) in in_order(ours).iter().zip(&in_order(theirs)) {
            report.compared += 1;
            let comparison = Comparison { topic, types, found: Vec::new() };
            let found = comparison.records(ours, theirs, &mut report);
            if found.is_empty() {
                report.equal += 1;
            }
            report.differences.extend(found);
        }
    }
    report
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
    serde_json::from_str(schema)
        .ok()
        .and_then(|schema| leaves(&schema, value).ok())
        .unwrap_or_default()
}

/// The letter of its operation, `-` for a tombstone.
fn operation(record: &Record) -> Option<char> {
    if record.value.is_none() {
        return Some('-');
    }
    let op = parts(record).into_iter().find(|leaf| leaf.path == "op")?;
    op.bytes.get(1).map(|byte| *byte as char)
}

/// A letter for each record: its operation, or `-` for a tombstone.
fn operations(records: &[Record]) -> String {
    let letters: String = records.iter().map(|record| operation(record).unwrap_or('?')).collect();
    format!("{} {letters}", records.len())
}

struct Comparison<'a> {
    topic: &'a str,
    types: &'a ColumnTypes,
    found: Vec<Difference>,
}

impl Comparison<'_> {
    fn records(mut self, ours: &Record, theirs: &Record, report: &mut Report) -> Vec<Difference> {
        self.datum("key", (&ours.key, &ours.key_schema), (&theirs.key, &theirs.key_schema), report);
        self.datum(
            "value",
            (&ours.value, &ours.value_schema),
            (&theirs.value, &theirs.value_schema),
            report,
        );
        self.headers(ours, theirs);
        self.found
    }

    /// Debezium's headers are ours, in their order; we have more, which begin with our name.
    fn headers(&mut self, ours: &Record, theirs: &Record) {
        let foreign = |record: &Record| -> Vec<(String, Vec<u8>)> {
            let of_debezium =
                record.headers.iter().filter(|(name, _)| !name.starts_with("binlake."));
            let masked = of_debezium.map(|(name, value)| match name.as_str() {
                // Each start has one of its own.
                "__debezium.context.runId" => (name.clone(), Vec::new()),
                _ => (name.clone(), value.clone()),
            });
            masked.collect()
        };
        let (ours, theirs) = (foreign(ours), foreign(theirs));
        if ours != theirs {
            let text = |headers: Vec<(String, Vec<u8>)>| -> String {
                headers.iter().map(|(name, value)| format!("{name}={} ", hex(value))).collect()
            };
            let names = |headers: &[(String, Vec<u8>)]| -> Vec<String> {
                headers.iter().map(|(name, _)| name.clone()).collect()
            };
            let class = match names(&ours) == names(&theirs) {
                true => format!("value of headers {:?}", names(&theirs)),
                false => format!("headers {:?} for theirs {:?}", names(&ours), names(&theirs)),
            };
            self.note(&class, text(ours), text(theirs));
        }
    }

    fn datum(
        &mut self,
        what: &str,
        ours: (&Option<Vec<u8>>, &Option<std::sync::Arc<str>>),
        theirs: (&Option<Vec<u8>>, &Option<std::sync::Arc<str>>),
        report: &mut Report,
    ) {
        let ((Some(our_bytes), Some(our_text)), (Some(their_bytes), Some(their_text))) =
            ((ours.0, ours.1), (theirs.0, theirs.1))
        else {
            if what == "value" && ours.0.is_none() && theirs.0.is_none() {
                report.tombstones += 1;
            }
            if ours.0.is_some() != theirs.0.is_some() {
                let presence = |bytes: &Option<Vec<u8>>| {
                    bytes.as_ref().map_or("none".to_owned(), |bytes| hex(bytes))
                };
                self.note(&format!("presence of the {what}"), presence(ours.0), presence(theirs.0));
            }
            return;
        };
        let parse = |text: &str| -> Value { serde_json::from_str(text).expect("a schema is JSON") };
        let (our_schema, their_schema) = (parse(our_text), parse(their_text));
        if our_text != their_text {
            self.schemas(what, &our_schema, &their_schema);
        }
        let split = |schema: &Value, bytes: &[u8]| leaves(schema, bytes);
        match (split(&our_schema, our_bytes), split(&their_schema, their_bytes)) {
            (Ok(ours), Ok(theirs)) => {
                let snapshot = what == "value"
                    && theirs.iter().any(|leaf| leaf.path == "op" && leaf.bytes == b"\x02r");
                report.snapshot += usize::from(snapshot);
                self.leaves(what, &ours, &theirs, snapshot);
            }
            (Err(error), _) => {
                self.note("our datum does not follow its schema", error, String::new())
            }
            (_, Err(error)) => {
                self.note("their datum is not understood here", String::new(), error)
            }
        }
    }

    fn schemas(&mut self, what: &str, ours: &Value, theirs: &Value) {
        let row = |schema: &Value| -> BTreeMap<String, String> {
            let inner = match what {
                "key" => schema,
                _ => &schema["fields"][0]["type"][1],
            };
            let fields = inner["fields"].as_array().into_iter().flatten();
            fields
                .map(|field| {
                    (field["name"].as_str().unwrap_or_default().to_owned(), field.to_string())
                })
                .collect()
        };
        let (our_row, their_row) = (row(ours), row(theirs));
        let mut named = false;
        for (column, our_field) in &our_row {
            match their_row.get(column) {
                Some(their_field) if their_field == our_field => {}
                Some(their_field) => {
                    named = true;
                    let class = format!("{what} schema of {}", self.kind(column));
                    self.note(&class, our_field.clone(), their_field.clone());
                }
                None => {
                    named = true;
                    self.note(
                        &format!("{what} schema: a column only of ours"),
                        our_field.clone(),
                        String::new(),
                    );
                }
            }
        }
        for (column, their_field) in
            their_row.iter().filter(|(name, _)| !our_row.contains_key(*name))
        {
            named = true;
            let class = format!("{what} schema: a column only of theirs");
            self.note(&class, String::new(), format!("{column}: {their_field}"));
        }
        if !named {
            self.note(&format!("{what} schema text"), ours.to_string(), theirs.to_string());
        }
    }

    fn leaves(&mut self, what: &str, ours: &[Leaf], theirs: &[Leaf], snapshot: bool) {
        let phase = if snapshot { "snapshot" } else { "stream" };
        let find = |leaves: &[Leaf], path: &str| {
            leaves.iter().find(|leaf| leaf.path == path).map(|leaf| leaf.bytes.clone())
        };
        let mut paths: Vec<&str> = ours.iter().map(|leaf| leaf.path.as_str()).collect();
        paths.extend(
            theirs
                .iter()
                .map(|leaf| leaf.path.as_str())
                .filter(|path| !paths.contains(path))
                .collect::<Vec<_>>(),
        );
        for path in paths {
            let masked = what == "value"
                && (MASKED.contains(&path) || snapshot && MASKED_IN_SNAPSHOT.contains(&path));
            let (our_bytes, their_bytes) = (find(ours, path), find(theirs, path));
            if masked && our_bytes.is_some() && their_bytes.is_some() || our_bytes == their_bytes {
                continue;
            }
            let name = match path.strip_prefix("before.").or(path.strip_prefix("after.")) {
                Some(column) => self.kind(column),
                None if what == "key" => self.kind(path),
                None => path.to_owned(),
            };
            let text = |bytes: Option<Vec<u8>>| bytes.map_or("absent".into(), |bytes| hex(&bytes));
            self.note(&format!("{what} of {name} ({phase})"), text(our_bytes), text(their_bytes));
        }
    }

    fn kind(&self, column: &str) -> String {
        let name = (self.topic.to_owned(), column.to_owned());
        self.types.get(&name).cloned().unwrap_or_else(|| format!("{}.{column}", self.topic))
    }

    fn note(&mut self, class: &str, ours: String, theirs: String) {
        self.found.push(Difference {
            class: class.to_owned(),
            topic: self.topic.to_owned(),
            ours,
            theirs,
        });
    }
}

/// Hex digits and, after them, what can be read.
fn hex(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 80;
    let shown = &bytes[..bytes.len().min(BYTES_MAX)];
    let digits: String = shown.iter().map(|byte| format!("{byte:02x}")).collect();
    let text: String = String::from_utf8_lossy(shown)
        .chars()
        .map(|c| if c.is_control() { '.' } else { c })
        .collect();
    let more = if bytes.len() > BYTES_MAX { "..." } else { "" };
    format!("{digits}{more} {text:?}")
}
