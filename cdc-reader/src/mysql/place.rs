//! Where the server's binlog ends and which transactions it has executed, as the snapshot, `verify` and the check
//! of a position ask for them.

use mysql_async::{Conn, Row, prelude::Queryable};
use schemas::{
    gtid_set::GtidSet,
    position::{BinlogPlace, Position},
};

use crate::{
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

/// `@@GLOBAL.gtid_executed`, without line breaks.
pub async fn gtid_executed(connection: &mut Conn, server: &Server) -> Result<String, ReaderError> {
    global_text(connection, server, "SELECT @@GLOBAL.gtid_executed").await
}

/// `@@GLOBAL.gtid_owned`: transactions that have a GTID and are not yet committed in the engine.
pub async fn gtid_owned(connection: &mut Conn, server: &Server) -> Result<String, ReaderError> {
    global_text(connection, server, "SELECT @@GLOBAL.gtid_owned").await
}

async fn global_text(
    connection: &mut Conn,
    server: &Server,
    query: &str,
) -> Result<String, ReaderError> {
    let text: Option<String> =
        connection.query_first(query).await.map_err(|error| classify(error, &server.place))?;
    Ok(text.unwrap_or_default().replace(['\n', '\r', ' '], ""))
}

/// Refuses a position that the server's binlog cannot be read on from: part of it purged, or from other history.
pub async fn ensure_position(
    connection: &mut Conn,
    server: &Server,
    position: &Position,
) -> Result<(), ReaderError> {
    let executed = gtid_executed(connection, server).await?;
    let purged = global_text(connection, server, "SELECT @@GLOBAL.gtid_purged").await?;
    let set = |text: &str| {
        text.parse::<GtidSet>().map_err(|error| ReaderError::PositionLost(error.to_string()))
    };
    match position_finding(&set(&position.gtid_set)?, &set(&executed)?, &set(&purged)?) {
        None => Ok(()),
        Some(finding) => {
            Err(ReaderError::PositionLost(format!("MySQL at {}: {finding}", server.place)))
        }
    }
}

/// Why reading cannot go on after `done`; `None` when it can.
fn position_finding(done: &GtidSet, executed: &GtidSet, purged: &GtidSet) -> Option<String> {
    let unknown = done.difference(executed);
    if !unknown.is_empty() {
        return Some(format!(
            "the server never executed {unknown}, which the change log holds: it was reset or restored from an older \
             backup, or it is another server; point the source back at its server, or start again with an empty \
             change log and a new snapshot"
        ));
    }
    let missing = purged.difference(done);
    if !missing.is_empty() {
        return Some(format!(
            "the binlog no longer contains {missing}, which was not read yet; run binlake snapshot to read the tables \
             again, and raise binlog_expire_logs_seconds so that the reader may be away for longer"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn finding(done: &str, executed: &str, purged: &str) -> Option<String> {
        let set = |text: &str| text.replace('A', A).replace('B', B).parse().expect("a set");
        position_finding(&set(done), &set(executed), &set(purged))
    }

    #[test]
    fn position_is_checked_before_it_is_used() {
        assert_eq!(finding("A:1-9", "A:1-12", "A:1-4"), None);
        assert_eq!(finding("", "", ""), None);
        assert_eq!(finding("A:1-9", "A:1-12,B:1", "A:1-9"), None);
        let text = finding("A:1-9", "A:1-20", "A:1-12").expect("purged");
        assert!(text.contains(&format!("no longer contains {A}:10-12")), "{text}");
        let text = finding("A:1-9,B:7", "A:1-20", "").expect("other history");
        assert!(text.contains(&format!("never executed {B}:7")), "{text}");
        let text = finding("A:1-9", "A:1-5", "A:1-5").expect("reset");
        assert!(text.contains(&format!("never executed {A}:6-9")), "{text}");
    }
}
