//! The captured tables as the server's catalog describes them now: shape, key, how big, and how to walk them.

use std::{collections::BTreeMap, sync::Arc};

use mysql_async::{Conn, Row, prelude::Queryable};
use schemas::{
    table_id::TableId,
    table_schema::{Column, ColumnDetails, TableSchema},
};

use crate::{
    encode::charset::{Charset, of_name},
    error::ReaderError,
    mysql::{
        column_definition::{ColumnDefinition, column_type},
        connect::{Server, classify},
        default_value::{DefaultDefinition, default_value},
        flavor::Kind,
    },
    table_filter::TableFilter,
};

/// A source's captured base tables.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Those that can be captured, by name.
    pub tables: Vec<CatalogTable>,
    /// `database.table` of the others, each with the sentence that says why.
    pub unsupported: Vec<(String, String)>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogTable {
    /// Its shape.
    pub schema: Arc<TableSchema>,
    /// The index that the key was taken from, when the optimizer may be told to use it.
    pub key_index: Option<String>,
    /// For each column that holds text: its character set. Same order as the columns.
    pub texts: Vec<Option<TextColumn>>,
    /// The server's estimates.
    pub estimate: Estimate,
}

/// The server's estimates of a table's size; never part of a comparison of shapes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimate {
    /// Rows.
    pub rows: u64,
    /// Bytes of a row.
    pub row_bytes: u64,
}

// Two catalog tables are the same when they are read in the same way.
impl PartialEq for Estimate {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Estimate {}

/// How a text column's bytes are to be understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextColumn {
    /// `utf8mb4`.
    pub charset: String,
    /// `utf8mb4_0900_ai_ci`.
    pub collation: String,
    /// How its bytes become UTF-8, by the same code as those in the binlog.
    pub decoding: Charset,
}

impl CatalogTable {
    /// `database.table`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.schema.id.database, self.schema.id.table)
    }

    /// The server's estimate of its rows.
    pub fn rows_estimated(&self) -> u64 {
        self.estimate.rows
    }

    /// The key columns' names in key order.
    pub fn key_names(&self) -> Vec<String> {
        self.schema.key_columns().map(|column| column.name.clone()).collect()
    }
}

/// Reads all captured tables.
pub async fn load(
    connection: &mut Conn,
    server: &Server,
    source: &str,
    filter: &TableFilter,
) -> Result<Catalog, ReaderError> {
    let captures = |database: &str, table: &str| filter.captures(database, table);
    load_where(connection, server, source, "", captures).await
}

/// Reads one table; `None` when it is gone. A table that cannot be captured is a [`ReaderError::Query`].
pub async fn load_one(
    connection: &mut Conn,
    server: &Server,
    source: &str,
    id: &TableId,
) -> Result<Option<CatalogTable>, ReaderError> {
    let condition = format!(
        " AND TABLE_SCHEMA = _utf8mb4 X'{}' AND TABLE_NAME = _utf8mb4 X'{}'",
        hex(id.database.as_bytes()),
        hex(id.table.as_bytes())
    );
    // Where names are compared without case, the condition may find a namesake.
    let exactly = |database: &str, table: &str| database == id.database && table == id.table;
    let mut catalog = load_where(connection, server, source, &condition, exactly).await?;
    match catalog.unsupported.pop() {
        Some((_, reason)) => Err(ReaderError::Query { place: server.place.clone(), reason }),
        None => Ok(catalog.tables.pop()),
    }
}

/// Upper-case hexadecimal digits, for literals that need no escaping.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02X}");
    }
    text
}

const NOT_SYSTEM: &str =
    "TABLE_SCHEMA NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')";

type Name = (String, String);

