//! Rows of SELECTs over a connection of our own, in the binary protocol, whose numbers and instants are exact. A row
//! is lent as the packet that it came in: nothing is allocated for it, and nothing is made of it on the way.
//!
//! Blocks: it is for threads that may. [`RowLink`] is for async callers.

mod link;
pub mod value;

use mysql_common::constants::Command;
use tokio_util::sync::CancellationToken;

pub use self::{
    link::RowLink,
    value::{RowPacket, RowValue, ValueKind},
};
use super::{
    connect::{SESSION, place},
    wire::{
        self, Session,
        failure::WireFailure,
        login::{execute, server_error},
        packets::Wire,
        socket::SocketEnd,
    },
};
use crate::{
    binlog::byte_reader::{Malformed, take_array, take_le, take_length},
    config::SourceConfig,
    error::ReaderError,
};

/// More columns than a table can have.
const COLUMNS_MAX: usize = 10_000;
/// Memory that is kept for the next large row.
const LARGE_KEPT: usize = 4 << 20;

/// Whether more rows are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Yes.
    Go,
    /// No; the connection is closed, with whatever is still on its way.
    Stop,
}

/// Why a statement failed.
#[derive(Debug)]
pub struct RowFailure {
    /// The server's error number, when the error is the server's.
    pub code: Option<u16>,
    /// What to tell.
    pub error: ReaderError,
}

impl From<RowFailure> for ReaderError {
    fn from(failure: RowFailure) -> Self {
        failure.error
    }
}

/// A connection with the same session as `mysql::connect`'s.
pub struct RowConnection {
    wire: Wire,
    place: String,
    end: SocketEnd,
    stop: CancellationToken,
    /// Whether the server waits for a command.
    open: bool,
    kinds: Vec<ValueKind>,
    large: Vec<u8>,
}

impl std::fmt::Debug for RowConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RowConnection")
            .field("place", &self.place)
            .field("open", &self.open)
            .finish()
    }
}

/// Ends a connection from another thread, at once, whatever it waits for.
pub struct Interrupt {
    stop: CancellationToken,
    end: SocketEnd,
}

impl Interrupt {
    /// Ends it.
    pub fn interrupt(&self) {
        self.stop.cancel();
        self.end.shut();
    }
}

impl RowConnection {
    /// Connects to a server that was there before. `stop` ends connecting and every read soon after it is cancelled.
    pub fn connect(config: &SourceConfig, stop: CancellationToken) -> Result<Self, ReaderError> {
        let place = place(config);
        let stopped = || WireFailure::Stopped.classified(&place);
        let wire = match wire::connect(config, &stop)? {
            Session::Open(wire, _) => wire,
            Session::Stopped => return Err(stopped()),
        };
        let mut connection =
            Self::over(wire, place.clone(), stop).map_err(|failure| failure.connecting(config))?;
        for statement in SESSION {
            connection.execute(statement)?;
        }
        Ok(connection)
    }

    /// The server may look for the first row as long as it needs: a peer that vanished is found by the network.
    fn over(mut wire: Wire, place: String, stop: CancellationToken) -> Result<Self, WireFailure> {
        wire.wait_for_ever();
        let end = wire.end()?;
        Ok(Self { wire, place, end, stop, open: true, kinds: Vec::new(), large: Vec::new() })
    }

    /// `host:port`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Whether statements can be run.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// A handle for another thread.
    pub fn interrupt(&self) -> Result<Interrupt, RowFailure> {
        let end = self.wire.end().map_err(|failure| self.failure(failure))?;
        Ok(Interrupt { stop: self.stop.clone(), end })
    }

    /// Runs a statement that answers no rows.
    pub fn execute(&mut self, sql: &str) -> Result<(), RowFailure> {
        let result = self.ensure_open().and_then(|()| execute(&mut self.wire, &query(sql)));
        self.settle(result)
    }

