//! MySQL's JSON text (`{"a": 1e22, "b": [1, 2]}`) brought into the form that the binlog path writes: no spaces,
//! numbers without an exponent, MySQL's escapes in Debezium's spelling (upper-case `\uXXXX`, `/` unescaped).

use std::io::Write;

/// How values are spelled that JSON leaves open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JsonForm {
    /// Doubles with the fewest digits that read back, without an exponent; dates, times and bytes as MySQL prints them.
    #[default]
    MySql,
    /// Debezium's (`JsonStringFormatter` of its binlog client): doubles below 0.001 and from 10,000,000 on with all
    /// their digits, dates and times without trailing zeros, bytes in plain base64.
    Debezium,
}

/// Appends the compact form of `text`, a JSON text as MySQL prints it. Text that is not JSON is copied as it is.
///
/// The text does not tell whether `12345678.9` is a double or a DECIMAL, nor whether a date is a string: in
/// [`JsonForm::Debezium`] such numbers are taken for doubles and every string for a string.
pub fn compact(text: &[u8], form: JsonForm, out: &mut Vec<u8>) {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = copy_string(text, at, out),
            b' ' | b'\n' | b'\t' | b'\r' => at += 1,
            b'-' | b'0'..=b'9' => {
                let end = text[at..]
                    .iter()
                    .position(|b| !matches!(b, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
                    .map_or(text.len(), |n| at + n);
                write_number(&text[at..end], form, out);
                at = end;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

/// Appends a double. Infinities and NaN are no JSON and not asked for.
pub fn write_double(value: f64, form: JsonForm, out: &mut Vec<u8>) {
    let size = value.abs();
    // Java's Double.toString uses an exponent outside of this range, and then Debezium takes BigDecimal's digits.
    let in_full = size != 0.0 && !(1e-3..1e7).contains(&size);
    // Writing to a vector never fails. Display never uses an exponent and prints the shortest digits that read back.
    let _ = match form {
        JsonForm::Debezium if in_full => write!(out, "{value:.*}", binary_digits(value)),
        // Debezium prints 1.0E7 and above through BigDecimal, which drops the ".0".
        _ if value.fract() == 0.0 && size < 1e7 => write!(out, "{value}.0"),
        _ => write!(out, "{value}"),
    };
}

/// How many decimal digits after the point a double has when none is left out: as many as binary ones.
fn binary_digits(value: f64) -> usize {
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff).max(1) as i64 - 1075;
    let fraction = bits & ((1 << 52) - 1);
    let mantissa = if bits >> 52 & 0x7ff == 0 { fraction } else { fraction | 1 << 52 };
    usize::try_from(-(exponent + i64::from(mantissa.trailing_zeros()))).unwrap_or(0)
}

/// Appends a string with its quotes and escapes.
pub fn write_string(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push(b'"');
    let mut copied = 0;
    for (i, &byte) in text.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&text[copied..i]);
        copied = i + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => out.extend_from_slice(&[
                b'\\',
                b'u',
                b'0',
                b'0',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]),
        }
    }
    out.extend_from_slice(&text[copied..]);
    out.push(b'"');
}

fn write_number(token: &[u8], form: JsonForm, out: &mut Vec<u8>) {
    let has = |wanted: &[u8]| token.iter().any(|b| wanted.contains(b));
    let value = std::str::from_utf8(token).ok().and_then(|t| t.parse::<f64>().ok());
    match value {
        Some(value) if has(b"eE") => write_double(value, form, out),
        // MySQL prints doubles of up to 1e15 in full; from 1e7 on the binlog path has no ".0".
        Some(value) if value.abs() >= 1e7 && token.ends_with(b".0") => {
            write_double(value, form, out);
        }
        Some(value) if form == JsonForm::Debezium && has(b".") => {
            // A text with other than the fewest digits is a DECIMAL's.
            let start = out.len();
            write_double(value, JsonForm::MySql, out);
            let is_double = out.get(start..) == Some(token);
            out.truncate(start);
            if is_double {
                write_double(value, form, out);
            } else {
                out.extend_from_slice(token);
            }
        }
        _ => out.extend_from_slice(token),
    }
}

