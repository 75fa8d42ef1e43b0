//! A data file's statistics as Delta's JSON, exact to the last digit: engines skip files by them, and a rounded
//! decimal makes them lose rows. Written by hand because numbers of 38 digits fit no number type.
//! <https://github.com/delta-io/delta/blob/master/PROTOCOL.md#per-file-statistics>

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::{max, max_string, min, min_string},
    datatypes::{
        DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
        Int64Type, SchemaRef, TimestampMicrosecondType,
    },
};
use schemas::row_digest::{civil_from_days, date_text, datetime_text};

use crate::decode::decimal;

/// Columns with statistics, counted from the front: Delta's own default.
const COLUMNS_MAX: usize = 32;
/// Characters of a text that are kept, as Spark does.
const TEXT_CHARACTERS_MAX: usize = 32;

/// Statistics that grow with each batch written.
#[derive(Debug)]
pub struct Statistics {
    rows: u64,
    columns: Vec<ColumnStatistics>,
}

#[derive(Debug)]
struct ColumnStatistics {
    name: String,
    nulls: u64,
    range: Range,
}

#[derive(Clone, Debug, PartialEq)]
enum Range {
    /// No value yet.
    Empty,
    Integer(i64, i64),
    Date(i64, i64),
    Timestamp(i64, i64),
    Decimal(i128, i128, u32),
    Float(f64, f64),
    Text(String, String),
    /// The type has no range, or a value (NaN) spoils it.
    None,
}

impl Statistics {
    /// No rows yet.
    pub fn new(schema: &SchemaRef) -> Self {
        let columns = schema.fields().iter().take(COLUMNS_MAX);
        let columns = columns.filter(|field| !field.data_type().is_nested());
        let columns = columns.map(|field| ColumnStatistics {
            name: field.name().clone(),
            nulls: 0,
            range: match field.data_type() {
                DataType::Boolean | DataType::Binary => Range::None,
                _ => Range::Empty,
            },
        });
        Self { rows: 0, columns: columns.collect() }
    }

    /// Adds a batch's rows.
    pub fn add(&mut self, rows: &RecordBatch) {
        self.rows += rows.num_rows() as u64;
        for column in &mut self.columns {
            if let Some(values) = rows.column_by_name(&column.name) {
                column.nulls += values.null_count() as u64;
                let range = range_of(values);
                column.range = std::mem::replace(&mut column.range, Range::None).union(range);
            }
        }
    }

    /// How many rows were added.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The JSON text.
    pub fn to_json(&self) -> String {
        let (mut minima, mut maxima, mut nulls) = (Vec::new(), Vec::new(), Vec::new());
        for column in &self.columns {
            let name = serde_json::Value::from(column.name.as_str());
            nulls.push(format!("{name}:{}", column.nulls));
            if let Some((minimum, maximum)) = column.range.to_json() {
                minima.push(format!("{name}:{minimum}"));
                maxima.push(format!("{name}:{maximum}"));
            }
        }
        format!(
            r#"{{"numRecords":{},"minValues":{{{}}},"maxValues":{{{}}},"nullCount":{{{}}}}}"#,
            self.rows,
            minima.join(","),
            maxima.join(","),
            nulls.join(","),
        )
    }
}

impl Range {
    fn union(self, other: Self) -> Self {
        match (self, other) {
            (Self::Empty, range) | (range, Self::Empty) => range,
            (Self::Integer(a, b), Self::Integer(c, d)) => Self::Integer(a.min(c), b.max(d)),
            (Self::Date(a, b), Self::Date(c, d)) => Self::Date(a.min(c), b.max(d)),
            (Self::Timestamp(a, b), Self::Timestamp(c, d)) => Self::Timestamp(a.min(c), b.max(d)),
            (Self::Decimal(a, b, scale), Self::Decimal(c, d, _)) => {
                Self::Decimal(a.min(c), b.max(d), scale)
            }
            (Self::Float(a, b), Self::Float(c, d)) => Self::Float(a.min(c), b.max(d)),
            (Self::Text(a, b), Self::Text(c, d)) => Self::Text(a.min(c), b.max(d)),
            _ => Self::None,
        }
    }

