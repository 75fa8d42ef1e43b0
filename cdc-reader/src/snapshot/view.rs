//! Makes sure that the SELECT of a chunk sees everything that the stream has consumed (step 2 of the protocol), in the
//! way that each kind of server offers. The argument is in the module above.

use std::time::Duration;

use schemas::{gtid_set::GtidSet, mariadb_gtid::MariaDbPosition, position::BinlogPlace};

use super::{chunk_read::ReadFailure, link::Link, reader::ChunkFailure};
use crate::{
    binlog::consumed::Coordinates,
    error::ReaderError,
    flow::StreamState,
    mysql::{
        catalog::{self, CatalogTable},
        place::{binlog_end, mariadb_gtid_at},
        rows::{Flow, RowConnection, RowValue},
        visible::wait_until_visible,
    },
};

/// How long a transaction that the stream has seen may take to be committed by the engine.
pub(super) const EXECUTED_TIMEOUT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(5);

/// What the SELECTs that follow can see.
pub(super) enum View {
    /// Whatever is committed when they run.
    Latest,
    /// Everything before this place in the binlog, and nothing else. A transaction is open.
    Exact(BinlogPlace),
}

impl View {
    /// Ends the view; answers a place before which everything lies that was seen.
    pub(super) async fn end(self, link: &mut Link) -> Result<BinlogPlace, ReaderError> {
        match self {
            Self::Latest => binlog_end(&mut link.connection, &link.server).await,
            Self::Exact(place) => {
                link.end_view().await?;
                Ok(place)
            }
        }
    }
}

/// Waits until everything that the stream has consumed can be seen.
pub(super) async fn see_all_of(link: &mut Link, stream: &StreamState) -> Result<View, ReaderError> {
    match link.server.coordinates {
        Coordinates::MariaDb => exact_view(link, stream).await.map(View::Exact),
        Coordinates::GtidSet if !stream.gtid_set.is_empty() => {
            wait_for_executed(link, stream).await.map(|()| View::Latest)
        }
        // The stream began before the server had GTIDs, or has consumed none.
        Coordinates::GtidSet | Coordinates::Place => {
            wait_until_visible(&mut link.connection, &link.server, EXECUTED_TIMEOUT).await?;
            Ok(View::Latest)
        }
    }
}

async fn wait_for_executed(link: &mut Link, stream: &StreamState) -> Result<(), ReaderError> {
    // Parsed and written again, so that what goes into the statement can be nothing but a set.
    let set: GtidSet = stream.gtid_set.parse().map_err(|error| ReaderError::Query {
        place: link.server.place.clone(),
        reason: format!("the stream's position: {error}"),
    })?;
    let timeout = EXECUTED_TIMEOUT.as_secs();
    let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{set}', {timeout})");
    // On the connection that reads the rows: behind a balancer another one may lead to another server.
    let waited = link.rows.run(move |rows| read_number(rows, &sql)).await?;
    if waited == Some(0) { Ok(()) } else { Err(not_committed(link)) }
}

/// MariaDB tells which place in the binlog a consistent snapshot stands for. Snapshots are taken until one is at or
/// after the stream.
async fn exact_view(link: &mut Link, stream: &StreamState) -> Result<BinlogPlace, ReaderError> {
    let consumed: MariaDbPosition =
        stream.gtid_set.parse().map_err(|error| ReaderError::Query {
            place: link.server.place.clone(),
            reason: format!("the stream's position: {error}"),
        })?;
    let started = std::time::Instant::now();
    loop {
        run(link, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        let place = snapshot_place(link).await?;
        // Events that belong to no transaction also move the stream's place: then the GTIDs decide.
        if place.reached(&stream.place) {
            return Ok(place);
        }
        let at = mariadb_gtid_at(&mut link.connection, &link.server, &place).await?;
        if at.parse::<MariaDbPosition>().is_ok_and(|at| at.contains_position(&consumed)) {
            return Ok(place);
        }
        run(link, "ROLLBACK").await?;
        if started.elapsed() >= EXECUTED_TIMEOUT {
            return Err(not_committed(link));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn snapshot_place(link: &mut Link) -> Result<BinlogPlace, ReaderError> {
    let status = link.rows.run(read_snapshot_status).await?;
    let value = |wanted: &str| {
        status.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let file = value("binlog_snapshot_file").filter(|file| !file.is_empty()).cloned();
    let offset = value("binlog_snapshot_position").and_then(|offset| offset.parse().ok());
    match file.zip(offset) {
        Some((file, offset)) => Ok(BinlogPlace { file, offset }),
        None => Err(ReaderError::Query {
            place: link.server.place.clone(),
            reason: "the server does not tell binlog_snapshot_position: start it with log_bin"
                .into(),
        }),
    }
}

/// The first column of the first row.
fn read_number(rows: &mut RowConnection, sql: &str) -> Result<Option<i128>, ReaderError> {
    let mut number = None;
    rows.select(sql, |row| {
        number = row.values().ok().and_then(|values| values.first()?.integer());
        Flow::Go
    })?;
    Ok(number)
}

/// Names and values.
fn read_snapshot_status(rows: &mut RowConnection) -> Result<Vec<(String, String)>, ReaderError> {
    let text = |value: Option<&RowValue<'_>>| {
        let bytes = value.and_then(|value| value.bytes()).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    let mut status = Vec::new();
    rows.select("SHOW STATUS LIKE 'binlog\\_snapshot\\_%'", |row| {
        let values = row.values().unwrap_or_default();
        status.push((text(values.first()), text(values.get(1))));
        Flow::Go
    })?;
    Ok(status)
}

fn not_committed(link: &Link) -> ReaderError {
    ReaderError::Transient {
        place: link.server.place.clone(),
        reason: format!(
            "a transaction of the binlog is not committed after {} s",
            EXECUTED_TIMEOUT.as_secs()
        ),
    }
}

/// Runs a statement that answers no rows, on the connection that reads rows.
pub(super) async fn run(link: &mut Link, statement: &'static str) -> Result<(), ReaderError> {
    link.rows.run(move |rows| Ok(rows.execute(statement)?)).await
}

/// The rows, if the table still is what they were read as. A row that does not fit a table which was changed meanwhile is
/// no bad row.
pub(super) async fn of_unchanged<T>(
    read: Result<T, ReadFailure>,
    link: &mut Link,
    source: &str,
    table: &CatalogTable,
) -> Result<T, ChunkFailure> {
    if matches!(read, Ok(_) | Err(ReadFailure::BadRow(_))) {
        ensure_unchanged(link, source, table).await?;
    }
    Ok(read?)
}

/// Whether the table still is what the chunk was read as.
async fn ensure_unchanged(
    link: &mut Link,
    source: &str,
    table: &CatalogTable,
) -> Result<(), ChunkFailure> {
    let id = &table.schema.id;
    match catalog::load_one(&mut link.connection, &link.server, source, id).await {
        Ok(Some(now)) if now == *table => Ok(()),
        Ok(_) | Err(ReaderError::Query { .. }) => Err(ReadFailure::TableChanged.into()),
        Err(error) => Err(error.into()),
    }
}
