//! A key as Debezium's headers of a changed key hold it: the text that Connect's `SimpleHeaderConverter` (the default of
//! `header.converter`) makes of the key's struct. It looks like JSON, but of a string only `"` and `\` are escaped.

use std::fmt::LowerExp;

use schemas::avro_write::{read_bytes, read_long};
use serde_json::Value;

use super::json::write_base64;
use crate::binlog::byte_reader::{Malformed, take_array};

/// The header on the records of the old key.
pub const NEW_KEY: &str = "__debezium.newkey";
/// The header on the record of the new key.
pub const OLD_KEY: &str = "__debezium.oldkey";

const SHORT: Malformed = Malformed("a key's value ends too early");

/// How the key datums of one table become text.
#[derive(Clone, Debug, Default)]
pub struct KeyText {
    fields: Vec<(Vec<u8>, Form)>,
}

/// How a field is written in Avro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Long,
    Float,
    Double,
    Boolean,
    Text,
    Bytes,
    Decimal { scale: u32 },
    Unknown,
}

impl KeyText {
    /// Reads the fields from the key's Avro schema.
    pub fn new(schema: &str) -> Self {
        let schema: Value = serde_json::from_str(schema).unwrap_or_default();
        let fields = schema["fields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let fields = fields.iter().map(|field| {
            let mut name = Vec::new();
            write_string(field["name"].as_str().unwrap_or_default().as_bytes(), &mut name);
            (name, form(&field["type"]))
        });
        Self { fields: fields.collect() }
    }

    /// Appends the text of a key datum (without framing).
    pub fn write(&self, mut datum: &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
        out.push(b'{');
        for (i, (name, form)) in self.fields.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            out.extend_from_slice(name);
            out.push(b':');
            write_value(*form, &mut datum, out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

fn form(avro: &Value) -> Form {
    match avro.as_str().or_else(|| avro["type"].as_str()) {
        Some("int" | "long") => Form::Long,
        Some("float") => Form::Float,
        Some("double") => Form::Double,
        Some("boolean") => Form::Boolean,
        Some("string") => Form::Text,
        Some("bytes") if avro["logicalType"] == "decimal" => {
            Form::Decimal { scale: avro["scale"].as_u64().unwrap_or_default() as u32 }
        }
        Some("bytes") => Form::Bytes,
        _ => Form::Unknown,
    }
}

fn write_value(form: Form, datum: &mut &[u8], out: &mut Vec<u8>) -> Result<(), Malformed> {
    match form {
        Form::Long => {
            let number = read_long(datum).ok_or(SHORT)?;
            out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        }
        Form::Float => write_floating(f32::from_le_bytes(take_array(datum)?), out),
        Form::Double => write_floating(f64::from_le_bytes(take_array(datum)?), out),
        Form::Boolean => match take_array::<1>(datum)? {
            [0] => out.extend_from_slice(b"false"),
            _ => out.extend_from_slice(b"true"),
        },
        Form::Text => write_string(read_bytes(datum).ok_or(SHORT)?, out),
        Form::Bytes => {
            out.push(b'"');
            write_base64(read_bytes(datum).ok_or(SHORT)?, out);
            out.push(b'"');
        }
        Form::Decimal { scale } => {
            write_decimal(read_bytes(datum).ok_or(SHORT)?, scale as usize, out);
        }
        Form::Unknown => return Err(Malformed("its key has a type that no header can hold")),
    }
    Ok(())
}

fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

/// As Java's `Double.toString` and `Float.toString`: from 10^-3 to 10^7 without an exponent, always with a point. The
/// digits are the fewest that read back, as Java has them since version 19.
fn write_floating<T: LowerExp>(value: T, out: &mut Vec<u8>) {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let digits: String = mantissa.chars().filter(|c| *c != '.').collect();
    out.extend_from_slice(sign.as_bytes());
    let text = match exponent {
        // MySQL stores neither infinity nor NaN; what reads so is shown as it is.
        _ if !digits.bytes().all(|digit| digit.is_ascii_digit()) => digits,
        -3..=-1 if digits != "0" => format!("0.{}{digits}", "0".repeat((-1 - exponent) as usize)),
        0..=6 => {
            let whole = exponent as usize + 1;
            let digits = format!("{digits:0<whole$}");
            let (whole, fraction) = digits.split_at(whole);
            format!("{whole}.{}", if fraction.is_empty() { "0" } else { fraction })
        }
        _ => {
            let (first, fraction) = digits.split_at(1);
            format!("{first}.{}E{exponent}", if fraction.is_empty() { "0" } else { fraction })
        }
    };
    out.extend_from_slice(text.as_bytes());
}

/// As Java's `BigDecimal.toString` of an unscaled big-endian two's complement: with an exponent when the number is
/// below 10^-6.
fn write_decimal(unscaled: &[u8], scale: usize, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let wide;
    let text = if unscaled.len() <= 16 {
        let sign = if unscaled.first().is_some_and(|byte| byte & 0x80 != 0) { -1 } else { 0 };
        buffer.format(
            unscaled.iter().fold(sign, |number: i128, byte| number << 8 | i128::from(*byte)),
        )
    } else {
        wide = wide_text(unscaled);
        &wide
    };
    let (sign, digits) = text.split_at(usize::from(text.starts_with('-')));
    let digits = digits.as_bytes();
    out.extend_from_slice(sign.as_bytes());
    let exponent = digits.len() as i64 - 1 - scale as i64;
    if scale == 0 {
        out.extend_from_slice(digits);
    } else if exponent >= -6 {
        let (whole, fraction) = digits.split_at(digits.len().saturating_sub(scale));
        out.extend_from_slice(if whole.is_empty() { b"0" } else { whole });
        out.push(b'.');
        out.extend(std::iter::repeat_n(b'0', scale - fraction.len()));
        out.extend_from_slice(fraction);
    } else {
        let (first, rest) = digits.split_at(1);
        out.extend_from_slice(first);
        if !rest.is_empty() {
            out.push(b'.');
        }
        out.extend_from_slice(rest);
        out.push(b'E');
        out.extend_from_slice(itoa::Buffer::new().format(exponent).as_bytes());
    }
}

/// The decimal text of a two's complement of any length.
fn wide_text(unscaled: &[u8]) -> String {
    let negative = unscaled.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut magnitude: Vec<u8> = unscaled.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let remainder = magnitude.iter_mut().fold(0_u32, |remainder, byte| {
            let number = remainder << 8 | u32::from(*byte);
            *byte = (number / 10) as u8;
            number % 10
        });
        digits.push(char::from(b'0' + remainder as u8));
    }
    if digits.is_empty() {
        digits.push('0');
    }
    if negative {
        digits.push('-');
    }
    digits.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::avro_write::{write_bytes, write_long, write_unscaled};

    use super::*;

    /// The key schema and the headers that Debezium 3.6.3 wrote for six changes of one row's key.
    const SCHEMA: &str = include_str!("../../tests/golden/changed_key.avsc");
    const HEADERS: &str = include_str!("../../tests/golden/changed_key.headers");

    struct Key<'a>(i128, f32, f64, &'a str);

    fn datum(Key(decimal, float, double, text): &Key<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write_unscaled(&mut out, *decimal);
        out.extend_from_slice(&float.to_le_bytes());
        out.extend_from_slice(&double.to_le_bytes());
        write_bytes(&mut out, text.as_bytes());
        out.push(1);
        write_bytes(&mut out, b"zz");
        write_bytes(&mut out, &[5, 0]);
        write_bytes(&mut out, b"y");
        write_bytes(&mut out, b"2020-01-02T03:04:05.12Z");
        write_long(&mut out, 1_577_934_245_123_456);
        write_long(&mut out, 2020);
        write_bytes(&mut out, b"vv");
        write_long(&mut out, 36_672_000_000);
        write_long(&mut out, 18_263);
        out
    }

    #[test]
    fn the_text_of_every_kind_of_key_is_debeziums() {
        let text = KeyText::new(SCHEMA);
        let keys = [
            Key(1000, 1.1, 1e10, "a\"b\\c/é\n"),
            Key(1_234_567_895_000_000_000, 100.0, 0.1, "b"),
            Key(0, 1e-5, 1e22, "b"),
            Key(10_000_000_000, 1e7, 1e-3, "b"),
            Key(-10_000_000_001, 16_777_216.0, 9.999e-4, ""),
            Key(-1000, 3.4e38, 2e-44, ""),
        ];
        let wanted: Vec<&str> = HEADERS.split_terminator('\0').collect();
        assert_eq!(keys.len(), wanted.len());
        for (key, wanted) in keys.iter().zip(wanted) {
            let mut out = Vec::new();
            text.write(&datum(key), &mut out).expect("its own schema");
            assert_eq!(String::from_utf8(out).expect("text"), wanted);
        }
    }

    #[test]
    fn numbers_at_the_edges_are_javas() {
        let double = |value: f64| {
            let mut out = Vec::new();
            write_floating(value, &mut out);
            String::from_utf8(out).expect("text")
        };
        let pairs = [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (9_999_999.0, "9999999.0"),
            (1e7, "1.0E7"),
            (-123.456, "-123.456"),
            (0.00123, "0.00123"),
            (1.7976931348623157e308, "1.7976931348623157E308"),
        ];
        for (value, wanted) in pairs {
            assert_eq!(double(value), wanted);
        }
        let decimal = |unscaled: i128, scale: usize| {
            let mut bytes = Vec::new();
            write_unscaled(&mut bytes, unscaled);
            let mut out = Vec::new();
            write_decimal(&bytes[1..], scale, &mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(decimal(18_446_744_073_709_551_615, 0), "18446744073709551615");
        assert_eq!(decimal(1, 6), "0.000001");
        assert_eq!(decimal(1, 7), "1E-7");
        assert_eq!(decimal(-129, 2), "-1.29");
        assert_eq!(decimal(-128, 2), "-1.28");
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(datum: Vec<u8>, schema in ".{0,80}") {
            let _ = KeyText::new(SCHEMA).write(&datum, &mut Vec::new());
            let _ = KeyText::new(&schema).write(&datum, &mut Vec::new());
        }

        #[test]
        fn decimals_have_their_numbers_digits(number: i128) {
            let mut bytes = Vec::new();
            write_unscaled(&mut bytes, number);
            let mut out = Vec::new();
            write_decimal(&bytes[1..], 0, &mut out);
            prop_assert_eq!(String::from_utf8(out).expect("text"), number.to_string());
            prop_assert_eq!(wide_text(&bytes[1..]), number.to_string());
        }
    }
}
