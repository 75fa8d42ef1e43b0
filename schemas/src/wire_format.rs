//! The framing before each Avro datum: Confluent's (`00`, 4-byte id) with a schema registry, Avro single-object
//! encoding (`C3 01`, 8-byte fingerprint, little-endian) without one.
//!
//! The fingerprint is CRC-64-AVRO over the schema's exact text, not over its parsing canonical form: that form drops
//! `connect.name` and `connect.parameters`, so DATETIME(3) and DATETIME(6), both plain longs, would share one.

use thiserror::Error;

/// How a record names its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SchemaReference {
    /// A registry's schema id.
    Registry(u32),
    /// The fingerprint of the schema's text.
    Fingerprint(u64),
}

/// A record that starts with neither framing.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("record of {length} bytes starts with neither framing (00 or C3 01)")]
pub struct UnknownFraming {
    /// The record's length in bytes.
    pub length: usize,
}

/// Appends the framing.
#[inline]
pub fn write_framing(out: &mut Vec<u8>, reference: SchemaReference) {
    match reference {
        SchemaReference::Registry(id) => {
            out.push(0);
            out.extend_from_slice(&id.to_be_bytes());
        }
        SchemaReference::Fingerprint(fingerprint) => {
            out.extend_from_slice(&[0xc3, 0x01]);
            out.extend_from_slice(&fingerprint.to_le_bytes());
        }
    }
}

/// Splits a record into its schema reference and its datum.
#[inline]
pub fn read_framing(record: &[u8]) -> Result<(SchemaReference, &[u8]), UnknownFraming> {
    match record {
        [0, a, b, c, d, datum @ ..] => {
            Ok((SchemaReference::Registry(u32::from_be_bytes([*a, *b, *c, *d])), datum))
        }
        [0xc3, 0x01, rest @ ..] if rest.len() >= 8 => {
            let (id, datum) = rest.split_at(8);
            let id = id.iter().rev().fold(0, |acc, &byte| acc << 8 | u64::from(byte));
            Ok((SchemaReference::Fingerprint(id), datum))
        }
        _ => Err(UnknownFraming { length: record.len() }),
    }
}

/// CRC-64-AVRO (Avro specification, "Schema Fingerprints") of a text.
pub fn fingerprint(text: &str) -> u64 {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    text.bytes().fold(EMPTY, |mut hash, byte| {
        hash ^= u64::from(byte);
        for _ in 0..8 {
            hash = (hash >> 1) ^ (EMPTY & 0u64.wrapping_sub(hash & 1));
        }
        hash
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fingerprint_is_the_specifications() {
        // The specification's own example: the fingerprint of "int".
        assert_eq!(fingerprint("\"int\""), 0x7275_d51a_3f39_5c8f);
    }

    proptest! {
        #[test]
        fn framing_reads_back(id: u32, fp: u64, datum: Vec<u8>) {
            for reference in [SchemaReference::Registry(id), SchemaReference::Fingerprint(fp)] {
                let mut record = Vec::new();
                write_framing(&mut record, reference);
                record.extend_from_slice(&datum);
                prop_assert_eq!(read_framing(&record), Ok((reference, &datum[..])));
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let _ = read_framing(&bytes);
        }
    }
}
