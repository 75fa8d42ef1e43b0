//! A [`RowConnection`] for async callers: work on it runs on a thread that may block.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Interrupt, RowConnection};
use crate::{config::SourceConfig, error::ReaderError, mysql::connect::place};

/// The connection of one reader; made when it is first needed, and again when it was closed.
#[derive(Debug)]
pub struct RowLink {
    config: Arc<SourceConfig>,
    connection: Option<RowConnection>,
}

impl RowLink {
    /// Nothing is connected yet.
    pub fn new(config: Arc<SourceConfig>) -> Self {
        Self { config, connection: None }
    }

    /// Whether the next work finds the session of the work before it.
    pub fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Runs work on the connection. Dropping the future ends the connection, and with it the work.
    pub async fn run<T, E>(
        &mut self,
        work: impl FnOnce(&mut RowConnection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<ReaderError> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let connection = self.connection.take();
        let interrupt = match &connection {
            Some(connection) => Some(connection.interrupt().map_err(|failure| failure.error)?),
            None => None,
        };
        let guard = EndOnDrop { stop: stop.clone(), interrupt, armed: true };
        let config = self.config.clone();
        let working = tokio::task::spawn_blocking(move || {
            let mut connection = match connection {
                Some(connection) => connection,
                None => RowConnection::connect(&config, stop)?,
            };
            let result = work(&mut connection);
            Ok((connection, result))
        });
        let done: Result<(RowConnection, Result<T, E>), ReaderError> =
            working.await.unwrap_or_else(|_| {
                Err(ReaderError::Transient {
                    place: place(&self.config),
                    reason: "the thread that reads rows ended unexpectedly".into(),
                })
            });
        guard.disarm();
        let (connection, result) = done?;
        self.connection = Some(connection).filter(RowConnection::is_open);
        result
    }
}

/// Ends the work of a future that is dropped.
struct EndOnDrop {
    /// While the connection is made, this alone ends it.
    stop: CancellationToken,
    interrupt: Option<Interrupt>,
    armed: bool,
}

impl EndOnDrop {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        self.stop.cancel();
        if let Some(interrupt) = &self.interrupt {
            interrupt.interrupt();
        }
    }
}
