//! The 19-byte header of each event, and the event types that matter (`libs/mysql/binlog/event/binlog_event.h`).

use super::byte_reader::{Malformed, little_endian};

/// Bytes of a header.
pub const HEADER_LENGTH: usize = 19;

/// The event types that the reader knows.
pub mod kind {
    /// A statement: BEGIN, COMMIT, DDL, XA, or DML in statement format.
    pub const QUERY: u8 = 2;
    /// The name of the file that follows.
    pub const ROTATE: u8 = 4;
    /// The server shut down in order.
    pub const STOP: u8 = 3;
    /// Values that a statement in statement format uses: INSERT_ID, RAND(), user variables, a file's contents.
    pub const INTVAR: u8 = 5;
    /// See above.
    pub const RAND: u8 = 13;
    /// See above.
    pub const USER_VAR: u8 = 14;
    /// See above.
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    /// LOAD DATA in statement format.
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    /// The start of a file.
    pub const FORMAT_DESCRIPTION: u8 = 15;
    /// Changes are missing from the binlog.
    pub const INCIDENT: u8 = 26;
    /// The end of a transaction in transactional engines.
    pub const XID: u8 = 16;
    /// The shape of a table, before its rows.
    pub const TABLE_MAP: u8 = 19;
    /// Version 1 and 2 of inserted, changed and deleted rows.
    pub const WRITE_ROWS_V1: u8 = 23;
    /// See above.
    pub const UPDATE_ROWS_V1: u8 = 24;
    /// See above.
    pub const DELETE_ROWS_V1: u8 = 25;
    /// Sent by an idle server; carries its place.
    pub const HEARTBEAT: u8 = 27;
    /// See above.
    pub const WRITE_ROWS: u8 = 30;
    /// See above.
    pub const UPDATE_ROWS: u8 = 31;
    /// See above.
    pub const DELETE_ROWS: u8 = 32;
    /// The start of a transaction with a GTID.
    pub const GTID: u8 = 33;
    /// The start of a transaction without a GTID.
    pub const ANONYMOUS_GTID: u8 = 34;
    /// What may be passed over, in the server's own words.
    pub const IGNORABLE: u8 = 28;
    /// The text of the statement whose rows follow.
    pub const ROWS_QUERY: u8 = 29;
    /// The GTIDs of earlier files.
    pub const PREVIOUS_GTIDS: u8 = 35;
    /// Group replication's own.
    pub const TRANSACTION_CONTEXT: u8 = 36;
    /// See above.
    pub const VIEW_CHANGE: u8 = 37;
    /// The first phase of an XA transaction.
    pub const XA_PREPARE: u8 = 38;
    /// Changed rows with JSON given as differences.
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    /// A whole transaction, compressed.
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    /// A heartbeat for files above 4 GiB.
    pub const HEARTBEAT_V2: u8 = 41;
    /// MariaDB: the text of the statement whose rows follow.
    pub const MARIADB_ANNOTATE_ROWS: u8 = 160;
    /// MariaDB: the oldest file that crash recovery needs.
    pub const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
    /// MariaDB: the start of a transaction.
    pub const MARIADB_GTID: u8 = 162;
    /// MariaDB: the GTIDs of earlier files.
    pub const MARIADB_GTID_LIST: u8 = 163;
    /// MariaDB: what follows is encrypted.
    pub const MARIADB_START_ENCRYPTION: u8 = 164;
    /// MariaDB: a compressed statement.
    pub const MARIADB_QUERY_COMPRESSED: u8 = 165;
    /// MariaDB: compressed rows, version 1 and 2, each inserted, changed and deleted.
    pub const MARIADB_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    /// See above.
    pub const MARIADB_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    /// See above.
    pub const MARIADB_WRITE_ROWS_COMPRESSED: u8 = 169;
    /// See above.
    pub const MARIADB_DELETE_ROWS_COMPRESSED: u8 = 171;
    /// Not MySQL's: a tagged GTID event brought into a plain form by `dump` (uuid 16, number 8, commit time in
    /// microseconds 8, then the tag).
    pub const TAGGED_GTID_PLAIN: u8 = 250;
}

/// A parsed header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    /// Seconds since 1970; 0 in events that the server makes up.
    pub timestamp: u32,
    /// The type; see [`kind`].
    pub kind: u8,
    /// Which server wrote it.
    pub server_id: u32,
    /// Bytes of header, body and checksum.
    pub size: u32,
    /// The low 32 bits of the place after it; 0 inside a compressed transaction.
    pub next_offset: u32,
    /// Flags; 0x20 marks events that are not in the file.
    pub flags: u16,
}

impl EventHeader {
    /// Reads a header from the front of an event.
    pub fn parse(event: &[u8]) -> Result<Self, Malformed> {
        let header = event.get(..HEADER_LENGTH).ok_or(Malformed("an event has under 19 bytes"))?;
        Ok(Self {
            timestamp: little_endian(&header[..4]) as u32,
            kind: header[4],
            server_id: little_endian(&header[5..9]) as u32,
            size: little_endian(&header[9..13]) as u32,
            next_offset: little_endian(&header[13..17]) as u32,
            flags: little_endian(&header[17..19]) as u16,
        })
    }

    /// As it lies in front of an event.
    pub fn bytes(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        bytes[..4].copy_from_slice(&self.timestamp.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5..9].copy_from_slice(&self.server_id.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.size.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.next_offset.to_le_bytes());
        bytes[17..].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }

    /// Whether a reader that does not know the event may pass it over (`LOG_EVENT_IGNORABLE_F`).
    pub fn is_ignorable(&self) -> bool {
        self.flags & 0x80 != 0
    }

    /// Whether the server made the event up, so that it stands in no file.
    pub fn is_artificial(&self) -> bool {
        self.flags & 0x20 != 0 || self.timestamp == 0
    }
}
