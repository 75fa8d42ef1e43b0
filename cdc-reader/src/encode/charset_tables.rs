//! MySQL's mapping of each legacy character set to Unicode, as the server itself converts it. `charset_tables.zst` is
//! written by the test `real_mysql::charsets`, which also compares every code with the server.

use std::sync::LazyLock;

/// No character starts here: the first byte stands for nothing. Like the next, a number that no character can have.
pub const UNKNOWN: u32 = 0xd800;
/// The server takes these bytes for one character, but it has no counterpart in Unicode.
pub const UNASSIGNED: u32 = 0xdfff;

/// Where the four-byte codes of gb18030 begin that name U+10000 and above, counted from 81 30 81 30.
const GB18030_SUPPLEMENTARY: u32 = 189_000;

/// One character set.
#[derive(Debug)]
pub struct CharsetTable {
    /// MySQL's name.
    pub name: String,
    /// Bytes below 0x80 are ASCII.
    pub extends_ascii: bool,
    // By code: of one byte at 0x00b1, of two at 0xb1b2; after that the three-byte codes 8f b1 b2 of the Japanese EUC
    // sets at 0x1_b1b2, or the four-byte codes of gb18030 in their order.
    units: Vec<u16>,
}

impl CharsetTable {
    /// The character at the front of `text` (not empty), and how many bytes it takes.
    pub fn next(&self, text: &[u8]) -> (u32, usize) {
        let unit = |at: usize| self.units.get(at).map_or(UNKNOWN, |&unit| unit.into());
        let code = |bytes: &[u8]| bytes.iter().fold(0, |code, &byte| code << 8 | usize::from(byte));
        let single = unit(code(text.get(..1).unwrap_or_default()));
        if single != UNKNOWN || self.units.len() <= 256 {
            return (single, 1);
        }
        if let Some(two) = text.get(..2) {
            let found = unit(code(two));
            if found != UNKNOWN {
                return (found, 2);
            }
        }
        match text {
            [0x8f, rest @ ..] if self.units.len() == 0x2_0000 => {
                let found = rest.get(..2).map_or(UNKNOWN, |two| unit(0x1_0000 + code(two)));
                if found != UNKNOWN {
                    return (found, 3);
                }
            }
            // Only gb18030 has second bytes that are digits.
            [a @ 0x81..=0xfe, b @ 0x30..=0x39, c @ 0x81..=0xfe, d @ 0x30..=0x39, ..]
                if self.units.len() > 0x1_0000 =>
            {
                let part = |byte: &u8, from: u8| u32::from(byte - from);
                let linear = ((part(a, 0x81) * 10 + part(b, 0x30)) * 126 + part(c, 0x81)) * 10
                    + part(d, 0x30);
                let found = match linear.checked_sub(GB18030_SUPPLEMENTARY) {
                    Some(above @ 0..=0xf_ffff) => 0x1_0000 + above,
                    _ => match unit(0x1_0000 + linear as usize) {
                        UNKNOWN => UNASSIGNED,
                        found => found,
                    },
                };
                return (found, 4);
            }
            _ => {}
        }
        (UNKNOWN, 1)
    }
}

/// The table of a set by MySQL's name.
pub fn table(name: &str) -> Option<&'static CharsetTable> {
    static TABLES: LazyLock<Vec<CharsetTable>> = LazyLock::new(|| {
        zstd::stream::decode_all(&include_bytes!("charset_tables.zst")[..])
            .ok()
            .and_then(|bytes| parse(&bytes))
            .unwrap_or_default()
    });
    TABLES.iter().find(|table| table.name == name)
}

/// For each set: the name's length in a byte, the name, the number of units in four bytes and the units in two each,
/// little-endian.
fn parse(mut bytes: &[u8]) -> Option<Vec<CharsetTable>> {
    let mut tables = Vec::new();
    while let Some((&length, rest)) = bytes.split_first() {
        let (name, rest) = rest.split_at_checked(length.into())?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*count)).ok()?.checked_mul(2)?;
        let (units, rest) = rest.split_at_checked(length)?;
        let units: Vec<u16> =
            units.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
        tables.push(CharsetTable {
            name: std::str::from_utf8(name).ok()?.into(),
            extends_ascii: units.iter().take(128).zip(0u16..).all(|(&unit, byte)| unit == byte),
            units,
        });
        bytes = rest;
    }
    Some(tables)
}
