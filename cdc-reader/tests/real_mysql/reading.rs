//! The whole reader on a real server, with its records read back from an embedded log.

use std::time::{Duration, Instant};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use cdc_reader::{ReaderError, ReaderMetrics, SourceConfig};
use change_log::{LogConfig, LogReader, open_reader};
use mysql_async::prelude::Queryable;
use schemas::{
    position::Position,
    table_id::{TableId, positions_topic, schemas_topic},
    wire_format::{SchemaReference, read_framing},
};
use tokio_util::sync::CancellationToken;

use super::server::Database;

const PATIENCE: Duration = Duration::from_secs(60);

/// One source with its log.
pub struct Reading {
    pub config: SourceConfig,
    pub metrics: ReaderMetrics,
    log: LogConfig,
    running: Option<(CancellationToken, tokio::task::JoinHandle<Result<(), ReaderError>>)>,
    // Dropped last.
    _folder: tempfile::TempDir,
}

impl Reading {
    pub fn new(config: SourceConfig) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let log = LogConfig::Embedded { path, retention_hours: 24 };
        let metrics = ReaderMetrics::new(&prometheus::Registry::new());
        Self { config, metrics, log, running: None, _folder: folder }
    }

    pub fn start(&mut self) {
        let stop = CancellationToken::new();
        let metrics = self.metrics.clone();
        let run = cdc_reader::run(self.config.clone(), self.log.clone(), stop.clone(), metrics);
        self.running = Some((stop, tokio::spawn(run)));
    }

    pub async fn stop(&mut self) {
        let (stop, run) = self.running.take().expect("is running");
        stop.cancel();
        run.await.expect("joins").expect("ends well");
    }

    /// Waits until the reader ends by itself, and answers why.
    pub async fn failure(&mut self) -> String {
        let (_stop, run) = self.running.take().expect("is running");
        let ended = tokio::time::timeout(PATIENCE, run).await.expect("ends in time");
        ended.expect("joins").expect_err("ends with an error").to_string()
    }

    /// What the log says of a table: the operation and the row's values, one text each.
    pub fn records(&self, table: &str) -> Vec<String> {
        let (database, table) = table.split_once('.').expect("database.table");
        let topic = TableId::new(&self.config.name, database, table).topic();
        let Ok(mut reader) = open_reader(&self.log, PATIENCE) else { return Vec::new() };
        // Before the schemas, which are there when their records are.
        let changes = all(reader.as_mut(), &topic);
        let schemas: Vec<(u64, Schema)> = all(reader.as_mut(), &schemas_topic(&self.config.name))
            .into_iter()
            .filter_map(|(key, value)| {
                let id = u64::from_le_bytes(key?.try_into().ok()?);
                let text = String::from_utf8(value?).ok()?;
                Some((id, Schema::parse_str(&text).expect("a schema")))
            })
            .collect();
        changes
            .into_iter()
            .filter_map(|(_, value)| value)
            .map(|value| {
                let (SchemaReference::Fingerprint(id), mut datum) =
                    read_framing(&value).expect("is framed")
                else {
                    panic!("no fingerprint");
                };
                let (_, schema) = schemas.iter().find(|(known, _)| *known == id).expect("known");
                let decoder = GenericDatumReader::builder(schema).build().expect("a decoder");
                record_text(decoder.read_value(&mut datum).expect("decodes"))
            })
            .collect()
    }

    /// How large the log's files are, with what is not committed.
    pub fn log_bytes(&self) -> u64 {
        let LogConfig::Embedded { path, .. } = &self.log else { return 0 };
        let files = std::fs::read_dir(path).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum()
    }

    /// The values of a table's records as they are in the log.
    pub fn values(&self, table: &str) -> Vec<Vec<u8>> {
        let (database, table) = table.split_once('.').expect("database.table");
        let topic = TableId::new(&self.config.name, database, table).topic();
        let mut reader = open_reader(&self.log, PATIENCE).expect("a log");
        all(reader.as_mut(), &topic).into_iter().filter_map(|(_, value)| value).collect()
    }

    pub async fn wait_for(&self, table: &str, expected: &[&str]) {
        let started = Instant::now();
        loop {
            let records = self.records(table);
            if records == expected {
                return;
            }
            let ended = self.running.as_ref().is_none_or(|(_, run)| run.is_finished());
            assert!(
                started.elapsed() < PATIENCE && !ended,
                "expected {expected:?}, found {records:?}, stopped {:?}, reader ended: {ended}",
                self.position().stopped
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until the table's existing rows, if any, are read.
    pub async fn wait_read(&self, table: &str) {
        let started = Instant::now();
        while !self.position().snapshots.get(table).is_some_and(|snapshot| snapshot.done) {
            assert!(started.elapsed() < PATIENCE, "{table} is not read");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn wait_stopped(&self, table: &str) -> String {
        let started = Instant::now();
        loop {
            if let Some(sentence) = self.position().stopped.get(table) {
                return sentence.clone();
            }
            assert!(
                started.elapsed() < PATIENCE,
                "{table} is not stopped: {:?}",
                self.records(table)
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn position(&self) -> Position {
        let Ok(mut reader) = open_reader(&self.log, PATIENCE) else { return Position::default() };
        let last = all(reader.as_mut(), &positions_topic(&self.config.name)).pop();
        let Some((_, Some(value))) = last else { return Position::default() };
        serde_json::from_slice(&value).expect("a position")
    }
}

/// Removes the binlog files before this one; the server keeps those that a connection which has just ended was reading.
pub async fn purge_to(db: &mut Database, file: &str) {
    let started = Instant::now();
    loop {
        db.run(&format!("PURGE BINARY LOGS TO '{file}'")).await;
        let first: Option<mysql_async::Row> =
            db.connection.query_first("SHOW BINARY LOGS").await.expect("is asked");
        if first.and_then(|row| row.get::<String, _>(0)).as_deref() == Some(file) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "files before {file} stay");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

type KeyAndValue = (Option<Vec<u8>>, Option<Vec<u8>>);

fn all(reader: &mut dyn LogReader, topic: &str) -> Vec<KeyAndValue> {
    let mut found = Vec::new();
    let topics = reader.topics(topic).expect("topics");
    if !topics.iter().any(|info| info.name == topic) {
        return found;
    }
    let (first, end) = reader.bounds(topic, 0).expect("bounds");
    reader.assign(topic, 0, first).expect("assigned");
    let mut next = first;
    while next < end {
        let Some(batch) = reader.poll(Duration::from_secs(5)).expect("polls") else { continue };
        let bytes = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
        found.extend(batch.records.iter().map(|r| (bytes(batch.key(r)), bytes(batch.value(r)))));
        next = batch.next_offset;
    }
    reader.unassign(topic, 0).expect("unassigned");
    found
}

fn record_text(envelope: Value) -> String {
    let Value::Record(fields) = envelope else { panic!("no record") };
    let field =
        |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
    let operation = value_text(&field("op").expect("op"));
    let row = match operation.as_str() {
        "d" => field("before"),
        _ => field("after"),
    };
    format!("{operation} {}", value_text(&row.expect("a row")))
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Union(_, inner) => value_text(inner),
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Int(number) => number.to_string(),
        Value::Long(number) => number.to_string(),
        Value::Record(fields) => {
            fields.iter().map(|(_, value)| value_text(value)).collect::<Vec<_>>().join(",")
        }
        other => format!("{other:?}"),
    }
}
