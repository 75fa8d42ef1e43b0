//! Runs one SELECT of a table's rows and turns each row into bytes as it arrives.

use std::ops::Range;

use futures_util::TryStreamExt;
use mysql_async::{Conn, Row, prelude::Queryable};

use super::{
    avro_row::RowWriter,
    chunk_plan::{ChunkRange, KeyText, boundary_select, chunk_select},
    key_text,
};
use crate::{
    error::ReaderError,
    mysql::{catalog::CatalogTable, connect::server_code},
};

/// What a chunk's SELECT gave.
#[derive(Debug, Default)]
pub struct ReadRows {
    /// The bytes that `rows` points into.
    pub bytes: Vec<u8>,
    /// Key datum and row datum of each row.
    pub rows: Vec<(Range<usize>, Range<usize>)>,
    /// The last row's key; `None` without rows or without a key.
    pub last_key: Option<KeyText>,
    /// Whether no row follows.
    pub complete: bool,
}

/// Why a chunk could not be read.
#[derive(Debug)]
pub enum ReadFailure {
    /// The table is not what it was when its catalog entry was read.
    TableChanged,
    /// A value that cannot be written, with the sentence that says which.
    BadRow(String),
    /// The rows exceed the bytes allowed, and the connection has to be given up, for rows are still on their way.
    TooLarge,
    /// The server or the connection failed.
    Driver(mysql_async::Error),
}

impl From<mysql_async::Error> for ReadFailure {
    fn from(error: mysql_async::Error) -> Self {
        // Unknown column, unknown table, unknown index, unknown database, rebuilt under the view, statement outdated.
        match server_code(&error) {
            Some(1054 | 1146 | 1176 | 1049 | 1412 | 1615) => Self::TableChanged,
            _ => Self::Driver(error),
        }
    }
}

impl ReadFailure {
    /// As the reader's error, for callers that have no answer to the first three.
    pub fn into_error(self, place: &str, table: &str) -> ReaderError {
        let query = |reason| ReaderError::Query { place: place.into(), reason };
        match self {
            Self::Driver(error) => crate::mysql::connect::classify(error, place),
            Self::BadRow(what) => query(format!("{table}: {what}")),
            Self::TooLarge => query(format!("{table} is too large to be read in one piece")),
            Self::TableChanged => ReaderError::Transient {
                place: place.into(),
                reason: format!("{table} was changed while it was read"),
            },
        }
    }
}

/// What to do when rows are larger than they were thought to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// End the chunk early, at a row; the rest is read again by the next chunk.
    CutShort,
    /// Fail with [`ReadFailure::TooLarge`].
    Fail,
}

/// Reads the rows of `range`, at most about `bytes_max` of them.
pub async fn read_chunk(
    connection: &mut Conn,
    table: &CatalogTable,
    range: ChunkRange<'_>,
    bytes_max: usize,
    overflow: Overflow,
    writer: &mut RowWriter,
) -> Result<ReadRows, ReadFailure> {
    let sql = chunk_select(table, range).ok_or(ReadFailure::TableChanged)?;
    let mut read = ReadRows { complete: true, ..ReadRows::default() };
    let mut last_row: Option<Vec<Option<mysql_async::Value>>> = None;
    let mut received = 0u64;
    let mut bad_row = None;
    for_each_row(connection, &sql, |values| {
        received += 1;
        if bad_row.is_some() || !read.complete {
            return Flow::Go;
        }
        if read.bytes.len() > bytes_max {
            read.complete = false;
            return if overflow == Overflow::Fail { Flow::Stop } else { Flow::Go };
        }
        match writer.write(&values, &mut read.bytes) {
            Ok(places) => {
                read.rows.push((places.key, places.row));
                last_row = Some(values);
            }
            Err(what) => bad_row = Some(what),
        }
        Flow::Go
    })
    .await?;
    if let Some(what) = bad_row {
        return Err(ReadFailure::BadRow(what));
    }
    if !read.complete && overflow == Overflow::Fail {
        return Err(ReadFailure::TooLarge);
    }
    read.complete &= received < range.rows;
    read.last_key = last_row.and_then(|values| key_of_row(table, &values));
    if !read.complete && read.last_key.is_none() && !table.schema.key.is_empty() {
        return Err(ReadFailure::BadRow("a key that the walk cannot go on from".into()));
    }
    Ok(read)
}

/// The key at which a chunk of the range's rows ends; `None` when the range has not that many.
pub async fn read_boundary(
    connection: &mut Conn,
    table: &CatalogTable,
    range: ChunkRange<'_>,
) -> Result<Option<KeyText>, ReadFailure> {
    let sql = boundary_select(table, range).ok_or(ReadFailure::TableChanged)?;
    let (mut found, mut boundary) = (false, None);
    for_each_row(connection, &sql, |values| {
        found = true;
        boundary = table
            .schema
            .key
            .iter()
            .zip(&values)
            .map(|(&i, value)| key_text_of(table, i, value.as_ref()?))
            .collect();
        Flow::Go
    })
    .await?;
    match boundary {
        None if found => Err(ReadFailure::BadRow("a key that the walk cannot go on from".into())),
        boundary => Ok(boundary),
    }
}

fn key_text_of(table: &CatalogTable, column: usize, value: &mysql_async::Value) -> Option<String> {
    let column_type = &table.schema.columns.get(column)?.column_type;
    key_text::of_value(column_type, table.texts.get(column)?.as_ref(), value)
}

/// A row's key as text; `None` for a table without a key.
pub fn key_of_row(table: &CatalogTable, values: &[Option<mysql_async::Value>]) -> Option<KeyText> {
    if table.schema.key.is_empty() {
        return None;
    }
    let parts = table.schema.key.iter();
    parts.map(|&i| key_text_of(table, i, values.get(i)?.as_ref()?)).collect()
}

/// Whether more rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    Go,
    /// No; the connection is of no further use.
    Stop,
}

/// Runs a SELECT over the binary protocol, whose numbers and instants are exact, and hands over each row's values.
pub async fn for_each_row(
    connection: &mut Conn,
    sql: &str,
    mut take: impl FnMut(Vec<Option<mysql_async::Value>>) -> Flow,
) -> Result<(), mysql_async::Error> {
    let statement = connection.prep(sql).await?;
    let mut result = connection.exec_iter(&statement, ()).await?;
    if let Some(mut rows) = result.stream::<Row>().await? {
        while let Some(row) = rows.try_next().await? {
            if take(row.unwrap_raw()) == Flow::Stop {
                return Ok(());
            }
        }
    }
    result.drop_result().await?;
    connection.close(statement).await
}
