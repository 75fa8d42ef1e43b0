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

use thiserror::Error;

use crate::reader::RecordSpan;

const VERSION: u8 = 1;
const VERSION_WITH_HEADERS: u8 = 2;
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

    /// Writes the header; the segment is then ready to be stored.
    pub fn seal(&mut self) {
        self.layout.resize(self.layout.len().max(HEADER_LENGTH), 0);
        let version = if self.headers_layout.is_empty() { VERSION } else { VERSION_WITH_HEADERS };
        self.layout.append(&mut self.headers_layout);
        self.payload.append(&mut self.headers_payload);
        self.layout[5..13].copy_from_slice(&self.base_offset.to_le_bytes());
        self.layout[13..17].copy_from_slice(&self.count.to_le_bytes());
        let checksum = checksum(&self.layout[CHECKED_FROM..], &self.payload);
        self.layout[0] = version;
        self.layout[1..5].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The description; complete after [`SegmentBuilder::seal`].
    pub fn layout(&self) -> &[u8] {
        &self.layout
    }

    /// The keys, values and headers; complete after [`SegmentBuilder::seal`].
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
            VERSION => false,
            VERSION_WITH_HEADERS => true,
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
            payload_end: (start + self.payload.len()) as u64,
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

    type Record = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>, i64);

    fn build(base_offset: i64, records: &[Record]) -> SegmentBuilder {
        let mut builder = SegmentBuilder::default();
        builder.restart(base_offset);
        for (key, value, headers, timestamp_ms) in records {
            builder.push(key.as_deref(), value.as_deref(), headers, *timestamp_ms);
        }
        builder.seal();
        builder
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        let bytes = || option::of(vec(any::<u8>(), 0..300));
        // Segments without any headers are made as well: they have the other version.
        let headers = prop_oneof![
            2 => vec(Just(Vec::new()), 20),
            3 => vec(prop_oneof![Just(Vec::new()), vec(any::<u8>(), 1..200)], 20),
        ];
        (vec((bytes(), bytes(), any::<i64>()), 0..20), headers).prop_map(|(records, headers)| {
            records
                .into_iter()
                .zip(headers)
                .map(|((key, value, time), headers)| (key, value, headers, time))
                .collect()
        })
    }

    #[test]
    fn segments_written_before_there_were_headers_are_read_and_written_alike() {
        // Bytes as version 1 has always had them: two records, "k" = "v" at 5 ms and a tombstone of "k" at 7 ms.
        let mut layout = vec![1, 0, 0, 0, 0];
        layout.extend_from_slice(&9_i64.to_le_bytes());
        layout.extend_from_slice(&2_u32.to_le_bytes());
        layout.extend_from_slice(&[2, 2, 10, 2, 0, 4]);
        let payload = b"kvk";
        let sum = checksum(&layout[CHECKED_FROM..], payload);
        layout[1..5].copy_from_slice(&sum.to_le_bytes());
        let stored = StoredSegment { base_offset: 9, layout: &layout, payload };
        let mut spans = Vec::new();
        assert_eq!(stored.spans(0, 9, &mut spans), Ok(11));
        let record = |offset, timestamp_ms, key, value| RecordSpan {
            offset,
            timestamp_ms,
            key,
            value,
            headers: (0, 0),
        };
        let wanted = [record(9, 5, Some((0, 1)), Some((1, 2))), record(10, 7, Some((2, 3)), None)];
        assert_eq!(spans, wanted);
        let key = || Some(b"k".to_vec());
        let built =
            build(9, &[(key(), Some(b"v".to_vec()), Vec::new(), 5), (key(), None, Vec::new(), 7)]);
        assert_eq!((built.layout(), built.payload()), (layout.as_slice(), payload.as_slice()));
    }

    #[test]
    fn a_segment_of_a_newer_version_says_what_to_do() {
        let built = build(0, &[]);
        let mut layout = built.layout().to_vec();
        layout[0] = 3;
        let stored = StoredSegment { base_offset: 0, layout: &layout, payload: &[] };
        let error = stored.spans(0, 0, &mut Vec::new()).expect_err("unknown");
        assert_eq!(error, DamagedSegment::Version(3));
        assert!(error.to_string().contains("start that version"), "{error}");
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
                .map(|span| (
                    part(span.key),
                    part(span.value),
                    // A record without headers has an empty span anywhere.
                    if span.headers.0 == span.headers.1 { Vec::new() } else { part(Some(span.headers)).unwrap_or_default() },
                    span.timestamp_ms,
                ))
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
            version in VERSION..=VERSION_WITH_HEADERS,
            payload in vec(any::<u8>(), 0..200),
        ) {
            let mut layout = vec![version, 0, 0, 0, 0];
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
            for (from, to) in spans.iter().map(|span| span.headers).filter(|span| *span != (0, 0)) {
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
