//! Classifies statements in QUERY events. It never fails: what it does not know is `Other`, and the rows that follow
//! carry their own table maps.

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
    CreateTable(TableName),
    /// DROP TABLE.
    DropTables(Vec<TableName>),
    /// RENAME TABLE, and ALTER TABLE ... RENAME: old and new names in pairs.
    RenameTables(Vec<(TableName, TableName)>),
    /// ALTER TABLE and CREATE/DROP INDEX.
    AlterTable(TableName),
    /// INSERT, UPDATE, DELETE, REPLACE or LOAD: DML in statement format.
    Dml(Option<TableName>),
    /// Anything else.
    Other,
}

/// Classifies a statement. `database` is the session's default.
pub fn classify(sql: &str, database: &str) -> Statement {
    let mut words = Tokens::new(sql);
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
        "CREATE" => create(&mut words, database),
        "DROP" => drop_statement(&mut words, database),
        "RENAME" => {
            if !(words.skip_keyword("TABLE") || words.skip_keyword("TABLES")) {
                return Statement::Other;
            }
            Statement::RenameTables(words.rename_pairs(database))
        }
        "ALTER" => alter(&mut words, database),
        "INSERT" | "REPLACE" | "UPDATE" | "DELETE" | "LOAD" => dml(&mut words, database),
        _ => Statement::Other,
    }
}

fn create(words: &mut Tokens<'_>, database: &str) -> Statement {
    loop {
        match words.keyword().as_deref() {
            Some("TABLE") => {
                words.skip_if_exists();
                return words.table(database).map_or(Statement::Other, Statement::CreateTable);
            }
            Some("INDEX") => return index_target(words, database),
            Some("UNIQUE" | "FULLTEXT" | "SPATIAL") => {}
            _ => return Statement::Other,
        }
    }
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
        Some("INDEX") => index_target(words, database),
        _ => Statement::Other,
    }
}

/// `INDEX name ... ON table`.
fn index_target(words: &mut Tokens<'_>, database: &str) -> Statement {
    while let Some(token) = words.next_token() {
        if token.is_keyword("ON") {
            return words.table(database).map_or(Statement::Other, Statement::AlterTable);
        }
    }
    Statement::Other
}

fn alter(words: &mut Tokens<'_>, database: &str) -> Statement {
    while words.skip_keyword("ONLINE")
        || words.skip_keyword("OFFLINE")
        || words.skip_keyword("IGNORE")
    {}
    if !words.skip_keyword("TABLE") {
        return Statement::Other;
    }
    let Some(table) = words.table(database) else { return Statement::Other };
    // ALTER TABLE t RENAME [TO|AS] u, but not RENAME COLUMN|INDEX|KEY.
    while let Some(token) = words.next_token() {
        if token.is_keyword("RENAME") {
            let mut ahead = words.clone();
            match ahead.keyword().as_deref() {
                Some("COLUMN" | "INDEX" | "KEY") => continue,
                Some("TO" | "AS") => {}
                _ => ahead = words.clone(),
            }
            ahead.skip_symbol('=');
            if let Some(new) = ahead.table(database) {
                return Statement::RenameTables(vec![(table, new)]);
            }
        }
    }
    Statement::AlterTable(table)
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
    if let Some(Token::Text) = ahead.next_token() {
        while let Some(token) = ahead.next_token() {
            if token.is_keyword("TABLE") {
                return Statement::Dml(ahead.table(database));
            }
        }
        return Statement::Dml(None);
    }
    Statement::Dml(words.table(database))
}

#[derive(Clone, Debug)]
enum Token {
    /// A bare word.
    Word(String),
    /// A quoted identifier.
    Quoted(String),
    /// A string.
    Text,
    Symbol(char),
}

impl Token {
    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// Splits SQL into tokens; comments are skipped, versioned comments (`/*!50100 ... */`) are read.
#[derive(Clone)]
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    fn new(sql: &'a str) -> Self {
        Self { rest: sql }
    }

