//! The layout of a segment: many records of one topic as a small description and one run of bytes.
//!
//! `layout` = version (1 byte), CRC-32 of what follows and of the payload (4, little endian), offset of the first
//! record (8), number of records (4), then per record three varints: key length + 1 (0: no key), value length + 1
//! (0: tombstone), and the zigzag difference of its timestamp to the previous record's.
//! `payload` = key, value, key, value, ... so that a reader can hand it out without copying each record.
//!
//! A segment with record headers has version 2. After the records its layout has, per record with headers, two varints:
//! how many records without headers stand before it since the last such record, and the length of its headers. The
//! headers follow the keys and values in the payload. Segments without headers stay as they were: version 1.
//!
//! The payload of versions 3 (without headers) and 4 (with) is compressed: its length (4, little endian), then one block
//! of LZ4. The records of a table repeat most of their envelope, so this costs less than to write them as they are.

use lz4_flex::block::{compress_into, decompress_into, get_maximum_output_size};
use thiserror::Error;

use crate::reader::RecordSpan;

const VERSION: u8 = 1;
const VERSION_WITH_HEADERS: u8 = 2;
const VERSION_COMPRESSED: u8 = 3;
const VERSION_COMPRESSED_WITH_HEADERS: u8 = 4;
/// Smaller payloads stay as they are: what a commit of a few records writes is whole pages anyway.
const COMPRESSED_FROM: usize = 8 * 1024;
/// Of the length in front of a compressed payload.
const LENGTH_BYTES: usize = 4;
/// A byte of an LZ4 block stands for no more than this.
const EXPANSION_MAX: usize = 255;
const CHECKED_FROM: usize = 5;
const HEADER_LENGTH: usize = 17;

/// Why the bytes of a segment are not what a writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DamagedSegment {
    /// The description ends too early, or goes on for too long.
    #[error("its description has a wrong length")]
    Layout,
    /// Another version of Binlake wrote it.
    #[error("its layout has version {0}, which only a newer binlake reads; start that version")]
    Version(u8),
    /// The bytes changed since they were written.
    #[error("its checksum does not match")]
    Checksum,
    /// It is stored under another offset than its own.
    #[error("it holds offset {found} where {wanted} was expected")]
    Offset {
        /// The offset it is stored under.
        wanted: i64,
        /// The offset it was written with.
        found: i64,
    },
    /// The lengths of its records do not add up to the payload's.
    #[error("the lengths of its records do not add up")]
    Payload,
}

/// A segment being filled.
#[derive(Debug, Default)]
pub struct SegmentBuilder {
    layout: Vec<u8>,
    payload: Vec<u8>,
    headers_layout: Vec<u8>,
    headers_payload: Vec<u8>,
    /// The number of the record after the last one with headers.
    headers_next: u32,
    base_offset: i64,
    count: u32,
    previous_timestamp_ms: i64,
}

impl SegmentBuilder {
    /// Empties the segment, keeps its memory, and lets it begin at `base_offset`.
    pub fn restart(&mut self, base_offset: i64) {
        self.layout.clear();
        self.payload.clear();
        self.headers_layout.clear();
        self.headers_payload.clear();
        self.headers_next = 0;
        self.base_offset = base_offset;
        self.count = 0;
        self.previous_timestamp_ms = 0;
    }

    /// Adds a record; `headers` is empty for none.
    pub fn push(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[u8],
        timestamp_ms: i64,
    ) {
        if self.layout.is_empty() {
            self.layout.resize(HEADER_LENGTH, 0);
        }
        for part in [key, value] {
            write_varint(&mut self.layout, part.map_or(0, |bytes| bytes.len() as u64 + 1));
            self.payload.extend_from_slice(part.unwrap_or_default());
        }
        let difference = timestamp_ms.wrapping_sub(self.previous_timestamp_ms);
        write_varint(&mut self.layout, ((difference << 1) ^ (difference >> 63)) as u64);
        self.previous_timestamp_ms = timestamp_ms;
        if !headers.is_empty() {
            write_varint(&mut self.headers_layout, u64::from(self.count - self.headers_next));
            write_varint(&mut self.headers_layout, headers.len() as u64);
            self.headers_payload.extend_from_slice(headers);
            self.headers_next = self.count + 1;
        }
        self.count += 1;
    }

