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
    /// How many of its rows are in the log, by `database.table`: other tables may be captured when it is read again. Rows,
    /// not events: another server may cut events differently.
    pub rows_done: BTreeMap<String, u64>,
}

/// How far one table's snapshot is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableSnapshot {
    /// Whether all rows are in the log.
    pub done: bool,
    /// The last key that is in the log: one text per key column, opaque to us, for use in the server's predicates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_key: Option<Vec<String>>,
    /// What the key was whose order `last_key` and `ahead` are of: [`TableSchema::key_shape`].
    ///
    /// [`TableSchema::key_shape`]: crate::table_schema::TableSchema::key_shape
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_shape: Option<String>,
    /// Ranges behind `last_key` that are in the log already, in the order of the walk: readers finish in any order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ahead: Vec<DoneRange>,
    /// Rows written so far.
    #[serde(default)]
    pub rows: u64,
    /// Bytes of keys and rows written so far.
    #[serde(default)]
    pub bytes: u64,
    /// Milliseconds since 1970 when the first rows were written.
    #[serde(default)]
    pub began_ms: i64,
    /// The server's estimate of all rows when the snapshot began.
    #[serde(default)]
    pub rows_estimated: u64,
    /// No more rows are read for now, because somebody asked for that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// The rows are read once more, because a DDL changed them without events. Whoever has the earlier ones as history
    /// leaves these out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The rows are read anew because changes were missed: what the stream changed before says nothing of them. Whoever
    /// keeps history takes them as versions.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anew: bool,
    /// It was read anew once: its history lacks the versions of the time before, and has one more of each row.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gap: bool,
    /// Only rows for which this SQL expression is true are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// The table's copy lacks rows, or will if its reading ends early.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// The table is no longer among those that are captured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left_out: bool,
    /// Chunks that are being read or wait for their place in the stream.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub in_flight: u32,
}

/// What was asked of the reader and could not be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedSignal {
    /// The signal's id.
    pub id: String,
    /// Why.
    pub reason: String,
}

/// A part of a table's key space whose rows are in the log: the keys after `after` up to and with `upto`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneRange {
    /// Rises along the walk; keys themselves are compared by their server only.
    pub order: u64,
    /// `None`: from the first key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<String>>,
    /// `None`: to the last key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upto: Option<Vec<String>>,
    /// How many orders from its own on are free for what may be cut from it; 0 where nothing has been cut from this part
    /// yet and all orders up to the next range of the walk are.
    #[serde(skip)]
    pub room: u64,
}

/// A part that is still to be read.
pub type OpenRange = DoneRange;

/// The orders of two neighbouring ranges of a new walk differ by this much: as many ranges may be cut from one.
const ORDER_STEP: u64 = 1 << 42;
/// What is left of a part gets an order so much higher, so that the first piece can be cut again when it has to be read a
/// second time.
const CUT_STEP: u64 = 1 << 16;

impl TableSnapshot {
    /// Enters a range whose rows are in the log now.
    pub fn enter(&mut self, range: DoneRange) {
        let at = self.ahead.partition_point(|other| other.order < range.order);
        self.ahead.insert(at, range);
        while self.ahead.first().is_some_and(|first| first.after == self.last_key) {
            match self.ahead.remove(0).upto {
                Some(upto) => self.last_key = Some(upto),
                None => return self.finish(),
            }
        }
    }

    /// All rows are in the log, or no more are wanted.
    pub fn finish(&mut self) {
        // Rows that were chosen make nothing whole.
        self.partial &= self.filter.is_some();
        self.gap |= self.anew;
        (self.done, self.again, self.anew, self.paused) = (true, false, false, false);
        (self.last_key, self.key_shape, self.filter, self.in_flight) = (None, None, None, 0);
        self.ahead.clear();
    }

    /// What it is when the walk begins at the first key again.
    pub fn restarted(&self) -> Self {
        let mut anew = self.clone();
        (anew.last_key, anew.key_shape) = (None, None);
        (anew.rows, anew.bytes, anew.began_ms) = (0, 0, 0);
        // Rows that were read before come again.
        anew.anew |= !anew.again;
        anew.ahead.clear();
        anew
    }

