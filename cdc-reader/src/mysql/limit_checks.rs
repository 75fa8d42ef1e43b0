//! What `binlake check` says of the limits of a source's load: whether what they look at can be looked at.

use mysql_async::Conn;

use super::{
    connect::{Server, place, reconnect},
    flavor::Kind,
    load::{ReplicaLag, flavor, replica_lag},
    preflight::CheckLine,
};
use crate::{
    config::SourceConfig,
    error::{Action, ReaderError},
};

/// Lines for the source's own replication and for each of `snapshot_replicas`; none without such a limit.
pub async fn replica_lines(
    connection: &mut Conn,
    server: &Server,
    config: &SourceConfig,
    user: &str,
) -> Result<Vec<CheckLine>, ReaderError> {
    let most = u64::from(config.snapshot_pause_replica_lag_seconds);
    let mut lines = Vec::new();
    if most == 0 {
        return Ok(lines);
    }
    match replica_lag(connection, &server.flavor, &server.place).await {
        Err(error) if error.action() == Action::Retry => return Err(error),
        Ok(ReplicaLag::NoReplica) => {}
        own => lines.push(line(&server.place, own, most, server.flavor.kind, user)),
    }
    for replica in config.replicas() {
        let place = place(&replica);
        let asked = lag_of(&replica, &place).await;
        lines.push(line(&place, asked, most, server.flavor.kind, user));
    }
    Ok(lines)
}

async fn lag_of(replica: &SourceConfig, place: &str) -> Result<ReplicaLag, ReaderError> {
    let mut connection = reconnect(replica).await?;
    let flavor = flavor(&mut connection, place).await?;
    let lag = replica_lag(&mut connection, &flavor, place).await?;
    let _ = connection.disconnect().await;
    Ok(lag)
}

/// Snapshots wait until the line is right; nothing is refused.
fn line(
    place: &str,
    lag: Result<ReplicaLag, ReaderError>,
    most: u64,
    kind: Kind,
    user: &str,
) -> CheckLine {
    let grant = match kind {
        Kind::MySql => "REPLICATION CLIENT",
        Kind::MariaDb => "SLAVE MONITOR",
    };
    let (actual, cure) = match lag {
        Ok(ReplicaLag::Seconds(seconds)) if seconds <= most => (format!("{seconds} s"), None),
        Ok(ReplicaLag::Seconds(seconds)) => {
            (format!("{seconds} s"), Some("snapshots wait until it is less".to_owned()))
        }
        Ok(ReplicaLag::Stopped) => (
            "not replicating".into(),
            Some(format!("snapshots wait until {place} replicates: START REPLICA there")),
        ),
        Ok(ReplicaLag::NoReplica) => {
            ("no replica".into(), Some(format!("take {place} out of snapshot_replicas")))
        }
        Err(error) => (
            "not known".into(),
            Some(format!("{error}; asking needs GRANT {grant} ON *.* TO {user} there")),
        ),
    };
    CheckLine {
        name: format!("replication lag of {place}"),
        expected: format!("at most {most} s"),
        actual,
        ok: cure.is_none(),
        required: false,
        cure,
    }
}
