//! The source half of `binlake verify`: a table's rows as digests, chunk by chunk, each with the place in the binlog
//! at which it held.
//!
//! `gtid_set` and `high` of a chunk are read after its SELECT. Everything that the SELECT saw lies before `high`, but
//! may not be in `gtid_set` yet (see `snapshot`): a lake that has reached `high` holds at least what the SELECT saw.
//! A row that differs may have changed since; it is asked for again by [`SourceTable::rows_by_key`].

mod canonical;

use mysql_async::Value;
use schemas::{avro_schema::AvroOptions, position::BinlogPlace, table_id::TableId};

use self::canonical::Canonical;
use crate::{
    config::SourceConfig,
    error::ReaderError,
    mysql::{
        catalog::{self, CatalogTable},
        connect::{self, Server, classify},
        place::{binlog_end, gtid_executed},
    },
    snapshot::{
        chunk_plan::{ChunkRange, KeyText, chunk_select, rows_select},
        chunk_read::{Flow, for_each_row, key_of_row},
    },
};

/// Rows of one chunk: 32 bytes each, and their keys.
const CHUNK_ROWS: u64 = 20_000;
/// Keys of one statement in [`SourceTable::rows_by_key`].
const KEYS_PER_STATEMENT: usize = 200;

/// A table that is being walked.
#[derive(Debug)]
pub struct SourceTable {
    config: SourceConfig,
    table: CatalogTable,
    canonical: Canonical,
    link: Option<(mysql_async::Conn, Server)>,
    after: Option<KeyText>,
    finished: bool,
}

/// Rows in the server's key order.
#[derive(Debug)]
pub struct SourceChunk {
    /// The rows.
    pub rows: Vec<SourceRow>,
    /// `gtid_executed` after the SELECT.
    pub gtid_set: String,
    /// The binlog's end after the SELECT.
    pub high: BinlogPlace,
}

/// One row.
#[derive(Debug)]
pub struct SourceRow {
    /// The digest of the key columns in key order; of all columns when the table has no key.
    pub key: u128,
    /// The digest of all columns in the server's order.
    pub row: u128,
    key_values: Box<[Option<Value>]>,
}

/// Chosen rows, read again.
#[derive(Debug)]
pub struct SourceRows {
    /// Those that exist, in any order.
    pub rows: Vec<SourceRowValues>,
    /// `gtid_executed` after the SELECT.
    pub gtid_set: String,
    /// The binlog's end after the SELECT.
    pub high: BinlogPlace,
}

/// One row with its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRowValues {
    /// As in [`SourceRow`].
    pub key: u128,
    /// As in [`SourceRow`].
    pub row: u128,
    /// The canonical values in the server's order.
    pub values: Vec<Option<Vec<u8>>>,
}

impl SourceTable {
    /// Opens a table of a source.
    pub async fn open(config: &SourceConfig, id: &TableId) -> Result<Self, ReaderError> {
        let mut connection = connect::connect(config).await?;
        let server = connect::server(&mut connection, &connect::place(config)).await?;
        let table = catalog::load_one(&mut connection, &server, &config.name, id).await?;
        let table = table.ok_or_else(|| ReaderError::Query {
            place: server.place.clone(),
            reason: format!("{id} is not there, or the user may not read it"),
        })?;
        let options = AvroOptions { debezium_compat: config.debezium_compat };
        Ok(Self {
            config: config.clone(),
            canonical: Canonical::new(&table, options),
            table,
            link: Some((connection, server)),
            after: None,
            finished: false,
        })
    }

    /// The table as the server describes it.
    pub fn table(&self) -> &CatalogTable {
        &self.table
    }

