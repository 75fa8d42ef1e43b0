//! Classifies statements in QUERY events. It never fails: what it does not know is `Other`, and the rows that follow
//! carry their own table maps.

#[cfg(test)]
mod tests;

pub use super::sql_tokens::Dialect;
use super::sql_tokens::{Token, Tokens};

/// A table as a statement names it; the database is the session's when it is not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// The MySQL schema.
    pub database: String,
    /// The table.
    pub table: String,
}

/// What a statement means for the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// BEGIN or START TRANSACTION.
    Begin,
    /// COMMIT.
    Commit,
    /// ROLLBACK of the whole transaction (not to a savepoint).
    Rollback,
    /// XA START and XA BEGIN.
    XaStart,
    /// TRUNCATE TABLE.
    Truncate(TableName),
    /// CREATE TABLE (not TEMPORARY).
    CreateTable(Creation),
    /// DROP TABLE.
    DropTables(Vec<TableName>),
    /// DROP DATABASE with all its tables.
    DropDatabase(String),
    /// RENAME TABLE: old and new names in pairs.
    RenameTables(Vec<(TableName, TableName)>),
    /// ALTER TABLE and CREATE/DROP INDEX.
    AlterTable(Alteration),
    /// INSERT, UPDATE, DELETE, REPLACE or LOAD: DML in statement format.
    Dml(Option<TableName>),
    /// Anything else.
    Other,
}

/// A CREATE TABLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Creation {
    /// The table.
    pub table: TableName,
    /// MariaDB's OR REPLACE: a table of that name, and its rows, are gone.
    pub replaces: bool,
    /// CREATE TABLE ... SELECT: the rows follow in the same transaction.
    pub with_rows: bool,
}

/// An ALTER TABLE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alteration {
    /// The table.
    pub table: TableName,
    /// Its new name, when it has one.
    pub renamed: Option<TableName>,
    /// Tables whose rows are others afterwards without events that say which: by partitions that were truncated,
    /// dropped, exchanged or made tables of, and by imported tablespaces.
    pub rows_replaced: Vec<TableName>,
}

impl Statement {
    /// Brings all names into lower case, as a server with `lower_case_table_names` keeps them.
    pub fn lower_case_names(&mut self) {
        let lower = |name: &mut TableName| {
            name.database = name.database.to_lowercase();
            name.table = name.table.to_lowercase();
        };
        match self {
            Self::Truncate(table) | Self::Dml(Some(table)) => lower(table),
            Self::CreateTable(creation) => lower(&mut creation.table),
            Self::DropTables(tables) => tables.iter_mut().for_each(lower),
            Self::DropDatabase(database) => *database = database.to_lowercase(),
            Self::RenameTables(pairs) => {
                pairs.iter_mut().for_each(|(old, new)| [old, new].into_iter().for_each(lower));
            }
            Self::AlterTable(altered) => {
                lower(&mut altered.table);
                altered.renamed.iter_mut().chain(&mut altered.rows_replaced).for_each(lower);
            }
            Self::Begin
            | Self::Commit
            | Self::Rollback
            | Self::XaStart
            | Self::Dml(None)
            | Self::Other => {}
        }
    }
}

/// Classifies a statement of a session with the usual `sql_mode`. `database` is the session's default.
pub fn classify(sql: &str, database: &str) -> Statement {
    Dialect::default().classify(sql, database)
}

impl Dialect {
    /// Classifies a statement. `database` is the session's default.
    pub fn classify(self, sql: &str, database: &str) -> Statement {
        classify_tokens(sql, Tokens::new(sql, self), database)
    }
}

