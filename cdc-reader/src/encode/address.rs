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

/// As MariaDB's `Inet6::to_string`: unlike Rust's, a run of one zero group is left out, too, and `::1.2.3.4` is an IPv4
/// address in the old form.
fn write_inet6(bytes: [u8; 16], out: &mut &mut [u8]) -> std::io::Result<()> {
    let groups = Ipv6Addr::from(bytes).segments();
    let run = |from: usize| groups.iter().skip(from).take_while(|&&group| group == 0).count();
    let (mut gap, mut gap_length) = (8, 0);
    for from in 0..8 {
        if run(from) > gap_length {
            (gap, gap_length) = (from, run(from));
        }
    }
    let ipv4 = gap == 0 && (gap_length == 6 || gap_length == 5 && groups[5] == 0xffff);
    let mut at = 0;
    while at < 8 {
        if at == gap {
            out.write_all(if at == 0 { b"::" } else { b":" })?;
            at += gap_length;
        } else if at == 6 && ipv4 {
            let [.., a, b, c, d] = bytes;
            return write!(out, "{}", Ipv4Addr::new(a, b, c, d));
        } else {
            write!(out, "{:x}{}", groups[at], if at == 7 { "" } else { ":" })?;
            at += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_mariadbs_text() {
        for text in [
            "::",
            "::1",
            "1::",
            "2001:db8::ff",
            "2001:db8::1:1:1:1:1",
            "1:2:3:4:5:6:7:8",
            "1:0:2:3::4",
            "::192.0.2.1",
            "::ffff:192.0.2.1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        ] {
            let address: Ipv6Addr = text.parse().expect("an address");
            let mut out = Vec::new();
            AddressKind::Inet6.write_stored(&address.octets(), &mut out);
            assert_eq!(std::str::from_utf8(&out[1..]), Ok(text));
        }
        let mut out = Vec::new();
        AddressKind::Uuid.write_stored(&[0x12, 0x3e, 0x45, 0x67], &mut out);
        assert_eq!(&out[1..], b"123e4567-0000-0000-0000-000000000000");
    }
}
