//! Where a reader is: what the source's binlog has been read to, and how far each table's snapshot is. It is stored
//! in the change log in the same transaction as the records it describes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A place in a server's binlog files. Ordered: later places are greater, on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinlogPlace {
    /// For example `binlog.000012`.
    pub file: String,
    /// Bytes from the start of the file; above 4 GiB in large files.
    pub offset: u64,
}

impl BinlogPlace {
    /// The number at the end of the file's name; 0 when there is none.
    pub fn file_number(&self) -> u64 {
        self.file.rsplit('.').next().and_then(|n| n.parse().ok()).unwrap_or(0)
    }

    /// Whether this place is at or after `other`.
    pub fn reached(&self, other: &BinlogPlace) -> bool {
        (self.file_number(), self.offset) >= (other.file_number(), other.offset)
    }
}

/// A transaction that was committed to the log in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTransaction {
    /// The transaction's GTID (`uuid:number`), or where it starts (`file:offset`) without GTIDs.
    pub id: String,
    /// How many rows of captured tables are in the log. Rows, not events: another server may cut events differently.
    pub rows_done: u64,
}

/// How far one table's snapshot is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSnapshot {
    /// Whether all rows are in the log.
    pub done: bool,
    /// The last key that is in the log: one text per key column, opaque to us, for use in the server's predicates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_key: Option<Vec<String>>,
    /// Rows written so far.
    #[serde(default)]
    pub rows: u64,
    /// The server's estimate of all rows when the snapshot began.
    #[serde(default)]
    pub rows_estimated: u64,
    /// The rows are read once more, because a DDL changed them without events. Whoever has the earlier ones as history
    /// leaves these out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
}

/// An XA transaction that is prepared and neither committed nor rolled back: its rows are not in the log, and are read
/// again after a restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedXa {
    /// Its name: `gtrid,bqual,format`, the first two in hexadecimal.
    pub xid: String,
    /// `gtid_set` as it was before it was prepared.
    pub gtid_set: String,
    /// Where its prepared part starts.
    pub place: BinlogPlace,
}

/// A reader's position. Stored as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// `@@server_uuid` (MariaDB: `@@server_uid`) of the server that `place` belongs to.
    pub server_uuid: String,
    /// All transactions that are in the log: MySQL's GTID set or MariaDB's GTID position; empty when `by_place`.
    pub gtid_set: String,
    /// Whether the binlog is read on from `place`, because the server has no GTIDs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_place: bool,
    /// When the file of `place` was begun, in seconds since 1970: tells it from another of the same name. 0: not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub file_created: u32,
    /// XA transactions that wait for their decision, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepared: Vec<PreparedXa>,
    /// The end of the last whole transaction.
    pub place: BinlogPlace,
    /// Names of XA transactions that were prepared when the source was begun and not decided soon after: their rows were
    /// never seen. `None` when the server did not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undecided_at_start: Option<Vec<String>>,
    /// Milliseconds since 1970 when the source committed that transaction.
    #[serde(default)]
    pub source_time_ms: i64,
    /// Set when the next transaction is in the log in part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_transaction: Option<OpenTransaction>,
    /// Snapshot progress by `database.table`.
    #[serde(default)]
    pub snapshots: BTreeMap<String, TableSnapshot>,
    /// Tables that were stopped, by `database.table`, with the sentence that says why and what to do.
    #[serde(default)]
    pub stopped: BTreeMap<String, String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_ordered_by_file_number_then_offset() {
        let place = |file: &str, offset| BinlogPlace { file: file.into(), offset };
        assert!(place("b.1000000", 4).reached(&place("b.999999", 5_000_000_000)));
        assert!(place("b.000001", 9).reached(&place("b.000001", 9)));
        assert!(!place("b.000001", 9).reached(&place("b.000001", 10)));
    }

    #[test]
    fn position_reads_back() {
        let mut position = Position { gtid_set: "x:1".into(), ..Position::default() };
        position.snapshots.insert(
            "market.orders".into(),
            TableSnapshot { last_key: Some(vec!["7".into()]), ..TableSnapshot::default() },
        );
        let text = serde_json::to_string(&position).expect("serialises");
        assert_eq!(serde_json::from_str::<Position>(&text).expect("reads"), position);
    }
}