    fn next_token(&mut self) -> Option<Token> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        match first {
            '`' | '"' => self.quoted(first).map(Token::Quoted),
            '\'' => self.quoted(first).map(|_| Token::Text),
            c if is_word(c) => {
                let end = self.rest.find(|c| !is_word(c)).unwrap_or(self.rest.len());
                let (word, rest) = self.rest.split_at(end);
                self.rest = rest;
                Some(Token::Word(word.to_owned()))
            }
            other => {
                self.rest = &self.rest[other.len_utf8()..];
                Some(Token::Symbol(other))
            }
        }
    }

    fn skip_blank(&mut self) {
        loop {
            let trimmed = self.rest.trim_start_matches(|c: char| c.is_whitespace() || c == ';');
            self.rest = if let Some(inside) = trimmed.strip_prefix("/*!") {
                inside.trim_start_matches(|c: char| c.is_ascii_digit())
            } else if let Some(inside) = trimmed.strip_prefix("/*") {
                inside.split_once("*/").map_or("", |(_, after)| after)
            } else if let Some(after) = trimmed.strip_prefix("*/") {
                after
            } else if trimmed.starts_with("-- ")
                || trimmed.starts_with("--\n")
                || trimmed.starts_with('#')
            {
                trimmed.split_once('\n').map_or("", |(_, after)| after)
            } else {
                self.rest = trimmed;
                return;
            };
        }
    }

    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == '\\' && quote != '`' {
                text.extend(chars.next().map(|(_, c)| c));
            } else if c != quote {
                text.push(c);
            } else if chars.peek().is_some_and(|&(_, next)| next == quote) {
                chars.next();
                text.push(quote);
            } else {
                self.rest = &self.rest[at + quote.len_utf8()..];
                return Some(text);
            }
        }
        self.rest = "";
        None
    }

    /// The next token if it is a bare word, in upper case.
    fn keyword(&mut self) -> Option<String> {
        let mut ahead = self.clone();
        match ahead.next_token()? {
            Token::Word(word) => {
                *self = ahead;
                Some(word.to_ascii_uppercase())
            }
            _ => None,
        }
    }

    fn skip_keyword(&mut self, keyword: &str) -> bool {
        let mut ahead = self.clone();
        let found = ahead.next_token().is_some_and(|token| token.is_keyword(keyword));
        if found {
            *self = ahead;
        }
        found
    }

    fn skip_symbol(&mut self, symbol: char) -> bool {
        let mut ahead = self.clone();
        let found = matches!(ahead.next_token(), Some(Token::Symbol(c)) if c == symbol);
        if found {
            *self = ahead;
        }
        found
    }

    /// `IF EXISTS` and `IF NOT EXISTS`.
    fn skip_if_exists(&mut self) {
        if self.skip_keyword("IF") {
            self.skip_keyword("NOT");
            self.skip_keyword("EXISTS");
        }
    }

    fn identifier(&mut self) -> Option<String> {
        let mut ahead = self.clone();
        match ahead.next_token()? {
            Token::Word(name) | Token::Quoted(name) => {
                *self = ahead;
                Some(name)
            }
            _ => None,
        }
    }

    fn table(&mut self, database: &str) -> Option<TableName> {
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
            self.skip_keyword("TO");
            let Some(new) = self.table(database) else { break };
            pairs.push((old, new));
            if !self.skip_symbol(',') {
                break;
            }
        }
        pairs
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(database: &str, table: &str) -> TableName {
        TableName { database: database.into(), table: table.into() }
    }

    #[test]
    fn statements() {
        let cases = [
            ("BEGIN", Statement::Begin),
            ("/* x */ commit", Statement::Commit),
            ("ROLLBACK TO `s1`", Statement::Other),
            ("rollback", Statement::Rollback),
            ("XA START X'01'", Statement::XaStart),
            ("TRUNCATE t", Statement::Truncate(name("d", "t"))),
            ("truncate table `a.b`.`c``d`", Statement::Truncate(name("a.b", "c`d"))),
            ("CREATE TABLE IF NOT EXISTS x.y (a int)", Statement::CreateTable(name("x", "y"))),
            ("CREATE TEMPORARY TABLE y (a int)", Statement::Other),
            ("CREATE UNIQUE INDEX i USING BTREE ON t (a)", Statement::AlterTable(name("d", "t"))),
            (
                "DROP TABLE IF EXISTS `a`, b.c /* generated by server */",
                Statement::DropTables(vec![name("d", "a"), name("b", "c")]),
            ),
            (
                "RENAME TABLE a TO b, c.d TO c.e",
                Statement::RenameTables(vec![
                    (name("d", "a"), name("d", "b")),
                    (name("c", "d"), name("c", "e")),
                ]),
            ),
            (
                "ALTER TABLE t RENAME u",
                Statement::RenameTables(vec![(name("d", "t"), name("d", "u"))]),
            ),
            ("ALTER TABLE t RENAME COLUMN a TO b", Statement::AlterTable(name("d", "t"))),
            ("/*!50100 ALTER TABLE t FORCE */", Statement::AlterTable(name("d", "t"))),
            ("insert into `t` values ('x')", Statement::Dml(Some(name("d", "t")))),
            ("LOAD DATA INFILE 'f' INTO TABLE q.t", Statement::Dml(Some(name("q", "t")))),
            ("GRANT SELECT ON *.* TO u", Statement::Other),
            ("", Statement::Other),
        ];
        for (sql, expected) in cases {
            assert_eq!(classify(sql, "d"), expected, "{sql}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(sql in ".*", tail in "[`'\"/*!;#. a-z-]{0,40}") {
            classify(&sql, "d");
            for start in ["ALTER TABLE ", "DROP TABLE ", "INSERT ", "RENAME TABLE "] {
                classify(&format!("{start}{tail}"), "d");
            }
        }
    }
}
