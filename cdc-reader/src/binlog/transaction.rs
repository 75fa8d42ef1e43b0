//! What a GTID event says about the transaction that it opens.

use schemas::{gtid_set::Origin, mariadb_gtid::MariaDbGtid};

use super::byte_reader::{Malformed, take, take_array, take_le};

/// The transaction that is being read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionStart {
    /// Who made it; `None` without GTIDs.
    pub origin: Option<Origin>,
    /// Its number; 0 without GTIDs.
    pub number: u64,
    /// Its name on MariaDB.
    pub mariadb: Option<MariaDbGtid>,
    /// When the first server committed it, in microseconds since 1970; 0 when it is not told.
    pub committed_at_us: i64,
}

impl TransactionStart {
    /// `uuid:number`, `uuid:tag:number`, MariaDB's `domain-server-sequence`, or "" without GTIDs.
    pub fn gtid(&self) -> String {
        if let Some(gtid) = self.mariadb {
            return gtid.to_string();
        }
        match &self.origin {
            None => String::new(),
            Some(origin) if origin.tag.is_empty() => format!("{}:{}", origin.uuid, self.number),
            Some(origin) => format!("{}:{}:{}", origin.uuid, origin.tag, self.number),
        }
    }
}

/// Reads the body of a GTID or anonymous GTID event.
pub fn parse_gtid(mut body: &[u8], anonymous: bool) -> Result<TransactionStart, Malformed> {
    take(&mut body, 1)?;
    let uuid = take_array::<16>(&mut body)?;
    let number = take_le(&mut body, 8)?;
    let mut start = TransactionStart::default();
    if !anonymous {
        start.origin = Some(Origin { uuid: uuid_text(&uuid), tag: String::new() });
        start.number = transaction_number(number)?;
    }
    // Servers before 8.0.1 end here or after the logical clock.
    if body.len() >= 17 + 7 {
        take(&mut body, 17)?;
        let immediate = take_le(&mut body, 7)?;
        let original = immediate >> 55 & 1 == 1;
        start.committed_at_us = if original && body.len() >= 7 {
            take_le(&mut body, 7)? as i64
        } else {
            (immediate & !(1 << 55)) as i64
        };
    }
    Ok(start)
}

/// Reads the plain form of a tagged GTID event (see [`super::event::kind::TAGGED_GTID_PLAIN`]).
pub fn parse_tagged_gtid(mut body: &[u8]) -> Result<TransactionStart, Malformed> {
    let uuid = take_array::<16>(&mut body)?;
    let number = take_le(&mut body, 8)?;
    let committed_at_us = take_le(&mut body, 8)? as i64;
    let in_tag = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if !body.iter().all(in_tag) || body.first().is_some_and(u8::is_ascii_digit) {
        return Err(Malformed("a GTID's tag has other characters than a-z, 0-9 and _"));
    }
    let tag = String::from_utf8_lossy(body).into_owned();
    Ok(TransactionStart {
        origin: Some(Origin { uuid: uuid_text(&uuid), tag }),
        number: transaction_number(number)?,
        committed_at_us,
        ..TransactionStart::default()
    })
}

/// MySQL counts transactions from 1 up to below 2^63 (`GNO_END`).
fn transaction_number(number: u64) -> Result<u64, Malformed> {
    if number == 0 || number >= i64::MAX as u64 {
        return Err(Malformed("a GTID's number is not between 1 and 2^63 - 2"));
    }
    Ok(number)
}

/// A UUID's 16 bytes as 36 lower-case characters.
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(36);
    for (i, byte) in uuid.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn original_commit_time_wins_over_the_immediate_one() {
        let mut body = vec![0];
        body.extend_from_slice(&[0xab; 16]);
        body.extend_from_slice(&7u64.to_le_bytes());
        body.extend_from_slice(&[0; 17]);
        body.extend_from_slice(&(5u64 | 1 << 55).to_le_bytes()[..7]);
        body.extend_from_slice(&3u64.to_le_bytes()[..7]);
        let start = parse_gtid(&body, false).expect("parses");
        assert_eq!(start.committed_at_us, 3);
        assert_eq!(start.gtid(), "abababab-abab-abab-abab-abababababab:7");
        for cut in 0..25 {
            assert!(parse_gtid(&body[..cut], false).is_err());
        }
    }
}
