//! Debezium's records besides those of the tables, each by an option of the source: transaction metadata, heartbeats
//! and schema changes. They go into the log like rows do, so they are there exactly as often as the changes they describe: a
//! transaction that is read again after a restart counts its rows again, and its beginning is not written twice.

use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

use change_log::{
    Cleanup, EncodedBatch, EncodedRecord, LogWriter, TopicHandle, TopicSpec, registry::SchemaUse,
};

use super::{Capture, events::Transaction, schema_changes::SchemaChanges, tables::Tables};
use crate::{
    binlog::transaction::uuid_text,
    config::SourceConfig,
    encode::{
        envelope::{EnvelopeParts, TransactionOrder},
        metadata::{
            HEARTBEAT_KEY, HEARTBEAT_VALUE, TRANSACTION_KEY, TRANSACTION_VALUE, context_headers,
            heartbeat_topic, transaction_topic, write_begin, write_end,
        },
        plan::SchemaText,
        schema_change::{SCHEMA_CHANGE_KEY, SCHEMA_CHANGE_VALUE},
    },
    error::ReaderError,
};
use schemas::avro_write::{write_bytes, write_long};

/// Which of Debezium's additions a source writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebeziumOptions {
    /// The headers `__debezium.context.*` on every record.
    pub context_headers: bool,
    /// The topic `<source>.transaction`, and `transaction` in every envelope of the stream.
    pub transaction_metadata: bool,
    /// How often a record goes into the heartbeat topic.
    pub heartbeat_interval: Option<Duration>,
    /// The topic `<source>` of schema changes, with the server that says what a table is after one.
    pub schema_changes: Option<Arc<SourceConfig>>,
}

impl From<&SourceConfig> for DebeziumOptions {
    fn from(config: &SourceConfig) -> Self {
        let interval = config.heartbeat_interval_ms;
        Self {
            context_headers: config.context_headers,
            transaction_metadata: config.transaction_metadata,
            heartbeat_interval: (interval > 0).then(|| Duration::from_millis(interval)),
            schema_changes: config.schema_changes.then(|| Arc::new(config.clone())),
        }
    }
}

/// The options at work.
#[derive(Debug, Default)]
pub(super) struct Metadata {
    /// The headers of every record; empty when they are off.
    pub(super) headers: Vec<u8>,
    transactions: Option<MetadataTopic>,
    heartbeat: Option<Heartbeat>,
    pub(super) schema_changes: Option<SchemaChanges>,
}

#[derive(Debug)]
struct Heartbeat {
    topic: MetadataTopic,
    interval: Duration,
    last: Option<Instant>,
}

/// A topic and its two schemas.
#[derive(Debug)]
pub(super) struct MetadataTopic {
    pub(super) topic: TopicHandle,
    pub(super) key: SchemaText,
    pub(super) value: SchemaText,
}

/// What the open transaction's metadata say of it.
#[derive(Debug)]
pub(super) struct OpenMetadata {
    /// As Debezium names it: the GTID, or `file=...,pos=...`.
    id: String,
    total: i64,
    /// Table and its events, in the order of their first event.
    tables: Vec<(usize, i64)>,
}

impl Metadata {
    /// Makes the topics and publishes their schemas.
    pub(super) fn open(
        options: &DebeziumOptions,
        source: &str,
        now_us: i64,
        tables: &mut Tables,
        writer: &mut dyn LogWriter,
        batch: &mut EncodedBatch,
    ) -> Result<Self, ReaderError> {
        let mut metadata = Self::default();
        if options.context_headers {
            metadata.headers =
                context_headers(source, &run_id(now_us)).map_err(|error| ReaderError::Config {
                    source_name: source.to_owned(),
                    reason: format!("the context headers cannot be made: {error}"),
                })?;
        }
        let mut open =
            |name: String, key: &str, value: &str| -> Result<MetadataTopic, ReaderError> {
                let topic =
                    writer.topic(&TopicSpec { name: name.clone(), cleanup: Cleanup::Expire })?;
                let (mut key, mut value) =
                    (SchemaText::new(key.into()), SchemaText::new(value.into()));
                tables.name_text(&SchemaUse { topic: &name, is_key: true }, &mut key)?;
                tables.name_text(&SchemaUse { topic: &name, is_key: false }, &mut value)?;
                tables.publish_texts([&key, &value], writer, batch)?;
                Ok(MetadataTopic { topic, key, value })
            };
        if options.transaction_metadata {
            let name = transaction_topic(source);
            metadata.transactions = Some(open(name, TRANSACTION_KEY, TRANSACTION_VALUE)?);
        }
        if let Some(interval) = options.heartbeat_interval {
            let topic = open(heartbeat_topic(source), HEARTBEAT_KEY, HEARTBEAT_VALUE)?;
            metadata.heartbeat = Some(Heartbeat { topic, interval, last: None });
        }
        if let Some(config) = &options.schema_changes {
            let topic = open(source.to_owned(), SCHEMA_CHANGE_KEY, SCHEMA_CHANGE_VALUE)?;
            metadata.schema_changes = Some(SchemaChanges::new(topic, config.clone()));
        }
        Ok(metadata)
    }
}

