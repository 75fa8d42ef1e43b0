//! Column types: how one is declared, a random literal for it, and how the server is asked for its text.

use fastrand::Rng;

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    MySql,
    MariaDb,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Integer,
    Decimal,
    /// By value: the server prints more digits than are in a FLOAT.
    Float,
    Bits,
    Date,
    Time {
        digits: u8,
    },
    DateTime {
        digits: u8,
    },
    Timestamp,
    Year,
    /// As hexadecimal UTF-8.
    Text,
    /// As hexadecimal bytes.
    Bytes,
    Json,
    /// As hexadecimal SRID and WKB.
    Geometry,
    Vector,
}

/// One type.
#[derive(Clone, Debug)]
pub struct Kind {
    /// `decimal(10,2) unsigned`.
    pub declared: String,
    pub form: Form,
    /// May stand in a key without a prefix length.
    pub in_key: bool,
    literal: Literal,
}

#[derive(Clone, Debug)]
enum Literal {
    Integer { bits: u32, unsigned: bool },
    Decimal { precision: u32, scale: u32, unsigned: bool },
    Float { unsigned: bool },
    Double,
    Bits { width: u32 },
    Date { zero: bool },
    Time { digits: u8 },
    DateTime { digits: u8, zero: bool },
    Timestamp { digits: u8 },
    Year,
    Text { charset: &'static str, characters: usize },
    Bytes { length: usize },
    Member { members: Vec<String>, many: bool },
    Json,
    Geometry,
    Vector { dimensions: usize },
}

const CHARSETS: [&str; 39] = [
    "utf8mb4", "utf8mb3", "latin1", "ascii", "latin2", "cp1250", "cp1251", "cp1256", "cp1257",
    "koi8r", "koi8u", "greek", "hebrew", "latin5", "latin7", "cp866", "cp850", "cp852", "dec8",
    "hp8", "swe7", "keybcs2", "macce", "macroman", "armscii8", "geostd8", "tis620", "euckr",
    "sjis", "cp932", "ujis", "eucjpms", "big5", "gbk", "gb2312", "ucs2", "utf16", "utf16le",
    "utf32",
];

/// Characters of many scripts; a character set without one stores `?`, and that is what must come out.
const CHARACTERS: [char; 32] = [
    'a', 'Z', '0', ' ', '\'', '"', '\\', '%', '\n', '\u{1}', 'é', 'ß', 'ÿ', '€', 'Ž', 'ş', 'Я',
    'ж', 'Ω', 'λ', 'א', 'ش', '한', '국', '中', '文', 'ア', '日', '、', '～', '🍜', '𠀀',
];

impl Kind {
    /// A random type that the server has.
    pub fn random(flavor: Flavor, zero_dates: bool, random: &mut Rng) -> Self {
        let digits = random.u8(0..=6);
        let unsigned = random.bool();
        let sign = if unsigned { " unsigned" } else { "" };
        let kind =
            |declared: String, form, in_key, literal| Self { declared, form, in_key, literal };
        match random.u8(0..if flavor == Flavor::MySql { 20 } else { 18 }) {
            0 | 1 => {
                let names = [
                    ("tinyint", 8),
                    ("smallint", 16),
                    ("mediumint", 24),
                    ("int", 32),
                    ("bigint", 64),
                ];
                let (name, bits) = names[random.usize(..5)];
                let zerofill = if unsigned && random.u8(..4) == 0 { " zerofill" } else { "" };
                let literal = Literal::Integer { bits, unsigned };
                kind(format!("{name}{sign}{zerofill}"), Form::Integer, true, literal)
            }
            2 | 3 => {
                let precision = random.u32(1..=65);
                let scale = random.u32(0..=precision.min(30));
                let literal = Literal::Decimal { precision, scale, unsigned };
                kind(format!("decimal({precision},{scale}){sign}"), Form::Decimal, true, literal)
            }
            4 => kind(format!("float{sign}"), Form::Float, false, Literal::Float { unsigned }),
            5 => kind("double".into(), Form::Float, false, Literal::Double),
            6 => {
                let width = random.u32(1..=64);
                kind(format!("bit({width})"), Form::Bits, false, Literal::Bits { width })
            }
            7 => kind("date".into(), Form::Date, !zero_dates, Literal::Date { zero: zero_dates }),
            8 => kind(
                format!("time({digits})"),
                Form::Time { digits },
                true,
                Literal::Time { digits },
            ),
            9 | 10 => {
                let literal = Literal::DateTime { digits, zero: zero_dates };
                kind(format!("datetime({digits})"), Form::DateTime { digits }, !zero_dates, literal)
            }
            11 => kind(
                format!("timestamp({digits})"),
                Form::Timestamp,
                true,
                Literal::Timestamp { digits },
            ),
            12 => kind("year".into(), Form::Year, true, Literal::Year),
            13 | 14 => text(random),
            15 => {
                let length = random.usize(1..=60);
                let (declared, in_key) = match random.u8(..3) {
                    0 => (format!("binary({length})"), true),
                    1 => (format!("varbinary({})", length * 8), false),
                    _ => ("blob".into(), false),
                };
                kind(declared, Form::Bytes, in_key, Literal::Bytes { length })
            }
            16 => {
                let many = random.bool();
                let count = random.usize(1..=if many { 64 } else { 300 });
                let odd = ["b c", "d'e", "한", "", "é"];
                let members: Vec<String> = (0..count)
                    .map(|i| odd.get(i).map_or_else(|| format!("m{i}"), ToString::to_string))
                    .filter(|member| !many || !member.is_empty())
                    .collect();
                let listed: Vec<String> = members.iter().map(|member| quoted(member)).collect();
                let name = if many { "set" } else { "enum" };
                let declared = format!("{name}({}) character set utf8mb4", listed.join(","));
                kind(declared, Form::Text, false, Literal::Member { members, many })
            }
            17 => kind(
                "json".into(),
                if flavor == Flavor::MySql { Form::Json } else { Form::Text },
                false,
                Literal::Json,
            ),
            18 => kind("geometry".into(), Form::Geometry, false, Literal::Geometry),
            _ => {
                let dimensions = random.usize(1..=8);
                kind(
                    format!("vector({dimensions})"),
                    Form::Vector,
                    false,
                    Literal::Vector { dimensions },
                )
            }
        }
    }

