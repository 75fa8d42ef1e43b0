//! The source half of `binlake verify`: a table's rows as digests, chunk by chunk, each with the place in the binlog
//! at which it held.
//!
//! `gtid_set` and `high` of a chunk are read after its SELECT. Everything that the SELECT saw lies before `high`, but
//! may not be in `gtid_set` yet (see `snapshot`): a lake that has reached `high` holds at least what the SELECT saw.
//! A row that differs may have changed since; it is asked for again by [`SourceTable::rows_by_key`].

mod canonical;

use std::sync::Arc;

use schemas::{avro_schema::AvroOptions, position::BinlogPlace, table_id::TableId};

use self::canonical::Canonical;
use crate::{
    config::SourceConfig,
    error::ReaderError,
    mysql::{
        catalog::{self, CatalogTable},
        connect::{self, Server},
        place::{binlog_end, gtid_executed},
        rows::{Flow, RowConnection, RowLink, RowPacket, ValueKind},
    },
    snapshot::{
        chunk_plan::{ChunkRange, KeyText, chunk_select, rows_select},
        key_text,
    },
};

/// Rows of one chunk: 32 bytes each, and their keys.
const CHUNK_ROWS: u64 = 20_000;
/// Keys of one statement in [`SourceTable::rows_by_key`].
const KEYS_PER_STATEMENT: usize = 200;

/// A table that is being walked.
#[derive(Debug)]
pub struct SourceTable {
    config: Arc<SourceConfig>,
    options: AvroOptions,
    table: CatalogTable,
    /// In which form the columns come.
    kinds: Vec<ValueKind>,
    link: Option<(mysql_async::Conn, Server)>,
    rows: RowLink,
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
    /// The key columns' values as they came, in key order.
    key_bytes: Box<[u8]>,
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
        let config = Arc::new(config.clone());
        Ok(Self {
            rows: RowLink::new(config.clone()),
            config,
            options,
            kinds: Vec::new(),
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
        let range =
            ChunkRange { after: self.after.as_deref(), rows: limit, ..ChunkRange::default() };
        let sql = chunk_select(&self.table, range).ok_or_else(|| self.changed())?;
        let (rows, kinds) = self
            .select(sql, |canonical, key, row| {
                let values = row.values().map_err(|error| error.to_string())?;
                let digests = canonical.digests(&values)?;
                let mut key_bytes = Vec::new();
                push_key(key, row, &mut key_bytes);
                Ok(SourceRow {
                    key: digests.key,
                    row: digests.row,
                    key_bytes: key_bytes.into_boxed_slice(),
                })
            })
            .await?;
        self.kinds = kinds;
        let (gtid_set, high) = self.place().await?;
        self.finished = (rows.len() as u64) < limit;
        if let Some(last) = rows.last() {
            self.after = self.key_text(last);
        }
        if !self.finished && self.after.is_none() {
            let place = connect::place(&self.config);
            let reason =
                format!("{} has a key that the walk cannot go on from", self.table.schema.id);
            return Err(ReaderError::Query { place, reason });
        }
        Ok(Some(SourceChunk { rows, gtid_set, high }))
    }

    /// A row's key as text, for [`Self::rows_by_key`]; `None` for a table without a key.
    pub fn key_text(&self, row: &SourceRow) -> Option<KeyText> {
        key_text::of_bytes(&self.table, &self.kinds, &row.key_bytes)
    }

    /// Reads chosen rows again, with their values.
    pub async fn rows_by_key(&mut self, keys: &[KeyText]) -> Result<SourceRows, ReaderError> {
        let mut rows = Vec::new();
        for part in keys.chunks(KEYS_PER_STATEMENT) {
            let sql = rows_select(&self.table, part).ok_or_else(|| self.changed())?;
            let (part, _) = self
                .select(sql, |canonical, _, row| {
                    let values = row.values().map_err(|error| error.to_string())?;
                    let digests = canonical.digests(&values)?;
                    let values = canonical.values(&values)?;
                    Ok(SourceRowValues { key: digests.key, row: digests.row, values })
                })
                .await?;
            rows.extend(part);
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

    /// Runs a SELECT; answers what was made of each row, and the form of the columns. After an error in a row the
    /// others are not looked at.
    async fn select<T: Send + 'static>(
        &mut self,
        sql: String,
        mut make: impl FnMut(&mut Canonical, &[usize], RowPacket<'_>) -> Result<T, String>
        + Send
        + 'static,
    ) -> Result<(Vec<T>, Vec<ValueKind>), ReaderError> {
        let (table, options) = (self.table.clone(), self.options);
        let place = connect::place(&self.config);
        let work = move |connection: &mut RowConnection| {
            let mut canonical = Canonical::new(&table, options);
            let (mut rows, mut kinds, mut bad) = (Vec::new(), Vec::new(), None);
            connection.select(&sql, |row| {
                if rows.is_empty() {
                    kinds = row.kinds.to_vec();
                }
                match make(&mut canonical, &table.schema.key, row) {
                    Ok(made) => rows.push(made),
                    Err(what) => bad = Some(what),
                }
                if bad.is_some() { Flow::Stop } else { Flow::Go }
            })?;
            match bad {
                None => Ok((rows, kinds)),
                Some(what) => {
                    let reason = format!("{}: {what}", table.schema.id);
                    Err(ReaderError::Query { place, reason })
                }
            }
        };
        let result = self.rows.run(work).await;
        if result.is_err() {
            self.link = None;
        }
        result
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

/// Appends a row's key values as they came. The row's values were read before.
fn push_key(key: &[usize], row: RowPacket<'_>, out: &mut Vec<u8>) {
    for &i in key {
        out.extend_from_slice(row.bytes_of(i).unwrap_or_default());
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
