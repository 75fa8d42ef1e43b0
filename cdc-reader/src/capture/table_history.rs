//! The tables' columns by name, for servers that do not send names with each table map (`binlog_row_metadata` is
//! MINIMAL).
//!
//! A table's entry begins with the definition that the server gives when the table is first seen, changes with each DDL
//! of the stream, and is written to the compacted topic `<source>.__tables` in the log transaction that holds the
//! position, so that a restart has the definition as of its position, not as of now. An entry is used only for a table
//! map that it fits; when it does not fit, or a DDL was not understood, the server's present definition is used if that
//! fits. Otherwise the table stops.
//!
//! A definition that the server gives may be newer than the rows that are read. It was right for them unless a DDL
//! stands between them and the binlog's end at the time of the answer: when such a DDL comes, the table stops too.
//! A server that sends names needs none of this: nothing is written.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use change_log::{
    Cleanup, EncodedBatch, EncodedRecord, LogConfig, LogError, LogWriter, TopicSpec, open_reader,
};
use schemas::{
    position::BinlogPlace,
    table_id::{TableId, tables_topic},
    table_schema::TableSchema,
};
use serde::{Deserialize, Serialize};

use super::live_tables::{Definition, LiveTables};
use crate::{
    binlog::{
        column_changes::{ColumnChange, column_changes, created_like, created_shape},
        ddl::{Dialect, TableName},
        table_map::TableMap,
        table_shape::TableShape,
    },
    error::ReaderError,
    snapshot::changed_keys::read_topic,
};

const LOG_TIMEOUT: Duration = Duration::from_secs(30);
const CURE: &str =
    "run `SET PERSIST binlog_row_metadata = 'FULL'` and take a new snapshot of the table";

/// What is known of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The columns and the key.
    #[serde(flatten)]
    shape: TableShape,
    /// A DDL changed it in a way that was not understood.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    doubt: bool,
    /// The server gave it; a DDL up to this place may be in it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    newest: Option<BinlogPlace>,
}

/// See the module. The default knows no table.
#[derive(Clone, Debug, Default)]
pub struct TableHistory {
    entries: HashMap<String, Entry>,
    /// Definitions that were read when the reader began, before the binlog reached `listed_before`.
    listed: HashMap<String, TableShape>,
    listed_before: BinlogPlace,
    changed: BTreeSet<String>,
    /// The server left names out at least once: what changes is written.
    needed: bool,
}

/// Reads the entries that the log holds. Blocks.
pub fn read_back(log: &LogConfig, source: &str) -> Result<HashMap<String, Entry>, LogError> {
    let mut entries = HashMap::new();
    let mut reader = open_reader(log, LOG_TIMEOUT)?;
    read_topic(reader.as_mut(), &tables_topic(source), |batch| {
        for record in &batch.records {
            let Some(name) = batch.key(record).and_then(|key| std::str::from_utf8(key).ok()) else {
                continue;
            };
            // One that cannot be read is as good as none: the server is asked.
            match batch.value(record).and_then(|value| serde_json::from_slice(value).ok()) {
                Some(entry) => entries.insert(name.to_owned(), entry),
                None => entries.remove(name),
            };
        }
        Ok::<_, LogError>(())
    })?;
    Ok(entries)
}

impl TableHistory {
    /// Begins with the log's entries, and for the other tables with what the server's catalog listed before its binlog
    /// reached a place.
    pub fn new(
        entries: HashMap<String, Entry>,
        listed: HashMap<String, TableShape>,
        listed_before: BinlogPlace,
    ) -> Self {
        let needed = !entries.is_empty();
        Self { entries, listed, listed_before, changed: BTreeSet::new(), needed }
    }

    /// Gives a table map its names; otherwise the sentence why that cannot be done.
    pub(super) fn complete(
        &mut self,
        map: &mut TableMap,
        name: &str,
        id: &TableId,
        live: &mut LiveTables,
    ) -> Result<(), String> {
        self.needed = true;
        if let Some(entry) = self.entries.get(name).filter(|e| !e.doubt && e.shape.fits(map)) {
            entry.shape.fill(map);
            return Ok(());
        }
        let listed = match self.entries.contains_key(name) {
            true => None,
            false => self.listed.get(name).filter(|shape| shape.fits(map)).cloned(),
        };
        let given = match listed {
            Some(shape) => Some((shape, self.listed_before.clone())),
            None => match live.ask(id) {
                Definition::Table(table, before) => Some((TableShape::of(&table), before)),
                _ => None,
            },
        };
        let Some((shape, before)) = given.filter(|(shape, _)| shape.fits(map)) else {
            return Err(format!(
                "the server sends no column names (binlog_row_metadata is not FULL), and its present definition of \
                 the table is not that of the rows in the binlog; {CURE}"
            ));
        };
        shape.fill(map);
        self.put(name, Entry { shape, doubt: false, newest: Some(before) });
        Ok(())
    }

