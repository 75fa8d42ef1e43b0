//! DATE, TIME, DATETIME, TIMESTAMP and YEAR from MySQL's packed forms (`my_time.cc`) to Debezium's.
//!
//! A zero or partly zero date has no instant: the functions answer `None` and the caller applies the policy.

use schemas::{
    avro_write::write_bytes,
    row_digest::{civil_from_days, days_from_civil},
};

use crate::binlog::byte_reader::{Malformed, take_be, take_le};

/// Days since 1970 of a DATE.
#[inline]
pub fn date(input: &mut &[u8]) -> Result<Option<i64>, Malformed> {
    let packed = take_le(input, 3)? as i64;
    Ok(whole_date(packed >> 9, packed >> 5 & 15, packed & 31))
}

/// Signed microseconds of a TIME.
#[inline]
pub fn time(input: &mut &[u8], digits: u8) -> Result<i64, Malformed> {
    let fraction_bytes = usize::from(digits.div_ceil(2));
    // Whole and fraction are one number around an offset, so that a negative fraction borrows from the seconds.
    let packed = take_be(input, 3 + fraction_bytes)? as i64;
    let packed = packed - (0x80_0000i64 << (8 * fraction_bytes));
    let magnitude = packed.abs();
    let (whole, fraction) =
        (magnitude >> (8 * fraction_bytes), magnitude & ((1 << (8 * fraction_bytes)) - 1));
    let seconds = (whole >> 12) * 3600 + (whole >> 6 & 63) * 60 + (whole & 63);
    let micros = seconds * 1_000_000 + fraction * fraction_unit(digits);
    Ok(if packed < 0 { -micros } else { micros })
}

/// Microseconds since 1970, as if in UTC, of a DATETIME.
#[inline]
pub fn datetime(input: &mut &[u8], digits: u8) -> Result<Option<i64>, Malformed> {
    let packed = take_be(input, 5)? as i64 - 0x80_0000_0000;
    let fraction = take_be(input, usize::from(digits.div_ceil(2)))? as i64 * fraction_unit(digits);
    let (date, time) = (packed >> 17, packed & 0x1_ffff);
    let (year_month, day) = (date >> 5, date & 31);
    let Some(days) = whole_date(year_month / 13, year_month % 13, day) else { return Ok(None) };
    let seconds = days * 86_400 + (time >> 12) * 3600 + (time >> 6 & 63) * 60 + (time & 63);
    Ok(Some(seconds * 1_000_000 + fraction))
}

/// Microseconds since 1970 in UTC of a TIMESTAMP; `None` for the zero value.
#[inline]
pub fn timestamp(input: &mut &[u8], digits: u8) -> Result<Option<i64>, Malformed> {
    let seconds = take_be(input, 4)? as i64;
    let fraction = take_be(input, usize::from(digits.div_ceil(2)))? as i64 * fraction_unit(digits);
    Ok((seconds != 0 || fraction != 0).then_some(seconds * 1_000_000 + fraction))
}

/// Appends Debezium's ZonedTimestamp: `2018-06-20T13:37:03Z`, with exactly `digits` fraction digits when there are any.
/// The epoch itself is no TIMESTAMP of MySQL's but stands for a zero date: Debezium writes it without a fraction.
#[inline]
pub fn write_zoned(out: &mut Vec<u8>, micros: i64, digits: u8) {
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let (year, month, day) = civil_from_days(days);
    let seconds = (rest / 1_000_000) as u32;
    let mut fraction = (rest % 1_000_000) as u32;
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    two_digits(&mut text, 0, year as u32 / 100);
    two_digits(&mut text, 2, year as u32 % 100);
    two_digits(&mut text, 5, month);
    two_digits(&mut text, 8, day);
    two_digits(&mut text, 11, seconds / 3600);
    two_digits(&mut text, 14, seconds / 60 % 60);
    two_digits(&mut text, 17, seconds % 60);
    for at in (20..26).rev() {
        text[at] = b'0' + (fraction % 10) as u8;
        fraction /= 10;
    }
    let end = if digits == 0 || micros == 0 { 19 } else { 20 + usize::from(digits.min(6)) };
    text[end] = b'Z';
    write_bytes(out, &text[..=end]);
}

