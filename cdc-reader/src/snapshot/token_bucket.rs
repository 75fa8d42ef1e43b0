//! How many rows may be read in a second: a bucket of tokens that holds no more than one chunk, so that time in which
//! nothing was read buys no burst later. Times are arguments.
//!
//! Rows are known only after they were read, and several readers read at once. So a chunk is paid for in advance as if it
//! were a full one, and what it had less (or more) is settled when it was read.

use std::time::Duration;

#[derive(Debug)]
pub(super) struct TokenBucket {
    rows_per_second: u64,
    chunk_rows: u64,
    /// Nanoseconds on the caller's clock from which the next chunk may be read.
    free_at: i128,
}

impl TokenBucket {
    pub(super) fn new(rows_per_second: u64, chunk_rows: u64) -> Self {
        Self { rows_per_second: rows_per_second.max(1), chunk_rows, free_at: i128::MIN }
    }

    /// Pays for a full chunk, or tells how long to wait before that can be done.
    pub(super) fn take_chunk(&mut self, now: Duration) -> Result<(), Duration> {
        let now = nanoseconds(now);
        if self.free_at > now {
            let wait = u64::try_from(self.free_at - now).unwrap_or(u64::MAX);
            return Err(Duration::from_nanos(wait));
        }
        self.free_at = now + self.cost(self.chunk_rows);
        Ok(())
    }

    /// Settles a chunk that was paid for: it had this many rows.
    pub(super) fn settle(&mut self, rows: u64) {
        let difference = self.cost(rows) - self.cost(self.chunk_rows);
        self.free_at = self.free_at.saturating_add(difference);
    }

    fn cost(&self, rows: u64) -> i128 {
        i128::from(rows) * 1_000_000_000 / i128::from(self.rows_per_second)
    }
}

fn nanoseconds(time: Duration) -> i128 {
    i128::try_from(time.as_nanos()).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn readers_that_come_together_pass_one_chunk_apart() {
        let mut bucket = TokenBucket::new(1000, 100);
        assert_eq!(bucket.take_chunk(ms(0)), Ok(()));
        assert_eq!(bucket.take_chunk(ms(0)), Err(ms(100)));
        assert_eq!(bucket.take_chunk(ms(99)), Err(ms(1)));
        assert_eq!(bucket.take_chunk(ms(100)), Ok(()));
        assert_eq!(bucket.take_chunk(ms(100)), Err(ms(100)));
    }

    #[test]
    fn idle_time_buys_no_burst() {
        let mut bucket = TokenBucket::new(1000, 100);
        assert_eq!(bucket.take_chunk(ms(60_000)), Ok(()));
        bucket.settle(100);
        assert_eq!(bucket.take_chunk(ms(60_000)), Err(ms(100)));
    }

    #[test]
    fn small_chunks_cost_what_they_had_and_large_ones_too() {
        let mut bucket = TokenBucket::new(1000, 100);
        assert_eq!(bucket.take_chunk(ms(0)), Ok(()));
        bucket.settle(1);
        assert_eq!(bucket.take_chunk(ms(0)), Err(ms(1)));
        assert_eq!(bucket.take_chunk(ms(1)), Ok(()));
        bucket.settle(5000);
        assert_eq!(bucket.take_chunk(ms(1)), Err(ms(5000)));
    }

    #[test]
    fn rate_is_kept_over_any_time_whatever_the_readers_do() {
        let random = &mut fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let rate = random.u64(1..100_000);
            let mut bucket = TokenBucket::new(rate, 100);
            let (mut now, mut rows, mut reading) = (Duration::ZERO, 0, Vec::new());
            for _ in 0..500 {
                now += Duration::from_micros(random.u64(0..20_000));
                if bucket.take_chunk(now).is_ok() {
                    reading.push(random.u64(0..=100));
                }
                if !reading.is_empty() && random.bool() {
                    let read = reading.swap_remove(random.usize(..reading.len()));
                    bucket.settle(read);
                    rows += read;
                }
            }
            let allowed = rate as f64 * now.as_secs_f64() + 100.0;
            assert!(rows as f64 <= allowed, "{rows} rows at {rate}/s in {now:?}");
        }
    }
}
