//! XA transactions. Their rows come when they are prepared, their decision in a transaction of its own: the rows are
//! held until then, and are emitted as part of the transaction that commits them.
//!
//! The position never counts a prepared part as done before its decision. With GTIDs its GTID is left out of the set, so
//! that the server sends it again after a restart. A place and MariaDB's GTID position have no gaps: there the position
//! names the prepared parts, the stream begins at the oldest, and what is in the log already is passed over.
//!
//! What was prepared before the source was begun has never been seen. The source is begun only after those transactions
//! are decided, or else they are in the position, and a commit of one of them stops the source with a sentence.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::{Read, Seek, Write},
};

use schemas::position::{BinlogPlace, PreparedXa};

use super::Capture;
use crate::{
    binlog::{
        byte_reader::{Malformed, little_endian, take, take_array, take_le},
        event::{EventHeader, HEADER_LENGTH, kind},
        mariadb::xid_text,
        table_map,
        transaction::TransactionStart,
    },
    error::ReaderError,
};

/// Held events of one transaction beyond this are in a file.
const MEMORY_MAX: usize = 4 << 20;

/// Raw events of captured tables, each its length 4, where it started 8, header, body.
#[derive(Debug, Default)]
struct HeldEvents {
    memory: Vec<u8>,
    file: Option<File>,
}

impl HeldEvents {
    fn push(&mut self, event: &[&[u8]], began_at: u64) -> std::io::Result<()> {
        let length: usize = event.iter().map(|part| part.len()).sum();
        self.memory.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
        self.memory.extend_from_slice(&began_at.to_le_bytes());
        for part in event {
            self.memory.extend_from_slice(part);
        }
        if self.memory.len() > MEMORY_MAX {
            // Without a name: it is gone when this process is.
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(tempfile::tempfile()?),
            };
            file.write_all(&self.memory)?;
            self.memory.clear();
        }
        Ok(())
    }

    /// Calls `take` with each event and where it started, in order.
    fn for_each(
        mut self,
        mut take: impl FnMut(&[u8], u64) -> Result<(), ReaderError>,
    ) -> Result<(), ReaderError> {
        let failed = |error: std::io::Error| spill_failed(&error);
        let mut from_file: Box<dyn Read> = match self.file.take() {
            Some(mut file) => {
                file.rewind().map_err(failed)?;
                Box::new(std::io::BufReader::new(file))
            }
            None => Box::new(std::io::empty()),
        };
        let mut all = (&mut from_file).chain(&self.memory[..]);
        let (mut head, mut event) = ([0u8; 12], Vec::new());
        loop {
            match all.read(&mut head[..1]).map_err(failed)? {
                0 => return Ok(()),
                _ => all.read_exact(&mut head[1..]).map_err(failed)?,
            }
            event.resize(little_endian(&head[..4]) as usize, 0);
            all.read_exact(&mut event).map_err(failed)?;
            take(&event, little_endian(&head[4..]))?;
        }
    }
}

fn spill_failed(error: &std::io::Error) -> ReaderError {
    ReaderError::Transient {
        place: "this machine".into(),
        reason: format!(
            "the rows of a large XA transaction cannot be kept in the temporary folder ({error}): make room there"
        ),
    }
}

/// The part of an XA transaction up to its preparation.
#[derive(Debug, Default)]
pub(super) struct XaPart {
    xid: String,
    events: HeldEvents,
    /// Table ids of captured tables.
    captured: HashSet<u64>,
}

/// A prepared transaction that waits for its decision.
#[derive(Debug)]
struct Prepared {
    start: TransactionStart,
    place: BinlogPlace,
    events: HeldEvents,
}

/// All that is prepared.
#[derive(Debug, Default)]
pub(super) struct PreparedParts {
    by_xid: HashMap<String, Prepared>,
}

/// A statement about an XA transaction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum XaStatement {
    Start(String),
    End,
    Commit(String),
    Rollback(String),
}

