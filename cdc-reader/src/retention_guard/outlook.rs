//! Decides, from one look at the server after the other, whether the binlog will still be there when it is needed. Pure:
//! times and sizes are arguments.
//!
//! A server removes whole files, each some time after the last write into it. The file that matters is the one that a
//! reader has to read on from. While the server still writes into that one, its time has not begun. Otherwise it was
//! written to at least until the last transaction of it that is in the change log, and at least until the last look
//! that found it being written to; so the time told here is never later than the server's, and a little earlier at most.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use schemas::position::BinlogPlace;

use crate::mysql::retention::{ByTime, Retention};

/// Speeds are taken over this time: shorter ones jump with every large transaction.
const SPEED_WINDOW: Duration = Duration::from_secs(600);
/// A warning is taken back when there is this much more than needed.
const ALL_CLEAR: f64 = 1.25;
const DAY: u64 = 86_400;
/// What is proposed, in seconds.
const PROPOSALS: [u64; 6] = [DAY, 2 * DAY, 3 * DAY, 7 * DAY, 14 * DAY, 30 * DAY];

/// What one look found.
#[derive(Clone, Debug)]
pub struct Look {
    /// When, on a clock that does not jump.
    pub at: Duration,
    /// The server's time in milliseconds since 1970.
    pub server_ms: i64,
    /// The binlog's files with their sizes, the oldest first; the last one is being written.
    pub files: Vec<(String, u64)>,
    /// Where a reader has to read on from.
    pub from: BinlogPlace,
    /// When the last transaction before that was committed, in milliseconds since 1970.
    pub source_time_ms: i64,
    /// Rows that snapshots have read.
    pub rows_done: u64,
    /// Rows that they are thought to have before them.
    pub rows_left: u64,
    /// When files are removed.
    pub retention: Retention,
}

/// What is to be expected.
#[derive(Clone, Debug, PartialEq)]
pub struct Outlook {
    /// Until the file may be removed; infinite when it never is, NaN when that is not known.
    pub headroom_seconds: f64,
    /// Whether that will do.
    pub state: State,
}

/// Whether the binlog will be there when it is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It will.
    Safe,
    /// It may not: what, when, and what to do.
    Short(String),
    /// The file is not there any more.
    Gone(String),
}

/// What was found by the looks before.
#[derive(Debug, Default)]
pub struct Outlooks {
    looks: VecDeque<Progress>,
    /// By the number of a file, the server's time at which it was last found being written.
    written_until: BTreeMap<u64, i64>,
    is_short: bool,
}

/// Sums since the first look.
#[derive(Clone, Debug)]
struct Progress {
    at: Duration,
    written: u64,
    read: u64,
    rows: u64,
    end: BinlogPlace,
    from: BinlogPlace,
}

/// Per second; `None` before there are two looks.
struct Speeds {
    written: f64,
    read: f64,
    rows: f64,
}

/// When the file may go, and by which rule.
struct Removal {
    headroom: f64,
    /// How long a file is kept at all.
    kept: f64,
    setting: String,
}