/// Debezium's time adjuster on a DATE, when it is asked for: a year below 70 is meant to be 20xx, one below 100 19xx.
#[inline(always)]
pub fn recent_days(days: i64, adjust: bool) -> i64 {
    /// 0100-01-01.
    const YEAR_100: i64 = -683_003;
    if !adjust || days >= YEAR_100 {
        return days;
    }
    let (year, month, day) = civil_from_days(days);
    days_from_civil(year + if year < 70 { 2000 } else { 1900 }, month.into(), day.into())
}

/// The same on microseconds since 1970.
#[inline(always)]
pub fn recent_micros(micros: i64, adjust: bool) -> i64 {
    const DAY: i64 = 86_400_000_000;
    let days = micros.div_euclid(DAY);
    micros + (recent_days(days, adjust) - days) * DAY
}

/// Microseconds per unit of the stored fraction: 1 byte holds hundredths, 2 ten-thousandths, 3 millionths.
#[inline(always)]
fn fraction_unit(digits: u8) -> i64 {
    match digits {
        0 => 0,
        1 | 2 => 10_000,
        3 | 4 => 100,
        _ => 1,
    }
}

#[inline(always)]
pub(super) fn whole_date(year: i64, month: i64, day: i64) -> Option<i64> {
    let whole = year != 0 && (1..=12).contains(&month) && day != 0;
    whole.then(|| days_from_civil(year, month, day))
}

#[inline(always)]
fn two_digits(text: &mut [u8; 27], at: usize, number: u32) {
    text[at] = b'0' + (number / 10 % 10) as u8;
    text[at + 1] = b'0' + (number % 10) as u8;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zoned(micros: i64, digits: u8) -> String {
        let mut out = Vec::new();
        write_zoned(&mut out, micros, digits);
        String::from_utf8(out[1..].to_vec()).expect("ASCII")
    }

    #[test]
    fn zoned_has_exactly_its_digits() {
        assert_eq!(zoned(1_529_501_823_000_000, 0), "2018-06-20T13:37:03Z");
        assert_eq!(zoned(1_529_501_823_120_000, 2), "2018-06-20T13:37:03.12Z");
        assert_eq!(zoned(1_529_501_823_000_001, 6), "2018-06-20T13:37:03.000001Z");
    }

    #[test]
    fn debeziums_years_are_recent() {
        for (year, recent) in [(1, 2001), (69, 2069), (70, 1970), (99, 1999), (100, 100)] {
            let days = days_from_civil(year, 2, 28);
            assert_eq!(recent_days(days, true), days_from_civil(recent, 2, 28));
            assert_eq!(recent_days(days, false), days);
        }
        // From Debezium: 0018-04-01 is 17622.
        assert_eq!(recent_days(days_from_civil(18, 4, 1), true), 17_622);
        assert_eq!(
            recent_micros(days_from_civil(100, 1, 1) * 86_400_000_000 - 1, true),
            946_684_799_999_999
        );
    }

    #[test]
    fn zero_dates_have_no_instant() {
        assert_eq!(date(&mut &[0, 0, 0][..]), Ok(None));
        assert_eq!(datetime(&mut &[0x80, 0, 0, 0, 0][..], 0), Ok(None));
        assert_eq!(timestamp(&mut &[0, 0, 0, 0][..], 0), Ok(None));
    }

    /// MySQL's `my_time_packed_to_binary` for TIME.
    fn packed_time(micros: i64, digits: u8) -> Vec<u8> {
        let magnitude = micros.abs();
        let seconds = magnitude / 1_000_000;
        let whole = ((seconds / 3600) << 12) | ((seconds / 60 % 60) << 6) | (seconds % 60);
        let bytes = usize::from(digits.div_ceil(2));
        let unit = fraction_unit(digits).max(1);
        let packed =
            whole << (8 * bytes) | if bytes == 0 { 0 } else { magnitude % 1_000_000 / unit };
        let packed = if micros < 0 { -packed } else { packed } + (0x80_0000i64 << (8 * bytes));
        packed.to_be_bytes()[8 - 3 - bytes..].to_vec()
    }

    proptest! {
        #[test]
        fn time_reads_back(seconds in -3_020_399i64..=3_020_399, micros in 0i64..1_000_000, digits in 0u8..=6) {
            let unit = 10i64.pow(6 - u32::from(digits));
            let value = (seconds.abs() * 1_000_000 + micros / unit * unit) * seconds.signum();
            let bytes = packed_time(value, digits);
            let mut input = &bytes[..];
            prop_assert_eq!(time(&mut input, digits), Ok(value));
            prop_assert!(input.is_empty());
        }
    }
}
