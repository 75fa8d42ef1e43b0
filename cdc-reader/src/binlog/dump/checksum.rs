//! Which checksum the events carry, and whether it is right.

use crate::{
    binlog::{byte_reader::Malformed, event::HEADER_LENGTH},
    mysql::wire::failure::WireFailure,
};

/// Bytes of a checksum.
pub(super) const CHECKSUM_BYTES: usize = 4;
const FORMAT_DESCRIPTION: u8 = 15;
const FLAGS_AT: usize = 17;
/// The file is being written; set after the checksum was computed.
const IN_USE: u8 = 1;
/// The place of the format description's own events' lengths: version 2, server 50, time 4, header length 1.
const LENGTHS_AT: usize = HEADER_LENGTH + 57;

/// The algorithm in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    None,
    Crc32,
}

impl Checksum {
    /// What the event carries: a format description says it for itself and for what follows.
    pub(super) fn of_event(self, kind: u8, event: &[u8]) -> Result<Self, WireFailure> {
        if kind != FORMAT_DESCRIPTION {
            return Ok(self);
        }
        let at = event
            .len()
            .checked_sub(CHECKSUM_BYTES + 1)
            .filter(|&at| at >= LENGTHS_AT)
            .ok_or(Malformed("a format description is too short"))?;
        match event[at] {
            0 => Ok(Self::None),
            1 => Ok(Self::Crc32),
            _ => Err(WireFailure::Malformed(Malformed(
                "the server uses a checksum that is not CRC32; set binlog_checksum = CRC32 and run FLUSH BINARY LOGS",
            ))),
        }
    }

    /// How many bytes at the event's end are no part of its body.
    pub(super) fn bytes(self, kind: u8) -> usize {
        // A format description has the place of a checksum in any case.
        if kind == FORMAT_DESCRIPTION || self == Self::Crc32 { CHECKSUM_BYTES } else { 0 }
    }

    /// Verifies an event as it came.
    pub(super) fn verify(self, kind: u8, event: &[u8]) -> Result<(), WireFailure> {
        if self == Self::None {
            return Ok(());
        }
        let damaged = || {
            WireFailure::Transient("an event arrived damaged (its checksum does not match)".into())
        };
        let (covered, checksum) = event.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
        if covered.len() < HEADER_LENGTH {
            return Err(damaged());
        }
        let mut hasher = crc32fast::Hasher::new();
        if kind == FORMAT_DESCRIPTION {
            hasher.update(&covered[..FLAGS_AT]);
            hasher.update(&[covered[FLAGS_AT] & !IN_USE]);
            hasher.update(&covered[FLAGS_AT + 1..]);
        } else {
            hasher.update(covered);
        }
        if hasher.finalize().to_le_bytes() == *checksum { Ok(()) } else { Err(damaged()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn format_description(algorithm: u8) -> Vec<u8> {
        let mut event = vec![7; LENGTHS_AT + 40];
        event[FLAGS_AT] = 0;
        event.push(algorithm);
        let checksum = crc32fast::hash(&event).to_le_bytes();
        event.extend_from_slice(&checksum);
        event[FLAGS_AT] |= IN_USE;
        event
    }

    #[test]
    fn format_description_says_what_follows_carries() {
        let event = format_description(1);
        let told = Checksum::None.of_event(FORMAT_DESCRIPTION, &event).expect("told");
        assert_eq!(told, Checksum::Crc32);
        told.verify(FORMAT_DESCRIPTION, &event).expect("its own is right");
        let off = format_description(0);
        let told = Checksum::Crc32.of_event(FORMAT_DESCRIPTION, &off).expect("told");
        assert_eq!((told, told.bytes(FORMAT_DESCRIPTION), told.bytes(2)), (Checksum::None, 4, 0));
        assert!(Checksum::None.of_event(FORMAT_DESCRIPTION, &format_description(9)).is_err());
        assert!(Checksum::None.of_event(FORMAT_DESCRIPTION, &event[..60]).is_err());
        assert_eq!(Checksum::Crc32.of_event(2, b"").expect("stays"), Checksum::Crc32);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let mut event = (0..60).collect::<Vec<u8>>();
        event.extend_from_slice(&crc32fast::hash(&event).to_le_bytes());
        Checksum::Crc32.verify(2, &event).expect("right");
        for bit in 0..event.len() * 8 {
            event[bit / 8] ^= 1 << (bit % 8);
            assert!(Checksum::Crc32.verify(2, &event).is_err(), "bit {bit}");
            event[bit / 8] ^= 1 << (bit % 8);
        }
        for length in 0..event.len() {
            assert!(Checksum::Crc32.verify(2, &event[..length]).is_err());
        }
    }
}
