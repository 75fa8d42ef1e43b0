//! The replication connection: asks for the binlog after a GTID set, verifies each event's checksum, and hands raw
//! events on in chunks of up to 256 KB. The only file that touches the replication socket.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use mysql_async::{
    BinlogStream, BinlogStreamRequest, Sid,
    binlog::events::{Event, GtidEvent},
    prelude::Queryable,
};
use schemas::{gtid_set::GtidSet, position::BinlogPlace, row_digest::row_digest};
use tokio_util::sync::CancellationToken;

use super::{dump::DumpStart, event::kind, transaction::uuid_text};
use crate::{
    config::SourceConfig,
    error::ReaderError,
    flow::{Input, InputSender},
    mysql::connect::{classify, place, reconnect},
};

/// A chunk is handed on when it is this large, or when the socket is empty.
const CHUNK_BYTES: usize = 256 * 1024;
/// How often an idle server says where it stands.
const HEARTBEAT_NANOSECONDS: u64 = 1_000_000_000;
/// A server that is silent this long is taken for gone.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Follows the binlog after `start` until `shutdown`, the inbox closes, or the connection ends.
pub async fn follow(
    config: &SourceConfig,
    server_id: u32,
    start: &DumpStart,
    inbox: &InputSender,
    shutdown: &CancellationToken,
) -> Result<(), ReaderError> {
    let server_place = place(config);
    let mut stream = open(config, server_id, start).await?;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES + 64 * 1024);
    let mut inside_payload = false;
    loop {
        let next = match stream.next().now_or_never() {
            Some(next) => next,
            None => {
                if !chunk.is_empty() && !send(inbox, &mut chunk).await {
                    return Ok(());
                }
                tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    next = tokio::time::timeout(SILENCE_MAX, stream.next()) => match next {
                        Ok(next) => next,
                        Err(_) => return Err(transient(&server_place, "the server went silent")),
                    },
                }
            }
        };
        let event = match next {
            Some(Ok(event)) => event,
            Some(Err(error)) => return Err(stream_error(error, &server_place)),
            None => return Err(transient(&server_place, "the server ended the binlog stream")),
        };
        // The driver also yields a compressed transaction's inner events, which have no place of their own. They are
        // passed over here: `compressed` reads the payload itself and reports damage that the driver would hide.
        let header = event.header();
        if inside_payload && header.log_pos() == 0 && is_transaction_event(header.event_type_raw())
        {
            continue;
        }
        inside_payload = header.event_type_raw() == kind::TRANSACTION_PAYLOAD;
        verify_checksum(&event, &server_place)?;
        append_event(&event, &mut chunk, &server_place)?;
        if chunk.len() >= CHUNK_BYTES && !send(inbox, &mut chunk).await {
            return Ok(());
        }
    }
}

async fn send(inbox: &InputSender, chunk: &mut Vec<u8>) -> bool {
    let full = std::mem::replace(chunk, Vec::with_capacity(CHUNK_BYTES + 64 * 1024));
    inbox.send(Input::Events(full)).await.is_ok()
}

async fn open(
    config: &SourceConfig,
    server_id: u32,
    start: &DumpStart,
) -> Result<BinlogStream, ReaderError> {
    let server_place = place(config);
    let mut connection = reconnect(config).await?;
    // A replica that comes back under its own UUID lets the server end the connection that it left behind.
    let replica = uuid_text(&row_digest([Some(config.name.as_bytes())]).to_be_bytes());
    let settings = format!(
        "SET @master_heartbeat_period = {HEARTBEAT_NANOSECONDS}, \
         @source_heartbeat_period = {HEARTBEAT_NANOSECONDS}, \
         @slave_uuid = '{replica}', @replica_uuid = '{replica}'"
    );
    connection.query_drop(settings).await.map_err(|e| classify(e, &server_place))?;
    let request = BinlogStreamRequest::new(server_id);
    let request = match start {
        DumpStart::Gtid(set) => request.with_gtid().with_gtid_set(sids(set)?),
        DumpStart::Place(place) => {
            request.with_filename(place.file.as_bytes()).with_pos(dump_offset(place)?)
        }
        DumpStart::MariaDbGtid(position) => {
            let settings = format!(
                "SET @mariadb_slave_capability = 4, @slave_connect_state = '{position}', \
                 @slave_gtid_strict_mode = 0, @slave_gtid_ignore_duplicates = 0"
            );
            connection.query_drop(settings).await.map_err(|e| classify(e, &server_place))?;
            request
        }
    };
    connection.get_binlog_stream(request).await.map_err(|e| stream_error(e, &server_place))
}

fn sids(set: &GtidSet) -> Result<Vec<Sid<'static>>, ReaderError> {
    let mut sids = Vec::new();
    for (origin, intervals) in set.iter() {
        let mut text = origin.uuid.clone();
        if !origin.tag.is_empty() {
            text.push(':');
            text.push_str(&origin.tag);
        }
        for (first, last) in intervals {
            text.push_str(&format!(":{first}-{last}"));
        }
        sids.push(text.parse().map_err(|_| {
            ReaderError::PositionLost(format!("the stored position has a bad GTID set part {text}"))
        })?);
    }
    Ok(sids)
}