async fn load_where(
    connection: &mut Conn,
    server: &Server,
    source: &str,
    condition: &str,
    captures: impl Fn(&str, &str) -> bool,
) -> Result<Catalog, ReaderError> {
    let mut ask = async |query: String| {
        connection.query::<Row, _>(query).await.map_err(|error| classify(error, &server.place))
    };
    let mut tables: BTreeMap<Name, Draft> = BTreeMap::new();
    let rows = ask(format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS, AVG_ROW_LENGTH FROM information_schema.TABLES \
         WHERE TABLE_TYPE = 'BASE TABLE' AND {NOT_SYSTEM}{condition}"
    ))
    .await?;
    for row in rows {
        let name = (text(&row, 0), text(&row, 1));
        if captures(&name.0, &name.1) {
            let estimate = Estimate {
                rows: number(&row, 2).unwrap_or(0),
                row_bytes: number(&row, 3).unwrap_or(0),
            };
            tables.insert(name, Draft { estimate, ..Draft::default() });
        }
    }
    let rows = ask(format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, IS_NULLABLE, DATA_TYPE, COLUMN_TYPE, \
         CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, CHARACTER_SET_NAME, \
         COLLATION_NAME, COLUMN_DEFAULT, EXTRA FROM information_schema.COLUMNS WHERE {NOT_SYSTEM}{condition} \
         ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    ))
    .await?;
    for row in rows {
        if let Some(draft) = tables.get_mut(&(text(&row, 0), text(&row, 1))) {
            draft.add_column(&row, server.flavor.kind);
        }
    }
    let visible = match server.flavor.kind {
        Kind::MySql => "IS_VISIBLE",
        Kind::MariaDb => "IF(IGNORED = 'YES', 'NO', 'YES')",
    };
    let rows = ask(format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART, NULLABLE, {visible} \
         FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND {NOT_SYSTEM}{condition} \
         ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    ))
    .await?;
    for row in rows {
        if let Some(draft) = tables.get_mut(&(text(&row, 0), text(&row, 1))) {
            draft.add_index_part(&row);
        }
    }
    let mut catalog = Catalog::default();
    for (name, draft) in tables {
        let id = TableId::new(source, name.0, name.1);
        let topic = id.topic();
        let namesake = catalog.tables.iter().find(|table| table.schema.id.topic() == topic);
        if let Some(namesake) = namesake.map(CatalogTable::name) {
            let reason = topic_is_taken(&topic, &namesake);
            catalog.unsupported.push((format!("{}.{}", id.database, id.table), reason));
            continue;
        }
        match draft.finish(id.clone()) {
            Ok(table) => catalog.tables.push(table),
            Err(reason) => {
                catalog.unsupported.push((format!("{}.{}", id.database, id.table), reason));
            }
        }
    }
    Ok(catalog)
}

/// Two names can differ in nothing but characters that a topic cannot have.
pub(crate) fn topic_is_taken(topic: &str, other: &str) -> String {
    format!(
        "its topic {topic} is also that of {other}, because Kafka forbids the characters in which their names differ; \
         rename one, or take one out with `!` in `tables`"
    )
}

fn text(row: &Row, index: usize) -> String {
    optional_text(row, index).unwrap_or_default()
}

