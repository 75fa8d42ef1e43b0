//! What ALTER TABLE and CREATE TABLE do to a table's columns: names, order, kinds, signs and members. Read with
//! tolerance; what is not certain is said to be so, and the table map that follows is the judge.

#[cfg(test)]
mod tests;

use super::{
    ddl::{Dialect, altered_table},
    sql_tokens::{Token, Tokens},
    table_shape::{NamedColumn, TableShape},
};

/// Where a column is put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// FIRST.
    First,
    /// AFTER a column.
    After(String),
}

/// One effect of an ALTER TABLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnChange {
    /// ADD COLUMN.
    Add {
        /// The column.
        column: NamedColumn,
        /// `None`: at the end.
        place: Option<Place>,
        /// IF NOT EXISTS.
        if_absent: bool,
    },
    /// DROP COLUMN.
    Drop {
        /// The column.
        name: String,
        /// IF EXISTS.
        if_present: bool,
    },
    /// RENAME COLUMN.
    Rename {
        /// Its name before.
        old: String,
        /// Its name after.
        new: String,
    },
    /// CHANGE and MODIFY.
    Change {
        /// Its name before.
        old: String,
        /// What it is after.
        column: NamedColumn,
        /// `None`: where it was.
        place: Option<Place>,
    },
    /// ADD PRIMARY KEY.
    PrimaryKey(Vec<String>),
    /// DROP PRIMARY KEY.
    DropPrimaryKey,
    /// A unique index was added, or an index dropped.
    OtherKeys,
    /// Something that may concern columns in a way that is not known here.
    Unclear,
}

/// What an ALTER TABLE or CREATE/DROP INDEX does to the columns and the key.
pub fn column_changes(sql: &str, dialect: Dialect) -> Vec<ColumnChange> {
    let mut words = Tokens::new(sql, dialect);
    match words.keyword().as_deref() {
        Some("ALTER") => {}
        // CREATE and DROP INDEX.
        _ => return vec![ColumnChange::OtherKeys],
    }
    if altered_table(&mut words, "").is_none() {
        return vec![ColumnChange::Unclear];
    }
    let mut changes = Vec::new();
    loop {
        clause(&mut words, &mut changes);
        if !words.skip_clause() {
            return changes;
        }
    }
}

/// The shape that a CREATE TABLE makes. `None`: it cannot be told from the statement alone.
pub fn created_shape(sql: &str, dialect: Dialect) -> Option<TableShape> {
    let mut words = Tokens::new(sql, dialect);
    while !words.skip_keyword("TABLE") {
        words.keyword()?;
    }
    words.skip_if_exists();
    words.identifier()?;
    if words.skip_symbol('.') {
        words.identifier()?;
    }
    if !words.skip_symbol('(') {
        return None;
    }
    let mut changes = Vec::new();
    elements(&mut words, &mut changes);
    // CREATE TABLE (...) SELECT: the query's columns come too.
    while let Some(token) = words.next_token() {
        match token {
            Token::Symbol('(') => words.skip_to_closing(),
            token if token.is_keyword("SELECT") || token.is_keyword("AS") => return None,
            _ => {}
        }
    }
    // Without a primary key a unique one may stand in, and a server may add an invisible one.
    let is_key = |change: &ColumnChange| matches!(change, ColumnChange::PrimaryKey(_));
    if !changes.iter().any(is_key) {
        return None;
    }
    TableShape::default().altered(&changes)
}

/// CREATE TABLE t LIKE u: the names of u.
pub fn created_like(sql: &str, dialect: Dialect) -> Option<(Option<String>, String)> {
    let mut words = Tokens::new(sql, dialect);
    while !words.skip_keyword("TABLE") {
        words.keyword()?;
    }
    words.skip_if_exists();
    words.identifier()?;
    if words.skip_symbol('.') {
        words.identifier()?;
    }
    words.skip_symbol('(');
    if !words.skip_keyword("LIKE") {
        return None;
    }
    let first = words.identifier()?;
    if words.skip_symbol('.') {
        return Some((Some(first), words.identifier()?));
    }
    Some((None, first))
}