    fn to_json(&self) -> Option<(String, String)> {
        match self {
            Self::Empty | Self::None => None,
            Self::Integer(minimum, maximum) => Some((minimum.to_string(), maximum.to_string())),
            Self::Date(minimum, maximum) => {
                let text = |days: i64| has_text(days).then(|| format!("\"{}\"", date_text(days)));
                text(*minimum).zip(text(*maximum))
            }
            Self::Timestamp(minimum, maximum) => {
                // Whole milliseconds, so that an engine that keeps no more finds each row inside the range.
                let up = maximum.checked_add(999)?.div_euclid(1000);
                timestamp_text(minimum.div_euclid(1000)).zip(timestamp_text(up))
            }
            Self::Decimal(minimum, maximum, scale) => {
                let text = |value: i128| {
                    let mut out = Vec::new();
                    decimal::write_text(value, *scale, &mut out);
                    String::from_utf8(out).ok()
                };
                text(*minimum).zip(text(*maximum))
            }
            Self::Float(minimum, maximum) => {
                let text = |value: f64| serde_json::Number::from_f64(value).map(|n| n.to_string());
                text(*minimum).zip(text(*maximum))
            }
            Self::Text(minimum, maximum) => {
                let quoted = |text: &str| serde_json::Value::from(text).to_string();
                Some((quoted(prefix(minimum)), quoted(&upper_prefix(maximum)?)))
            }
        }
    }
}

fn range_of(values: &ArrayRef) -> Range {
    if values.null_count() == values.len() {
        return Range::Empty;
    }
    let range = match values.data_type() {
        DataType::Int16 => {
            let values = values.as_primitive::<Int16Type>();
            min(values).zip(max(values)).map(|(a, b)| Range::Integer(a.into(), b.into()))
        }
        DataType::Int32 => {
            let values = values.as_primitive::<Int32Type>();
            min(values).zip(max(values)).map(|(a, b)| Range::Integer(a.into(), b.into()))
        }
        DataType::Int64 => {
            let values = values.as_primitive::<Int64Type>();
            min(values).zip(max(values)).map(|(a, b)| Range::Integer(a, b))
        }
        DataType::Date32 => {
            let values = values.as_primitive::<Date32Type>();
            min(values).zip(max(values)).map(|(a, b)| Range::Date(a.into(), b.into()))
        }
        DataType::Timestamp(_, _) => {
            let values = values.as_primitive::<TimestampMicrosecondType>();
            min(values).zip(max(values)).map(|(a, b)| Range::Timestamp(a, b))
        }
        DataType::Decimal128(_, scale) => {
            let scale = u32::try_from(*scale).unwrap_or(0);
            let values = values.as_primitive::<Decimal128Type>();
            min(values).zip(max(values)).map(|(a, b)| Range::Decimal(a, b, scale))
        }
        DataType::Float32 => {
            let values = values.as_primitive::<Float32Type>();
            float_range(values.iter().flatten().map(f64::from))
        }
        DataType::Float64 => {
            let values = values.as_primitive::<Float64Type>();
            float_range(values.iter().flatten())
        }
        DataType::Utf8 => {
            let values = values.as_string::<i32>();
            let range = min_string(values).zip(max_string(values));
            range.map(|(a, b)| Range::Text(a.to_owned(), b.to_owned()))
        }
        _ => None,
    };
    range.unwrap_or(Range::None)
}

/// `None` when a value is no finite number: engines disagree on how NaN compares.
fn float_range(mut values: impl Iterator<Item = f64>) -> Option<Range> {
    let range = values.try_fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), value| {
        value.is_finite().then(|| (a.min(value), b.max(value)))
    });
    // Minus zero equals zero for engines and is less than it for some; the range must hold both.
    let widen = |(a, b): (f64, f64)| {
        Range::Float(if a == 0.0 { -0.0 } else { a }, if b == 0.0 { 0.0 } else { b })
    };
    range.map(widen)
}

