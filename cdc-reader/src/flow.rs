//! The types between the stages, in the order of the flow.
//!
//! ```text
//! binlog::dump   --Input::Events (<= 256 KB of raw events, 16 in flight)--> encode thread --EncodedBatch--> log writer
//! snapshot       --Input::OpenWindow, Input::Chunk (several per table, bounded by bytes)--^
//! ```

use std::{ops::Range, sync::Arc};

use schemas::{
    position::{BinlogPlace, DoneRange},
    table_schema::TableSchema,
};
use tokio::sync::{mpsc, oneshot};

use crate::{
    mysql::catalog::{Catalog, CatalogTable},
    signals::Signal,
    spool::Spool,
    table_filter::TableFilter,
};

/// What the encode thread receives.
#[derive(Debug)]
pub enum Input {
    /// Whole binlog events, each its 4-byte little-endian length (header + body, without checksum), the 19-byte
    /// header, the body.
    Events(Vec<u8>),
    /// A snapshot reader is about to read a chunk.
    OpenWindow(WindowRequest),
    /// The rows it read.
    Chunk(SnapshotChunk),
    /// Somebody wants something else.
    Order(Order),
    /// A view of a table without a key was taken.
    View(ViewRequest),
    /// The view of the table of this name is given up.
    NoView(String),
    /// Its rows.
    Table(SpooledTable),
}

/// What is asked of a running source from outside. Obeyed between two transactions.
#[derive(Debug)]
pub enum Order {
    /// A command, by way of the change log.
    Signal(SignalOrder),
    /// Other tables are captured from now on.
    Tables(TablesOrder),
}

/// A signal that was looked up on the server.
#[derive(Debug)]
pub struct SignalOrder {
    /// The command.
    pub signal: Signal,
    /// Of `add`: its tables as they are now.
    pub tables: Vec<CatalogTable>,
    /// Why it cannot be obeyed.
    pub refused: Option<String>,
    /// The offset after it.
    pub next_offset: i64,
}

/// Another set of tables.
#[derive(Debug)]
pub struct TablesOrder {
    /// Which tables are captured.
    pub filter: TableFilter,
    /// Those of them that the server has.
    pub catalog: Catalog,
    /// Answered when it holds.
    pub taken: oneshot::Sender<()>,
}

/// Asks the encode thread for leave to read a part of a table. From the start of the table's snapshot to its end the
/// encode thread remembers every key of it that the stream changes (both the key before and the key after).
/// It is answered between transactions: a request that comes inside one waits for its end. Otherwise the
/// transaction's earlier rows would be neither remembered nor in the answer, and a SELECT that runs before the engine
/// has committed it would bring back what they replaced.
#[derive(Debug)]
pub struct WindowRequest {
    /// `database.table`.
    pub table: String,
    /// The chunk that is to be read; `None` only asks where the stream stands.
    pub chunk: Option<AskedChunk>,
    /// Where the stream stands at that moment.
    pub reply: oneshot::Sender<StreamState>,
}

/// Which chunk of a table is to be read.
#[derive(Clone, Copy, Debug)]
pub struct AskedChunk {
    /// Names the chunk among those of the table; the same once more makes the earlier one void.
    pub order: u64,
    /// The walk that it belongs to. Of a walk that is no more, nothing is opened; [`StreamState::generation`] tells.
    pub generation: u64,
    /// The walk begins at the first key again: what was read before is void.
    pub restart: bool,
    /// The table has a key now.
    pub has_key: bool,
}

/// How far the encode thread has consumed the stream.
#[derive(Clone, Debug, Default)]
pub struct StreamState {
    /// All transactions consumed, as a position stores them; empty without GTIDs.
    pub gtid_set: String,
    /// The place after the last one.
    pub place: BinlogPlace,
    /// Which walk of the table this is. Another than the reader knows: the rows became others, or the walk was begun
    /// again, and everything is to be read from the first key.
    pub generation: u64,
    /// Only rows for which this SQL expression is true are to be read. It changes with the generation only.
    pub filter: Option<String>,
    /// The table is not to be read (any more): it was read, stopped, or given up.
    pub unwanted: bool,
}

/// Which part of its table a chunk is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablePart {
    /// These keys.
    Range(DoneRange),
    /// Everything that is not in the log yet: a table without a key, or the end of a snapshot that is given up.
    Rest,
}

