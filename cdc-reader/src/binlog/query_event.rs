//! QUERY events: a statement, and how its session wrote it.

use std::borrow::Cow;

use super::{
    byte_reader::{Malformed, little_endian, take, take_array, take_le},
    ddl::Dialect,
};
use crate::encode::charset::{Charset, decode, of_collation};

/// `MODE_ANSI_QUOTES` and `MODE_NO_BACKSLASH_ESCAPES` in `sql_mode`.
const ANSI_QUOTES: u64 = 1 << 2;
const NO_BACKSLASH_ESCAPES: u64 = 1 << 20;

/// A statement.
#[derive(Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The session's number.
    pub thread: u32,
    /// The session's default database.
    pub database: Cow<'a, str>,
    /// The statement, from the client's character set.
    pub sql: Cow<'a, str>,
    /// How the session quotes. `mariadb` is not known here.
    pub dialect: Dialect,
}

impl<'a> Query<'a> {
    /// Reads the body: thread 4, seconds 4, length of the database 1, error 2, length of the status variables 2, those,
    /// the database with a zero byte, the statement.
    pub fn parse(mut body: &'a [u8]) -> Result<Self, Malformed> {
        let thread = little_endian(take(&mut body, 4)?) as u32;
        take(&mut body, 4)?;
        let [database_length] = take_array::<1>(&mut body)?;
        take(&mut body, 2)?;
        let variables = take_le(&mut body, 2)? as usize;
        let session = Session::parse(take(&mut body, variables)?);
        let database = String::from_utf8_lossy(take(&mut body, usize::from(database_length))?);
        take(&mut body, 1)?;
        let sql = match of_collation(session.collation) {
            None | Some(Charset::Utf8) => String::from_utf8_lossy(body),
            Some(_) if body.is_ascii() => String::from_utf8_lossy(body),
            Some(charset) => Cow::Owned(decode(charset, body).0),
        };
        let dialect = Dialect {
            ansi_quotes: session.sql_mode & ANSI_QUOTES != 0,
            no_backslash_escapes: session.sql_mode & NO_BACKSLASH_ESCAPES != 0,
            mariadb: false,
        };
        Ok(Self { thread, database, sql, dialect })
    }
}

#[derive(Default)]
struct Session {
    sql_mode: u64,
    /// Of `character_set_client`.
    collation: u16,
}

impl Session {
    /// The status variables come in a fixed order with those that are looked for among the first; reading ends at one
    /// that is not known.
    fn parse(mut variables: &[u8]) -> Self {
        let mut session = Self::default();
        while let Some(Ok(())) = session.step(&mut variables) {}
        session
    }

    fn step(&mut self, input: &mut &[u8]) -> Option<Result<(), Malformed>> {
        let [code] = take_array::<1>(input).ok()?;
        Some(match code {
            0 => take(input, 4).map(drop),
            1 => take_le(input, 8).map(|mode| self.sql_mode = mode),
            2 => counted(input).and_then(|()| take(input, 1).map(drop)),
            3 => take(input, 4).map(drop),
            4 => take_le(input, 2).and_then(|client| {
                self.collation = client as u16;
                take(input, 4).map(drop)
            }),
            5 | 6 => counted(input),
            7 | 8 => take(input, 2).map(drop),
            9 => take(input, 8).map(drop),
            _ => return None,
        })
    }
}

fn counted(input: &mut &[u8]) -> Result<(), Malformed> {
    let [length] = take_array::<1>(input)?;
    take(input, usize::from(length)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(variables: &[u8], database: &str, sql: &[u8]) -> Vec<u8> {
        let mut body = vec![7, 0, 0, 0, 0, 0, 0, 0, database.len() as u8, 0, 0];
        body.extend_from_slice(&(variables.len() as u16).to_le_bytes());
        body.extend_from_slice(variables);
        body.extend_from_slice(database.as_bytes());
        body.push(0);
        body.extend_from_slice(sql);
        body
    }

    #[test]
    fn sessions_modes_and_character_set_are_read() {
        let mut variables = vec![0, 0, 0, 0, 0, 1];
        variables.extend_from_slice(&(ANSI_QUOTES | NO_BACKSLASH_ESCAPES).to_le_bytes());
        variables.extend_from_slice(b"\x06\x03std");
        variables.extend_from_slice(&[4, 8, 0, 8, 0, 8, 0, 99, 1]);
        let body = event(&variables, "d", b"DROP TABLE \"caf\xe9\"");
        let query = Query::parse(&body).expect("parses");
        assert_eq!((query.thread, &*query.database), (7, "d"));
        assert_eq!(query.sql, "DROP TABLE \"café\"");
        assert!(query.dialect.ansi_quotes && query.dialect.no_backslash_escapes);
    }

    #[test]
    fn truncated_events_are_refused() {
        let body = event(&[], "shop", b"BEGIN");
        assert_eq!(Query::parse(&body).expect("parses").sql, "BEGIN");
        for end in 0..body.len() - 5 {
            assert!(Query::parse(&body[..end]).is_err(), "{end}");
        }
    }
}
