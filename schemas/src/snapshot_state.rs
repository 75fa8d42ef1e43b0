//! What a table's snapshot is doing, told from its place in a position.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::position::TableSnapshot;

/// What a table's snapshot is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// Its turn has not come.
    #[default]
    Waiting,
    /// Its rows are being read.
    Reading,
    /// Somebody has put it off.
    Paused,
    /// All rows are in the log.
    Done,
    /// It has ended, and the copy lacks rows.
    Stopped,
}

impl SnapshotState {
    /// All states, in the order of the numbers by which metrics tell them.
    pub const ALL: [Self; 5] =
        [Self::Waiting, Self::Reading, Self::Paused, Self::Done, Self::Stopped];

    /// The state's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Reading => "reading",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for SnapshotState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl TableSnapshot {
    /// What it is doing.
    pub fn state(&self) -> SnapshotState {
        if self.done {
            if self.partial { SnapshotState::Stopped } else { SnapshotState::Done }
        } else if self.paused {
            SnapshotState::Paused
        } else if self.rows > 0 || self.in_flight > 0 {
            SnapshotState::Reading
        } else {
            SnapshotState::Waiting
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_follows_from_the_progress() {
        let new = TableSnapshot::default;
        for (progress, word) in [
            (new(), "waiting"),
            (TableSnapshot { in_flight: 1, ..new() }, "reading"),
            (TableSnapshot { rows: 5, ..new() }, "reading"),
            (TableSnapshot { rows: 5, paused: true, ..new() }, "paused"),
            (TableSnapshot { done: true, ..new() }, "done"),
            (TableSnapshot { done: true, partial: true, ..new() }, "stopped"),
            (TableSnapshot { partial: true, ..new() }, "waiting"),
        ] {
            assert_eq!(progress.state().name(), word, "{progress:?}");
        }
    }
}
