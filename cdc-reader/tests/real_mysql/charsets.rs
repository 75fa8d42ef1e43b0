//! Every code of every character set, against `CONVERT(... USING utf8mb4)` of the server.
//!
//! With `BINLAKE_WRITE_CHARSET_TABLES=1` the test writes `charset_tables.zst` from what MySQL answers, instead of
//! comparing the tables with it. MariaDB's answers are only compared.

use cdc_reader::encode::charset::{Charset, decode, of_collation, of_name};
use mysql_async::{Conn, prelude::Queryable};

use super::server::{Running, block_on, shared, start_by};

const TABLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/encode/charset_tables.zst");
const UNKNOWN: u16 = 0xd800;
const UNASSIGNED: u16 = 0xdfff;
/// Four-byte codes of gb18030 that stand for U+0080 to U+FFFF.
const GB18030_BMP: u32 = 39_420;

/// What the server makes of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    /// They are not valid in the set.
    Malformed,
    /// They are valid, but have no counterpart in Unicode.
    NoCharacter,
    Text(String),
}

async fn connect(server: &Running) -> Conn {
    let config = server.config("root", &["d.*"]);
    let mut connection = cdc_reader::mysql::connect(&config).await.expect("connects");
    connection.query_drop("CREATE DATABASE IF NOT EXISTS charsets").await.expect("created");
    connection.query_drop("USE charsets").await.expect("used");
    connection
        .query_drop("CREATE TEMPORARY TABLE byte (b BINARY(1) PRIMARY KEY)")
        .await
        .expect("created");
    let bytes: Vec<String> = (0..256).map(|b| format!("(X'{b:02X}')")).collect();
    connection
        .query_drop(format!("INSERT INTO byte VALUES {}", bytes.join(",")))
        .await
        .expect("filled");
    connection
        .query_drop("CREATE TEMPORARY TABLE byte2 SELECT * FROM byte")
        .await
        .expect("created");
    connection
}

/// The answers for `codes`, an SQL expression over `from`, in the order of the codes.
async fn ask(
    connection: &mut Conn,
    charset: &str,
    code: &str,
    from: &str,
) -> Vec<(Vec<u8>, Answer)> {
    let sql = format!(
        "SELECT {code} AS code, CONVERT(CONVERT({code} USING {charset}) USING utf8mb4) IS NULL, \
         CAST(CONVERT(CONVERT({code} USING {charset}) USING utf8mb4) AS BINARY) FROM {from} ORDER BY 1"
    );
    let rows: Vec<(Vec<u8>, bool, Option<Vec<u8>>)> = connection.query(sql).await.expect("answers");
    rows.into_iter()
        .map(|(code, malformed, text)| {
            // MariaDB converts lone surrogates as if they were characters.
            let text = text.and_then(|text| String::from_utf8(text).ok());
            // eucjpms drops a first byte without a second one; MariaDB answers `?` for what is malformed, too.
            let marks = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'?').count();
            let own = match charset {
                // Units of two and four bytes: only zeros may be beside it.
                "ucs2" | "utf16" | "utf16le" | "utf32" => {
                    let at = if charset == "utf16le" { 0 } else { code.len() - 1 };
                    let only = (0..code.len()).all(|i| code[i] == if i == at { b'?' } else { 0 });
                    usize::from(only)
                }
                _ => marks(&code),
            };
            let answer = match text {
                // Big5 and others have it for codes that they reserve.
                Some(text) if text == "\u{fffd}" && is_legacy(charset) && code.len() < 4 => {
                    Answer::NoCharacter
                }
                Some(text) if marks(text.as_bytes()) != own => match text.as_str() {
                    "?" => Answer::NoCharacter,
                    _ => Answer::Malformed,
                },
                Some(text) if !malformed && !text.is_empty() => Answer::Text(text),
                _ => Answer::Malformed,
            };
            (code, answer)
        })
        .collect()
}

