//! A source table whose changes are written to an embedded log as the reader would, encoded by apache-avro; a running
//! sink; and SQL over the lake.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use apache_avro::{Schema, types::Value};
use arrow::util::pretty::pretty_format_batches;
use change_log::{
    Cleanup, EncodedBatch, EncodedRecord, LogConfig, LogWriter, TopicSpec, open_writer,
};
use deltalake::datafusion::prelude::{SessionConfig, SessionContext};
use prometheus::Registry;
use schemas::{
    avro_schema::{AvroOptions, envelope_schema, is_optional, key_schema},
    table_id::{TableId, schemas_topic},
    table_schema::{Column, TableSchema},
    wire_format::{SchemaReference, fingerprint, write_framing},
};
use sink_lake::{
    LakeConfig, SinkConfig, SinkError, SinkMetrics, SinkStatus, TableRule, TableState, TableStatus,
};
use tokio_util::sync::CancellationToken;

pub use schemas::column_type::ColumnType;

pub const TIMEOUT: Duration = Duration::from_secs(60);
const SOURCE: &str = "shop";

/// A folder with a log and a lake.
pub struct World {
    pub folder: tempfile::TempDir,
    writer: Box<dyn LogWriter>,
    pub written: BTreeMap<String, i64>,
}

/// A table as the source has it now.
pub struct SourceTable {
    pub schema: TableSchema,
    value: Encoder,
    key: Option<Encoder>,
}

/// A schema's text, parsed.
struct Encoder {
    text: String,
    schema: Schema,
    fingerprint: u64,
}

/// A row: one value per column, not wrapped into unions.
pub type Row = Vec<Value>;

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let writer = open_writer(&log_config(folder.path()), SOURCE, TIMEOUT).expect("a log");
        Self { folder, writer, written: BTreeMap::new() }
    }

    pub fn lake(&self) -> PathBuf {
        self.folder.path().join("lake")
    }

    pub fn lake_config(&self) -> LakeConfig {
        LakeConfig {
            url: format!("file://{}", self.lake().display()),
            freshness: Duration::from_millis(50),
            ..LakeConfig::default()
        }
    }

    /// Writes a table's schemas and gives its changes one transaction.
    pub fn write(&mut self, table: &SourceTable, changes: &[Change]) {
        let mut batch = EncodedBatch::default();
        let schemas = self.topic(&schemas_topic(SOURCE), Cleanup::Compact);
        for text in table.texts() {
            let key = fingerprint(&text).to_le_bytes();
            push(&mut batch, schemas, Some(&key), Some(text.as_bytes()));
        }
        let name = table.schema.id.topic();
        let topic = self.topic(&name, Cleanup::Delete);
        for change in changes {
            let (key, value) = table.encode(change);
            push(&mut batch, topic, key.as_deref(), value.as_deref());
            *self.written.entry(name.clone()).or_default() += 1;
        }
        self.commit(&batch);
    }

    /// Writes a record as it is.
    pub fn write_raw(&mut self, table: &SourceTable, key: Option<&[u8]>, value: Option<&[u8]>) {
        let name = table.schema.id.topic();
        let topic = self.topic(&name, Cleanup::Delete);
        let mut batch = EncodedBatch::default();
        push(&mut batch, topic, key, value);
        *self.written.entry(name).or_default() += 1;
        self.commit(&batch);
    }

    fn topic(&mut self, name: &str, cleanup: Cleanup) -> change_log::TopicHandle {
        self.writer.topic(&TopicSpec { name: name.into(), cleanup }).expect("a topic")
    }

    fn commit(&mut self, batch: &EncodedBatch) {
        self.writer.append(batch).expect("appends");
        self.writer.commit(b"{}").expect("commits");
    }

    /// The answer to a query over the table, registered as `t`, as a text table.
    pub async fn query(&self, table: &SourceTable, sql: &str) -> String {
        let folder = self.lake().join(table.schema.id.lake_path());
        let url = url::Url::from_directory_path(folder).expect("absolute");
        let delta = deltalake::open_table(url).await.expect("a delta table");
        let context =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
        let provider = delta.table_provider().await.expect("a provider");
        context.register_table("t", provider).expect("registers");
        let rows = context.sql(sql).await.expect("plans").collect().await.expect("runs");
        pretty_format_batches(&rows).expect("formats").to_string()
    }
}