    /// Writes the header. What is to be stored: the description, and the keys, values and headers, which are in
    /// `compressed` when that pays.
    pub fn seal<'a>(&'a mut self, compressed: &'a mut Vec<u8>) -> (&'a [u8], &'a [u8]) {
        self.layout.resize(self.layout.len().max(HEADER_LENGTH), 0);
        let with_headers = !self.headers_layout.is_empty();
        self.layout.append(&mut self.headers_layout);
        self.payload.append(&mut self.headers_payload);
        self.layout[5..13].copy_from_slice(&self.base_offset.to_le_bytes());
        self.layout[13..17].copy_from_slice(&self.count.to_le_bytes());
        let is_compressed = compress(&self.payload, compressed);
        let payload = if is_compressed { compressed } else { &self.payload };
        let checksum = checksum(&self.layout[CHECKED_FROM..], payload);
        self.layout[0] = match (is_compressed, with_headers) {
            (false, false) => VERSION,
            (false, true) => VERSION_WITH_HEADERS,
            (true, false) => VERSION_COMPRESSED,
            (true, true) => VERSION_COMPRESSED_WITH_HEADERS,
        };
        self.layout[1..5].copy_from_slice(&checksum.to_le_bytes());
        (&self.layout, payload)
    }

    /// The offset of the first record.
    pub fn base_offset(&self) -> i64 {
        self.base_offset
    }

    /// The offset after the last record.
    pub fn next_offset(&self) -> i64 {
        self.base_offset + i64::from(self.count)
    }

    /// How much memory its records take.
    pub fn byte_length(&self) -> usize {
        self.layout.len()
            + self.payload.len()
            + self.headers_layout.len()
            + self.headers_payload.len()
    }

    /// How much memory it keeps.
    pub fn capacity(&self) -> usize {
        self.layout.capacity()
            + self.payload.capacity()
            + self.headers_layout.capacity()
            + self.headers_payload.capacity()
    }

    /// Whether it has no record.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// A segment as it was read.
#[derive(Clone, Copy, Debug)]
pub struct StoredSegment<'a> {
    /// The offset it is stored under.
    pub base_offset: i64,
    /// The description.
    pub layout: &'a [u8],
    /// The keys, values and headers.
    pub payload: &'a [u8],
}

impl StoredSegment<'_> {
    /// How many bytes the keys, values and headers are.
    pub fn payload_length(&self) -> Result<usize, DamagedSegment> {
        if !self.is_compressed() {
            return Ok(self.payload.len());
        }
        let length: [u8; LENGTH_BYTES] =
            fixed(self.payload, 0).map_err(|_| DamagedSegment::Payload)?;
        let length = u32::from_le_bytes(length) as usize;
        // The length decides how much memory is taken: a damaged one must not.
        let most = (self.payload.len() - LENGTH_BYTES).saturating_mul(EXPANSION_MAX);
        if length <= most { Ok(length) } else { Err(DamagedSegment::Payload) }
    }

    /// Appends the keys, values and headers.
    pub fn append_payload(&self, out: &mut Vec<u8>) -> Result<(), DamagedSegment> {
        if !self.is_compressed() {
            out.extend_from_slice(self.payload);
            return Ok(());
        }
        let (start, length) = (out.len(), self.payload_length()?);
        out.resize(start + length, 0);
        match decompress_into(&self.payload[LENGTH_BYTES..], &mut out[start..]) {
            Ok(written) if written == length => Ok(()),
            _ => Err(DamagedSegment::Payload),
        }
    }

    fn is_compressed(&self) -> bool {
        let version = self.layout.first();
        matches!(version, Some(&(VERSION_COMPRESSED | VERSION_COMPRESSED_WITH_HEADERS)))
    }

    /// Adds the spans of the records from `wanted_offset` on, for a payload that stands at `start` in the batch's
    /// bytes, and returns the offset after the last record.
    pub fn spans(
        &self,
        start: usize,
        wanted_offset: i64,
        spans: &mut Vec<RecordSpan>,
    ) -> Result<i64, DamagedSegment> {
        let header = self.layout.get(..HEADER_LENGTH).ok_or(DamagedSegment::Layout)?;
        let with_headers = match header[0] {
            VERSION | VERSION_COMPRESSED => false,
            VERSION_WITH_HEADERS | VERSION_COMPRESSED_WITH_HEADERS => true,
            version => return Err(DamagedSegment::Version(version)),
        };
        let stored_checksum = u32::from_le_bytes(fixed(header, 1)?);
        if checksum(&self.layout[CHECKED_FROM..], self.payload) != stored_checksum {
            return Err(DamagedSegment::Checksum);
        }
        let found = i64::from_le_bytes(fixed(header, 5)?);
        if found != self.base_offset {
            return Err(DamagedSegment::Offset { wanted: self.base_offset, found });
        }
        let count = u32::from_le_bytes(fixed(header, 13)?);
        let mut cursor = Cursor {
            layout: self.layout,
            at: HEADER_LENGTH,
            payload_at: start as u64,
            payload_end: (start + self.payload_length()?) as u64,
        };
        let mut timestamp_ms = 0_i64;
        let mut offset = self.base_offset;
        let spans_before = spans.len();
        for _ in 0..count {
            let key = cursor.part()?;
            let value = cursor.part()?;
            let difference = cursor.varint()?;
            let difference = ((difference >> 1) as i64) ^ -((difference & 1) as i64);
            timestamp_ms = timestamp_ms.wrapping_add(difference);
            if offset >= wanted_offset {
                spans.push(RecordSpan { offset, timestamp_ms, key, value, headers: (0, 0) });
            }
            offset = offset.checked_add(1).ok_or(DamagedSegment::Layout)?;
        }
        if with_headers {
            let wanted = &mut spans[spans_before..];
            let passed = i64::from(count) - wanted.len() as i64;
            cursor.headers(count, passed, wanted)?;
        }
        if cursor.at != self.layout.len() {
            return Err(DamagedSegment::Layout);
        }
        if cursor.payload_at != cursor.payload_end {
            return Err(DamagedSegment::Payload);
        }
        Ok(offset)
    }
}

