//! The line of progress of a running service: redrawn on a terminal, a log line now and then elsewhere.

use std::{
    io::{Write, stderr},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use console::status::Status;
use indicatif::{ProgressBar, ProgressStyle};
use tracing::info;

/// Where every line stays, they come less often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Set while the cursor stands behind a line that will be drawn again.
static DRAWN: AtomicBool = AtomicBool::new(false);

/// Where log lines go: to standard error, in the place of the line of progress when there is one.
pub fn log_writer() -> impl Write {
    let mut out = stderr();
    if DRAWN.load(Ordering::Relaxed) {
        // A log that cannot be written has nowhere to be complained about.
        let _ = out.write_all(b"\r\x1b[2K");
    }
    out
}

/// Draws the line.
pub struct StatusLine {
    bar: ProgressBar,
    printed: Instant,
}

impl StatusLine {
    /// Starts drawing.
    pub fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        Self { bar, printed: Instant::now() }
    }

    /// Shows this moment.
    pub fn show(&mut self, status: &Status) {
        if !self.bar.is_hidden() {
            DRAWN.store(true, Ordering::Relaxed);
            self.bar.set_message(sentence(status));
            self.bar.tick();
        } else if self.printed.elapsed() >= LINE_INTERVAL {
            self.printed = Instant::now();
            info!("{}", sentence(status));
        }
    }

    /// Removes the line.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
        DRAWN.store(false, Ordering::Relaxed);
    }
}

fn sentence(status: &Status) -> String {
    let rate: f64 = status.sources.iter().filter_map(|source| source.rows_per_second).sum();
    let in_lake = status.tables.iter().filter(|table| table.version.is_some()).count();
    let lag = status.tables.iter().map(|table| table.lag_seconds).fold(0.0, f64::max);
    let stopped = status.tables.iter().filter(|table| table.stopped.is_some()).count();
    let (mut read, mut estimated) = (0, 0);
    for snapshot in status.tables.iter().filter_map(|t| t.snapshot.as_ref()).filter(|s| !s.done) {
        read += snapshot.rows;
        estimated += snapshot.rows_estimated.max(snapshot.rows);
    }
    let mut text = format!(
        "{in_lake} of {} tables in the lake, {rate:.0} rows/s, {lag:.0} s behind",
        status.tables.len()
    );
    if let Some(percent) = (read * 100).checked_div(estimated) {
        text.push_str(&format!(", snapshot {percent} %"));
    }
    if stopped > 0 {
        text.push_str(&format!(", {stopped} tables STOPPED: see `binlake status`"));
    }
    text
}
