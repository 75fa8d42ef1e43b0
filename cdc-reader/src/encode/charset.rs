//! Column bytes in MySQL's character sets to UTF-8.

use encoding_rs::Encoding;
use schemas::avro_write::write_bytes;

/// How to bring a column's bytes into UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// utf8mb4, utf8mb3 and ascii: the bytes are UTF-8 already.
    Utf8,
    /// A set that the WHATWG encodings cover byte for byte.
    Table(&'static Encoding),
    /// ucs2 and utf16: two-byte units, big-endian.
    Utf16,
    /// utf16le.
    Utf16Le,
    /// utf32: four bytes, big-endian.
    Utf32,
}

/// The character set of a collation number (`information_schema.collations.id`); `None` when we have no table for it.
/// 63 (binary) is not text and is not asked for.
pub fn of_collation(id: u16) -> Option<Charset> {
    use encoding_rs as e;
    Some(match id {
        // 0: the server did not tell, and utf8mb4 has been its default since 8.0.
        0 | 11 | 65 | 33 | 76 | 83 | 192..=215 | 223 | 45 | 46 | 224..=247 | 255..=323 => {
            Charset::Utf8
        }
        5 | 8 | 15 | 31 | 47 | 48 | 49 | 94 => Charset::Table(e::WINDOWS_1252),
        1 | 84 => Charset::Table(e::BIG5),
        13 | 88 | 95 | 96 => Charset::Table(e::SHIFT_JIS),
        12 | 91 | 97 | 98 => Charset::Table(e::EUC_JP),
        19 | 85 => Charset::Table(e::EUC_KR),
        24 | 86 | 28 | 87 => Charset::Table(e::GBK),
        248..=250 => Charset::Table(e::GB18030),
        18 | 89 => Charset::Table(e::WINDOWS_874),
        26 | 34 | 44 | 66 | 99 => Charset::Table(e::WINDOWS_1250),
        14 | 23 | 50 | 51 | 52 => Charset::Table(e::WINDOWS_1251),
        57 | 67 => Charset::Table(e::WINDOWS_1256),
        29 | 58 | 59 => Charset::Table(e::WINDOWS_1257),
        30 | 78 => Charset::Table(e::WINDOWS_1254),
        2 | 9 | 21 | 27 | 77 => Charset::Table(e::ISO_8859_2),
        20 | 41 | 42 | 79 => Charset::Table(e::ISO_8859_13),
        25 | 70 => Charset::Table(e::ISO_8859_7),
        16 | 71 => Charset::Table(e::ISO_8859_8),
        7 | 74 => Charset::Table(e::KOI8_R),
        22 | 75 => Charset::Table(e::KOI8_U),
        36 | 68 => Charset::Table(e::IBM866),
        39 | 53 => Charset::Table(e::MACINTOSH),
        35 | 90 | 128..=151 | 159 | 54 | 55 | 101..=124 => Charset::Utf16,
        56 | 62 => Charset::Utf16Le,
        60 | 61 | 160..=183 => Charset::Utf32,
        _ => return None,
    })
}

/// Appends `text` as an Avro string. Returns how many values had to be changed because they are not valid text in
/// their own character set (0 or 1): those get U+FFFD where bytes mean nothing.
#[inline]
pub fn write_text(charset: Charset, text: &[u8], out: &mut Vec<u8>) -> u64 {
    match charset {
        Charset::Utf8 => match std::str::from_utf8(text) {
            Ok(_) => {
                write_bytes(out, text);
                0
            }
            Err(_) => {
                write_bytes(out, String::from_utf8_lossy(text).as_bytes());
                1
            }
        },
        _ if text.is_ascii()
            && !matches!(charset, Charset::Utf16 | Charset::Utf16Le | Charset::Utf32) =>
        {
            write_bytes(out, text);
            0
        }
        other => {
            let (decoded, replaced) = decode(other, text);
            write_bytes(out, decoded.as_bytes());
            u64::from(replaced)
        }
    }
}

/// The text in UTF-8, and whether bytes had to be replaced.
pub fn decode(charset: Charset, text: &[u8]) -> (String, bool) {
    match charset {
        Charset::Utf8 => {
            let decoded = String::from_utf8_lossy(text).into_owned();
            let replaced = std::str::from_utf8(text).is_err();
            (decoded, replaced)
        }
        Charset::Table(encoding) => {
            let (decoded, replaced) = encoding.decode_without_bom_handling(text);
            (decoded.into_owned(), replaced)
        }
        Charset::Utf16 => utf16(text, u16::from_be_bytes),
        Charset::Utf16Le => utf16(text, u16::from_le_bytes),
        Charset::Utf32 => {
            let mut replaced = !text.len().is_multiple_of(4);
            let decoded = text
                .chunks_exact(4)
                .map(|c| u32::from_be_bytes([c[0], c[1], c[2], c[3]]))
                .map(|code| {
                    char::from_u32(code).unwrap_or_else(|| {
                        replaced = true;
                        char::REPLACEMENT_CHARACTER
                    })
                })
                .collect();
            (decoded, replaced)
        }
    }
}

fn utf16(text: &[u8], unit: fn([u8; 2]) -> u16) -> (String, bool) {
    let mut replaced = !text.len().is_multiple_of(2);
    let units = text.chunks_exact(2).map(|c| unit([c[0], c[1]]));
    let decoded = char::decode_utf16(units)
        .map(|c| {
            c.unwrap_or_else(|_| {
                replaced = true;
                char::REPLACEMENT_CHARACTER
            })
        })
        .collect();
    (decoded, replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_in_utf8() {
        let cases: [(u16, &[u8], &str); 6] = [
            (8, b"caf\xe9 \x80", "café €"),
            (13, b"\x93\xfa\x96{", "日本"),
            (19, b"\xc7\xd1\xb1\xdb", "한글"),
            (255, "우동".as_bytes(), "우동"),
            (54, b"\x00a\xac\x00", "a가"),
            (60, b"\x00\x01\xf3\x5c", "🍜"),
        ];
        for (collation, bytes, text) in cases {
            let charset = of_collation(collation).expect("known");
            assert_eq!(decode(charset, bytes), (text.into(), false), "{collation}");
        }
    }

    #[test]
    fn broken_text_is_replaced_and_counted() {
        let mut out = Vec::new();
        assert_eq!(write_text(Charset::Utf8, b"a\xff", &mut out), 1);
        assert_eq!(&out[1..], "a\u{fffd}".as_bytes());
    }
}
