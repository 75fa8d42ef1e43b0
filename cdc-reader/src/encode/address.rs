//! MariaDB's UUID, INET4 and INET6, which its binlog has as BINARY, to the text that the server prints.

use std::{
    io::Write,
    net::{Ipv4Addr, Ipv6Addr},
};

use schemas::{avro_write::write_bytes, column_type::ColumnType};

/// Which of them a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// UUID.
    Uuid,
    /// INET4.
    Inet4,
    /// INET6.
    Inet6,
}

impl AddressKind {
    /// The column type's kind; `None` for all other types.
    pub fn of(column_type: &ColumnType) -> Option<Self> {
        Some(match column_type {
            ColumnType::Uuid => Self::Uuid,
            ColumnType::Inet4 => Self::Inet4,
            ColumnType::Inet6 => Self::Inet6,
            _ => return None,
        })
    }

    /// Appends the text of a value in a row image, as an Avro string. Trailing zeros may be cut.
    pub fn write_stored(self, stored: &[u8], out: &mut Vec<u8>) {
        let mut bytes = [0u8; 16];
        for (byte, stored) in bytes.iter_mut().zip(stored) {
            *byte = *stored;
        }
        // Longer than any of the texts.
        let mut text = [0u8; 48];
        let mut rest = &mut text[..];
        // The texts fit.
        let _ = match self {
            Self::Uuid => write_uuid(&bytes, &mut rest),
            Self::Inet4 => {
                let [a, b, c, d, ..] = bytes;
                write!(rest, "{}", Ipv4Addr::new(a, b, c, d))
            }
            Self::Inet6 => write_inet6(bytes, &mut rest),
        };
        let length = 48 - rest.len();
        write_bytes(out, &text[..length]);
    }
}

/// The binlog's bytes are in the order of the text, unlike those on MariaDB's disk.
fn write_uuid(bytes: &[u8; 16], out: &mut &mut [u8]) -> std::io::Result<()> {
    for (i, byte) in bytes.iter().enumerate() {
        if matches!(i, 4 | 6 | 8 | 10) {
            out.write_all(b"-")?;
        }
        write!(out, "{byte:02x}")?;
    }
    Ok(())
}

/// Rust prints `::ffff:1.2.3.4` as MariaDB does, but not `::1.2.3.4`.
fn write_inet6(bytes: [u8; 16], out: &mut &mut [u8]) -> std::io::Result<()> {
    match bytes {
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] if a != 0 || b != 0 => {
            write!(out, "::{}", Ipv4Addr::new(a, b, c, d))
        }
        _ => write!(out, "{}", Ipv6Addr::from(bytes)),
    }
}
