//! Reads chosen columns and rows of a table once, for an export: chunk by chunk along its key, as the snapshot does,
//! without a lock and without the stream. What comes out are the row data of the change log's records.
//!
//! Chunks are read at different moments, so the rows are a point-in-time view only with `consistent`: then all
//! chunks are read in one transaction, which makes the server keep old row versions for as long as the reading takes.
//! A table without a key is read by one streamed SELECT, which is a view by itself.
//!
//! Rows are handed over through a channel of the caller's: a slow writer slows the reading down, and memory stays at
//! the size of a few chunks.

use std::{ops::Range, sync::Arc, time::Duration};

use mysql_async::Conn;
use prometheus::Registry;
use schemas::{
    avro_schema::{AvroOptions, envelope_schema},
    table_id::TableId,
    table_schema::TableSchema,
};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{
    config::SourceConfig,
    error::{Action, ReaderError},
    metrics::ReaderMetrics,
    mysql::{
        catalog::{self, CatalogTable},
        connect::{self, Server},
        rows::{Flow, RowConnection, RowLink},
    },
    signals::ensure_filter,
    snapshot::{
        avro_row::RowWriter,
        chunk_plan::{ChunkRange, KeyText, chunk_select},
        chunk_read::{Overflow, ReadFailure, ReadRows, read_chunk},
        throttle::Throttle,
    },
};

/// Rows are handed over in pieces of about this size.
const CHUNK_BYTES: usize = 8 << 20;
/// Rows of the first chunk of a table that the server has no statistics of: what they take tells how many fit.
const FIRST_ROWS: u64 = 100;
/// How often a chunk is tried before the whole reading fails.
const CHUNK_TRIES: u32 = 5;
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Exports write the exact form of every type, whatever a source's records look like.
const OPTIONS: AvroOptions = AvroOptions { debezium_compat: false };

/// What is to be read.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// The table.
    pub table: TableId,
    /// The columns, in any order; all without one.
    pub columns: Vec<String>,
    /// The rows: a condition as it would stand after WHERE; all without one.
    pub filter: Option<String>,
    /// Whether all rows come from one read view.
    pub consistent: bool,
}

/// Rows as Avro.
#[derive(Debug, Default)]
pub struct ExportedRows {
    /// The bytes that `rows` points into.
    pub bytes: Vec<u8>,
    /// Where each row's `Value` record lies.
    pub rows: Vec<Range<usize>>,
}

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportSummary {
    /// Rows.
    pub rows: u64,
    /// Zero or partly zero dates that became NULL.
    pub zero_dates: u64,
    /// Texts with bytes that mean nothing in their character set.
    pub invalid_texts: u64,
}

/// A table that is ready to be read.
#[derive(Debug)]
pub struct ExportTable {
    config: SourceConfig,
    request: ExportRequest,
    link: Option<(Conn, Server)>,
    rows: RowLink,
    /// The source's limits, for this export alone.
    throttle: Throttle,
    /// The chosen columns and those of the key, which the walk needs.
    walked: CatalogTable,
    /// The same as rows: without a key, whose columns cannot hold the NULL that a zero date becomes.
    written: CatalogTable,
}

impl ExportTable {
    /// Looks the table up, and has the server judge the condition.
    pub async fn open(config: &SourceConfig, request: ExportRequest) -> Result<Self, ReaderError> {
        let place = connect::place(config);
        let mut connection = connect::connect(config).await?;
        let server = connect::server(&mut connection, &place).await?;
        let walked = describe(&mut connection, &server, &request).await?;
        let refused = |reason: String| ReaderError::Query { place: place.clone(), reason };
        let walked = walked.ok_or_else(|| {
            refused(format!(
                "there is no table {}.{} that the user may read (views cannot be exported)",
                request.table.database, request.table.table
            ))
        })?;
        if let Some(filter) = &request.filter {
            ensure_filter(&mut connection, &place, &request.table, filter).await?;
        }
        let mut written = walked.clone();
        Arc::make_mut(&mut written.schema).key.clear();
        // How long it waits is counted for the source's own snapshots only.
        let throttle =
            Throttle::new(config, ReaderMetrics::new(&Registry::new()).source(&config.name))?;
        let rows = RowLink::new(Arc::new(config.clone()));
        Ok(Self {
            config: config.clone(),
            request,
            link: Some((connection, server)),
            rows,
            throttle,
            walked,
            written,
        })
    }

    /// The Avro schema whose `after` is what a row is.
    pub fn envelope_schema(&self) -> String {
        envelope_schema(&self.written.schema, OPTIONS)
    }

    /// Reads all rows and hands them over. An error means that what was handed over is not the whole table.
    pub async fn read(
        &mut self,
        out: mpsc::Sender<ExportedRows>,
    ) -> Result<ExportSummary, ReaderError> {
        let writer = RowWriter::without_key(&self.walked, OPTIONS);
        if self.request.consistent {
            self.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        }
        let (rows, writer) = match self.walked.schema.key.is_empty() {
            true => self.stream(writer, &out).await?,
            false => self.walk(writer, &out).await?,
        };
        if self.request.consistent {
            self.run("COMMIT").await?;
        }
        self.ensure_unchanged().await?;
        let RowWriter { zero_dates, invalid_texts, .. } = writer;
        Ok(ExportSummary { rows, zero_dates, invalid_texts })
    }

