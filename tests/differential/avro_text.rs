//! An Avro value as the text that the server gives for it.

use apache_avro::types::Value;

use super::{
    harness::plain_json,
    kinds::{Form, hexadecimal},
};

/// The text; `None` is NULL. A value of another form is an error.
pub fn text(value: &Value, form: Form) -> Result<Option<String>, String> {
    Ok(Some(match (form, value) {
        (form, Value::Union(_, inner)) => return text(inner, form),
        (_, Value::Null) => return Ok(None),
        (Form::Integer, Value::Int(number)) => number.to_string(),
        (Form::Integer, Value::Long(number)) => number.to_string(),
        (Form::Integer | Form::Decimal, Value::Decimal(decimal)) => {
            let bytes = Vec::<u8>::try_from(decimal).expect("a decimal has bytes");
            unscaled(&bytes)
        }
        (Form::Float, Value::Float(number)) => format!("{:?}", f64::from(*number)),
        (Form::Float, Value::Double(number)) => format!("{number:?}"),
        (Form::Bits, Value::Boolean(bit)) => u8::from(*bit).to_string(),
        (Form::Bits, Value::Bytes(bytes)) => {
            bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)).to_string()
        }
        (Form::Date, Value::Int(days)) => date(i64::from(*days)),
        (Form::Date, Value::Date(days)) => date(i64::from(*days)),
        (Form::Time { digits }, Value::Long(micros)) => {
            let sign = if *micros < 0 { "-" } else { "" };
            format!("{sign}{}", clock(micros.unsigned_abs(), digits))
        }
        (Form::DateTime { digits }, Value::Long(number)) => {
            let micros = if digits > 3 { *number } else { number * 1000 };
            let (day, rest) = (micros.div_euclid(DAY), micros.rem_euclid(DAY));
            format!("{} {}", date(day), clock(rest.unsigned_abs(), digits))
        }
        (Form::Timestamp, Value::String(text)) => text.trim_end_matches('Z').replace('T', " "),
        (Form::Year, Value::Int(year)) => format!("{year:04}"),
        (Form::Text, Value::String(text)) => hexadecimal(text.as_bytes()),
        (Form::Bytes, Value::Bytes(bytes)) => hexadecimal(bytes),
        (Form::Json, Value::String(text)) => plain_json(text),
        (Form::Geometry, Value::Record(fields)) => geometry(fields),
        (Form::Vector, Value::Array(items)) => items
            .iter()
            .map(|item| match item {
                Value::Float(number) => hexadecimal(&number.to_le_bytes()),
                other => panic!("{other:?} in a vector"),
            })
            .collect(),
        (form, other) => return Err(format!("{other:?} for {form:?}")),
    }))
}

/// The server's text in the same form as ours.
pub fn server_text(text: String, form: Form) -> String {
    match form {
        Form::Float => format!("{:?}", text.parse::<f64>().expect("a number")),
        Form::Decimal => {
            let digits = text.replace(['.', '-'], "");
            let sign = if text.starts_with('-') { "-" } else { "" };
            let digits = digits.trim_start_matches('0');
            if digits.is_empty() { "0".into() } else { format!("{sign}{digits}") }
        }
        Form::Json => plain_json(&text),
        _ => text,
    }
}

const DAY: i64 = 86_400_000_000;

/// Digits of a big-endian two's complement number.
fn unscaled(bytes: &[u8]) -> String {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut magnitude = bytes.to_vec();
    if negative {
        let mut carry = true;
        for byte in magnitude.iter_mut().rev() {
            let (sum, over) = (!*byte).overflowing_add(u8::from(carry));
            (*byte, carry) = (sum, over);
        }
    }
    let mut digits = Vec::new();
    while magnitude.iter().any(|byte| *byte != 0) {
        let mut rest = 0u32;
        for byte in &mut magnitude {
            let current = rest << 8 | u32::from(*byte);
            *byte = (current / 10) as u8;
            rest = current % 10;
        }
        digits.push(b'0' + rest as u8);
    }
    if digits.is_empty() {
        digits.push(b'0');
    }
    if negative {
        digits.push(b'-');
    }
    digits.reverse();
    String::from_utf8(digits).expect("digits")
}

fn clock(micros: u64, digits: u8) -> String {
    let seconds = micros / 1_000_000;
    let text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if digits == 0 {
        return text;
    }
    let fraction = format!("{:06}", micros % 1_000_000);
    format!("{text}.{}", &fraction[..usize::from(digits)])
}

/// Days since 1970 as year, month and day (Howard Hinnant's `civil_from_days`).
fn date(days: i64) -> String {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The server keeps the SRID in four bytes before the WKB.
fn geometry(fields: &[(String, Value)]) -> String {
    let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value);
    let inner = |value: Option<&Value>| match value {
        Some(Value::Union(_, inner)) => Some((**inner).clone()),
        other => other.cloned(),
    };
    let srid = match inner(field("srid")) {
        Some(Value::Int(srid)) => srid,
        _ => 0,
    };
    let Some(Value::Bytes(wkb)) = inner(field("wkb")) else { panic!("no WKB in {fields:?}") };
    hexadecimal(&srid.to_le_bytes()) + &hexadecimal(&wkb)
}