/// The protocol has 32 bits for an offset.
fn dump_offset(place: &BinlogPlace) -> Result<u64, ReaderError> {
    match u32::try_from(place.offset) {
        Ok(offset) => Ok(offset.into()),
        Err(_) => Err(ReaderError::PositionLost(format!(
            "the stored position {}:{} is beyond 4 GiB, which a server without GTIDs cannot be asked for; switch GTIDs \
             on, and start again with an empty change log and a new snapshot",
            place.file, place.offset
        ))),
    }
}

fn stream_error(error: mysql_async::Error, server_place: &str) -> ReaderError {
    if let mysql_async::Error::Server(server) = &error
        && server.code == 1236
    {
        // 1236 is the server's answer to every request that it cannot or will no longer serve.
        if server.message.contains("server_uuid/server_id") {
            return transient(
                server_place,
                "another replica uses the same server_id or UUID; set another `server_id` for this source",
            );
        }
        return ReaderError::PositionLost(format!(
            "MySQL at {server_place} cannot serve the binlog from the stored position ({}); start with a new \
             change log and lake folder to take a new snapshot",
            server.message
        ));
    }
    classify(error, server_place)
}

fn transient(server_place: &str, reason: &str) -> ReaderError {
    ReaderError::Transient { place: server_place.into(), reason: reason.into() }
}

fn is_transaction_event(event_kind: u8) -> bool {
    !matches!(
        event_kind,
        kind::ROTATE | 15 | kind::HEARTBEAT | kind::GTID | kind::ANONYMOUS_GTID | 0x2a
    )
}

/// The checksum covers header and body as they came. Events that the server makes up are not in the file.
fn verify_checksum(event: &Event, server_place: &str) -> Result<(), ReaderError> {
    const FORMAT_DESCRIPTION: u8 = 15;
    let header = event.header();
    if header.timestamp() == 0
        || header.log_pos() == 0
        || matches!(header.event_type_raw(), FORMAT_DESCRIPTION | kind::HEARTBEAT)
    {
        return Ok(());
    }
    let Some(checksum) = event.checksum() else { return Ok(()) };
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header_bytes(event));
    hasher.update(event.data());
    if hasher.finalize().to_le_bytes() == checksum {
        return Ok(());
    }
    Err(transient(server_place, "an event arrived damaged (its checksum does not match)"))
}

fn header_bytes(event: &Event) -> [u8; 19] {
    let header = event.header();
    let mut bytes = [0u8; 19];
    bytes[..4].copy_from_slice(&header.timestamp().to_le_bytes());
    bytes[4] = header.event_type_raw();
    bytes[5..9].copy_from_slice(&header.server_id().to_le_bytes());
    bytes[9..13].copy_from_slice(&header.event_size().to_le_bytes());
    bytes[13..17].copy_from_slice(&header.log_pos().to_le_bytes());
    bytes[17..].copy_from_slice(&header.flags_raw().to_le_bytes());
    bytes
}

fn append_event(event: &Event, chunk: &mut Vec<u8>, server_place: &str) -> Result<(), ReaderError> {
    const GTID_TAGGED: u8 = 0x2a;
    let mut header = header_bytes(event);
    let plain;
    let body = if event.header().event_type_raw() == GTID_TAGGED {
        plain = plain_tagged_gtid(event).map_err(|error| ReaderError::BadEvent {
            place: server_place.into(),
            reason: format!("a tagged GTID cannot be read: {error}"),
        })?;
        header[4] = kind::TAGGED_GTID_PLAIN;
        &plain[..]
    } else {
        without_early_checksum(event, &header)
    };
    let length = u32::try_from(header.len() + body.len()).unwrap_or(u32::MAX);
    chunk.extend_from_slice(&length.to_le_bytes());
    chunk.extend_from_slice(&header);
    chunk.extend_from_slice(body);
    Ok(())
}

/// The first event comes before the driver knows whether events have checksums; MariaDB's then has one.
fn without_early_checksum<'a>(event: &'a Event, header: &[u8]) -> &'a [u8] {
    let data = event.data();
    let Some((body, checksum)) = data.split_last_chunk::<4>() else { return data };
    if header[4] != kind::ROTATE || event.checksum().is_some() {
        return data;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(body);
    if hasher.finalize().to_le_bytes() == *checksum { body } else { data }
}

fn plain_tagged_gtid(event: &Event) -> std::io::Result<Vec<u8>> {
    let gtid = event.read_event::<GtidEvent>()?;
    let mut plain = gtid.sid().to_vec();
    plain.extend_from_slice(&gtid.gno().to_le_bytes());
    let committed = match gtid.original_commit_timestamp() {
        0 => gtid.immediate_commit_timestamp(),
        original => original,
    };
    plain.extend_from_slice(&committed.to_le_bytes());
    if let Some(tag) = gtid.tag() {
        plain.extend_from_slice(tag.to_string().as_bytes());
    }
    Ok(plain)
}
