//! A record's headers as bytes: per header the length of its name (1 byte), the name, the length of its value (4, little
//! endian) and the value. No header is no byte.

use thiserror::Error;

use crate::error::LogError;

/// Why headers cannot be written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HeadersError {
    /// One byte holds the length of a name.
    #[error("a record header's name has {0} bytes; 255 are the most")]
    NameTooLong(usize),
    /// Four bytes hold the length of a value.
    #[error("a record header's value has {0} bytes; 4,294,967,295 are the most")]
    ValueTooLong(usize),
    /// Kafka's client takes names as text.
    #[error("the name of record header {0} (counted from 0) is not UTF-8")]
    NameNotText(usize),
    /// The bytes end inside a header.
    #[error(
        "the headers of a record end inside header {0} (counted from 0); the record is damaged"
    )]
    Truncated(usize),
}

impl From<HeadersError> for LogError {
    fn from(error: HeadersError) -> Self {
        Self::Unfit { place: "a record's headers".to_owned(), reason: error.to_string() }
    }
}

/// Adds a header.
pub fn write(out: &mut Vec<u8>, name: &str, value: &[u8]) -> Result<(), HeadersError> {
    write_bytes(out, name.as_bytes(), value)
}

/// Adds a header whose name came from elsewhere and need not be text.
pub(crate) fn write_bytes(
    out: &mut Vec<u8>,
    name: &[u8],
    value: &[u8],
) -> Result<(), HeadersError> {
    let name_length =
        u8::try_from(name.len()).map_err(|_| HeadersError::NameTooLong(name.len()))?;
    let value_length =
        u32::try_from(value.len()).map_err(|_| HeadersError::ValueTooLong(value.len()))?;
    out.push(name_length);
    out.extend_from_slice(name);
    out.extend_from_slice(&value_length.to_le_bytes());
    out.extend_from_slice(value);
    Ok(())
}

/// The headers in `bytes`, in order.
pub fn iter(bytes: &[u8]) -> Headers<'_> {
    Headers { rest: bytes, index: 0 }
}

/// Names and values of a record's headers. After an error it yields nothing more.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
    index: usize,
}

impl<'a> Headers<'a> {
    fn header(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (&name_length, rest) = self.rest.split_first()?;
        let (name, rest) = rest.split_at_checked(usize::from(name_length))?;
        let (value_length, rest) = rest.split_first_chunk::<4>()?;
        let value_length = usize::try_from(u32::from_le_bytes(*value_length)).ok()?;
        let (value, rest) = rest.split_at_checked(value_length)?;
        self.rest = rest;
        Some((name, value))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), HeadersError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match self.header() {
            Some(header) => {
                self.index += 1;
                Some(Ok(header))
            }
            None => {
                self.rest = &[];
                Some(Err(HeadersError::Truncated(self.index)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    type Owned = (Vec<u8>, Vec<u8>);

    fn collect(bytes: &[u8]) -> Result<Vec<Owned>, HeadersError> {
        iter(bytes)
            .map(|header| header.map(|(name, value)| (name.to_vec(), value.to_vec())))
            .collect()
    }

    proptest! {
        #[test]
        fn headers_come_back_in_order(
            headers in vec((".{0,60}", vec(any::<u8>(), 0..300)), 0..8), cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = Vec::new();
            let mut ends = vec![0];
            for (name, value) in &headers {
                write(&mut bytes, name, value).expect("short names");
                ends.push(bytes.len());
            }
            let wanted: Vec<_> = headers
                .into_iter()
                .map(|(name, value)| (name.into_bytes(), value))
                .collect();
            prop_assert_eq!(collect(&bytes), Ok(wanted.clone()));
            // Cut anywhere, the whole headers come and then one error, unless the cut is between two.
            let cut = cut.index(bytes.len() + 1);
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            let found: Vec<_> = iter(&bytes[..cut]).collect();
            prop_assert_eq!(found.iter().filter(|header| header.is_ok()).count(), whole);
            let error = found.get(whole).copied();
            let wanted = (!ends.contains(&cut)).then_some(Err(HeadersError::Truncated(whole)));
            prop_assert_eq!(error, wanted);
        }

        #[test]
        fn foreign_bytes_do_not_panic(bytes in vec(any::<u8>(), 0..200)) {
            let read: usize = iter(&bytes)
                .filter_map(Result::ok)
                .map(|(name, value)| 5 + name.len() + value.len())
                .sum();
            prop_assert!(read <= bytes.len());
        }
    }

    #[test]
    fn a_name_of_256_bytes_is_refused_and_writes_nothing() {
        let mut bytes = Vec::new();
        let name = "n".repeat(256);
        assert_eq!(write(&mut bytes, &name, b""), Err(HeadersError::NameTooLong(256)));
        assert!(bytes.is_empty());
        write(&mut bytes, &name[..255], b"").expect("255 bytes");
        assert_eq!(collect(&bytes), Ok(vec![(name.as_bytes()[..255].to_vec(), Vec::new())]));
    }

    #[test]
    fn a_length_beyond_the_end_is_named() {
        let mut bytes = Vec::new();
        write(&mut bytes, "a", b"1").expect("short");
        bytes.extend_from_slice(&[1, b'b', 255, 255, 255, 255, 0]);
        let error = collect(&bytes).expect_err("truncated");
        assert_eq!(error, HeadersError::Truncated(1));
        assert!(error.to_string().contains("header 1"), "{error}");
    }
}
