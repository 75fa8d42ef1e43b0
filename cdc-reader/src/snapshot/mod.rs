//! Reads the rows that tables have already, chunk by chunk beside the stream, without a lock and without writing to
//! the source.
//!
//! # The protocol
//! Several readers, each with a connection of its own, take ranges of keys from the `board`. For each chunk of a table
//! with a key:
//! 1. `OpenWindow` to the encode thread. Between two transactions it answers with S, the transactions it has consumed
//!    so far. From the start of the table's snapshot until its end it remembers every key that the stream changes.
//! 2. On the connection that will read: a wait until everything in S is committed in the engine (see "The wait").
//! 3. The chunk's SELECT: one statement, so one consistent read view V.
//! 4. HIGH: the end of the binlog, asked for after the SELECT.
//! 5. `Chunk` to the encode thread. When the stream has consumed everything before HIGH, and is between two
//!    transactions, it emits those rows of the chunk whose key was not remembered, as one step with the position.
//! 6. The answer, once the chunk is committed in the log. The reader does not wait for it: meanwhile it reads other
//!    ranges, as many as there is memory for. A chunk that is not taken goes back to the board.
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
//! Chunks do not depend on each other: each has its own S, V and HIGH, and the keys of two never overlap.
//! Nothing is missed between chunks: one starts strictly after the last key of the one before in the server's own order,
//! whichever is read first, and a row that is inserted or moved behind the walk is carried by the stream.
//! Keys are remembered for the whole snapshot of the table, not only while a chunk is read: a row that is inserted
//! ahead of the walk is in the log by its event, and the chunk that finds it later leaves it out. So each row is in the
//! log once, which a table that only grows depends on.
//! A crash forgets the chunks that are under way; `last_key` and `ahead` in the position name what is in the log, because
//! both are committed in one log transaction, and the changed keys are read back from the log (`changed_keys`).
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
mod board;
pub mod changed_keys;
pub mod chunk_buffers;
pub mod chunk_plan;
pub mod chunk_read;
pub mod key_memory;
pub mod key_text;
mod keyless;
mod link;
mod load;
mod reader;
pub mod request;
pub mod throttle;
mod token_bucket;
mod view;
pub mod window;

use std::{collections::BTreeMap, sync::Arc};

use schemas::position::TableSnapshot;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{
    board::Board,
    chunk_buffers::ChunkBuffers,
    reader::{Failure, SnapshotReader},
    request::Request,
    throttle::Throttle,
};
use crate::{
    config::{SnapshotMode, SourceConfig},
    error::ReaderError,
    flow::InputSender,
    mysql::catalog::CatalogTable,
};

/// The way to the encode thread, and the memory that comes back from it.
#[derive(Clone, Debug)]
pub struct EncodeThread {
    /// Its inbox.
    pub inbox: InputSender,
    /// Memory of the chunks that it has written.
    pub buffers: ChunkBuffers,
}

/// Reads every table that is not done, the small ones first, by several readers at once, and then those that are asked
/// for. Returns when all are read and nobody is left to ask, on `shutdown`, when the encode thread is gone, or with an
/// error that trying again cannot cure. A table with a row that cannot be read is left undone, loudly; the others go on.
pub async fn run(
    config: Arc<SourceConfig>,
    tables: Vec<CatalogTable>,
    progress: BTreeMap<String, TableSnapshot>,
    mut requests: mpsc::Receiver<Request>,
    encode: EncodeThread,
    throttle: Arc<Throttle>,
    shutdown: CancellationToken,
) -> Result<(), ReaderError> {
    let count = config.readers_that_fit(config.snapshot_readers) as usize;
    let rows = config.chunk_rows();
    let board = Arc::new(Board::new(tables, &progress, count, rows, reader::CHUNK_BYTES));
    let budget = reader::budget();
    let mut readers = JoinSet::new();
    for _ in 0..count {
        let (config, encode, board) = (config.clone(), encode.clone(), board.clone());
        let reader = SnapshotReader::new(config, encode, board, budget.clone(), throttle.clone());
        readers.spawn(reader.run());
    }
    let asked = async {
        while let Some(request) = requests.recv().await {
            board.take(request);
        }
        board.all_read().await;
    };
    let told = async {
        loop {
            board.all_read().await;
            info!(source = %config.name, "snapshot complete");
            if config.snapshot == SnapshotMode::Only {
                return board.all_or_failed(&config.name);
            }
            board.some_to_read().await;
        }
    };
    // Dropping the readers is safe: a chunk that is half read is in no record, and its connection is closed.
    let ended = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = asked => return Ok(()),
        told = told => return told,
        ended = readers.join_next() => ended,
    };
    match ended {
        Some(Ok(Err(Failure::Reader(error)))) => Err(error),
        Some(Err(_)) => Err(ReaderError::Transient {
            place: "this process".into(),
            reason: "a snapshot reader ended unexpectedly".into(),
        }),
        Some(Ok(Ok(()) | Err(Failure::Closed))) | None => Ok(()),
    }
}
