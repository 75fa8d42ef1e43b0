//! Why a connection of our own ended, and what the reader makes of it.

use std::io;

use mysql_async::{Error, ServerError};
use thiserror::Error;

use crate::{
    binlog::byte_reader::Malformed,
    config::SourceConfig,
    error::ReaderError,
    mysql::connect::{classify, connect_error, place},
};

/// Why a connection of our own ended.
#[derive(Debug, Error)]
pub(crate) enum WireFailure {
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
    /// The stored position cannot be gone on from (the replication connection alone).
    #[error("{0}")]
    Position(String),
    /// An event that is not one.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// The reader is stopping; not an error.
    #[error("the reader stops")]
    Stopped,
}

impl WireFailure {
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
    pub(crate) fn connecting(self, config: &SourceConfig) -> ReaderError {
        match self.into_driver() {
            Ok(error) => connect_error(&error, config),
            Err(Self::Login(reason)) => ReaderError::Connect { place: place(config), reason },
            Err(other) => other.plain(&place(config)),
        }
    }

    /// From the first command on.
    pub(crate) fn classified(self, place: &str) -> ReaderError {
        match self.into_driver() {
            Ok(error) => classify(error, place),
            Err(other) => other.plain(place),
        }
    }

    fn plain(self, place: &str) -> ReaderError {
        let place = place.to_owned();
        match self {
            Self::Position(reason) => ReaderError::PositionLost(reason),
            Self::Malformed(error) => ReaderError::BadEvent { place, reason: error.to_string() },
            Self::Login(reason) => ReaderError::Query { place, reason },
            other => ReaderError::Transient { place, reason: other.to_string() },
        }
    }
}
