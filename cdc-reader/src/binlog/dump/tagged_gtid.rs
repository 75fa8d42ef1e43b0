//! Tagged GTID events (MySQL from 8.3 on), which are written in the form of MySQL's serialization library, and
//! heartbeats of the second form, brought into the forms that the encode thread reads.

use crate::binlog::byte_reader::{Malformed, take, take_array, take_le, take_length};

/// `GTID_TAGGED_LOG_EVENT`.
pub(super) const GTID_TAGGED: u8 = 0x2a;
/// `HEARTBEAT_LOG_EVENT_V2`.
pub(super) const HEARTBEAT_V2: u8 = 0x29;

/// What is wanted of a tagged GTID event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct TaggedGtid<'a> {
    pub(super) uuid: [u8; 16],
    pub(super) number: u64,
    pub(super) tag: &'a [u8],
    /// Microseconds since 1970, of the first server's commit.
    pub(super) committed_at_us: u64,
}

/// Reads the body of a tagged GTID event. Fields come in the order of their numbers, each with its number in front;
/// those after the commit times are passed over with the event.
pub(super) fn parse_tagged_gtid(mut body: &[u8]) -> Result<TaggedGtid<'_>, Malformed> {
    let input = &mut body;
    if take_varlen(input)? != 1 {
        return Err(Malformed("a tagged GTID event is of a form that this release does not know"));
    }
    // The event's size, and the last field that may not be passed over.
    let _ = (take_varlen(input)?, take_varlen(input)?);
    let mut gtid = TaggedGtid::default();
    let (mut has_uuid, mut original) = (false, None);
    while !input.is_empty() {
        match take_varlen(input)? {
            // Flags.
            0 => drop(take_varlen(input)?),
            1 => {
                has_uuid = true;
                for byte in &mut gtid.uuid {
                    // Every byte is a number of its own.
                    *byte = u8::try_from(take_varlen(input)?)
                        .map_err(|_| Malformed("a tagged GTID has a UUID that is none"))?;
                }
            }
            2 => gtid.number = signed(take_varlen(input)?),
            3 => {
                let length = usize::try_from(take_varlen(input)?).unwrap_or(usize::MAX);
                gtid.tag = take(input, length)?;
            }
            // The logical clock.
            4 | 5 => drop(take_varlen(input)?),
            6 => gtid.committed_at_us = take_varlen(input)?,
            7 => original = Some(take_varlen(input)?),
            _ => break,
        }
    }
    if !has_uuid || gtid.number == 0 {
        return Err(Malformed("a tagged GTID event has no GTID"));
    }
    if let Some(original) = original.filter(|&time| time != 0) {
        gtid.committed_at_us = original;
    }
    Ok(gtid)
}

/// Appends the plain form (`event::kind::TAGGED_GTID_PLAIN`).
pub(super) fn append_plain(gtid: &TaggedGtid<'_>, to: &mut Vec<u8>) {
    to.extend_from_slice(&gtid.uuid);
    to.extend_from_slice(&gtid.number.to_le_bytes());
    to.extend_from_slice(&gtid.committed_at_us.to_le_bytes());
    to.extend_from_slice(gtid.tag);
}

/// The file and the offset of a heartbeat of the second form: fields of kind, length and value, ended by kind 0.
pub(super) fn parse_heartbeat(mut body: &[u8]) -> Result<(&[u8], u64), Malformed> {
    let input = &mut body;
    let (mut file, mut offset) = (&[][..], 0);
    while !input.is_empty() {
        let field = take_length(input)?;
        if field == 0 {
            break;
        }
        let length = take_length(input)?;
        let mut value = take(input, length)?;
        match field {
            1 => file = value,
            2 => offset = take_length(&mut value)? as u64,
            _ => {}
        }
    }
    Ok((file, offset))
}

/// The number of ones at the end of the first byte says how many bytes follow it.
fn take_varlen(input: &mut &[u8]) -> Result<u64, Malformed> {
    let [first] = take_array::<1>(input)?;
    let more = first.trailing_ones() as usize;
    let rest = take_le(input, more)?;
    if more == 8 {
        return Ok(rest);
    }
    let low = u64::from(first) >> (more + 1);
    Ok(low | rest << (7 - more))
}

/// Signed numbers have their sign in the lowest bit.
fn signed(number: u64) -> u64 {
    if number & 1 == 0 { number >> 1 } else { 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As `libs/mysql/serialization` writes a number.
    fn varlen(value: u64) -> Vec<u8> {
        let bits = (64 - value.leading_zeros()).max(1);
        let bytes = bits.div_ceil(7).min(9) as usize;
        if bytes == 9 {
            let mut long = vec![0xff];
            long.extend_from_slice(&value.to_le_bytes());
            return long;
        }
        let mark = (1u128 << (bytes - 1)) - 1;
        (u128::from(value) << bytes | mark).to_le_bytes()[..bytes].to_vec()
    }

    #[test]
    fn numbers_of_every_length_are_read() {
        for shift in 0..64 {
            for value in [1u64 << shift, (1 << shift) - 1, u64::MAX >> shift] {
                let written = varlen(value);
                assert_eq!(take_varlen(&mut written.as_slice()), Ok(value), "{written:x?}");
                assert!(take_varlen(&mut &written[..written.len() - 1]).is_err());
            }
        }
    }

    #[test]
    fn fields_of_a_tagged_gtid_are_read() {
        let mut body = [varlen(1), varlen(90), varlen(8), varlen(0), varlen(1), varlen(1)].concat();
        let uuid: [u8; 16] = std::array::from_fn(|i| (i * 17) as u8);
        uuid.iter().for_each(|&byte| body.extend(varlen(u64::from(byte))));
        body.extend([varlen(2), varlen(77 << 1), varlen(3), varlen(3), b"red".to_vec()].concat());
        body.extend([varlen(4), varlen(8), varlen(5), varlen(10)].concat());
        let immediate = [body.clone(), varlen(6), varlen(5_000)].concat();
        let original = [immediate.clone(), varlen(7), varlen(4_000), varlen(8), varlen(1)].concat();
        for (body, committed_at_us) in [(immediate, 5_000), (original, 4_000)] {
            let gtid = parse_tagged_gtid(&body).expect("reads");
            assert_eq!(gtid, TaggedGtid { uuid, number: 77, tag: b"red", committed_at_us });
        }
    }

    #[test]
    fn heartbeats_have_offsets_of_64_bits() {
        let mut body = vec![1, 3];
        body.extend_from_slice(b"b.1");
        body.extend_from_slice(&[2, 9, 0xfe, 1, 2, 3, 4, 5, 0, 0, 0, 0]);
        assert_eq!(parse_heartbeat(&body), Ok((&b"b.1"[..], 0x05_0403_0201)));
        assert!(parse_heartbeat(&body[..4]).is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_are_refused_without_a_panic(mut body in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = parse_tagged_gtid(&body);
            let _ = parse_heartbeat(&body);
            if let Some(first) = body.first_mut() {
                *first = 2;
                let _ = parse_tagged_gtid(&body);
            }
        }
    }
}
