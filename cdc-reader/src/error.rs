//! What the reader can find, each with what to do.

use change_log::LogError;
use thiserror::Error;

/// Why the reader stopped or a command failed.
#[derive(Debug, Error)]
pub enum ReaderError {
    /// The configuration cannot be used.
    #[error("source {source_name}: {reason}")]
    Config {
        /// The source.
        source_name: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The server cannot be reached or refuses the login.
    #[error("cannot connect to MySQL at {place}: {reason}")]
    Connect {
        /// `host:port`.
        place: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The server's settings or grants do not allow capturing; one sentence each, with the SQL that cures it.
    #[error("MySQL at {place} is not ready: {}", findings.join("; "))]
    Preflight {
        /// `host:port`.
        place: String,
        /// One sentence each.
        findings: Vec<String>,
    },
    /// The stored position cannot be gone on from.
    #[error("{0}")]
    PositionLost(String),
    /// A query failed for a reason that may pass (connection lost, server restarting).
    #[error("MySQL at {place}: {reason}")]
    Transient {
        /// `host:port`.
        place: String,
        /// What the server or the driver said.
        reason: String,
    },
    /// A query failed and will fail again.
    #[error("MySQL at {place}: {reason}")]
    Query {
        /// `host:port`.
        place: String,
        /// What the server said and what to do.
        reason: String,
    },
    /// An event could not be understood.
    #[error("binlog event at {place}: {reason}")]
    BadEvent {
        /// `file:offset`.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The schema registry refuses a table's schema.
    #[error("table {table}: {reason}")]
    SchemaRefused {
        /// `database.table`, or the topic of what is no table.
        table: String,
        /// What it said and what to do.
        reason: String,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What to do about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Go back to the last committed position and try again after a pause.
    Retry,
    /// Stop with the sentence.
    StopService,
}

impl ReaderError {
    /// What to do about it.
    pub fn action(&self) -> Action {
        match self {
            Self::Transient { .. }
            | Self::Log(LogError::Aborted { .. } | LogError::Unavailable { .. }) => Action::Retry,
            Self::Config { .. }
            | Self::Connect { .. }
            | Self::Preflight { .. }
            | Self::PositionLost(_)
            | Self::Query { .. }
            | Self::BadEvent { .. }
            | Self::SchemaRefused { .. }
            | Self::Log(
                LogError::Fenced { .. } | LogError::OffsetGone { .. } | LogError::Unfit { .. },
            ) => Action::StopService,
        }
    }
}