struct Cursor<'a> {
    layout: &'a [u8],
    at: usize,
    payload_at: u64,
    payload_end: u64,
}

impl Cursor<'_> {
    fn varint(&mut self) -> Result<u64, DamagedSegment> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.layout.get(self.at).ok_or(DamagedSegment::Layout)?;
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DamagedSegment::Layout);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DamagedSegment::Layout)
    }

    /// Gives the records their headers; `wanted` are the last ones of the `count`, after those `passed`.
    fn headers(
        &mut self,
        count: u32,
        passed: i64,
        wanted: &mut [RecordSpan],
    ) -> Result<(), DamagedSegment> {
        let mut next = 0_u64;
        while self.at < self.layout.len() {
            let record = self
                .varint()?
                .checked_add(next)
                .filter(|record| *record < u64::from(count))
                .ok_or(DamagedSegment::Layout)?;
            next = record + 1;
            let length = self.varint()?;
            let span = self.span(length)?;
            let place = usize::try_from(record as i64 - passed).ok();
            if let Some(record) = place.and_then(|place| wanted.get_mut(place)) {
                record.headers = span;
            }
        }
        Ok(())
    }

    fn part(&mut self) -> Result<Option<(u32, u32)>, DamagedSegment> {
        let Some(length) = self.varint()?.checked_sub(1) else {
            return Ok(None);
        };
        self.span(length).map(Some)
    }

    fn span(&mut self, length: u64) -> Result<(u32, u32), DamagedSegment> {
        let from = self.payload_at;
        let to = from.checked_add(length).ok_or(DamagedSegment::Payload)?;
        if to > self.payload_end {
            return Err(DamagedSegment::Payload);
        }
        self.payload_at = to;
        let narrow = |at: u64| u32::try_from(at).map_err(|_| DamagedSegment::Payload);
        Ok((narrow(from)?, narrow(to)?))
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Compresses a payload; `false` when that does not pay.
fn compress(payload: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(length) = u32::try_from(payload.len()) else { return false };
    if payload.len() < COMPRESSED_FROM {
        return false;
    }
    out.resize(LENGTH_BYTES + get_maximum_output_size(payload.len()), 0);
    out[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    let Ok(written) = compress_into(payload, &mut out[LENGTH_BYTES..]) else { return false };
    out.truncate(LENGTH_BYTES + written);
    out.len() < payload.len() / 4 * 3
}

fn checksum(layout: &[u8], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(layout);
    hasher.update(payload);
    hasher.finalize()
}

fn fixed<const N: usize>(bytes: &[u8], from: usize) -> Result<[u8; N], DamagedSegment> {
    bytes.get(from..from + N).and_then(|part| part.try_into().ok()).ok_or(DamagedSegment::Layout)
}

#[cfg(test)]
mod tests;
