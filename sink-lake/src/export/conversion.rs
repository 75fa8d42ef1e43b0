//! Converts a column's values to another type, exactly or not at all: a value that the type cannot hold is an error,
//! never a NULL and never a rounded or cut one. The exception is what a type means: `double` is the nearest double of a
//! decimal or a text, `date` is the day (in UTC) of a timestamp.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
        Int32Array, Int64Array, StringArray, TimestampMicrosecondArray,
    },
    compute::{CastOptions, can_cast_types, cast_with_options},
    datatypes::{DataType, Date32Type, Float64Type, TimestampMicrosecondType},
};
use schemas::row_digest::{civil_from_days, date_text, datetime_text, days_from_civil};

use crate::{decode::decimal, delta::arrow_types::UTC};

const DAY_MICROS: i64 = 86_400_000_000;
/// Of a timestamp's fraction.
const FRACTION_DIGITS_MAX: usize = 6;
const STRICT: CastOptions<'static> =
    CastOptions { safe: false, format_options: arrow::util::display::FormatOptions::new() };

/// That a value does not fit; which one is not told, for it may be a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoesNotFit;

/// Whether there is a conversion.
pub fn is_possible(from: &DataType, to: &DataType) -> bool {
    if from == to {
        return true;
    }
    match (from, to) {
        (DataType::Utf8, _) => true,
        (DataType::Binary, DataType::Utf8) => true,
        (DataType::Date32 | DataType::Timestamp(_, _), DataType::Utf8) => true,
        (DataType::Date32, DataType::Timestamp(_, _)) => true,
        (DataType::Timestamp(_, _), DataType::Date32) => true,
        (from, DataType::Utf8) => is_number(from),
        (from, to) => {
            is_number(from) && is_number(to) && can_cast_types(from, to) && can_cast_types(to, from)
        }
    }
}

/// The values in another type.
pub fn convert(values: &ArrayRef, to: &DataType) -> Result<ArrayRef, DoesNotFit> {
    let converted = match (values.data_type(), to) {
        (from, to) if from == to => Arc::clone(values),
        (DataType::Utf8, to) => of_text(values.as_string(), to)?,
        (DataType::Date32, DataType::Utf8) => {
            let values = values.as_primitive::<Date32Type>();
            Arc::new(texts(values.iter().map(|day| day.map(|day| date_text(day.into())))))
        }
        (DataType::Timestamp(_, _), DataType::Utf8) => {
            let values = values.as_primitive::<TimestampMicrosecondType>();
            Arc::new(texts(values.iter().map(|micros| micros.map(datetime_text))))
        }
        (DataType::Date32, DataType::Timestamp(_, _)) => {
            let days = values.as_primitive::<Date32Type>().iter();
            // A day's number has 32 bits, its microseconds fit into 63.
            let micros: TimestampMicrosecondArray =
                days.map(|day| day.map(|day| i64::from(day) * DAY_MICROS)).collect();
            Arc::new(micros.with_timezone(UTC))
        }
        (DataType::Timestamp(_, _), DataType::Date32) => {
            let micros = values.as_primitive::<TimestampMicrosecondType>().iter();
            let days = each(micros, |micros| i32::try_from(micros.div_euclid(DAY_MICROS)).ok())?;
            Arc::new(Date32Array::from(days))
        }
        (DataType::Binary, DataType::Utf8) => {
            let values = values.as_binary::<i32>().iter();
            let converted = each(values, |bytes| std::str::from_utf8(bytes).ok())?;
            Arc::new(StringArray::from(converted))
        }
        (from, to) => number(values, from, to)?,
    };
    if converted.null_count() != values.null_count() {
        return Err(DoesNotFit);
    }
    Ok(converted)
}

fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric() || *data_type == DataType::Boolean
}

/// Cast there and back: what comes back changed was not held exactly.
fn number(values: &ArrayRef, from: &DataType, to: &DataType) -> Result<ArrayRef, DoesNotFit> {
    let strict = |values: &ArrayRef, to: &DataType| {
        cast_with_options(values, to, &STRICT).map_err(|_| DoesNotFit)
    };
    let converted = strict(values, to)?;
    let nearest = *to == DataType::Float64 && matches!(from, DataType::Decimal128(_, _));
    if *to == DataType::Utf8 || nearest {
        return Ok(converted);
    }
    let back = strict(&converted, from)?;
    let same = if from.is_floating() {
        // Minus zero equals zero.
        let floats = |values: &ArrayRef| strict(values, &DataType::Float64);
        let (values, back) = (floats(values)?, floats(&back)?);
        let pairs = values.as_primitive::<Float64Type>().iter();
        pairs.zip(back.as_primitive::<Float64Type>()).all(|(a, b)| a == b)
    } else {
        back.to_data() == values.to_data()
    };
    if same { Ok(converted) } else { Err(DoesNotFit) }
}