impl Outlooks {
    /// Adds a look.
    pub fn judge(&mut self, source: &str, look: &Look) -> Outlook {
        let unknown = Outlook { headroom_seconds: f64::NAN, state: State::Safe };
        let Some((end_file, end_offset)) = look.files.last() else { return unknown };
        let end = BinlogPlace { file: end_file.clone(), offset: *end_offset };
        self.written_until.insert(end.file_number(), look.server_ms);
        let number = look.from.file_number();
        self.written_until.retain(|file, _| *file >= number);
        let speeds = self.add(look, &end);
        // Until the stream has come from another server's place to one of this server.
        if look.from.file.is_empty() {
            return unknown;
        }
        let Some(index) = look.files.iter().position(|(file, _)| *file == look.from.file) else {
            let oldest = look.files.first().map(|(file, _)| file.as_str()).unwrap_or_default();
            let oldest_number = BinlogPlace { file: oldest.into(), offset: 0 }.file_number();
            if oldest_number <= number {
                return unknown;
            }
            self.is_short = true;
            let sentence = format!(
                "binlog file {}, which source {source} has to read on from, was removed; the oldest is {oldest}",
                look.from.file
            );
            return Outlook { headroom_seconds: 0.0, state: State::Gone(sentence) };
        };
        let is_written = index + 1 == look.files.len();
        let until = self.written_until.get(&number).copied().unwrap_or(0).max(look.source_time_ms);
        let closed_ms = if is_written { 0 } else { (look.server_ms - until).max(0) };
        let closed_seconds = closed_ms as f64 / 1000.0;
        let removal = removal(look, index, closed_seconds, speeds.as_ref());
        let snapshot = snapshot_seconds(look, speeds.as_ref());
        let catch_up = match &speeds {
            _ if is_written => Some(0.0),
            Some(speeds) if speeds.read > speeds.written => {
                let missing = bytes_between(&look.files, &look.from, &end) as f64;
                Some(missing / (speeds.read - speeds.written))
            }
            _ => None,
        };

        let Some(removal) = removal else {
            // Nobody says when files go: the oldest goes first.
            let state = match &look.retention.by_time {
                ByTime::NotTold(grant) if index == 0 && !is_written => State::Short(format!(
                    "binlog file {}, which source {source} reads on from, is the oldest and will be removed next, at a \
                     time that the user may not ask for: {grant} TO it",
                    look.from.file
                )),
                _ => State::Safe,
            };
            return Outlook { state, ..unknown };
        };
        let needed = match catch_up {
            Some(seconds) => seconds.max(snapshot.unwrap_or(0.0)),
            // How fast it reads is seen by the next look.
            None if speeds.is_none() => 0.0,
            None => (removal.kept / 2.0).max(snapshot.unwrap_or(0.0)),
        };
        let wanted = if self.is_short { needed * ALL_CLEAR } else { needed };
        self.is_short = removal.headroom < wanted || removal.kept < 1.0;
        let state = if self.is_short {
            let why = Why { catch_up, snapshot, needed, closed_seconds };
            State::Short(sentence(source, look, &removal, &why, is_written, speeds.as_ref()))
        } else {
            State::Safe
        };
        Outlook { headroom_seconds: removal.headroom, state }
    }

    fn add(&mut self, look: &Look, end: &BinlogPlace) -> Option<Speeds> {
        let mut progress = Progress {
            at: look.at,
            written: 0,
            read: 0,
            rows: look.rows_done,
            end: end.clone(),
            from: look.from.clone(),
        };
        if let Some(last) = self.looks.back() {
            progress.written = last.written + bytes_between(&look.files, &last.end, end);
            progress.read = last.read + bytes_between(&look.files, &last.from, &look.from);
        }
        let outdated = |first: &Progress| look.at.saturating_sub(first.at) > SPEED_WINDOW;
        while self.looks.len() > 1 && self.looks.front().is_some_and(outdated) {
            self.looks.pop_front();
        }
        let first = self.looks.front().cloned();
        self.looks.push_back(progress.clone());
        let first = first?;
        let seconds = look.at.saturating_sub(first.at).as_secs_f64();
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
        (seconds > 0.0).then(|| Speeds {
            written: per_second(progress.written, first.written),
            read: per_second(progress.read, first.read),
            rows: per_second(progress.rows, first.rows),
        })
    }
}

/// The rule by which the file goes first; `None` when the server does not tell.
fn removal(look: &Look, index: usize, closed: f64, speeds: Option<&Speeds>) -> Option<Removal> {
    let by_time = match &look.retention.by_time {
        ByTime::Never => {
            Some(Removal { headroom: f64::INFINITY, kept: f64::INFINITY, setting: String::new() })
        }
        ByTime::After { seconds, clock } => Some(Removal {
            headroom: (*seconds as f64 - closed).max(0.0),
            kept: *seconds as f64,
            setting: clock.setting(*seconds),
        }),
        ByTime::NotTold(_) => None,
    };
    let by_space = look.retention.by_space.as_ref().map(|limit| {
        let behind: u64 = look.files[index..].iter().map(|(_, size)| size).sum();
        let written = speeds.map_or(0.0, |speeds| speeds.written);
        let seconds =
            |bytes: u64| if written > 0.0 { bytes as f64 / written } else { f64::INFINITY };
        Removal {
            headroom: seconds(limit.bytes.saturating_sub(behind)),
            kept: seconds(limit.bytes),
            setting: limit.setting(),
        }
    });
    match (by_time, by_space) {
        (Some(time), Some(space)) if space.headroom < time.headroom => Some(space),
        (Some(time), _) => Some(time),
        (None, space) => space.filter(|space| space.headroom.is_finite()),
    }
}

