//! MySQL's packets on a socket: one read buffer, packets lent out of it, and large ones read past it.
//!
//! A packet is a length of 3 bytes, a number, and the payload; a payload of 16 MiB - 1 and more is continued in the
//! next packet (manual: "Protocol Basics").

use std::{
    io::{self, Read, Write},
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    failure::WireFailure,
    socket::{Socket, SocketEnd},
};
use crate::binlog::byte_reader::{Malformed, little_endian};

/// The read buffer. A packet above it is read into memory of its own.
pub(crate) const BUFFER_BYTES: usize = 256 * 1024;
/// Bytes before a payload.
pub(crate) const PACKET_HEADER: usize = 4;
/// A payload of this length goes on in the next packet.
pub(crate) const PAYLOAD_MAX: usize = 0xff_ffff;
/// Steps in which a large payload is read, so that a false length takes no memory that is not filled.
const READ_STEP: usize = 256 * 1024;
/// Nothing that is said before the dump is longer.
const SHORT_PACKET_MAX: usize = 1 << 20;
/// A row of two columns, each as long as a value can be.
const LARGE_PACKET_MAX: usize = 2 << 30;

/// A socket with its buffer.
pub(crate) struct Wire {
    socket: Socket,
    buffer: Vec<u8>,
    /// What was read and not yet taken: `buffer[start..end]`.
    start: usize,
    end: usize,
    sequence: u8,
    waits: bool,
    /// How long the server may be silent.
    patience: Duration,
    shutdown: CancellationToken,
}

impl Wire {
    pub(crate) fn new(socket: Socket, patience: Duration, shutdown: CancellationToken) -> Self {
        Self {
            socket,
            buffer: vec![0; BUFFER_BYTES],
            start: 0,
            end: 0,
            sequence: 0,
            waits: true,
            patience,
            shutdown,
        }
    }

    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The server may be silent for as long as the network says that it is there.
    pub(crate) fn wait_for_ever(&mut self) {
        self.patience = Duration::MAX;
    }

    /// A handle that ends the connection from anywhere.
    pub(crate) fn end(&self) -> Result<SocketEnd, WireFailure> {
        Ok(self.socket.end()?)
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.socket.is_secure()
    }

    /// Puts TLS on the socket. Bytes that came before it were not encrypted: whoever sent them is not the server.
    pub(crate) fn start_tls(
        self,
        wrap: impl FnOnce(Socket) -> io::Result<Socket>,
    ) -> Result<Self, WireFailure> {
        if self.start != self.end {
            return Err(WireFailure::Login(
                "bytes came before TLS had begun: someone may be between the reader and the server"
                    .into(),
            ));
        }
        let mut wire = Self { socket: wrap(self.socket)?, ..self };
        wire.set_waits(true)?;
        let began = Instant::now();
        while let Err(error) = wire.socket.shake_hands() {
            wire.not_yet(error, began)?;
        }
        Ok(wire)
    }

    /// The bytes that were read and not yet taken.
    pub(crate) fn buffered(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Takes bytes that were looked at.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Waits until more bytes have come.
    pub(crate) fn fill(&mut self) -> Result<(), WireFailure> {
        self.make_room();
        self.set_waits(true)?;
        let began = Instant::now();
        loop {
            match self.socket.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(self.ended()),
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(error) => self.not_yet(error, began)?,
            }
        }
    }

