//! Our reader in this process, into an embedded change log, and the records that are there.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cdc_reader::{ReaderError, ReaderMetrics, SourceConfig};
use change_log::{LogConfig, LogReader, headers, open_reader};
use schemas::{
    table_id::schemas_topic,
    wire_format::{SchemaReference, read_framing},
};
use tokio::{runtime::Runtime, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    harness::{MySql, eventually_some},
    record::Record,
};

const TIMEOUT: Duration = Duration::from_secs(120);

/// A running reader.
pub struct Binlake {
    source: String,
    runtime: Runtime,
    running: Option<JoinHandle<Result<(), ReaderError>>>,
    stop: CancellationToken,
    reader: Box<dyn LogReader>,
    _folder: tempfile::TempDir,
}

impl Binlake {
    /// Starts it with `debezium_compat = true` and further keys of the source.
    pub fn start(mysql: &MySql, source: &str, more: serde_json::Value) -> Binlake {
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogConfig::Embedded { path: folder.path().into(), retention_hours: 24 };
        let mut config = serde_json::json!({
            "name": source, "url": mysql.url(), "debezium_compat": true,
        });
        let keys = config.as_object_mut().expect("an object");
        keys.extend(more.as_object().expect("an object").clone());
        let config: SourceConfig = serde_json::from_value(config).expect("a configuration");
        let runtime = Runtime::new().expect("a runtime");
        let stop = CancellationToken::new();
        let metrics = ReaderMetrics::new(&prometheus::Registry::new());
        let running = runtime.spawn(cdc_reader::run(config, log.clone(), stop.clone(), metrics));
        let reader =
            eventually_some(TIMEOUT, "the log", || open_reader(&log, Duration::from_secs(5)).ok());
        let source = source.to_owned();
        Binlake { source, runtime, running: Some(running), stop, reader, _folder: folder }
    }

    /// Waits for a record of a topic; the reader's own words when it ends before.
    pub fn wait_for_topic(&mut self, topic: &str) {
        eventually_some(TIMEOUT, &format!("our record of {topic}"), || {
            self.ensure_running();
            self.records(topic).filter(|records| !records.is_empty())
        });
    }

    /// Waits until a topic has so many records.
    pub fn wait_for_count(&mut self, topic: &str, count: usize) {
        eventually_some(TIMEOUT, &format!("{count} records of {topic}"), || {
            self.ensure_running();
            self.records(topic).filter(|records| records.len() >= count)
        });
    }

    /// Stops the reader and returns everything that it wrote, by topic.
    pub fn finish(mut self) -> HashMap<String, Vec<Record>> {
        self.stop.cancel();
        let running = self.running.take().expect("it is running");
        self.runtime.block_on(running).expect("joins").expect("the reader stops in order");
        let prefix = format!("{}.", self.source);
        let topics = self.reader.topics(&prefix).expect("the topics");
        let service = |name: &str| name.starts_with(&format!("{prefix}__"));
        let names: Vec<String> =
            topics.into_iter().map(|topic| topic.name).filter(|name| !service(name)).collect();
        names
            .into_iter()
            .map(|name| {
                let records = self.records(&name).unwrap_or_default();
                (name, records)
            })
            .collect()
    }

    fn ensure_running(&mut self) {
        if self.running.as_ref().is_some_and(JoinHandle::is_finished) {
            let running = self.running.take().expect("it is there");
            let ended = self.runtime.block_on(running).expect("joins");
            panic!("the reader ended: {ended:?}");
        }
    }

    fn records(&mut self, topic: &str) -> Option<Vec<Record>> {
        // Before the schemas, which are there when their records are.
        let records = self.read_all(topic)?;
        let schemas: HashMap<u64, Arc<str>> = self
            .read_all(&schemas_topic(&self.source))?
            .into_iter()
            .map(|Stored { key, value, .. }| {
                let key = key.expect("a fingerprint").try_into().expect("8 bytes");
                let text = String::from_utf8(value.expect("a text")).expect("UTF-8");
                (u64::from_le_bytes(key), text.into())
            })
            .collect();
        let split = |framed: Option<Vec<u8>>| match framed {
            None => (None, None),
            Some(framed) => {
                let (reference, datum) = read_framing(&framed).expect("framed");
                let SchemaReference::Fingerprint(id) = reference else { panic!("a registry id") };
                (Some(datum.to_vec()), Some(schemas[&id].clone()))
            }
        };
        let records = records.into_iter().map(|Stored { key, value, headers }| {
            let ((key, key_schema), (value, value_schema)) = (split(key), split(value));
            let topic = topic.to_owned();
            Record { topic, key, value, key_schema, value_schema, headers }
        });
        Some(records.collect())
    }

    fn read_all(&mut self, topic: &str) -> Option<Vec<Stored>> {
        let reader = self.reader.as_mut();
        if !reader.topics(topic).ok()?.iter().any(|found| found.name == topic) {
            return None;
        }
        let (first, end) = reader.bounds(topic, 0).ok()?;
        reader.assign(topic, 0, first).expect("assigned");
        let (mut records, mut next) = (Vec::new(), first);
        while next < end {
            let batch = reader.poll(Duration::from_secs(10)).expect("polls")?;
            for span in &batch.records {
                let bytes = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
                let headers = headers::iter(batch.headers(span)).map(|header| {
                    let (name, value) = header.expect("a whole header");
                    (String::from_utf8(name.to_vec()).expect("UTF-8"), value.to_vec())
                });
                records.push(Stored {
                    key: bytes(batch.key(span)),
                    value: bytes(batch.value(span)),
                    headers: headers.collect(),
                });
            }
            next = batch.next_offset;
        }
        reader.unassign(topic, 0).expect("unassigned");
        Some(records)
    }
}

/// A record as it is in the log.
struct Stored {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
}
