//! After a restart in the middle of a snapshot: the keys that the stream had changed, read back from the log.
//!
//! They are the keys of the table's records whose operation is not `r`. Rows of chunks are left out, for the walk goes
//! on behind them.

use std::time::{Duration, Instant};

use change_log::{Consumed, LogConfig, LogError, LogReader, headers, open_reader};
use schemas::{table_id::TableId, wire_format::read_framing};

use super::window::{Window, Windows};
use crate::{encode::partial_rows::AFTER_ABSENT, error::ReaderError};

const LOG_TIMEOUT: Duration = Duration::from_secs(30);
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Remembers the changed keys of each table in its window. Blocks; reads the tables' topics from their beginning.
pub fn remember_changed_keys(
    log: &LogConfig,
    tables: &[TableId],
    windows: &mut Windows,
) -> Result<(), ReaderError> {
    if tables.is_empty() {
        return Ok(());
    }
    let mut reader = open_reader(log, LOG_TIMEOUT)?;
    for table in tables {
        let name = format!("{}.{}", table.database, table.table);
        read_topic(reader.as_mut(), &table.topic(), |batch| {
            if let Some(window) = windows.of(&name) {
                note(batch, window);
            }
            windows.remember(&name)
        })?;
    }
    Ok(())
}

/// Reads all that is committed in a topic; one that is not there has nothing.
pub(crate) fn read_topic<E: From<LogError>>(
    reader: &mut dyn LogReader,
    topic: &str,
    mut take: impl FnMut(&Consumed) -> Result<(), E>,
) -> Result<(), E> {
    let Some(info) = reader.topics(topic)?.into_iter().find(|info| info.name == topic) else {
        return Ok(());
    };
    for partition in 0..info.partitions {
        let (first, end) = reader.bounds(topic, partition)?;
        if first >= end {
            continue;
        }
        reader.assign(topic, partition, first)?;
        let (mut next, mut heard) = (first, Instant::now());
        while next < end {
            match reader.poll(Duration::from_millis(500))? {
                Some(batch) => {
                    take(&batch)?;
                    next = batch.next_offset;
                    heard = Instant::now();
                }
                None if heard.elapsed() < SILENCE_MAX => {}
                None => {
                    return Err(E::from(LogError::Unavailable {
                        place: topic.to_owned(),
                        reason: "it does not give the records that it says to hold".into(),
                    }));
                }
            }
        }
        reader.unassign(topic, partition)?;
    }
    Ok(())
}

fn note(batch: &Consumed, window: &mut Window) {
    for record in &batch.records {
        let (Some(key), Some(value)) = (batch.key(record), batch.value(record)) else { continue };
        if operation(value) == Some(b'r') || lacks_columns(batch.headers(record)) {
            continue;
        }
        if let Ok((_, datum)) = read_framing(key) {
            window.note(datum);
        }
    }
}

/// Such a record is not the row: the chunk's row is needed, and is newer than what was in the log before it was asked
/// for.
fn lacks_columns(bytes: &[u8]) -> bool {
    headers::iter(bytes).flatten().any(|(name, _)| name == AFTER_ABSENT.as_bytes())
}

/// The operation of an envelope, found from its end: three present longs stand behind it, and a varint's last byte is
/// the only one of it without the high bit.
fn operation(envelope: &[u8]) -> Option<u8> {
    const PRESENT: u8 = 2;
    let mut rest = envelope;
    for _ in 0..3 {
        let (last, before) = rest.split_last()?;
        if last & 0x80 != 0 {
            return None;
        }
        rest = before;
        while rest.last()? & 0x80 != 0 {
            rest = &rest[..rest.len() - 1];
        }
        rest = match rest.split_last()? {
            (&PRESENT, before) => before,
            _ => return None,
        };
    }
    match rest {
        // A string of one byte.
        [.., 2, operation] => Some(*operation),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::encode::envelope::{EnvelopeParts, SourceBlock};

    proptest! {
        #[test]
        fn operation_is_found_from_the_end(now_us in 0i64..=i64::MAX / 1000, row: Vec<u8>) {
            let block = SourceBlock {
                version: "1", source: "s", snapshot: "true", database: "d", table: "t", committed_at_us: 1,
                server_id: 1, gtid: "", file: "f", offset: 4, thread: 0,
            };
            let mut parts = EnvelopeParts::default();
            parts.fill(&block, now_us);
            for op in *b"crudt" {
                parts.set_op(op);
                let mut envelope = row.clone();
                parts.write(&mut envelope, 7);
                prop_assert_eq!(operation(&envelope), Some(op));
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            operation(&bytes);
        }
    }
}
