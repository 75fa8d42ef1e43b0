//! Kinds of key columns: those whose order or equality on the server is not that of their bytes, and those that have
//! tripped walks by key elsewhere.

use fastrand::Rng;

/// One kind: how it is declared, and random literals of it. Literals are close to each other on purpose: keys that
/// collide or touch are what a walk gets wrong.
#[derive(Clone)]
pub struct KeyKind {
    pub declared: String,
    literal: fn(&mut Rng) -> String,
}

impl KeyKind {
    pub fn random(random: &mut Rng) -> Self {
        let (declared, literal): (String, fn(&mut Rng) -> String) = match random.u8(..24) {
            0..=3 => return integer(random),
            4 => ("decimal(9,3)".into(), |r| format!("{}.{:03}", r.i32(-50..50), r.u32(..1000))),
            5 => ("decimal(65,30)".into(), wide_decimal),
            6 => ("double".into(), double),
            7 => ("float".into(), |r| format!("{}", f64::from(r.i16(..)) / 8.0)),
            8 => ("date".into(), date),
            9 => ("datetime(6)".into(), |r| format!("'{} {}'", bare(date(r)), clock(r))),
            // Around the hour that comes twice in many time zones.
            10 => ("timestamp(6)".into(), |r| {
                format!("'2024-10-27 0{}:{:02}:00.{:06}'", r.u8(..4), r.u8(..60), r.u32(..4))
            }),
            11 => ("time(3)".into(), |r| {
                let sign = if r.bool() { "-" } else { "" };
                format!("'{sign}{}:{:02}:00.{:03}'", r.u32(..839), r.u8(..60), r.u32(..3))
            }),
            12 => ("binary(4)".into(), bytes),
            13 | 14 => ("varbinary(6)".into(), bytes),
            15 => ("bit(11)".into(), |r| r.u32(..2048).to_string()),
            16 => ("enum('z','a','','m','日','B')".into(), |r| r.u8(1..=6).to_string()),
            17 => {
                ("set('z','a','m','日','B','0','1','2','3')".into(), |r| r.u32(..512).to_string())
            }
            _ => return text(random),
        };
        Self { declared, literal }
    }

    pub fn literal(&self, random: &mut Rng) -> String {
        (self.literal)(random)
    }
}

fn integer(random: &mut Rng) -> KeyKind {
    let name = ["tinyint", "smallint", "mediumint", "int", "bigint"][random.usize(..5)];
    let unsigned = random.bool();
    let declared = format!("{name}{}", if unsigned { " unsigned" } else { "" });
    // Out of range is the nearest that fits: INSERT IGNORE makes it so.
    let literal: fn(&mut Rng) -> String = if unsigned {
        |r| if r.u8(..3) == 0 { r.u64(..) >> r.u32(..64) } else { r.u64(..5000) }.to_string()
    } else {
        |r| if r.u8(..3) == 0 { r.i64(..) >> r.u32(..64) } else { r.i64(-2500..2500) }.to_string()
    };
    KeyKind { declared, literal }
}

/// Collations that ignore case, accents, trailing spaces or whole characters, that know contractions, several levels
/// or none, in character sets of one, two, three and four bytes.
const COLLATIONS: [&str; 22] = [
    "utf8mb4_0900_ai_ci",
    "utf8mb4_0900_as_ci",
    "utf8mb4_0900_as_cs",
    "utf8mb4_0900_bin",
    "utf8mb4_bin",
    "utf8mb4_general_ci",
    "utf8mb4_unicode_ci",
    "utf8mb4_unicode_520_ci",
    "utf8mb4_de_pb_0900_ai_ci",
    "utf8mb4_tr_0900_ai_ci",
    "utf8mb4_ja_0900_as_cs_ks",
    "utf8mb4_spanish2_ci",
    "utf8mb3_general_ci",
    "latin1_german2_ci",
    "latin1_swedish_ci",
    "latin1_bin",
    "latin2_czech_cs",
    "cp1250_czech_cs",
    "sjis_japanese_ci",
    "utf16_unicode_ci",
    "ucs2_general_ci",
    "ascii_general_ci",
];

/// With spaces and a tab for the ends of words, characters that some collations ignore, contractions and expansions.
const LETTERS: [&str; 36] = [
    "a", "A", "ä", "Ä", "á", "b", "B", "ß", "ss", "s", "e", "é", "E", "z", "Z", "ø", "o", "O", "ö",
    "ı", "i", "I", "n", "ñ", "ch", "ll", " ", " ", "\t", "-", "''", "\\\\", "日", "🍜", "\u{301}",
    "\u{ad}",
];

fn text(random: &mut Rng) -> KeyKind {
    let collation = COLLATIONS[random.usize(..COLLATIONS.len())];
    let charset = collation.split('_').next().unwrap_or(collation);
    let name = if random.u8(..4) == 0 { "char(12)" } else { "varchar(30)" };
    KeyKind {
        declared: format!("{name} character set {charset} collate {collation}"),
        literal: |r| {
            let letters: String =
                (0..r.usize(..6)).map(|_| LETTERS[r.usize(..LETTERS.len())]).collect();
            format!("'{letters}'")
        },
    }
}

fn wide_decimal(random: &mut Rng) -> String {
    match random.u8(..4) {
        0 => format!("-{}.{:030}", random.u64(..), random.u64(..)),
        1 => format!("{}.5", random.i32(-20..20)),
        2 => format!("0.{:030}", random.u32(..100)),
        _ => format!("{}{:017}.000001", random.u32(1..1000), random.u32(..)),
    }
}

fn double(random: &mut Rng) -> String {
    match random.u8(..3) {
        0 => format!("{}e{}", random.i32(-999..999), random.i32(-300..300)),
        1 => format!("{:?}", 0.1 * f64::from(random.i32(-2000..2000))),
        _ => random.i32(-2000..2000).to_string(),
    }
}

fn date(random: &mut Rng) -> String {
    format!("'{:04}-{:02}-{:02}'", random.u32(1999..2003), random.u32(1..=12), random.u32(1..=28))
}

fn clock(random: &mut Rng) -> String {
    format!("{:02}:{:02}:59.{:06}", random.u32(..24), random.u32(..60), random.u32(..1_000_000))
}

fn bare(quoted: String) -> String {
    quoted.trim_matches('\'').to_owned()
}

/// Bytes that padding, comparison as text and comparison as signed numbers get wrong.
fn bytes(random: &mut Rng) -> String {
    const BYTES: [u8; 8] = [0, 1, b'\t', b' ', b'A', b'a', 0x80, 0xff];
    let digits: String = (0..random.usize(..=4))
        .map(|_| format!("{:02X}", BYTES[random.usize(..BYTES.len())]))
        .collect();
    format!("x'{digits}'")
}
