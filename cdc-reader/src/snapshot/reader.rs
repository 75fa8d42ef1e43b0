//! One reader: one connection, one chunk being read. Chunks that wait for their commit do not hold it up.

use std::{sync::Arc, time::Duration};

use schemas::{avro_schema::AvroOptions, position::BinlogPlace};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{error, info, warn};

use super::{
    EncodeThread,
    avro_row::RowWriter,
    board::{Board, Job, Part},
    chunk_plan::is_key_of,
    chunk_read::{Overflow, ReadFailure, ReadRows},
    link::{ChunkSize, Link},
    throttle::Throttle,
    view::{of_unchanged, see_all_of},
};
use crate::{
    config::SourceConfig,
    error::{Action, ReaderError},
    flow::{AskedChunk, Input, SnapshotChunk, StreamState, TablePart, WindowRequest},
    mysql::{
        catalog::{self, CatalogTable},
        connect,
        rows::RowLink,
    },
};

/// A chunk is cut at this size, whatever rows were asked for.
pub(super) const CHUNK_BYTES: usize = 8 << 20;
/// Chunks that are being read or wait for their commit have this much room together.
const BUDGET_BYTES: usize = 64 << 20;
/// What the budget is counted in.
const BUDGET_UNIT: usize = 1 << 10;
const PAUSE: Duration = Duration::from_secs(1);

/// Why reading tables ends.
#[derive(Debug)]
pub(super) enum Failure {
    /// The encode thread is gone; it says why.
    Closed,
    /// Trying again cannot help.
    Reader(ReaderError),
}

/// Why a chunk did not get into the log.
#[derive(Debug)]
pub(super) enum ChunkFailure {
    /// See [`Failure::Closed`].
    Closed,
    /// The encode thread did not take it.
    Refused,
    /// It is of a walk that is no more, or of a table that is not to be read; the board knows.
    Void,
    /// It could not be read.
    Read(ReadFailure),
    /// Something around it failed.
    Reader(ReaderError),
}

impl From<ReaderError> for ChunkFailure {
    fn from(error: ReaderError) -> Self {
        Self::Reader(error)
    }
}

impl From<ReadFailure> for ChunkFailure {
    fn from(failure: ReadFailure) -> Self {
        Self::Read(failure)
    }
}

/// See the module.
pub(super) struct SnapshotReader {
    pub(super) config: Arc<SourceConfig>,
    options: AvroOptions,
    encode: EncodeThread,
    pub(super) board: Arc<Board>,
    budget: Arc<Semaphore>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) link: Option<Link>,
}

/// What is sent besides the rows.
pub(super) struct ChunkEnd {
    pub(super) high: BinlogPlace,
    pub(super) part: TablePart,
    pub(super) zero_dates: u64,
    pub(super) invalid_texts: u64,
}

/// The memory that the readers of one source have for their chunks.
pub(super) fn budget() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(BUDGET_BYTES / BUDGET_UNIT))
}

impl SnapshotReader {
    pub(super) fn new(
        config: Arc<SourceConfig>,
        encode: EncodeThread,
        board: Arc<Board>,
        budget: Arc<Semaphore>,
        throttle: Arc<Throttle>,
    ) -> Self {
        let options = AvroOptions { debezium_compat: config.debezium_compat };
        Self { config, options, encode, board, budget, throttle, link: None }
    }

