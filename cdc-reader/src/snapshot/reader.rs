//! Walks one table after the other: opens windows, reads chunks, hands them over, and begins again where something
//! came in between.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mysql_async::Conn;
use schemas::{
    avro_schema::AvroOptions,
    position::{BinlogPlace, TableSnapshot},
    table_id::TableId,
    table_schema::TableSchema,
};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::{
    avro_row::RowWriter,
    chunk_plan::{ChunkRange, KeyText, is_key_of},
    chunk_read::{Overflow, ReadFailure, ReadRows, read_chunk},
    view::{of_unchanged, see_all_of},
};
use crate::{
    config::SourceConfig,
    error::{Action, ReaderError},
    flow::{Input, InputSender, KeylessView, SnapshotChunk, StreamState, WindowRequest},
    mysql::{
        catalog::{self, CatalogTable},
        connect::{self, Server},
    },
};

/// A chunk is cut at this size, whatever rows were asked for: it is held until the stream has reached it.
const CHUNK_BYTES: usize = 32 << 20;
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often progress is logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

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

/// One reader: one connection, one chunk in flight.
pub(super) struct SnapshotReader {
    pub(super) config: Arc<SourceConfig>,
    options: AvroOptions,
    inbox: InputSender,
    link: Option<Link>,
}

/// A connection and what answers there.
pub(super) struct Link {
    pub(super) connection: Conn,
    pub(super) server: Server,
}

/// A table on its way.
pub(super) struct Walk {
    pub(super) table: CatalogTable,
    after: Option<KeyText>,
    rows: u64,
    row_bytes: u64,
    pub(super) keyless: bool,
    pause: Duration,
    reported: Instant,
}

impl Walk {
    pub(super) fn add_rows(&mut self, rows: u64) {
        self.rows += rows;
    }

    /// As many rows as are expected to fit into a chunk.
    fn chunk_rows(&self, configured: u32) -> u64 {
        let fitting = CHUNK_BYTES as u64 / self.row_bytes.max(1);
        u64::from(configured).min(fitting).max(1)
    }
}

/// What is sent besides the rows.
pub(super) struct ChunkEnd {
    pub(super) high: BinlogPlace,
    pub(super) last: bool,
    pub(super) zero_dates: u64,
    pub(super) invalid_texts: u64,
    pub(super) keyless: Option<KeylessView>,
}

impl SnapshotReader {
    pub(super) fn new(config: Arc<SourceConfig>, inbox: InputSender) -> Self {
        let options = AvroOptions { debezium_compat: config.debezium_compat };
        Self { config, options, inbox, link: None }
    }

