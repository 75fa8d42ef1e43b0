//! What a reader is connected by: one connection for questions, one for rows.

use mysql_async::Conn;
use schemas::position::OpenRange;

use super::{
    avro_row::RowWriter,
    chunk_plan::{ChunkRange, KeyText},
    chunk_read::{self, Overflow, ReadFailure, ReadRows},
    view::run,
};
use crate::{
    error::ReaderError,
    mysql::{
        catalog::CatalogTable,
        connect::Server,
        rows::{RowConnection, RowLink},
    },
};

/// See the module; and what answers there.
pub(super) struct Link {
    pub(super) connection: Conn,
    pub(super) rows: RowLink,
    pub(super) server: Server,
}

/// How much of a range is read at once.
#[derive(Clone, Copy)]
pub(super) struct ChunkSize {
    pub(super) rows: u64,
    pub(super) bytes_max: usize,
    pub(super) overflow: Overflow,
}

impl Link {
    /// Reads rows into `memory` on a thread that may block; with the writer, for what it has counted.
    pub(super) async fn read_chunk(
        &mut self,
        table: &CatalogTable,
        range: &OpenRange,
        filter: Option<String>,
        size: ChunkSize,
        mut writer: RowWriter,
        memory: Vec<u8>,
    ) -> Result<(ReadRows, RowWriter), ReadFailure> {
        let (table, range, condition) = (table.clone(), range.clone(), filter.clone());
        let work = move |connection: &mut RowConnection| {
            let range = ChunkRange {
                after: range.after.as_deref(),
                upto: range.upto.as_deref(),
                filter: filter.as_deref(),
                rows: size.rows,
            };
            let (bytes_max, overflow) = (size.bytes_max, size.overflow);
            let read = chunk_read::read_chunk_into(
                memory,
                connection,
                &table,
                range,
                bytes_max,
                overflow,
                &mut writer,
            )?;
            Ok((read, writer))
        };
        let read: Result<_, ReadFailure> = self.rows.run(work).await;
        read.map_err(|failure| failure.of_condition(condition.as_deref()))
    }

    /// The key at which the first `rows` rows of a range end; `None` when it has not so many.
    pub(super) async fn read_boundary(
        &mut self,
        table: &CatalogTable,
        range: &OpenRange,
        rows: u64,
    ) -> Result<Option<KeyText>, ReadFailure> {
        let (table, range) = (table.clone(), range.clone());
        let work = move |connection: &mut RowConnection| {
            let (after, upto) = (range.after.as_deref(), range.upto.as_deref());
            chunk_read::read_boundary(connection, &table, after, upto, rows.saturating_sub(1))
        };
        self.rows.run(work).await
    }

    /// Ends a transaction that only read; a chunk that was cut has ended it already.
    pub(super) async fn end_view(&mut self) -> Result<(), ReaderError> {
        if self.rows.is_open() { run(self, "COMMIT").await } else { Ok(()) }
    }
}
