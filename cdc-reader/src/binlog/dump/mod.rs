//! The replication connection: logs in, asks for the binlog, verifies each event's checksum, and hands raw events on
//! in chunks of up to 256 KB. Nothing else touches the replication socket.
//!
//! It runs on a thread of its own with a blocking socket: no event object is made, nothing is allocated per event,
//! and a transaction costs the copy of its bytes.
//!
//! ```text
//! mysql::wire (packets) -> reader (events, checksums) -> chunks -> encode thread
//!                                                              ^------ spent ---'
//! ```

mod checksum;
mod chunks;
mod failure;
mod reader;
mod request;
mod tagged_gtid;

use std::time::Duration;

use mysql_common::constants::Command;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::{chunks::Chunks, reader::DumpReader};
use crate::{
    config::SourceConfig,
    error::ReaderError,
    flow::InputSender,
    mysql::{
        replica_id::replica_uuid,
        wire::{self, Session, failure::WireFailure, login::execute},
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
    let (wire, flavor) = match wire::connect(config, shutdown)? {
        Session::Open(wire, flavor) => (wire, flavor),
        Session::Stopped => return Ok(()),
    };
    let streamed = (|| {
        let mut wire = wire;
        let replica = replica_uuid(config);
        for statement in request::session(&flavor, start, &replica, config.semi_sync)? {
            let mut command = vec![Command::COM_QUERY as u8];
            command.extend_from_slice(statement.as_bytes());
            execute(&mut wire, &command)?;
        }
        execute(&mut wire, &request::register(server_id))?;
        wire.write_command(&request::dump(&flavor, start, server_id)?)?;
        wire.set_patience(SILENCE_MAX);
        info!(source = %config.name, "reading the binlog");
        DumpReader::new(wire, chunks, config.semi_sync).run()
    })();
    match streamed {
        Ok(()) | Err(WireFailure::Stopped) => Ok(()),
        Err(failure) => Err(failure::streaming(failure, config)),
    }
}
