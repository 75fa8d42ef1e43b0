//! Compares what the writers know with the change log, by a program that shares no code with Binlake.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{FIRST_ROWS, Writer};
use crate::harness::{Python, Session};

/// Python decodes each record of the log.
const TIMEOUT: Duration = Duration::from_secs(1800);

/// What `tests/python/check_log.py` says of the source's topics; it panics when a record is missing, doubled or wrong.
/// `session` is on the server whose rows are the last ones.
#[track_caller]
pub fn judge(
    writers: &[Writer],
    session: &mut Session,
    (bootstrap_servers, source, database): (&str, &str, &str),
    folder: &Path,
    python: &Python,
) -> String {
    let rows = session.rows(&format!("SELECT id, version FROM {database}.accounts"));
    let accounts: BTreeMap<String, u64> = rows
        .into_iter()
        .map(|mut row| {
            let version = row.pop().flatten().and_then(|text| text.parse().ok());
            (row.pop().flatten().expect("an id"), version.expect("a number"))
        })
        .collect();
    let transactions: BTreeMap<String, u64> =
        writers.iter().map(|writer| (writer.number().to_string(), writer.committed())).collect();
    let expected = serde_json::json!({
        "first_rows": FIRST_ROWS, "writers": transactions, "accounts": accounts
    });
    let file = folder.join("expected.json");
    std::fs::write(&file, expected.to_string()).expect("written");
    let file = file.display().to_string();
    let arguments = [bootstrap_servers, source, database, &file];
    python.run("check_log.py", &arguments, TIMEOUT).trim().to_owned()
}
