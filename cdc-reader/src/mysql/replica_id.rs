//! What the reader registers as at its server, and whether it is the only one there that does.
//!
//! A server that is asked for its binlog under an id that another replica has ends the other one's connection
//! (<https://dev.mysql.com/doc/refman/8.4/en/replication-options.html#sysvar_server_id>). Two that want one id take
//! turns at that and both are slow, so the id is looked for in SHOW REPLICAS before.

use mysql_async::{Conn, Row, prelude::Queryable};
use schemas::row_digest::row_digest;

use super::{
    connect::{Server, classify, server_code},
    flavor::{Kind, Version},
    preflight::CheckLine,
};
use crate::{binlog::transaction::uuid_text, config::SourceConfig, error::ReaderError};

/// A number among a server's replicas that two sources hardly share, and the same at each start.
pub fn server_id(config: &SourceConfig) -> u32 {
    match config.server_id {
        0 => 1_000_000_000 + (row_digest([Some(config.name.as_bytes())]) % 3_000_000_000) as u32,
        given => given,
    }
}

/// The replica's UUID, from the source's name.
pub fn replica_uuid(config: &SourceConfig) -> String {
    uuid_text(&row_digest([Some(config.name.as_bytes())]).to_be_bytes())
}

/// The statement that lists a server's replicas.
pub fn list_replicas(server: &Server) -> &'static str {
    let renamed = Version { major: 8, minor: 0, patch: 22 };
    match server.flavor.kind {
        Kind::MySql if server.flavor.version >= renamed => "SHOW REPLICAS",
        Kind::MySql | Kind::MariaDb => "SHOW SLAVE HOSTS",
    }
}

/// Whether the id is the server's own, or a replica's that is connected now and is not this source's reader. `None`
/// when the user may not ask, which another line tells.
pub async fn id_line(
    connection: &mut Conn,
    server: &Server,
    config: &SourceConfig,
) -> Result<Option<CheckLine>, ReaderError> {
    let failed = |error| classify(error, &server.place);
    let id = server_id(config);
    let own: Option<u32> =
        connection.query_first("SELECT @@GLOBAL.server_id").await.map_err(failed)?;
    let replicas: Vec<Row> = match connection.query(list_replicas(server)).await {
        Ok(rows) => rows,
        Err(error) if server_code(&error).is_some() => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    // Server_Id, Host, Port, Source_Id, Replica_UUID; MariaDB has no UUID, and so cannot tell this reader from others.
    let uuid = replica_uuid(config);
    let other = replicas.iter().find_map(|row| {
        let text = |column| row.get_opt::<String, usize>(column).and_then(Result::ok);
        let of_replica = text(4).filter(|found| *found != uuid)?;
        (row.get_opt::<u32, usize>(0)?.ok()? == id).then_some((text(1)?, of_replica))
    });
    let cure = "set another `server_id` for this source";
    let cure = match other {
        _ if own == Some(id) => Some(format!("{id} is the server's own server_id: {cure}")),
        Some((host, uuid)) => Some(format!(
            "the replica {uuid} {host} is connected with server_id {id}, and each would end the other's connection: {cure}"
        )),
        None => None,
    };
    Ok(Some(CheckLine {
        name: "server_id of the reader".into(),
        expected: "no other replica's".into(),
        actual: id.to_string(),
        ok: cure.is_none(),
        required: false,
        cure,
    }))
}
