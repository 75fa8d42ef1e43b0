//! A look at the change log from outside: a source's position, and whether a topic has a record left to read. The
//! calls block.

use std::time::{Duration, Instant};

use change_log::{LogError, LogReader};
use schemas::{position::Position, table_id::positions_topic};

const POLL_TIMEOUT: Duration = Duration::from_millis(200);
/// A first fetch of a busy broker may take this long.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// Behind the last position are only control records and positions of aborted transactions.
const FIRST_STEP: i64 = 16;

/// The newest position of a source's reader; `None` when it has never run.
pub fn position(reader: &mut dyn LogReader, source: &str) -> Result<Option<Position>, LogError> {
    let topic = positions_topic(source);
    if !reader.topics(&topic)?.iter().any(|known| known.name == topic) {
        return Ok(None);
    }
    let Some(text) = last_value(reader, &topic)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).map_err(|error| LogError::Unfit {
        place: topic,
        reason: format!("its last record is no position of this release ({error})"),
    })
}

/// The time stamp, in milliseconds since 1970, of the first record at or after `next`; `None` when there is no record
/// up to the end, where Kafka's control records may still be.
pub fn first_waiting(
    reader: &mut dyn LogReader,
    topic: &str,
    partition: i32,
    next: i64,
) -> Result<Option<i64>, LogError> {
    let (first, end) = reader.bounds(topic, partition)?;
    // Records that retention has removed cannot be looked at; the sink says so.
    let from = next.max(first);
    if from >= end {
        return Ok(None);
    }
    reader.assign(topic, partition, from)?;
    let found = first_record(reader, topic, end);
    reader.unassign(topic, partition)?;
    found
}

fn first_record(
    reader: &mut dyn LogReader,
    topic: &str,
    end: i64,
) -> Result<Option<i64>, LogError> {
    // On Kafka, silence is the only sign that nothing but control records is left.
    const SILENT_POLLS: u32 = 3;
    let mut silent = 0;
    while silent < SILENT_POLLS {
        match reader.poll(POLL_TIMEOUT)? {
            Some(batch) if *batch.topic == *topic => {
                if let Some(record) = batch.records.first() {
                    return Ok(Some(record.timestamp_ms));
                }
                if batch.next_offset >= end {
                    return Ok(None);
                }
            }
            Some(_) => {}
            None => silent += 1,
        }
    }
    Ok(None)
}

/// The last record of a single-partition topic that has a value.
fn last_value(reader: &mut dyn LogReader, topic: &str) -> Result<Option<Vec<u8>>, LogError> {
    let (first, end) = reader.bounds(topic, 0)?;
    if end <= first {
        return Ok(None);
    }
    let mut step = FIRST_STEP;
    loop {
        let from = end.saturating_sub(step).max(first);
        reader.assign(topic, 0, from)?;
        let read = read_to_end(reader, topic, end);
        reader.unassign(topic, 0)?;
        let found = match read {
            // The topic is compacted: what was its first record may be gone by now.
            Err(LogError::OffsetGone { .. }) => return last_value_after_compaction(reader, topic),
            other => other?,
        };
        if found.is_some() || from <= first {
            return Ok(found);
        }
        step = step.saturating_mul(64);
    }
}

fn last_value_after_compaction(
    reader: &mut dyn LogReader,
    topic: &str,
) -> Result<Option<Vec<u8>>, LogError> {
    let (first, end) = reader.bounds(topic, 0)?;
    reader.assign(topic, 0, first)?;
    let found = read_to_end(reader, topic, end);
    reader.unassign(topic, 0)?;
    found
}

fn read_to_end(
    reader: &mut dyn LogReader,
    topic: &str,
    end: i64,
) -> Result<Option<Vec<u8>>, LogError> {
    let started = Instant::now();
    let mut last = None;
    loop {
        match reader.poll(POLL_TIMEOUT)? {
            Some(batch) if *batch.topic == *topic => {
                let mut values = batch.records.iter().filter_map(|record| batch.value(record));
                last = values.next_back().map(<[u8]>::to_vec).or(last);
                if batch.next_offset >= end {
                    return Ok(last);
                }
            }
            Some(_) => {}
            // What is left are control records, unless nothing came at all yet.
            None if last.is_some() || started.elapsed() >= READ_TIMEOUT => return Ok(last),
            None => {}
        }
    }
}
