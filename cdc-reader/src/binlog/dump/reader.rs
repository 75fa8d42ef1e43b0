//! The dump: packets become events, verified, in chunks for the encode thread.

use super::{
    checksum::Checksum,
    chunks::Chunks,
    tagged_gtid::{GTID_TAGGED, HEARTBEAT_V2, append_plain, parse_heartbeat, parse_tagged_gtid},
};
use crate::{
    binlog::{
        byte_reader::{Malformed, little_endian},
        event::{EventHeader, HEADER_LENGTH, kind},
    },
    mysql::wire::{
        failure::WireFailure,
        login::server_error,
        packets::{BUFFER_BYTES, PACKET_HEADER, PAYLOAD_MAX, Wire},
    },
};

/// Bytes in front of each event in a chunk.
const CHUNK_LENGTH: usize = 4;
/// The longest event that a server writes: 1 GiB and what stands around a row.
const EVENT_MAX: usize = (1 << 30) + (1 << 20);
/// The status byte in front of each event, and the two bytes that a semi-synchronous source puts behind it.
const STATUS: usize = 1;
const SEMI_SYNC_HEADER: usize = 2;
const SEMI_SYNC_MAGIC: u8 = 0xef;
const LONGEST_PREFIX: usize = STATUS + SEMI_SYNC_HEADER;

/// Reads the dump that was asked for.
pub(super) struct DumpReader {
    wire: Wire,
    chunks: Chunks,
    checksum: Checksum,
    semi_sync: bool,
    /// Where the stream stands, for acknowledgements.
    file: Vec<u8>,
    offset: u64,
}

/// What stands in front of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    bytes: usize,
    acknowledge: bool,
}

impl DumpReader {
    /// `checksum` is what the session asked for: that of the events before the first file.
    pub(super) fn new(wire: Wire, chunks: Chunks, semi_sync: bool) -> Self {
        Self { wire, chunks, checksum: Checksum::Crc32, semi_sync, file: Vec::new(), offset: 0 }
    }

    /// Reads until the connection ends, for whatever reason.
    pub(super) fn run(&mut self) -> Result<(), WireFailure> {
        let result = self.read_on();
        // What has come is handed on, whatever ended the stream.
        match self.chunks.flush() {
            Ok(()) => result,
            Err(stopped) => Err(stopped),
        }
    }

    fn read_on(&mut self) -> Result<(), WireFailure> {
        loop {
            while self.take_packet()? {}
            // Whoever waits for the events gets them before the reader waits for more.
            if self.chunks.is_filling() && !self.wire.fill_at_once()? {
                self.chunks.flush()?;
            }
            if !self.chunks.is_filling() {
                self.wire.fill()?;
            }
        }
    }

    /// Takes the next packet; false when it has not come whole.
    fn take_packet(&mut self) -> Result<bool, WireFailure> {
        let buffered = self.wire.buffered();
        if buffered.len() < PACKET_HEADER {
            return Ok(false);
        }
        let length = little_endian(&buffered[..3]) as usize;
        if length + PACKET_HEADER > BUFFER_BYTES {
            self.take_large(length)?;
            return Ok(true);
        }
        let Some(packet) = buffered.get(PACKET_HEADER..PACKET_HEADER + length) else {
            return Ok(false);
        };
        let prefix = prefix(packet, packet.len(), self.semi_sync)?;
        let event = &packet[prefix.bytes..];
        let header = EventHeader::parse(event)?;
        if header.size as usize != event.len() {
            return Err(Malformed("an event says another size than it has").into());
        }
        let checksum = self.checksum.of_event(header.kind, event)?;
        checksum.verify(header.kind, event)?;
        self.checksum = checksum;
        let body_end = event
            .len()
            .checked_sub(checksum.bytes(header.kind))
            .filter(|&end| end >= HEADER_LENGTH)
            .ok_or(Malformed("an event has no room for its checksum"))?;
        let event = &event[..body_end];
        if self.semi_sync {
            follow(&mut self.file, &mut self.offset, &header, &event[HEADER_LENGTH..]);
        }
        append(&mut self.chunks, &header, event)?;
        self.wire.consume(PACKET_HEADER + length);
        if prefix.acknowledge {
            self.acknowledge()?;
        }
        Ok(true)
    }