fn clause(words: &mut Tokens<'_>, changes: &mut Vec<ColumnChange>) {
    let Some(first) = words.keyword() else { return };
    match first.as_str() {
        "ADD" => add(words, changes),
        "DROP" => {
            let plain = words.skip_keyword("COLUMN");
            if !plain {
                let mut ahead = words.clone();
                match ahead.keyword().as_deref() {
                    Some("PRIMARY") => return changes.push(ColumnChange::DropPrimaryKey),
                    Some("INDEX" | "KEY" | "CONSTRAINT") => {
                        return changes.push(ColumnChange::OtherKeys);
                    }
                    Some("FOREIGN" | "CHECK" | "PARTITION") => return,
                    Some("SYSTEM" | "PERIOD") => return changes.push(ColumnChange::Unclear),
                    _ => {}
                }
            }
            let if_present = words.skip_if_exists();
            let change = words.identifier().map(|name| ColumnChange::Drop { name, if_present });
            changes.push(change.unwrap_or(ColumnChange::Unclear));
        }
        "RENAME" if words.skip_keyword("COLUMN") => {
            words.skip_if_exists();
            let old = words.identifier();
            words.skip_keyword("TO");
            changes.push(match (old, words.identifier()) {
                (Some(old), Some(new)) => ColumnChange::Rename { old, new },
                _ => ColumnChange::Unclear,
            });
        }
        "CHANGE" => {
            words.skip_keyword("COLUMN");
            words.skip_if_exists();
            let old = words.identifier();
            changed_column(words, old, changes);
        }
        "MODIFY" => {
            words.skip_keyword("COLUMN");
            words.skip_if_exists();
            let old = words.clone().identifier();
            changed_column(words, old, changes);
        }
        _ => {}
    }
}

fn changed_column(words: &mut Tokens<'_>, old: Option<String>, changes: &mut Vec<ColumnChange>) {
    let name = words.identifier();
    let (Some(old), Some(name)) = (old, name) else { return changes.push(ColumnChange::Unclear) };
    let read = definition(words, name);
    changes.extend(read.key(&read.column.name));
    changes.push(ColumnChange::Change { old, column: read.column, place: read.place });
}

fn add(words: &mut Tokens<'_>, changes: &mut Vec<ColumnChange>) {
    let column = words.skip_keyword("COLUMN");
    let if_absent = words.skip_if_exists();
    if words.skip_symbol('(') {
        return elements(words, changes);
    }
    if !column {
        let mut ahead = words.clone();
        match ahead.keyword().as_deref() {
            Some("PARTITION") => return,
            Some("SYSTEM") => return changes.push(ColumnChange::Unclear),
            Some(word) if is_constraint(word, &ahead) => return constraint(words, changes),
            _ => {}
        }
    }
    add_column(words, if_absent, changes);
}

fn add_column(words: &mut Tokens<'_>, if_absent: bool, changes: &mut Vec<ColumnChange>) {
    let Some(name) = words.identifier() else { return changes.push(ColumnChange::Unclear) };
    let Definition { column, place, primary } = definition(words, name);
    let key = primary.then(|| ColumnChange::PrimaryKey(vec![column.name.clone()]));
    changes.push(ColumnChange::Add { column, place, if_absent });
    changes.extend(key);
}

/// The elements in brackets, up to the closing one.
fn elements(words: &mut Tokens<'_>, changes: &mut Vec<ColumnChange>) {
    loop {
        let mut ahead = words.clone();
        match ahead.keyword().as_deref() {
            Some("LIKE") => changes.push(ColumnChange::Unclear),
            Some(word) if is_constraint(word, &ahead) => constraint(words, changes),
            _ => add_column(words, false, changes),
        }
        loop {
            match words.next_token() {
                Some(Token::Symbol(',')) => break,
                Some(Token::Symbol('(')) => words.skip_to_closing(),
                Some(Token::Symbol(')')) | None => return,
                Some(_) => {}
            }
        }
    }
}