/// All codes of one byte, of two, and of three after 8F.
async fn legacy(connection: &mut Conn, charset: &str) -> Vec<(Vec<u8>, Answer)> {
    let mut all = ask(connection, charset, "b", "byte").await;
    let bytes_max: Option<u8> = connection
        .query_first(format!(
            "SELECT MAXLEN FROM information_schema.CHARACTER_SETS WHERE CHARACTER_SET_NAME = '{charset}'"
        ))
        .await
        .expect("answers");
    if bytes_max > Some(1) {
        let mut pairs = ask(connection, charset, "CONCAT(byte.b, byte2.b)", "byte, byte2").await;
        // Bytes after one that is a character by itself are the next one's.
        pairs.retain(|(code, _)| !matches!(all[usize::from(code[0])].1, Answer::Text(_)));
        all.extend(pairs);
    }
    if matches!(charset, "ujis" | "eucjpms") {
        all.extend(ask(connection, charset, "CONCAT(X'8F', byte.b, byte2.b)", "byte, byte2").await);
    }
    all
}

fn gb18030_bytes(linear: u32) -> [u8; 4] {
    let digit = |n: u32, base: u32, from: u8| from + (n % base) as u8;
    [
        digit(linear / 12_600, 126, 0x81),
        digit(linear / 1260, 10, 0x30),
        digit(linear / 10, 126, 0x81),
        digit(linear, 10, 0x30),
    ]
}

/// The four-byte codes of gb18030 from `first` on.
async fn gb18030(connection: &mut Conn, first: u32, count: u32) -> Vec<(Vec<u8>, Answer)> {
    let mut all = Vec::new();
    for from in (first..first + count).step_by(10_000) {
        let codes: Vec<String> = (from..(from + 10_000).min(first + count))
            .map(|n| format!("(X'{:08X}')", u32::from_be_bytes(gb18030_bytes(n))))
            .collect();
        connection
            .query_drop("CREATE TEMPORARY TABLE IF NOT EXISTS four (b BINARY(4))")
            .await
            .expect("created");
        connection.query_drop("TRUNCATE four").await.expect("emptied");
        connection
            .query_drop(format!("INSERT INTO four VALUES {}", codes.join(",")))
            .await
            .expect("filled");
        all.extend(ask(connection, "gb18030", "b", "four").await);
    }
    all
}

async fn charsets(connection: &mut Conn) -> Vec<String> {
    connection
        .query("SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS ORDER BY 1")
        .await
        .expect("answers")
}

fn is_legacy(charset: &str) -> bool {
    !charset.starts_with("utf") && !matches!(charset, "ucs2" | "ascii" | "binary")
}

/// The unit of a code in the table.
fn unit(answer: &Answer) -> u16 {
    match answer {
        Answer::Malformed => UNKNOWN,
        Answer::NoCharacter => UNASSIGNED,
        Answer::Text(text) => {
            let mut chars = text.chars();
            let first = chars.next().expect("a character");
            // Two characters: two codes of one byte each.
            if chars.next().is_some() {
                UNKNOWN
            } else {
                u16::try_from(u32::from(first)).expect("of the first plane")
            }
        }
    }
}

async fn write_tables(connection: &mut Conn) {
    let mut bytes = Vec::new();
    for charset in charsets(connection).await.into_iter().filter(|set| is_legacy(set)) {
        let mut units = vec![UNKNOWN; 256];
        for (code, answer) in legacy(connection, &charset).await {
            let at = match code[..] {
                [a] => usize::from(a),
                [a, b] => usize::from(a) << 8 | usize::from(b),
                [_, a, b] => 0x1_0000 | usize::from(a) << 8 | usize::from(b),
                _ => panic!("a code of {} bytes", code.len()),
            };
            if code.len() > 1 && units.len() < 0x1_0000 {
                units.resize(0x1_0000, UNKNOWN);
            }
            if code.len() > 2 && units.len() < 0x2_0000 {
                units.resize(0x2_0000, UNKNOWN);
            }
            if code.len() == 1 || units[usize::from(code[0])] == UNKNOWN {
                units[at] = unit(&answer);
            }
        }
        if charset == "gb18030" {
            units.extend(
                gb18030(connection, 0, GB18030_BMP).await.iter().map(|(_, answer)| unit(answer)),
            );
        }
        bytes.push(charset.len() as u8);
        bytes.extend_from_slice(charset.as_bytes());
        bytes.extend_from_slice(&(units.len() as u32).to_le_bytes());
        units.iter().for_each(|unit| bytes.extend_from_slice(&unit.to_le_bytes()));
    }
    let packed = zstd::stream::encode_all(&bytes[..], 22).expect("packs");
    std::fs::write(TABLES, packed).expect("written");
}

