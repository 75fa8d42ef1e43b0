//! MariaDB's GTIDs, `domain-server-sequence`, and positions: the last GTID of each domain, separated by commas. A
//! domain's transactions are in one order on all servers, so its last GTID stands for all before it.

use std::{collections::BTreeMap, fmt, str::FromStr};

use thiserror::Error;

/// The name of one transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MariaDbGtid {
    /// The stream of transactions that it belongs to.
    pub domain: u32,
    /// The server that made it.
    pub server: u32,
    /// Its number in the domain.
    pub sequence: u64,
}

/// The last transaction of each domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MariaDbPosition {
    last: BTreeMap<u32, MariaDbGtid>,
}

/// A text that is not such a position.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{0}' is no GTID position of MariaDB: each part is domain-server-sequence")]
pub struct InvalidMariaDbGtid(pub String);

impl MariaDbPosition {
    /// Whether it stands before every transaction.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// Moves the GTID's domain to it.
    pub fn insert(&mut self, gtid: MariaDbGtid) {
        self.last.insert(gtid.domain, gtid);
    }

    /// Whether the transaction is before or at the position.
    pub fn contains(&self, gtid: &MariaDbGtid) -> bool {
        self.last.get(&gtid.domain).is_some_and(|last| last.sequence >= gtid.sequence)
    }

    /// Whether this position is at or after `other` in every domain.
    pub fn contains_position(&self, other: &MariaDbPosition) -> bool {
        other.last.values().all(|gtid| self.contains(gtid))
    }

    /// What `other` has beyond this position.
    pub fn missing(&self, other: &MariaDbPosition) -> MariaDbPosition {
        let beyond = other.last.iter().filter(|(_, gtid)| !self.contains(gtid));
        MariaDbPosition { last: beyond.map(|(domain, gtid)| (*domain, *gtid)).collect() }
    }
}

impl fmt::Display for MariaDbGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl fmt::Display for MariaDbPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, gtid) in self.last.values().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{gtid}")?;
        }
        Ok(())
    }
}

impl FromStr for MariaDbGtid {
    type Err = InvalidMariaDbGtid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split('-');
        let mut next = || parts.next().filter(|part| part.bytes().all(|b| b.is_ascii_digit()));
        let (domain, server, sequence, end) = (next(), next(), next(), next());
        let number = |part: Option<&str>| part.and_then(|part| part.parse::<u64>().ok());
        let small = |part| number(part).and_then(|number| u32::try_from(number).ok());
        match (small(domain), small(server), number(sequence), end) {
            (Some(domain), Some(server), Some(sequence), None) => {
                Ok(Self { domain, server, sequence })
            }
            _ => Err(InvalidMariaDbGtid(text.chars().take(200).collect())),
        }
    }
}

impl FromStr for MariaDbPosition {
    type Err = InvalidMariaDbGtid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut position = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            position.insert(part.parse()?);
        }
        Ok(position)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position(text: &str) -> MariaDbPosition {
        text.parse().expect("valid")
    }

    #[test]
    fn text_is_sorted_by_domain_and_reads_back() {
        let parsed = position("7-2-9, 0-1-100");
        assert_eq!(parsed.to_string(), "0-1-100,7-2-9");
        assert_eq!(position(&parsed.to_string()), parsed);
        assert_eq!(position(""), MariaDbPosition::default());
    }

    #[test]
    fn domains_move_on_their_own() {
        let mut done = position("0-1-100");
        assert!(done.contains(&"0-2-100".parse().expect("valid")));
        assert!(!done.contains(&"1-1-1".parse().expect("valid")));
        assert_eq!(done.missing(&position("0-1-101,1-1-1")), position("0-1-101,1-1-1"));
        done.insert("1-1-5".parse().expect("valid"));
        assert!(done.contains_position(&position("0-1-99,1-1-5")));
        assert!(!done.contains_position(&position("0-1-101")));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["x", "1-2", "1-2-3-4", "-1-2-3", "1--3", "4294967296-1-1", "1-2-+3"] {
            assert!(text.parse::<MariaDbPosition>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn foreign_text_never_panics(text: String) {
            let _ = text.parse::<MariaDbPosition>();
        }
    }
}
