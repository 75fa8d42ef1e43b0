//! The layout of a segment: many records of one topic as a small description and one run of bytes.
//!
//! `layout` = version (1 byte), CRC-32 of what follows and of the payload (4, little endian), offset of the first
//! record (8), number of records (4), then per record three varints: key length + 1 (0: no key), value length + 1
//! (0: tombstone), and the zigzag difference of its timestamp to the previous record's.
//! `payload` = key, value, key, value, ... so that a reader can hand it out without copying each record.

use thiserror::Error;

use crate::reader::RecordSpan;

const VERSION: u8 = 1;
const CHECKED_FROM: usize = 5;
const HEADER_LENGTH: usize = 17;

/// Why the bytes of a segment are not what a writer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DamagedSegment {
    /// The description ends too early, or goes on for too long.
    #[error("its description has a wrong length")]
    Layout,
    /// Another version of Binlake wrote it.
    #[error("its layout has the unknown version {0}")]
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
    base_offset: i64,
    count: u32,
    previous_timestamp_ms: i64,
}

impl SegmentBuilder {
    /// Empties the segment, keeps its memory, and lets it begin at `base_offset`.
    pub fn restart(&mut self, base_offset: i64) {
        self.layout.clear();
        self.payload.clear();
        self.base_offset = base_offset;
        self.count = 0;
        self.previous_timestamp_ms = 0;
    }

