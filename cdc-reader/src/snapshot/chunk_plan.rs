//! The SQL of one chunk: which columns, from where on, how many rows. Pure.
//!
//! A chunk starts after the last key of the one before. The boundary is a value that the server gave and only the
//! server compares: order belongs to its collations (`../facts/snapshot.md`, "collation trap").

use schemas::{column_type::ColumnType, table_id::TableId};

use super::key_text;
use crate::mysql::catalog::CatalogTable;

/// A row's key: one text per key column, exact and usable in the server's predicates (see `key_text`).
pub type KeyText = Vec<String>;

/// How many rows of which part of a table.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkRange<'a> {
    /// Rows after this key; from the start without one.
    pub after: Option<&'a [String]>,
    /// Rows up to this key, and with it; to the end without one.
    pub upto: Option<&'a [String]>,
    /// Rows for which this condition of the user's holds, as it would stand after WHERE. Columns are those of the alias
    /// `t`, or without one.
    pub filter: Option<&'a str>,
    /// At most so many rows.
    pub rows: u64,
}

/// The SELECT of a chunk; `None` when `after` or `upto` is no key of this table as it is now.
pub fn chunk_select(table: &CatalogTable, range: ChunkRange<'_>) -> Option<String> {
    let mut sql = select_from(table, 0..table.schema.columns.len());
    push_where(table, &mut sql, range.after, range.upto, range.filter)?;
    push_order(table, &mut sql);
    sql.push_str(&format!(" LIMIT {}", range.rows));
    Some(sql)
}

/// The SELECT of the key columns, in key order, of the one row that has `offset` rows of the range before it: so the
/// part of the range up to it has `offset` + 1 rows. It answers no row when the range has no more than `offset`.
/// `None` for a table without a key, and when `after` or `upto` is no key of this table as it is now.
pub fn boundary_select(
    table: &CatalogTable,
    after: Option<&[String]>,
    upto: Option<&[String]>,
    offset: u64,
) -> Option<String> {
    if table.schema.key.is_empty() {
        return None;
    }
    let mut sql = select_from(table, table.schema.key.iter().copied());
    push_where(table, &mut sql, after, upto, None)?;
    push_order(table, &mut sql);
    sql.push_str(&format!(" LIMIT 1 OFFSET {offset}"));
    Some(sql)
}

fn push_where(
    table: &CatalogTable,
    sql: &mut String,
    after: Option<&[String]>,
    upto: Option<&[String]>,
    filter: Option<&str>,
) -> Option<()> {
    let mut terms = Vec::new();
    if let Some(after) = after {
        terms.push(after_predicate(table, after)?);
    }
    if let Some(upto) = upto {
        terms.push(upto_predicate(table, upto)?);
    }
    if let Some(filter) = filter {
        // A comment in it ends with its line.
        terms.push(format!("({filter}\n)"));
    }
    if !terms.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(&terms.join(" AND "));
    }
    Some(())
}

fn push_order(table: &CatalogTable, sql: &mut String) {
    if !table.schema.key.is_empty() {
        let order: Vec<String> = table.schema.key.iter().map(|&i| column_of(table, i)).collect();
        sql.push_str(&format!(" ORDER BY {}", order.join(", ")));
    }
}

/// The SELECT of chosen rows; `None` when a key is no key of this table as it is now, or none is given.
pub fn rows_select(table: &CatalogTable, keys: &[KeyText]) -> Option<String> {
    if keys.is_empty() {
        return None;
    }
    let predicates: Option<Vec<String>> = keys
        .iter()
        .map(|key| {
            let literals = literals(table, key)?;
            let parts = table.schema.key.iter().zip(&literals);
            let equal: Vec<String> = parts
                .map(|(&i, literal)| format!("{} = {literal}", ordered_by(table, i)))
                .collect();
            Some(format!("({})", equal.join(" AND ")))
        })
        .collect();
    let select = select_from(table, 0..table.schema.columns.len());
    Some(format!("{select} WHERE {}", predicates?.join(" OR ")))
}

/// Whether a stored key can be gone on from: it has a value of the right form for each key column as it is now, and
/// for text the collation under which it was the last.
pub fn is_key_of(table: &CatalogTable, key: &[String]) -> bool {
    !key.is_empty() && literals(table, key).is_some()
}

