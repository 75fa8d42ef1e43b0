//! Waiting for brokers that take nothing: said once in a while, told to the metrics, and ended by a stop.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::writer::Waiting;

/// A wait is told after this long, and then again after as long.
const TOLD_AFTER: Duration = Duration::from_secs(10);
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_secs(1);
/// How long a stop waits for the brokers to take what is complete.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// One source's waits.
#[derive(Debug, Default)]
pub struct Stall {
    since: Option<Instant>,
    told: Option<Instant>,
    stop_seen: Option<Instant>,
}

/// Whether to go on waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Wait on.
    Wait,
    /// A stop was asked for, and has waited for long enough.
    GiveUp,
}

impl Stall {
    /// The brokers still take nothing.
    pub fn waits(&mut self, now: Instant, waiting: &Waiting, source: &str) -> Patience {
        let since = *self.since.get_or_insert(now);
        let waited = now.duration_since(since);
        (waiting.stalled)(waited);
        let due = match self.told {
            None => waited >= TOLD_AFTER,
            Some(told) => now.duration_since(told) >= TOLD_AGAIN_AFTER,
        };
        if due {
            self.told = Some(now);
            warn!(
                source,
                waited_s = waited.as_secs(),
                "the brokers take no records: nothing is lost, reading the binlog waits for them"
            );
        }
        if !(waiting.stopped)() {
            self.stop_seen = None;
            return Patience::Wait;
        }
        let seen = *self.stop_seen.get_or_insert(now);
        if now.duration_since(seen) >= STOP_PATIENCE { Patience::GiveUp } else { Patience::Wait }
    }

    /// Whether the wait has lasted for so long that looking again soon is of no use.
    pub fn is_long(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= LONG)
    }

    /// They took what was waited for.
    pub fn ends(&mut self, now: Instant, waiting: &Waiting, source: &str) {
        let Some(since) = self.since.take() else { return };
        (waiting.stalled)(Duration::ZERO);
        if self.told.take().is_some() {
            let waited_s = now.duration_since(since).as_secs();
            info!(source, waited_s, "the brokers take records again");
        }
        self.stop_seen = None;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    };

    use super::*;

    #[test]
    fn a_stop_ends_the_wait_after_a_while_and_a_wait_without_one_goes_on() {
        let stopped = Arc::new(AtomicBool::new(false));
        let waited_ms = Arc::new(AtomicU64::new(0));
        let waiting = Waiting {
            stopped: Box::new({
                let stopped = stopped.clone();
                move || stopped.load(Ordering::Relaxed)
            }),
            stalled: Box::new({
                let waited_ms = waited_ms.clone();
                move |waited| waited_ms.store(waited.as_millis() as u64, Ordering::Relaxed)
            }),
        };
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut stall = Stall::default();
        assert_eq!(stall.waits(at(0), &waiting, "s"), Patience::Wait);
        assert_eq!(stall.waits(at(3600), &waiting, "s"), Patience::Wait);
        assert_eq!(waited_ms.load(Ordering::Relaxed), 3_600_000);
        stopped.store(true, Ordering::Relaxed);
        assert_eq!(stall.waits(at(3601), &waiting, "s"), Patience::Wait);
        assert_eq!(stall.waits(at(3605), &waiting, "s"), Patience::Wait);
        assert_eq!(stall.waits(at(3606), &waiting, "s"), Patience::GiveUp);
        stall.ends(at(3607), &waiting, "s");
        assert_eq!(waited_ms.load(Ordering::Relaxed), 0);
        // A later wait has its own patience.
        assert_eq!(stall.waits(at(4000), &waiting, "s"), Patience::Wait);
    }
}
