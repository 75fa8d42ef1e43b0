//! A column's default as Debezium's schemas carry it: in the schema's text, and in place of NULL in the data.

use crate::{
    avro_write::{write_bytes, write_long},
    json_text::write_string,
};

/// A default in the form of the column's Avro type. Floats are kept as their bits, so that schemas can be compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DefaultValue {
    /// `boolean`.
    Boolean(bool),
    /// `int` and `long`.
    Long(i64),
    /// `float`.
    Float(u32),
    /// `double`.
    Double(u64),
    /// `bytes`.
    Bytes(Vec<u8>),
    /// `string`.
    Text(String),
}

impl DefaultValue {
    /// The value in a schema's text. Bytes are characters of the same numbers there.
    pub fn json(&self) -> String {
        match self {
            Self::Boolean(value) => value.to_string(),
            Self::Long(value) => value.to_string(),
            Self::Float(bits) => java_text(&format!("{:E}", f32::from_bits(*bits))),
            Self::Double(bits) => java_text(&format!("{:E}", f64::from_bits(*bits))),
            Self::Bytes(bytes) => quoted(&bytes.iter().map(|&b| char::from(b)).collect::<String>()),
            Self::Text(text) => quoted(text),
        }
    }

    /// The value as a field's `default`: of a float, Avro prints the double that it becomes there.
    pub fn field_json(&self) -> String {
        match self {
            Self::Float(bits) => Self::Double(f64::from(f32::from_bits(*bits)).to_bits()).json(),
            other => other.json(),
        }
    }

    /// Appends the Avro datum.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Boolean(value) => out.push((*value).into()),
            Self::Long(value) => write_long(out, *value),
            Self::Float(bits) => out.extend_from_slice(&bits.to_le_bytes()),
            Self::Double(bits) => out.extend_from_slice(&bits.to_le_bytes()),
            Self::Bytes(bytes) => write_bytes(out, bytes),
            Self::Text(text) => write_bytes(out, text.as_bytes()),
        }
    }
}

fn quoted(text: &str) -> String {
    let mut out = Vec::new();
    write_string(text.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// A number in Rust's scientific notation (`1.5E-4`, `7E0`) as Java's `toString` prints it.
fn java_text(scientific: &str) -> String {
    let (mantissa, exponent) = scientific.split_once('E').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let point = exponent + 1;
    let or_zero = |digits: &str| if digits.is_empty() { "0".to_owned() } else { digits.to_owned() };
    match exponent {
        0..7 => {
            let point = point as usize;
            let whole = format!("{digits:0<point$}");
            format!("{sign}{}.{}", &whole[..point], or_zero(&whole[point..]))
        }
        -3..0 => format!("{sign}0.{}{digits}", "0".repeat((-point) as usize)),
        _ => format!("{sign}{}.{}E{exponent}", &digits[..1], or_zero(&digits[1..])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_javas_text() {
        let double = |value: f64| DefaultValue::Double(value.to_bits()).json();
        assert_eq!(
            [1.5, 0.0, -7.0, 1e10, 1.25e-5, 0.001, 1_234_567.0, 9.9e6, -1e7].map(double),
            [
                "1.5",
                "0.0",
                "-7.0",
                "1.0E10",
                "1.25E-5",
                "0.001",
                "1234567.0",
                "9900000.0",
                "-1.0E7"
            ]
        );
        assert_eq!(DefaultValue::Float(1.1f32.to_bits()).json(), "1.1");
        assert_eq!(DefaultValue::Bytes(vec![0, 31, b'"', 0xff]).json(), "\"\\u0000\\u001F\\\"ÿ\"");
        assert_eq!(DefaultValue::Text("it's\n".into()).json(), "\"it's\\n\"");
    }
}
