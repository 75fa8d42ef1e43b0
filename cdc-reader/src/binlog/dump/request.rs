//! What is said between login and the first event: the session's variables, the registration as a replica, and the
//! command that asks for the binlog.

use mysql_common::{
    constants::Command,
    packets::{ComBinlogDump, ComBinlogDumpGtid, ComRegisterSlave, GnoInterval, Sid, Tag},
    proto::MySerialize,
};
use schemas::{
    gtid_set::{GtidSet, Origin},
    position::BinlogPlace,
};

use crate::mysql::{
    flavor::{Flavor, Kind, Version},
    wire::failure::WireFailure,
};

/// Where the server is asked to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpStart {
    /// MySQL: after these transactions.
    Gtid(GtidSet),
    /// Any server: at this place of a file, which must be the start of an event. `file` may be empty: the oldest file.
    Place(BinlogPlace),
    /// MariaDB: after these GTIDs, `domain-server-number` separated by commas; empty is the oldest file.
    MariaDbGtid(String),
}

/// How often an idle server says where it stands.
const HEARTBEAT_NANOSECONDS: u64 = 1_000_000_000;
/// The dump thread sends annotations of row events (MariaDB).
const SEND_ANNOTATE_ROWS: u16 = 2;
/// Heartbeats in their second form, whose offset has 64 bits (MySQL from 8.0.26 on).
const USE_HEARTBEAT_V2: u16 = 2;
/// The GTID set counts, not the file.
const THROUGH_GTID: u16 = 4;

/// The statements that prepare the session. `replica` is the reader's UUID; a replica that comes back under its own
/// UUID lets the server end the connection that it left behind.
pub(super) fn session(
    flavor: &Flavor,
    start: &DumpStart,
    replica: &str,
    semi_sync: bool,
) -> Result<Vec<String>, WireFailure> {
    // The checksum that is asked for is that of the events which the server makes up before it has opened a file.
    let mut statements = vec![format!(
        "SET @master_heartbeat_period = {HEARTBEAT_NANOSECONDS}, \
         @source_heartbeat_period = {HEARTBEAT_NANOSECONDS}, \
         @master_binlog_checksum = 'CRC32', @source_binlog_checksum = 'CRC32', \
         @slave_uuid = '{replica}', @replica_uuid = '{replica}', \
         net_write_timeout = 3600"
    )];
    if flavor.kind == Kind::MariaDb {
        // 4: GTIDs are understood. With less the server rewrites its events for an old replica.
        statements.push("SET @mariadb_slave_capability = 4".into());
    }
    if let DumpStart::MariaDbGtid(after) = start {
        if !after.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b',')) {
            return Err(WireFailure::Position(format!(
                "the stored position '{after}' is not a list of MariaDB GTIDs"
            )));
        }
        // Strict mode would refuse a reader whose position lies beside the server's own order of a domain.
        statements.push(format!(
            "SET @slave_connect_state = '{after}', @slave_gtid_strict_mode = 0, \
             @slave_gtid_ignore_duplicates = 0"
        ));
    }
    if semi_sync {
        statements.push("SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1".into());
    }
    Ok(statements)
}

/// COM_REGISTER_SLAVE: makes the reader show in SHOW REPLICAS, and lets the server tell a doubled id.
pub(super) fn register(server_id: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    ComRegisterSlave::new(server_id).serialize(&mut packet);
    packet
}

/// The command that starts the dump.
pub(super) fn dump(
    flavor: &Flavor,
    start: &DumpStart,
    server_id: u32,
) -> Result<Vec<u8>, WireFailure> {
    let heartbeats = Version { major: 8, minor: 0, patch: 26 };
    let flags = match flavor.kind {
        Kind::MariaDb => SEND_ANNOTATE_ROWS,
        Kind::MySql if flavor.version >= heartbeats => USE_HEARTBEAT_V2,
        Kind::MySql => 0,
    };
    match start {
        DumpStart::Gtid(set) => gtid_dump(flags, set, server_id),
        DumpStart::Place(place) => {
            let offset = u32::try_from(place.offset).map_err(|_| {
                WireFailure::Position(format!(
                    "the stored position {}:{} lies above 4 GiB, which a server without GTIDs cannot be asked for: \
                     set max_binlog_size to 1G or less, switch GTIDs on (gtid_mode = ON), and start with a new \
                     change log to take a new snapshot",
                    place.file, place.offset
                ))
            })?;
            // An offset inside the file's magic number is the server's error 1236.
            Ok(file_dump(flags, &place.file, offset.max(4), server_id))
        }
        DumpStart::MariaDbGtid(_) => Ok(file_dump(flags, "", 4, server_id)),
    }
}

fn file_dump(flags: u16, file: &str, offset: u32, server_id: u32) -> Vec<u8> {
    let mut packet = Vec::new();
    ComBinlogDump::new(server_id)
        .with_pos(offset)
        .with_filename(file.as_bytes())
        .serialize(&mut packet);
    put_flags(&mut packet, 5, flags);
    packet
}

