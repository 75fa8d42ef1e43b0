//! MySQL's binary JSON (`sql-common/json_binary.h`) to compact text.

use std::io::Write;

use schemas::json_text::{JsonForm, write_double, write_string};

use super::decimal;
use crate::binlog::byte_reader::{Malformed, little_endian, take, take_array};

/// MySQL's own limit on nesting.
pub(super) const DEPTH_MAX: u32 = 100;

/// Appends the text of a document. An empty document is what MySQL stores for a NULL made NOT NULL by `ALTER`.
pub fn write_document(document: &[u8], form: JsonForm, out: &mut Vec<u8>) -> Result<(), Malformed> {
    match document.split_first() {
        None => {
            out.extend_from_slice(b"null");
            Ok(())
        }
        Some((&kind, value)) => write_value(kind, value, form, out, 0),
    }
}

/// Appends the text of a value inside a document, at a depth of nesting.
pub(super) fn write_value(
    kind: u8,
    value: &[u8],
    form: JsonForm,
    out: &mut Vec<u8>,
    depth: u32,
) -> Result<(), Malformed> {
    DocumentWriter { form, out, unread: value.len() + 1 }.write_value(kind, value, depth)
}

struct DocumentWriter<'a> {
    form: JsonForm,
    out: &'a mut Vec<u8>,
    /// Bytes of the document that are not accounted for. Values of a damaged document may share bytes, and would
    /// otherwise multiply.
    unread: usize,
}

