//! Removes records that are old enough and that every sink has made durable: whole segments, a few at a time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

/// At most this many segments go in one transaction, so that the write lock is held briefly.
const SEGMENTS_PER_TRANSACTION: i64 = 16;

/// What a clean-up works by.
#[derive(Debug)]
pub struct RetentionRun<'a> {
    /// Records appended before this moment (milliseconds since 1970) may go.
    pub appended_before_ms: i64,
    /// For each topic the offset that every group of sinks has passed. A topic that is missing here keeps all.
    pub acknowledged: &'a HashMap<String, i64>,
    /// When to leave the rest for the next time.
    pub deadline: Instant,
}

/// Whether a clean-up is due.
pub fn retention_due(last: Option<Instant>, now: Instant, interval: Duration) -> bool {
    last.is_none_or(|last| now.saturating_duration_since(last) >= interval)
}

/// Deletes what may go; `true` when all of it is gone, `false` when the deadline came first.
pub fn remove_old_records(
    connection: &mut Connection,
    run: &RetentionRun<'_>,
) -> rusqlite::Result<bool> {
    connection.execute(
        "DELETE FROM keyed_record WHERE value IS NULL AND appended_ms < ?1",
        [run.appended_before_ms],
    )?;
    let topics: Vec<(i64, String)> = connection
        .prepare_cached(
            "SELECT id, name FROM topic WHERE compacted = 0 AND first_offset < next_offset",
        )?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (topic_id, name) in topics {
        let Some(&acknowledged) = run.acknowledged.get(&name) else {
            continue;
        };
        while remove_some(connection, run, topic_id, acknowledged)? {
            if Instant::now() >= run.deadline {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn remove_some(
    connection: &mut Connection,
    run: &RetentionRun<'_>,
    topic_id: i64,
    acknowledged: i64,
) -> rusqlite::Result<bool> {
    // Only committed segments count: staged ones lie at or above the topic's next offset.
    let oldest = "SELECT s.next_offset, s.appended_ms FROM segment s JOIN topic t ON t.id = s.topic_id
                  WHERE s.topic_id = ?1 AND s.base_offset < t.next_offset ORDER BY s.base_offset LIMIT ?2";
    let mut first_kept = None;
    {
        let mut statement = connection.prepare_cached(oldest)?;
        let mut rows = statement.query(params![topic_id, SEGMENTS_PER_TRANSACTION])?;
        while let Some(row) = rows.next()? {
            let (next_offset, appended_ms): (i64, i64) = (row.get(0)?, row.get(1)?);
            if next_offset > acknowledged || appended_ms >= run.appended_before_ms {
                break;
            }
            first_kept = Some(next_offset);
        }
    }
    let Some(first_kept) = first_kept else {
        return Ok(false);
    };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let known: Option<i64> = transaction
        .query_row("SELECT first_offset FROM topic WHERE id = ?1", [topic_id], |row| row.get(0))
        .optional()?;
    if known.is_some_and(|first_offset| first_offset < first_kept) {
        transaction.execute(
            "DELETE FROM segment WHERE topic_id = ?1 AND base_offset < ?2",
            params![topic_id, first_kept],
        )?;
        transaction.execute(
            "UPDATE topic SET first_offset = ?2 WHERE id = ?1",
            params![topic_id, first_kept],
        )?;
    }
    transaction.commit()?;
    Ok(true)
}
