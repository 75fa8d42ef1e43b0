//! Decides when a table's buffered changes are committed. Pure: the clock comes in as an argument.

use std::time::{Duration, Instant};

/// The limits that make a commit due.
#[derive(Clone, Copy, Debug)]
pub struct FlushPolicy {
    /// The age of the oldest buffered change.
    pub age_max: Duration,
    /// Buffered rows.
    pub rows_max: usize,
    /// Buffered bytes.
    pub bytes_max: usize,
}

/// What is buffered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Buffered {
    /// When the oldest change came in; `None` when nothing waits.
    pub oldest: Option<Instant>,
    /// Rows.
    pub rows: usize,
    /// Bytes.
    pub bytes: usize,
    /// Whether all tables together are short of memory and this one holds its share of it.
    pub memory_is_short: bool,
}

/// Whether to commit now.
pub fn flush_due(buffered: &Buffered, policy: &FlushPolicy, now: Instant) -> bool {
    let Some(oldest) = buffered.oldest else { return false };
    now.saturating_duration_since(oldest) >= policy.age_max
        || buffered.rows >= policy.rows_max
        || buffered.bytes >= policy.bytes_max
        || buffered.memory_is_short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_by_age_rows_bytes_or_memory_but_never_when_empty() {
        let now = Instant::now() + Duration::from_secs(100);
        let policy =
            FlushPolicy { age_max: Duration::from_secs(10), rows_max: 100, bytes_max: 1000 };
        let young = Buffered {
            oldest: Some(now - Duration::from_secs(9)),
            rows: 99,
            bytes: 999,
            memory_is_short: false,
        };
        for (buffered, due) in [
            (young, false),
            (Buffered { oldest: Some(now - Duration::from_secs(10)), ..young }, true),
            (Buffered { rows: 100, ..young }, true),
            (Buffered { bytes: 1000, ..young }, true),
            (Buffered { memory_is_short: true, ..young }, true),
            (Buffered { oldest: None, rows: 100, ..young }, false),
        ] {
            assert_eq!(flush_due(&buffered, &policy, now), due, "{buffered:?}");
        }
    }
}
