//! The replication connection: logs in, asks for the binlog, verifies each event's checksum, and hands raw events on
//! in chunks of up to 256 KB. Nothing else touches the replication socket.
//!
//! It runs on a thread of its own with a blocking socket: no event object is made, nothing is allocated per event,
//! and a transaction costs the copy of its bytes.
//!
//! ```text
//! socket -> wire (packets) -> reader (events, checksums) -> chunks -> encode thread
//!                                                              ^------ spent ---'
//! ```

mod auth;
mod checksum;
mod chunks;
mod failure;
mod login;
mod reader;
mod request;
mod socket;
mod tagged_gtid;
mod wire;

use std::time::Duration;

use mysql_common::constants::Command;
use schemas::row_digest::row_digest;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::{
    chunks::Chunks,
    failure::DumpFailure,
    login::{Account, execute, log_in},
    reader::DumpReader,
    socket::Socket,
    wire::Wire,
};
use super::transaction::uuid_text;
use crate::{
    config::SourceConfig,
    error::ReaderError,
    flow::InputSender,
    mysql::{
        connect::{CONNECT_TIMEOUT, opts},
        tls,
    },
};

pub use chunks::give_back;
pub use request::DumpStart;

/// A server that is silent this long is taken for gone; an idle one says every second where it stands.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Follows the binlog from `start` until `shutdown`, the inbox closes, or the connection ends. `spent` brings the
/// chunks back ([`give_back`]).
pub async fn follow(
    config: &SourceConfig,
    server_id: u32,
    start: DumpStart,
    inbox: InputSender,
    spent: mpsc::Receiver<Vec<u8>>,
    shutdown: CancellationToken,
) -> Result<(), ReaderError> {
    let ended = |reason: String| ReaderError::Transient { place: "this process".into(), reason };
    let (done, result) = oneshot::channel();
    let config = config.clone();
    std::thread::Builder::new()
        .name(format!("stream-{}", config.name))
        .spawn(move || {
            let chunks = Chunks::new(inbox, spent);
            let _ = done.send(read(&config, server_id, &start, chunks, &shutdown));
        })
        .map_err(|error| ended(format!("starting the stream thread: {error}")))?;
    result.await.unwrap_or_else(|_| Err(ended("the stream thread ended unexpectedly".into())))
}

fn read(
    config: &SourceConfig,
    server_id: u32,
    start: &DumpStart,
    chunks: Chunks,
    shutdown: &CancellationToken,
) -> Result<(), ReaderError> {
    let options = opts(config)?;
    let account = Account {
        user: options.user().unwrap_or_default(),
        password: options.pass().unwrap_or_default(),
        host: options.ip_or_hostname(),
        tls: tls::client_config(config)
            .map_err(|reason| ReaderError::Config { source_name: config.name.clone(), reason })?,
    };
    let socket = match options.socket() {
        Some(path) => Socket::unix(path),
        None => Socket::tcp(account.host, options.tcp_port(), CONNECT_TIMEOUT),
    };
    let socket = match socket {
        Ok(socket) => socket,
        Err(error) => return Err(DumpFailure::from(error).connecting(config)),
    };
    let wire = Wire::new(socket, CONNECT_TIMEOUT, shutdown.clone());
    let (wire, flavor) = match log_in(wire, &account, config) {
        Ok(session) => session,
        Err(DumpFailure::Stopped) => return Ok(()),
        Err(failure) => return Err(failure.connecting(config)),
    };
    let streamed = (|| {
        let mut wire = wire;
        let replica = uuid_text(&row_digest([Some(config.name.as_bytes())]).to_be_bytes());
        for statement in request::session(&flavor, start, &replica, config.semi_sync)? {
            let mut command = vec![Command::COM_QUERY as u8];
            command.extend_from_slice(statement.as_bytes());
            execute(&mut wire, &command)?;
        }
        execute(&mut wire, &request::register(server_id))?;
        wire.write_command(&request::dump(&flavor, start, server_id)?)?;
        wire.set_patience(SILENCE_MAX);
        DumpReader::new(wire, chunks, config.semi_sync).run()
    })();
    match streamed {
        Ok(()) | Err(DumpFailure::Stopped) => Ok(()),
        Err(failure) => Err(failure.streaming(config)),
    }
}
