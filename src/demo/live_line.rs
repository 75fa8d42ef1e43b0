//! The line that shows how the demo is doing: redrawn in place on a terminal, printed now and then elsewhere.

use std::time::{Duration, Instant};

use console::status::Status;
use indicatif::{ProgressBar, ProgressStyle};

use super::workload::Written;

/// Without a terminal every line stays, so they come less often.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// A rate over less time than this jumps about.
const RATE_INTERVAL: Duration = Duration::from_secs(2);

/// Draws the line.
pub struct LiveLine {
    bar: ProgressBar,
    printed: Instant,
    before: Option<(Instant, u64)>,
    rate: f64,
}

impl LiveLine {
    /// Starts drawing.
    pub fn new() -> LiveLine {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("   {spinner} {msg}") {
            bar.set_style(style);
        }
        LiveLine { bar, printed: Instant::now(), before: None, rate: 0.0 }
    }

    /// Shows this moment.
    pub fn show(&mut self, written: Written, status: &Status) {
        let now = Instant::now();
        let (then, rows) = *self.before.get_or_insert((now, written.rows));
        let passed = now.duration_since(then);
        if passed >= RATE_INTERVAL {
            self.rate = written.rows.saturating_sub(rows) as f64 / passed.as_secs_f64();
            self.before = Some((now, written.rows));
        }
        let message = sentence(written.rows, self.rate, status);
        if self.bar.is_hidden() {
            if now.duration_since(self.printed) >= LINE_INTERVAL {
                println!("   {message}");
                self.printed = now;
            }
        } else {
            self.bar.set_message(message);
            self.bar.tick();
        }
    }

    /// Removes the line.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

fn sentence(rows: u64, rate: f64, status: &Status) -> String {
    let in_lake = status.tables.iter().filter(|table| table.version.is_some()).count();
    let waiting: i64 = status.tables.iter().map(|table| table.lag_records).sum();
    let lag = status.tables.iter().map(|table| table.lag_seconds).fold(0.0, f64::max);
    let reader = status.sources.iter().filter_map(|source| source.lag_seconds).fold(0.0, f64::max);
    format!(
        "MySQL: {} rows changed ({}/s) | lake: {in_lake} of {} tables, {:.0} s behind, {} changes on their way",
        thousands(rows),
        thousands(rate as u64),
        status.tables.len(),
        lag.max(reader),
        thousands(waiting.max(0).unsigned_abs()),
    )
}

/// `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_from_the_right() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1234567, "1,234,567")] {
            assert_eq!(thousands(number), text);
        }
    }
}