    /// Runs a SELECT (or SHOW) and hands over each row.
    pub fn select(
        &mut self,
        sql: &str,
        take: impl FnMut(RowPacket<'_>) -> Flow,
    ) -> Result<(), RowFailure> {
        let result = self.ensure_open().and_then(|()| self.run(sql, take));
        if self.large.capacity() > LARGE_KEPT {
            self.large = Vec::new();
        }
        let flow = self.settle(result)?;
        if flow == Flow::Stop {
            self.close();
        }
        Ok(())
    }

    fn run(
        &mut self,
        sql: &str,
        take: impl FnMut(RowPacket<'_>) -> Flow,
    ) -> Result<Flow, WireFailure> {
        let statement = self.prepare(sql)?;
        let result = self.rows(statement, take);
        // After an error of the server, too, the statement is there.
        if matches!(result, Ok(Flow::Go) | Err(WireFailure::Server { .. })) {
            let mut close = vec![Command::COM_STMT_CLOSE as u8];
            close.extend_from_slice(&statement.to_le_bytes());
            self.wire.write_command(&close)?;
        }
        result
    }

    /// Answers the statement's number.
    fn prepare(&mut self, sql: &str) -> Result<u32, WireFailure> {
        let mut command = vec![Command::COM_STMT_PREPARE as u8];
        command.extend_from_slice(sql.as_bytes());
        self.wire.write_command(&command)?;
        let packet = self.wire.read_packet()?;
        let mut input = match packet.split_first() {
            Some((0x00, rest)) => rest,
            Some((0xff, _)) => return Err(server_error(&packet)),
            _ => return Err(Malformed("the server's answer to a statement is none").into()),
        };
        let statement = u32::from_le_bytes(take_array(&mut input)?);
        let columns = take_le(&mut input, 2)?;
        let parameters = take_le(&mut input, 2)?;
        for definitions in [parameters, columns] {
            for _ in 0..definitions {
                self.wire.read_packet()?;
            }
            if definitions > 0 {
                self.read_end()?;
            }
        }
        Ok(statement)
    }

    fn rows(
        &mut self,
        statement: u32,
        mut take: impl FnMut(RowPacket<'_>) -> Flow,
    ) -> Result<Flow, WireFailure> {
        let mut command = vec![Command::COM_STMT_EXECUTE as u8];
        command.extend_from_slice(&statement.to_le_bytes());
        // No cursor; once.
        command.extend_from_slice(&[0, 1, 0, 0, 0]);
        self.wire.write_command(&command)?;
        let packet = self.wire.read_packet()?;
        match packet.first() {
            // No rows at all.
            Some(0x00) => return Ok(Flow::Go),
            Some(0xff) => return Err(server_error(&packet)),
            _ => {}
        }
        let columns = take_length(&mut packet.as_slice())?;
        if columns > COLUMNS_MAX {
            return Err(Malformed("the server sends more columns than a table can have").into());
        }
        self.kinds.clear();
        for _ in 0..columns {
            let definition = self.wire.read_packet()?;
            if definition.first() == Some(&0xff) {
                return Err(server_error(&definition));
            }
            self.kinds.push(value::parse_definition(&definition)?);
        }
        self.read_end()?;
        loop {
            let packet = self.wire.lend_packet(&mut self.large)?;
            match packet.first() {
                Some(0x00) => {
                    if take(RowPacket { kinds: &self.kinds, bytes: packet }) == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                }
                Some(0xfe) if packet.len() < 9 => return Ok(Flow::Go),
                Some(0xff) => return Err(server_error(packet)),
                _ => return Err(Malformed("the server sent what is no row").into()),
            }
        }
    }

    /// The packet after definitions. A server is not asked to leave it out, so every server sends it.
    fn read_end(&mut self) -> Result<(), WireFailure> {
        let packet = self.wire.read_packet()?;
        match packet.first() {
            Some(0xfe) if packet.len() < 9 => Ok(()),
            Some(0xff) => Err(server_error(&packet)),
            _ => Err(Malformed("the server's definitions of columns have no end").into()),
        }
    }

    fn ensure_open(&self) -> Result<(), WireFailure> {
        if self.open { Ok(()) } else { Err(WireFailure::Transient("connection closed".into())) }
    }

    /// After an error of the server the connection goes on; after any other it is of no use.
    fn settle<T>(&mut self, result: Result<T, WireFailure>) -> Result<T, RowFailure> {
        result.map_err(|failure| {
            if !matches!(failure, WireFailure::Server { .. }) {
                self.close();
            }
            self.failure(failure)
        })
    }

    fn failure(&self, failure: WireFailure) -> RowFailure {
        let code = match &failure {
            WireFailure::Server { code, .. } => Some(*code),
            _ => None,
        };
        let error = match failure {
            WireFailure::Malformed(what) => ReaderError::Query {
                place: self.place.clone(),
                reason: format!("its answer cannot be understood ({what}); is a proxy in between?"),
            },
            other => other.classified(&self.place),
        };
        RowFailure { code, error }
    }

    fn close(&mut self) {
        self.open = false;
        self.end.close();
    }
}

impl Drop for RowConnection {
    fn drop(&mut self) {
        if self.open {
            // Told, the server does not count and log a client that vanished.
            let _ = self.wire.write_command(&[Command::COM_QUIT as u8]);
        }
        self.close();
    }
}

fn query(sql: &str) -> Vec<u8> {
    let mut command = vec![Command::COM_QUERY as u8];
    command.extend_from_slice(sql.as_bytes());
    command
}

#[cfg(test)]
mod tests {
    use std::{io::Write, net::Shutdown, os::unix::net::UnixStream, time::Duration};

    use proptest::prelude::*;

    use super::*;
    use crate::mysql::wire::socket::Socket;

    /// Runs a SELECT against a server that says these bytes, whatever it is asked, and then no more.
    fn select_from(bytes: &[u8]) -> Result<usize, RowFailure> {
        let (server, client) = UnixStream::pair().expect("a pair");
        (&server).write_all(bytes).expect("it fits into the socket");
        server.shutdown(Shutdown::Write).expect("is open");
        let stop = CancellationToken::new();
        let wire = Wire::new(Socket::Unix(client), Duration::from_secs(20), stop.clone());
        let mut connection = RowConnection::over(wire, "h:1".into(), stop).expect("a connection");
        let mut rows = 0;
        connection.select("SELECT", |row| {
            let _ = row.values();
            rows += 1;
            Flow::Go
        })?;
        Ok(rows)
    }

    fn framed(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for payload in payloads {
            bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes()[..3]);
            bytes.push(0);
            bytes.extend_from_slice(payload);
        }
        bytes
    }

    const PREPARED: &[u8] = b"\0\x01\0\0\0\x01\0\0\0\0\0\0";
    /// An INT.
    const DEFINITION: &[u8] =
        b"\x03def\x01d\x01t\x01t\x01c\x01c\x0c\xff\x00\x0a\0\0\0\x03\0\0\0\0\0";
    const END: &[u8] = b"\xfe\0\0\0\0";

    #[test]
    fn answers_are_followed_to_their_end() {
        let head = [PREPARED, DEFINITION, END, &[1], DEFINITION, END];
        let row: &[u8] = b"\0\0\x07\0\0\0";
        let with = |more: &[&[u8]]| select_from(&framed(&[&head, more].concat()));
        assert_eq!(with(&[row, row, END]).expect("two rows"), 2);
        assert_eq!(with(&[END]).expect("none"), 0);
        let failure = with(&[row, b"\xff\x84\x05#HY000gone wrong"]).expect_err("fails");
        assert_eq!(failure.code, Some(1412));
        assert!(matches!(failure.error, ReaderError::Transient { .. }), "{failure:?}");
        let failure = with(&[row]).expect_err("is cut off");
        assert_eq!(failure.code, None);
        assert!(failure.error.to_string().contains("connection lost"), "{failure:?}");
        let failure = with(&[b"\x05text"]).expect_err("no row");
        assert!(failure.error.to_string().contains("cannot be understood"), "{failure:?}");
    }

    proptest! {
        #[test]
        fn foreign_streams_end_in_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert!(select_from(&bytes).is_err());
        }

        #[test]
        fn foreign_packets_are_refused_without_a_panic(
            known in 0usize..7,
            foreign in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..80), 0..8,
            ),
        ) {
            let head = [PREPARED, DEFINITION, END, &[1], DEFINITION, END];
            let mut packets = head.get(..known.min(head.len())).unwrap_or_default().to_vec();
            packets.extend(foreign.iter().map(Vec::as_slice));
            let _ = select_from(&framed(&packets));
        }
    }
}