/// Rows of one chunk as Avro data without framing, to be wrapped and emitted when the stream has reached `high`.
#[derive(Debug)]
pub struct SnapshotChunk {
    /// The table's shape as it was read.
    pub schema: Arc<TableSchema>,
    /// The bytes that `rows` points into.
    pub bytes: Vec<u8>,
    /// Key datum and row datum (the `Value` record) of each row; the key is empty for a table without a key.
    pub rows: Vec<(Range<usize>, Range<usize>)>,
    /// The end of the binlog after the SELECT: every transaction that the SELECT can have seen lies before it.
    pub high: BinlogPlace,
    /// As in the chunk's [`AskedChunk`].
    pub order: u64,
    /// Which rows these are.
    pub part: TablePart,
    /// As [`StreamState::generation`] said when the chunk was asked for.
    pub generation: u64,
    /// The server's estimate of the table's rows.
    pub rows_estimated: u64,
    /// Zero or partly zero dates among the values, which became NULL (or the epoch where NULL is not possible).
    pub zero_dates: u64,
    /// Texts with bytes that mean nothing in their character set.
    pub invalid_texts: u64,
    /// Answered once the chunk is in a committed transaction of the log. Dropped without an answer when the chunk
    /// was not taken (the stream was connected again, the walk was begun again): the snapshot reader then asks anew and
    /// reads again.
    pub committed: oneshot::Sender<()>,
}

/// What the read view of a table without a key holds. There is no key by which a row of the view and the stream's
/// event of the same row could be matched, so the events themselves are divided.
///
/// While such a table's snapshot is not done (it was given to the snapshot reader, and the position does not say
/// `done`), the stream emits none of its row events: rows committed so far will be in the view. The encode thread
/// - without an open window: drops them;
/// - from `OpenWindow` on: holds them encoded, each with its transaction's GTID and end; what outgrows memory is in a
///   file. At a DDL or TRUNCATE of the table the window is closed, and its view will not do;
/// - from [`Input::View`] on: divides them. A transaction whose GTID is in `executed_before`, or that ends at or before
///   `visible_before`, is in the view: dropped. One that ends after `high` is not in the view: kept. Any other may or may
///   not be in it: then the view will not do, and everything held is dropped;
/// - when it has reached `high` without such a one: answers that the view is exact, and holds every later event.
///
/// At [`Input::Table`] the view's rows are written, then what was held, and the table is `done`, in one log transaction.
///
/// A crash in between is harmless: held events are in no committed position's debt, because the table is still not
/// done and the next view will contain them as rows.
/// A chunk without rows is sent when the existing rows are given up because the table is gone; the table is done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeylessView {
    /// `@@GLOBAL.gtid_executed` read before the view was taken; "" without GTIDs.
    pub executed_before: String,
    /// Without GTIDs: everything before this place is in the view.
    pub visible_before: Option<BinlogPlace>,
    /// The end of the binlog after the view was taken: what lies behind it is not in the view.
    pub high: BinlogPlace,
}

/// A view of a table without a key was taken: does it divide the stream's events?
#[derive(Debug)]
pub struct ViewRequest {
    /// `database.table`.
    pub table: String,
    /// What it contains.
    pub view: KeylessView,
    /// Answered when the stream has reached the view's `high` place, or before. Dropped without an answer when the window
    /// is not open any more.
    pub fit: oneshot::Sender<ViewFit>,
}

/// Whether a view will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewFit {
    /// Every event is on one side of it.
    Exact,
    /// A transaction that changes the table may or may not be in it.
    InDoubt,
    /// The table is not to be read (any more).
    Unwanted,
}

/// The rows of an exact view of a table without a key.
#[derive(Debug)]
pub struct SpooledTable {
    /// The table's shape as it was read.
    pub schema: Arc<TableSchema>,
    /// The row datum (the `Value` record) of each row.
    pub rows: Spool,
    /// The view's `high` place.
    pub high: BinlogPlace,
    /// As in [`SnapshotChunk`].
    pub zero_dates: u64,
    /// As in [`SnapshotChunk`].
    pub invalid_texts: u64,
    /// As in [`SnapshotChunk`].
    pub committed: oneshot::Sender<()>,
}

/// The encode thread's inbox.
pub type InputSender = mpsc::Sender<Input>;
/// The way back of the chunks of [`Input::Events`]; it has room for all that are on their way.
pub type SpentSender = mpsc::Sender<Vec<u8>>;
