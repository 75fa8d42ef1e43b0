//! MariaDB's COMPRESSED columns (`field.cc`, `Field_longstr::compress`): one byte tells the form, then the bytes as
//! they are or deflated.

use miniz_oxide::inflate::{
    TINFLStatus,
    core::{
        DecompressorOxide, decompress,
        inflate_flags::{TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF},
    },
};

use crate::binlog::byte_reader::Malformed;

const DAMAGED: Malformed = Malformed("a COMPRESSED column's bytes cannot be inflated");
/// MariaDB's columns hold up to 4 GB, but no row image of over 1 GB comes over the wire.
const LENGTH_MAX: u64 = 1 << 30;

/// Inflates values, in memory that is kept.
#[derive(Default)]
pub struct ColumnInflater {
    state: Box<DecompressorOxide>,
    inflated: Vec<u8>,
}

impl std::fmt::Debug for ColumnInflater {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ColumnInflater")
    }
}

impl ColumnInflater {
    /// The value itself.
    pub fn inflated<'a>(&'a mut self, stored: &'a [u8]) -> Result<&'a [u8], Malformed> {
        let Some((&form, rest)) = stored.split_first() else { return Ok(&[]) };
        if form == 0 {
            return Ok(rest);
        }
        // The method (8: deflate) above a bit that stands for no zlib header, and the number of bytes of the length.
        let length_bytes = usize::from(form & 7);
        if form >> 4 != 8 || !(1..=4).contains(&length_bytes) {
            return Err(Malformed("a COMPRESSED column's value is in an unknown form"));
        }
        let (length, deflated) = rest.split_at_checked(length_bytes).ok_or(DAMAGED)?;
        let length = length.iter().fold(0u64, |length, &byte| length << 8 | u64::from(byte));
        // Deflate makes a byte out of 1032 at most.
        if length > LENGTH_MAX || length / 1100 > deflated.len() as u64 {
            return Err(DAMAGED);
        }
        self.inflated.resize(length as usize, 0);
        self.state.init();
        let header = if form & 8 == 0 { TINFL_FLAG_PARSE_ZLIB_HEADER } else { 0 };
        let flags = header | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
        let (status, _, written) =
            decompress(&mut self.state, deflated, &mut self.inflated, 0, flags);
        if status != TINFLStatus::Done || written as u64 != length {
            return Err(DAMAGED);
        }
        Ok(&self.inflated)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_are_as_they_are_or_deflated() {
        let mut inflater = ColumnInflater::default();
        assert_eq!(inflater.inflated(&[]), Ok(&b""[..]));
        assert_eq!(inflater.inflated(b"\0abc"), Ok(&b"abc"[..]));
        // MariaDB's REPEAT('ab', 100).
        let stored = [0x89, 0xc8, 0x4b, 0x4c, 0x4a, 0x1c, 0x16, 0x10, 0x00];
        assert_eq!(inflater.inflated(&stored), Ok("ab".repeat(100).as_bytes()));
        assert_eq!(inflater.inflated(&stored[..8]), Err(DAMAGED));
        assert_eq!(
            inflater.inflated(&[0x89, 0xc9, 0x4b, 0x4c, 0x4a, 0x1c, 0x16, 0x10, 0x00]),
            Err(DAMAGED)
        );
        assert!(inflater.inflated(&[0x71, 1, 2]).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(form: u8, bytes: Vec<u8>) {
            let mut inflater = ColumnInflater::default();
            let _ = inflater.inflated(&[&[form][..], &bytes].concat());
            let _ = inflater.inflated(&bytes);
        }
    }
}
