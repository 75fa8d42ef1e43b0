//! What of a source's binlog is in the log, told in the terms by which its server can send the rest.

use std::fmt;

use schemas::{gtid_set::GtidSet, mariadb_gtid::MariaDbPosition};

use super::transaction::TransactionStart;

/// How places in a source's binlog are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coordinates {
    /// MySQL with `gtid_mode = ON`: by the set of all transactions.
    #[default]
    GtidSet,
    /// MariaDB: by the last transaction of each domain.
    MariaDb,
    /// MySQL without GTIDs: by file and offset, which mean something on one server only.
    Place,
}

/// The transactions that are in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Consumed {
    /// See [`Coordinates::GtidSet`].
    GtidSet(GtidSet),
    /// See [`Coordinates::MariaDb`].
    MariaDb(MariaDbPosition),
    /// See [`Coordinates::Place`]: the position's place says it all.
    Place,
}

impl Consumed {
    /// Reads the text of a position; the sentence says what is wrong with it.
    pub fn parse(coordinates: Coordinates, text: &str) -> Result<Self, String> {
        match coordinates {
            Coordinates::GtidSet => text.parse().map(Self::GtidSet).map_err(|e| e.to_string()),
            Coordinates::MariaDb => text.parse().map(Self::MariaDb).map_err(|e| e.to_string()),
            Coordinates::Place => Ok(Self::Place),
        }
    }

    /// Adds one transaction.
    pub fn insert(&mut self, start: &TransactionStart) {
        match self {
            Self::GtidSet(set) => {
                if let Some(origin) = &start.origin {
                    set.insert(origin, start.number);
                }
            }
            Self::MariaDb(position) => {
                if let Some(gtid) = start.mariadb {
                    position.insert(gtid);
                }
            }
            Self::Place => {}
        }
    }

    /// Whether a transaction cannot be left out: then a position has to name what is prepared and undecided.
    pub fn needs_prepared(&self) -> bool {
        !matches!(self, Self::GtidSet(_))
    }

    /// Whether the transaction is among them; `false` where only its place can tell.
    pub fn contains(&self, start: &TransactionStart) -> bool {
        match self {
            Self::GtidSet(set) => {
                start.origin.as_ref().is_some_and(|origin| set.contains(origin, start.number))
            }
            Self::MariaDb(position) => start.mariadb.is_some_and(|gtid| position.contains(&gtid)),
            Self::Place => false,
        }
    }
}

/// As a position stores it.
impl fmt::Display for Consumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::GtidSet(set) => set.fmt(f),
            Self::MariaDb(position) => position.fmt(f),
            Self::Place => Ok(()),
        }
    }
}