/// A name in backticks.
pub fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A table's name with its database, in backticks.
pub fn quoted_table(id: &TableId) -> String {
    format!("{}.{}", quoted(&id.database), quoted(&id.table))
}

/// Without the hint the optimizer may scan and sort the whole table for every chunk, when its statistics are off.
fn select_from(table: &CatalogTable, columns: impl Iterator<Item = usize>) -> String {
    let columns: Vec<String> = columns.map(|i| selected(table, i)).collect();
    let mut sql =
        format!("SELECT {} FROM {} AS t", columns.join(", "), quoted_table(&table.schema.id));
    if let Some(index) = &table.key_index {
        sql.push_str(&format!(" FORCE INDEX ({})", quoted(index)));
    }
    sql
}

/// The expression that gives a column's value in the form that the binlog has it in.
fn selected(table: &CatalogTable, index: usize) -> String {
    let column = column_of(table, index);
    let column_type = table.schema.columns.get(index).map(|column| &column.column_type);
    match column_type {
        // The number tells '' as a member from '' as an error, and needs no character set.
        Some(ColumnType::Enum { .. } | ColumnType::Set { .. }) => {
            format!("CAST({column} AS UNSIGNED)")
        }
        // The column's own bytes: decoded here by the same code as those in the binlog.
        Some(ColumnType::Text)
            if table.texts.get(index).is_some_and(|text| {
                text.as_ref().is_some_and(|text| text.charset != "utf8mb4")
            }) =>
        {
            format!("CAST({column} AS BINARY)")
        }
        _ => column,
    }
}

fn column_of(table: &CatalogTable, index: usize) -> String {
    let name = table.schema.columns.get(index).map(|column| column.name.as_str());
    format!("t.{}", quoted(name.unwrap_or_default()))
}

/// What is compared with a boundary. SET sorts by its bits, but compares with a number as a double: inexact above 2^53.
fn ordered_by(table: &CatalogTable, index: usize) -> String {
    let column = column_of(table, index);
    match table.schema.columns.get(index).map(|column| &column.column_type) {
        Some(ColumnType::Set { .. }) => format!("CAST({column} AS UNSIGNED)"),
        _ => column,
    }
}

fn literals(table: &CatalogTable, key: &[String]) -> Option<Vec<String>> {
    if key.len() != table.schema.key.len() {
        return None;
    }
    let parts = table.schema.key.iter().zip(key);
    parts
        .map(|(&index, text)| {
            let column = table.schema.columns.get(index)?;
            key_text::literal(&column.column_type, table.texts.get(index)?.as_ref(), text)
        })
        .collect()
}

/// `(a, b) > (x, y)` as `a >= x AND (a > x OR (a = x AND (b > y)))`: row constructors are not used for range access
/// (manual 10.2.1.22), and the first term gives the optimizer its range.
fn after_predicate(table: &CatalogTable, after: &[String]) -> Option<String> {
    predicate(table, after, [">", ">=", ">"])
}

/// `(a, b) <= (x, y)` as `a <= x AND (a < x OR (a = x AND (b <= y)))`.
fn upto_predicate(table: &CatalogTable, upto: &[String]) -> Option<String> {
    predicate(table, upto, ["<", "<=", "<="])
}

