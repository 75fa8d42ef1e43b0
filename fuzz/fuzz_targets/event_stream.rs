//! A chunk of raw events, as the replication connection hands them on, through the whole encode thread.
//!
//! Input: events in the form of `flow::Input::Events`.
#![no_main]

use std::sync::LazyLock;

use cdc_reader::{
    ReaderMetrics, SourceConfig,
    capture::{self, CaptureSetup},
    flow::Input,
    table_filter::TableFilter,
};
use change_log::{EncodedBatch, LogError, LogWriter, TopicHandle, TopicSpec};
use libfuzzer_sys::fuzz_target;
use schemas::{position::Position, wire_format::read_framing};
use tokio::{runtime::Runtime, sync::mpsc};
use tokio_util::sync::CancellationToken;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .expect("a runtime")
});
static METRICS: LazyLock<ReaderMetrics> =
    LazyLock::new(|| ReaderMetrics::new(&prometheus::Registry::new()));

static CONFIG: LazyLock<SourceConfig> = LazyLock::new(|| {
    let config = serde_json::json!({ "name": "s", "url": "", "commit_interval_ms": 0 });
    serde_json::from_value(config).expect("a configuration")
});
static FILTER: LazyLock<TableFilter> =
    LazyLock::new(|| TableFilter::new(&CONFIG.tables).expect("a pattern"));

/// Looks at what a log would keep.
struct CheckingLog {
    topics: Vec<String>,
}

impl LogWriter for CheckingLog {
    fn last_position(&self) -> Option<&[u8]> {
        None
    }

    fn topic(&mut self, spec: &TopicSpec) -> Result<TopicHandle, LogError> {
        let known = self.topics.iter().position(|name| *name == spec.name);
        Ok(TopicHandle(known.unwrap_or_else(|| {
            self.topics.push(spec.name.clone());
            self.topics.len() - 1
        }) as u32))
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), LogError> {
        for record in &batch.records {
            let topic = &self.topics[record.topic.0 as usize];
            for range in record.key.iter().chain(&record.value) {
                let bytes = &batch.bytes[range.clone()];
                if !topic.ends_with("schemas") {
                    read_framing(bytes).expect("framed");
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, position: &[u8]) -> Result<(), LogError> {
        let text = serde_json::from_slice::<Position>(position).expect("a position reads back");
        text.gtid_set.parse::<schemas::gtid_set::GtidSet>().expect("and so does its GTID set");
        Ok(())
    }
}

fuzz_target!(|events: &[u8]| {
    let log = Box::new(CheckingLog { topics: Vec::new() });
    let setup = CaptureSetup::new(&CONFIG, FILTER.clone(), log, METRICS.source("s"));
    let (inbox, received) = mpsc::channel(1);
    inbox.try_send(Input::Events(events.to_vec())).expect("there is room");
    drop(inbox);
    // An error is an answer. That it comes, and without a panic, is what is tried here.
    let _ = capture::run(setup, received, RUNTIME.handle(), &CancellationToken::new());
});