    /// Reads one table to its end.
    pub(super) async fn read_table(
        &mut self,
        table: CatalogTable,
        done: TableSnapshot,
    ) -> Result<(), Failure> {
        let name = table.name();
        let mut walk = Walk {
            after: done.last_key,
            rows: done.rows,
            row_bytes: table.estimate.row_bytes,
            keyless: table.schema.key.is_empty(),
            pause: PAUSE_MIN,
            reported: Instant::now(),
            table,
        };
        if walk.after.as_ref().is_some_and(|after| !is_key_of(&walk.table, after)) {
            warn!(
                table = name,
                "key changed since the snapshot began, reading the table from its start"
            );
            walk.after = None;
        }
        info!(
            table = name,
            rows_estimated = walk.table.rows_estimated(),
            rows = walk.rows,
            "snapshot of table"
        );
        loop {
            let step = if walk.keyless {
                self.keyless_table(&mut walk).await.map(|()| true)
            } else {
                self.next_chunk(&mut walk).await
            };
            match step {
                Ok(true) => {
                    info!(table = name, rows = walk.rows, "snapshot of table complete");
                    return Ok(());
                }
                Ok(false) => {
                    walk.pause = PAUSE_MIN;
                    report(&mut walk, &name);
                }
                Err(failure) => {
                    if self.recover(&mut walk, &name, failure).await? {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Reads a table that was not known when the reader began, or whose rows became others since.
    pub(super) async fn read_named(&mut self, id: &TableId) -> Result<(), Failure> {
        let (name, source) = (id.to_string(), self.config.name.clone());
        let mut pause = PAUSE_MIN;
        loop {
            // First, so that a table which is there again after the server was asked is not taken for one that is gone.
            match self.ask(format!("{}.{}", id.database, id.table)).await {
                Ok(_) => {}
                Err(ChunkFailure::Closed) => return Err(Failure::Closed),
                Err(_) => continue,
            }
            let loaded = match self.link().await {
                Ok(link) => {
                    catalog::load_one(&mut link.connection, &link.server, &source, id).await
                }
                Err(error) => Err(error),
            };
            match loaded {
                Ok(Some(table)) => return self.read_table(table, TableSnapshot::default()).await,
                Ok(None) => match self.end_gone(id).await {
                    Ok(()) => {
                        info!(table = name, "table is gone, none of its rows are to be read");
                        return Ok(());
                    }
                    Err(ChunkFailure::Closed) => return Err(Failure::Closed),
                    Err(_) => continue,
                },
                // The stream stops the table with the same finding.
                Err(ReaderError::Query { reason, .. }) => {
                    error!(table = name, reason, "rows of table are not read");
                    return Ok(());
                }
                Err(error) => {
                    self.link = None;
                    self.pass_or_fail(&name, error)?;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Ends the snapshot of a table that is not there.
    async fn end_gone(&mut self, id: &TableId) -> Result<(), ChunkFailure> {
        let (committed, answer) = oneshot::channel();
        let schema = TableSchema { id: id.clone(), columns: Vec::new(), key: Vec::new() };
        let chunk = SnapshotChunk {
            schema: Arc::new(schema),
            bytes: Vec::new(),
            rows: Vec::new(),
            high: BinlogPlace::default(),
            last_key: None,
            last: true,
            rows_estimated: 0,
            zero_dates: 0,
            invalid_texts: 0,
            keyless: None,
            committed,
        };
        self.inbox.send(Input::Chunk(chunk)).await.map_err(|_| ChunkFailure::Closed)?;
        answer.await.map_err(|_| self.dropped())
    }

    /// Steps 1 to 6 for one chunk; answers whether it was the last.
    async fn next_chunk(&mut self, walk: &mut Walk) -> Result<bool, ChunkFailure> {
        let mut writer = self.row_writer(&walk.table);
        let source = self.config.name.clone();
        let stream = self.open_window(&walk.table).await?;
        if stream.from_start {
            (walk.after, walk.rows) = (None, 0);
        }
        let range = ChunkRange {
            after: walk.after.as_deref(),
            rows: walk.chunk_rows(self.config.snapshot_chunk_rows),
        };
        let link = self.link().await?;
        let view = see_all_of(link, &stream).await?;
        let table = &walk.table;
        let connection = &mut link.connection;
        let read =
            read_chunk(connection, table, range, CHUNK_BYTES, Overflow::CutShort, &mut writer)
                .await;
        let read = of_unchanged(read, link, &source, table).await?;
        let high = view.end(link).await?;
        if !read.rows.is_empty() {
            walk.row_bytes = (read.bytes.len() / read.rows.len()) as u64;
        }
        let (rows, last, last_key) = (read.rows.len() as u64, read.complete, read.last_key.clone());
        let end = ChunkEnd {
            high,
            last,
            zero_dates: writer.zero_dates,
            invalid_texts: writer.invalid_texts,
            keyless: None,
        };
        self.send(walk, read, end).await?;
        walk.rows += rows;
        if last_key.is_some() {
            walk.after = last_key;
        }
        Ok(last)
    }

    /// What to do after a failure; answers whether the table is finished with.
    async fn recover(
        &mut self,
        walk: &mut Walk,
        name: &str,
        failure: ChunkFailure,
    ) -> Result<bool, Failure> {
        match failure {
            ChunkFailure::Closed => return Err(Failure::Closed),
            ChunkFailure::Refused => {
                warn!(table = name, "snapshot chunk was not taken, reading it again");
            }
            ChunkFailure::Read(ReadFailure::TableChanged) => return self.reload(walk, name).await,
            ChunkFailure::Read(ReadFailure::BadRow(reason)) => {
                self.link = None;
                error!(
                    table = name,
                    reason,
                    "snapshot of table stopped; cure the row and restart, or take the table out of `tables`"
                );
                return Ok(true);
            }
            ChunkFailure::Read(failure) => {
                self.link = None;
                let error = failure.into_error(&connect::place(&self.config), name);
                self.pass_or_fail(name, error)?;
            }
            ChunkFailure::Reader(error) => {
                self.link = None;
                self.pass_or_fail(name, error)?;
            }
        }
        tokio::time::sleep(walk.pause).await;
        walk.pause = (walk.pause * 2).min(PAUSE_MAX);
        Ok(false)
    }

    fn pass_or_fail(&self, name: &str, error: ReaderError) -> Result<(), Failure> {
        match error.action() {
            Action::Retry => {
                warn!(table = name, %error, "snapshot interrupted, trying again");
                Ok(())
            }
            Action::StopService => Err(Failure::Reader(error)),
        }
    }

    /// The table was changed: goes on with its new shape, from the start when its key is another one.
    async fn reload(&mut self, walk: &mut Walk, name: &str) -> Result<bool, Failure> {
        let source = self.config.name.clone();
        let loaded = match self.link().await {
            Ok(link) => {
                let id = &walk.table.schema.id;
                catalog::load_one(&mut link.connection, &link.server, &source, id).await
            }
            Err(error) => Err(error),
        };
        let table = match loaded {
            Ok(table) => table,
            // Its new shape cannot be captured; the stream stops the table with the same finding.
            Err(ReaderError::Query { reason, .. }) => {
                error!(table = name, reason, "snapshot of table stopped");
                return Ok(true);
            }
            Err(error) => {
                self.link = None;
                self.pass_or_fail(name, error)?;
                tokio::time::sleep(walk.pause).await;
                walk.pause = (walk.pause * 2).min(PAUSE_MAX);
                return Ok(false);
            }
        };
        let Some(table) = table else {
            info!(table = name, "table is gone, its snapshot is done");
            return self.give_up(walk).await.map(|()| true);
        };
        if table.schema.key.is_empty() && !walk.keyless {
            error!(
                table = name,
                "table lost its key during its snapshot; give it a key, or restart the reader to read it as a table \
                 without a key"
            );
            return Ok(true);
        }
        let same_place = walk.after.as_ref().is_none_or(|after| {
            is_key_of(&table, after) && table.key_names() == walk.table.key_names()
        });
        if !same_place {
            warn!(
                table = name,
                "key changed during the snapshot, reading the table from its start"
            );
            walk.after = None;
        }
        walk.table = table;
        Ok(false)
    }

    /// Ends a table's snapshot without (more) rows. Tries until the encode thread has taken it.
    pub(super) async fn give_up(&mut self, walk: &mut Walk) -> Result<(), Failure> {
        loop {
            match self.open_window(&walk.table).await {
                Ok(_) => {}
                Err(ChunkFailure::Closed) => return Err(Failure::Closed),
                Err(_) => {
                    tokio::time::sleep(walk.pause).await;
                    continue;
                }
            }
            let end = ChunkEnd {
                high: BinlogPlace::default(),
                last: true,
                zero_dates: 0,
                invalid_texts: 0,
                keyless: None,
            };
            match self.send(walk, ReadRows::default(), end).await {
                Ok(()) => return Ok(()),
                Err(ChunkFailure::Closed) => return Err(Failure::Closed),
                Err(_) => tokio::time::sleep(walk.pause).await,
            }
        }
    }

    /// Step 1.
    pub(super) async fn open_window(
        &mut self,
        table: &CatalogTable,
    ) -> Result<StreamState, ChunkFailure> {
        self.ask(table.name()).await
    }

    async fn ask(&mut self, table: String) -> Result<StreamState, ChunkFailure> {
        let (reply, answer) = oneshot::channel();
        let request = WindowRequest { table, reply };
        self.inbox.send(Input::OpenWindow(request)).await.map_err(|_| ChunkFailure::Closed)?;
        answer.await.map_err(|_| self.dropped())
    }

    /// Steps 5 and 6.
    pub(super) async fn send(
        &mut self,
        walk: &Walk,
        read: ReadRows,
        end: ChunkEnd,
    ) -> Result<(), ChunkFailure> {
        let (committed, answer) = oneshot::channel();
        let chunk = SnapshotChunk {
            schema: walk.table.schema.clone(),
            bytes: read.bytes,
            rows: read.rows,
            high: end.high,
            last_key: read.last_key.or_else(|| walk.after.clone()),
            last: end.last,
            rows_estimated: walk.table.rows_estimated(),
            zero_dates: end.zero_dates,
            invalid_texts: end.invalid_texts,
            keyless: end.keyless,
            committed,
        };
        self.inbox.send(Input::Chunk(chunk)).await.map_err(|_| ChunkFailure::Closed)?;
        answer.await.map_err(|_| self.dropped())
    }

    fn dropped(&self) -> ChunkFailure {
        if self.inbox.is_closed() { ChunkFailure::Closed } else { ChunkFailure::Refused }
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
            self.link = Some(Link { connection, server });
        }
        self.link.as_mut().ok_or_else(|| ReaderError::Transient {
            place: connect::place(&self.config),
            reason: "connection lost".into(),
        })
    }

    /// Gives the connection up, with whatever is still on its way.
    pub(super) fn drop_link(&mut self) {
        self.link = None;
    }
}

fn report(walk: &mut Walk, name: &str) {
    if walk.reported.elapsed() >= REPORT_INTERVAL {
        walk.reported = Instant::now();
        let rows_estimated = walk.table.rows_estimated().max(walk.rows);
        info!(table = name, rows = walk.rows, rows_estimated, "snapshot progress");
    }
}
