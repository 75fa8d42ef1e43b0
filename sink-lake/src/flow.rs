//! What goes from one stage to the next.

use arrow::array::RecordBatch;

use crate::key_hash::KeyHash;

/// What happened to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It was inserted.
    Create,
    /// It was changed.
    Update,
    /// It was deleted.
    Delete,
    /// It was there when the snapshot read it.
    Read,
    /// It was there when the table was read once more, because a DDL changed rows without events.
    ReadAgain,
    /// The whole table was emptied.
    Truncate,
}

impl Operation {
    /// The operation of an envelope's `op`.
    pub fn from_code(code: &[u8]) -> Option<Self> {
        Some(match code {
            b"c" => Self::Create,
            b"u" => Self::Update,
            b"d" => Self::Delete,
            b"r" => Self::Read,
            b"t" => Self::Truncate,
            _ => return None,
        })
    }

    /// The envelope's `op`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Create => "c",
            Self::Update => "u",
            Self::Delete => "d",
            Self::Read | Self::ReadAgain => "r",
            Self::Truncate => "t",
        }
    }
}

/// Decoded rows of one partition and one schema, in offset order. A deleted row is as it was before.
#[derive(Clone, Debug)]
pub struct RowBatch {
    /// The partition they came from.
    pub partition: i32,
    /// The rows' columns.
    pub rows: RecordBatch,
    /// What happened to each row.
    pub operations: Vec<Operation>,
    /// Each row's offset.
    pub offsets: Vec<i64>,
    /// When the source committed each change, in microseconds since 1970.
    pub changed_at_us: Vec<i64>,
    /// The rows whose record lacks columns, in the order of rows.
    pub partial: Vec<PartialRow>,
    /// About how many bytes it holds.
    pub bytes: usize,
}

/// A row whose record lacks columns that the binlog did not carry.
#[derive(Clone, Debug)]
pub struct PartialRow {
    /// Which row of the batch.
    pub row: usize,
    /// A bitmap over the batch's columns, least significant bit first: the absent ones.
    pub absent: Vec<u8>,
    /// The key of the row before, when the change gave it another one.
    pub old_key: Option<KeyHash>,
    /// The row may come with the table's snapshot, and this change again after it: then nothing is lost without it.
    pub before_snapshot: bool,
    /// The record, in case that nothing is found to complete it from.
    pub record: DeadLetter,
}

impl PartialRow {
    /// Whether the record lacks a column of the batch.
    pub fn is_absent(&self, column: usize) -> bool {
        self.absent.get(column / 8).is_some_and(|byte| byte >> (column % 8) & 1 == 1)
    }
}

/// Decoded changes in log order.
#[derive(Clone, Debug)]
pub enum ChangeBatch {
    /// Rows.
    Rows(RowBatch),
    /// The table was emptied.
    Truncate {
        /// The partition of the record.
        partition: i32,
        /// Its offset.
        offset: i64,
    },
}

/// A record that can't be decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadLetter {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// What is wrong.
    pub reason: String,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
}
