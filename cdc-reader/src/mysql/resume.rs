//! Whether a server's binlog can be read on from a stored position: nothing after it purged, and no other history.

use std::time::{Duration, Instant};

use mysql_async::{Conn, prelude::Queryable};
use schemas::{
    gtid_set::GtidSet,
    mariadb_gtid::MariaDbPosition,
    position::{BinlogPlace, Position},
};

use super::{
    connect::{Server, classify, server_code},
    place::{binlog_end, binlog_files, global_text, gtid_executed, mariadb_gtid_at},
};
use crate::{
    binlog::{consumed::Coordinates, dump::DumpStart, mariadb::xid_text},
    error::ReaderError,
};

/// What to do when the binlog cannot be read on.
const ANEW: &str = "start again with an empty change log and a new snapshot";

/// How long to wait for XA transactions that are prepared when a source is begun.
const UNDECIDED_WAIT: Duration = Duration::from_secs(10);
const UNDECIDED_PAUSE: Duration = Duration::from_millis(50);

/// How a stored position is to be gone on from on this server.
pub fn coordinates_of(server: &Server, position: &Position) -> Coordinates {
    match server.coordinates {
        // GTIDs that were switched on or off meanwhile do not name what was read before: the place does.
        Coordinates::GtidSet if position.by_place => Coordinates::Place,
        coordinates => coordinates,
    }
}

/// Where a new source begins: the server's present state, taken before the snapshot, so that nothing falls between them.
pub async fn first_position(
    connection: &mut Conn,
    server: &Server,
) -> Result<Position, ReaderError> {
    let mut position = Position {
        server_uuid: server.uuid.clone(),
        by_place: server.coordinates == Coordinates::Place,
        ..Position::default()
    };
    // The GTID set before the place: the place is not used to begin at with GTIDs.
    position.gtid_set = gtid_executed(connection, server).await?;
    position.place = binlog_end(connection, server).await?;
    if server.coordinates == Coordinates::MariaDb {
        position.gtid_set = mariadb_gtid_at(connection, server, &position.place).await?;
    }
    position.undecided_at_start = undecided_xa(connection, server).await?;
    Ok(position)
}

/// Waits a while until the XA transactions that are prepared now are decided; answers those that are not. `None` when
/// the user may not ask.
async fn undecided_xa(
    connection: &mut Conn,
    server: &Server,
) -> Result<Option<Vec<String>>, ReaderError> {
    let Some(mut undecided) = prepared_xa(connection, server).await? else { return Ok(None) };
    let started = Instant::now();
    while !undecided.is_empty() && started.elapsed() < UNDECIDED_WAIT {
        tokio::time::sleep(UNDECIDED_PAUSE).await;
        let now = prepared_xa(connection, server).await?.unwrap_or_default();
        undecided.retain(|xid| now.contains(xid));
    }
    if !undecided.is_empty() {
        tracing::warn!(
            ?undecided,
            "XA transactions are prepared and not decided; if one of them is committed the source stops, because its \
             rows were never seen"
        );
    }
    Ok(Some(undecided))
}

async fn prepared_xa(
    connection: &mut Conn,
    server: &Server,
) -> Result<Option<Vec<String>>, ReaderError> {
    let rows: Vec<(u32, usize, usize, Vec<u8>)> = match connection.query("XA RECOVER").await {
        Ok(rows) => rows,
        Err(error) if server_code(&error).is_some() => return Ok(None),
        Err(error) => return Err(classify(error, &server.place)),
    };
    let name = |(format, gtrid, bqual, data): &(u32, usize, usize, Vec<u8>)| {
        let parts = data.split_at_checked(*gtrid).filter(|(_, rest)| rest.len() == *bqual);
        parts.map(|(gtrid, bqual)| xid_text(gtrid, bqual, *format))
    };
    Ok(Some(rows.iter().filter_map(name).collect()))
}