fn classify_tokens(sql: &str, mut words: Tokens<'_>, database: &str) -> Statement {
    // A statement in brackets is a query.
    let Some(first) = words.keyword() else { return Statement::Other };
    match first.as_str() {
        "BEGIN" => Statement::Begin,
        "START" if words.keyword().as_deref() == Some("TRANSACTION") => Statement::Begin,
        "COMMIT" => Statement::Commit,
        "ROLLBACK" => match words.keyword().as_deref() {
            Some("TO") => Statement::Other,
            Some("WORK") if words.keyword().as_deref() == Some("TO") => Statement::Other,
            _ => Statement::Rollback,
        },
        "XA" if matches!(words.keyword().as_deref(), Some("START" | "BEGIN")) => Statement::XaStart,
        "TRUNCATE" => {
            words.skip_keyword("TABLE");
            words.table(database).map_or(Statement::Other, Statement::Truncate)
        }
        "CREATE" => create(sql, &mut words, database),
        "DROP" => drop_statement(&mut words, database),
        "RENAME" => {
            if !(words.skip_keyword("TABLE") || words.skip_keyword("TABLES")) {
                return Statement::Other;
            }
            words.skip_if_exists();
            Statement::RenameTables(words.rename_pairs(database))
        }
        "ALTER" => alter(&mut words, database),
        "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" => dml(&mut words, database),
        "WITH" => with(words, database),
        // MariaDB: SET STATEMENT variable = value, ... FOR statement.
        "SET" if words.skip_keyword("STATEMENT") => {
            while let Some(token) = words.next_token() {
                match token {
                    Token::Symbol('(') => words.skip_to_closing(),
                    token if token.is_keyword("FOR") => {
                        return classify_tokens(sql, words, database);
                    }
                    _ => {}
                }
            }
            Statement::Other
        }
        _ => Statement::Other,
    }
}

fn create(sql: &str, words: &mut Tokens<'_>, database: &str) -> Statement {
    let replaces = words.skip_keywords(&["OR", "REPLACE"]);
    loop {
        match words.keyword().as_deref() {
            Some("TABLE") => {
                words.skip_if_exists();
                let Some(table) = words.table(database) else { return Statement::Other };
                let with_rows = ends_in_start_transaction(sql);
                return Statement::CreateTable(Creation { table, replaces, with_rows });
            }
            Some("INDEX") => return index_target(words, database),
            Some("UNIQUE" | "FULLTEXT" | "SPATIAL" | "VECTOR" | "ONLINE" | "OFFLINE") => {}
            _ => return Statement::Other,
        }
    }
}

/// MySQL puts these words behind a CREATE TABLE ... SELECT whose rows follow.
fn ends_in_start_transaction(sql: &str) -> bool {
    let mut words = sql.trim_end().rsplit(|c: char| c.is_ascii_whitespace());
    let mut ends_in =
        |word: &str| words.find(|w| !w.is_empty()).is_some_and(|w| w.eq_ignore_ascii_case(word));
    ends_in("TRANSACTION") && ends_in("START")
}

fn drop_statement(words: &mut Tokens<'_>, database: &str) -> Statement {
    match words.keyword().as_deref() {
        Some("TABLE" | "TABLES") => {
            words.skip_if_exists();
            let mut tables = Vec::new();
            while let Some(table) = words.table(database) {
                tables.push(table);
                if !words.skip_symbol(',') {
                    break;
                }
            }
            Statement::DropTables(tables)
        }
        Some("DATABASE" | "SCHEMA") => {
            words.skip_if_exists();
            words.identifier().map_or(Statement::Other, Statement::DropDatabase)
        }
        Some("INDEX" | "ONLINE" | "OFFLINE") => index_target(words, database),
        _ => Statement::Other,
    }
}

/// `INDEX name ... ON table`.
fn index_target(words: &mut Tokens<'_>, database: &str) -> Statement {
    while let Some(token) = words.next_token() {
        if token.is_keyword("ON") {
            return words.table(database).map_or(Statement::Other, |table| {
                Statement::AlterTable(Alteration { table, renamed: None, rows_replaced: vec![] })
            });
        }
    }
    Statement::Other
}

