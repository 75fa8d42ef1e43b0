//! Why the replication connection ended, and what the reader makes of it.

use std::io;

use mysql_async::{Error, ServerError};
use thiserror::Error;

use super::super::byte_reader::Malformed;
use crate::{
    config::SourceConfig,
    error::ReaderError,
    mysql::connect::{classify, connect_error, place},
};

/// Why the replication connection ended.
#[derive(Debug, Error)]
pub(super) enum DumpFailure {
    /// The network.
    #[error("connection lost ({0})")]
    Io(#[from] io::Error),
    /// An ERR packet.
    #[error("error {code}: {message}")]
    Server { code: u16, state: String, message: String },
    /// What may pass, in a sentence of its own.
    #[error("{0}")]
    Transient(String),
    /// The login cannot succeed as it is configured.
    #[error("{0}")]
    Login(String),
    /// The stored position cannot be gone on from.
    #[error("{0}")]
    Position(String),
    /// An event that is not one.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// The reader is stopping; not an error.
    #[error("the reader stops")]
    Stopped,
}

impl DumpFailure {
    /// As the driver would have told it, for the sentences that both share.
    fn into_driver(self) -> Result<Error, Self> {
        match self {
            Self::Io(error) => Ok(Error::Io(error.into())),
            Self::Server { code, state, message } => {
                Ok(Error::Server(ServerError { code, message, state }))
            }
            other => Err(other),
        }
    }

    /// While the connection was made.
    pub(super) fn connecting(self, config: &SourceConfig) -> ReaderError {
        match self.into_driver() {
            Ok(error) => connect_error(&error, config),
            Err(Self::Login(reason)) => ReaderError::Connect { place: place(config), reason },
            Err(other) => other.plain(config),
        }
    }

    /// From the first command on.
    pub(super) fn streaming(self, config: &SourceConfig) -> ReaderError {
        let server_place = place(config);
        if let Self::Server { code: 1236, message, .. } = &self {
            // 1236 is the server's answer to every request that it cannot or will no longer serve.
            if message.contains("server_uuid/server_id") {
                return ReaderError::Transient {
                    place: server_place,
                    reason: "another replica uses the same server_id or UUID; set another `server_id` for this source"
                        .into(),
                };
            }
            return ReaderError::PositionLost(format!(
                "MySQL at {server_place} cannot serve the binlog from the stored position ({message}); start with a \
                 new change log and lake folder to take a new snapshot"
            ));
        }
        match self.into_driver() {
            Ok(error) => classify(error, &server_place),
            Err(other) => other.plain(config),
        }
    }

    fn plain(self, config: &SourceConfig) -> ReaderError {
        let place = place(config);
        match self {
            Self::Position(reason) => ReaderError::PositionLost(reason),
            Self::Malformed(error) => ReaderError::BadEvent { place, reason: error.to_string() },
            Self::Login(reason) => ReaderError::Query { place, reason },
            other => ReaderError::Transient { place, reason: other.to_string() },
        }
    }
}