fn of_text(values: &StringArray, to: &DataType) -> Result<ArrayRef, DoesNotFit> {
    let texts = values.iter();
    Ok(match to {
        DataType::Int32 => Arc::new(Int32Array::from(each(texts, |text| text.parse().ok())?)),
        DataType::Int64 => Arc::new(Int64Array::from(each(texts, |text| text.parse().ok())?)),
        DataType::Float64 => {
            let finite = |text: &str| text.parse().ok().filter(|number: &f64| number.is_finite());
            Arc::new(Float64Array::from(each(texts, finite)?))
        }
        DataType::Decimal128(precision, scale) => {
            let digits = |text: &str| decimal_of_text(text, *precision, *scale);
            let values = Decimal128Array::from(each(texts, digits)?);
            Arc::new(values.with_precision_and_scale(*precision, *scale).map_err(|_| DoesNotFit)?)
        }
        DataType::Boolean => Arc::new(BooleanArray::from(each(texts, |text| match text {
            "1" | "true" => Some(true),
            "0" | "false" => Some(false),
            _ => None,
        })?)),
        DataType::Date32 => Arc::new(Date32Array::from(each(texts, day_of_text)?)),
        DataType::Timestamp(_, _) => {
            let short = |text: &str| {
                let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
                let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
                (digits <= FRACTION_DIGITS_MAX).then_some(())
            };
            each(texts, short)?;
            cast_with_options(values, to, &STRICT).map_err(|_| DoesNotFit)?
        }
        _ => return Err(DoesNotFit),
    })
}

fn each<T, U>(
    values: impl Iterator<Item = Option<T>>,
    convert: impl Fn(T) -> Option<U>,
) -> Result<Vec<Option<U>>, DoesNotFit> {
    values.map(|value| value.map(|value| convert(value).ok_or(DoesNotFit)).transpose()).collect()
}

fn texts(values: impl Iterator<Item = Option<String>>) -> StringArray {
    values.collect()
}

