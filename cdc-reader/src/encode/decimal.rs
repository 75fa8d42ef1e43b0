//! MySQL's DECIMAL (`decimal_bin2`: big-endian groups of nine digits, sign in the first bit, negative numbers
//! inverted) to Avro's unscaled two's complement.

use schemas::avro_write::{write_bytes, write_unscaled};

use crate::binlog::byte_reader::{Malformed, take};

/// Bytes of a group of 0 to 9 digits.
const GROUP_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
const POWERS: [u64; 10] =
    [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000];

/// Bytes of a value in a row image.
pub fn stored_length(precision: u8, scale: u8) -> usize {
    let whole = usize::from(precision - scale);
    let scale = usize::from(scale);
    whole / 9 * 4 + GROUP_BYTES[whole % 9] + scale / 9 * 4 + GROUP_BYTES[scale % 9]
}

/// Reads a value from the front of `input` and appends it as Avro `bytes`.
#[inline]
pub fn encode(
    input: &mut &[u8],
    precision: u8,
    scale: u8,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let stored = take(input, stored_length(precision, scale))?;
    if precision <= 38 {
        write_unscaled(out, unscaled(stored, precision, scale)?);
    } else {
        write_wide(stored, precision, scale, out)?;
    }
    Ok(())
}

/// The unscaled value of up to 38 digits.
pub fn unscaled(stored: &[u8], precision: u8, scale: u8) -> Result<i128, Malformed> {
    let mut number = 0i128;
    let negative = for_each_group(stored, precision, scale, |digits, group| {
        number = number * i128::from(POWERS[digits]) + i128::from(group);
    })?;
    Ok(if negative { -number } else { number })
}

/// Appends the number as text with its scale, for decimals inside JSON.
pub fn write_text(
    stored: &[u8],
    precision: u8,
    scale: u8,
    out: &mut Vec<u8>,
) -> Result<(), Malformed> {
    let (mut digits, mut count) = ([b'0'; 72], 0);
    let negative = for_each_group(stored, precision, scale, |width, mut group| {
        for digit in digits.iter_mut().skip(count).take(width).rev() {
            *digit = b'0' + (group % 10) as u8;
            group /= 10;
        }
        count += width;
    })?;
    let digits = digits.get(..count).unwrap_or_default();
    let (whole, fraction) = digits.split_at(count.saturating_sub(usize::from(scale)));
    let zeros = whole.iter().take_while(|&&digit| digit == b'0').count();
    if negative {
        out.push(b'-');
    }
    // A zero stands in front of the point.
    out.extend_from_slice(if zeros == whole.len() { b"0" } else { &whole[zeros..] });
    if !fraction.is_empty() {
        out.push(b'.');
        out.extend_from_slice(fraction);
    }
    Ok(())
}

/// Up to 65 digits: a little-endian number of eight 32-bit limbs, then two's complement.
fn write_wide(stored: &[u8], precision: u8, scale: u8, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut limbs = [0u32; 8];
    let negative = for_each_group(stored, precision, scale, |digits, group| {
        let mut carry = u64::from(group);
        for limb in &mut limbs {
            carry += u64::from(*limb) * POWERS[digits];
            *limb = carry as u32;
            carry >>= 32;
        }
    })?;
    write_limbs(limbs, negative, out);
    Ok(())
}

/// So many digits always fit into 64 bits with a sign.
const DIGITS_IN_I64: usize = 18;