pub fn log_config(folder: &Path) -> LogConfig {
    LogConfig::Embedded { path: folder.join("log"), retention_hours: 24 }
}

/// A change of a source row.
#[derive(Clone, Debug)]
pub enum Change {
    Insert(Row),
    Update(Row, Row),
    Delete(Row),
    Tombstone(Row),
    Snapshot(Row),
    Truncate,
}

impl SourceTable {
    pub fn new(name: &str, columns: &[(&str, ColumnType)], key: &[usize]) -> Self {
        let columns = columns.iter().enumerate().map(|(i, (name, column_type))| Column {
            name: (*name).into(),
            column_type: column_type.clone(),
            nullable: !key.contains(&i),
            details: Default::default(),
        });
        let schema = TableSchema {
            id: TableId::new(SOURCE, "market", name),
            columns: columns.collect(),
            key: key.to_vec(),
        };
        let options = AvroOptions::default();
        Self {
            value: Encoder::new(envelope_schema(&schema, options)),
            key: key_schema(&schema, options).map(Encoder::new),
            schema,
        }
    }

    pub fn name(&self) -> String {
        self.schema.id.to_string()
    }

    fn texts(&self) -> Vec<String> {
        [Some(&self.value), self.key.as_ref()]
            .into_iter()
            .flatten()
            .map(|e| e.text.clone())
            .collect()
    }

    /// A change's key and value, framed.
    pub fn encode(&self, change: &Change) -> (Option<Vec<u8>>, Option<Vec<u8>>) {
        let (op, before, after) = match change {
            Change::Insert(after) => ("c", None, Some(after)),
            Change::Update(before, after) => ("u", Some(before), Some(after)),
            Change::Delete(before) => ("d", Some(before), None),
            Change::Snapshot(after) => ("r", None, Some(after)),
            Change::Truncate => ("t", None, None),
            Change::Tombstone(row) => return (self.encode_key(row), None),
        };
        let row = |row: Option<&Row>| match row {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(row) => Value::Union(1, Box::new(self.row_value(row))),
        };
        let optional = |value: Option<Value>| match value {
            None => Value::Union(0, Box::new(Value::Null)),
            Some(value) => Value::Union(1, Box::new(value)),
        };
        let text = |text: &str| Value::String(text.into());
        let ts_us = 1_700_000_000_000_000i64;
        let source = Value::Record(vec![
            ("version".into(), text("1")),
            ("connector".into(), text("mysql")),
            ("name".into(), text(SOURCE)),
            ("ts_ms".into(), Value::Long(ts_us / 1000)),
            ("snapshot".into(), Value::Union(0, Box::new(text("false")))),
            ("db".into(), text("market")),
            ("sequence".into(), optional(None)),
            ("ts_us".into(), optional(Some(Value::Long(ts_us)))),
            ("ts_ns".into(), optional(Some(Value::Long(ts_us * 1000)))),
            ("table".into(), optional(Some(text(&self.schema.id.table)))),
            ("server_id".into(), Value::Long(1)),
            ("gtid".into(), optional(None)),
            ("file".into(), text("binlog.000001")),
            ("pos".into(), Value::Long(4)),
            ("row".into(), Value::Int(0)),
            ("thread".into(), optional(Some(Value::Long(7)))),
            ("query".into(), optional(None)),
        ]);
        let envelope = Value::Record(vec![
            ("before".into(), row(before)),
            ("after".into(), row(after)),
            ("source".into(), source),
            ("transaction".into(), optional(None)),
            ("op".into(), text(op)),
            ("ts_ms".into(), optional(Some(Value::Long(ts_us / 1000)))),
            ("ts_us".into(), optional(Some(Value::Long(ts_us)))),
            ("ts_ns".into(), optional(None)),
        ]);
        let value = self.value.framed(envelope);
        (after.or(before).and_then(|row| self.encode_key(row)), Some(value))
    }

    fn encode_key(&self, row: &Row) -> Option<Vec<u8>> {
        let key = self.key.as_ref()?;
        let fields = self.schema.key.iter();
        let fields = fields.map(|&i| (self.schema.columns[i].name.clone(), row[i].clone()));
        Some(key.framed(Value::Record(fields.collect())))
    }