fn has_text(days: i64) -> bool {
    (1..=9999).contains(&civil_from_days(days).0)
}

fn timestamp_text(millis: i64) -> Option<String> {
    if !has_text(millis.div_euclid(86_400_000)) {
        return None;
    }
    let text = datetime_text(millis.checked_mul(1000)?);
    let text = text.get(..text.len() - 3)?.replace(' ', "T");
    Some(format!("\"{text}Z\""))
}

fn prefix(text: &str) -> &str {
    text.char_indices().nth(TEXT_CHARACTERS_MAX).map_or(text, |(end, _)| &text[..end])
}

/// A short text that is not less than any text that starts like this one; `None` when there is none.
fn upper_prefix(text: &str) -> Option<String> {
    let short = prefix(text);
    if short.len() == text.len() {
        return Some(text.to_owned());
    }
    let mut characters: Vec<char> = short.chars().collect();
    while let Some(last) = characters.pop() {
        let next = match last {
            '\u{d7ff}' => Some('\u{e000}'),
            other => char::from_u32(u32::from(other) + 1),
        };
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        Decimal128Array, Float64Array, Int64Array, StringArray, TimestampMicrosecondArray,
    };

    use super::*;

    fn json(columns: &[(&str, ArrayRef)]) -> String {
        let rows = RecordBatch::try_from_iter(columns.iter().cloned()).expect("columns");
        let mut statistics = Statistics::new(rows.schema_ref());
        statistics.add(&rows.slice(0, 1));
        statistics.add(&rows.slice(1, rows.num_rows() - 1));
        statistics.to_json()
    }

    fn decimals(values: &[i128], precision: u8, scale: i8) -> ArrayRef {
        let values = Decimal128Array::from(values.to_vec());
        Arc::new(values.with_precision_and_scale(precision, scale).expect("fits"))
    }

    #[test]
    fn decimals_are_exact() {
        let text = json(&[
            ("u", decimals(&[0, i128::from(u64::MAX)], 20, 0)),
            ("d", decimals(&[-9_999_999_999_999_999_999_999_999, 5], 38, 10)),
        ]);
        assert_eq!(
            text,
            r#"{"numRecords":2,"minValues":{"u":0,"d":-999999999999999.9999999999},"maxValues":{"u":18446744073709551615,"d":0.0000000005},"nullCount":{"u":0,"d":0}}"#
        );
    }

    #[test]
    fn timestamps_are_rounded_outwards() {
        let values = TimestampMicrosecondArray::from(vec![Some(-1), None, Some(1001)]);
        let text = json(&[("t", Arc::new(values.with_timezone("UTC")) as _)]);
        assert_eq!(
            text,
            r#"{"numRecords":3,"minValues":{"t":"1969-12-31T23:59:59.999Z"},"maxValues":{"t":"1970-01-01T00:00:00.002Z"},"nullCount":{"t":1}}"#
        );
    }

    #[test]
    fn not_a_number_leaves_no_range() {
        let text = json(&[
            ("f", Arc::new(Float64Array::from(vec![1.0, f64::NAN])) as _),
            ("g", Arc::new(Float64Array::from(vec![1.5, -0.25])) as _),
            ("n", Arc::new(Int64Array::from(vec![None, None])) as _),
        ]);
        assert_eq!(
            text,
            r#"{"numRecords":2,"minValues":{"g":-0.25},"maxValues":{"g":1.5},"nullCount":{"f":0,"g":0,"n":2}}"#
        );
    }

    #[test]
    fn long_texts_are_cut_so_that_they_still_enclose() {
        let long = format!("{}x", "é".repeat(40));
        let highest = "\u{10ffff}".repeat(40);
        assert_eq!(upper_prefix(&long).expect("has one"), format!("{}ê", "é".repeat(31)));
        assert!(upper_prefix(&long).expect("has one") > long);
        assert_eq!(upper_prefix(&highest), None);
        let text = json(&[("s", Arc::new(StringArray::from(vec!["a\"", &long])) as _)]);
        assert!(text.contains(r#""minValues":{"s":"a\""}"#), "{text}");
    }
}
