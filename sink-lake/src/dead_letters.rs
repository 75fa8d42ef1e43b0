//! Records that can't be decoded, kept beside the lake as JSON lines with the reason and the record's place, so that
//! nothing is lost without a trace: `<lake>/_dead_letters/<source>/<database>/<table>/partition-<n>.jsonl`.
//! A record may be noted twice when the sink is started again before its next commit.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use schemas::table_id::TableId;
use serde_json::json;

use crate::{error::SinkError, flow::DeadLetter};

/// The folder in the lake that holds them.
pub const FOLDER: &str = "_dead_letters";

/// Appends the letters and makes them durable.
pub fn write(lake: &Path, table: &TableId, letters: &[DeadLetter]) -> Result<(), SinkError> {
    let folder = lake.join(FOLDER).join(table.lake_path());
    let failed = |error: std::io::Error| SinkError::File {
        place: folder.display().to_string(),
        reason: error.to_string(),
    };
    fs::create_dir_all(&folder).map_err(failed)?;
    let mut lines: BTreeMap<i32, Vec<u8>> = BTreeMap::new();
    for letter in letters {
        let line = json!({
            "reason": letter.reason,
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "key_base64": letter.key.as_deref().map(base64),
            "value_base64": letter.value.as_deref().map(base64),
        });
        let lines = lines.entry(letter.partition).or_default();
        lines.extend_from_slice(line.to_string().as_bytes());
        lines.push(b'\n');
    }
    for (partition, lines) in lines {
        let path = folder.join(format!("partition-{partition}.jsonl"));
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        file.write_all(&lines).and_then(|()| file.sync_data()).map_err(failed)?;
    }
    Ok(())
}

/// RFC 4648, section 4, with padding.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            if i <= chunk.len() {
                text.push(char::from(ALPHABET[(group >> (18 - 6 * i)) as usize & 63]));
            } else {
                text.push('=');
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_rfcs() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn letters_are_appended_by_partition() {
        let lake = tempfile::tempdir().expect("a folder");
        let table = TableId::new("s", "d", "t");
        let letter = |partition, offset| DeadLetter {
            topic: "s.d.t".into(),
            partition,
            offset,
            reason: "bad".into(),
            key: None,
            value: Some(b"foo".to_vec()),
        };
        write(lake.path(), &table, &[letter(0, 1), letter(1, 1)]).expect("writes");
        write(lake.path(), &table, &[letter(0, 2)]).expect("writes");
        let path = lake.path().join("_dead_letters/s/d/t/partition-0.jsonl");
        let text = fs::read_to_string(path).expect("reads");
        assert_eq!(text.lines().count(), 2);
        assert!(text.contains(r#""value_base64":"Zm9v""#), "{text}");
    }
}
