//! A table's columns as Debezium's schema-change topic describes them, from information_schema.

use mysql_async::{Conn, prelude::Queryable};

use super::{
    connect::{Server, classify},
    flavor::Kind,
};
use crate::{
    encode::schema_change::{ColumnDescription, TableDescription},
    error::ReaderError,
};

type Row = (String, String, String, Option<String>, String, Option<String>, String);

/// What the server says of a table now; `None` when there is none of that name.
pub async fn describe(
    connection: &mut Conn,
    server: &Server,
    database: &str,
    table: &str,
) -> Result<Option<TableDescription>, ReaderError> {
    let failed = |error| classify(error, &server.place);
    let names = || (database.to_owned(), table.to_owned());
    let rows: Vec<Row> = connection
        .exec(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, IS_NULLABLE, COLUMN_DEFAULT, EXTRA \
             FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? ORDER BY ORDINAL_POSITION",
            names(),
        )
        .await
        .map_err(failed)?;
    if rows.is_empty() {
        return Ok(None);
    }
    let primary_key = connection
        .exec(
            "SELECT COLUMN_NAME FROM information_schema.STATISTICS \
             WHERE TABLE_SCHEMA = ? AND TABLE_NAME = ? AND INDEX_NAME = 'PRIMARY' ORDER BY SEQ_IN_INDEX",
            names(),
        )
        .await
        .map_err(failed)?;
    let charset = connection
        .exec_first(
            "SELECT c.CHARACTER_SET_NAME FROM information_schema.TABLES t \
             JOIN information_schema.COLLATION_CHARACTER_SET_APPLICABILITY c ON c.COLLATION_NAME = t.TABLE_COLLATION \
             WHERE t.TABLE_SCHEMA = ? AND t.TABLE_NAME = ?",
            names(),
        )
        .await
        .map_err(failed)?;
    let quoted_defaults = server.flavor.kind == Kind::MariaDb;
    let columns = rows.into_iter().map(|row| column(row, quoted_defaults)).collect();
    Ok(Some(TableDescription { charset, primary_key, columns }))
}

fn column(row: Row, quoted_defaults: bool) -> ColumnDescription {
    let (name, data_type, column_type, charset, nullable, default, extra) = row;
    let data_type = data_type.to_ascii_lowercase();
    let extra = extra.to_ascii_lowercase();
    let listed = matches!(data_type.as_str(), "enum" | "set");
    let members = listed.then(|| quoted_members(&column_type));
    let (length, scale) = match &members {
        Some(_) if data_type == "enum" => (Some(1), None),
        Some(members) => (Some((members.len() as i32 * 2 - 1).max(0)), None),
        None => numbers_in_brackets(&column_type),
    };
    let suffixes = column_type.to_ascii_lowercase();
    let mut type_name = data_type.to_ascii_uppercase();
    for suffix in ["unsigned", "zerofill"] {
        if !listed && suffixes.split(' ').any(|word| word == suffix) {
            type_name.push(' ');
            type_name.push_str(&suffix.to_ascii_uppercase());
        }
    }
    ColumnDescription {
        jdbc_type: jdbc_type(&data_type),
        // JSON is text of utf8mb4 to information_schema, and has no character set to Debezium.
        charset: charset.filter(|_| data_type != "json"),
        length,
        scale,
        nullable: nullable == "YES",
        automatic: extra.contains("auto_increment") || extra.contains("on update"),
        default: default.and_then(|text| default_text(&text, &data_type, &extra, quoted_defaults)),
        members,
        type_name,
        name,
    }
}

/// The type's number in `java.sql.Types`, as Debezium's parser of DDL gives it.
fn jdbc_type(data_type: &str) -> i32 {
    match data_type {
        "tinyint" | "smallint" => 5,
        "mediumint" | "int" | "year" => 4,
        "bigint" => -5,
        "float" => 6,
        "double" => 8,
        "decimal" => 3,
        "bit" => -7,
        "date" => 91,
        "time" => 92,
        "datetime" => 93,
        "timestamp" => 2014,
        "char" | "enum" | "set" => 1,
        "varchar" | "tinytext" | "text" | "mediumtext" | "longtext" => 12,
        "binary" => -2,
        "varbinary" => -3,
        "tinyblob" | "blob" | "mediumblob" | "longblob" => 2004,
        _ => 1111,
    }
}

/// `decimal(10,2)`: 10 and 2.
fn numbers_in_brackets(column_type: &str) -> (Option<i32>, Option<i32>) {
    let inside = column_type
        .split_once('(')
        .and_then(|(_, rest)| rest.split_once(')'))
        .map_or("", |(inside, _)| inside);
    let mut numbers = inside.split(',').map(|number| number.trim().parse().ok());
    (numbers.next().flatten(), numbers.next().flatten())
}

/// `enum('a','b,c')`: `'a'` and `'b,c'`, in their quotes.
fn quoted_members(column_type: &str) -> Vec<String> {
    let mut members = Vec::new();
    let mut member = String::new();
    let mut characters = column_type.chars().skip_while(|c| *c != '(').skip(1).peekable();
    let mut inside = false;
    while let Some(character) = characters.next() {
        match character {
            '\'' if inside && characters.peek() == Some(&'\'') => {
                characters.next();
                member.push_str("''");
            }
            '\'' => {
                inside = !inside;
                member.push('\'');
                if !inside {
                    members.push(std::mem::take(&mut member));
                }
            }
            other if inside => member.push(other),
            _ => {}
        }
    }
    members
}

/// The default as Debezium writes it; `None` for an expression.
fn default_text(text: &str, data_type: &str, extra: &str, quoted: bool) -> Option<String> {
    let now = text.to_ascii_lowercase();
    if now.starts_with("current_timestamp") || now.starts_with("now(") {
        return Some("1970-01-01 00:00:00".into());
    }
    if extra.contains("default_generated") || quoted && now == "null" {
        return None;
    }
    if let Some(bits) = text.strip_prefix("b'").filter(|_| data_type == "bit") {
        return Some(bits.trim_end_matches('\'').into());
    }
    let unquoted = text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    match unquoted {
        Some(unquoted) if quoted => Some(unquoted.replace("''", "'")),
        _ => Some(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_members_and_defaults_are_read() {
        assert_eq!(numbers_in_brackets("decimal(10,2) unsigned"), (Some(10), Some(2)));
        assert_eq!(numbers_in_brackets("varchar(20)"), (Some(20), None));
        assert_eq!(numbers_in_brackets("int"), (None, None));
        assert_eq!(quoted_members("enum('a','b,c','it''s','')"), ["'a'", "'b,c'", "'it''s'", "''"]);
        assert_eq!(default_text("b'101'", "bit", "", false).as_deref(), Some("101"));
        assert_eq!(default_text("'it''s'", "varchar", "", true).as_deref(), Some("it's"));
        assert_eq!(default_text("'x'", "varchar", "", false).as_deref(), Some("'x'"));
        assert_eq!(default_text("uuid()", "char", "default_generated", false), None);
    }
}
