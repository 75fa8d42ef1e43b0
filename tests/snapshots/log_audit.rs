//! What the change log says of a table, record by record, and what must hold of every record.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use apache_avro::{Schema, types::Value};
use change_log::{LogConfig, LogReader, open_reader};
use schemas::{position::Position, table_id::schemas_topic};

use super::{
    harness::{Binlake, eventually},
    log_rows::{self, LogRows, Row, decode, read_all},
    scenario::{CATCH_UP, metric},
};

const ANSWER: Duration = Duration::from_secs(30);
/// For hundreds of chunks beside writers, on a machine that compiles something else at the same time.
const READ: Duration = Duration::from_secs(600);

/// A source's half of a log.
pub struct Log {
    config: LogConfig,
    source: String,
}

/// What a table's records come to.
#[derive(Debug, Default)]
pub struct Audit {
    /// Operation, `rid` and `v` of each record, in the log's order.
    pub records: Vec<(String, i64, i64)>,
    /// The last version of each row that is left: `rid` and `v`, sorted.
    pub rows: Vec<(i64, i64)>,
    /// Records of the snapshot.
    pub read: u64,
    /// Records that bring a row: what a history table keeps.
    pub versions: u64,
}

impl Log {
    pub fn new(config: LogConfig, source: &str) -> Self {
        Self { config, source: source.to_owned() }
    }

    /// The position that was committed last.
    pub fn position(&self) -> Option<Position> {
        log_rows::position(self.reader()?.as_mut(), &self.source)
    }

    /// Waits until the reader has read this many rows since its start, or all these tables to their end, which it
    /// answers.
    /// `progress` is told again and again how many rows are in the log.
    #[track_caller]
    pub fn wait_until_read(
        &self,
        reader: &mut Binlake,
        rows: u64,
        tables: &[String],
        mut progress: impl FnMut(u64),
    ) -> bool {
        let mut all = false;
        eventually(READ, "the tables are read", || {
            assert!(reader.is_running(), "the reader ended by itself");
            let position = self.position().unwrap_or_default();
            assert!(position.stopped.is_empty(), "stopped tables: {:?}", position.stopped);
            progress(position.snapshots.values().map(|table| table.rows).sum());
            let done = |table: &String| position.snapshots.get(table).is_some_and(|t| t.done);
            all = !tables.is_empty() && tables.iter().all(done);
            all || metric(reader, "binlake_reader_snapshot_rows_total") >= rows as f64
        });
        all
    }

    /// Progress and records are of one moment, whatever happened in between.
    #[track_caller]
    pub fn progress_is_that_of_the_records(&self, tables: &[String]) {
        let Some(position) = self.position() else { return };
        for table in tables {
            let told = position.snapshots.get(table).map_or(0, |table| table.rows);
            assert_eq!(self.audit(table).read, told, "rows of {table}, and what the position says");
        }
    }

    /// Reads a table's records from the first to the last. Panics when
    /// - a version of a row does not come after all its earlier ones: a stale row, or one that is there twice;
    /// - a row of the snapshot follows a change of the same key.
    pub fn audit(&self, table: &str) -> Audit {
        let Some(mut reader) = self.reader() else { return Audit::default() };
        let topic = format!("{}.{table}", self.source);
        // Before the schemas, which are there when their records are.
        let records = read_all(reader.as_mut(), &topic);
        let schemas = self.schemas(reader.as_mut());
        let mut audit = Audit::default();
        let mut versions: HashMap<i64, i64> = HashMap::new();
        let mut changed: HashSet<Vec<u8>> = HashSet::new();
        // By the key's bytes; without a key by the row's number.
        let mut rows: BTreeMap<Vec<u8>, (i64, i64)> = BTreeMap::new();
        for record in records {
            let Some(value) = &record.value else { continue };
            let mut envelope = decode(&schemas, value);
            let before = image(&mut envelope, "before");
            let after = image(&mut envelope, "after");
            let Some(Value::String(op)) = envelope.remove("op") else { panic!("op is no string") };
            if let Some((rid, v)) = after.or(before) {
                audit.records.push((op.clone(), rid, v));
            }
            let identity = |row: Option<(i64, i64)>| {
                let rid = row.expect("a row").0;
                record.key.clone().unwrap_or_else(|| rid.to_be_bytes().to_vec())
            };
            if let Some((rid, v)) = after {
                audit.versions += 1;
                let earlier = versions.insert(rid, v);
                assert!(
                    earlier.is_none_or(|earlier| earlier < v),
                    "{topic}: {op} of row {rid} in version {v} after version {earlier:?}"
                );
            }
            match op.as_str() {
                "r" => {
                    audit.read += 1;
                    let key = identity(after);
                    assert!(
                        record.key.is_none() || !changed.contains(&key),
                        "{topic}: the snapshot's row {after:?} after a change of its key"
                    );
                    rows.insert(key, after.expect("a row"));
                }
                "c" => {
                    let key = identity(after);
                    changed.insert(key.clone());
                    rows.insert(key, after.expect("a row"));
                }
                "u" => {
                    rows.remove(&identity(before));
                    let key = identity(after);
                    changed.insert(key.clone());
                    rows.insert(key, after.expect("a row"));
                }
                "d" => {
                    let key = identity(before);
                    rows.remove(&key);
                    changed.insert(key);
                }
                other => panic!("{topic}: {other}"),
            }
        }
        audit.rows = rows.into_values().collect();
        audit.rows.sort_unstable();
        audit
    }

    /// The rows that a table's records leave, with all their columns; each image before a change must be the row as the
    /// log had it.
    pub fn replay(&self, table: &str) -> LogRows {
        let mut reader = self.reader().expect("there is a log");
        log_rows::replay(reader.as_mut(), &self.source, &format!("{}.{table}", self.source))
    }

    /// Waits for a table's records: operation, `rid` and `v` of each.
    #[track_caller]
    pub fn wait_for(&self, reader: &mut Binlake, table: &str, expected: &[(&str, i64, i64)]) {
        let expected: Vec<(String, i64, i64)> =
            expected.iter().map(|(op, rid, v)| ((*op).to_owned(), *rid, *v)).collect();
        eventually(CATCH_UP, &format!("{expected:?} of {table}"), || {
            assert!(reader.is_running(), "the reader ended by itself");
            self.audit(table).records == expected
        });
    }

    fn schemas(&self, reader: &mut dyn LogReader) -> HashMap<u64, Schema> {
        read_all(reader, &schemas_topic(&self.source))
            .into_iter()
            .filter_map(|record| {
                let fingerprint = u64::from_le_bytes(record.key?.try_into().ok()?);
                let text = String::from_utf8(record.value?).expect("UTF-8");
                Some((fingerprint, Schema::parse_str(&text).expect("a schema")))
            })
            .collect()
    }

    /// `None` before there is a log.
    fn reader(&self) -> Option<Box<dyn LogReader>> {
        open_reader(&self.config, ANSWER).ok()
    }
}

/// The number and the version of an image's row.
fn image(envelope: &mut Row, name: &str) -> Option<(i64, i64)> {
    let Some(Value::Union(_, image)) = envelope.remove(name) else { panic!("no {name}") };
    let Value::Record(columns) = *image else { return None };
    let number = |wanted: &str| {
        let column = columns.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        match column {
            Some(Value::Int(number)) => i64::from(*number),
            Some(Value::Long(number)) => *number,
            other => panic!("{wanted} is {other:?}"),
        }
    };
    Some((number("rid"), number("v")))
}
