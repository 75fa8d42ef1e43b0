//! A record's headers to and from Kafka.
//!
//! The names are read by librdkafka's own call: the client library takes them for UTF-8 and panics when another
//! program wrote something else.
#![allow(unsafe_code)]

use std::{ffi::CStr, ptr, slice};

use rdkafka::{
    Message,
    bindings::{rd_kafka_header_get_all, rd_kafka_headers_t},
    message::{BorrowedMessage, Header, OwnedHeaders},
    types::RDKafkaRespErr,
};

use crate::{
    error::LogError,
    headers::{self, HeadersError},
};

/// The headers in `bytes` as librdkafka's. Not for records without any: it allocates.
pub fn to_kafka(bytes: &[u8]) -> Result<OwnedHeaders, HeadersError> {
    let mut out = OwnedHeaders::new_with_capacity(headers::iter(bytes).count());
    for (index, header) in headers::iter(bytes).enumerate() {
        let (key, value) = header?;
        let key = std::str::from_utf8(key).map_err(|_| HeadersError::NameNotText(index))?;
        out = out.insert(Header { key, value: Some(value) });
    }
    Ok(out)
}

/// Adds a message's headers to `out` and returns where they start and end. A header without a value, which this
/// program does not write, comes with an empty one.
pub fn add_headers(
    message: &BorrowedMessage<'_>,
    out: &mut Vec<u8>,
) -> Result<(u32, u32), LogError> {
    let from = out.len() as u32;
    let Some(found) = message.headers() else {
        return Ok((from, from));
    };
    let found: *const rd_kafka_headers_t = ptr::from_ref(found).cast();
    for index in 0.. {
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0_usize);
        // SAFETY: a `BorrowedHeaders` is librdkafka's list by another type (rdkafka makes the reference by this
        // cast), and it lives as long as the message.
        let result =
            unsafe { rd_kafka_header_get_all(found, index, &mut name, &mut value, &mut length) };
        // An index after the last one is how the list ends.
        if result != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
            break;
        }
        // SAFETY: the name ends with a zero byte and `value` has `length` bytes; both live as long as the message.
        let (name, value) = unsafe {
            let value: &[u8] = if value.is_null() || length == 0 {
                &[]
            } else {
                slice::from_raw_parts(value.cast(), length)
            };
            (CStr::from_ptr(name).to_bytes(), value)
        };
        headers::write_bytes(out, name, value).map_err(|error| LogError::Unfit {
            place: format!("{}[{}]", message.topic(), message.partition()),
            reason: format!("at offset {}: {error}", message.offset()),
        })?;
    }
    Ok((from, out.len() as u32))
}