impl MetadataTopic {
    fn push(
        &self,
        batch: &mut EncodedBatch,
        timestamp_ms: i64,
        key: &str,
        write_value: impl FnOnce(&mut Vec<u8>),
    ) {
        let bytes = &mut batch.bytes;
        let key_start = bytes.len();
        bytes.extend_from_slice(&self.key.framing);
        write_bytes(bytes, key.as_bytes());
        let value_start = bytes.len();
        bytes.extend_from_slice(&self.value.framing);
        write_value(bytes);
        batch.records.push(EncodedRecord {
            topic: self.topic,
            key: Some(key_start..value_start),
            value: Some(value_start..bytes.len()),
            headers: 0..0,
            timestamp_ms,
        });
    }
}

impl OpenMetadata {
    /// Gives the records of an event their `transaction`.
    pub(super) fn before_event(&self, table: usize, parts: &mut EnvelopeParts) {
        let known = self.tables.iter().find(|(index, _)| *index == table);
        let data_collection = known.map_or(0, |(_, events)| *events);
        parts.set_transaction(&self.id, TransactionOrder { total: self.total, data_collection });
    }

    /// Takes over how far the event has counted.
    pub(super) fn after_event(&mut self, table: usize, parts: &EnvelopeParts) {
        let Some(order) = parts.order() else { return };
        self.total = order.total;
        match self.tables.iter_mut().find(|(index, _)| *index == table) {
            Some((_, events)) => *events = order.data_collection,
            None if order.data_collection > 0 => self.tables.push((table, order.data_collection)),
            None => {}
        }
    }
}

impl Capture {
    /// The open transaction begins for its readers: at its BEGIN, or at the first row of one that has none.
    /// `offset`: where that event starts.
    pub(super) fn begin_metadata(&mut self, offset: u64) {
        let (Some(topic), Some(transaction)) = (&self.metadata.transactions, &mut self.transaction)
        else {
            return;
        };
        if transaction.metadata.is_some() {
            return;
        }
        let id = if transaction.gtid.is_empty() {
            format!("file={},pos={offset}", self.place.file)
        } else {
            transaction.gtid.clone()
        };
        // When a part of the transaction is in the log, its beginning is.
        if !transaction.partly_logged {
            let ts_ms = transaction.start.committed_at_us.div_euclid(1000);
            topic.push(&mut self.batch, ts_ms, &id, |out| write_begin(out, &id, ts_ms));
        }
        transaction.metadata = Some(OpenMetadata { id, total: 0, tables: Vec::new() });
    }

    /// The transaction has ended.
    pub(super) fn end_metadata(&mut self, transaction: &Transaction) {
        let (Some(topic), Some(metadata)) = (&self.metadata.transactions, &transaction.metadata)
        else {
            return;
        };
        let names: Vec<_> =
            metadata.tables.iter().map(|(index, _)| self.tables.name(*index)).collect();
        let tables: Vec<(&str, i64)> = names
            .iter()
            .zip(&metadata.tables)
            .map(|(name, (_, events))| (name.as_ref(), *events))
            .collect();
        let ts_ms = transaction.start.committed_at_us.div_euclid(1000);
        let id = &metadata.id;
        topic.push(&mut self.batch, ts_ms, id, |out| write_end(out, id, &tables, ts_ms));
    }

    /// Writes a heartbeat when it is time for one.
    pub(super) fn heartbeat_if_due(&mut self) {
        let Some(heartbeat) = &mut self.metadata.heartbeat else { return };
        let due = |last| self.now.duration_since(last) >= heartbeat.interval;
        if !heartbeat.last.is_none_or(due) {
            return;
        }
        heartbeat.last = Some(self.now);
        let ts_ms = self.now_us.div_euclid(1000);
        heartbeat.topic.push(&mut self.batch, ts_ms, &self.source, |out| write_long(out, ts_ms));
    }
}

/// A UUID of version 7 for this run, as Debezium's.
fn run_id(now_us: i64) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(now_us.div_euclid(1000) << 16).to_be_bytes());
    let random = [RandomState::new().hash_one(0), RandomState::new().hash_one(1)];
    bytes[6..8].copy_from_slice(&random[0].to_be_bytes()[..2]);
    bytes[8..].copy_from_slice(&random[1].to_be_bytes());
    bytes[6] = bytes[6] & 0x0f | 0x70;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    uuid_text(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_of_version_7_and_differ() {
        let (one, other) = (run_id(1_795_390_229_354_601), run_id(1_795_390_229_354_601));
        assert_ne!(one, other);
        assert_eq!(&one[..15], "01a20598-cb6a-7");
        assert!(matches!(one.as_bytes()[19], b'8' | b'9' | b'a' | b'b'), "{one}");
    }
}