/// `beyond` on all columns but the last, `last` on that one, and `range` in the term for the optimizer.
fn predicate(
    table: &CatalogTable,
    key: &[String],
    [beyond, range, last]: [&str; 3],
) -> Option<String> {
    let literals = literals(table, key)?;
    let parts: Vec<(String, String)> =
        table.schema.key.iter().map(|&i| ordered_by(table, i)).zip(literals).collect();
    let mut predicate = String::new();
    for (column, literal) in parts.iter().rev() {
        predicate = if predicate.is_empty() {
            format!("{column} {last} {literal}")
        } else {
            format!("{column} {beyond} {literal} OR ({column} = {literal} AND ({predicate}))")
        };
    }
    match parts.first() {
        Some((column, literal)) if parts.len() > 1 => {
            Some(format!("{column} {range} {literal} AND ({predicate})"))
        }
        Some(_) => Some(predicate),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use schemas::table_schema::{Column, TableSchema};

    use super::*;
    use crate::{encode::charset::Charset, mysql::catalog::TextColumn};

    fn table() -> CatalogTable {
        let column = |name: &str, column_type| Column {
            name: name.into(),
            column_type,
            nullable: false,
            details: Default::default(),
        };
        let text = |charset: &str, collation: &str| {
            Some(TextColumn {
                charset: charset.into(),
                collation: collation.into(),
                decoding: Charset::Utf8,
            })
        };
        CatalogTable {
            schema: std::sync::Arc::new(TableSchema {
                id: TableId::new("s", "d", "t`x"),
                columns: vec![
                    column("a", ColumnType::Int { unsigned: false }),
                    column("n", ColumnType::Text),
                    column("l", ColumnType::Text),
                ],
                key: vec![1, 0],
            }),
            key_index: Some("PRIMARY".into()),
            texts: vec![None, text("utf8mb4", "utf8mb4_0900_ai_ci"), text("latin1", "latin1_bin")],
            estimate: crate::mysql::catalog::Estimate::default(),
        }
    }

    #[test]
    fn chunk_goes_on_after_the_last_key_in_the_servers_order() {
        let after = ["utf8mb4_0900_ai_ci:C3A4".to_owned(), "-7".to_owned()];
        let sql = chunk_select(
            &table(),
            ChunkRange { after: Some(&after), rows: 10, ..Default::default() },
        )
        .expect("fits");
        let name = "_utf8mb4 X'C3A4' COLLATE utf8mb4_0900_ai_ci";
        assert_eq!(
            sql,
            format!(
                "SELECT t.`a`, t.`n`, CAST(t.`l` AS BINARY) FROM `d`.`t``x` AS t FORCE INDEX (`PRIMARY`) WHERE \
                 t.`n` >= {name} AND (t.`n` > {name} OR (t.`n` = {name} AND (t.`a` > -7))) \
                 ORDER BY t.`n`, t.`a` LIMIT 10"
            )
        );
    }

    #[test]
    fn ranges_have_two_ends_and_a_condition() {
        let after = ["utf8mb4_0900_ai_ci:41".to_owned(), "1".to_owned()];
        let upto = ["utf8mb4_0900_ai_ci:42".to_owned(), "2".to_owned()];
        let range = ChunkRange {
            after: Some(&after),
            upto: Some(&upto),
            filter: Some("a > 0 OR 1 -- all"),
            rows: 10,
        };
        let sql = chunk_select(&table(), range).expect("fits");
        let (a, b) = (
            "_utf8mb4 X'41' COLLATE utf8mb4_0900_ai_ci",
            "_utf8mb4 X'42' COLLATE utf8mb4_0900_ai_ci",
        );
        let (_, condition) = sql.split_once(" WHERE ").expect("has one");
        let ends = format!(
            "t.`n` >= {a} AND (t.`n` > {a} OR (t.`n` = {a} AND (t.`a` > 1))) AND \
             t.`n` <= {b} AND (t.`n` < {b} OR (t.`n` = {b} AND (t.`a` <= 2)))"
        );
        assert_eq!(
            condition,
            format!("{ends} AND (a > 0 OR 1 -- all\n) ORDER BY t.`n`, t.`a` LIMIT 10")
        );
        let sql = boundary_select(&table(), Some(&after), Some(&upto), 9).expect("fits");
        assert_eq!(
            sql,
            format!(
                "SELECT t.`n`, t.`a` FROM `d`.`t``x` AS t FORCE INDEX (`PRIMARY`) WHERE {ends} \
                 ORDER BY t.`n`, t.`a` LIMIT 1 OFFSET 9"
            )
        );
        assert_eq!(boundary_select(&table(), Some(&["1".to_owned()]), None, 9), None);
    }

    #[test]
    fn key_of_another_shape_is_not_used() {
        let fits = |key: &[&str]| {
            let key: Vec<String> = key.iter().map(|k| (*k).into()).collect();
            is_key_of(&table(), &key)
        };
        assert!(fits(&["utf8mb4_0900_ai_ci:41", "1"]));
        assert!(!fits(&["utf8mb4_bin:41", "1"]), "the collation changed");
        assert!(!fits(&["utf8mb4_0900_ai_ci:41"]));
        assert!(!fits(&["utf8mb4_0900_ai_ci:41", "1 OR 1=1"]));
        assert!(!fits(&[]));
    }
}
