//! Avro decimals: big-endian two's complement in, a 128-bit integer or plain decimal text out.

/// Bytes of a decimal of 65 digits, MySQL's largest, with room for sign extension.
const BYTES_MAX: usize = 64;

/// The unscaled value, when it fits 128 bits.
pub fn unscaled(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let extra = bytes.len().saturating_sub(16);
    let (leading, rest) = bytes.split_at(extra);
    if leading.iter().any(|&byte| byte != fill) {
        return None;
    }
    let mut padded = [fill; 16];
    padded[16 - rest.len()..].copy_from_slice(rest);
    let value = i128::from_be_bytes(padded);
    ((value < 0) == negative).then_some(value)
}

/// Whether a value has at most `precision` digits.
pub fn fits(value: i128, precision: u32) -> bool {
    10i128.checked_pow(precision).is_none_or(|limit| value.unsigned_abs() < limit.unsigned_abs())
}

/// Appends a value as plain digits with exactly `scale` of them after the point: `-12.50`.
pub fn write_text(value: i128, scale: u32, out: &mut Vec<u8>) {
    let mut buffer = [0u8; 40];
    let mut at = buffer.len();
    let mut rest = value.unsigned_abs();
    while rest > 0 || at == buffer.len() {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    write_digits(value < 0, &buffer[at..], scale, out);
}

/// Appends a decimal of any size as plain digits. `None` when it has more bytes than MySQL's largest decimal.
pub fn write_wide_text(bytes: &[u8], scale: u32, out: &mut Vec<u8>) -> Option<()> {
    if let Some(value) = unscaled(bytes) {
        write_text(value, scale, out);
        return Some(());
    }
    if bytes.len() > BYTES_MAX {
        return None;
    }
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (value, overflow) = (!*byte).overflowing_add(u8::from(carry));
            *byte = value;
            carry = overflow;
        }
    }
    let mut digits = Vec::with_capacity(160);
    while magnitude.iter().any(|&byte| byte != 0) {
        let mut remainder = 0u32;
        for byte in &mut magnitude {
            let value = remainder << 8 | u32::from(*byte);
            *byte = (value / 10) as u8;
            remainder = value % 10;
        }
        digits.push(b'0' + remainder as u8);
    }
    digits.reverse();
    write_digits(negative, &digits, scale, out);
    Some(())
}

fn write_digits(negative: bool, digits: &[u8], scale: u32, out: &mut Vec<u8>) {
    let scale = scale as usize;
    if negative {
        out.push(b'-');
    }
    let whole = digits.len().saturating_sub(scale);
    if whole == 0 {
        out.push(b'0');
    }
    out.extend_from_slice(&digits[..whole]);
    if scale > 0 {
        out.push(b'.');
        out.extend(std::iter::repeat_n(b'0', scale.saturating_sub(digits.len())));
        out.extend_from_slice(&digits[whole..]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(value: i128, scale: u32) -> String {
        let mut out = Vec::new();
        write_text(value, scale, &mut out);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn plain_texts() {
        for (value, scale, expected) in [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (-5, 2, "-0.05"),
            (1250, 2, "12.50"),
            (i128::from(u64::MAX), 0, "18446744073709551615"),
        ] {
            assert_eq!(text(value, scale), expected);
        }
    }

    #[test]
    fn wide_values_keep_all_digits() {
        // 2^160 - 1 and its negative.
        let mut positive = vec![0u8];
        positive.extend([0xff; 20]);
        let mut out = Vec::new();
        write_wide_text(&positive, 30, &mut out).expect("fits");
        assert_eq!(out, b"1461501637330902918.203684832716283019655932542975");
        let mut negative = vec![0xff];
        negative.extend([0; 19]);
        negative.push(1);
        let mut out = Vec::new();
        write_wide_text(&negative, 0, &mut out).expect("fits");
        assert_eq!(out, b"-1461501637330902918203684832716283019655932542975");
    }

    #[test]
    fn digits_are_counted() {
        assert!(fits(99, 2) && !fits(100, 2) && fits(-99, 2) && !fits(-100, 2));
        assert!(fits(i128::MIN, 39));
    }

    proptest! {
        #[test]
        fn unscaled_reads_what_avro_writes(value: i128, extra in 0usize..4) {
            let mut record = Vec::new();
            schemas::avro_write::write_unscaled(&mut record, value);
            let mut input = &record[..];
            let bytes = schemas::avro_write::read_bytes(&mut input).expect("just written");
            let mut extended = vec![if value < 0 { 0xff } else { 0 }; extra];
            extended.extend_from_slice(bytes);
            prop_assert_eq!(unscaled(&extended), Some(value));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>, scale in 0u32..40) {
            let _ = write_wide_text(&bytes, scale, &mut Vec::new());
        }
    }
}
