//! What a log call can find.

use thiserror::Error;

/// Why a log call failed, and by its variant what to do.
#[derive(Debug, Error)]
pub enum LogError {
    /// Another writer of the same source was opened later.
    #[error("another reader took over the change log of source {source_name}; this one stops")]
    Fenced {
        /// The source.
        source_name: String,
    },
    /// The records at this offset were removed by retention.
    #[error("{topic}[{partition}] no longer holds offset {wanted}; the first one left is {first}")]
    OffsetGone {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The offset asked for.
        wanted: i64,
        /// The first offset that is there.
        first: i64,
    },
    /// The log cannot be reached or opened.
    #[error("change log at {place} cannot be used: {reason}")]
    Unavailable {
        /// The brokers or the file.
        place: String,
        /// What the store said and what to do.
        reason: String,
    },
    /// The open transaction was lost; go back to the last committed position.
    #[error("change log transaction was aborted: {reason}")]
    Aborted {
        /// What the store said.
        reason: String,
    },
    /// The store found its own data damaged, or a topic does not fit.
    #[error("change log at {place} is not usable as it is: {reason}")]
    Unfit {
        /// The topic or file.
        place: String,
        /// What is wrong and what to do.
        reason: String,
    },
}
