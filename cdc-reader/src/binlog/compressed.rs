//! Compressed transactions (`binlog_transaction_compression`): the payload is inflated as a stream, one inner event
//! at a time; any damage is an error.

use std::io::Read;

use super::{
    byte_reader::{Malformed, take, take_le, take_length},
    event::{EventHeader, HEADER_LENGTH},
};

/// Calls `handle` with each inner event (header, body). Inner events carry no checksum and no place of their own.
/// `buffer` is scratch memory; it grows to the largest inner event.
pub fn for_each_inner_event<E: From<Malformed>>(
    body: &[u8],
    buffer: &mut Vec<u8>,
    mut handle: impl FnMut(&EventHeader, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let payload = payload(body)?;
    let mut inflated: Box<dyn Read + '_> = match payload.algorithm {
        Algorithm::None => Box::new(payload.bytes),
        Algorithm::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(payload.bytes)
                .map_err(|_| Malformed("a compressed transaction cannot be opened"))?;
            decoder
                .window_log_max(31)
                .map_err(|_| Malformed("a compressed transaction cannot be opened"))?;
            Box::new(decoder)
        }
    };
    let mut inflated_bytes = 0u64;
    let mut head = [0u8; HEADER_LENGTH];
    while inflated_bytes < payload.inflated_length {
        inflated
            .read_exact(&mut head)
            .map_err(|_| Malformed("a compressed transaction is damaged or ends too early"))?;
        let header = EventHeader::parse(&head)?;
        let length = (header.size as usize)
            .checked_sub(HEADER_LENGTH)
            .ok_or(Malformed("an event in a compressed transaction has under 19 bytes"))?;
        buffer.clear();
        // Read through `take`, so that a false length cannot reserve gigabytes up front.
        let read = inflated
            .by_ref()
            .take(length as u64)
            .read_to_end(buffer)
            .map_err(|_| Malformed("a compressed transaction is damaged"))?;
        if read != length {
            return Err(Malformed("a compressed transaction ends within an event").into());
        }
        inflated_bytes += u64::from(header.size);
        handle(&header, buffer)?;
    }
    Ok(())
}

enum Algorithm {
    Zstd,
    None,
}

struct Payload<'a> {
    algorithm: Algorithm,
    inflated_length: u64,
    bytes: &'a [u8],
}

/// Reads the type-length-value header fields (`codecs/binary.h`): 0 end, 1 size, 2 algorithm, 3 inflated size.
fn payload(mut body: &[u8]) -> Result<Payload<'_>, Malformed> {
    let (mut algorithm, mut inflated_length) = (Algorithm::Zstd, 0);
    loop {
        match take_length(&mut body)? {
            0 if inflated_length == 0 => {
                return Err(Malformed("a compressed transaction does not tell its size"));
            }
            0 => return Ok(Payload { algorithm, inflated_length, bytes: body }),
            field => {
                let length = take_length(&mut body)?;
                let mut value = take(&mut body, length)?;
                match field {
                    2 => {
                        algorithm = match take_length(&mut value)? {
                            0 => Algorithm::Zstd,
                            255 => Algorithm::None,
                            _ => return Err(Malformed("its compression is not zstd")),
                        }
                    }
                    3 => inflated_length = lenenc_u64(&mut value)?,
                    _ => {}
                }
            }
        }
    }
}

fn lenenc_u64(value: &mut &[u8]) -> Result<u64, Malformed> {
    match value.first() {
        Some(0xfe) => {
            take(value, 1)?;
            take_le(value, 8)
        }
        _ => Ok(take_length(value)? as u64),
    }
}