    /// An event that is larger than the buffer is read into a chunk of its own, so that it is in memory once.
    fn take_large(&mut self, first_length: usize) -> Result<(), WireFailure> {
        self.wire.fill_to(PACKET_HEADER + LONGEST_PREFIX + HEADER_LENGTH)?;
        let packet = &self.wire.buffered()[PACKET_HEADER..];
        let prefix = prefix(packet, first_length, self.semi_sync)?;
        let header = EventHeader::parse(&packet[prefix.bytes..])?;
        let size = header.size as usize;
        if size > EVENT_MAX {
            return Err(Malformed("an event is larger than 1 GiB, which no server writes").into());
        }
        let mut chunk = self.chunks.large(CHUNK_LENGTH + size)?;
        chunk.extend_from_slice(&[0; CHUNK_LENGTH]);
        self.wire.consume(PACKET_HEADER + prefix.bytes);
        let mut length = first_length;
        let mut part = first_length - prefix.bytes;
        loop {
            if chunk.len() + part > CHUNK_LENGTH + size {
                return Err(Malformed("an event says another size than it has").into());
            }
            self.wire.read_into(&mut chunk, part)?;
            if length < PAYLOAD_MAX {
                break;
            }
            self.wire.fill_to(PACKET_HEADER)?;
            length = little_endian(&self.wire.buffered()[..3]) as usize;
            self.wire.consume(PACKET_HEADER);
            part = length;
        }
        let event = &chunk[CHUNK_LENGTH..];
        if event.len() != size {
            return Err(Malformed("an event says another size than it has").into());
        }
        let checksum = self.checksum.of_event(header.kind, event)?;
        checksum.verify(header.kind, event)?;
        self.checksum = checksum;
        chunk.truncate(chunk.len() - checksum.bytes(header.kind));
        let length = chunk.len() - CHUNK_LENGTH;
        chunk[..CHUNK_LENGTH].copy_from_slice(&(length as u32).to_le_bytes());
        if self.semi_sync {
            let body = &chunk[CHUNK_LENGTH + HEADER_LENGTH..];
            follow(&mut self.file, &mut self.offset, &header, body);
        }
        self.chunks.send(chunk)?;
        if prefix.acknowledge {
            self.acknowledge()?;
        }
        Ok(())
    }

    /// Tells a semi-synchronous source that everything up to here has been received.
    fn acknowledge(&mut self) -> Result<(), WireFailure> {
        let mut reply = vec![SEMI_SYNC_MAGIC];
        reply.extend_from_slice(&self.offset.to_le_bytes());
        reply.extend_from_slice(&self.file);
        self.wire.write_command(&reply)
    }
}

/// Reads what stands in front of the event. `length` is that of the whole packet, of which `packet` is the start.
///
/// A semi-synchronous source puts two bytes there. They are told from an event's first bytes by the event's size,
/// which fits at one of the two places only; in the first of several packets it fits at none.
fn prefix(packet: &[u8], length: usize, semi_sync: bool) -> Result<Prefix, WireFailure> {
    match packet.first() {
        Some(0x00) => {}
        Some(0xff) => return Err(server_error(packet)),
        Some(0xfe) if length < 9 => {
            return Err(WireFailure::Transient("the server ended the binlog stream".into()));
        }
        _ => return Err(Malformed("the server sent what is no event").into()),
    }
    const SIZE_AT: usize = 9;
    let size_at = |at: usize| packet.get(at + SIZE_AT..at + SIZE_AT + 4).map(little_endian);
    if semi_sync
        && packet.get(STATUS) == Some(&SEMI_SYNC_MAGIC)
        && packet.get(STATUS + 1).is_some_and(|flag| *flag <= 1)
        && size_at(STATUS) != Some((length - STATUS) as u64)
    {
        let acknowledge = packet[STATUS + 1] & 1 == 1;
        return Ok(Prefix { bytes: STATUS + SEMI_SYNC_HEADER, acknowledge });
    }
    Ok(Prefix { bytes: STATUS, acknowledge: false })
}