    async fn walk(
        &mut self,
        mut writer: RowWriter,
        out: &mpsc::Sender<ExportedRows>,
    ) -> Result<(u64, RowWriter), ReaderError> {
        let mut after: Option<KeyText> = None;
        let (mut zero_dates, mut invalid_texts) = (0, 0);
        let (mut rows, mut row_bytes) = (0, self.walked.estimate.row_bytes);
        let (mut tries, mut pause) = (0, PAUSE_MIN);
        loop {
            let fitting = match row_bytes {
                0 => FIRST_ROWS,
                row_bytes => CHUNK_BYTES as u64 / row_bytes,
            };
            let limit = u64::from(self.config.chunk_rows()).min(fitting).max(1);
            let read = match self.chunk(after.clone(), limit, writer).await {
                Ok((read, back)) => {
                    writer = back;
                    (zero_dates, invalid_texts) = (writer.zero_dates, writer.invalid_texts);
                    read
                }
                Err(error) => {
                    // The chunk is read again from its start, and counted anew.
                    writer = RowWriter::without_key(&self.walked, OPTIONS);
                    (writer.zero_dates, writer.invalid_texts) = (zero_dates, invalid_texts);
                    tries += 1;
                    let again = error.action() == Action::Retry && tries < CHUNK_TRIES;
                    // A view ends with its connection.
                    if !again || self.request.consistent {
                        return Err(error);
                    }
                    warn!(table = self.walked.name(), %error, "export interrupted, trying again");
                    self.link = None;
                    self.rows = RowLink::new(Arc::new(self.config.clone()));
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                    continue;
                }
            };
            (tries, pause) = (0, PAUSE_MIN);
            if !read.rows.is_empty() {
                row_bytes = (read.bytes.len() / read.rows.len()) as u64;
                rows += read.rows.len() as u64;
                let places = read.rows.into_iter().map(|(_, row)| row).collect();
                self.hand_over(out, ExportedRows { bytes: read.bytes, rows: places }).await?;
            }
            if read.complete {
                return Ok((rows, writer));
            }
            after = read.last_key;
        }
    }

    async fn chunk(
        &mut self,
        after: Option<KeyText>,
        rows: u64,
        mut writer: RowWriter,
    ) -> Result<(ReadRows, RowWriter), ReaderError> {
        let (connection, _) = link(&mut self.link, &self.config).await?;
        self.throttle.before_chunk(connection).await?;
        let (table, filter) = (self.walked.clone(), self.request.filter.clone());
        let overflow = match self.request.consistent {
            true => Overflow::CutShortInView,
            false => Overflow::CutShort,
        };
        let work = move |connection: &mut RowConnection| {
            let (after, filter) = (after.as_deref(), filter.as_deref());
            let range = ChunkRange { after, upto: None, filter, rows };
            read_chunk(connection, &table, range, CHUNK_BYTES, overflow, &mut writer)
                .map(|read| (read, writer))
        };
        let read = self.rows.run(work).await;
        self.throttle.read(read.as_ref().map_or(0, |(read, _)| read.rows.len() as u64));
        read.map_err(|failure| failed(failure, &connect::place(&self.config), &self.walked))
    }

    /// One SELECT, whose rows are handed over while they arrive.
    async fn stream(
        &mut self,
        mut writer: RowWriter,
        out: &mpsc::Sender<ExportedRows>,
    ) -> Result<(u64, RowWriter), ReaderError> {
        let place = connect::place(&self.config);
        let filter = self.request.filter.as_deref();
        let range = ChunkRange { after: None, upto: None, filter, rows: u64::MAX };
        let sql = chunk_select(&self.walked, range)
            .ok_or_else(|| failed(ReadFailure::TableChanged, &place, &self.walked))?;
        let (out, here) = (out.clone(), place.clone());
        let work = move |connection: &mut RowConnection| {
            let (mut count, mut piece) = (0, ExportedRows::default());
            let mut failure = None;
            connection.select(&sql, |row| {
                let expected = if count == 0 { writer.expect(row.kinds) } else { Ok(()) };
                match expected.and_then(|()| writer.write(row.bytes, &mut piece.bytes)) {
                    Ok(places) => piece.rows.push(places.row),
                    Err(what) => {
                        failure = Some(ReadFailure::BadRow(what));
                        return Flow::Stop;
                    }
                }
                count += 1;
                if piece.bytes.len() >= CHUNK_BYTES
                    && out.blocking_send(std::mem::take(&mut piece)).is_err()
                {
                    failure = Some(ReadFailure::Reader(unwanted(&here)));
                    return Flow::Stop;
                }
                Flow::Go
            })?;
            if let Some(failure) = failure {
                return Err(failure);
            }
            if !piece.rows.is_empty() && out.blocking_send(piece).is_err() {
                return Err(ReadFailure::Reader(unwanted(&here)));
            }
            Ok((count, writer))
        };
        let read = self.rows.run(work).await;
        read.map_err(|failure| failed(failure, &place, &self.walked))
    }