impl XaStatement {
    /// `None` when the statement is not one of them.
    pub(super) fn parse(sql: &str) -> Option<Self> {
        let rest = sql.trim_start();
        let (xa, rest) = rest.split_once(|c: char| c.is_ascii_whitespace())?;
        if !xa.eq_ignore_ascii_case("XA") {
            return None;
        }
        let rest = rest.trim_start();
        let (verb, name) = rest.split_once(|c: char| c.is_ascii_whitespace())?;
        let xid = || xid_of(name);
        match verb.to_ascii_uppercase().as_str() {
            "START" | "BEGIN" => xid().map(Self::Start),
            "END" => Some(Self::End),
            "COMMIT" => xid().map(Self::Commit),
            "ROLLBACK" => xid().map(Self::Rollback),
            _ => None,
        }
    }
}

/// A name as a statement gives it: up to two strings and a number, `X'6162',X'',1` as servers write it.
fn xid_of(name: &str) -> Option<String> {
    let mut parts = [Vec::new(), Vec::new()];
    let mut format = 1;
    for (i, part) in name.split(',').enumerate() {
        let part = part.trim();
        match i {
            0 | 1 => *parts.get_mut(i)? = xid_part(part)?,
            2 => format = part.split_ascii_whitespace().next()?.parse().ok()?,
            _ => return None,
        }
    }
    Some(xid_text(&parts[0], &parts[1], format))
}

