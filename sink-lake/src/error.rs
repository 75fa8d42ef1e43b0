//! What the sink can find, and what each finding means for the table and the service.

use change_log::LogError;
use thiserror::Error;

/// Why a table or the sink can't go on as it is.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The configured place is no lake we can write.
    #[error("lake url {url} cannot be used: {reason}")]
    LakeUrl {
        /// As configured.
        url: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The lake's folder can't be written.
    #[error("lake folder {folder} is not writable: {reason}")]
    LakeNotWritable {
        /// The folder.
        folder: String,
        /// What the system said.
        reason: String,
    },
    /// The change log failed in a way that waiting does not cure.
    #[error("change log failed")]
    Log(#[from] LogError),
    /// Records that the table needs are no longer in the log.
    #[error(
        "{topic}[{partition}] lost its records {wanted} to {first}; take a new snapshot of the table"
    )]
    OffsetGone {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset that the table needs next.
        wanted: i64,
        /// The first one that is left.
        first: i64,
    },
    /// The source changed a table in a way that its lake table can't follow.
    #[error("table {table} stopped at a change of its schema: {reason}")]
    SchemaChange {
        /// The table.
        table: String,
        /// What changed and what to do.
        reason: String,
    },
    /// The table's records can't be understood at all.
    #[error("table {table} stopped: {reason}")]
    Unfit {
        /// The table.
        table: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// An export can't be written as it is configured.
    #[error("export of {table}: {reason}")]
    Export {
        /// The source's table.
        table: String,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The Delta table failed.
    #[error("delta table at {place}: {reason}")]
    Delta {
        /// The table's folder.
        place: String,
        /// What the library said.
        reason: String,
    },
    /// A file failed.
    #[error("file {place}: {reason}")]
    File {
        /// The file.
        place: String,
        /// What the system said.
        reason: String,
    },
    /// A task of ours panicked or was lost.
    #[error("{task} ended unexpectedly: {reason}")]
    Task {
        /// Which one.
        task: String,
        /// How.
        reason: String,
    },
}

/// What an error means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Try again after a while.
    Retry,
    /// This table stops; the others go on.
    StopTable,
    /// The sink stops.
    StopService,
}

impl SinkError {
    /// What to do about it.
    pub fn consequence(&self) -> Consequence {
        match self {
            Self::LakeUrl { .. } | Self::LakeNotWritable { .. } => Consequence::StopService,
            Self::Log(error) => match error {
                LogError::Unavailable { .. } | LogError::Aborted { .. } => Consequence::Retry,
                LogError::OffsetGone { .. } => Consequence::StopTable,
                LogError::Fenced { .. } | LogError::Unfit { .. } => Consequence::StopService,
            },
            Self::OffsetGone { .. }
            | Self::SchemaChange { .. }
            | Self::Unfit { .. }
            | Self::Export { .. } => Consequence::StopTable,
            Self::Delta { .. } | Self::File { .. } | Self::Task { .. } => Consequence::Retry,
        }
    }
}

/// The whole chain of an error's causes in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