    /// A table map with names: an entry from a time without them follows.
    pub(super) fn note_named(&mut self, name: &str, schema: &TableSchema, map: &TableMap) {
        let Some(entry) = self.entries.get(name) else { return };
        let shape = TableShape::of_schema(schema, map);
        if entry.doubt || entry.shape != shape {
            self.put(name, Entry { shape, doubt: false, newest: None });
        }
    }

    /// ALTER TABLE and CREATE/DROP INDEX, which ends at a place. Answers the sentence when rows may have been given
    /// wrong names.
    pub(super) fn alter(
        &mut self,
        name: &str,
        sql: &str,
        dialect: Dialect,
        place: &BinlogPlace,
    ) -> Option<String> {
        self.settle(name, place);
        let entry = self.entries.get(name)?;
        let changes = column_changes(sql, dialect);
        let nothing = |change: &ColumnChange| {
            matches!(change, ColumnChange::OtherKeys) && entry.shape.primary
        };
        if changes.iter().all(nothing) {
            return None;
        }
        if entry.newest.as_ref().is_some_and(|newest| newest.reached(place)) {
            return Some(format!(
                "the server sends no column names (binlog_row_metadata is not FULL), and a DDL before {}:{} changed \
                 the table after its rows and before its definition was read, so that their columns are not certain; \
                 {CURE}",
                place.file, place.offset
            ));
        }
        let entry = match entry.shape.altered(&changes) {
            Some(shape) => Entry { shape, doubt: false, newest: None },
            None => Entry { doubt: true, newest: None, ..entry.clone() },
        };
        self.put(name, entry);
        None
    }

    /// CREATE TABLE.
    pub(super) fn create(
        &mut self,
        table: &TableName,
        sql: &str,
        dialect: Dialect,
        place: &BinlogPlace,
    ) {
        let name = format!("{}.{}", table.database, table.table);
        self.settle(&name, place);
        // With IF NOT EXISTS it may have been there.
        if self.entries.contains_key(&name) {
            return;
        }
        let shape = match created_like(sql, dialect) {
            Some((database, like)) => {
                let like = format!("{}.{like}", database.as_deref().unwrap_or(&table.database));
                self.settle(&like, place);
                let entry = self.entries.get(&like).filter(|entry| !entry.doubt);
                entry.map(|entry| entry.shape.clone())
            }
            None => created_shape(sql, dialect),
        };
        if let Some(shape) = shape {
            self.put(&name, Entry { shape, doubt: false, newest: None });
        }
    }

    /// RENAME TABLE.
    pub(super) fn rename(&mut self, old: &str, new: &str, place: &BinlogPlace) {
        self.settle(old, place);
        let entry = self.entries.get(old).cloned();
        self.drop_table(old, place);
        self.drop_table(new, place);
        if let Some(entry) = entry {
            self.put(new, entry);
        }
    }

    /// DROP TABLE.
    pub(super) fn drop_table(&mut self, name: &str, place: &BinlogPlace) {
        if place.reached(&self.listed_before) {
            self.listed.remove(name);
        }
        if self.entries.remove(name).is_some() {
            self.changed.insert(name.to_owned());
        }
    }

    /// A listed definition holds for the rows before a DDL that came after the listing.
    fn settle(&mut self, name: &str, place: &BinlogPlace) {
        let later = *place != self.listed_before && place.reached(&self.listed_before);
        if later
            && !self.entries.contains_key(name)
            && let Some(shape) = self.listed.remove(name)
        {
            self.put(name, Entry { shape, ..Entry::default() });
        }
    }

    fn put(&mut self, name: &str, entry: Entry) {
        self.entries.insert(name.to_owned(), entry);
        self.changed.insert(name.to_owned());
    }