/// How many codes were compared.
fn compare(name: &str, charset: Charset, answers: &[(Vec<u8>, Answer)]) -> usize {
    for (code, answer) in answers {
        let (text, replaced) = decode(charset, code);
        match answer {
            Answer::Text(theirs) => {
                assert_eq!((&text, replaced), (theirs, false), "{name} {code:02x?}")
            }
            _ => assert!(replaced, "{name} {code:02x?}: {answer:?}, not {text:?}"),
        }
    }
    answers.len()
}

async fn compare_all(connection: &mut Conn) -> usize {
    let mut compared = 0;
    for name in charsets(connection).await.into_iter().filter(|set| set != "binary") {
        let charset = of_name(&name).unwrap_or_else(|| panic!("{name} is not known"));
        let answers = match name.as_str() {
            "ucs2" | "utf16" | "utf16le" => {
                ask(connection, &name, "CONCAT(byte.b, byte2.b)", "byte, byte2").await
            }
            "utf32" => {
                let mut all =
                    ask(connection, &name, "CONCAT(X'0000', byte.b, byte2.b)", "byte, byte2").await;
                all.extend(
                    ask(connection, &name, "CONCAT(X'0001', byte.b, byte2.b)", "byte, byte2").await,
                );
                all
            }
            "utf8mb4" => {
                let mut all = legacy(connection, &name).await;
                all.extend(
                    ask(connection, &name, "CONCAT(X'F09F', byte.b, byte2.b)", "byte, byte2").await,
                );
                all
            }
            "ascii" => ask(connection, &name, "b", "byte").await,
            _ => legacy(connection, &name).await,
        };
        compared += compare(&name, charset, &answers);
        if name == "gb18030" {
            let answers = gb18030(connection, 0, GB18030_BMP).await;
            compared += compare(&name, charset, &answers);
            let answers = gb18030(connection, 189_000, 0x10_0000).await;
            compared += compare(&name, charset, &answers);
        }
    }
    compared
}

#[test]
fn every_code_of_every_character_set_is_what_mysql_says() {
    block_on(async {
        let mut connection = connect(shared()).await;
        if std::env::var_os("BINLAKE_WRITE_CHARSET_TABLES").is_some() {
            return write_tables(&mut connection).await;
        }
        let compared = compare_all(&mut connection).await;
        assert!(compared > 1_900_000, "{compared} codes");
    });
}

#[test]
fn every_code_of_every_character_set_is_what_mariadb_says() {
    block_on(async {
        let server = start_by("mariadb.sh", &[]);
        let compared = compare_all(&mut connect(&server).await).await;
        assert!(compared > 500_000, "{compared} codes");
    });
}

#[test]
fn every_collation_of_both_servers_is_known() {
    block_on(async {
        let mariadb = start_by("mariadb.sh", &[]);
        for (server, view) in
            [(shared(), "COLLATIONS"), (&mariadb, "COLLATION_CHARACTER_SET_APPLICABILITY")]
        {
            let mut connection = connect(server).await;
            let rows: Vec<(u16, String)> = connection
                .query(format!(
                    "SELECT ID, CHARACTER_SET_NAME FROM information_schema.{view} WHERE ID <> 63"
                ))
                .await
                .expect("answers");
            assert!(rows.len() > 280, "{} collations", rows.len());
            for (id, name) in rows {
                assert_eq!(of_collation(id), of_name(&name), "{id} {name}");
                assert!(of_collation(id).is_some(), "{id} {name}");
            }
        }
    });
}
