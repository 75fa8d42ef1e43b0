//! The constant defaults of columns, from `information_schema`: see [`crate::encode::insert_default`].

use std::collections::HashMap;

use mysql_async::{Conn, Row, prelude::Queryable};

use super::{Server, connect::classify};
use crate::{
    encode::insert_default::{ColumnDefault, TableDefaults},
    error::ReaderError,
    table_filter::TableFilter,
};

/// Reads the defaults of all captured tables, by `database.table`. MariaDB's are not asked for: see
/// [`crate::encode::partial_rows`].
pub async fn load(
    connection: &mut Conn,
    server: &Server,
    filter: &TableFilter,
) -> Result<HashMap<String, TableDefaults>, ReaderError> {
    let mut tables: HashMap<String, TableDefaults> = HashMap::new();
    if server.flavor.kind != super::flavor::Kind::MySql {
        return Ok(tables);
    }
    let rows: Vec<Row> = connection
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_DEFAULT, IS_NULLABLE, EXTRA \
             FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA NOT IN ('information_schema', 'mysql', 'performance_schema', 'sys')",
        )
        .await
        .map_err(|error| classify(error, &server.place))?;
    for row in rows {
        let text = |index: usize| row.get::<Option<String>, _>(index).flatten();
        let (Some(database), Some(table), Some(column)) = (text(0), text(1), text(2)) else {
            continue;
        };
        if !filter.captures(&database, &table) {
            continue;
        }
        let extra = text(5).unwrap_or_default();
        if let Some(default) = default_of(text(3), text(4).as_deref() == Some("YES"), &extra) {
            tables.entry(format!("{database}.{table}")).or_default().insert(column, default);
        }
    }
    Ok(tables)
}

/// `None` for what the server computes: it is in every image.
fn default_of(constant: Option<String>, nullable: bool, extra: &str) -> Option<ColumnDefault> {
    let extra = extra.to_ascii_uppercase();
    if extra.contains("GENERATED") || extra.contains("AUTO_INCREMENT") {
        return None;
    }
    Some(match constant {
        Some(text) => ColumnDefault::Constant(text),
        None if nullable => ColumnDefault::Null,
        None => ColumnDefault::Zero,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_constants_are_defaults() {
        let text = |text: &str| Some(text.to_owned());
        let cases = [
            (text("7"), true, "", Some(ColumnDefault::Constant("7".into()))),
            (None, true, "INVISIBLE", Some(ColumnDefault::Null)),
            (None, false, "", Some(ColumnDefault::Zero)),
            (None, false, "auto_increment", None),
            (text("uuid()"), true, "DEFAULT_GENERATED", None),
            (
                text("CURRENT_TIMESTAMP"),
                true,
                "DEFAULT_GENERATED on update CURRENT_TIMESTAMP",
                None,
            ),
            (None, true, "STORED GENERATED", None),
        ];
        for (constant, nullable, extra, expected) in cases {
            assert_eq!(default_of(constant, nullable, extra), expected, "{extra}");
        }
    }
}