fn is_constraint(word: &str, after: &Tokens<'_>) -> bool {
    match word {
        "CONSTRAINT" | "PRIMARY" | "UNIQUE" | "INDEX" | "KEY" | "FULLTEXT" | "SPATIAL"
        | "FOREIGN" | "CHECK" => true,
        "VECTOR" => {
            let mut after = after.clone();
            after.skip_keyword("INDEX") || after.skip_keyword("KEY")
        }
        "PERIOD" => after.clone().skip_keyword("FOR"),
        _ => false,
    }
}

fn constraint(words: &mut Tokens<'_>, changes: &mut Vec<ColumnChange>) {
    if words.skip_keyword("CONSTRAINT") {
        let mut ahead = words.clone();
        let named =
            !matches!(ahead.keyword().as_deref(), Some("PRIMARY" | "UNIQUE" | "FOREIGN" | "CHECK"));
        if named {
            words.identifier();
        }
    }
    if words.skip_keyword("UNIQUE") {
        return changes.push(ColumnChange::OtherKeys);
    }
    if !words.skip_keyword("PRIMARY") {
        return;
    }
    while let Some(token) = words.next_token() {
        if token == Token::Symbol('(') {
            return changes.push(key_parts(words).unwrap_or(ColumnChange::Unclear));
        }
    }
    changes.push(ColumnChange::Unclear);
}

/// The columns of a key, up to the closing bracket. A part of a column or an expression is no column.
fn key_parts(words: &mut Tokens<'_>) -> Option<ColumnChange> {
    let mut names = Vec::new();
    loop {
        names.push(words.identifier()?);
        loop {
            match words.next_token()? {
                Token::Symbol(',') => break,
                Token::Symbol(')') => return Some(ColumnChange::PrimaryKey(names)),
                Token::Symbol('(') => return None,
                _ => {}
            }
        }
    }
}

struct Definition {
    column: NamedColumn,
    place: Option<Place>,
    primary: bool,
}

impl Definition {
    fn key(&self, name: &str) -> Option<ColumnChange> {
        self.primary.then(|| ColumnChange::PrimaryKey(vec![name.to_owned()]))
    }
}

/// A column's definition, up to the comma or bracket that ends it.
fn definition(words: &mut Tokens<'_>, name: String) -> Definition {
    let column = column_type(words, name);
    let mut read = Definition { column, place: None, primary: false };
    let mut after_unique = false;
    loop {
        let mut ahead = words.clone();
        let token = match ahead.next_token() {
            None | Some(Token::Symbol(',' | ')')) => return read,
            Some(token) => token,
        };
        *words = ahead;
        let Token::Word(word) = token else {
            if token == Token::Symbol('(') {
                words.skip_to_closing();
            }
            continue;
        };
        let word = word.to_ascii_uppercase();
        match word.as_str() {
            "UNSIGNED" | "ZEROFILL" => read.column.unsigned = true,
            "CHARACTER" | "CHARSET" | "COLLATE" => {
                words.skip_keyword("SET");
                words.skip_symbol('=');
                let named = words.identifier().unwrap_or_default();
                if named.eq_ignore_ascii_case("binary") {
                    become_bytes(&mut read.column);
                }
            }
            "BYTE" => become_bytes(&mut read.column),
            "KEY" if !after_unique => read.primary = true,
            "FIRST" => read.place = Some(Place::First),
            "AFTER" => read.place = words.identifier().map(Place::After),
            // The word behind these is none of ours.
            "DEFAULT" | "COMMENT" | "UPDATE" | "DELETE" => {
                words.next_token();
            }
            "REFERENCES" => {
                words.identifier();
            }
            _ => {}
        }
        after_unique = word == "UNIQUE";
    }
}

