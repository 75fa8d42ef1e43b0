//! Tables that join a running snapshot.

use std::sync::Arc;

use schemas::{position::BinlogPlace, table_id::TableId, table_schema::TableSchema};
use tokio::sync::oneshot;
use tracing::{error, info};

use super::reader::{ChunkFailure, Failure, SnapshotReader};
use crate::{
    error::ReaderError,
    flow::{AskedChunk, Input, SnapshotChunk, TablePart},
    mysql::catalog,
};

impl SnapshotReader {
    /// A table that was not known when the snapshot began, or whose rows became others since.
    pub(super) async fn load(&mut self, id: TableId, generation: u64) -> Result<(), Failure> {
        let name = format!("{}.{}", id.database, id.table);
        // First, so that a table which is there again after the server was asked is not taken for one that is gone.
        let generation = match self.ask(&name, None).await {
            Ok(state) if state.unwanted => {
                self.board.loaded(None);
                return Ok(());
            }
            Ok(state) => state.generation,
            Err(ChunkFailure::Closed) => return Err(Failure::Closed),
            Err(_) => {
                self.board.load_later(id, generation);
                return Ok(());
            }
        };
        let source = self.config.name.clone();
        let loaded = match self.link().await {
            Ok(link) => catalog::load_one(&mut link.connection, &link.server, &source, &id).await,
            Err(error) => Err(error),
        };
        match loaded {
            Ok(Some(table)) => self.board.loaded(Some((table, generation))),
            Ok(None) => match self.end_gone(&id, &name, generation).await {
                Ok(()) => {
                    info!(table = name, "table is gone, none of its rows are to be read");
                    self.board.loaded(None);
                }
                Err(ChunkFailure::Closed) => return Err(Failure::Closed),
                Err(_) => self.board.load_later(id, generation),
            },
            // The stream stops the table with the same finding.
            Err(ReaderError::Query { reason, .. }) => {
                error!(table = name, reason, "rows of table are not read");
                self.board.loaded(None);
            }
            Err(error) => {
                self.link = None;
                self.board.load_later(id, generation);
                self.pass_or_fail(&name, error)?;
            }
        }
        Ok(())
    }

    /// Ends the snapshot of a table that is not there.
    async fn end_gone(
        &mut self,
        id: &TableId,
        name: &str,
        generation: u64,
    ) -> Result<(), ChunkFailure> {
        self.ask(name, Some(AskedChunk { order: 0, generation, restart: false, has_key: false }))
            .await?;
        let schema = TableSchema { id: id.clone(), columns: Vec::new(), key: Vec::new() };
        let (committed, answer) = oneshot::channel();
        let chunk = SnapshotChunk {
            schema: Arc::new(schema),
            bytes: Vec::new(),
            rows: Vec::new(),
            high: BinlogPlace::default(),
            order: 0,
            part: TablePart::Rest,
            generation,
            rows_estimated: 0,
            zero_dates: 0,
            invalid_texts: 0,
            committed,
        };
        self.give(Input::Chunk(chunk)).await?;
        answer.await.map_err(|_| self.dropped())
    }
}
