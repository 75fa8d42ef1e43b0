//! A table's columns and key as of one moment: what a plan encodes by, and what the Avro text is made from.

use crate::{
    column_type::ColumnType, default_value::DefaultValue, row_digest::row_digest, table_id::TableId,
};

/// One column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Column {
    /// The name as MySQL keeps it.
    pub name: String,
    /// The type.
    pub column_type: ColumnType,
    /// Whether NULL is allowed.
    pub nullable: bool,
    /// What only the catalog tells.
    pub details: ColumnDetails,
}

/// What the server's catalog knows about a column and its binlog does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ColumnDetails {
    /// The default, as Debezium's schemas would have it; `None` without one, and for expressions.
    pub default: Option<DefaultValue>,
    /// FLOAT was declared with digits: `FLOAT(7,4)`. Debezium makes it a `double`.
    pub float_with_digits: bool,
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

    /// Digest of the key's columns and their types, in key order. Where it is another, the same key text may be another
    /// key, stand at another place in the order, or be encoded otherwise.
    pub fn key_shape(&self) -> String {
        let columns =
            self.key_columns().map(|column| format!("{} {:?}", column.name, column.column_type));
        let columns: Vec<String> = columns.collect();
        let digest = row_digest(columns.iter().map(|column| Some(column.as_bytes())));
        format!("{digest:032x}")
    }

    /// This shape, read from a table map, with what only the catalog tells; `None` when the catalog describes another
    /// shape, because the table was changed in between.
    pub fn enriched(&self, catalog: &TableSchema) -> Option<TableSchema> {
        let same = self.columns.len() == catalog.columns.len()
            && self.columns.iter().zip(&catalog.columns).all(|(column, known)| {
                column.name == known.name
                    && column.nullable == known.nullable
                    && column.column_type.is_stored_as(&known.column_type)
            });
        same.then(|| TableSchema {
            id: self.id.clone(),
            columns: catalog.columns.clone(),
            key: self.key.clone(),
        })
    }
}