fn snapshot_seconds(look: &Look, speeds: Option<&Speeds>) -> Option<f64> {
    match speeds {
        _ if look.rows_left == 0 => Some(0.0),
        Some(speeds) if speeds.rows > 0.0 => Some(look.rows_left as f64 / speeds.rows),
        _ => None,
    }
}

/// Why more time is needed than there is.
struct Why {
    catch_up: Option<f64>,
    snapshot: Option<f64>,
    needed: f64,
    closed_seconds: f64,
}

fn sentence(
    source: &str,
    look: &Look,
    removal: &Removal,
    why: &Why,
    is_written: bool,
    speeds: Option<&Speeds>,
) -> String {
    let cure = cure(look, removal, why, speeds);
    let (kept, setting) = (duration_text(removal.kept), &removal.setting);
    let snapshot = why.snapshot.unwrap_or(0.0);
    let file = &look.from.file;
    if removal.kept < 1.0 {
        return format!(
            "the server removes binlog files as soon as it likes ({setting}), so source {source} may lose its place at any \
             interruption: {cure}"
        );
    }
    if is_written {
        return format!(
            "the binlog is kept for {kept} ({setting}) and the snapshot of source {source} needs about {} more: if the \
             reader stops or falls behind for longer than it is kept, every table has to be read again: {cure}",
            duration_text(snapshot)
        );
    }
    let needs = match why.catch_up {
        Some(seconds) if seconds >= snapshot => {
            format!("the reader needs about {} to catch up", duration_text(seconds))
        }
        None if snapshot < removal.kept / 2.0 => "the reader is not catching up".into(),
        _ => format!("the snapshot needs about {} more", duration_text(snapshot)),
    };
    format!(
        "binlog file {file}, which source {source} reads on from, may be removed in {} ({setting}), and {needs}: {cure}",
        duration_text(removal.headroom)
    )
}

fn cure(look: &Look, removal: &Removal, why: &Why, speeds: Option<&Speeds>) -> String {
    let wanted = 2.0 * (why.closed_seconds + why.needed);
    let longer = |seconds: &&u64| **seconds as f64 >= wanted && **seconds as f64 > removal.kept;
    let seconds = PROPOSALS.iter().find(longer).copied().unwrap_or(30 * DAY);
    match (&look.retention.by_space, &look.retention.by_time) {
        (Some(limit), _) if limit.setting() == removal.setting => {
            let written = speeds.map_or(0.0, |speeds| speeds.written);
            limit.cure((written * seconds as f64) as u64)
        }
        (_, ByTime::After { clock, .. }) => clock.cure(seconds),
        _ => "keep the binlog for longer".into(),
    }
}

/// The bytes of the binlog from one place to a later one; what lies in removed files is not counted.
fn bytes_between(files: &[(String, u64)], from: &BinlogPlace, to: &BinlogPlace) -> u64 {
    let number = |file: &str| BinlogPlace { file: file.into(), offset: 0 }.file_number();
    let (first, last) = (from.file_number(), to.file_number());
    let part = |(file, size): &(String, u64)| {
        let number = number(file);
        if number < first || number > last {
            return 0;
        }
        let upto = if number == last { to.offset } else { *size };
        upto.saturating_sub(if number == first { from.offset } else { 0 })
    };
    files.iter().map(part).sum()
}

fn duration_text(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} hours", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests;
