//! When an export is due. Pure: the clock and the last run come in as arguments.

use std::{fmt, str::FromStr, time::Duration};

use chrono::{
    DateTime, Days, FixedOffset, LocalResult, NaiveDate, NaiveTime, TimeDelta, TimeZone, Utc,
};
use chrono_tz::Tz;

/// When an export runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// So long after the last run began.
    Every(Duration),
    /// At a time of each day.
    Daily(DayTime, Zone),
}

/// A time of day, in minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayTime(NaiveTime);

/// A time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// One with a name and its own rules.
    Named(Tz),
    /// `+09:00`.
    Fixed(FixedOffset),
}

impl Schedule {
    /// When the next run is due after one that began at `last_ms` (milliseconds since 1970); at once when there was
    /// none. Times that were missed are one run, for the one after it is counted from that.
    pub fn next_ms(self, last_ms: Option<i64>) -> i64 {
        let Some(last_ms) = last_ms else { return 0 };
        match self {
            Self::Every(every) => {
                last_ms.saturating_add(i64::try_from(every.as_millis()).unwrap_or(i64::MAX))
            }
            Self::Daily(at, zone) => {
                let last = DateTime::from_timestamp_millis(last_ms).unwrap_or_default();
                match zone {
                    Zone::Named(zone) => next_daily(last, at, zone),
                    Zone::Fixed(zone) => next_daily(last, at, zone),
                }
            }
        }
    }
}

/// The first time after `last` at which it is `at` there.
fn next_daily<Z: TimeZone>(last: DateTime<Utc>, at: DayTime, zone: Z) -> i64 {
    let today = last.with_timezone(&zone).date_naive();
    let days = (0..=2).filter_map(|days| today.checked_add_days(Days::new(days)));
    let mut times = days.filter_map(|day| instant(day, at, &zone));
    times.find(|time| *time > last).map_or(i64::MAX, |time| time.timestamp_millis())
}

/// Clocks that are set back have the time twice: the first counts. Those that are set forward may not have it: then it
/// is an hour later.
fn instant<Z: TimeZone>(day: NaiveDate, at: DayTime, zone: &Z) -> Option<DateTime<Utc>> {
    let local = day.and_time(at.0);
    let found = match zone.from_local_datetime(&local) {
        LocalResult::Single(time) | LocalResult::Ambiguous(time, _) => Some(time),
        LocalResult::None => zone.from_local_datetime(&(local + TimeDelta::hours(1))).earliest(),
    };
    found.map(|time| time.with_timezone(&Utc))
}

impl Default for Zone {
    fn default() -> Self {
        Self::Named(Tz::UTC)
    }
}

impl FromStr for DayTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        NaiveTime::parse_from_str(text, "%H:%M")
            .map(Self)
            .map_err(|_| format!("`{text}` is no time of day; write for example \"03:00\""))
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = text.parse().map(Self::Named).ok();
        let fixed = || text.starts_with(['+', '-']).then(|| text.parse().map(Self::Fixed).ok())?;
        named.or_else(fixed).ok_or_else(|| {
            format!("`{text}` is no time zone; write for example \"Asia/Seoul\" or \"+09:00\"")
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(every) => {
                let seconds = every.as_secs();
                let unit = [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")];
                let fits = |(size, _): &(u64, &str)| seconds.is_multiple_of(*size);
                let (size, unit) = unit.into_iter().find(fits).unwrap_or((1, "s"));
                write!(f, "every {}{unit}", seconds / size)
            }
            Self::Daily(at, zone) => {
                write!(f, "at {} ", at.0.format("%H:%M"))?;
                match zone {
                    Zone::Named(zone) => f.write_str(zone.name()),
                    Zone::Fixed(zone) => write!(f, "{zone}"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> i64 {
        DateTime::parse_from_rfc3339(text).expect("is a time").timestamp_millis()
    }

    #[test]
    fn a_run_follows_the_last_one_and_a_missed_one_is_made_up_for_once() {
        let every = Schedule::Every(Duration::from_secs(3600));
        assert_eq!(every.next_ms(None), 0);
        assert_eq!(every.next_ms(Some(5)), 3_600_005);
        assert_eq!(every.to_string(), "every 1h");
        let daily = |at: &str, zone: &str| {
            Schedule::Daily(at.parse().expect("a time"), zone.parse().expect("a zone"))
        };
        for (at, zone, last, next) in [
            ("03:00", "UTC", "2026-01-01T02:59:59Z", "2026-01-01T03:00:00Z"),
            ("03:00", "UTC", "2026-01-01T03:00:00Z", "2026-01-02T03:00:00Z"),
            // Days later one run is due at once, and the next on the day after it.
            ("03:00", "Asia/Seoul", "2026-01-01T00:00:00Z", "2026-01-01T18:00:00Z"),
            ("03:00", "+09:00", "2026-01-01T18:00:00Z", "2026-01-02T18:00:00Z"),
            // 02:30 is not there on the 29th of March, and twice on the 25th of October.
            ("02:30", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:30:00Z"),
            ("02:30", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
            ("02:30", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
        ] {
            assert_eq!(daily(at, zone).next_ms(Some(ms(last))), ms(next), "{at} {zone} {last}");
        }
        assert_eq!(daily("03:05", "+09:00").to_string(), "at 03:05 +09:00");
    }
}
