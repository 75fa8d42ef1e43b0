//! How busy a server is and how far its replication is behind: what snapshots give way to. Both questions are cheap and
//! need nothing but the grants that a reader has (on MariaDB the second one needs SLAVE MONITOR).

use mysql_async::{Conn, Row, prelude::Queryable};

use super::{
    connect::classify,
    flavor::{Flavor, Kind, Version},
};
use crate::error::ReaderError;

/// The statement was renamed in this version; the old name was removed in 8.4.
const REPLICA_STATUS: Version = Version { major: 8, minor: 0, patch: 22 };

/// How far a server's own replication is behind its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaLag {
    /// It replicates from nobody.
    NoReplica,
    /// As `Seconds_Behind_Source` says; of several channels the one that is furthest behind.
    Seconds(u64),
    /// It is set up to replicate and does not (`Seconds_Behind_Source` is NULL).
    Stopped,
}

/// The threads that do something at this moment, with the one that asks and those that send the binlog.
pub async fn threads_running(connection: &mut Conn, place: &str) -> Result<u64, ReaderError> {
    let row: Option<(String, u64)> = connection
        .query_first("SHOW GLOBAL STATUS LIKE 'Threads\\_running'")
        .await
        .map_err(|error| classify(error, place))?;
    row.map(|(_, threads)| threads).ok_or_else(|| ReaderError::Query {
        place: place.into(),
        reason: "the server does not tell Threads_running".into(),
    })
}

/// What the server is, asked on a connection of which nothing else is known.
pub async fn flavor(connection: &mut Conn, place: &str) -> Result<Flavor, ReaderError> {
    let version: Option<String> =
        connection.query_first("SELECT VERSION()").await.map_err(|error| classify(error, place))?;
    Ok(Flavor::parse(&version.unwrap_or_default()))
}

/// Asks a server how far its replication is behind.
pub async fn replica_lag(
    connection: &mut Conn,
    flavor: &Flavor,
    place: &str,
) -> Result<ReplicaLag, ReaderError> {
    let rows: Vec<Row> = connection
        .query(replica_status_statement(flavor))
        .await
        .map_err(|error| classify(error, place))?;
    let channels = rows.iter().map(|row| {
        let named = |name: &str| name.starts_with("Seconds_Behind_");
        let column = row.columns_ref().iter().position(|column| named(&column.name_str()));
        column.and_then(|index| row.get_opt::<Option<u64>, _>(index)?.ok()).flatten()
    });
    Ok(furthest_behind(channels))
}

fn furthest_behind(channels: impl Iterator<Item = Option<u64>>) -> ReplicaLag {
    channels.fold(ReplicaLag::NoReplica, |lag, channel| match (lag, channel) {
        (ReplicaLag::Stopped, _) | (_, None) => ReplicaLag::Stopped,
        (ReplicaLag::NoReplica, Some(seconds)) => ReplicaLag::Seconds(seconds),
        (ReplicaLag::Seconds(before), Some(seconds)) => ReplicaLag::Seconds(before.max(seconds)),
    })
}

/// MariaDB tells of all its connections to sources by a statement of its own.
fn replica_status_statement(flavor: &Flavor) -> &'static str {
    match flavor.kind {
        Kind::MariaDb => "SHOW ALL SLAVES STATUS",
        Kind::MySql if flavor.version >= REPLICA_STATUS => "SHOW REPLICA STATUS",
        Kind::MySql => "SHOW SLAVE STATUS",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stopped_channel_outweighs_all_others() {
        let lag = |channels: &[Option<u64>]| furthest_behind(channels.iter().copied());
        assert_eq!(lag(&[]), ReplicaLag::NoReplica);
        assert_eq!(lag(&[Some(0)]), ReplicaLag::Seconds(0));
        assert_eq!(lag(&[Some(3), Some(9), Some(1)]), ReplicaLag::Seconds(9));
        assert_eq!(lag(&[Some(3), None, Some(1)]), ReplicaLag::Stopped);
    }

    #[test]
    fn statement_is_the_one_that_the_version_has() {
        for (version, statement) in [
            ("5.7.44-log", "SHOW SLAVE STATUS"),
            ("8.0.21", "SHOW SLAVE STATUS"),
            ("8.0.22", "SHOW REPLICA STATUS"),
            ("9.7.4-2", "SHOW REPLICA STATUS"),
            ("11.4.2-MariaDB-log", "SHOW ALL SLAVES STATUS"),
        ] {
            assert_eq!(replica_status_statement(&Flavor::parse(version)), statement, "{version}");
        }
    }
}
