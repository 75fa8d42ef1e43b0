//! Column bytes in MySQL's character sets to UTF-8, by the server's own mapping.

use schemas::avro_write::write_long;

use super::charset_tables::{CharsetTable, table};

/// How to bring a column's bytes into UTF-8.
#[derive(Clone, Copy, Debug)]
pub enum Charset {
    /// utf8mb4, utf8mb3 and ascii: the bytes are UTF-8 already.
    Utf8,
    /// A set of one to four bytes per character, by the server's table.
    Table(&'static CharsetTable),
    /// ucs2 and utf16: two-byte units, big-endian.
    Utf16,
    /// utf16le.
    Utf16Le,
    /// utf32: four bytes, big-endian.
    Utf32,
}

impl PartialEq for Charset {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Table(ours), Self::Table(theirs)) => std::ptr::eq(*ours, *theirs),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}
impl Eq for Charset {}

/// The character set by MySQL's name; `None` for one that neither MySQL 9.7 nor MariaDB 11.8 has, and for `binary`,
/// which is no text.
pub fn of_name(name: &str) -> Option<Charset> {
    Some(match name {
        "utf8mb4" | "utf8mb3" | "utf8" | "ascii" => Charset::Utf8,
        "ucs2" | "utf16" => Charset::Utf16,
        "utf16le" => Charset::Utf16Le,
        "utf32" => Charset::Utf32,
        other => Charset::Table(table(other)?),
    })
}

/// The character set of a collation number; `None` when no server that we know has the number.
pub fn of_collation(id: u16) -> Option<Charset> {
    // 0: the server did not tell, and utf8mb4 has been its default since 8.0.
    if id == 0 { Some(Charset::Utf8) } else { of_name(name_of_collation(id)?) }
}

/// The character set's name of a collation number, as `information_schema.COLLATIONS` has it in MySQL 9.7 and
/// `COLLATION_CHARACTER_SET_APPLICABILITY` in MariaDB 11.8.
pub fn name_of_collation(id: u16) -> Option<&'static str> {
    Some(match id {
        1 | 84 => "big5",
        2 | 9 | 21 | 27 | 77 => "latin2",
        3 | 69 => "dec8",
        4 | 80 => "cp850",
        5 | 8 | 15 | 31 | 47..=49 | 94 => "latin1",
        6 | 72 => "hp8",
        7 | 74 => "koi8r",
        10 | 82 => "swe7",
        11 | 65 => "ascii",
        12 | 91 => "ujis",
        13 | 88 => "sjis",
        14 | 23 | 50..=52 => "cp1251",
        16 | 71 => "hebrew",
        18 | 89 => "tis620",
        19 | 85 => "euckr",
        20 | 41 | 42 | 79 => "latin7",
        22 | 75 => "koi8u",
        24 | 86 => "gb2312",
        25 | 70 => "greek",
        26 | 34 | 44 | 66 | 99 => "cp1250",
        28 | 87 => "gbk",
        29 | 58 | 59 => "cp1257",
        30 | 78 => "latin5",
        32 | 64 => "armscii8",
        33 | 76 | 83 | 192..=223 => "utf8mb3",
        35 | 90 | 128..=159 => "ucs2",
        36 | 68 => "cp866",
        37 | 73 => "keybcs2",
        38 | 43 => "macce",
        39 | 53 => "macroman",
        40 | 81 => "cp852",
        45 | 46 | 224..=247 | 255..=323 => "utf8mb4",
        54 | 55 | 101..=124 => "utf16",
        56 | 62 => "utf16le",
        57 | 67 => "cp1256",
        60 | 61 | 160..=183 => "utf32",
        63 => "binary",
        92 | 93 => "geostd8",
        95 | 96 => "cp932",
        97 | 98 => "eucjpms",
        248..=250 => "gb18030",
        // MariaDB's Unicode 14 collations: 256 numbers for each set. Before them, some localized older ones.
        576..=607 | 2048..=2303 => "utf8mb3",
        608..=639 | 2304..=2559 => "utf8mb4",
        640..=671 | 2560..=2815 => "ucs2",
        672..=703 | 2816..=3071 => "utf16",
        736..=767 | 3072..=3327 => "utf32",
        // MariaDB's collations without padding are the padded ones' numbers plus 1024.
        1025..=1347 => return name_of_collation(id - 1024),
        _ => return None,
    })
}

/// Appends `text` as an Avro string. Returns how many values had to be changed because they are not valid text in
/// their own character set (0 or 1): those get U+FFFD where bytes mean nothing.
#[inline]
pub fn write_text(charset: Charset, text: &[u8], out: &mut Vec<u8>) -> u64 {
    let plain = match charset {
        Charset::Utf8 => std::str::from_utf8(text).is_ok(),
        Charset::Table(table) => table.extends_ascii && text.is_ascii(),
        Charset::Utf16 | Charset::Utf16Le | Charset::Utf32 => false,
    };
    if plain {
        write_long(out, text.len() as i64);
        out.extend_from_slice(text);
        return 0;
    }
    let start = out.len();
    let replaced = decode_into(charset, text, out);
    // The length is known only now: it is written at the end and moved to the front.
    let end = out.len();
    write_long(out, (end - start) as i64);
    let length_bytes = out.len() - end;
    if let Some(written) = out.get_mut(start..) {
        written.rotate_right(length_bytes);
    }
    u64::from(replaced)
}