    /// Puts what changed into the topic.
    pub(super) fn write(
        &mut self,
        source: &str,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<(), ReaderError> {
        if !self.needed || self.changed.is_empty() {
            return Ok(());
        }
        let spec = TopicSpec { name: tables_topic(source), cleanup: Cleanup::Compact };
        let topic = writer.topic(&spec)?;
        for name in std::mem::take(&mut self.changed) {
            let key_start = batch.bytes.len();
            batch.bytes.extend_from_slice(name.as_bytes());
            let value_start = batch.bytes.len();
            let value = self.entries.get(&name).map(serde_json::to_vec).transpose();
            let value = value.map_err(|error| {
                ReaderError::PositionLost(format!("the table {name} cannot be written: {error}"))
            })?;
            let value = value.map(|bytes| {
                batch.bytes.extend_from_slice(&bytes);
                value_start..batch.bytes.len()
            });
            batch.records.push(EncodedRecord {
                topic,
                key: Some(key_start..value_start),
                value,
                headers: 0..0,
                timestamp_ms: 0,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binlog::table_map::{WireColumn, WireType};

    fn place(offset: u64) -> BinlogPlace {
        BinlogPlace { file: "b.000001".into(), offset }
    }

    /// A table map without names: INTs, the first NOT NULL.
    fn map(columns: usize) -> TableMap {
        let column = |i| WireColumn {
            name: String::new(),
            wire: WireType::Integer { bytes: 4, unsigned: false },
            nullable: i > 0,
            collation: 0,
            members: Vec::new(),
        };
        TableMap {
            table_id: 1,
            database: "d".into(),
            table: "t".into(),
            columns: (0..columns).map(column).collect(),
            primary_key: Vec::new(),
            signs_told: true,
        }
    }

    fn listed() -> HashMap<String, TableShape> {
        let sql = "CREATE TABLE t (a INT PRIMARY KEY, b INT)";
        let shape = created_shape(sql, Dialect::default()).expect("is certain");
        HashMap::from([("d.t".to_owned(), shape)])
    }

    /// The names that a table map gets, with no server to ask.
    fn names(history: &mut TableHistory, columns: usize) -> Result<String, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut live = LiveTables::new(None, runtime.handle().clone());
        let mut map = map(columns);
        history.complete(&mut map, "d.t", &TableId::new("s", "d", "t"), &mut live)?;
        let names: Vec<&str> = map.columns.iter().map(|column| &*column.name).collect();
        Ok(format!("{} / {:?}", names.join(" "), map.primary_key))
    }

    fn alter(history: &mut TableHistory, clauses: &str, offset: u64) -> Option<String> {
        let sql = format!("ALTER TABLE d.t {clauses}");
        history.alter("d.t", &sql, Dialect::default(), &place(offset))
    }

    #[test]
    fn names_follow_the_ddl_and_nothing_is_guessed() {
        let mut history = TableHistory::new(HashMap::new(), listed(), place(100));
        assert_eq!(names(&mut history, 2).expect("fits"), "a b / [0]");
        assert_eq!(alter(&mut history, "ADD c INT FIRST, RENAME COLUMN a TO z", 200), None);
        // The key moved, and is not NULL there: a table map whose first column it is does not fit.
        assert!(names(&mut history, 3).is_err());
        assert_eq!(alter(&mut history, "MODIFY z INT FIRST", 300), None);
        assert_eq!(names(&mut history, 3).expect("fits"), "z c b / [0]");
    }

    #[test]
    fn table_map_that_nothing_fits_stops_the_table() {
        let mut history = TableHistory::new(HashMap::new(), listed(), place(100));
        assert!(names(&mut history, 3).expect_err("does not fit").contains("FULL"));
    }

    #[test]
    fn ddl_that_was_not_understood_leaves_doubt() {
        let mut history = TableHistory::new(HashMap::new(), listed(), place(100));
        names(&mut history, 2).expect("fits");
        assert_eq!(alter(&mut history, "DROP PRIMARY KEY", 200), None);
        assert!(names(&mut history, 2).is_err());
    }

    #[test]
    fn definition_that_may_be_newer_than_the_rows_stops_the_table() {
        let mut history = TableHistory::new(HashMap::new(), listed(), place(100));
        names(&mut history, 2).expect("fits");
        assert_eq!(alter(&mut history, "ADD KEY k (b)", 90), None, "concerns no column");
        assert!(alter(&mut history, "RENAME COLUMN a TO z", 100).is_some());
        // A DDL before the listing of a table whose rows were not named yet: the listing has it already.
        let mut history = TableHistory::new(HashMap::new(), listed(), place(100));
        assert_eq!(alter(&mut history, "RENAME COLUMN z TO a", 90), None);
        assert_eq!(names(&mut history, 2).expect("fits"), "a b / [0]");
    }

    #[test]
    fn entry_reads_back_and_goes_with_its_table() {
        let mut history = TableHistory::new(HashMap::new(), listed(), place(100));
        names(&mut history, 2).expect("fits");
        let text = serde_json::to_string(&history.entries["d.t"]).expect("is written");
        let entry: Entry = serde_json::from_str(&text).expect("is read");
        assert_eq!(entry, history.entries["d.t"]);
        history.rename("d.t", "d.u", &place(200));
        assert!(!history.entries.contains_key("d.t") && history.entries.contains_key("d.u"));
        history.drop_table("d.u", &place(300));
        assert!(history.entries.is_empty() && names(&mut history, 2).is_err());
    }
}
