//! Reads numbers and slices from the front of foreign bytes; an early end is an error, never a panic.

use thiserror::Error;

/// Bytes that do not hold what their format promises.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// The first `count` bytes.
#[inline(always)]
pub fn take<'a>(input: &mut &'a [u8], count: usize) -> Result<&'a [u8], Malformed> {
    let (head, tail) = input.split_at_checked(count).ok_or(Malformed("it ends too early"))?;
    *input = tail;
    Ok(head)
}

/// An unsigned little-endian number of up to 8 bytes.
#[inline(always)]
pub fn take_le(input: &mut &[u8], count: usize) -> Result<u64, Malformed> {
    Ok(little_endian(take(input, count)?))
}

/// An unsigned big-endian number of up to 8 bytes.
#[inline(always)]
pub fn take_be(input: &mut &[u8], count: usize) -> Result<u64, Malformed> {
    Ok(take(input, count)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// A fixed number of bytes.
#[inline(always)]
pub fn take_array<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, tail) = input.split_first_chunk::<N>().ok_or(Malformed("it ends too early"))?;
    *input = tail;
    Ok(*head)
}

/// MySQL's length-encoded integer (manual: "Protocol::LengthEncodedInteger").
#[inline(always)]
pub fn take_length(input: &mut &[u8]) -> Result<usize, Malformed> {
    let [first] = take_array::<1>(input)?;
    let number = match first {
        0xfc => take_le(input, 2)?,
        0xfd => take_le(input, 3)?,
        0xfe => take_le(input, 8)?,
        0xfb | 0xff => return Err(Malformed("a length-encoded number starts with fb or ff")),
        small => u64::from(small),
    };
    usize::try_from(number).map_err(|_| Malformed("a length does not fit into memory"))
}

/// The little-endian number in up to 8 bytes.
#[inline(always)]
pub fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

/// Whether bit `index` (least significant bit of each byte first) is set; bits past the end are not.
#[inline(always)]
pub fn bit(bitmap: &[u8], index: usize) -> bool {
    bitmap.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}
