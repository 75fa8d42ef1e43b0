//! Reads a source's signals as they come, looks up on the server what they name, and hands them to the encode thread,
//! which obeys them between two transactions and stores how far they are read.

use std::{sync::Arc, time::Duration};

use change_log::{LogConfig, LogError, LogReader, open_reader};
use schemas::table_id::{TableId, signals_topic};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Signal, SignalAction, ensure_filter};
use crate::{
    config::SourceConfig,
    error::{Action, ReaderError},
    flow::{Input, InputSender, Order, SignalOrder},
    mysql::{
        catalog::{self, CatalogTable},
        connect::{place, reconnect, server},
    },
};

const LOG_TIMEOUT: Duration = Duration::from_secs(15);
/// How often the topic is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long one look waits for records that are on their way.
const POLL_TIMEOUT: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Runs until `stop`, or until the encode thread is gone. `from` is the offset after the last signal that was obeyed.
/// A log that cannot be read is said so and tried again: the stream does not need it.
pub(crate) async fn follow(
    config: Arc<SourceConfig>,
    log: LogConfig,
    from: Option<i64>,
    inbox: InputSender,
    stop: CancellationToken,
) {
    let mut topic = Topic {
        name: signals_topic(&config.name),
        log,
        next_offset: from,
        reader: None,
        assigned: false,
    };
    let mut pause = LOOK_INTERVAL;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = inbox.closed() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let looked = tokio::task::spawn_blocking(move || {
            let found = topic.look();
            (topic, found)
        });
        let Ok((back, found)) = looked.await else { return };
        topic = back;
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                warn!(source = %config.name, %error, "signals cannot be read, trying again");
                (topic.reader, topic.assigned) = (None, false);
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
        };
        pause = LOOK_INTERVAL;
        for (next_offset, text) in found {
            let order = tokio::select! {
                () = stop.cancelled() => return,
                order = looked_up(&config, next_offset, &text) => order,
            };
            if inbox.send(Input::Order(Order::Signal(order))).await.is_err() {
                return;
            }
        }
    }
}

struct Topic {
    name: String,
    log: LogConfig,
    next_offset: Option<i64>,
    reader: Option<Box<dyn LogReader>>,
    /// The topic is there, and the reader reads it.
    assigned: bool,
}

impl Topic {
    /// The records that have come: of each the offset after it, and its value. Blocks, not for long.
    fn look(&mut self) -> Result<Vec<(i64, Vec<u8>)>, LogError> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            None => self.reader.insert(open_reader(&self.log, LOG_TIMEOUT)?),
        };
        if !self.assigned {
            if !reader.topics(&self.name)?.iter().any(|info| info.name == self.name) {
                return Ok(Vec::new());
            }
            let (first, end) = reader.bounds(&self.name, 0)?;
            // What was removed before it was read is lost; a topic that was made again begins anew.
            let from = self.next_offset.filter(|&from| from <= end).unwrap_or(first).max(first);
            reader.assign(&self.name, 0, from)?;
            self.assigned = true;
        }
        let mut found = Vec::new();
        if let Some(batch) = reader.poll(POLL_TIMEOUT)? {
            for record in &batch.records {
                let value = batch.value(record).unwrap_or_default();
                found.push((record.offset + 1, value.to_vec()));
            }
            self.next_offset = Some(batch.next_offset);
        }
        Ok(found)
    }
}

/// A signal with what the server says of its tables. A server that does not answer is waited for.
async fn looked_up(config: &SourceConfig, next_offset: i64, text: &[u8]) -> SignalOrder {
    let signal: Signal = match serde_json::from_slice(text) {
        Ok(signal) => signal,
        Err(error) => {
            let id = format!("at offset {}", next_offset - 1);
            let refused = Some(format!("it is no signal of this release: {error}"));
            let signal = Signal { id, ..Signal::nothing() };
            return SignalOrder { signal, tables: Vec::new(), refused, next_offset };
        }
    };
    let mut pause = LOOK_INTERVAL;
    loop {
        let found = match signal.action {
            SignalAction::Add => tables_of(config, &signal).await,
            SignalAction::Pause | SignalAction::Resume | SignalAction::Stop => Ok(Ok(Vec::new())),
        };
        let (tables, refused) = match found {
            Ok(Ok(tables)) => (tables, None),
            Ok(Err(sentence)) => (Vec::new(), Some(sentence)),
            Err(error) if error.action() == Action::Retry => {
                warn!(source = %config.name, %error, "signal waits for the server");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
                continue;
            }
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        return SignalOrder { signal, tables, refused, next_offset };
    }
}

/// The tables, or the sentence why one of them cannot be read.
async fn tables_of(
    config: &SourceConfig,
    signal: &Signal,
) -> Result<Result<Vec<CatalogTable>, String>, ReaderError> {
    let mut connection = reconnect(config).await?;
    let server = server(&mut connection, &place(config)).await?;
    let mut tables = Vec::new();
    for name in &signal.tables {
        let Some((database, table)) = name.split_once('.') else {
            return Ok(Err(format!("'{name}' is not of the form database.table")));
        };
        let id = TableId::new(&config.name, database, table);
        match catalog::load_one(&mut connection, &server, &config.name, &id).await {
            Ok(Some(table)) => tables.push(table),
            Ok(None) => return Ok(Err(format!("there is no table {name}"))),
            Err(ReaderError::Query { reason, .. }) => {
                return Ok(Err(format!("{name} cannot be captured: {reason}")));
            }
            Err(error) => return Err(error),
        }
        if let Some(filter) = &signal.filter {
            match ensure_filter(&mut connection, &server.place, &id, filter).await {
                Err(ReaderError::Query { reason, .. }) => return Ok(Err(reason)),
                other => other?,
            }
        }
    }
    let _ = connection.disconnect().await;
    Ok(Ok(tables))
}