    /// A random value as a SQL expression.
    pub fn literal(&self, random: &mut Rng) -> String {
        match &self.literal {
            Literal::Integer { bits, unsigned } => integer(*bits, *unsigned, random),
            Literal::Decimal { precision, scale, unsigned } => {
                decimal(*precision, *scale, *unsigned, random)
            }
            Literal::Float { unsigned } => {
                let value = f64::from(random.i32(..)) / f64::from(random.u32(1..));
                format!("{:e}", if *unsigned { value.abs() } else { value })
            }
            Literal::Double => {
                let value = f64::from_bits(random.u64(..));
                if value.is_finite() && (value == 0.0 || value.abs() > 1e-300) {
                    format!("{value:e}")
                } else {
                    "-0.5".into()
                }
            }
            Literal::Bits { width } => format!("{}", random.u64(..) >> (64 - width)),
            Literal::Date { zero } => quoted(&date(*zero, random)),
            Literal::Time { digits } => {
                let sign = if random.bool() { "-" } else { "" };
                let hours = if random.bool() { random.u32(..24) } else { random.u32(..=838) };
                quoted(&format!(
                    "{sign}{hours}:{:02}:{:02}{}",
                    random.u32(..60),
                    random.u32(..59),
                    fraction(*digits, random)
                ))
            }
            Literal::DateTime { digits, zero } => quoted(&format!(
                "{} {}{}",
                date(*zero, random),
                clock(random),
                fraction(*digits, random)
            )),
            Literal::Timestamp { digits } => {
                let day = format!(
                    "{}-{:02}-{:02}",
                    random.u32(1971..2037),
                    random.u32(1..=12),
                    random.u32(1..=28)
                );
                quoted(&format!("{day} {}{}", clock(random), fraction(*digits, random)))
            }
            Literal::Year => {
                if random.u8(..5) == 0 {
                    "0".into()
                } else {
                    random.u32(1901..=2155).to_string()
                }
            }
            Literal::Text { charset, characters } => {
                let length = random.usize(..=*characters);
                let text: String =
                    (0..length).map(|_| CHARACTERS[random.usize(..CHARACTERS.len())]).collect();
                format!("convert(_utf8mb4 x'{}' using {charset})", hexadecimal(text.as_bytes()))
            }
            Literal::Bytes { length } => {
                let bytes: Vec<u8> =
                    (0..random.usize(..=*length)).map(|_| random.u8(..) & random.u8(..)).collect();
                format!("x'{}'", hexadecimal(&bytes))
            }
            Literal::Member { members, many: false } => {
                quoted(&members[random.usize(..members.len())])
            }
            Literal::Member { members, many: true } => {
                let chosen: Vec<&str> =
                    members.iter().filter(|_| random.u8(..4) == 0).map(String::as_str).collect();
                quoted(&chosen.join(","))
            }
            Literal::Json => format!("cast({} as json)", quoted(&json(3, random)))
                .replace("cast(", "(")
                .replace(" as json)", ")"),
            Literal::Geometry => match random.u8(..3) {
                0 => format!(
                    "st_geomfromtext('POINT({} {})')",
                    random.i32(-90..90),
                    random.i32(-90..90)
                ),
                1 => "st_geomfromtext('LINESTRING(0 0,1 2,3.5 -4)', 4326)".into(),
                _ => "st_geomfromtext('GEOMETRYCOLLECTION EMPTY')".into(),
            },
            Literal::Vector { dimensions } => {
                let items: Vec<String> = (0..*dimensions)
                    .map(|_| format!("{}", f32::from(random.i16(..)) / 8.0))
                    .collect();
                format!("to_vector('[{}]')", items.join(","))
            }
        }
    }

