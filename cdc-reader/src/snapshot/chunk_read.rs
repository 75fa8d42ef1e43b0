//! Runs one SELECT of a table's rows and turns each row into bytes as it arrives. Blocks.

use std::ops::Range;

use super::{
    avro_row::RowWriter,
    chunk_plan::{ChunkRange, KeyText, boundary_select, chunk_select},
    key_text,
};
use crate::{
    error::ReaderError,
    mysql::{
        catalog::CatalogTable,
        rows::{Flow, RowConnection, RowFailure},
    },
};

/// After a chunk was cut, so many bytes of its rest are read and thrown away, in order to keep the connection; above
/// that a new one costs less.
const DRAINED_MAX: usize = 8 << 20;

/// What a chunk's SELECT gave.
#[derive(Debug, Default)]
pub struct ReadRows {
    /// The bytes that `rows` points into.
    pub bytes: Vec<u8>,
    /// Key datum and row datum of each row.
    pub rows: Vec<(Range<usize>, Range<usize>)>,
    /// The last row's key; `None` without rows or without a key.
    pub last_key: Option<KeyText>,
    /// Whether no row follows in the range.
    pub complete: bool,
}

/// Why a chunk could not be read.
#[derive(Debug)]
pub enum ReadFailure {
    /// The table is not what it was when its catalog entry was read.
    TableChanged,
    /// A value that cannot be written, with the sentence that says which. A table that is changed while it is read can
    /// look like this, too: the catalog tells.
    BadRow(String),
    /// The rows exceed the bytes allowed.
    TooLarge,
    /// The server or the connection failed.
    Reader(ReaderError),
}

impl From<RowFailure> for ReadFailure {
    fn from(failure: RowFailure) -> Self {
        // Unknown column, unknown table, unknown index, unknown database, rebuilt under the view, statement outdated.
        match failure.code {
            Some(1054 | 1146 | 1176 | 1049 | 1412 | 1615) => Self::TableChanged,
            _ => Self::Reader(failure.error),
        }
    }
}

impl From<ReaderError> for ReadFailure {
    fn from(error: ReaderError) -> Self {
        Self::Reader(error)
    }
}

impl ReadFailure {
    /// With a condition, what the server cannot evaluate is taken for a fault of the condition on some row: the table
    /// is stopped, and not the service. Whether it was the table that changed is looked at besides.
    pub fn of_condition(self, condition: Option<&str>) -> Self {
        let Some(condition) = condition else { return self };
        let failed =
            |reason: &str| Self::BadRow(format!("the condition `{condition}` fails: {reason}"));
        match &self {
            Self::Reader(ReaderError::Query { reason, .. }) => failed(reason),
            Self::TableChanged => failed("it names what the table does not have (any more)"),
            _ => self,
        }
    }

    /// As the reader's error, for callers that have no answer to the first three.
    pub fn into_error(self, place: &str, table: &str) -> ReaderError {
        let query = |reason| ReaderError::Query { place: place.into(), reason };
        match self {
            Self::Reader(error) => error,
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
    /// The same with the connection kept, because a view hangs on it: the rest of the rows is waited for, however much
    /// that is.
    CutShortInView,
    /// Fail with [`ReadFailure::TooLarge`].
    Fail,
}

/// [`read_chunk_into`] new memory.
pub fn read_chunk(
    connection: &mut RowConnection,
    table: &CatalogTable,
    range: ChunkRange<'_>,
    bytes_max: usize,
    overflow: Overflow,
    writer: &mut RowWriter,
) -> Result<ReadRows, ReadFailure> {
    read_chunk_into(Vec::new(), connection, table, range, bytes_max, overflow, writer)
}

/// Reads the rows of `range`, at most about `bytes_max` of them, into memory that is to be empty. The connection may be closed afterwards: after a cut
/// or a failure, with the rest of the rows still on its way.
pub fn read_chunk_into(
    bytes: Vec<u8>,
    connection: &mut RowConnection,
    table: &CatalogTable,
    range: ChunkRange<'_>,
    bytes_max: usize,
    overflow: Overflow,
    writer: &mut RowWriter,
) -> Result<ReadRows, ReadFailure> {
    let sql = chunk_select(table, range).ok_or(ReadFailure::TableChanged)?;
    let mut read = ReadRows { bytes, complete: true, ..ReadRows::default() };
    let mut bad_row = None;
    let mut drained = 0;
    connection.select(&sql, |row| {
        if read.complete && read.bytes.len() > bytes_max {
            read.complete = false;
        }
        if bad_row.is_some() || !read.complete {
            drained += row.bytes.len();
            let stop = match overflow {
                Overflow::CutShort => drained > DRAINED_MAX,
                Overflow::CutShortInView => false,
                Overflow::Fail => true,
            };
            return if stop { Flow::Stop } else { Flow::Go };
        }
        let written = if read.rows.is_empty() { writer.expect(row.kinds) } else { Ok(()) };
        match written.and_then(|()| writer.write(row.bytes, &mut read.bytes)) {
            Ok(places) => read.rows.push((places.key, places.row)),
            Err(what) => bad_row = Some(what),
        }
        Flow::Go
    })?;
    if let Some(what) = bad_row {
        return Err(ReadFailure::BadRow(what));
    }
    if !read.complete && overflow == Overflow::Fail {
        return Err(ReadFailure::TooLarge);
    }
    read.complete &= (read.rows.len() as u64) < range.rows;
    if !read.rows.is_empty() {
        read.last_key = key_text::of_bytes(table, writer.kinds(), writer.key_bytes());
    }
    if !read.complete && read.last_key.is_none() && !table.schema.key.is_empty() {
        return Err(ReadFailure::BadRow("a key that the walk cannot go on from".into()));
    }
    Ok(read)
}

/// The key of the row at which a part of `offset` + 1 rows of the range ends; `None` when the range has no more than
/// `offset` rows.
pub fn read_boundary(
    connection: &mut RowConnection,
    table: &CatalogTable,
    after: Option<&[String]>,
    upto: Option<&[String]>,
    offset: u64,
) -> Result<Option<KeyText>, ReadFailure> {
    let sql = boundary_select(table, after, upto, offset).ok_or(ReadFailure::TableChanged)?;
    let mut found = None;
    connection.select(&sql, |row| {
        let values = row.values().unwrap_or_default();
        let parts = table.schema.key.iter().enumerate();
        let key: Option<KeyText> =
            parts.map(|(at, &i)| key_text::of_column(table, i, *values.get(at)?)).collect();
        found = Some(key);
        Flow::Go
    })?;
    match found {
        None => Ok(None),
        Some(Some(key)) => Ok(Some(key)),
        Some(None) => Err(ReadFailure::BadRow("a key that the walk cannot go on from".into())),
    }
}
