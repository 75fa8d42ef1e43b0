//! Which server answers: MySQL 8.0 and newer, an older MySQL, or MariaDB.

use std::fmt;

/// A server's kind and version, from `VERSION()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flavor {
    /// Whose server it is.
    pub kind: Kind,
    /// Major, minor and patch number.
    pub version: Version,
    text: String,
}

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Oracle's MySQL and what is compatible with it (Percona Server, RDS, Aurora).
    MySql,
    /// MariaDB.
    MariaDb,
}

/// A version number; ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 8 of 8.4.3.
    pub major: u16,
    /// 4 of 8.4.3.
    pub minor: u16,
    /// 3 of 8.4.3.
    pub patch: u16,
}

/// The oldest MariaDB whose catalog tells a collation's number as its binlog does.
const MARIADB_OLDEST: Version = Version { major: 10, minor: 11, patch: 0 };

impl Flavor {
    /// Reads the text of `VERSION()`.
    pub fn parse(text: &str) -> Self {
        let kind =
            if text.to_ascii_lowercase().contains("mariadb") { Kind::MariaDb } else { Kind::MySql };
        // Old MariaDB servers put "5.5.5-" in front, for replicas that know no two-digit version.
        let number = match kind {
            Kind::MariaDb => text.strip_prefix("5.5.5-").unwrap_or(text),
            Kind::MySql => text,
        };
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        let version = Version { major: next(), minor: next(), patch: next() };
        Self { kind, version, text: text.into() }
    }

    /// Why this server cannot be captured; `None` when it can.
    pub fn finding(&self) -> Option<String> {
        match self.kind {
            Kind::MariaDb if self.version < MARIADB_OLDEST => Some(format!(
                "the server is MariaDB {}, which is older than any that is read: upgrade it to 10.11 or newer",
                self.text
            )),
            Kind::MySql if self.version.major < 8 => Some(format!(
                "the server is MySQL {}, which cannot tell column names in its binlog: upgrade it to 8.0 or newer",
                self.text
            )),
            Kind::MySql | Kind::MariaDb => None,
        }
    }

    /// The statement that tells the end of the binlog; renamed in 8.2, the old name was removed in 8.4.
    pub fn binlog_status_statement(&self) -> &'static str {
        if self.kind == Kind::MySql && self.version >= (Version { major: 8, minor: 2, patch: 0 }) {
            "SHOW BINARY LOG STATUS"
        } else {
            "SHOW MASTER STATUS"
        }
    }
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart() {
        let cases = [
            ("9.7.4-2", Kind::MySql, (9, 7, 4), true, "SHOW BINARY LOG STATUS"),
            ("8.0.36-28.1", Kind::MySql, (8, 0, 36), true, "SHOW MASTER STATUS"),
            ("8.4.0", Kind::MySql, (8, 4, 0), true, "SHOW BINARY LOG STATUS"),
            ("5.7.44-log", Kind::MySql, (5, 7, 44), false, "SHOW MASTER STATUS"),
            ("10.11.6-MariaDB-1", Kind::MariaDb, (10, 11, 6), true, "SHOW MASTER STATUS"),
            ("5.5.5-10.4.1-MariaDB", Kind::MariaDb, (10, 4, 1), false, "SHOW MASTER STATUS"),
        ];
        for (text, kind, (major, minor, patch), usable, statement) in cases {
            let flavor = Flavor::parse(text);
            assert_eq!(flavor.kind, kind, "{text}");
            assert_eq!(flavor.version, Version { major, minor, patch }, "{text}");
            assert_eq!(flavor.finding().is_none(), usable, "{text}");
            assert_eq!(flavor.binlog_status_statement(), statement, "{text}");
        }
    }
}