    /// The expression whose text the server is asked for.
    pub fn oracle(&self, column: &str) -> String {
        match self.form {
            Form::Integer => format!("cast({column} + 0 as char)"),
            Form::Decimal | Form::Time { .. } | Form::Timestamp => {
                format!("cast({column} as char)")
            }
            Form::Float => format!("{column} + 0e0"),
            Form::Bits => format!("cast({column} + 0 as char)"),
            Form::Date | Form::DateTime { .. } => format!(
                "if(year({column}) = 0 or month({column}) = 0 or dayofmonth({column}) = 0, null, cast({column} as char))"
            ),
            Form::Year => format!("lpad(cast({column} + 0 as char), 4, '0')"),
            Form::Text => format!("hex(convert({column} using utf8mb4))"),
            Form::Bytes | Form::Geometry | Form::Vector => format!("hex({column})"),
            Form::Json => format!("cast({column} as char)"),
        }
    }
}

fn text(random: &mut Rng) -> Kind {
    let charset = CHARSETS[random.usize(..CHARSETS.len())];
    let characters = random.usize(1..=40);
    let (name, in_key) = match random.u8(..5) {
        0 => (format!("char({characters})"), true),
        1 => ("tinytext".into(), false),
        2 => ("longtext".into(), false),
        // Lengths on both sides of one byte.
        3 => (format!("varchar({})", characters * 20), false),
        _ => (format!("varchar({characters})"), true),
    };
    let literal = Literal::Text { charset, characters };
    Kind { declared: format!("{name} character set {charset}"), form: Form::Text, in_key, literal }
}

fn integer(bits: u32, unsigned: bool, random: &mut Rng) -> String {
    // Small numbers as often as large ones.
    let value = random.u64(..) >> random.u32(64 - bits..64);
    if unsigned {
        return value.to_string();
    }
    let half = value >> 1;
    if random.bool() { half.to_string() } else { (-1 - half as i64).to_string() }
}

fn decimal(precision: u32, scale: u32, unsigned: bool, random: &mut Rng) -> String {
    let whole = random.u32(0..=precision - scale);
    let mut text = if !unsigned && random.bool() { "-".to_owned() } else { String::new() };
    text.push('0');
    text.extend((0..whole).map(|_| random.digit(10)));
    text.push('.');
    text.extend((0..scale).map(|_| random.digit(10)));
    text.trim_end_matches('.').to_owned()
}

fn date(zero: bool, random: &mut Rng) -> String {
    match random.u8(..8) {
        0 if zero => "0000-00-00".into(),
        1 if zero => format!("{:04}-00-00", random.u32(1..=9999)),
        2 if zero => format!("{:04}-{:02}-00", random.u32(1..=9999), random.u32(1..=12)),
        _ => format!(
            "{:04}-{:02}-{:02}",
            random.u32(1..=9999),
            random.u32(1..=12),
            random.u32(1..=28)
        ),
    }
}

fn clock(random: &mut Rng) -> String {
    format!("{:02}:{:02}:{:02}", random.u32(..24), random.u32(..60), random.u32(..59))
}

fn fraction(digits: u8, random: &mut Rng) -> String {
    let digits: String = (0..digits).map(|_| random.digit(10)).collect();
    if digits.is_empty() { digits } else { format!(".{digits}") }
}

/// A random JSON text, already free of characters that SQL would have to escape twice.
fn json(depth: u32, random: &mut Rng) -> String {
    match random.u8(..if depth == 0 { 7 } else { 9 }) {
        0 => "null".into(),
        1 => random.bool().to_string(),
        2 => random.i64(..).to_string(),
        3 => random.u64(..).to_string(),
        4 => format!("{}.{}", random.i32(-1000..1000), random.u32(1..1000)),
        5 => format!("{}e{}", random.i32(1..1000), random.i32(-30..30)),
        6 => format!(
            "\"{}\"",
            ["", "x", "한국", "a/b", "🍜", "longer than sixteen characters"][random.usize(..6)]
        ),
        7 => {
            let items: Vec<String> =
                (0..random.usize(..4)).map(|_| json(depth - 1, random)).collect();
            format!("[{}]", items.join(","))
        }
        _ => {
            let items: Vec<String> = (0..random.usize(..4))
                .map(|i| format!("\"k{}{i}\":{}", "y".repeat(i), json(depth - 1, random)))
                .collect();
            format!("{{{}}}", items.join(","))
        }
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Upper-case hexadecimal digits, as the server's HEX writes them.
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