/// Copies the string that starts at `at` in its canonical escapes; returns the place after it.
fn copy_string(text: &[u8], at: usize, out: &mut Vec<u8>) -> usize {
    let mut end = at + 1;
    let mut escaped = false;
    while let Some(&byte) = text.get(end) {
        match byte {
            b'"' => break,
            b'\\' => {
                escaped = true;
                end += 2;
            }
            _ => end += 1,
        }
    }
    let end = end.min(text.len());
    let body = &text[at + 1..end];
    if escaped {
        write_string(&unescape(body), out);
    } else {
        out.push(b'"');
        out.extend_from_slice(body);
        out.push(b'"');
    }
    (end + 1).min(text.len().max(at + 1))
}

fn unescape(body: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(body.len());
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        if byte != b'\\' {
            plain.push(byte);
            at += 1;
            continue;
        }
        at += 2;
        match body.get(at - 1) {
            Some(b'b') => plain.push(8),
            Some(b'f') => plain.push(12),
            Some(b'n') => plain.push(b'\n'),
            Some(b'r') => plain.push(b'\r'),
            Some(b't') => plain.push(b'\t'),
            Some(b'u') => {
                let digits = body.get(at..at + 4).and_then(|d| std::str::from_utf8(d).ok());
                let code = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
                // MySQL escapes control characters only; anything else is kept as it was.
                match code.and_then(char::from_u32) {
                    Some(c) => {
                        plain.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        at += 4;
                    }
                    None => plain.extend_from_slice(b"\\u"),
                }
            }
            Some(&other) => plain.push(other),
            None => plain.push(b'\\'),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn compacted(text: &str) -> String {
        compacted_as(text, JsonForm::MySql)
    }

    fn compacted_as(text: &str, form: JsonForm) -> String {
        let mut out = Vec::new();
        compact(text.as_bytes(), form, &mut out);
        String::from_utf8(out).expect("stays UTF-8")
    }

    #[test]
    fn examples() {
        for (mysql, ours) in [
            (r#"{"a": 1, "b": [1, 2, 1]}"#, r#"{"a":1,"b":[1,2,1]}"#),
            (r#""a \" : \u0001\n""#, "\"a \\\" : \\u0001\\n\""),
            (
                "[1e22, 2.5, -0.0, 1.50, 12345678.0]",
                "[10000000000000000000000,2.5,-0.0,1.50,12345678]",
            ),
            ("null", "null"),
            (r#"{"k, v": "x: y"}"#, r#"{"k, v":"x: y"}"#),
        ] {
            assert_eq!(compacted(mysql), ours);
        }
    }

    /// From Debezium's own `JsonBinary` under Java 17.
    #[test]
    fn doubles_have_debeziums_digits() {
        for (value, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (1e-4, "0.000100000000000000004792173602385929598312941379845142364501953125"),
            (1e7, "10000000"),
            (9_999_999.0, "9999999.0"),
            (12_345_678.5, "12345678.5"),
            (2e23, "199999999999999983222784"),
            (-1.234_567_890_123_456_7e19, "-12345678901234567168"),
        ] {
            let mut out = Vec::new();
            write_double(value, JsonForm::Debezium, &mut out);
            assert_eq!(std::str::from_utf8(&out), Ok(text));
        }
        let mut smallest = Vec::new();
        write_double(5e-324, JsonForm::Debezium, &mut smallest);
        assert_eq!(smallest.len(), "0.".len() + 1074);
        assert_eq!(
            compacted_as("[1e-4, 1.50, 12345678.9, 12345678.90]", JsonForm::Debezium),
            "[0.000100000000000000004792173602385929598312941379845142364501953125,1.50,\
             12345678.90000000037252902984619140625,12345678.90]"
        );
    }

    proptest! {
        #[test]
        fn doubles_read_back(value: f64) {
            prop_assume!(value.is_finite());
            for form in [JsonForm::MySql, JsonForm::Debezium] {
                let mut out = Vec::new();
                write_double(value, form, &mut out);
                let text = std::str::from_utf8(&out).expect("ASCII");
                prop_assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(value.to_bits()));
            }
        }

        #[test]
        fn any_text_is_survived(text in ".*") {
            let mut out = Vec::new();
            compact(text.as_bytes(), JsonForm::Debezium, &mut out);
        }

        #[test]
        fn compacting_twice_changes_nothing(values: Vec<(String, f64)>) {
            let json = serde_json::to_string(&values).expect("serialises");
            let once = compacted(&json);
            prop_assert_eq!(compacted(&once), once);
        }
    }
}
