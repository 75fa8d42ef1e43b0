//! What the binary protocol's values mean: numbers, instants, bytes. `None` when a value is not of the asked kind.

use mysql_async::Value;
use schemas::row_digest::days_from_civil;

/// Any integer, signed or not.
pub fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Int(number) => Some((*number).into()),
        Value::UInt(number) => Some((*number).into()),
        _ => None,
    }
}

/// The bytes of a string.
pub fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Bytes(bytes) => Some(bytes),
        _ => None,
    }
}

/// A BIT value, which comes as up to eight bytes, most significant first.
pub fn bits(value: &Value) -> Option<u64> {
    let bytes = bytes(value).filter(|bytes| bytes.len() <= 8)?;
    Some(bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// FLOAT (widened without loss) or DOUBLE.
pub fn double(value: &Value) -> Option<f64> {
    match value {
        Value::Float(number) => Some((*number).into()),
        Value::Double(number) => Some(*number),
        _ => None,
    }
}

/// Year, month, day, hour, minute, second, microseconds as they are, zeros included.
pub fn date_parts(value: &Value) -> Option<(u16, u8, u8, u8, u8, u8, u32)> {
    match *value {
        Value::Date(year, month, day, hour, minute, second, micros) => {
            Some((year, month, day, hour, minute, second, micros))
        }
        _ => None,
    }
}

/// Microseconds since 1970, as if in UTC, of a DATE, DATETIME or TIMESTAMP. The inner `None` is a zero or partly zero
/// date, by the same rule as the binlog's (`encode::temporal`).
pub fn instant_micros(value: &Value) -> Option<Option<i64>> {
    let (year, month, day, hour, minute, second, micros) = date_parts(value)?;
    if year == 0 || !(1..=12).contains(&month) || day == 0 {
        return Some(None);
    }
    let days = days_from_civil(year.into(), month.into(), day.into());
    let seconds =
        days * 86_400 + i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some(Some(seconds * 1_000_000 + i64::from(micros)))
}

/// Signed microseconds of a TIME.
pub fn time_micros(value: &Value) -> Option<i64> {
    let Value::Time(negative, days, hours, minutes, seconds, micros) = *value else { return None };
    let hours = i64::from(days) * 24 + i64::from(hours);
    let seconds = hours * 3600 + i64::from(minutes) * 60 + i64::from(seconds);
    let micros = seconds * 1_000_000 + i64::from(micros);
    Some(if negative { -micros } else { micros })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_times_are_counted_in_microseconds() {
        let at = |y, m, d, s, us| instant_micros(&Value::Date(y, m, d, 0, 0, s, us));
        assert_eq!(at(1970, 1, 1, 1, 5), Some(Some(1_000_005)));
        assert_eq!(at(1969, 12, 31, 0, 0), Some(Some(-86_400_000_000)));
        for (year, month, day) in [(0, 0, 0), (2024, 0, 1), (2024, 1, 0), (0, 1, 1)] {
            assert_eq!(at(year, month, day, 0, 0), Some(None));
        }
        assert_eq!(time_micros(&Value::Time(true, 1, 2, 3, 4, 5)), Some(-93_784_000_005));
        assert_eq!(instant_micros(&Value::Int(1)), None);
    }
}