    /// The next rows; `None` after the last. After an error the same chunk can be asked for again. A table without a
    /// key is one chunk.
    pub async fn next_chunk(&mut self) -> Result<Option<SourceChunk>, ReaderError> {
        if self.finished {
            return Ok(None);
        }
        let keyless = self.table.schema.key.is_empty();
        let limit = if keyless { u64::MAX } else { CHUNK_ROWS };
        let range = ChunkRange { after: self.after.as_deref(), upto: None, rows: limit };
        let sql = chunk_select(&self.table, range).ok_or_else(|| self.changed())?;
        let (mut rows, mut bad) = (Vec::new(), None);
        let mut last: Option<Vec<Option<Value>>> = None;
        let (canonical, key) = (&mut self.canonical, &self.table.schema.key);
        let place = connect::place(&self.config);
        let (connection, _) = link(&mut self.link, &self.config).await?;
        let read = for_each_row(connection, &sql, |values| {
            match canonical.digests(&values) {
                Ok(digests) => {
                    let key_values =
                        key.iter().map(|&i| values.get(i).cloned().flatten()).collect();
                    rows.push(SourceRow { key: digests.key, row: digests.row, key_values });
                    last = Some(values);
                }
                Err(what) => bad = Some(what),
            }
            Flow::Go
        });
        let result = read.await;
        self.answer(result)?;
        if let Some(what) = bad {
            let reason = format!("{}: {what}", self.table.schema.id);
            return Err(ReaderError::Query { place, reason });
        }
        let (gtid_set, high) = self.place().await?;
        self.finished = (rows.len() as u64) < limit;
        if let Some(values) = last {
            self.after = key_of_row(&self.table, &values);
        }
        if !self.finished && self.after.is_none() {
            let reason =
                format!("{} has a key that the walk cannot go on from", self.table.schema.id);
            return Err(ReaderError::Query { place, reason });
        }
        Ok(Some(SourceChunk { rows, gtid_set, high }))
    }

    /// A row's key as text, for [`Self::rows_by_key`]; `None` for a table without a key.
    pub fn key_text(&self, row: &SourceRow) -> Option<KeyText> {
        let mut values = vec![None; self.table.schema.columns.len()];
        for (&index, value) in self.table.schema.key.iter().zip(&row.key_values) {
            *values.get_mut(index)? = value.clone();
        }
        key_of_row(&self.table, &values)
    }

    /// Reads chosen rows again, with their values.
    pub async fn rows_by_key(&mut self, keys: &[KeyText]) -> Result<SourceRows, ReaderError> {
        let mut rows = Vec::new();
        let mut bad = None;
        for part in keys.chunks(KEYS_PER_STATEMENT) {
            let sql = rows_select(&self.table, part).ok_or_else(|| self.changed())?;
            let canonical = &mut self.canonical;
            let (connection, _) = link(&mut self.link, &self.config).await?;
            let read = for_each_row(connection, &sql, |values| {
                let row = canonical
                    .digests(&values)
                    .and_then(|digests| Ok((digests, canonical.values(&values)?)));
                match row {
                    Ok((digests, values)) => {
                        rows.push(SourceRowValues { key: digests.key, row: digests.row, values });
                    }
                    Err(what) => bad = Some(what),
                }
                Flow::Go
            });
            let result = read.await;
            self.answer(result)?;
        }
        if let Some(what) = bad {
            let place = connect::place(&self.config);
            let reason = format!("{}: {what}", self.table.schema.id);
            return Err(ReaderError::Query { place, reason });
        }
        let (gtid_set, high) = self.place().await?;
        Ok(SourceRows { rows, gtid_set, high })
    }

    async fn place(&mut self) -> Result<(String, BinlogPlace), ReaderError> {
        let (connection, server) = link(&mut self.link, &self.config).await?;
        let gtid_set = gtid_executed(connection, server).await?;
        let high = binlog_end(connection, server).await?;
        Ok((gtid_set, high))
    }

    /// After a failure the connection is of no use.
    fn answer(&mut self, result: Result<(), mysql_async::Error>) -> Result<(), ReaderError> {
        result.map_err(|error| {
            self.link = None;
            classify(error, &connect::place(&self.config))
        })
    }

    fn changed(&self) -> ReaderError {
        ReaderError::Query {
            place: connect::place(&self.config),
            reason: format!(
                "the key of {} was changed meanwhile: verify it again",
                self.table.schema.id
            ),
        }
    }
}

/// The connection; made again when it was lost.
async fn link<'a>(
    link: &'a mut Option<(mysql_async::Conn, Server)>,
    config: &SourceConfig,
) -> Result<&'a mut (mysql_async::Conn, Server), ReaderError> {
    if link.is_none() {
        let mut connection = connect::reconnect(config).await?;
        let server = connect::server(&mut connection, &connect::place(config)).await?;
        *link = Some((connection, server));
    }
    link.as_mut().ok_or_else(|| ReaderError::Transient {
        place: connect::place(config),
        reason: "connection lost".into(),
    })
}