fn become_bytes(column: &mut NamedColumn) {
    if column.kind == "text" {
        "bytes".clone_into(&mut column.kind);
    }
}

fn column_type(words: &mut Tokens<'_>, name: String) -> NamedColumn {
    let mut column = NamedColumn { name, kind: "any".into(), ..NamedColumn::default() };
    let Some(mut word) = words.keyword() else { return column };
    let national = word == "NATIONAL";
    if national {
        word = words.keyword().unwrap_or_default();
    }
    let kind = match word.as_str() {
        "TINYINT" | "INT1" | "BOOL" | "BOOLEAN" => "tinyint",
        "SMALLINT" | "INT2" => "smallint",
        "MEDIUMINT" | "INT3" | "MIDDLEINT" => "mediumint",
        "INT" | "INTEGER" | "INT4" => "int",
        "BIGINT" | "INT8" => "bigint",
        "SERIAL" => {
            column.unsigned = true;
            "bigint"
        }
        "FLOAT" | "FLOAT4" => "float",
        "DOUBLE" | "FLOAT8" => {
            words.skip_keyword("PRECISION");
            "double"
        }
        "REAL" => "real",
        "DECIMAL" | "DEC" | "NUMERIC" | "FIXED" => "decimal",
        "BIT" => "bit",
        "DATE" => "date",
        "TIME" => "time",
        "DATETIME" => "datetime",
        "TIMESTAMP" => "timestamp",
        "YEAR" => "year",
        "CHAR" | "CHARACTER" | "NCHAR" | "VARCHAR" | "VARCHARACTER" | "NVARCHAR" | "TINYTEXT"
        | "TEXT" | "MEDIUMTEXT" | "LONGTEXT" => {
            words.skip_keyword("VARYING");
            "text"
        }
        "LONG" if words.skip_keyword("VARBINARY") => "bytes",
        "LONG" => {
            words.skip_keyword("VARCHAR");
            "text"
        }
        "BINARY" => "binary",
        "VARBINARY" | "TINYBLOB" | "BLOB" | "MEDIUMBLOB" | "LONGBLOB" => "bytes",
        "ENUM" => "enum",
        "SET" => "set",
        "JSON" => "json",
        "POINT" => "point",
        "GEOMETRY" | "LINESTRING" | "POLYGON" | "MULTIPOINT" | "MULTILINESTRING"
        | "MULTIPOLYGON" | "GEOMCOLLECTION" | "GEOMETRYCOLLECTION" => "geometry",
        "VECTOR" => "vector",
        _ => "any",
    };
    kind.clone_into(&mut column.kind);
    let (numbers, members) = arguments(words);
    match kind {
        "decimal" => {
            column.numbers =
                vec![numbers.first().copied().unwrap_or(10), numbers.get(1).copied().unwrap_or(0)];
        }
        "bit" => column.numbers = vec![numbers.first().copied().unwrap_or(1)],
        "time" | "datetime" | "timestamp" => {
            column.numbers = vec![numbers.first().copied().unwrap_or(0)];
        }
        "float" if numbers.len() == 1 && numbers[0] > 24 => "double".clone_into(&mut column.kind),
        "enum" | "set" => column.members = members,
        _ => {}
    }
    column
}

/// What stands in brackets behind a type.
fn arguments(words: &mut Tokens<'_>) -> (Vec<u16>, Vec<String>) {
    let (mut numbers, mut members) = (Vec::new(), Vec::new());
    if !words.skip_symbol('(') {
        return (numbers, members);
    }
    loop {
        match words.next_token() {
            Some(Token::Word(word)) => numbers.extend(word.parse::<u16>()),
            // The server cuts blanks off a member's end.
            Some(Token::Text(text)) => members.push(text.trim_end_matches(' ').to_owned()),
            Some(Token::Symbol(')')) | None => return (numbers, members),
            Some(_) => {}
        }
    }
}