    /// Reads what has come already; false when that is nothing.
    pub(crate) fn fill_at_once(&mut self) -> Result<bool, WireFailure> {
        self.make_room();
        self.set_waits(false)?;
        loop {
            match self.socket.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Err(self.ended()),
                Ok(count) => {
                    self.end += count;
                    return Ok(true);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until the buffer holds `count` bytes (at most [`BUFFER_BYTES`]).
    pub(crate) fn fill_to(&mut self, count: usize) -> Result<(), WireFailure> {
        while self.end - self.start < count {
            self.fill()?;
        }
        Ok(())
    }

    /// Appends `count` bytes to `target`, past the buffer where it is empty.
    pub(crate) fn read_into(
        &mut self,
        target: &mut Vec<u8>,
        count: usize,
    ) -> Result<(), WireFailure> {
        let buffered = count.min(self.end - self.start);
        target.extend_from_slice(&self.buffer[self.start..self.start + buffered]);
        self.start += buffered;
        let mut left = count - buffered;
        self.set_waits(true)?;
        let mut began = Instant::now();
        while left > 0 {
            let filled = target.len();
            target.resize(filled + left.min(READ_STEP), 0);
            let read = self.socket.read(&mut target[filled..]);
            target.truncate(filled + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Err(self.ended()),
                Ok(count) => {
                    left -= count;
                    began = Instant::now();
                }
                Err(error) => self.not_yet(error, began)?,
            }
        }
        Ok(())
    }

    /// One packet of the login or the answer to a command.
    pub(crate) fn read_packet(&mut self) -> Result<Vec<u8>, WireFailure> {
        let mut payload = Vec::new();
        loop {
            self.fill_to(PACKET_HEADER)?;
            let header = &self.buffered()[..PACKET_HEADER];
            let length = little_endian(&header[..3]) as usize;
            self.sequence = header[3].wrapping_add(1);
            if payload.len() + length > SHORT_PACKET_MAX {
                return Err(WireFailure::Login(
                    "what answers does not speak MySQL's protocol: check the host and the port"
                        .into(),
                ));
            }
            self.consume(PACKET_HEADER);
            self.read_into(&mut payload, length)?;
            if length < PAYLOAD_MAX {
                return Ok(payload);
            }
        }
    }

    /// The next packet, lent from the buffer; one that is larger than that is put together in `large`.
    pub(crate) fn lend_packet<'a>(
        &'a mut self,
        large: &'a mut Vec<u8>,
    ) -> Result<&'a [u8], WireFailure> {
        self.fill_to(PACKET_HEADER)?;
        let mut length = little_endian(&self.buffered()[..3]) as usize;
        if length + PACKET_HEADER <= BUFFER_BYTES {
            self.fill_to(PACKET_HEADER + length)?;
            let start = self.start + PACKET_HEADER;
            self.start = start + length;
            return Ok(&self.buffer[start..start + length]);
        }
        large.clear();
        loop {
            if large.len() + length > LARGE_PACKET_MAX {
                return Err(Malformed("a packet is larger than any that a server sends").into());
            }
            self.consume(PACKET_HEADER);
            self.read_into(large, length)?;
            if length < PAYLOAD_MAX {
                return Ok(large);
            }
            self.fill_to(PACKET_HEADER)?;
            length = little_endian(&self.buffered()[..3]) as usize;
        }
    }

    /// Answers the packet that came last.
    pub(crate) fn write_packet(&mut self, payload: &[u8]) -> Result<(), WireFailure> {
        self.set_waits(true)?;
        // An exact multiple of the largest payload ends with an empty packet.
        let mut rest = Some(payload);
        while let Some(part) = rest {
            let (now, later) = part.split_at(part.len().min(PAYLOAD_MAX));
            let mut packet = Vec::with_capacity(PACKET_HEADER + now.len());
            packet.extend_from_slice(&(now.len() as u32).to_le_bytes()[..3]);
            packet.push(self.sequence);
            packet.extend_from_slice(now);
            self.socket.write_all(&packet)?;
            self.sequence = self.sequence.wrapping_add(1);
            rest = (now.len() == PAYLOAD_MAX).then_some(later);
        }
        self.socket.flush()?;
        Ok(())
    }

    /// Begins a new exchange.
    pub(crate) fn write_command(&mut self, payload: &[u8]) -> Result<(), WireFailure> {
        self.sequence = 0;
        self.write_packet(payload)
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    fn set_waits(&mut self, waits: bool) -> Result<(), WireFailure> {
        if self.waits != waits {
            self.socket.set_waiting(waits)?;
            self.waits = waits;
        }
        Ok(())
    }

    /// The other side, or whoever stops this one, has closed the connection.
    fn ended(&self) -> WireFailure {
        if self.shutdown.is_cancelled() {
            return WireFailure::Stopped;
        }
        WireFailure::Io(io::ErrorKind::UnexpectedEof.into())
    }

    /// A read that ended without bytes: goes on, unless the reader stops or the server was silent for too long.
    fn not_yet(&self, error: io::Error, began: Instant) -> Result<(), WireFailure> {
        match error.kind() {
            io::ErrorKind::Interrupted => return Ok(()),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {}
            _ => return Err(error.into()),
        }
        if self.shutdown.is_cancelled() {
            return Err(WireFailure::Stopped);
        }
        if began.elapsed() > self.patience {
            return Err(WireFailure::Transient("the server went silent".into()));
        }
        Ok(())
    }
}
