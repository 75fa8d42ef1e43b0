//! MariaDB's own events: the GTID event, and rows and statements that are compressed one by one (`log_bin_compress`).

use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;
use schemas::mariadb_gtid::MariaDbGtid;

use super::{
    byte_reader::{Malformed, take, take_array, take_be, take_le, take_length},
    event::{EventHeader, kind},
    transaction::TransactionStart,
};

/// A transaction that is one event: it has no COMMIT or XID of its own.
const STANDALONE: u8 = 1;
const GROUP_COMMIT_ID: u8 = 2;
const PREPARED_XA: u8 = 64;

/// The largest event that a server sends.
const EVENT_BYTES_MAX: usize = 1 << 30;

/// What a MariaDB GTID event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MariaDbStart {
    /// The transaction.
    pub start: TransactionStart,
    /// Whether it is the one event that follows, without an end of its own.
    pub standalone: bool,
    /// The XA transaction whose rows follow, up to their preparation.
    pub prepares: Option<String>,
}

/// Reads the body of a GTID event: sequence 8, domain 4, flags 1, then the commit id (8) and the XA
/// name, each when its flag is set.
pub fn parse_gtid(header: &EventHeader, mut body: &[u8]) -> Result<MariaDbStart, Malformed> {
    let sequence = take_le(&mut body, 8)?;
    let domain = take_le(&mut body, 4)? as u32;
    let [flags] = take_array::<1>(&mut body)?;
    let mut prepares = None;
    if flags & PREPARED_XA != 0 {
        take(&mut body, if flags & GROUP_COMMIT_ID == 0 { 0 } else { 8 })?;
        let format = take_le(&mut body, 4)? as u32;
        let lengths = take_array::<2>(&mut body)?.map(usize::from);
        let (gtrid, bqual) = (take(&mut body, lengths[0])?, take(&mut body, lengths[1])?);
        prepares = Some(xid_text(gtrid, bqual, format));
    }
    let gtid = MariaDbGtid { domain, server: header.server_id, sequence };
    let start = TransactionStart { mariadb: Some(gtid), ..TransactionStart::default() };
    Ok(MariaDbStart { start, standalone: flags & STANDALONE != 0, prepares })
}

/// An XA transaction's name in one form: `gtrid,bqual,format`, the first two in hexadecimal.
pub fn xid_text(gtrid: &[u8], bqual: &[u8], format: u32) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for (i, part) in [gtrid, bqual].into_iter().enumerate() {
        if i > 0 {
            text.push(',');
        }
        for byte in part {
            let _ = write!(text, "{byte:02x}");
        }
    }
    let _ = write!(text, ",{format}");
    text
}

/// Brings a compressed rows event into the form of a plain one; answers the plain event's type.
pub fn plain_rows(event_kind: u8, body: &[u8], plain: &mut Vec<u8>) -> Result<u8, Malformed> {
    let plain_kind = match event_kind {
        kind::MARIADB_WRITE_ROWS_COMPRESSED_V1..=kind::MARIADB_DELETE_ROWS_COMPRESSED_V1 => {
            event_kind - kind::MARIADB_WRITE_ROWS_COMPRESSED_V1 + kind::WRITE_ROWS_V1
        }
        _ => event_kind - kind::MARIADB_WRITE_ROWS_COMPRESSED + kind::WRITE_ROWS,
    };
    let mut rest = body;
    take(&mut rest, 8)?;
    if plain_kind >= kind::WRITE_ROWS {
        let extra = take_le(&mut rest, 2)? as usize;
        take(&mut rest, extra.checked_sub(2).ok_or(Malformed("its extra data has a bad length"))?)?;
    }
    let columns = take_length(&mut rest)?;
    let updates = matches!(plain_kind, kind::UPDATE_ROWS | kind::UPDATE_ROWS_V1);
    for _ in 0..=usize::from(updates) {
        take(&mut rest, columns.div_ceil(8))?;
    }
    inflate(body, rest, plain)?;
    Ok(plain_kind)
}

