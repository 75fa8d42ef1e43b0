//! The 19-byte header of each event, and the event types that matter (`libs/mysql/binlog/event/binlog_event.h`).

use super::byte_reader::{Malformed, little_endian};

/// Bytes of a header.
pub const HEADER_LENGTH: usize = 19;

/// The event types that the reader looks at; all others are passed over.
pub mod kind {
    /// A statement: BEGIN, COMMIT, DDL, XA, or DML in statement format.
    pub const QUERY: u8 = 2;
    /// The name of the file that follows.
    pub const ROTATE: u8 = 4;
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
    /// The first phase of an XA transaction.
    pub const XA_PREPARE: u8 = 38;
    /// Changed rows with JSON given as differences.
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    /// A whole transaction, compressed.
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    /// Not MySQL's: a tagged GTID event brought into a plain form by `stream` (uuid 16, number 8, commit time in
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

    /// Whether the server made the event up, so that it stands in no file.
    pub fn is_artificial(&self) -> bool {
        self.flags & 0x20 != 0 || self.timestamp == 0
    }
}
