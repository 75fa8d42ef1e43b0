//! What the encode thread asks of the server and of the snapshot reader while it follows the stream: a table's
//! present definition, and to read a table's rows again. Nothing here holds the stream up for long: a server that does
//! not answer is left alone for a while, and the stream goes on with what is known.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mysql_async::Conn;
use schemas::{position::BinlogPlace, table_id::TableId};
use tokio::sync::mpsc;

use crate::{
    config::{SnapshotMode, SourceConfig},
    error::ReaderError,
    mysql::{
        catalog::{CatalogTable, load_one},
        connect::{Server, place, reconnect, server},
        place::binlog_end,
    },
    snapshot::request::Request,
};

/// How long one question may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a server that did not answer is not asked again.
const SILENCE: Duration = Duration::from_secs(30);

/// The way to the server and to the snapshot reader. The default has neither.
#[derive(Clone, Debug, Default)]
pub struct LiveServer {
    /// Where a table's present definition is asked for.
    pub config: Option<Arc<SourceConfig>>,
    /// Takes tables whose rows are to be read while the stream goes on; `None` when existing rows are not read.
    pub to_read: Option<mpsc::Sender<Request>>,
    /// Takes what is asked of the snapshot readers from outside.
    pub requests: Option<mpsc::Sender<Request>>,
    /// Which rows are read of tables that are captured from now on.
    pub mode: SnapshotMode,
    /// The server keeps table names in lower case (`lower_case_table_names`).
    pub lower_case_names: bool,
}

/// What the server says of a table.
#[derive(Debug)]
pub(super) enum Definition {
    /// It is this, and was before the binlog reached this place.
    Table(Box<CatalogTable>, BinlogPlace),
    /// There is none of that name.
    Gone,
    /// It cannot be captured, with the sentence.
    Unfit,
    /// The server did not answer.
    Unknown,
}

/// See the module.
pub(super) struct LiveTables {
    config: Option<Arc<SourceConfig>>,
    runtime: tokio::runtime::Handle,
    link: Option<(Conn, Server)>,
    silent_until: Option<Instant>,
}

impl LiveTables {
    pub(super) fn new(config: Option<Arc<SourceConfig>>, runtime: tokio::runtime::Handle) -> Self {
        Self { config, runtime, link: None, silent_until: None }
    }

    /// Asks for a table's present definition.
    pub(super) fn ask(&mut self, id: &TableId) -> Definition {
        let Some(config) = self.config.clone() else { return Definition::Unknown };
        if self.silent_until.is_some_and(|until| Instant::now() < until) {
            return Definition::Unknown;
        }
        let runtime = self.runtime.clone();
        let asked = async {
            // A connection that was not used for long may be gone: that is not yet a silent server.
            let mut answer = self.answer(&config, id).await;
            if matches!(answer, Err(ReaderError::Transient { .. })) {
                self.link = None;
                answer = self.answer(&config, id).await;
            }
            answer
        };
        // A timer is made where the runtime is entered, not before.
        let answer = runtime.block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, asked).await });
        let error = match answer {
            Ok(Ok(definition)) => return definition,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {} s", ANSWER_TIMEOUT.as_secs()),
        };
        self.link = None;
        self.silent_until = Some(Instant::now() + SILENCE);
        tracing::warn!(
            source = %config.name, table = %id, error,
            "the table's present definition could not be read; going on with what is known of it"
        );
        Definition::Unknown
    }

    async fn answer(
        &mut self,
        config: &SourceConfig,
        id: &TableId,
    ) -> Result<Definition, ReaderError> {
        let (mut connection, answering) = match self.link.take() {
            Some(link) => link,
            None => {
                let mut connection = reconnect(config).await?;
                let answering = server(&mut connection, &place(config)).await?;
                (connection, answering)
            }
        };
        let definition = match load_one(&mut connection, &answering, &config.name, id).await {
            Ok(Some(table)) => {
                let end = binlog_end(&mut connection, &answering).await?;
                Definition::Table(Box::new(table), end)
            }
            Ok(None) => Definition::Gone,
            Err(ReaderError::Query { .. }) => Definition::Unfit,
            Err(error) => return Err(error),
        };
        self.link = Some((connection, answering));
        Ok(definition)
    }
}