/// Appends an unscaled decimal text of any length as Avro `bytes`; for values that come as text.
pub fn encode_text(text: &[u8], scale: u8, out: &mut Vec<u8>) -> Result<(), Malformed> {
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let point = digits.iter().position(|&b| b == b'.').unwrap_or(digits.len());
    let fraction = digits.get(point + 1..).unwrap_or_default();
    if fraction.len() > usize::from(scale) || digits.len() > 100 {
        return Err(Malformed("a decimal has more digits than its column"));
    }
    let padding = usize::from(scale) - fraction.len();
    if digits.len() + padding <= DIGITS_IN_I64 {
        let mut number = 0i64;
        for &digit in digits[..point].iter().chain(fraction) {
            if !digit.is_ascii_digit() {
                return Err(Malformed("a decimal has something else than digits"));
            }
            number = number * 10 + i64::from(digit - b'0');
        }
        for _ in 0..padding {
            number *= 10;
        }
        write_unscaled(out, i128::from(if negative { -number } else { number }));
        return Ok(());
    }
    let mut limbs = [0u32; 8];
    let padding = std::iter::repeat_n(&b'0', padding);
    for &digit in digits[..point].iter().chain(fraction).chain(padding) {
        if !digit.is_ascii_digit() {
            return Err(Malformed("a decimal has something else than digits"));
        }
        let mut carry = u64::from(digit - b'0');
        for limb in &mut limbs {
            carry += u64::from(*limb) * 10;
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry != 0 {
            return Err(Malformed("a decimal has over 65 digits"));
        }
    }
    write_limbs(limbs, negative, out);
    Ok(())
}

/// Appends a magnitude of eight limbs, least significant first, as the shortest two's complement.
fn write_limbs(mut limbs: [u32; 8], negative: bool, out: &mut Vec<u8>) {
    if negative {
        let mut carry = true;
        for limb in &mut limbs {
            let (value, overflow) = (!*limb).overflowing_add(u32::from(carry));
            *limb = value;
            carry = overflow;
        }
    }
    let mut bytes = [0u8; 32];
    for (chunk, limb) in bytes.chunks_exact_mut(4).zip(limbs.iter().rev()) {
        chunk.copy_from_slice(&limb.to_be_bytes());
    }
    write_bytes(out, shortest(&bytes));
}

/// Cuts the bytes that only repeat the sign.
fn shortest(bytes: &[u8; 32]) -> &[u8] {
    let sign = if bytes[0] & 0x80 != 0 { 0xff } else { 0 };
    let mut from = 0;
    while from < 31 && bytes[from] == sign && (bytes[from + 1] & 0x80 != 0) == (sign == 0xff) {
        from += 1;
    }
    &bytes[from..]
}

/// Calls `take_group(digits, value)` for each group from the left; returns whether the number is negative.
#[inline(always)]
fn for_each_group(
    stored: &[u8],
    precision: u8,
    scale: u8,
    mut take_group: impl FnMut(usize, u32),
) -> Result<bool, Malformed> {
    let first = *stored.first().ok_or(Malformed("a decimal is empty"))?;
    let negative = first & 0x80 == 0;
    let inverted = if negative { 0xff } else { 0 };
    let mut at = 0;
    let mut group = |digits: usize| {
        let bytes = GROUP_BYTES[digits];
        let mut value = 0u32;
        for i in at..at + bytes {
            let mut byte = stored.get(i).copied().unwrap_or_default() ^ inverted;
            if i == 0 {
                byte ^= 0x80;
            }
            value = value << 8 | u32::from(byte);
        }
        at += bytes;
        take_group(digits, value);
    };
    let (whole, scale) = (usize::from(precision - scale), usize::from(scale));
    if !whole.is_multiple_of(9) {
        group(whole % 9);
    }
    (0..whole / 9 + scale / 9).for_each(|_| group(9));
    if !scale.is_multiple_of(9) {
        group(scale % 9);
    }
    Ok(negative)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// MySQL's `decimal2bin` for a text with exactly the column's digits.
    fn stored(negative: bool, digits: &str, precision: u8, scale: u8) -> Vec<u8> {
        let (whole, fraction) = digits.split_at(usize::from(precision - scale));
        let mut out = Vec::new();
        let mut put = |group: &str| {
            let bytes = GROUP_BYTES[group.len()];
            let value: u32 = group.parse().unwrap_or(0);
            out.extend_from_slice(&value.to_be_bytes()[4 - bytes..]);
        };
        let (head, mut rest) = whole.split_at(whole.len() % 9);
        put(head);
        while !rest.is_empty() {
            put(&rest[..9]);
            rest = &rest[9..];
        }
        let mut rest = fraction;
        while rest.len() >= 9 {
            put(&rest[..9]);
            rest = &rest[9..];
        }
        put(rest);
        if negative {
            out.iter_mut().for_each(|b| *b = !*b);
        }
        out[0] ^= 0x80;
        out
    }

    proptest! {
        #[test]
        fn every_precision_and_scale_gives_its_number(
            digits in "[0-9]{65}", negative: bool, precision in 1u8..=65, scale in 0u8..=30,
        ) {
            let scale = scale.min(precision);
            let digits = &digits[..usize::from(precision)];
            let negative = negative && digits.bytes().any(|b| b != b'0');
            let bytes = stored(negative, digits, precision, scale);
            prop_assert_eq!(bytes.len(), stored_length(precision, scale));
            let mut from_binary = Vec::new();
            let mut input = &bytes[..];
            encode(&mut input, precision, scale, &mut from_binary).expect("decodes");
            prop_assert!(input.is_empty());
            let sign = if negative { "-" } else { "" };
            let (whole, fraction) = digits.split_at(usize::from(precision - scale));
            let text = format!("{sign}{whole}.{fraction}");
            let mut from_text = Vec::new();
            encode_text(text.as_bytes(), scale, &mut from_text).expect("decodes");
            prop_assert_eq!(&from_binary, &from_text);
            if precision <= 38 {
                let mut expected = Vec::new();
                let number: i128 = format!("{sign}{digits}").parse().expect("fits");
                write_unscaled(&mut expected, number);
                prop_assert_eq!(&from_binary, &expected);
            }
        }
    }
}