/// `YYYY-MM-DD`.
fn day_of_text(text: &str) -> Option<i32> {
    let mut parts = text.split('-');
    let mut next = |digits: usize| {
        let part = parts.next().filter(|part| part.len() == digits)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u32>().ok())?
    };
    let (year, month, day) = (next(4)?, next(2)?, next(2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_from_civil(year.into(), month.into(), day.into());
    let exists = civil_from_days(days) == (year.into(), month, day);
    exists.then(|| i32::try_from(days).ok())?
}

/// Digits with a sign and a point; digits that the scale has no place for must be zeros.
fn decimal_of_text(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let scale = usize::try_from(scale).ok()?;
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (kept, rest) = fraction.split_at_checked(scale).unwrap_or((fraction, ""));
    let all_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole)
        || !all_digits(fraction)
        || whole.len() + fraction.len() == 0
        || rest.bytes().any(|b| b != b'0')
    {
        return None;
    }
    let zeros = std::iter::repeat_n(b'0', scale - kept.len());
    let mut value = 0i128;
    for digit in whole.bytes().chain(kept.bytes()).chain(zeros) {
        value = value.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let value = if negative { -value } else { value };
    decimal::fits(value, precision.into()).then_some(value)
}

#[cfg(test)]
mod tests {
    use arrow::array::{BinaryArray, Float32Array, Int16Array};

    use super::*;
    use crate::export::LakeType;

    fn to(values: ArrayRef, word: &str) -> Option<Vec<Option<String>>> {
        let to = word.parse::<LakeType>().expect("is a type").data_type();
        assert!(is_possible(values.data_type(), &to), "{} to {to}", values.data_type());
        let converted = convert(&values, &to).ok()?;
        assert_eq!(*converted.data_type(), to);
        let text = |row| {
            let text = arrow::util::display::array_value_to_string(&converted, row);
            converted.is_valid(row).then(|| text.expect("has a text"))
        };
        Some((0..converted.len()).map(text).collect())
    }

    fn of(text: &str) -> ArrayRef {
        Arc::new(StringArray::from(vec![Some(text)]))
    }

    fn decimals(value: i128, precision: u8, scale: i8) -> ArrayRef {
        let values = Decimal128Array::from(vec![Some(value)]);
        Arc::new(values.with_precision_and_scale(precision, scale).expect("fits"))
    }

    fn timestamp(micros: i64) -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone(UTC))
    }

    #[test]
    fn values_are_kept_exactly_or_refused() {
        let cases: Vec<(ArrayRef, &str, Option<&str>)> = vec![
            (of("12"), "bigint", Some("12")),
            (of("12.0"), "bigint", None),
            (of(""), "bigint", None),
            (of("9223372036854775808"), "bigint", None),
            (of("2147483648"), "int", None),
            (of("-1.250"), "decimal(5,2)", Some("-1.25")),
            (of("1.255"), "decimal(5,2)", None),
            (of("1000"), "decimal(5,2)", None),
            (of("1e2"), "decimal(5,2)", None),
            (of("."), "decimal(5,2)", None),
            (of("-"), "decimal(5,2)", None),
            (of("18446744073709551615"), "decimal(20,0)", Some("18446744073709551615")),
            (of("0.1"), "double", Some("0.1")),
            (of("1e999"), "double", None),
            (of("nan"), "double", None),
            (of("2024-02-29"), "date", Some("2024-02-29")),
            (of("2023-02-29"), "date", None),
            (of("2024-2-9"), "date", None),
            (of("2024-00-10"), "date", None),
            (of("2024-02-29 01:02:03.5"), "timestamp", Some("2024-02-29T01:02:03.500Z")),
            (of("2024-02-29 01:02:03.1234567"), "timestamp", None),
            (of("yesterday"), "timestamp", None),
            (of("1"), "boolean", Some("true")),
            (of("2"), "boolean", None),
            (Arc::new(Int64Array::from(vec![7])), "text", Some("7")),
            (Arc::new(Int64Array::from(vec![1 << 40])), "int", None),
            (Arc::new(Int64Array::from(vec![(1 << 53) + 1])), "double", None),
            (Arc::new(Int64Array::from(vec![1 << 53])), "double", Some("9007199254740992.0")),
            (Arc::new(Int64Array::from(vec![1000])), "decimal(5,2)", None),
            (Arc::new(Int64Array::from(vec![999])), "decimal(5,2)", Some("999.00")),
            (Arc::new(Int16Array::from(vec![1])), "boolean", Some("true")),
            (Arc::new(Int16Array::from(vec![2])), "boolean", None),
            (Arc::new(BooleanArray::from(vec![true])), "bigint", Some("1")),
            (Arc::new(Float64Array::from(vec![1.7])), "bigint", None),
            (Arc::new(Float64Array::from(vec![-0.0])), "bigint", Some("0")),
            (Arc::new(Float64Array::from(vec![0.25])), "decimal(5,2)", Some("0.25")),
            (Arc::new(Float64Array::from(vec![0.255])), "decimal(5,2)", None),
            (Arc::new(Float64Array::from(vec![1e300])), "bigint", None),
            (Arc::new(Float32Array::from(vec![1.5])), "double", Some("1.5")),
            (decimals(12345, 10, 2), "double", Some("123.45")),
            (decimals(12345, 10, 2), "bigint", None),
            (decimals(12300, 10, 2), "bigint", Some("123")),
            (decimals(12345, 10, 2), "decimal(10,1)", None),
            (decimals(12340, 10, 2), "decimal(10,1)", Some("123.4")),
            (decimals(12345, 10, 2), "decimal(18,4)", Some("123.4500")),
            (decimals(12345, 10, 2), "decimal(4,2)", None),
            (decimals(-5, 10, 2), "text", Some("-0.05")),
            (timestamp(-1), "date", Some("1969-12-31")),
            (timestamp(-1), "text", Some("1969-12-31 23:59:59.999999")),
            (Arc::new(Date32Array::from(vec![-1])), "timestamp", Some("1969-12-31T00:00:00Z")),
            (Arc::new(Date32Array::from(vec![0])), "text", Some("1970-01-01")),
            (Arc::new(BinaryArray::from_vec(vec![b"ab"])), "text", Some("ab")),
            (Arc::new(BinaryArray::from_vec(vec![b"\xff"])), "text", None),
        ];
        for (values, word, expected) in cases {
            let expected = expected.map(|text| vec![Some(text.to_owned())]);
            assert_eq!(to(Arc::clone(&values), word), expected, "{values:?} to {word}");
        }
    }

    #[test]
    fn null_stays_null_and_nothing_else_becomes_one() {
        let values: ArrayRef = Arc::new(StringArray::from(vec![None, Some("1"), None]));
        for word in ["bigint", "decimal(5,2)", "double", "boolean"] {
            let converted = to(Arc::clone(&values), word).expect("fits");
            let nulls: Vec<bool> = converted.iter().map(Option::is_none).collect();
            assert_eq!(nulls, [true, false, true], "{word}");
        }
        let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(3), None]));
        assert_eq!(to(values, "double"), Some(vec![Some("3.0".into()), None]));
    }

    #[test]
    fn meaningless_conversions_are_refused_before_anything_is_read() {
        let timestamp = LakeType::Timestamp.data_type();
        assert!(!is_possible(&DataType::Int64, &timestamp));
        assert!(!is_possible(&DataType::Int64, &DataType::Date32));
        assert!(!is_possible(&timestamp, &DataType::Int64));
        assert!(!is_possible(&DataType::Binary, &DataType::Int64));
    }
}
