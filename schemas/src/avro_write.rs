//! Avro's binary encoding of single values, appended to a byte vector (Avro 1.12 specification, "Binary Encoding").

/// Appends a `long` (or `int`): zig-zag, then variable length, 1 to 10 bytes.
#[inline(always)]
pub fn write_long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    if rest < 0x80 {
        out.push(rest as u8);
        return;
    }
    let mut buffer = [0u8; 10];
    let mut length = 0;
    while rest >= 0x80 {
        buffer[length] = rest as u8 | 0x80;
        rest >>= 7;
        length += 1;
    }
    buffer[length] = rest as u8;
    out.extend_from_slice(&buffer[..=length]);
}

/// Appends `bytes` or a `string`: the length, then the bytes.
#[inline(always)]
pub fn write_bytes(out: &mut Vec<u8>, value: &[u8]) {
    write_long(out, value.len() as i64);
    out.extend_from_slice(value);
}

/// Appends a decimal's unscaled value as the shortest big-endian two's complement, as `BigInteger.toByteArray` does.
#[inline(always)]
pub fn write_unscaled(out: &mut Vec<u8>, value: i128) {
    let significant =
        129 - if value < 0 { (!value).leading_zeros() } else { value.leading_zeros() };
    let length = (significant as usize).div_ceil(8);
    write_long(out, length as i64);
    out.extend_from_slice(&value.to_be_bytes()[16 - length..]);
}

/// Reads a `long` from the front of `input`. `None` when the bytes end early or the number has over 10 bytes.
#[inline(always)]
pub fn read_long(input: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for (i, &byte) in input.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            *input = &input[i + 1..];
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Reads `bytes` or a `string` from the front of `input`. `None` when the bytes end early.
#[inline(always)]
pub fn read_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(read_long(input)?).ok()?;
    let (value, rest) = input.split_at_checked(length)?;
    *input = rest;
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn long_reads_back_and_consumes_exactly_its_bytes(value: i64, tail: Vec<u8>) {
            let mut bytes = Vec::new();
            write_long(&mut bytes, value);
            bytes.extend_from_slice(&tail);
            let mut input = &bytes[..];
            prop_assert_eq!(read_long(&mut input), Some(value));
            prop_assert_eq!(input, &tail[..]);
        }

        #[test]
        fn unscaled_is_the_shortest_twos_complement(value: i128) {
            let mut bytes = Vec::new();
            write_unscaled(&mut bytes, value);
            let mut input = &bytes[..];
            let body = read_bytes(&mut input).expect("just written");
            let sign = if body[0] & 0x80 != 0 { -1i128 } else { 0 };
            prop_assert_eq!(body.iter().fold(sign, |acc, &b| acc << 8 | i128::from(b)), value);
            prop_assert!(body.len() == 1 || !matches!((body[0], body[1] & 0x80), (0, 0) | (0xff, 0x80)));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let mut input = &bytes[..];
            while read_bytes(&mut input).is_some() {}
        }
    }
}