/// The text in UTF-8, and whether bytes had to be replaced.
pub fn decode(charset: Charset, text: &[u8]) -> (String, bool) {
    let mut decoded = Vec::with_capacity(text.len());
    let replaced = decode_into(charset, text, &mut decoded);
    (String::from_utf8_lossy(&decoded).into_owned(), replaced)
}

/// Appends the text in UTF-8; answers whether bytes had to be replaced.
pub fn decode_into(charset: Charset, text: &[u8], out: &mut Vec<u8>) -> bool {
    match charset {
        Charset::Utf8 => {
            let mut replaced = false;
            for chunk in text.utf8_chunks() {
                out.extend_from_slice(chunk.valid().as_bytes());
                if !chunk.invalid().is_empty() {
                    push(out, char::REPLACEMENT_CHARACTER);
                    replaced = true;
                }
            }
            replaced
        }
        Charset::Table(table) => by_table(table, text, out),
        Charset::Utf16 => utf16(text, u16::from_be_bytes, out),
        Charset::Utf16Le => utf16(text, u16::from_le_bytes, out),
        Charset::Utf32 => {
            let (units, rest) = text.as_chunks::<4>();
            let mut replaced = !rest.is_empty();
            for unit in units {
                let c = char::from_u32(u32::from_be_bytes(*unit));
                replaced |= c.is_none();
                push(out, c.unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            replaced
        }
    }
}

fn by_table(table: &CharsetTable, mut text: &[u8], out: &mut Vec<u8>) -> bool {
    let mut replaced = false;
    while let Some(&first) = text.first() {
        if first < 0x80 && table.extends_ascii {
            out.push(first);
            text = &text[1..];
            continue;
        }
        let (code, length) = table.next(text);
        let c = char::from_u32(code);
        replaced |= c.is_none();
        push(out, c.unwrap_or(char::REPLACEMENT_CHARACTER));
        text = text.get(length..).unwrap_or_default();
    }
    replaced
}

fn utf16(text: &[u8], unit: fn([u8; 2]) -> u16, out: &mut Vec<u8>) -> bool {
    let (units, rest) = text.as_chunks::<2>();
    let mut replaced = !rest.is_empty();
    for c in char::decode_utf16(units.iter().map(|bytes| unit(*bytes))) {
        replaced |= c.is_err();
        push(out, c.unwrap_or(char::REPLACEMENT_CHARACTER));
    }
    replaced
}

fn push(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::avro_write::read_bytes;

    use super::*;

    #[test]
    fn texts_come_out_in_utf8() {
        let cases: [(u16, &[u8], &str); 11] = [
            (8, b"caf\xe9 \x80 \x81", "café € \u{81}"),
            (13, b"\x93\xfa\x96{\x5c\xb1", "日本\\ｱ"),
            (19, b"\xc7\xd1\xb1\xdb", "한글"),
            (255, "우동".as_bytes(), "우동"),
            (54, b"\x00a\xac\x00", "a가"),
            (62, b"a\x00\x00\xac", "a가"),
            (60, b"\x00\x01\xf3\x5c", "🍜"),
            (10, b"h[r", "hÄr"),
            (97, b"\x8f\xb0\xa1a\x8e\xb1", "丂aｱ"),
            (248, b"\x90\x30\x81\x30\x81\x30\x81\x30a\xc4\xe3", "\u{10000}\u{80}a你"),
            (2816, b"\xd8\x3c\xdf\x5c", "🍜"),
        ];
        for (collation, bytes, text) in cases {
            let charset = of_collation(collation).expect("known");
            assert_eq!(decode(charset, bytes), (text.into(), false), "{collation}");
        }
    }

    #[test]
    fn broken_text_is_replaced_and_counted() {
        for (collation, bytes, text) in [
            (255, &b"a\xff"[..], "a\u{fffd}"),
            (13, b"\x81", "\u{fffd}"),
            (13, b"\x81\x0ab", "\u{fffd}\nb"),
            // Well-formed, but no character: it is one for both bytes.
            (13, b"\x81\xadb", "\u{fffd}b"),
            (54, b"\xd8\x00\x00a\x00", "\u{fffd}a"),
            (248, b"\x81\x30\x81", "\u{fffd}0\u{fffd}"),
        ] {
            let charset = of_collation(collation).expect("known");
            let mut out = Vec::new();
            assert_eq!(write_text(charset, bytes, &mut out), 1);
            let mut input = &out[..];
            assert_eq!(read_bytes(&mut input), Some(text.as_bytes()), "{collation} {bytes:x?}");
            assert!(input.is_empty());
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_become_utf8_in_every_set(bytes: Vec<u8>, id in 0u16..3400) {
            if let Some(charset) = of_collation(id) {
                let mut out = b"before".to_vec();
                write_text(charset, &bytes, &mut out);
                let mut input = &out[6..];
                let text = read_bytes(&mut input).expect("whole");
                prop_assert!(input.is_empty() && std::str::from_utf8(text).is_ok());
                let (decoded, _) = decode(charset, &bytes);
                prop_assert_eq!(decoded.as_bytes(), text);
            }
        }
    }
}
