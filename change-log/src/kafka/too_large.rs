//! Records that a topic does not take: found before they are sent, and set apart where the configuration says so.

use std::ops::Range;

use super::client::RECORD_BYTES_MAX;
use crate::{
    error::LogError,
    headers::{self, HeadersError},
};

/// What a batch and a record have beside key, value and headers, generously.
const OVERHEAD_BYTES: usize = 1024;

/// The headers of a record that stands for one that was too large.
pub mod header {
    /// The topic that the record was for.
    pub const TOPIC: &str = "binlake.topic";
    /// Why it is here.
    pub const REASON: &str = "binlake.reason";
    /// The bytes of its key, value and headers.
    pub const BYTES: &str = "binlake.bytes";
}

/// A record's parts.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [u8],
}

impl Parts<'_> {
    /// The bytes of all three.
    pub fn length(&self) -> usize {
        let length = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        length(self.key) + length(self.value) + self.headers.len()
    }
}

/// Why a topic will not take a record; `None` when it will. `topic_bytes_max` is its `max.message.bytes`, which counts
/// what is left after compression: a record above it is compressed here to know.
pub fn refusal(parts: &Parts<'_>, topic_bytes_max: Option<usize>) -> Option<String> {
    let length = parts.length();
    if length > RECORD_BYTES_MAX - OVERHEAD_BYTES {
        return Some(format!("it has {length} bytes, and 96 MB are the most that binlake sends"));
    }
    let most = topic_bytes_max?;
    if length + OVERHEAD_BYTES <= most {
        return None;
    }
    let compressed: usize = [parts.key, parts.value, Some(parts.headers)]
        .into_iter()
        .flatten()
        .map(|part| lz4_flex::block::compress(part).len())
        .sum();
    (compressed + OVERHEAD_BYTES > most).then(|| {
        format!("it has {length} bytes, {compressed} compressed, and the topic's max.message.bytes is {most}")
    })
}

/// The sentence for a source that stops at such a record.
pub fn stops(topic: &str, refusal: &str) -> LogError {
    LogError::Unfit {
        place: format!("topic {topic}"),
        reason: format!(
            "a record is too large for it: {refusal}; raise max.message.bytes, leave the table out with `!` in \
             `tables`, or write record_too_large = \"dead_letter\" in [change_log]"
        ),
    }
}

/// Writes the headers of the record that takes its place; answers where in `out` they stand.
pub fn write_headers(
    out: &mut Vec<u8>,
    topic: &str,
    refusal: &str,
    parts: &Parts<'_>,
) -> Result<Range<usize>, HeadersError> {
    let from = out.len();
    headers::write(out, header::TOPIC, topic.as_bytes())?;
    headers::write(out, header::REASON, refusal.as_bytes())?;
    headers::write(out, header::BYTES, parts.length().to_string().as_bytes())?;
    Ok(from..out.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(value: &[u8]) -> Parts<'_> {
        Parts { key: Some(b"k"), value: Some(value), headers: b"" }
    }

    #[test]
    fn a_record_that_compression_makes_fit_is_sent() {
        let zeros = vec![0; 4 << 20];
        assert_eq!(refusal(&parts(&zeros), Some(1 << 20)), None);
        let mut random = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..4 << 20).map(|_| random.u8(..)).collect();
        let refused = refusal(&parts(&noise), Some(1 << 20)).expect("too large");
        assert!(refused.contains("4194305 bytes") && refused.contains("1048576"), "{refused}");
        assert_eq!(refusal(&parts(&noise), Some(5 << 20)), None);
        assert_eq!(refusal(&parts(&noise), None), None);
    }
}