    async fn hand_over(
        &self,
        out: &mpsc::Sender<ExportedRows>,
        rows: ExportedRows,
    ) -> Result<(), ReaderError> {
        out.send(rows).await.map_err(|_| unwanted(&connect::place(&self.config)))
    }

    async fn run(&mut self, statement: &'static str) -> Result<(), ReaderError> {
        self.rows.run(move |rows| Ok(rows.execute(statement)?)).await
    }

    /// Rows that were read with another shape than the table has by now may have been misunderstood.
    async fn ensure_unchanged(&mut self) -> Result<(), ReaderError> {
        let (connection, server) = link(&mut self.link, &self.config).await?;
        let now = describe(connection, server, &self.request).await?;
        if now.as_ref() == Some(&self.walked) {
            return Ok(());
        }
        Err(failed(ReadFailure::TableChanged, &server.place, &self.walked))
    }
}

/// The table with the chosen columns and those of its key; `None` when there is no such table.
async fn describe(
    connection: &mut Conn,
    server: &Server,
    request: &ExportRequest,
) -> Result<Option<CatalogTable>, ReaderError> {
    let table =
        catalog::load_one(connection, server, &request.table.source, &request.table).await?;
    let Some(table) = table else { return Ok(None) };
    projected(&table, &request.columns)
        .map(Some)
        .map_err(|reason| ReaderError::Query { place: server.place.clone(), reason })
}

/// The table as if it had no other columns than these and those of its key.
fn projected(table: &CatalogTable, wanted: &[String]) -> Result<CatalogTable, String> {
    let columns = &table.schema.columns;
    // The server compares the names of columns without case.
    let is = |name: &str, wanted: &String| name.to_lowercase() == wanted.to_lowercase();
    if let Some(missing) = wanted.iter().find(|w| !columns.iter().any(|c| is(&c.name, w))) {
        let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        return Err(format!(
            "table {} has no column {missing}; it has {}",
            table.name(),
            names.join(", ")
        ));
    }
    let kept: Vec<usize> = (0..columns.len())
        .filter(|i| {
            let name = columns.get(*i).map(|column| column.name.as_str()).unwrap_or_default();
            wanted.is_empty()
                || table.schema.key.contains(i)
                || wanted.iter().any(|wanted| is(name, wanted))
        })
        .collect();
    let key = table.schema.key.iter().filter_map(|i| kept.iter().position(|k| k == i)).collect();
    Ok(CatalogTable {
        schema: Arc::new(TableSchema {
            id: table.schema.id.clone(),
            columns: kept.iter().filter_map(|&i| columns.get(i)).cloned().collect(),
            key,
        }),
        key_index: table.key_index.clone(),
        texts: kept.iter().filter_map(|&i| table.texts.get(i)).cloned().collect(),
        estimate: table.estimate,
    })
}

async fn link<'a>(
    link: &'a mut Option<(Conn, Server)>,
    config: &SourceConfig,
) -> Result<&'a mut (Conn, Server), ReaderError> {
    let place = connect::place(config);
    if link.is_none() {
        let mut connection = connect::reconnect(config).await?;
        let server = connect::server(&mut connection, &place).await?;
        *link = Some((connection, server));
    }
    link.as_mut().ok_or(ReaderError::Transient { place, reason: "connection lost".into() })
}

/// A changed table is an error that reading the next chunk cannot cure: the rows so far have another shape.
fn failed(failure: ReadFailure, place: &str, table: &CatalogTable) -> ReaderError {
    match failure {
        ReadFailure::TableChanged => ReaderError::Query {
            place: place.into(),
            reason: format!("{} was changed while it was read", table.name()),
        },
        other => other.into_error(place, &table.name()),
    }
}

/// Nobody sees it: who closed the channel has an error of its own.
fn unwanted(place: &str) -> ReaderError {
    ReaderError::Query { place: place.into(), reason: "the rows are no longer wanted".into() }
}

#[cfg(test)]
mod tests {
    use schemas::{column_type::ColumnType, table_schema::Column};

    use super::*;

    #[test]
    fn key_columns_are_read_whatever_is_chosen() {
        let column = |name: &str| Column {
            name: name.into(),
            column_type: ColumnType::Int { unsigned: false },
            nullable: false,
            details: Default::default(),
        };
        let table = CatalogTable {
            schema: Arc::new(TableSchema {
                id: TableId::new("s", "d", "t"),
                columns: ["a", "b", "Id", "c"].map(column).into(),
                key: vec![2, 0],
            }),
            key_index: None,
            texts: vec![None; 4],
            estimate: Default::default(),
        };
        let chosen = projected(&table, &["C".to_owned()]).expect("fits");
        let names: Vec<&str> = chosen.schema.columns.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(
            (names, chosen.key_names()),
            (vec!["a", "Id", "c"], vec!["Id".into(), "a".into()])
        );
        assert_eq!(projected(&table, &[]).expect("fits"), table);
        let error = projected(&table, &["x".to_owned()]).expect_err("is not there");
        assert_eq!(error, "table d.t has no column x; it has a, b, Id, c");
    }
}