    fn row_value(&self, row: &Row) -> Value {
        assert_eq!(row.len(), self.schema.columns.len(), "a value per column");
        let fields = self.schema.columns.iter().zip(row).enumerate().map(|(i, (column, value))| {
            let value = match (is_optional(&self.schema, i, AvroOptions::default()), value) {
                (false, value) => value.clone(),
                (true, Value::Null) => Value::Union(0, Box::new(Value::Null)),
                (true, value) => Value::Union(1, Box::new(value.clone())),
            };
            (column.name.clone(), value)
        });
        Value::Record(fields.collect())
    }
}

impl Encoder {
    fn new(text: String) -> Self {
        let schema = Schema::parse_str(&text).expect("a schema");
        Self { fingerprint: fingerprint(&text), schema, text }
    }

    fn framed(&self, value: Value) -> Vec<u8> {
        let mut record = Vec::new();
        write_framing(&mut record, SchemaReference::Fingerprint(self.fingerprint));
        #[allow(deprecated)]
        record.extend(apache_avro::to_avro_datum(&self.schema, value).expect("encodes"));
        record
    }
}

fn push(
    batch: &mut EncodedBatch,
    topic: change_log::TopicHandle,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) {
    let mut range = |bytes: Option<&[u8]>| {
        bytes.map(|bytes| {
            let start = batch.bytes.len();
            batch.bytes.extend_from_slice(bytes);
            start..batch.bytes.len()
        })
    };
    let (key, value) = (range(key), range(value));
    let timestamp_ms = 1_700_000_000_000;
    batch.records.push(EncodedRecord { topic, key, value, headers: 0..0, timestamp_ms });
}

/// A sink that runs in the background.
pub struct RunningSink {
    pub status: SinkStatus,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), SinkError>>,
}

impl RunningSink {
    pub fn start(world: &World, tables: Vec<TableRule>) -> Self {
        let config = SinkConfig { lake: world.lake_config(), tables, ..SinkConfig::default() };
        Self::start_with(world, config)
    }

    pub fn start_with(world: &World, config: SinkConfig) -> Self {
        let metrics = SinkMetrics::register(&Registry::new()).expect("registers");
        let status = metrics.status();
        let shutdown = CancellationToken::new();
        let log = log_config(world.folder.path());
        let run = sink_lake::run(config, log, vec![SOURCE.into()], shutdown.clone(), metrics);
        Self { status, shutdown, task: tokio::spawn(run) }
    }

    /// Waits until the lake contains everything that was written to a table.
    pub async fn caught_up(&self, world: &World, table: &SourceTable) {
        let wanted = world.written[&table.schema.id.topic()];
        self.until(table, |status| {
            assert!(!matches!(status.state, TableState::Stopped(_)), "{:?}", status.state);
            status.next_offsets.get(&0) >= Some(&wanted)
        })
        .await;
    }

    /// Waits until a table stops; returns the sentence.
    pub async fn stopped_table(&self, table: &SourceTable) -> String {
        self.until(table, |status| matches!(status.state, TableState::Stopped(_))).await;
        match self.status.tables()[&table.name()].state.clone() {
            TableState::Stopped(sentence) => sentence,
            other => panic!("{other:?}"),
        }
    }

    pub async fn until(&self, table: &SourceTable, reached: impl Fn(&TableStatus) -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let tables = self.status.tables();
            if tables.get(&table.name()).is_some_and(&reached) {
                return;
            }
            assert!(Instant::now() < deadline, "not reached in time: {tables:?}");
            assert!(!self.task.is_finished(), "the sink ended: {tables:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.expect("does not panic").expect("ends well");
    }

    /// Ends it as a crash would: nothing is drained.
    pub async fn kill(self) {
        self.task.abort();
        self.shutdown.cancel();
        assert!(self.task.await.is_err());
    }
}

pub fn text(value: impl std::fmt::Display) -> Value {
    Value::String(value.to_string())
}

pub fn decimal(unscaled: i128) -> Value {
    Value::Decimal(apache_avro::Decimal::from(unscaled.to_be_bytes()))
}

pub fn shared<T>(value: T) -> Arc<T> {
    Arc::new(value)
}