    /// Adds a record.
    pub fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp_ms: i64) {
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
        self.count += 1;
    }

    /// Writes the header; the segment is then ready to be stored.
    pub fn seal(&mut self) {
        self.layout.resize(self.layout.len().max(HEADER_LENGTH), 0);
        self.layout[5..13].copy_from_slice(&self.base_offset.to_le_bytes());
        self.layout[13..17].copy_from_slice(&self.count.to_le_bytes());
        let checksum = checksum(&self.layout[CHECKED_FROM..], &self.payload);
        self.layout[0] = VERSION;
        self.layout[1..5].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The description; complete after [`SegmentBuilder::seal`].
    pub fn layout(&self) -> &[u8] {
        &self.layout
    }

    /// The keys and values.
    pub fn payload(&self) -> &[u8] {
        &self.payload
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
        self.layout.len() + self.payload.len()
    }

    /// How much memory it keeps.
    pub fn capacity(&self) -> usize {
        self.layout.capacity() + self.payload.capacity()
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
    /// The keys and values.
    pub payload: &'a [u8],
}

impl StoredSegment<'_> {
    /// Adds the spans of the records from `wanted_offset` on, for a payload that stands at `start` in the batch's
    /// bytes, and returns the offset after the last record.
    pub fn spans(
        &self,
        start: usize,
        wanted_offset: i64,
        spans: &mut Vec<RecordSpan>,
    ) -> Result<i64, DamagedSegment> {
        let header = self.layout.get(..HEADER_LENGTH).ok_or(DamagedSegment::Layout)?;
        if header[0] != VERSION {
            return Err(DamagedSegment::Version(header[0]));
        }
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
            payload_end: (start + self.payload.len()) as u64,
        };
        let mut timestamp_ms = 0_i64;
        let mut offset = self.base_offset;
        for _ in 0..count {
            let key = cursor.part()?;
            let value = cursor.part()?;
            let difference = cursor.varint()?;
            let difference = ((difference >> 1) as i64) ^ -((difference & 1) as i64);
            timestamp_ms = timestamp_ms.wrapping_add(difference);
            if offset >= wanted_offset {
                spans.push(RecordSpan { offset, timestamp_ms, key, value });
            }
            offset = offset.checked_add(1).ok_or(DamagedSegment::Layout)?;
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

    fn part(&mut self) -> Result<Option<(u32, u32)>, DamagedSegment> {
        let Some(length) = self.varint()?.checked_sub(1) else {
            return Ok(None);
        };
        let from = self.payload_at;
        let to = from.checked_add(length).ok_or(DamagedSegment::Payload)?;
        if to > self.payload_end {
            return Err(DamagedSegment::Payload);
        }
        self.payload_at = to;
        let narrow = |at: u64| u32::try_from(at).map_err(|_| DamagedSegment::Payload);
        Ok(Some((narrow(from)?, narrow(to)?)))
    }
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
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
mod tests {
    use proptest::{collection::vec, option, prelude::*};

    use super::*;

    type Record = (Option<Vec<u8>>, Option<Vec<u8>>, i64);

    fn build(base_offset: i64, records: &[Record]) -> SegmentBuilder {
        let mut builder = SegmentBuilder::default();
        builder.restart(base_offset);
        for (key, value, timestamp_ms) in records {
            builder.push(key.as_deref(), value.as_deref(), *timestamp_ms);
        }
        builder.seal();
        builder
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let bytes = || option::of(vec(any::<u8>(), 0..300));
        vec((bytes(), bytes(), any::<i64>()), 0..20)
    }

    proptest! {
        #[test]
        fn records_come_back_as_they_were_written(
            base_offset in 0..i64::MAX / 2, records in records(), start in 0_usize..1000, skip in 0_i64..25,
        ) {
            let builder = build(base_offset, &records);
            let stored = StoredSegment { base_offset, layout: builder.layout(), payload: builder.payload() };
            let mut spans = Vec::new();
            let next = stored.spans(start, base_offset + skip, &mut spans).expect("own bytes");
            prop_assert_eq!(next, base_offset + records.len() as i64);
            prop_assert_eq!(next, builder.next_offset());
            let part = |span: Option<(u32, u32)>| span.map(|(from, to)| {
                builder.payload()[from as usize - start..to as usize - start].to_vec()
            });
            let found: Vec<Record> = spans.iter()
                .map(|span| (part(span.key), part(span.value), span.timestamp_ms))
                .collect();
            let wanted = records.get(skip as usize..).unwrap_or_default();
            prop_assert_eq!(found.as_slice(), wanted);
            for (index, span) in spans.iter().enumerate() {
                prop_assert_eq!(span.offset, base_offset + skip + index as i64);
            }
        }

        #[test]
        fn foreign_bytes_are_refused_without_a_panic(
            layout in vec(any::<u8>(), 0..200), payload in vec(any::<u8>(), 0..200), base_offset in any::<i64>(),
        ) {
            let stored = StoredSegment { base_offset, layout: &layout, payload: &payload };
            prop_assert!(stored.spans(0, 0, &mut Vec::new()).is_err());
        }

        #[test]
        fn foreign_bytes_with_a_good_checksum_do_not_panic(
            body in vec(any::<u8>(), 0..200), count in 0_u32..50, base_offset in any::<i64>(),
            payload in vec(any::<u8>(), 0..200),
        ) {
            let mut layout = vec![VERSION, 0, 0, 0, 0];
            layout.extend_from_slice(&base_offset.to_le_bytes());
            layout.extend_from_slice(&count.to_le_bytes());
            layout.extend_from_slice(&body);
            let sum = checksum(&layout[CHECKED_FROM..], &payload);
            layout[1..5].copy_from_slice(&sum.to_le_bytes());
            let mut spans = Vec::new();
            let stored = StoredSegment { base_offset, layout: &layout, payload: &payload };
            let _ = stored.spans(7, i64::MIN, &mut spans);
            for (from, to) in spans.iter().flat_map(|span| [span.key, span.value]).flatten() {
                prop_assert!(7 <= from && from <= to && to as usize <= 7 + payload.len());
            }
        }

        #[test]
        fn a_changed_byte_is_noticed(records in records(), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let builder = build(5, &records);
            let mut layout = builder.layout().to_vec();
            let mut payload = builder.payload().to_vec();
            let at = at.index(layout.len() + payload.len());
            let split = layout.len();
            if at < split { layout[at] ^= 1 << bit } else { payload[at - split] ^= 1 << bit }
            let stored = StoredSegment { base_offset: 5, layout: &layout, payload: &payload };
            prop_assert!(stored.spans(0, 0, &mut Vec::new()).is_err());
        }
    }
}