    /// Numbers the ranges anew, and answers what is still to be read, in the order of the walk; only the last can have
    /// no end. Between the numbers there is room for the ranges that are to be cut from it.
    pub fn open_ranges(&mut self) -> Vec<OpenRange> {
        if self.done {
            return Vec::new();
        }
        let (mut open, mut after, mut order) = (Vec::new(), self.last_key.clone(), 0);
        for done in &mut self.ahead {
            if after != done.after {
                open.push(OpenRange { order: order + 1, after, upto: done.after.clone(), room: 0 });
            }
            order += ORDER_STEP;
            (done.order, after) = (order, done.upto.clone());
            if after.is_none() {
                return open;
            }
        }
        open.push(OpenRange { order: order + 1, after, upto: None, room: 0 });
        open
    }
}

impl OpenRange {
    /// The range that begins where this one, which had no end, now ends.
    pub fn following(&self, after: Vec<String>) -> Self {
        let order = (self.order / ORDER_STEP + 1) * ORDER_STEP + 1;
        Self { order, after: Some(after), upto: None, room: 0 }
    }

    /// Ends this one at a key inside it, and answers what is left.
    pub fn cut(&mut self, at: Vec<String>) -> Self {
        let first = if self.room == 0 { CUT_STEP } else { (self.room / 2).max(1) };
        let rest = Self {
            order: self.order + first,
            after: Some(at.clone()),
            upto: self.upto.replace(at),
            room: self.room.saturating_sub(first),
        };
        self.room = first;
        rest
    }
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
    /// Why no snapshot reads on at this moment: a limit of the load on the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshots_held_back: Option<String>,
    /// Tables that were stopped, by `database.table`, with the sentence that says why and what to do.
    #[serde(default)]
    pub stopped: BTreeMap<String, String>,
    /// The offset after the last signal that was taken from the source's signals topic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signals_read: Option<i64>,
    /// The last signals that were refused, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals_refused: Vec<RefusedSignal>,
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

    fn range(order: u64, after: &str, upto: &str) -> DoneRange {
        let key = |text: &str| (!text.is_empty()).then(|| vec![text.to_owned()]);
        DoneRange { order, after: key(after), upto: key(upto), room: 0 }
    }

    #[test]
    fn ranges_close_up_in_whatever_order_they_are_done() {
        let mut table = TableSnapshot::default();
        table.enter(range(30, "c", "d"));
        table.enter(range(20, "b", "c"));
        assert_eq!((table.last_key.clone(), table.ahead.len()), (None, 2));
        table.enter(range(10, "", "b"));
        assert_eq!((table.last_key.clone(), table.ahead.len()), (Some(vec!["d".into()]), 0));
        table.enter(range(50, "e", ""));
        assert!(!table.done);
        table.enter(range(40, "d", "e"));
        assert!(table.done && table.last_key.is_none() && table.ahead.is_empty());
    }

    #[test]
    fn what_is_left_lies_between_what_is_done() {
        let mut table = TableSnapshot::default();
        assert_eq!(table.open_ranges(), [range(1, "", "")]);
        table.enter(range(1, "", "a"));
        table.enter(range(7, "b", "c"));
        table.enter(range(9, "d", "e"));
        let step = ORDER_STEP;
        let open = table.open_ranges();
        assert_eq!(
            open,
            [range(1, "a", "b"), range(step + 1, "c", "d"), range(2 * step + 1, "e", "")]
        );
        // They are done in another order, one of them in two pieces.
        table.enter(open[0].clone().cut(vec!["ab".into()]));
        table.enter(open[1].clone());
        let last = open[2].following(vec!["f".into()]);
        assert!(last.order > open[2].order);
        table.enter(last);
        let open = table.open_ranges();
        assert_eq!(open, [range(1, "a", "ab"), range(4 * step + 1, "e", "f")]);
        open.into_iter().for_each(|range| table.enter(range));
        assert!(table.done);
    }

    #[test]
    fn pieces_that_are_cut_again_lie_between_their_neighbours() {
        let mut whole = range(1, "", "");
        let mut pieces = vec![whole.cut(vec!["m".into()]), whole];
        // The second piece is cut as well, and then each of them once more, as after a refusal.
        for (at, key) in [(0, "t"), (0, "w"), (1, "c"), (1, "d"), (1, "e")] {
            let rest = pieces[at].cut(vec![key.into()]);
            pieces.push(rest);
        }
        pieces.sort_by_key(|piece| piece.order);
        for pair in pieces.windows(2) {
            assert!(pair[0].order < pair[1].order, "{pieces:?}");
            assert_eq!(pair[0].upto, pair[1].after, "{pieces:?}");
        }
        let mut table = TableSnapshot::default();
        pieces.into_iter().rev().for_each(|piece| table.enter(piece));
        assert!(table.done);
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
