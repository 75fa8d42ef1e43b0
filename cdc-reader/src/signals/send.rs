//! Writes a signal into the change log.
//!
//! The topic has a writer of its own beside the source's, which a reader may hold at the moment. A second command that
//! comes at the same time fences the first one's writer; nothing of a fenced transaction is visible, so the first one
//! simply sends its signal again.

use std::time::{Duration, Instant};

use change_log::{
    Cleanup, EncodedBatch, EncodedRecord, LogConfig, LogError, TopicSpec, open_reader, open_writer,
};
use schemas::table_id::signals_topic;

use super::Signal;

const LOG_TIMEOUT: Duration = Duration::from_secs(15);
const POLL_TIMEOUT: Duration = Duration::from_millis(200);
/// How long commands may get in each other's way.
const FENCED_MAX: Duration = Duration::from_secs(60);

/// Sends a signal and returns its offset in the source's topic. Blocks.
pub fn send(log: &LogConfig, source: &str, signal: &Signal) -> Result<i64, LogError> {
    let topic = signals_topic(source);
    let mut reader = open_reader(log, LOG_TIMEOUT)?;
    let known = reader.topics(&topic)?.iter().any(|info| info.name == topic);
    let before = if known { reader.bounds(&topic, 0)?.1 } else { 0 };
    let started = Instant::now();
    loop {
        match write(log, source, &topic, signal) {
            Ok(()) => break,
            Err(LogError::Fenced { .. }) if started.elapsed() < FENCED_MAX => {
                // Two commands that wait equally long would fence each other again.
                std::thread::sleep(Duration::from_millis(u64::from(std::process::id() % 97) + 20));
            }
            Err(error) => return Err(error),
        }
    }
    reader.assign(&topic, 0, before)?;
    let deadline = Instant::now() + LOG_TIMEOUT;
    while Instant::now() < deadline {
        let Some(batch) = reader.poll(POLL_TIMEOUT)? else { continue };
        for record in &batch.records {
            let sent = batch.value(record).and_then(|value| serde_json::from_slice(value).ok());
            if sent.is_some_and(|sent: Signal| sent.id == signal.id) {
                return Ok(record.offset);
            }
        }
    }
    Err(LogError::Unavailable {
        place: topic,
        reason:
            "the signal was sent, and the log does not show it; ask again with `snapshot status`"
                .into(),
    })
}

fn write(log: &LogConfig, source: &str, topic: &str, signal: &Signal) -> Result<(), LogError> {
    // No source has a name with a dot.
    let mut writer = open_writer(log, &format!("__signals.{source}"), LOG_TIMEOUT)?;
    // The reader takes each once, however long it was away; no sink reads them.
    let spec = TopicSpec { name: topic.to_owned(), cleanup: Cleanup::Expire };
    let topic = writer.topic(&spec)?;
    let bytes = serde_json::to_vec(signal).map_err(|error| LogError::Unfit {
        place: spec.name,
        reason: format!("the signal cannot be written: {error}"),
    })?;
    let mut batch = EncodedBatch { bytes, ..EncodedBatch::default() };
    batch.records.push(EncodedRecord {
        topic,
        key: None,
        value: Some(0..batch.bytes.len()),
        headers: 0..0,
        timestamp_ms: signal.at_ms,
    });
    writer.append(&batch)?;
    writer.commit(b"{}")
}