/// Brings a compressed statement into the form of a plain one.
pub fn plain_query(body: &[u8], plain: &mut Vec<u8>) -> Result<(), Malformed> {
    let mut rest = body;
    take(&mut rest, 8)?;
    let [database] = take_array::<1>(&mut rest)?;
    take(&mut rest, 2)?;
    let variables = take_le(&mut rest, 2)? as usize;
    take(&mut rest, variables + usize::from(database) + 1)?;
    inflate(body, rest, plain)
}

/// Copies what stands before `rest` in `body`, then `rest` inflated: a byte with the algorithm (0, zlib) in its bits 4
/// to 6 and the length of the length in its lowest three, the length of the plain bytes, most significant first, and
/// the compressed bytes.
fn inflate(body: &[u8], mut rest: &[u8], plain: &mut Vec<u8>) -> Result<(), Malformed> {
    plain.clear();
    plain.extend_from_slice(&body[..body.len() - rest.len()]);
    let [first] = take_array::<1>(&mut rest)?;
    if first & 0x80 == 0 || first >> 4 & 7 != 0 {
        return Err(Malformed("its compression is not MariaDB's zlib"));
    }
    let length = match first & 7 {
        bytes @ 1..=4 => take_be(&mut rest, usize::from(bytes))? as usize,
        _ => return Err(Malformed("the length of a compressed event has no 1 to 4 bytes")),
    };
    if length > EVENT_BYTES_MAX {
        return Err(Malformed("a compressed event says that it has over 1 GiB"));
    }
    match decompress_to_vec_zlib_with_limit(rest, length) {
        Ok(bytes) if bytes.len() == length => {
            plain.extend_from_slice(&bytes);
            Ok(())
        }
        _ => Err(Malformed("a compressed event is damaged")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(server_id: u32) -> EventHeader {
        EventHeader { timestamp: 1, kind: 162, server_id, size: 0, next_offset: 0, flags: 0 }
    }

    #[test]
    fn gtid_event_names_the_transaction_and_its_form() {
        let mut body = [&9u64.to_le_bytes()[..], &7u32.to_le_bytes(), &[STANDALONE]].concat();
        body.extend_from_slice(&[0; 6]);
        let parsed = parse_gtid(&header(3), &body).expect("parses");
        assert_eq!((parsed.start.gtid().as_str(), parsed.standalone), ("7-3-9", true));
        assert_eq!(parsed.prepares, None);
    }

    #[test]
    fn gtid_event_of_a_prepared_transaction_carries_its_name() {
        for commit_id in [0, GROUP_COMMIT_ID] {
            let mut body = [&9u64.to_le_bytes()[..], &7u32.to_le_bytes()].concat();
            body.push(PREPARED_XA | commit_id);
            body.extend_from_slice(&[0; 8][..if commit_id == 0 { 0 } else { 8 }]);
            body.extend_from_slice(&[1, 0, 0, 0, 2, 1, b'a', b'b', b'c']);
            let parsed = parse_gtid(&header(3), &body).expect("parses");
            assert_eq!(parsed.prepares.as_deref(), Some("6162,63,1"));
            for cut in 13..body.len() {
                assert!(parse_gtid(&header(3), &body[..cut]).is_err(), "{cut}");
            }
        }
    }

    #[test]
    fn damaged_compression_is_an_error() {
        let good = [0x81, 3, 0x78, 0x9c, 0x4b, 0x4c, 0x4a, 0x06, 0x00, 0x02, 0x4d, 0x01, 0x27];
        let mut plain = Vec::new();
        inflate(&good, &good, &mut plain).expect("inflates");
        assert_eq!(plain, b"abc");
        for cut in 0..good.len() {
            assert!(inflate(&good[..cut], &good[..cut], &mut plain).is_err(), "{cut}");
        }
        let mut wrong_length = good;
        wrong_length[1] = 4;
        assert!(inflate(&wrong_length, &wrong_length, &mut plain).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes: Vec<u8>, event_kind in 166u8..=171) {
            let mut plain = Vec::new();
            let _ = plain_rows(event_kind, &bytes, &mut plain);
            let _ = plain_query(&bytes, &mut plain);
            let _ = parse_gtid(&header(1), &bytes);
        }
    }
}
