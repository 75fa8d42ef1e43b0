//! Splits a statement into tokens, by the rules of the session that wrote it. It reads any text to its end.

/// How a session's statements are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dialect {
    /// `"a"` is a name, not a string (`sql_mode` ANSI_QUOTES).
    pub ansi_quotes: bool,
    /// A backslash in a string is a character like others (`sql_mode` NO_BACKSLASH_ESCAPES).
    pub no_backslash_escapes: bool,
    /// The server reads what stands in `/*M! ... */`.
    pub mariadb: bool,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// A bare word or a number.
    Word(String),
    /// A quoted name.
    Quoted(String),
    /// A string.
    Text(String),
    Symbol(char),
}

impl Token {
    pub(super) fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self, Token::Word(word) if word.eq_ignore_ascii_case(keyword))
    }
}

/// See the module. Comments are skipped; what stands in versioned comments (`/*!50100 ... */`) is read: the server
/// writes those that it did not execute to the binlog as plain comments.
#[derive(Clone)]
pub(super) struct Tokens<'a> {
    rest: &'a str,
    dialect: Dialect,
}

/// From this version on a versioned comment is for no server (`/*M!999999\- enable the sandbox mode */`).
const NO_SERVER: u32 = 990_000;

impl<'a> Tokens<'a> {
    pub(super) fn new(sql: &'a str, dialect: Dialect) -> Self {
        Self { rest: sql, dialect }
    }

    pub(super) fn next_token(&mut self) -> Option<Token> {
        self.skip_blank();
        let first = self.rest.chars().next()?;
        match first {
            '`' => self.quoted(first).map(Token::Quoted),
            '"' if self.dialect.ansi_quotes => self.quoted(first).map(Token::Quoted),
            '"' | '\'' => self.quoted(first).map(Token::Text),
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
            let trimmed = self.rest.trim_start_matches(|c: char| is_blank(c) || c == ';');
            self.rest = if let Some(inside) = trimmed.strip_prefix("/*!") {
                inside_versioned(inside)
            } else if let Some(inside) =
                trimmed.strip_prefix("/*M!").filter(|_| self.dialect.mariadb)
            {
                inside_versioned(inside)
            } else if let Some(inside) = trimmed.strip_prefix("/*") {
                after_comment(inside)
            } else if let Some(after) = trimmed.strip_prefix("*/") {
                after
            } else if trimmed.starts_with('#') || is_dash_comment(trimmed) {
                trimmed.split_once('\n').map_or("", |(_, after)| after)
            } else {
                self.rest = trimmed;
                return;
            };
        }
    }

    fn quoted(&mut self, quote: char) -> Option<String> {
        let name = quote == '`' || quote == '"' && self.dialect.ansi_quotes;
        let escapes = !name && !self.dialect.no_backslash_escapes;
        let mut text = String::new();
        let mut chars = self.rest.char_indices().skip(1).peekable();
        while let Some((at, c)) = chars.next() {
            if c == '\\' && escapes {
                if let Some((_, escaped)) = chars.next() {
                    push_escaped(&mut text, escaped);
                }
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
    pub(super) fn keyword(&mut self) -> Option<String> {
        let mut ahead = self.clone();
        match ahead.next_token()? {
            Token::Word(word) => {
                *self = ahead;
                Some(word.to_ascii_uppercase())
            }
            _ => None,
        }
    }

    pub(super) fn skip_keyword(&mut self, keyword: &str) -> bool {
        self.skip_if(|token| token.is_keyword(keyword))
    }

    /// All of them in this order, or none.
    pub(super) fn skip_keywords(&mut self, keywords: &[&str]) -> bool {
        let mut ahead = self.clone();
        let found = keywords.iter().all(|keyword| ahead.skip_keyword(keyword));
        if found {
            *self = ahead;
        }
        found
    }

    pub(super) fn skip_symbol(&mut self, symbol: char) -> bool {
        self.skip_if(|token| *token == Token::Symbol(symbol))
    }

    fn skip_if(&mut self, wanted: impl Fn(&Token) -> bool) -> bool {
        let mut ahead = self.clone();
        let found = ahead.next_token().is_some_and(|token| wanted(&token));
        if found {
            *self = ahead;
        }
        found
    }

    /// `IF EXISTS` and `IF NOT EXISTS`.
    pub(super) fn skip_if_exists(&mut self) -> bool {
        self.skip_keywords(&["IF", "NOT", "EXISTS"]) || self.skip_keywords(&["IF", "EXISTS"])
    }

    /// MariaDB's `WAIT n` and `NOWAIT`.
    pub(super) fn skip_wait(&mut self) {
        let mut ahead = self.clone();
        let number =
            |token| matches!(token, Token::Word(n) if n.bytes().all(|b| b.is_ascii_digit()));
        if ahead.skip_keyword("NOWAIT")
            || ahead.skip_keyword("WAIT") && ahead.next_token().is_some_and(number)
        {
            *self = ahead;
        }
    }

    pub(super) fn identifier(&mut self) -> Option<String> {
        let mut ahead = self.clone();
        match ahead.next_token()? {
            Token::Word(name) | Token::Quoted(name) => {
                *self = ahead;
                Some(name)
            }
            _ => None,
        }
    }

    /// After an opening bracket: steps over everything up to its closing one.
    pub(super) fn skip_to_closing(&mut self) {
        let mut depth = 1u32;
        while depth > 0 {
            match self.next_token() {
                Some(Token::Symbol('(')) => depth += 1,
                Some(Token::Symbol(')')) => depth -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || c >= '\u{80}'
}

/// What MySQL takes for blank; other kinds of Unicode's blanks belong to names.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

/// Two dashes begin a comment only with a blank or nothing behind them.
fn is_dash_comment(text: &str) -> bool {
    text.strip_prefix("--")
        .is_some_and(|after| after.chars().next().is_none_or(|c| c <= ' ' || c == '\x7f'))
}

fn after_comment(inside: &str) -> &str {
    inside.split_once("*/").map_or("", |(_, after)| after)
}

/// What is to be read after `/*!`: the content, without the version that stands in front.
fn inside_versioned(inside: &str) -> &str {
    let content = inside.trim_start_matches(|c: char| c.is_ascii_digit());
    match inside[..inside.len() - content.len()].parse::<u32>() {
        Ok(version) if version >= NO_SERVER => after_comment(content),
        _ => content,
    }
}

/// `\%` and `\_` stay as they are in strings.
fn push_escaped(text: &mut String, escaped: char) {
    match escaped {
        '0' => text.push('\0'),
        'b' => text.push('\x08'),
        'n' => text.push('\n'),
        'r' => text.push('\r'),
        't' => text.push('\t'),
        'Z' => text.push('\x1a'),
        '%' | '_' => text.extend(['\\', escaped]),
        other => text.push(other),
    }
}
