//! Constant defaults of columns, for inserted rows whose image lacks the column (`binlog_row_image = MINIMAL`).
//!
//! The server writes a column whose default is an expression or the current time; what it leaves out has its constant
//! default, NULL, or (without a strict SQL mode) the type's zero. Of some constants `information_schema` does not tell
//! the exact value: FLOAT's is rounded to six digits, that of binary strings ends at the first zero byte, and
//! TIMESTAMP's has no time zone. Those are not known here.

use std::collections::HashMap;

use schemas::{
    avro_write::{write_bytes, write_long, write_unscaled},
    column_type::ColumnType,
};

use super::{
    decimal,
    plan::ColumnPlan,
    row::write_empty,
    temporal::{recent_days, recent_micros, whole_date},
};

/// A column's default when it is no expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ColumnDefault {
    /// NULL.
    Null,
    /// None was declared for a column that cannot be NULL: the zero of its type.
    Zero,
    /// The text in `information_schema`.
    Constant(String),
}

/// The defaults of a table's columns by name, as far as they are known.
pub type TableDefaults = HashMap<String, ColumnDefault>;

/// The Avro bytes of a default, with their branch; `None` when its exact value is not known.
pub(super) fn encode(
    plan: &ColumnPlan,
    column_type: &ColumnType,
    default: &ColumnDefault,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match default {
        ColumnDefault::Null if plan.optional => out.extend_from_slice(&plan.null),
        ColumnDefault::Null => return None,
        // A geometry is optional though it cannot be NULL, and has no zero.
        ColumnDefault::Zero if plan.nullable || plan.optional && !is_instant(column_type) => {
            return None;
        }
        ColumnDefault::Zero => zero(plan, column_type, &mut out),
        ColumnDefault::Constant(text) => constant(plan, column_type, text, &mut out)?,
    }
    Some(out)
}

fn zero(plan: &ColumnPlan, column_type: &ColumnType, out: &mut Vec<u8>) {
    // A zero date is NULL or the epoch, and its column may be optional for that alone.
    if is_instant(column_type) {
        return zero_date(plan, out);
    }
    match column_type {
        ColumnType::Enum { .. } => {
            out.extend_from_slice(plan.members.get(1).map_or(&[0][..], Vec::as_slice));
        }
        ColumnType::Binary { length } => write_bytes(out, &vec![0; usize::from(*length)]),
        ColumnType::Bit { width: 2.. } => write_bits(out, column_type, 0),
        _ => write_empty(plan, out),
    }
}

/// As a zero date of the binlog.
fn zero_date(plan: &ColumnPlan, out: &mut Vec<u8>) {
    if plan.null.is_empty() {
        write_empty(plan, out);
    } else {
        out.extend_from_slice(&plan.null);
    }
}

fn is_instant(column_type: &ColumnType) -> bool {
    matches!(
        column_type,
        ColumnType::Date | ColumnType::DateTime { .. } | ColumnType::Timestamp { .. }
    )
}

fn constant(
    plan: &ColumnPlan,
    column_type: &ColumnType,
    text: &str,
    out: &mut Vec<u8>,
) -> Option<()> {
    if is_instant(column_type) && text.starts_with("0000-00-00") {
        zero_date(plan, out);
        return Some(());
    }
    if plan.optional {
        out.push(plan.branch);
    }
    match column_type {
        ColumnType::TinyInt { .. }
        | ColumnType::SmallInt { .. }
        | ColumnType::MediumInt { .. }
        | ColumnType::Int { .. }
        | ColumnType::BigInt { .. } => {
            let number: i128 = text.parse().ok()?;
            if plan.unsigned_as_decimal {
                write_unscaled(out, number);
            } else {
                write_long(out, number as i64);
            }
        }
        ColumnType::Year => {
            let zero = if plan.debezium_years { 1900 } else { 0 };
            write_long(out, text.parse().ok().map(|year| if year == 0 { zero } else { year })?);
        }
        ColumnType::Double => out.extend_from_slice(&text.parse::<f64>().ok()?.to_le_bytes()),
        ColumnType::Decimal { scale, .. } => {
            decimal::encode_text(text.as_bytes(), *scale, out).ok()?;
        }
        ColumnType::Bit { .. } => {
            let digits = text.strip_prefix("b'")?.strip_suffix('\'')?;
            write_bits(out, column_type, u64::from_str_radix(digits, 2).ok()?);
        }
        ColumnType::Date => write_long(out, recent_days(days(text)?, plan.debezium_years)),
        ColumnType::DateTime { digits } => {
            let (date, clock) = text.split_once(' ')?;
            let micros = days(date)? * 86_400_000_000 + clock_micros(clock)?;
            let micros = recent_micros(micros, plan.debezium_years);
            write_long(out, if *digits > 3 { micros } else { micros.div_euclid(1000) });
        }
        ColumnType::Time { .. } => {
            let (sign, clock) = text.strip_prefix('-').map_or((1, text), |clock| (-1, clock));
            write_long(out, sign * clock_micros(clock)?);
        }
        ColumnType::Text => write_bytes(out, text.as_bytes()),
        ColumnType::Enum { members } => {
            write_bytes(out, members.iter().find(|member| *member == text)?.as_bytes());
        }
        ColumnType::Set { members } => {
            let known = |part: &str| members.iter().any(|member| member == part);
            if !text.is_empty() && !text.split(',').all(known) {
                return None;
            }
            write_bytes(out, text.as_bytes());
        }
        // See the module; the other types have no constant defaults.
        _ => return None,
    }
    Some(())
}

fn write_bits(out: &mut Vec<u8>, column_type: &ColumnType, number: u64) {
    match column_type {
        ColumnType::Bit { width: 1 } => out.push((number & 1) as u8),
        ColumnType::Bit { width } => {
            write_bytes(out, &number.to_le_bytes()[..usize::from(*width).div_ceil(8).min(8)]);
        }
        _ => {}
    }
}

/// Days since 1970 of `2026-11-22`.
fn days(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    whole_date(year, month, day)
}

/// Microseconds of `838:59:59.999999`.
fn clock_micros(text: &str) -> Option<i64> {
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut parts = clock.splitn(3, ':').map(|part| part.parse::<i64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    if fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    Some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros)
}