fn gtid_dump(flags: u16, set: &GtidSet, server_id: u32) -> Result<Vec<u8>, WireFailure> {
    let sids = set
        .iter()
        .map(|(origin, intervals)| sid(origin, intervals))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| {
            WireFailure::Position(format!("the stored position has a bad GTID set '{set}'"))
        })?;
    let mut packet = Vec::new();
    ComBinlogDumpGtid::new(server_id).with_pos(4).with_sids(sids).serialize(&mut packet);
    // Without the flag a server reads no set, and an empty one means everything that it has.
    put_flags(&mut packet, 1, flags | THROUGH_GTID);
    Ok(packet)
}

/// Flags that mysql_common's type has no name for.
fn put_flags(packet: &mut [u8], at: usize, flags: u16) {
    debug_assert!(matches!(
        packet[0],
        byte if byte == Command::COM_BINLOG_DUMP as u8 || byte == Command::COM_BINLOG_DUMP_GTID as u8
    ));
    packet[at..at + 2].copy_from_slice(&flags.to_le_bytes());
}

fn sid(origin: &Origin, intervals: &[(u64, u64)]) -> Option<Sid<'static>> {
    let mut uuid = [0u8; 16];
    let hex: Vec<u8> = origin.uuid.bytes().filter(|&byte| byte != b'-').collect();
    if hex.len() != 32 {
        return None;
    }
    for (byte, digits) in uuid.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    let intervals = intervals
        .iter()
        .map(|&(first, last)| GnoInterval::check_and_new(first, last.checked_add(1)?).ok())
        .collect::<Option<Vec<_>>>()?;
    let sid = Sid::new(uuid).with_intervals(intervals);
    if origin.tag.is_empty() {
        return Some(sid);
    }
    Some(sid.with_tag(Tag::new(origin.tag.clone()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let text = |pair: &[u8]| String::from_utf8_lossy(pair).into_owned();
        digits.chunks(2).map(|pair| u8::from_str_radix(&text(pair), 16).expect("hex")).collect()
    }

    #[test]
    fn gtid_dump_is_what_the_server_expects() {
        let mysql = Flavor::parse("8.4.3");
        let set: GtidSet = format!("{A}:1-9:12").parse().expect("a set");
        let packet = dump(&mysql, &DumpStart::Gtid(set), 7).expect("a command");
        let expected = bytes(
            "1e 0600 07000000 00000000 0400000000000000 40000000 0100000000000000 \
             3e11fa4771ca11e19e33c80aa9429562 0200000000000000 \
             0100000000000000 0a00000000000000 0c00000000000000 0d00000000000000",
        );
        assert_eq!(packet, expected);
    }

    #[test]
    fn tagged_gtids_are_sent_in_their_own_format() {
        let mysql = Flavor::parse("9.7.4");
        let set: GtidSet = format!("{A}:1-9:red:1").parse().expect("a set");
        let packet = dump(&mysql, &DumpStart::Gtid(set), 7).expect("a command");
        let expected = bytes(
            "1e 0600 07000000 00000000 0400000000000000 5d000000 0002000000000001 \
             3e11fa4771ca11e19e33c80aa9429562 00 0100000000000000 0100000000000000 0a00000000000000 \
             3e11fa4771ca11e19e33c80aa9429562 06 726564 0100000000000000 0100000000000000 0200000000000000",
        );
        assert_eq!(packet, expected);
    }

    #[test]
    fn places_above_four_gibibytes_are_refused_with_a_sentence() {
        let place = |offset| DumpStart::Place(BinlogPlace { file: "b.000001".into(), offset });
        let mysql = Flavor::parse("8.0.20");
        let packet = dump(&mysql, &place(0xffff_ffff), 7).expect("a command");
        assert_eq!(packet, bytes("12 ffffffff 0000 07000000 622e303030303031"));
        let error = dump(&mysql, &place(1 << 32), 7).expect_err("too far");
        assert!(error.to_string().contains("b.000001:4294967296 lies above 4 GiB"), "{error}");
    }

    #[test]
    fn mariadb_is_asked_by_session_variables() {
        let mariadb = Flavor::parse("10.11.6-MariaDB");
        let start = DumpStart::MariaDbGtid("0-1-100,1-2-3".into());
        let statements = session(&mariadb, &start, "u", false).expect("statements").join(";");
        assert!(statements.contains("@mariadb_slave_capability = 4"), "{statements}");
        assert!(statements.contains("@slave_connect_state = '0-1-100,1-2-3'"), "{statements}");
        assert_eq!(
            dump(&mariadb, &start, 7).expect("a command"),
            bytes("12 04000000 0200 07000000")
        );
        let bad = DumpStart::MariaDbGtid("0-1-1', @a = '".into());
        assert!(session(&mariadb, &bad, "u", false).is_err());
    }
}
