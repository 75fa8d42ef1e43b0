//! How `verify` compares rows that two programs read in two ways: a canonical form of each value, and digests of it.
//!
//! Both sides bring every value into the same bytes, so that equal digests mean equal rows:
//! - integers, DECIMAL and YEAR: plain decimal digits with the column's scale (`-12.50`); BIT(1): `0` or `1`;
//! - FLOAT and DOUBLE: Rust's shortest text of the value as an `f64` (FLOAT is widened first);
//! - DATE `YYYY-MM-DD`; DATETIME and TIMESTAMP (in UTC) `YYYY-MM-DD HH:MM:SS.ffffff`, always six digits;
//!   TIME `[-]HH:MM:SS.ffffff`, hours of two or three digits; a zero or partly zero date is NULL;
//! - character types, ENUM and SET: their text in UTF-8; JSON: [`crate::json_text::compact`];
//! - BINARY, VARBINARY and BLOB: the bytes; BIT(n>1): its bytes, least significant first (Debezium's order);
//! - spatial types: the SRID as four bytes, least significant first, then the WKB; VECTOR: its floats' bytes.

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The digest of one row's canonical values. NULL differs from every value, and ("ab","c") from ("a","bc").
pub fn row_digest<'a>(values: impl IntoIterator<Item = Option<&'a [u8]>>) -> u128 {
    let mut hasher = Xxh3::new();
    for value in values {
        match value {
            None => hasher.update(&[0]),
            Some(bytes) => {
                hasher.update(&[1]);
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
        }
    }
    hasher.digest128()
}

/// The digest of many rows in any order: the wrapping sum of their digests, and their count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowsDigest {
    /// How many rows.
    pub rows: u64,
    /// The sum, modulo 2^128, of the rows' digests (each spread once more, so that sums do not cancel).
    pub sum: u128,
}

impl RowsDigest {
    /// Adds one row.
    pub fn add(&mut self, digest: u128) {
        self.rows += 1;
        self.sum = self.sum.wrapping_add(xxh3_128(&digest.to_le_bytes()));
    }
}

/// The canonical text of a DATETIME or TIMESTAMP from microseconds since 1970 in UTC (years 0 to 9999).
pub fn datetime_text(micros: i64) -> String {
    let (days, rest) = (micros.div_euclid(86_400_000_000), micros.rem_euclid(86_400_000_000));
    let seconds = rest / 1_000_000;
    format!(
        "{} {:02}:{:02}:{:02}.{:06}",
        date_text(days),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        rest % 1_000_000
    )
}

/// The canonical text of a DATE from days since 1970.
pub fn date_text(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The canonical text of a TIME from signed microseconds.
pub fn time_text(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let rest = micros.unsigned_abs();
    let seconds = rest / 1_000_000;
    format!(
        "{sign}{:02}:{:02}:{:02}.{:06}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        rest % 1_000_000
    )
}

/// Year, month and day of a day number since 1970 in the proleptic Gregorian calendar.
pub fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = (day_of_year - (153 * shifted + 2) / 5 + 1) as u32;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 } as u32;
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day number since 1970 of a date in the proleptic Gregorian calendar.
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rows_that_only_look_alike_differ() {
        let digest =
            |values: &[Option<&str>]| row_digest(values.iter().map(|v| v.map(str::as_bytes)));
        let rows = [
            digest(&[None, Some("")]),
            digest(&[Some(""), None]),
            digest(&[Some("ab"), Some("c")]),
            digest(&[Some("a"), Some("bc")]),
        ];
        for (i, a) in rows.iter().enumerate() {
            assert!(rows[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn a_row_counted_twice_shows() {
        let (mut once, mut twice) = (RowsDigest::default(), RowsDigest::default());
        once.add(7);
        twice.add(7);
        twice.add(7);
        assert_ne!(once, twice);
    }

    #[test]
    fn texts() {
        assert_eq!(datetime_text(-1), "1969-12-31 23:59:59.999999");
        assert_eq!(time_text(-3_020_399_000_000), "-838:59:59.000000");
        assert_eq!(date_text(days_from_civil(1, 1, 1)), "0001-01-01");
    }

    proptest! {
        #[test]
        fn calendar_reads_back(days in -800_000i64..3_000_000) {
            let (year, month, day) = civil_from_days(days);
            prop_assert_eq!(days_from_civil(year, month.into(), day.into()), days);
        }
    }
}