/// A stored position, when this server's binlog can be read on from it.
pub async fn stored_position(
    connection: &mut Conn,
    server: &Server,
    mut position: Position,
) -> Result<Position, ReaderError> {
    if coordinates_of(server, &position) == Coordinates::GtidSet {
        // The stream may be ahead of what the server counts as executed by the length of a commit.
        let set = set(&position.gtid_set)?;
        connection
            .query_drop(format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{set}', 5)"))
            .await
            .map_err(|error| classify(error, &server.place))?;
    }
    ensure_position(connection, server, &position).await?;
    if server.coordinates == Coordinates::Place && !position.by_place {
        tracing::warn!("GTIDs were switched off: the binlog is read on by file and offset");
        position.by_place = true;
        position.gtid_set.clear();
    }
    if position.server_uuid != server.uuid || server.uuid.is_empty() {
        // The place is another server's: nothing is compared with it until the stream tells where it is here.
        position.place = BinlogPlace::default();
        position.file_created = 0;
        position.server_uuid.clone_from(&server.uuid);
    }
    Ok(position)
}

/// Where the server is to begin to send.
pub fn dump_start(server: &Server, position: &Position) -> Result<DumpStart, ReaderError> {
    let oldest = position.prepared.first();
    Ok(match coordinates_of(server, position) {
        Coordinates::GtidSet => DumpStart::Gtid(set(&position.gtid_set)?),
        Coordinates::MariaDb => {
            let after = oldest.map_or(&position.gtid_set, |prepared| &prepared.gtid_set);
            DumpStart::MariaDbGtid(domains(after)?.to_string())
        }
        Coordinates::Place => {
            DumpStart::Place(oldest.map_or(&position.place, |prepared| &prepared.place).clone())
        }
    })
}

/// Refuses a position that the server's binlog cannot be read on from: part of it purged, or from other history.
pub async fn ensure_position(
    connection: &mut Conn,
    server: &Server,
    position: &Position,
) -> Result<(), ReaderError> {
    let finding = match coordinates_of(server, position) {
        Coordinates::GtidSet => {
            let executed = set(&gtid_executed(connection, server).await?)?;
            let purged = global_text(connection, server, "SELECT @@GLOBAL.gtid_purged").await?;
            gtid_finding(&set(&position.gtid_set)?, &executed, &set(&purged)?)
        }
        Coordinates::MariaDb => {
            let executed = domains(&gtid_executed(connection, server).await?)?;
            let oldest = binlog_files(connection, server).await?.into_iter().next();
            let purged = match oldest {
                Some((file, _)) => {
                    let start = BinlogPlace { file, offset: 4 };
                    domains(&mariadb_gtid_at(connection, server, &start).await?)?
                }
                None => MariaDbPosition::default(),
            };
            let from = position.prepared.first().map_or(&position.gtid_set, |xa| &xa.gtid_set);
            mariadb_finding(&domains(&position.gtid_set)?, &domains(from)?, &executed, &purged)
        }
        Coordinates::Place => {
            let from = position.prepared.first().map_or(&position.place, |xa| &xa.place);
            if position.server_uuid == server.uuid {
                place_finding(from, &binlog_files(connection, server).await?)
            } else {
                Some(format!(
                    "the position {}:{} is one of the server {}, and this is {}: without GTIDs a place holds on one \
                     server only; point the source back at its server, or {ANEW}",
                    from.file, from.offset, position.server_uuid, server.uuid
                ))
            }
        }
    };
    match finding {
        None => Ok(()),
        Some(finding) => {
            Err(ReaderError::PositionLost(format!("MySQL at {}: {finding}", server.place)))
        }
    }
}

fn set(text: &str) -> Result<GtidSet, ReaderError> {
    text.parse().map_err(|error: schemas::gtid_set::InvalidGtidSet| {
        ReaderError::PositionLost(error.to_string())
    })
}

fn domains(text: &str) -> Result<MariaDbPosition, ReaderError> {
    text.parse().map_err(|error: schemas::mariadb_gtid::InvalidMariaDbGtid| {
        ReaderError::PositionLost(error.to_string())
    })
}

fn never_executed(unknown: &dyn std::fmt::Display) -> String {
    format!(
        "the server never executed {unknown}, which the change log holds: it was reset or restored from an older \
         backup, or it is another server; point the source back at its server, or {ANEW}"
    )
}

fn no_longer_there(missing: &dyn std::fmt::Display) -> String {
    format!(
        "the binlog no longer contains {missing}, which was not read yet; run binlake snapshot to read the tables \
         again, and raise binlog_expire_logs_seconds so that the reader may be away for longer"
    )
}

/// Why reading cannot go on after `done`; `None` when it can.
fn gtid_finding(done: &GtidSet, executed: &GtidSet, purged: &GtidSet) -> Option<String> {
    let unknown = done.difference(executed);
    if !unknown.is_empty() {
        return Some(never_executed(&unknown));
    }
    let missing = purged.difference(done);
    (!missing.is_empty()).then(|| no_longer_there(&missing))
}

/// The same for MariaDB; `from` is where reading begins, which is before `done` when XA transactions are undecided.
fn mariadb_finding(
    done: &MariaDbPosition,
    from: &MariaDbPosition,
    executed: &MariaDbPosition,
    purged: &MariaDbPosition,
) -> Option<String> {
    let unknown = executed.missing(done);
    if !unknown.is_empty() {
        return Some(never_executed(&unknown));
    }
    let missing = from.missing(purged);
    (!missing.is_empty()).then(|| {
        no_longer_there(&format!("all transactions up to {missing} (it begins after them)"))
    })
}

/// The same for a place.
fn place_finding(from: &BinlogPlace, files: &[(String, u64)]) -> Option<String> {
    let place = format!("{}:{}", from.file, from.offset);
    let number = |file: &str| BinlogPlace { file: file.into(), offset: 0 }.file_number();
    match files.iter().find(|(file, _)| *file == from.file) {
        Some((_, size)) if *size >= from.offset => None,
        Some((_, size)) => Some(format!(
            "the binlog file {} has {size} bytes and was read up to {}: it was reset or cut off by a crash of the \
             server; {ANEW}",
            from.file, from.offset
        )),
        None if files.first().is_some_and(|(first, _)| number(first) > from.file_number()) => {
            Some(no_longer_there(&format!("{place} and what follows it")))
        }
        None => Some(format!(
            "the server has no binlog file {}, up to which the change log was filled: its binlog was reset, or it is \
             another server; point the source back at its server, or {ANEW}",
            from.file
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const B: &str = "4e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn finding(done: &str, executed: &str, purged: &str) -> Option<String> {
        let set = |text: &str| text.replace('A', A).replace('B', B).parse().expect("a set");
        gtid_finding(&set(done), &set(executed), &set(purged))
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

    #[test]
    fn mariadb_position_is_checked_by_domain() {
        let finding = |done: &str, executed: &str, purged: &str| {
            let at = |text: &str| text.parse().expect("a position");
            mariadb_finding(&at(done), &at(done), &at(executed), &at(purged))
        };
        assert_eq!(finding("0-1-9", "0-2-12,1-1-4", "0-1-9"), None);
        assert_eq!(finding("", "0-1-4", ""), None);
        let text = finding("0-1-9", "0-1-20", "0-1-12").expect("purged");
        assert!(text.contains("no longer contains all transactions up to 0-1-12"), "{text}");
        let text = finding("0-1-9,3-1-1", "0-1-20", "").expect("other history");
        assert!(text.contains("never executed 3-1-1"), "{text}");
    }

    #[test]
    fn place_is_looked_for_among_the_files() {
        let files = [("b.000003".to_owned(), 500), ("b.000004".to_owned(), 200)];
        let finding =
            |file: &str, offset| place_finding(&BinlogPlace { file: file.into(), offset }, &files);
        assert_eq!(finding("b.000003", 500), None);
        assert_eq!(finding("b.000004", 4), None);
        let purged = finding("b.000002", 4).expect("purged");
        assert!(purged.contains("no longer contains b.000002:4"), "{purged}");
        let cut = finding("b.000004", 201).expect("cut off");
        assert!(cut.contains("has 200 bytes and was read up to 201"), "{cut}");
        let reset = finding("b.000005", 4).expect("reset");
        assert!(reset.contains("has no binlog file b.000005"), "{reset}");
    }
}
