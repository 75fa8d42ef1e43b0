//! Reads the rows that tables have already, chunk by chunk beside the stream, without a lock and without writing to
//! the source.
//!
//! # The protocol
//! For each chunk of a table with a key:
//! 1. `OpenWindow` to the encode thread. Between two transactions it answers with S, the transactions it has consumed
//!    so far. From the start of the table's snapshot until its end it remembers every key that the stream changes.
//! 2. On the connection that will read: a wait until everything in S is committed in the engine (see "The wait").
//! 3. The chunk's SELECT: one statement, so one consistent read view V.
//! 4. HIGH: the end of the binlog, asked for after the SELECT.
//! 5. `Chunk` to the encode thread. When the stream has consumed everything before HIGH, and is between two
//!    transactions, it emits those rows of the chunk whose key was not remembered, as one step with the position.
//! 6. The next chunk begins after the last one is committed in the log.
//!
//! # Why it is right
//! Claim: after step 5 the log's last record of each key in the chunk's range says what the source held when the
//! stream stood at HIGH, and no older row ever follows a newer one.
//!
//! Take a key k. Every transaction of the binlog before HIGH is one of these:
//! - in S. It is in V, by step 2: the server puts a transaction into `gtid_executed` after the engine has committed it.
//!   (That step is needed: the server sends a transaction to replicas after it is flushed and *before* the engine
//!   commits it, so the stream can be ahead of every read view; with semi-synchronous replication by a round trip.)
//! - consumed by the stream later. If it touches k, k is remembered.
//!
//! If k is remembered, its chunk row is dropped: the stream's own record of that change, and all later ones, are in
//! the log, so the log's last record of k is the stream's. That is right whether V contained the change or not.
//! If k is not remembered, no transaction after S and before HIGH touched k. V contains all of S, and nothing that is
//! not before HIGH: the server writes a transaction to the binlog before the engine commits it, so what V could see
//! had moved the binlog's end by the time of step 4. (`gtid_executed` would not do for HIGH: it is updated after the
//! engine's commit, so a transaction can be visible and not yet in it.) Hence V's row of k, or its absence, is the
//! state at HIGH, and it is emitted before any record of a later change. A deleted k is not in V and needs no record:
//! the delete is in S, and whoever had k before has read it from the stream.
//!
//! No low watermark is needed. It would tell changes between S and the SELECT from later ones, in order to keep rows
//! whose last change V contains; dropping those too is always safe, because the stream carries that change.
//! Nothing is missed between chunks: the next starts strictly after the last key in the server's own order, and a row
//! that is inserted or moved behind the walk is carried by the stream.
//! Keys are remembered for the whole snapshot of the table, not only while a chunk is read: a row that is inserted
//! ahead of the walk is in the log by its event, and the chunk that finds it later leaves it out. So each row is in the
//! log once, which a table that only grows depends on.
//! A crash forgets the chunk; `last_key` in the position names what is in the log, because both are committed in one
//! log transaction, and the changed keys are read back from the log (`changed_keys`).
//!
//! The chunk must have been read with the shape it is said to have: after the SELECT the catalog is read again, and a
//! chunk over which it changed is thrown away (a changed collation would have changed the order under the walk).
//!
//! Tables without a key are read whole; see `keyless`.
//!
//! # The wait
//! - MySQL with GTIDs: `WAIT_FOR_EXECUTED_GTID_SET(S)`. S contains what was in `gtid_executed` when the source was begun.
//! - MySQL without GTIDs: until what was flushed to the binlog by now is committed, by the two signs of `mysql::visible`.
//!   The stream can only have consumed what was flushed, and so can whatever lies before the place at which the source
//!   was begun: that place needs no care of its own.
//! - MariaDB: the chunk is read in a `START TRANSACTION WITH CONSISTENT SNAPSHOT`, for which the server tells the exact
//!   place in the binlog (`binlog_snapshot_file`, `binlog_snapshot_position`): it is taken under the lock under which
//!   transactions become visible in the binlog's order. A snapshot that is before S is taken again. V is then exactly
//!   what is before that place, and the place is HIGH.

pub mod avro_row;
pub mod changed_keys;
pub mod chunk_plan;
pub mod chunk_read;
pub mod key_text;
mod keyless;
mod reader;
pub mod server_value;
mod view;
pub mod window;

use std::{collections::BTreeMap, sync::Arc};

use schemas::{position::TableSnapshot, table_id::TableId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::reader::{Failure, SnapshotReader};
use crate::{
    config::SourceConfig, error::ReaderError, flow::InputSender, mysql::catalog::CatalogTable,
};

/// Reads every table that is not done, the small ones first. Returns when all are, on `shutdown`, when the encode
/// thread is gone, or with an error that trying again cannot cure. A table with a row that cannot be read is left
/// undone, loudly; the others go on.
pub async fn run(
    config: Arc<SourceConfig>,
    mut tables: Vec<CatalogTable>,
    progress: BTreeMap<String, TableSnapshot>,
    inbox: InputSender,
    shutdown: CancellationToken,
) -> Result<(), ReaderError> {
    tables.retain(|table| !progress.get(&table.name()).is_some_and(|table| table.done));
    tables.sort_by_cached_key(|table| (table.rows_estimated(), table.name()));
    let mut reader = SnapshotReader::new(config, inbox);
    let reading = async {
        for table in tables {
            let done = progress.get(&table.name()).cloned().unwrap_or_default();
            reader.read_table(table, done).await?;
        }
        Ok(())
    };
    until(&shutdown, reading).await
}

/// Reads tables as they are asked for: those that appear while the stream is followed, and those whose rows became
/// others. Returns on `shutdown`, when nobody is left to ask, or with an error that trying again cannot cure.
pub async fn run_requested(
    config: Arc<SourceConfig>,
    mut requested: mpsc::Receiver<TableId>,
    inbox: InputSender,
    shutdown: CancellationToken,
) -> Result<(), ReaderError> {
    let mut reader = SnapshotReader::new(config, inbox);
    let reading = async {
        while let Some(table) = requested.recv().await {
            reader.read_named(&table).await?;
        }
        Ok(())
    };
    until(&shutdown, reading).await
}

/// Dropping a half-read chunk is safe: its window is replaced and its connection closed.
async fn until(
    shutdown: &CancellationToken,
    reading: impl Future<Output = Result<(), Failure>>,
) -> Result<(), ReaderError> {
    let result = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        result = reading => result,
    };
    match result {
        Ok(()) | Err(Failure::Closed) => Ok(()),
        Err(Failure::Reader(error)) => Err(error),
    }
}
