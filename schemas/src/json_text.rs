//! MySQL's JSON text (`{"a": 1e22, "b": [1, 2]}`) brought into the form that the binlog path writes: no spaces,
//! numbers without an exponent, MySQL's escapes in Debezium's spelling (upper-case `\uXXXX`, `/` unescaped).

use std::io::Write;

/// Appends the compact form of `text`, a JSON text as MySQL prints it. Text that is not JSON is copied as it is.
pub fn compact(text: &[u8], out: &mut Vec<u8>) {
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
                write_number(&text[at..end], out);
                at = end;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
}

/// Appends a double as `java.math.BigDecimal.toPlainString` of its shortest text would: no exponent, and at least
/// one digit after the point.
pub fn write_double(value: f64, out: &mut Vec<u8>) {
    let start = out.len();
    // Display never uses an exponent and prints the shortest digits that read back. Writing to a vector cannot fail.
    let _ = write!(out, "{value}");
    // Debezium prints 1.0E7 and above through BigDecimal, which drops the ".0".
    if !out[start..].contains(&b'.') && value.abs() < 1e7 {
        out.extend_from_slice(b".0");
    }
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

fn write_number(token: &[u8], out: &mut Vec<u8>) {
    let has = |wanted: &[u8]| token.iter().any(|b| wanted.contains(b));
    let value = std::str::from_utf8(token).ok().and_then(|t| t.parse::<f64>().ok());
    match value {
        Some(value) if has(b"eE") => write_double(value, out),
        // MySQL prints doubles of up to 1e15 in full; from 1e7 on the binlog path has no ".0".
        Some(value) if value.abs() >= 1e7 && token.ends_with(b".0") => write_double(value, out),
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
        let mut out = Vec::new();
        compact(text.as_bytes(), &mut out);
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

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".*") {
            let mut out = Vec::new();
            compact(text.as_bytes(), &mut out);
        }

        #[test]
        fn compacting_twice_changes_nothing(values: Vec<(String, f64)>) {
            let json = serde_json::to_string(&values).expect("serialises");
            let once = compacted(&json);
            prop_assert_eq!(compacted(&once), once);
        }
    }
}
