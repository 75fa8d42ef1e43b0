//! Waiting for a condition instead of for time.

use std::time::{Duration, Instant};

/// Long enough for a loaded machine to notice, short enough not to be noticed by a person.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Returns as soon as `condition` holds; panics naming `what` when it does not within `timeout`.
#[track_caller]
pub fn eventually(timeout: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    eventually_some(timeout, what, || condition().then_some(()));
}

/// Returns the first value that `attempt` finds; panics naming `what` when there is none within
/// `timeout`.
#[track_caller]
pub fn eventually_some<T>(
    timeout: Duration,
    what: &str,
    mut attempt: impl FnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = attempt() {
            return value;
        }
        assert!(started.elapsed() < timeout, "not within {timeout:?}: {what}");
        std::thread::sleep(POLL_INTERVAL);
    }
}
