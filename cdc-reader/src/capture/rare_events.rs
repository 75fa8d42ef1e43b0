//! Events that are rare, or MariaDB's alone; and those that the reader does not know.

use super::Capture;
use crate::{
    binlog::{
        byte_reader::{Malformed, take, take_array},
        event::{EventHeader, kind},
        mariadb,
    },
    error::ReaderError,
};

impl Capture {
    pub(super) fn take_rare_event(
        &mut self,
        header: &EventHeader,
        body: &[u8],
        began_at: u64,
    ) -> Result<(), ReaderError> {
        match header.kind {
            kind::MARIADB_GTID => self.take_mariadb_gtid(header, body),
            kind::MARIADB_WRITE_ROWS_COMPRESSED_V1..=kind::MARIADB_DELETE_ROWS_COMPRESSED => {
                self.take_plain(header, began_at, |plain| {
                    mariadb::plain_rows(header.kind, body, plain)
                })
            }
            kind::MARIADB_QUERY_COMPRESSED => self.take_plain(header, began_at, |plain| {
                mariadb::plain_query(body, plain).map(|()| kind::QUERY)
            }),
            kind::EXECUTE_LOAD_QUERY => {
                self.take_plain(header, began_at, |plain| plain_load(body, plain))
            }
            kind::FORMAT_DESCRIPTION => self.note_file(header),
            kind::INCIDENT => Err(ReaderError::PositionLost(format!(
                "changes are missing from the binlog of source {} at {}:{began_at} (an INCIDENT event{}); start again with \
                 an empty change log and a new snapshot",
                self.source,
                self.place.file,
                incident_message(body)
            ))),
            kind::MARIADB_START_ENCRYPTION => Err(ReaderError::BadEvent {
                place: format!("{}:{began_at}", self.place.file),
                reason: "the server sends its binlog encrypted, without the key; a MariaDB server decrypts it for \
                         replicas: connect to it and not to a proxy that sends its files"
                    .into(),
            }),
            kind::STOP
            | kind::INTVAR
            | kind::RAND
            | kind::USER_VAR
            | kind::BEGIN_LOAD_QUERY
            | kind::IGNORABLE
            | kind::ROWS_QUERY
            | kind::PREVIOUS_GTIDS
            | kind::TRANSACTION_CONTEXT
            | kind::VIEW_CHANGE
            | kind::HEARTBEAT_V2
            | kind::MARIADB_ANNOTATE_ROWS
            | kind::MARIADB_BINLOG_CHECKPOINT
            | kind::MARIADB_GTID_LIST => Ok(()),
            _ if header.is_ignorable() => Ok(()),
            unknown => Err(ReaderError::BadEvent {
                place: format!("{}:{began_at}", self.place.file),
                reason: format!(
                    "it is of type {unknown}, which this release does not know and which may not be passed over; take the \
                     tables that use that feature of the server out of `tables`, or use a newer release"
                ),
            }),
        }
    }

    /// Takes an event that `fill` brings into the form of another type.
    fn take_plain(
        &mut self,
        header: &EventHeader,
        began_at: u64,
        fill: impl FnOnce(&mut Vec<u8>) -> Result<u8, Malformed>,
    ) -> Result<(), ReaderError> {
        let mut plain = std::mem::take(&mut self.inflated);
        let result = match fill(&mut plain) {
            Ok(plain_kind) => {
                let header = EventHeader { kind: plain_kind, ..*header };
                self.take_transaction_event(&header, &plain, began_at)
            }
            Err(error) => Err(self.bad_event(&error)),
        };
        self.inflated = plain;
        result
    }

    fn take_mariadb_gtid(&mut self, header: &EventHeader, body: &[u8]) -> Result<(), ReaderError> {
        let begun = mariadb::parse_gtid(header, body).map_err(|error| self.bad_event(&error))?;
        self.begin(begun.start, header)?;
        if let Some(transaction) = &mut self.transaction {
            transaction.grouped = !begun.standalone;
        }
        if let Some(xid) = begun.prepares {
            self.begin_xa(xid);
        }
        Ok(())
    }

    /// The file that the stream reads: where a position is a place, it must be the very file that the place was in.
    fn note_file(&mut self, header: &EventHeader) -> Result<(), ReaderError> {
        if header.timestamp == 0 {
            return Ok(());
        }
        let stored = self.position.file_created;
        if self.position.by_place
            && stored != 0
            && stored != header.timestamp
            && self.place.file == self.position.place.file
        {
            return Err(ReaderError::PositionLost(format!(
                "the binlog file {} is another one than the file of that name which source {} was read from: the binlog \
                 was reset; start again with an empty change log and a new snapshot",
                self.place.file, self.source
            )));
        }
        self.file_created = (self.place.file.clone(), header.timestamp);
        Ok(())
    }
}

/// LOAD DATA in statement format is a QUERY event with 13 bytes about the file after its own first 13.
fn plain_load(mut body: &[u8], plain: &mut Vec<u8>) -> Result<u8, Malformed> {
    plain.clear();
    plain.extend_from_slice(take(&mut body, 13)?);
    take(&mut body, 13)?;
    plain.extend_from_slice(body);
    Ok(kind::QUERY)
}

/// What the server says about an incident: number 2, then a text with a length of one byte.
fn incident_message(mut body: &[u8]) -> String {
    let text = take(&mut body, 2)
        .and_then(|_| take_array::<1>(&mut body))
        .and_then(|[length]| take(&mut body, usize::from(length)));
    match text {
        Ok(text) if !text.is_empty() => format!(": {}", String::from_utf8_lossy(text)),
        _ => String::new(),
    }
}
