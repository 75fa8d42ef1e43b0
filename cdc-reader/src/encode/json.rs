//! MySQL's binary JSON (`sql-common/json_binary.h`) to compact text, in the form of Debezium's JsonStringFormatter.

use schemas::json_text::{write_double, write_string};

use super::decimal;
use crate::binlog::byte_reader::{Malformed, little_endian, take, take_array};

/// MySQL's own limit on nesting.
const DEPTH_MAX: u32 = 100;

/// Appends the text of a document. An empty document is what MySQL stores for a NULL made NOT NULL by `ALTER`.
pub fn write_document(document: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match document.split_first() {
        None => {
            out.extend_from_slice(b"null");
            Ok(())
        }
        Some((&kind, value)) => write_value(kind, value, out, 0, &mut Unread(document.len())),
    }
}

/// How many of the document's bytes may still be read. No two values of a document share bytes: without this limit a
/// few damaged offsets could make a text of any length.
struct Unread(usize);

impl Unread {
    fn read(&mut self, bytes: usize) -> Result<(), Malformed> {
        self.0 = self
            .0
            .checked_sub(bytes)
            .ok_or(Malformed("values of a JSON document lie over each other"))?;
        Ok(())
    }
}

fn write_value(
    kind: u8,
    value: &[u8],
    out: &mut Vec<u8>,
    depth: u32,
    unread: &mut Unread,
) -> Result<(), Malformed> {
    let mut input = value;
    match kind {
        0..=3 => return write_container(kind, value, out, depth, unread),
        4 => out.extend_from_slice(match take_array::<1>(&mut input)?[0] {
            0 => b"null",
            1 => b"true",
            2 => b"false",
            _ => return Err(Malformed("a JSON literal is unknown")),
        }),
        5 => write_integer(i16::from_le_bytes(take_array(&mut input)?).into(), out),
        6 => write_integer(u16::from_le_bytes(take_array(&mut input)?).into(), out),
        7 => write_integer(i32::from_le_bytes(take_array(&mut input)?).into(), out),
        8 => write_integer(u32::from_le_bytes(take_array(&mut input)?).into(), out),
        9 => write_integer(i64::from_le_bytes(take_array(&mut input)?), out),
        10 => {
            let number = u64::from_le_bytes(take_array(&mut input)?);
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        11 => {
            unread.read(8)?;
            let number = f64::from_le_bytes(take_array(&mut input)?);
            if !number.is_finite() {
                return Err(Malformed("a number in JSON is not finite"));
            }
            write_double(number, out);
        }
        12 => {
            let length = variable_length(&mut input)?;
            unread.read(length)?;
            write_string(take(&mut input, length)?, out);
        }
        15 => {
            let [column_type] = take_array::<1>(&mut input)?;
            let length = variable_length(&mut input)?;
            unread.read(length)?;
            write_opaque(column_type, take(&mut input, length)?, out)?;
        }
        _ => return Err(Malformed("a JSON value has an unknown type")),
    }
    Ok(())
}

/// 0 and 1: small and large object; 2 and 3: small and large array.
fn write_container(
    kind: u8,
    body: &[u8],
    out: &mut Vec<u8>,
    depth: u32,
    unread: &mut Unread,
) -> Result<(), Malformed> {
    const SHORT: Malformed = Malformed("a JSON container ends too early");
    if depth > DEPTH_MAX {
        return Err(Malformed("a JSON document is nested deeper than MySQL allows"));
    }
    let (object, large) = (kind < 2, kind & 1 == 1);
    let width = if large { 4 } else { 2 };
    let number = |at: usize| body.get(at..at + width).map(little_endian).ok_or(SHORT);
    let count = number(0)? as usize;
    let key_entry = if object { width + 2 } else { 0 };
    let values_at = 2 * width + count.checked_mul(key_entry).ok_or(SHORT)?;
    let values_end = values_at.saturating_add(count.saturating_mul(1 + width));
    if body.len() < values_end {
        return Err(SHORT);
    }
    unread.read(values_end)?;
    out.push(if object { b'{' } else { b'[' });
    for i in 0..count {
        if i > 0 {
            out.push(b',');
        }
        if object {
            let entry = 2 * width + i * key_entry;
            let offset = number(entry)? as usize;
            let length =
                body.get(entry + width..entry + width + 2).map(little_endian).ok_or(SHORT)?;
            unread.read(length as usize)?;
            let end = offset.checked_add(length as usize).ok_or(SHORT)?;
            write_string(body.get(offset..end).ok_or(SHORT)?, out);
            out.push(b':');
        }
        let entry = values_at + i * (1 + width);
        let value_kind = *body.get(entry).ok_or(SHORT)?;
        let inlined = matches!(value_kind, 4..=6) || large && matches!(value_kind, 7 | 8);
        let at = if inlined { entry + 1 } else { number(entry + 1)? as usize };
        write_value(value_kind, body.get(at..).ok_or(SHORT)?, out, depth + 1, unread)?;
    }
    out.push(if object { b'}' } else { b']' });
    Ok(())
}

/// Values of column types inside JSON: decimals as numbers, temporals as strings, the rest in base64.
fn write_opaque(column_type: u8, value: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match column_type {
        246 => {
            let &[precision, scale, ref stored @ ..] = value else {
                return Err(Malformed("a decimal in JSON ends too early"));
            };
            if precision == 0 || precision > 65 || scale > precision {
                return Err(Malformed("a decimal in JSON has an impossible precision"));
            }
            if stored.len() < decimal::stored_length(precision, scale) {
                return Err(Malformed("a decimal in JSON ends too early"));
            }
            out.extend_from_slice(decimal::text(stored, precision, scale)?.as_bytes());
        }
        7 | 10 | 11 | 12 => {
            let packed = i64::from_le_bytes(take_array(&mut &*value)?);
            write_string(temporal_text(column_type, packed).as_bytes(), out);
        }
        other => {
            // MySQL's own text for other opaque values: base64:typeN:...
            let text = format!("base64:type{other}:{}", base64(value));
            write_string(text.as_bytes(), out);
        }
    }
    Ok(())
}

/// DATE (10), TIME (11), DATETIME (12) and TIMESTAMP (7) as MySQL prints them inside JSON: six fraction digits.
fn temporal_text(column_type: u8, packed: i64) -> String {
    let magnitude = packed.unsigned_abs();
    let (whole, fraction) = (magnitude >> 24, magnitude & 0xff_ffff);
    let sign = if packed < 0 { "-" } else { "" };
    let (date, time) = (whole >> 17, whole & 0x1_ffff);
    let (year, month, day) = ((date >> 5) / 13, (date >> 5) % 13, date & 31);
    let clock =
        |hours: u64| format!("{hours:02}:{:02}:{:02}.{fraction:06}", time >> 6 & 63, time & 63);
    match column_type {
        11 => format!("{sign}{}", clock(whole >> 12 & 0x3ff)),
        10 => format!("{year:04}-{month:02}-{day:02}"),
        _ => format!("{year:04}-{month:02}-{day:02} {}", clock(time >> 12)),
    }
}

fn write_integer(number: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

fn variable_length(input: &mut &[u8]) -> Result<usize, Malformed> {
    let mut length = 0usize;
    for shift in 0..5 {
        let [byte] = take_array::<1>(input)?;
        length |= usize::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(Malformed("a length in JSON has over five bytes"))
}

/// Base64 with padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let number =
            chunk.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * i) & 63) as usize];
            text.push(if i <= chunk.len() { digit as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(document: &[u8]) -> String {
        let mut out = Vec::new();
        write_document(document, &mut out).expect("well-formed");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn scalars_and_an_object() {
        assert_eq!(text(&[]), "null");
        assert_eq!(text(&[5, 0xfe, 0xff]), "-2");
        assert_eq!(text(&[4, 1]), "true");
        assert_eq!(text(&[12, 2, b'a', b'"']), r#""a\"""#);
        // {"a": [1]}: one key at 11, its value (a small array) at 12.
        let object = [0, 1, 0, 20, 0, 11, 0, 1, 0, 2, 12, 0, b'a', 1, 0, 7, 0, 5, 1, 0];
        assert_eq!(text(&object), r#"{"a":[1]}"#);
    }

    #[test]
    fn values_that_lie_over_each_other_are_refused() {
        // 20 arrays of 2 elements, both of which are the next array: 2^20 values from 205 bytes.
        let mut document = vec![2];
        for _ in 0..20 {
            document.extend_from_slice(&[2, 0, 10, 0, 2, 10, 0, 2, 10, 0]);
        }
        document.extend_from_slice(&[0, 0, 4, 0]);
        assert!(write_document(&document, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_number_that_json_does_not_have_is_refused() {
        for number in [f64::NAN, f64::INFINITY] {
            let document = [&[11][..], &number.to_le_bytes()].concat();
            assert!(write_document(&document, &mut Vec::new()).is_err());
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let _ = write_document(&bytes, &mut Vec::new());
        }
    }
}
