//! A table's columns and key as of one moment: what a plan encodes by, and what the Avro text is made from.

use crate::{column_type::ColumnType, table_id::TableId};

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// The name as MySQL keeps it.
    pub name: String,
    /// The type.
    pub column_type: ColumnType,
    /// Whether NULL is allowed.
    pub nullable: bool,
}

/// A table's shape. Column order is the server's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TableSchema {
    /// Which table.
    pub id: TableId,
    /// All columns, in the server's order.
    pub columns: Vec<Column>,
    /// Indices into `columns` of the primary key, or of the first UNIQUE key without NULLable columns, in key order;
    /// empty when the table has neither.
    pub key: Vec<usize>,
}

impl TableSchema {
    /// The key's columns in key order.
    pub fn key_columns(&self) -> impl Iterator<Item = &Column> {
        self.key.iter().filter_map(|&i| self.columns.get(i))
    }
}