fn alter(words: &mut Tokens<'_>, database: &str) -> Statement {
    let Some(table) = altered_table(words, database) else { return Statement::Other };
    let mut renamed = None;
    let mut replaced: Vec<TableName> = Vec::new();
    loop {
        match words.keyword().as_deref() {
            // RENAME [TO|AS|=] u, but not RENAME COLUMN|INDEX|KEY.
            Some("RENAME") => {
                let mut ahead = words.clone();
                match ahead.keyword().as_deref() {
                    Some("COLUMN" | "INDEX" | "KEY") => {}
                    Some("TO" | "AS") => renamed = ahead.table(database).or(renamed),
                    _ => {
                        words.skip_symbol('=');
                        renamed = words.table(database).or(renamed);
                    }
                }
            }
            Some("TRUNCATE" | "DROP") if words.skip_keyword("PARTITION") => {
                replaced.push(table.clone());
            }
            Some("IMPORT" | "DISCARD") => replaced.push(table.clone()),
            // EXCHANGE PARTITION p WITH TABLE u; MariaDB: CONVERT PARTITION p TO TABLE u.
            Some("EXCHANGE" | "CONVERT") if words.skip_keyword("PARTITION") => {
                replaced.push(table.clone());
                words.identifier();
                if words.skip_keywords(&["WITH", "TABLE"]) || words.skip_keywords(&["TO", "TABLE"])
                {
                    replaced.extend(words.table(database));
                }
            }
            // MariaDB: CONVERT TABLE u TO PARTITION p.
            Some("CONVERT") if words.skip_keyword("TABLE") => {
                replaced.push(table.clone());
                replaced.extend(words.table(database));
            }
            _ => {}
        }
        if !words.skip_clause() {
            break;
        }
    }
    Statement::AlterTable(Alteration { table, renamed, rows_replaced: replaced })
}

/// After ALTER: the table, up to the first clause.
pub(super) fn altered_table(words: &mut Tokens<'_>, database: &str) -> Option<TableName> {
    while words.skip_keyword("ONLINE")
        || words.skip_keyword("OFFLINE")
        || words.skip_keyword("IGNORE")
    {}
    if !words.skip_keyword("TABLE") {
        return None;
    }
    words.skip_if_exists();
    let table = words.table(database);
    words.skip_wait();
    table
}

/// `WITH name AS (...) UPDATE t ...`.
fn with(mut words: Tokens<'_>, database: &str) -> Statement {
    while let Some(token) = words.next_token() {
        match token {
            Token::Symbol('(') => words.skip_to_closing(),
            token if token.is_keyword("UPDATE") || token.is_keyword("DELETE") => {
                return dml(&mut words, database);
            }
            _ => {}
        }
    }
    Statement::Other
}

fn dml(words: &mut Tokens<'_>, database: &str) -> Statement {
    const MODIFIERS: [&str; 14] = [
        "INTO",
        "FROM",
        "LOW_PRIORITY",
        "DELAYED",
        "HIGH_PRIORITY",
        "IGNORE",
        "QUICK",
        "DATA",
        "LOCAL",
        "CONCURRENT",
        "INFILE",
        "TABLE",
        "XML",
        "REPLACE",
    ];
    let mut ahead = words.clone();
    while let Some(word) = ahead.keyword() {
        if !MODIFIERS.contains(&word.as_str()) {
            break;
        }
        *words = ahead.clone();
    }
    // LOAD DATA's file name stands before the table.
    let mut ahead = words.clone();
    if let Some(Token::Text(_)) = ahead.next_token() {
        while let Some(token) = ahead.next_token() {
            if token.is_keyword("TABLE") {
                return Statement::Dml(ahead.table(database));
            }
        }
        return Statement::Dml(None);
    }
    Statement::Dml(words.table(database))
}

impl Tokens<'_> {
    fn table(&mut self, database: &str) -> Option<TableName> {
        // `.t` is an old way to write `t`.
        self.skip_symbol('.');
        let first = self.identifier()?;
        if self.skip_symbol('.') {
            let table = self.identifier()?;
            return Some(TableName { database: first, table });
        }
        Some(TableName { database: database.to_owned(), table: first })
    }

    fn rename_pairs(&mut self, database: &str) -> Vec<(TableName, TableName)> {
        let mut pairs = Vec::new();
        while let Some(old) = self.table(database) {
            self.skip_wait();
            self.skip_keyword("TO");
            let Some(new) = self.table(database) else { break };
            pairs.push((old, new));
            if !self.skip_symbol(',') {
                break;
            }
        }
        pairs
    }

    /// Steps over the rest of a clause and its comma; answers whether another clause follows.
    pub(super) fn skip_clause(&mut self) -> bool {
        loop {
            match self.next_token() {
                Some(Token::Symbol(',')) => return true,
                Some(Token::Symbol('(')) => self.skip_to_closing(),
                Some(_) => {}
                None => return false,
            }
        }
    }
}