/// Appends an event to the chunk, in a form that the encode thread knows.
fn append(chunks: &mut Chunks, header: &EventHeader, event: &[u8]) -> Result<(), WireFailure> {
    let body = &event[HEADER_LENGTH..];
    match header.kind {
        GTID_TAGGED => {
            let gtid = parse_tagged_gtid(body)?;
            let length = HEADER_LENGTH + 32 + gtid.tag.len();
            let chunk = chunks.room_for(CHUNK_LENGTH + length)?;
            append_header(chunk, length, event, kind::TAGGED_GTID_PLAIN, header.next_offset);
            append_plain(&gtid, chunk);
        }
        HEARTBEAT_V2 => {
            let (file, offset) = parse_heartbeat(body)?;
            let length = HEADER_LENGTH + file.len();
            let chunk = chunks.room_for(CHUNK_LENGTH + length)?;
            // The first form has the low 32 bits, as every event has.
            append_header(chunk, length, event, kind::HEARTBEAT, offset as u32);
            chunk.extend_from_slice(file);
        }
        _ => {
            let chunk = chunks.room_for(CHUNK_LENGTH + event.len())?;
            chunk.extend_from_slice(&(event.len() as u32).to_le_bytes());
            chunk.extend_from_slice(event);
        }
    }
    Ok(())
}

fn append_header(chunk: &mut Vec<u8>, length: usize, event: &[u8], kind: u8, next_offset: u32) {
    chunk.extend_from_slice(&(length as u32).to_le_bytes());
    let start = chunk.len();
    chunk.extend_from_slice(&event[..HEADER_LENGTH]);
    chunk[start + 4] = kind;
    chunk[start + 13..start + 17].copy_from_slice(&next_offset.to_le_bytes());
}