fn xid_part(part: &str) -> Option<Vec<u8>> {
    let quoted = |text: &str| Some(text.strip_prefix('\'')?.strip_suffix('\'')?.to_owned());
    let hex = match part.strip_prefix(['X', 'x']) {
        Some(hex) => quoted(hex)?,
        None => match part.strip_prefix("0x") {
            Some(hex) => hex.to_owned(),
            None => return quoted(part).map(String::into_bytes),
        },
    };
    hex.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// What an XA_PREPARE event says: whether it commits in one phase (one byte; then the name).
fn is_one_phase(mut body: &[u8]) -> Result<bool, Malformed> {
    let [one_phase] = take_array::<1>(&mut body)?;
    take_le(&mut body, 4)?;
    Ok(one_phase != 0)
}

impl Capture {
    pub(super) fn take_xa_statement(&mut self, statement: XaStatement) -> Result<(), ReaderError> {
        match statement {
            XaStatement::Start(xid) => {
                self.begin_xa(xid);
                Ok(())
            }
            XaStatement::End => Ok(()),
            XaStatement::Commit(xid) => self.decide(&xid, true),
            XaStatement::Rollback(xid) => self.decide(&xid, false),
        }
    }

    /// The rows that follow are those of an XA transaction.
    pub(super) fn begin_xa(&mut self, xid: String) {
        if let Some(transaction) = &mut self.transaction {
            transaction.xa = Some(XaPart { xid, ..XaPart::default() });
        }
    }

    /// Holds an event of the XA transaction; answers whether it is one.
    pub(super) fn hold_xa(
        &mut self,
        header: &EventHeader,
        body: &[u8],
        began_at: u64,
    ) -> Result<bool, ReaderError> {
        let Some(part) = self.transaction.as_mut().and_then(|open| open.xa.as_mut()) else {
            return Ok(false);
        };
        let parsed = table_map::table_id(body).and_then(|id| match header.kind {
            kind::TABLE_MAP => table_map::table_name(body).map(|name| (id, Some(name))),
            _ => Ok((id, None)),
        });
        match parsed {
            Ok((id, Some((database, table)))) => {
                let (database, table) =
                    (String::from_utf8_lossy(database), String::from_utf8_lossy(table));
                if !self.filter.captures(&database, &table) {
                    part.captured.remove(&id);
                    return Ok(true);
                }
                part.captured.insert(id);
            }
            Ok((id, None)) if !part.captured.contains(&id) => return Ok(true),
            Ok((_, None)) => {}
            Err(error) => return Err(self.bad_event(&error)),
        }
        let held = part.events.push(&[&header.bytes(), body], began_at);
        held.map(|()| true).map_err(|error| spill_failed(&error))
    }

    /// An XA_PREPARE event: in one phase it is a commit like any other.
    pub(super) fn take_xa_prepare(&mut self, body: &[u8]) -> Result<(), ReaderError> {
        let one_phase = is_one_phase(body).map_err(|error| self.bad_event(&error))?;
        let Some(part) = self.transaction.as_mut().and_then(|open| open.xa.take()) else {
            return self.end_transaction();
        };
        if one_phase {
            if !self.is_read_again() {
                let place = self.place.clone();
                self.replay(part.events, place)?;
            }
            return self.end_transaction();
        }
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        let known = self.position.prepared.iter().any(|prepared| prepared.xid == part.xid);
        if self.consumed.needs_prepared() && !known {
            self.position.prepared.push(PreparedXa {
                xid: part.xid.clone(),
                gtid_set: self.consumed.to_string(),
                place: transaction.began_at.clone(),
            });
        }
        if self.consumed.needs_prepared() && !transaction.again {
            self.consumed.insert(&transaction.start);
        }
        let prepared =
            Prepared { start: transaction.start, place: transaction.began_at, events: part.events };
        self.prepared.by_xid.insert(part.xid, prepared);
        self.moved = true;
        self.set_boundary();
        self.open_windows();
        self.commit_if_due()
    }

    fn decide(&mut self, xid: &str, commits: bool) -> Result<(), ReaderError> {
        let again = self.transaction.as_ref().is_some_and(|transaction| transaction.again);
        match self.prepared.by_xid.remove(xid) {
            Some(prepared) => {
                if commits && !again {
                    self.replay(prepared.events, prepared.place)?;
                }
                if let Some(transaction) = &mut self.transaction {
                    transaction.decides = Some(prepared.start);
                }
            }
            None if commits && !again => self.decide_unseen(xid)?,
            None => {}
        }
        self.position.prepared.retain(|prepared| prepared.xid != xid);
        self.end_transaction()
    }

    /// A commit of what was prepared before the source was begun.
    fn decide_unseen(&self, xid: &str) -> Result<(), ReaderError> {
        let lost = match &self.position.undecided_at_start {
            None => true,
            Some(xids) => xids.iter().any(|undecided| undecided == xid),
        };
        if !lost {
            tracing::info!(
                source = %self.source, xid,
                "an XA transaction that was prepared before the source was begun is committed; the snapshot has its rows"
            );
            return Ok(());
        }
        Err(ReaderError::PositionLost(format!(
            "the XA transaction {xid} is committed at {}:{}, and was prepared before source {} was begun, so its rows were \
             never seen; start again with an empty change log and a new snapshot when no XA transaction is prepared (XA \
             RECOVER lists them; the reader waits for them if it may: GRANT XA_RECOVER_ADMIN ON *.* TO its user)",
            self.place.file, self.place.offset, self.source
        )))
    }

    /// Takes held events as if they came now. They stand at `place`'s file.
    fn replay(&mut self, events: HeldEvents, place: BinlogPlace) -> Result<(), ReaderError> {
        let now = std::mem::replace(&mut self.place, place);
        let result = events.for_each(|event, began_at| {
            let header = EventHeader::parse(event).map_err(|error| self.bad_event(&error))?;
            let mut body = event;
            take(&mut body, HEADER_LENGTH).map_err(|error| self.bad_event(&error))?;
            match header.kind {
                kind::TABLE_MAP => self.take_table_map(body),
                _ => self.take_rows(&header, body, began_at),
            }
        });
        self.place = now;
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_told_apart_and_names_are_brought_into_one_form() {
        let parse = XaStatement::parse;
        assert_eq!(parse("XA START X'6162',X'',1"), Some(XaStatement::Start("6162,,1".into())));
        assert_eq!(parse("XA END X'6162',X'',1"), Some(XaStatement::End));
        assert_eq!(parse("xa commit 'ab', 'c', 7"), Some(XaStatement::Commit("6162,63,7".into())));
        assert_eq!(parse("XA ROLLBACK 'ab'"), Some(XaStatement::Rollback("6162,,1".into())));
        for other in
            ["COMMIT", "XA", "XA COMMIT", "XA COMMIT X'6", "XA COMMIT X'zz'", "XA RECOVER x"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn held_events_come_back_in_order_from_memory_and_file() {
        let mut held = HeldEvents::default();
        let large = vec![7; MEMORY_MAX / 3];
        for i in 0..8u8 {
            held.push(&[&[i], &large], u64::from(i)).expect("is held");
        }
        assert!(held.file.is_some() && !held.memory.is_empty());
        let mut seen = Vec::new();
        held.for_each(|event, began_at| {
            assert_eq!((u64::from(event[0]), event.len()), (began_at, large.len() + 1));
            seen.push(event[0]);
            Ok(())
        })
        .expect("comes back");
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
}