impl DocumentWriter<'_> {
    fn account(&mut self, bytes: usize) -> Result<(), Malformed> {
        let left = self.unread.checked_sub(bytes);
        self.unread = left.ok_or(Malformed("JSON values share their bytes"))?;
        Ok(())
    }

    fn write_value(&mut self, kind: u8, value: &[u8], depth: u32) -> Result<(), Malformed> {
        let mut input = value;
        self.account(1)?;
        match kind {
            0..=3 => return self.write_container(kind, value, depth),
            4 => self.out.extend_from_slice(match take_array::<1>(&mut input)?[0] {
                0 => b"null",
                1 => b"true",
                2 => b"false",
                _ => return Err(Malformed("a JSON literal is unknown")),
            }),
            5 => self.write_integer(i16::from_le_bytes(take_array(&mut input)?).into()),
            6 => self.write_integer(u16::from_le_bytes(take_array(&mut input)?).into()),
            7 => self.write_integer(i32::from_le_bytes(take_array(&mut input)?).into()),
            8 => self.write_integer(u32::from_le_bytes(take_array(&mut input)?).into()),
            9 => self.write_integer(i64::from_le_bytes(take_array(&mut input)?)),
            10 => {
                let number = u64::from_le_bytes(take_array(&mut input)?);
                self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
            }
            11 => {
                let number = f64::from_le_bytes(take_array(&mut input)?);
                if !number.is_finite() {
                    return Err(Malformed("a JSON number is infinite or none"));
                }
                write_double(number, self.form, self.out);
            }
            12 => {
                let length = variable_length(&mut input)?;
                self.account(length)?;
                write_string(take(&mut input, length)?, self.out);
            }
            15 => {
                let [column_type] = take_array::<1>(&mut input)?;
                let length = variable_length(&mut input)?;
                self.account(length)?;
                self.write_opaque(column_type, take(&mut input, length)?)?;
            }
            _ => return Err(Malformed("a JSON value has an unknown type")),
        }
        Ok(())
    }

    /// 0 and 1: small and large object; 2 and 3: small and large array.
    fn write_container(&mut self, kind: u8, body: &[u8], depth: u32) -> Result<(), Malformed> {
        const SHORT: Malformed = Malformed("a JSON container ends too early");
        if depth >= DEPTH_MAX {
            return Err(Malformed("a JSON document is nested deeper than MySQL allows"));
        }
        let (object, large) = (kind < 2, kind & 1 == 1);
        let width = if large { 4 } else { 2 };
        let number = |at: usize| body.get(at..at + width).map(little_endian).ok_or(SHORT);
        let count = number(0)? as usize;
        let key_entry = if object { width + 2 } else { 0 };
        let values_at = 2 * width + count.checked_mul(key_entry).ok_or(SHORT)?;
        if body.len() < values_at.saturating_add(count.saturating_mul(1 + width)) {
            return Err(SHORT);
        }
        self.out.push(if object { b'{' } else { b'[' });
        for i in 0..count {
            if i > 0 {
                self.out.push(b',');
            }
            if object {
                let entry = 2 * width + i * key_entry;
                let offset = number(entry)? as usize;
                let length =
                    body.get(entry + width..entry + width + 2).map(little_endian).ok_or(SHORT)?;
                let end = offset.checked_add(length as usize).ok_or(SHORT)?;
                self.account(length as usize)?;
                write_string(body.get(offset..end).ok_or(SHORT)?, self.out);
                self.out.push(b':');
            }
            let entry = values_at + i * (1 + width);
            let value_kind = *body.get(entry).ok_or(SHORT)?;
            let inlined = matches!(value_kind, 4..=6) || large && matches!(value_kind, 7 | 8);
            let at = if inlined { entry + 1 } else { number(entry + 1)? as usize };
            self.write_value(value_kind, body.get(at..).ok_or(SHORT)?, depth + 1)?;
        }
        self.out.push(if object { b'}' } else { b']' });
        Ok(())
    }

    /// Values of column types inside JSON: decimals as numbers, temporals as strings, the rest in base64.
    fn write_opaque(&mut self, column_type: u8, value: &[u8]) -> Result<(), Malformed> {
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
                decimal::write_text(stored, precision, scale, self.out)?;
            }
            7 | 10 | 11 | 12 => {
                let packed = i64::from_le_bytes(take_array(&mut &*value)?);
                self.write_temporal(column_type, packed);
            }
            other => {
                self.out.push(b'"');
                if self.form == JsonForm::MySql {
                    // Writing to a vector never fails.
                    let _ = write!(self.out, "base64:type{other}:");
                }
                write_base64(value, self.out);
                self.out.push(b'"');
            }
        }
        Ok(())
    }

    /// DATE (10), TIME (11), DATETIME (12) and TIMESTAMP (7): six fraction digits as MySQL prints them, or without
    /// trailing zeros as Debezium does. (Debezium's texts of negative times are broken; ours stay MySQL's.)
    fn write_temporal(&mut self, column_type: u8, packed: i64) {
        let magnitude = packed.unsigned_abs();
        let (whole, fraction) = (magnitude >> 24, magnitude & 0xff_ffff);
        let (date, time) = (whole >> 17, whole & 0x1_ffff);
        let (year, month, day) = ((date >> 5) / 13, (date >> 5) % 13, date & 31);
        let (minutes, seconds) = (time >> 6 & 63, time & 63);
        let out = &mut *self.out;
        out.push(b'"');
        // Writing to a vector never fails.
        let _ = match column_type {
            11 => {
                let sign = if packed < 0 { "-" } else { "" };
                write!(out, "{sign}{:02}:{minutes:02}:{seconds:02}", whole >> 12 & 0x3ff)
            }
            10 => write!(out, "{year:04}-{month:02}-{day:02}"),
            _ => write!(
                out,
                "{year:04}-{month:02}-{day:02} {:02}:{minutes:02}:{seconds:02}",
                time >> 12
            ),
        };
        if column_type != 10 && (self.form == JsonForm::MySql || fraction != 0) {
            let _ = write!(out, ".{fraction:06}");
            while self.form == JsonForm::Debezium && out.last() == Some(&b'0') {
                out.pop();
            }
        }
        out.push(b'"');
    }

    fn write_integer(&mut self, number: i64) {
        self.out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
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

/// Appends base64 with padding.
pub fn write_base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let number =
            chunk.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(number >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= chunk.len() { digit } else { b'=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(document: &[u8], form: JsonForm) -> String {
        let mut out = Vec::new();
        write_document(document, form, &mut out).expect("well-formed");
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn scalars_and_an_object() {
        // {"a": [1]}: one key at 11, its value (a small array) at 12.
        let object = [0, 1, 0, 20, 0, 11, 0, 1, 0, 2, 12, 0, b'a', 1, 0, 7, 0, 5, 1, 0];
        for form in [JsonForm::MySql, JsonForm::Debezium] {
            assert_eq!(text(&[], form), "null");
            assert_eq!(text(&[5, 0xfe, 0xff], form), "-2");
            assert_eq!(text(&[4, 1], form), "true");
            assert_eq!(text(&[12, 2, b'a', b'"'], form), r#""a\"""#);
            assert_eq!(text(&object, form), r#"{"a":[1]}"#);
        }
    }

    /// In the golden: a document in hexadecimal, a tab, and what Debezium's own `JsonBinary` makes of it (Java 17).
    #[test]
    fn documents_have_debeziums_text() {
        let golden = include_str!("golden/json.tsv");
        for line in golden.lines().filter(|line| !line.is_empty()) {
            let (digits, theirs) = line.split_once('\t').expect("two fields");
            let document: Vec<u8> = (0..digits.len() / 2)
                .map(|i| u8::from_str_radix(&digits[2 * i..2 * i + 2], 16).expect("hexadecimal"))
                .collect();
            assert_eq!(text(&document, JsonForm::Debezium), theirs, "{digits}");
        }
        assert!(golden.lines().count() > 70);
    }

    #[test]
    fn opaque_values_are_mysqls_by_default() {
        for (document, ours) in [
            (&[15, 12, 8, 0, 0, 0, 0x83, 0x10, 0xba, 0xb2, 0x19][..], "2024-02-29 01:02:03.000000"),
            (&[15, 11, 8, 0xe0, 0x5e, 0xf8, 0x7c, 0xef, 0xff, 0xff, 0xff], "-01:02:03.500000"),
            (&[15, 252, 3, b'a', b'b', b'c'], "base64:type252:YWJj"),
        ] {
            assert_eq!(text(document, JsonForm::MySql), format!("\"{ours}\""));
        }
    }

    #[test]
    fn nesting_is_followed_to_mysqls_limit_and_no_further() {
        let nested = |levels: usize| {
            let mut document = vec![4, 0];
            for _ in 0..levels {
                let (kind, value) = (document[0], document[1..].to_vec());
                // A large array of one element at 13.
                let size = (13 + value.len()) as u32;
                document =
                    [&[3, 1, 0, 0, 0][..], &size.to_le_bytes(), &[kind, 13, 0, 0, 0]].concat();
                document.extend_from_slice(&value);
                if kind == 4 {
                    // A literal stands in its entry.
                    document.splice(10.., [0, 0, 0, 0]);
                }
            }
            document
        };
        let deepest = text(&nested(100), JsonForm::MySql);
        assert_eq!(deepest, format!("{}null{}", "[".repeat(100), "]".repeat(100)));
        let deeper = write_document(&nested(101), JsonForm::MySql, &mut Vec::new());
        assert!(deeper.is_err_and(|error| error.0.contains("deeper")));
    }

    #[test]
    fn values_that_share_their_bytes_do_not_multiply() {
        // Each of 40 arrays holds the next one twice.
        let mut document = vec![2];
        for _ in 0..40 {
            document.extend_from_slice(&[2, 0, 200, 0, 2, 10, 0, 2, 10, 0]);
        }
        let result = write_document(&document, JsonForm::MySql, &mut Vec::new());
        assert!(result.is_err());
    }

    #[test]
    fn a_number_that_json_does_not_have_is_refused() {
        for number in [f64::NAN, f64::INFINITY] {
            let document = [&[11][..], &number.to_le_bytes()].concat();
            assert!(write_document(&document, JsonForm::MySql, &mut Vec::new()).is_err());
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>) {
            let _ = write_document(&bytes, JsonForm::Debezium, &mut Vec::new());
        }
    }
}