/// Keeps the place after an event. Offsets have 32 bits and wrap in files above 4 GiB.
fn follow(file: &mut Vec<u8>, offset: &mut u64, header: &EventHeader, body: &[u8]) {
    if header.kind == kind::ROTATE {
        if let Some((at, name)) = body.split_first_chunk::<8>() {
            *offset = u64::from_le_bytes(*at);
            file.clear();
            file.extend_from_slice(name);
        }
    } else if !header.is_artificial() && header.next_offset != 0 {
        let next = *offset & !0xffff_ffff | u64::from(header.next_offset);
        *offset = if next < *offset { next + (1 << 32) } else { next };
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream, time::Duration};

    use proptest::prelude::*;
    use tokio::sync::mpsc;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{binlog::dump::checksum::CHECKSUM_BYTES, mysql::wire::socket::Socket};

    /// Reads these bytes as a server's, which then closes the connection.
    fn read_bytes(bytes: &[u8], semi_sync: bool) -> Result<(), WireFailure> {
        let (server, client) = UnixStream::pair().expect("a pair");
        let (inbox, received) = mpsc::channel(16);
        let (_spent, back) = mpsc::channel(18);
        (&server).write_all(bytes).expect("it fits into the socket");
        drop(server);
        let shutdown = CancellationToken::new();
        let wire = Wire::new(Socket::Unix(client), Duration::from_secs(20), shutdown);
        let result = DumpReader::new(wire, Chunks::new(inbox, back), semi_sync).run();
        drop(received);
        result
    }

    fn framed(event: &[u8]) -> Vec<u8> {
        let mut packet = ((event.len() + 1) as u32).to_le_bytes().to_vec();
        packet.push(0);
        packet.extend_from_slice(event);
        packet
    }

    fn event(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut event = vec![0xef, 0, 0, 1, kind, 1, 0, 0, 0];
        event.extend_from_slice(
            &((HEADER_LENGTH + body.len() + CHECKSUM_BYTES) as u32).to_le_bytes(),
        );
        event.extend_from_slice(&[9, 0, 0, 0, 0, 0]);
        event.extend_from_slice(body);
        event.extend_from_slice(&crc32fast::hash(&event).to_le_bytes());
        event
    }

    #[test]
    fn semi_sync_header_is_told_from_an_event_by_its_size() {
        // The event's first byte is the magic number itself.
        let plain = [&[0][..], &event(2, b"x")].concat();
        let marked = [&[0, 0xef, 1][..], &event(2, b"x")].concat();
        let read = |packet: &[u8], on| prefix(packet, packet.len(), on).expect("an event");
        assert_eq!(read(&plain, true), Prefix { bytes: 1, acknowledge: false });
        assert_eq!(read(&plain, false), Prefix { bytes: 1, acknowledge: false });
        assert_eq!(read(&marked, true), Prefix { bytes: 3, acknowledge: true });
    }

    #[test]
    fn what_is_no_event_is_said() {
        let said =
            |packet: &[u8]| prefix(packet, packet.len(), true).expect_err("refused").to_string();
        assert_eq!(said(b"\xfe\0\0\x02\0"), "the server ended the binlog stream");
        assert_eq!(said(b"\xff\xd4\x04#HY000Could not find"), "error 1236: Could not find");
        assert_eq!(said(b""), "the server sent what is no event");
    }

    #[test]
    fn offsets_wrap_and_files_change() {
        let (mut file, mut offset) = (Vec::new(), 0);
        let rotate = event(kind::ROTATE, b"\xf0\xff\xff\xff\0\0\0\0b.000001");
        let header = EventHeader::parse(&rotate).expect("a header");
        follow(
            &mut file,
            &mut offset,
            &header,
            &rotate[HEADER_LENGTH..rotate.len() - CHECKSUM_BYTES],
        );
        assert_eq!((file.as_slice(), offset), (&b"b.000001"[..], 0xffff_fff0));
        follow(&mut file, &mut offset, &EventHeader { kind: 2, ..header }, b"");
        assert_eq!(offset, (1 << 32) + 9);
    }

    #[test]
    fn stream_without_an_end_is_a_lost_connection() {
        let whole = framed(&event(2, b"whole"));
        let cut = [&whole[..], &whole[..9]].concat();
        for bytes in [&b""[..], &whole, &cut] {
            let error = read_bytes(bytes, false).expect_err("the connection is closed");
            assert!(matches!(error, WireFailure::Io(_)), "{error:?}");
        }
        let mut damaged = whole;
        damaged[26] ^= 1;
        let error = read_bytes(&damaged, false).expect_err("damaged").to_string();
        assert!(error.contains("arrived damaged"), "{error}");
        let mut huge = vec![0xff, 0xff, 0xff, 0, 0];
        huge.extend_from_slice(&[0xff; 40]);
        let error = read_bytes(&huge, false).expect_err("too large").to_string();
        assert!(error.contains("larger than 1 GiB"), "{error}");
    }

    proptest! {
        #[test]
        fn foreign_streams_end_in_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..3000),
            semi_sync: bool,
        ) {
            prop_assert!(read_bytes(&bytes, semi_sync).is_err());
        }

        #[test]
        fn foreign_bodies_in_right_frames_end_in_an_error(
            bodies in proptest::collection::vec(
                (prop_oneof![Just(4u8), Just(15), Just(0x29), Just(0x2a), any::<u8>()],
                 proptest::collection::vec(any::<u8>(), 0..200)),
                1..8,
            ),
            semi_sync: bool,
        ) {
            let bytes: Vec<u8> =
                bodies.iter().flat_map(|(kind, body)| framed(&event(*kind, body))).collect();
            prop_assert!(read_bytes(&bytes, semi_sync).is_err());
        }

        #[test]
        fn foreign_packets_are_refused_without_a_panic(
            mut packet in proptest::collection::vec(any::<u8>(), 0..80),
            semi_sync: bool,
            length in 0usize..1 << 25,
        ) {
            let _ = prefix(&packet, packet.len(), semi_sync);
            if let Some(first) = packet.first_mut() {
                *first = 0;
                let _ = prefix(&packet, length.max(packet.len()), semi_sync);
            }
        }
    }
}