    /// Does what the board has, for ever.
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        loop {
            let mut part = match self.board.next().await {
                Job::Load(table, generation) => {
                    self.load(table, generation).await?;
                    continue;
                }
                Job::Read(part) => part,
            };
            let read = if part.table.schema.key.is_empty() {
                self.keyless_table(&part).await.map(|()| self.board.remove(&part))
            } else {
                self.next_chunk(&mut part).await
            };
            let recovered = match read {
                Ok(()) => Ok(()),
                Err(failure) => {
                    self.give_up_view(&part).await?;
                    self.recover(&part, failure).await
                }
            };
            self.board.leave(&part);
            recovered?;
        }
    }

    /// Nobody reads the rows of a view that is open for a table without a key: what is held for it is dropped, as a later
    /// view has it, instead of being kept for as long as nobody reads the table again.
    async fn give_up_view(&self, part: &Part) -> Result<(), Failure> {
        if !part.table.schema.key.is_empty() {
            return Ok(());
        }
        let given = self.give(Input::NoView(part.name.to_string())).await;
        given.map_err(|_| Failure::Closed)
    }

    /// Steps 1 to 5 for one chunk; step 6 does not hold the reader up.
    async fn next_chunk(&mut self, part: &mut Part) -> Result<(), ChunkFailure> {
        let writer = self.row_writer(&part.table);
        let source = self.config.name.clone();
        let mut memory = self.memory().await?;
        self.wait_for_leave().await?;
        if part.split {
            self.split(part).await?;
        }
        let (throttle, buffer) = (self.throttle.clone(), self.encode.buffers.take());
        let stream = self.open_window(part).await?;
        let link = self.link().await?;
        let view = see_all_of(link, &stream).await?;
        let table = &part.table;
        let filter = stream.filter.clone();
        let size = ChunkSize {
            // A range with an end has about the rows that were counted for it.
            rows: if part.range.upto.is_some() { part.rows * 2 } else { part.rows },
            bytes_max: CHUNK_BYTES,
            overflow: Overflow::CutShort,
        };
        let read = link.read_chunk(table, &part.range, filter, size, writer, buffer).await;
        // Whatever becomes of the rows: a view that stays open holds up every DDL of the table.
        let high = view.end(link).await;
        let (read, writer) = of_unchanged(read, link, &source, table).await?;
        let high = high?;
        throttle.read(read.rows.len() as u64);
        let mut done = part.range.clone();
        if !read.complete
            && let Some(last) = &read.last_key
        {
            self.board.put_back(part, done.cut(last.clone()));
        }
        let (rows, bytes) = (read.rows.len(), read.bytes.len());
        let end = ChunkEnd {
            high,
            part: TablePart::Range(done.clone()),
            zero_dates: writer.zero_dates,
            invalid_texts: writer.invalid_texts,
        };
        self.board.sent(part, rows, bytes);
        let answer = self.send(part, read, end).await?;
        // What is kept is what the chunk needs.
        drop(memory.split(memory.num_permits().saturating_sub(bytes / BUDGET_UNIT)));
        let (board, part) = (self.board.clone(), part.clone());
        tokio::spawn(async move {
            let taken = answer.await.is_ok();
            drop(memory);
            if taken {
                board.committed(&part, rows as u64);
            } else {
                board.refused(&part, done);
            }
        });
        Ok(())
    }

    /// Waits while the limits of the source's load say so.
    pub(super) async fn wait_for_leave(&mut self) -> Result<(), ReaderError> {
        let throttle = self.throttle.clone();
        throttle.before_chunk(&mut self.link().await?.connection).await
    }

    async fn memory(&self) -> Result<OwnedSemaphorePermit, ChunkFailure> {
        let units = (CHUNK_BYTES / BUDGET_UNIT) as u32;
        let memory = self.budget.clone().acquire_many_owned(units).await;
        memory.map_err(|_| ChunkFailure::Closed)
    }

    /// Leaves what comes after the part's first chunk to the others.
    async fn split(&mut self, part: &mut Part) -> Result<(), ChunkFailure> {
        let table = part.table.clone();
        let link = self.link().await?;
        if let Some(boundary) = link.read_boundary(&table, &part.range, part.rows).await? {
            self.board.put_back(part, part.range.following(boundary.clone()));
            part.range.upto = Some(boundary);
        }
        Ok(())
    }

    /// What to do after a failure.
    async fn recover(&mut self, part: &Part, failure: ChunkFailure) -> Result<(), Failure> {
        match failure {
            ChunkFailure::Closed => return Err(Failure::Closed),
            ChunkFailure::Void => return Ok(()),
            ChunkFailure::Refused => {
                warn!(table = &*part.name, "snapshot chunk was not taken, reading it again");
            }
            ChunkFailure::Read(ReadFailure::TableChanged) => return self.reload(part).await,
            ChunkFailure::Read(ReadFailure::BadRow(reason)) => {
                self.link = None;
                error!(
                    table = &*part.name,
                    reason,
                    "snapshot of table stopped; cure the row and restart, or take the table out of `tables`"
                );
                self.board.fail(part);
                return Ok(());
            }
            ChunkFailure::Read(failure) => {
                self.link = None;
                let error = failure.into_error(&connect::place(&self.config), &part.name);
                self.pass_or_fail(&part.name, error)?;
            }
            ChunkFailure::Reader(error) => {
                self.link = None;
                self.pass_or_fail(&part.name, error)?;
            }
        }
        self.board.put_off(part, part.range.clone());
        Ok(())
    }

    pub(super) fn pass_or_fail(&self, name: &str, error: ReaderError) -> Result<(), Failure> {
        match error.action() {
            Action::Retry => {
                warn!(table = name, %error, "snapshot interrupted, trying again");
                Ok(())
            }
            Action::StopService => Err(Failure::Reader(error)),
        }
    }

    /// The table was changed: goes on with its new shape, from the start when its key is another one.
    async fn reload(&mut self, part: &Part) -> Result<(), Failure> {
        let (name, source) = (&*part.name, self.config.name.clone());
        let loaded = match self.link().await {
            Ok(link) => {
                let id = &part.table.schema.id;
                catalog::load_one(&mut link.connection, &link.server, &source, id).await
            }
            Err(error) => Err(error),
        };
        let table = match loaded {
            Ok(Some(table)) => table,
            Ok(None) => {
                info!(table = name, "table is gone, its snapshot is done");
                // Otherwise it has come back meanwhile, and its walk has begun anew.
                if self.give_up(part).await? {
                    self.board.remove(part);
                }
                return Ok(());
            }
            // Its new shape cannot be captured; the stream stops the table with the same finding.
            Err(ReaderError::Query { reason, .. }) => {
                error!(table = name, reason, "snapshot of table stopped");
                self.board.fail(part);
                return Ok(());
            }
            Err(error) => {
                self.link = None;
                self.pass_or_fail(name, error)?;
                self.board.put_off(part, part.range.clone());
                return Ok(());
            }
        };
        if table.schema.key.is_empty() && !part.table.schema.key.is_empty() {
            error!(
                table = name,
                "table lost its key during its snapshot; give it a key, or restart the reader to read it as a table \
                 without a key"
            );
            self.board.fail(part);
            return Ok(());
        }
        let ends = [&part.range.after, &part.range.upto];
        let same_order = table.schema.key_shape() == part.table.schema.key_shape()
            && ends.into_iter().flatten().all(|key| is_key_of(&table, key));
        if !same_order {
            warn!(
                table = name,
                "key changed during the snapshot, reading the table from its start"
            );
        }
        self.board.replace(part, table, !same_order);
        if same_order {
            self.board.put_off(part, part.range.clone());
        }
        Ok(())
    }

    /// Ends a table's snapshot without (more) rows. Tries until the encode thread has taken it; false when it wants the
    /// table no more as the part knows it.
    pub(super) async fn give_up(&mut self, part: &Part) -> Result<bool, Failure> {
        loop {
            let end = ChunkEnd {
                high: BinlogPlace::default(),
                part: TablePart::Rest,
                zero_dates: 0,
                invalid_texts: 0,
            };
            let given_up = match self.open_window(part).await {
                Ok(_) => self.send_and_wait(part, ReadRows::default(), end).await,
                Err(failure) => Err(failure),
            };
            match given_up {
                Ok(()) => return Ok(true),
                Err(ChunkFailure::Void) => return Ok(false),
                Err(ChunkFailure::Closed) => return Err(Failure::Closed),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Step 1.
    pub(super) async fn open_window(&mut self, part: &Part) -> Result<StreamState, ChunkFailure> {
        let Part { generation, restart, .. } = *part;
        let chunk = AskedChunk {
            order: part.range.order,
            generation,
            restart,
            has_key: !part.table.schema.key.is_empty(),
        };
        let state = self.ask(&part.name, Some(chunk)).await?;
        if state.unwanted {
            self.board.remove(part);
            return Err(ChunkFailure::Void);
        }
        if state.generation != part.generation {
            self.board.set_generation(part, state.generation);
            return Err(ChunkFailure::Void);
        }
        Ok(state)
    }

    pub(super) async fn ask(
        &mut self,
        table: &str,
        chunk: Option<AskedChunk>,
    ) -> Result<StreamState, ChunkFailure> {
        let (reply, answer) = oneshot::channel();
        let request = WindowRequest { table: table.to_owned(), chunk, reply };
        self.give(Input::OpenWindow(request)).await?;
        answer.await.map_err(|_| self.dropped())
    }

    /// Step 5; the answer is that of step 6.
    async fn send(
        &mut self,
        part: &Part,
        read: ReadRows,
        end: ChunkEnd,
    ) -> Result<oneshot::Receiver<()>, ChunkFailure> {
        let (committed, answer) = oneshot::channel();
        let chunk = SnapshotChunk {
            schema: part.table.schema.clone(),
            bytes: read.bytes,
            rows: read.rows,
            high: end.high,
            order: part.range.order,
            part: end.part,
            generation: part.generation,
            rows_estimated: part.table.rows_estimated(),
            zero_dates: end.zero_dates,
            invalid_texts: end.invalid_texts,
            committed,
        };
        self.give(Input::Chunk(chunk)).await?;
        Ok(answer)
    }

    /// Steps 5 and 6.
    pub(super) async fn send_and_wait(
        &mut self,
        part: &Part,
        read: ReadRows,
        end: ChunkEnd,
    ) -> Result<(), ChunkFailure> {
        let answer = self.send(part, read, end).await?;
        answer.await.map_err(|_| self.dropped())
    }

    pub(super) fn dropped(&self) -> ChunkFailure {
        if self.encode.inbox.is_closed() { ChunkFailure::Closed } else { ChunkFailure::Refused }
    }

    pub(super) fn row_writer(&self, table: &CatalogTable) -> RowWriter {
        RowWriter::new(table, self.options)
    }

    /// The connection; made (again) when there is none.
    pub(super) async fn link(&mut self) -> Result<&mut Link, ReaderError> {
        if self.link.is_none() {
            let mut connection = connect::reconnect(&self.config).await?;
            let place = connect::place(&self.config);
            let server = connect::server(&mut connection, &place).await?;
            let rows = RowLink::new(self.config.clone());
            self.link = Some(Link { connection, rows, server });
        }
        self.link.as_mut().ok_or_else(|| ReaderError::Transient {
            place: connect::place(&self.config),
            reason: "connection lost".into(),
        })
    }

    /// To the encode thread.
    pub(super) async fn give(&self, input: Input) -> Result<(), ChunkFailure> {
        self.encode.inbox.send(input).await.map_err(|_| ChunkFailure::Closed)
    }
}