fn optional_text(row: &Row, index: usize) -> Option<String> {
    row.get_opt::<Option<Vec<u8>>, _>(index)
        .and_then(Result::ok)
        .flatten()
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn number(row: &Row, index: usize) -> Option<u64> {
    row.get_opt::<Option<u64>, _>(index).and_then(Result::ok).flatten()
}

/// A table while its rows are collected.
#[derive(Default)]
struct Draft {
    columns: Vec<Column>,
    texts: Vec<Option<TextColumn>>,
    unreadable: Option<String>,
    unique: Vec<UniqueIndex>,
    estimate: Estimate,
}

struct UniqueIndex {
    name: String,
    /// `None` as soon as a part cannot be used: an expression, a prefix, a column that may be NULL.
    columns: Option<Vec<String>>,
    visible: bool,
}

impl Draft {
    fn add_column(&mut self, row: &Row, kind: Kind) {
        let name = text(row, 2);
        let definition = ColumnDefinition {
            data_type: text(row, 4),
            column_type: text(row, 5),
            length: number(row, 6),
            precision: number(row, 7),
            scale: number(row, 8),
            digits: number(row, 9),
        };
        let column = column_type(&definition).and_then(|column_type| {
            let text = text_column(row, &column_type)?;
            Ok((column_type, text))
        });
        match column {
            Ok((column_type, text_column)) => {
                let nullable = text(row, 3) == "YES";
                let float_with_digits =
                    definition.data_type == "float" && definition.scale.is_some();
                let default = optional_text(row, 12).and_then(|shown| {
                    let extra = text(row, 13);
                    let (text, extra) = (shown.as_str(), extra.as_str());
                    let default =
                        DefaultDefinition { text, extra, kind, nullable, float_with_digits };
                    default_value(&default, &column_type)
                });
                let details = ColumnDetails { default, float_with_digits };
                self.columns.push(Column { name, column_type, nullable, details });
                self.texts.push(text_column);
            }
            Err(what) => {
                self.unreadable.get_or_insert(format!("column {name} is {what}"));
            }
        }
    }

    fn add_index_part(&mut self, row: &Row) {
        let name = text(row, 2);
        if self.unique.last().is_none_or(|index| index.name != name) {
            let visible = text(row, 6) != "NO";
            self.unique.push(UniqueIndex { name, columns: Some(Vec::new()), visible });
        }
        let prefix = number(row, 4).is_some();
        let nullable = text(row, 5) == "YES";
        if let Some(index) = self.unique.last_mut() {
            index.columns = match (optional_text(row, 3), index.columns.take()) {
                (Some(column), Some(mut columns)) if !prefix && !nullable => {
                    columns.push(column);
                    Some(columns)
                }
                _ => None,
            };
        }
    }

    fn finish(self, id: TableId) -> Result<CatalogTable, String> {
        if let Some(reason) = self.unreadable {
            return Err(format!("{id} is not captured: {reason}"));
        }
        if self.columns.is_empty() {
            return Err(format!("{id} is not captured: its columns are not visible to the user"));
        }
        let position = |name: &String| self.columns.iter().position(|column| &column.name == name);
        let usable = |index: &UniqueIndex| {
            let columns = index.columns.as_ref()?;
            let key = columns.iter().map(position).collect::<Option<Vec<usize>>>()?;
            Some((key, index.visible.then(|| index.name.clone())))
        };
        // A primary key with a prefix part is passed over as any other index with one: it does not hold whole values,
        // so neither the walk nor the binlog's key could use it.
        let primary = self.unique.iter().find(|index| index.name == "PRIMARY").and_then(usable);
        let (key, key_index) =
            primary.or_else(|| self.unique.iter().find_map(usable)).unwrap_or_default();
        Ok(CatalogTable {
            schema: Arc::new(TableSchema { id, columns: self.columns, key }),
            key_index,
            texts: self.texts,
            estimate: self.estimate,
        })
    }
}

fn text_column(
    row: &Row,
    column_type: &schemas::column_type::ColumnType,
) -> Result<Option<TextColumn>, String> {
    if !matches!(column_type, schemas::column_type::ColumnType::Text) {
        return Ok(None);
    }
    let (charset, collation) = (text(row, 10), text(row, 11));
    match of_name(&charset) {
        Some(decoding) => Ok(Some(TextColumn { charset, collation, decoding })),
        None => Err(format!(
            "in the character set {charset} ({collation}), which this release cannot read; convert it to utf8mb4"
        )),
    }
}

#[cfg(test)]
mod tests {
    use schemas::column_type::ColumnType;

    use super::*;

    fn draft(unique: Vec<UniqueIndex>) -> CatalogTable {
        let column = |name: &str| Column {
            name: name.into(),
            column_type: ColumnType::Year,
            nullable: false,
            details: Default::default(),
        };
        let draft = Draft {
            columns: vec![column("a"), column("b")],
            texts: vec![None, None],
            unique,
            ..Draft::default()
        };
        draft.finish(TableId::new("s", "d", "t")).expect("is usable")
    }

    fn index(name: &str, columns: Option<&[&str]>) -> UniqueIndex {
        let columns = columns.map(|columns| columns.iter().map(|c| (*c).into()).collect());
        UniqueIndex { name: name.into(), columns, visible: name != "hidden" }
    }

    #[test]
    fn key_is_the_primary_key_in_key_order_else_the_first_whole_unique_one() {
        let table = draft(vec![index("A", Some(&["a"])), index("PRIMARY", Some(&["b", "a"]))]);
        assert_eq!(
            (&table.schema.key[..], table.key_index.as_deref()),
            (&[1, 0][..], Some("PRIMARY"))
        );
        let table = draft(vec![index("A", None), index("B", Some(&["b"])), index("PRIMARY", None)]);
        assert_eq!((&table.schema.key[..], table.key_index.as_deref()), (&[1][..], Some("B")));
        let table = draft(vec![index("hidden", Some(&["a"]))]);
        assert_eq!((&table.schema.key[..], table.key_index), (&[0][..], None));
        assert!(draft(vec![]).schema.key.is_empty());
    }
}
