//! What an attempt begins with: the position, checked against the server; the tables that it has; what is known of those
//! that are half read; the columns' names.

use std::collections::{BTreeMap, HashMap};

use mysql_async::{Conn, prelude::Queryable};
use schemas::position::{Position, TableSnapshot};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::{Source, ended};
use crate::{
    binlog::table_shape::TableShape,
    capture::{
        captured_tables::enter_tables,
        schema_ids::SchemaIds,
        table_history::{TableHistory, read_back},
    },
    error::ReaderError,
    mysql::{
        catalog::{Catalog, CatalogTable},
        connect::{Server, classify},
        place::binlog_end,
        resume::{first_position, stored_position},
    },
    snapshot::{changed_keys::remember_changed_keys, window::Windows},
    spool,
    table_filter::TableFilter,
};

/// Where to go on: the log's last position, checked against the server; for a new source the server's present state,
/// taken before the snapshot, so that nothing falls between them.
pub(super) async fn start_position(
    connection: &mut Conn,
    server: &Server,
    source: &Source,
    stored: Option<Vec<u8>>,
) -> Result<StartPosition, ReaderError> {
    let name = &source.config.name;
    let position = match stored {
        Some(stored) => {
            let read: Result<Position, _> = serde_json::from_slice(&stored);
            let before = read.as_ref().ok().cloned();
            let found = match (read, &source.lost) {
                (Err(error), _) => Err(ReaderError::PositionLost(format!(
                    "the position of source {name} in the change log cannot be read ({error}); it was written by \
                     another release"
                ))),
                (Ok(_), Some(sentence)) => Err(ReaderError::PositionLost(sentence.clone())),
                (Ok(position), None) => stored_position(connection, server, position).await,
            };
            match found {
                Err(ReaderError::PositionLost(sentence)) if source.begins_anew() => {
                    let before = before.unwrap_or_default();
                    let position = begin_anew(connection, server, name, before, &sentence).await?;
                    return Ok(StartPosition { position, lost: true });
                }
                found => found,
            }
        }
        None => {
            let position = first_position(connection, server).await?;
            let (gtid_set, place) = (&position.gtid_set, &position.place);
            info!(source = %name, %gtid_set, file = place.file, offset = place.offset, "new source");
            Ok(position)
        }
    };
    Ok(StartPosition { position: position?, lost: false })
}

/// Where a reader begins.
pub(super) struct StartPosition {
    pub(super) position: Position,
    /// The stored one could not be gone on from.
    pub(super) lost: bool,
}

/// A new source in the place of one whose position is lost. What was asked of the old one stays done.
async fn begin_anew(
    connection: &mut Conn,
    server: &Server,
    name: &str,
    before: Position,
    sentence: &str,
) -> Result<Position, ReaderError> {
    let position = first_position(connection, server).await?;
    let (from, to) = (&before.place, &position.place);
    error!(
        source = %name,
        reason = sentence,
        from = %format!("{}:{} {}", from.file, from.offset, before.gtid_set),
        to = %format!("{}:{} {}", to.file, to.offset, position.gtid_set),
        "the stored position is LOST: beginning anew, as `snapshot = \"when_needed\"` says; state tables are emptied and \
         read again, history tables lack what happened between the two places"
    );
    let snapshots = before.snapshots;
    let (signals_read, signals_refused) = (before.signals_read, before.signals_refused);
    Ok(Position { snapshots, signals_read, signals_refused, ..position })
}

/// Enters what the catalog says of the tables, and answers those whose copies are to be emptied.
pub(super) fn note_tables(
    position: &mut Position,
    source: &Source,
    filter: &TableFilter,
    catalog: &Catalog,
) -> Vec<CatalogTable> {
    let name = &source.config.name;
    let found = enter_tables(position, filter, catalog, source.config.snapshot);
    found.tell(name);
    for (table, sentence) in &catalog.unsupported {
        if position.stopped.insert(table.clone(), sentence.clone()).is_none() {
            error!(source = %name, table, reason = sentence, "table stopped");
        }
    }
    found.emptied
}

/// Tables that are still to be read, with what the stream has changed of those that were begun before.
pub(super) async fn windows(
    source: &Source,
    to_read: &[CatalogTable],
    progress: &BTreeMap<String, TableSnapshot>,
) -> Result<Windows, ReaderError> {
    let mut windows = Windows::new(&spool::folder());
    to_read.iter().for_each(|table| windows.open(&table.name()));
    // Rows that are read again are for tables kept as state alone: for those the chunks' own windows suffice.
    let again =
        |table: &CatalogTable| progress.get(&table.name()).is_some_and(|p| p.again || p.anew);
    let begun: Vec<_> = to_read
        .iter()
        .filter(|table| !table.schema.key.is_empty() && !again(table))
        .map(|table| table.schema.id.clone())
        .collect();
    let log = source.log.clone();
    tokio::task::spawn_blocking(move || {
        remember_changed_keys(&log, &begun, &mut windows)?;
        Ok(windows)
    })
    .await
    .map_err(|_| ended("reading back the changed keys"))?
}

/// The schema registry's numbers, as the log has them.
pub(super) async fn schema_ids(
    source: &Source,
    stop: &CancellationToken,
) -> Result<Option<SchemaIds>, ReaderError> {
    let (log, name, stop) = (source.log.clone(), source.config.name.clone(), stop.clone());
    tokio::task::spawn_blocking(move || SchemaIds::open(&log, &name, stop))
        .await
        .map_err(|_| ended("reading back the schemas' numbers"))?
        .map_err(ReaderError::from)
}

/// Whether statements may write a table's name with another case than the server keeps.
pub(super) async fn has_lower_case_names(
    connection: &mut Conn,
    server: &Server,
) -> Result<bool, ReaderError> {
    let value: Option<u64> = connection
        .query_first("SELECT @@GLOBAL.lower_case_table_names")
        .await
        .map_err(|error| classify(error, &server.place))?;
    Ok(value.unwrap_or(0) != 0)
}

/// The tables' columns by name: as the log has them, else as the catalog does.
pub(super) async fn table_history(
    source: &Source,
    connection: &mut Conn,
    server: &Server,
    catalog: &Catalog,
    lost: bool,
) -> Result<TableHistory, ReaderError> {
    let listed = catalog.tables.iter().map(|table| (table.name(), TableShape::of(table)));
    let listed = listed.collect();
    let listed_before = binlog_end(connection, server).await?;
    if lost {
        // What the log holds is of the binlog before the gap.
        return Ok(TableHistory::new(HashMap::new(), listed, listed_before));
    }
    let (log, name) = (source.log.clone(), source.config.name.clone());
    let entries = tokio::task::spawn_blocking(move || read_back(&log, &name))
        .await
        .map_err(|_| ended("reading back the tables' columns"))??;
    Ok(TableHistory::new(entries, listed, listed_before))
}
