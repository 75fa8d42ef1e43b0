//! Where the server's binlog ends and which transactions it has executed, as the snapshot, `verify` and the start of
//! the stream ask for them. Whether a stored position can be gone on from is in `resume`.

use mysql_async::{Conn, Row, prelude::Queryable};
use schemas::position::BinlogPlace;

use crate::{
    binlog::consumed::Coordinates,
    error::ReaderError,
    mysql::connect::{Server, classify},
};

/// The end of the binlog at one moment: everything that was visible before this was asked lies before it, because
/// the server writes a transaction to the binlog before it commits it in the engine.
pub async fn binlog_end(
    connection: &mut Conn,
    server: &Server,
) -> Result<BinlogPlace, ReaderError> {
    let row: Option<Row> = connection
        .query_first(server.flavor.binlog_status_statement())
        .await
        .map_err(|error| classify(error, &server.place))?;
    let place = row.and_then(|row| {
        let file = row.get_opt::<String, _>(0)?.ok()?;
        let offset = row.get_opt::<u64, _>(1)?.ok()?;
        Some(BinlogPlace { file, offset })
    });
    place.ok_or_else(|| ReaderError::Query {
        place: server.place.clone(),
        reason: "the server writes no binlog: start it with log_bin".into(),
    })
}

/// The transactions that are committed, as a position names them, without line breaks: `@@GLOBAL.gtid_executed`, on
/// MariaDB `@@GLOBAL.gtid_binlog_pos`, without GTIDs "".
pub async fn gtid_executed(connection: &mut Conn, server: &Server) -> Result<String, ReaderError> {
    match server.coordinates {
        Coordinates::GtidSet => {
            global_text(connection, server, "SELECT @@GLOBAL.gtid_executed").await
        }
        Coordinates::MariaDb => {
            global_text(connection, server, "SELECT @@GLOBAL.gtid_binlog_pos").await
        }
        Coordinates::Place => Ok(String::new()),
    }
}

/// `@@GLOBAL.gtid_owned`: transactions that have a GTID and are not yet committed in the engine.
pub async fn gtid_owned(connection: &mut Conn, server: &Server) -> Result<String, ReaderError> {
    global_text(connection, server, "SELECT @@GLOBAL.gtid_owned").await
}

/// MariaDB's GTID position at a place in its binlog.
pub async fn mariadb_gtid_at(
    connection: &mut Conn,
    server: &Server,
    place: &BinlogPlace,
) -> Result<String, ReaderError> {
    let file = place.file.replace('\\', "\\\\").replace('\'', "''");
    let query = format!("SELECT BINLOG_GTID_POS('{file}', {})", place.offset);
    global_text(connection, server, &query).await
}

/// The binlog's files with their sizes, the oldest first.
pub async fn binlog_files(
    connection: &mut Conn,
    server: &Server,
) -> Result<Vec<(String, u64)>, ReaderError> {
    let rows: Vec<Row> = connection
        .query("SHOW BINARY LOGS")
        .await
        .map_err(|error| classify(error, &server.place))?;
    let file = |row: &Row| Some((row.get_opt(0)?.ok()?, row.get_opt(1)?.ok()?));
    Ok(rows.iter().filter_map(file).collect())
}

/// The text that a query answers; "" for NULL.
pub(super) async fn global_text(
    connection: &mut Conn,
    server: &Server,
    query: &str,
) -> Result<String, ReaderError> {
    let text: Option<Option<String>> =
        connection.query_first(query).await.map_err(|error| classify(error, &server.place))?;
    Ok(text.flatten().unwrap_or_default().replace(['\n', '\r', ' '], ""))
}
