//! Snapshots that are asked for while the reader runs: commands by way of the change log, the modes of a source, and
//! tables that are taken in and out of the configuration.
//!
//! Tests share a server: each has a source of its own, with the name of its database.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../scenario/mod.rs"]
mod scenario;

mod commands;
mod modes;
mod reload;

use harness::{Finished, eventually};
use scenario::{ANSWER, CATCH_UP, Scenario};

/// `binlake snapshot ...`, which has to succeed.
#[track_caller]
fn snapshot(scenario: &Scenario, arguments: &[&str]) -> String {
    run(scenario, arguments).success()
}

/// The sentence of one that has to fail.
#[track_caller]
fn refused(scenario: &Scenario, arguments: &[&str]) -> String {
    let said = run(scenario, arguments).failure();
    assert!(!said.contains("panicked"), "{said}");
    said.lines().filter(|line| line.starts_with("error: ")).collect()
}

fn run(scenario: &Scenario, arguments: &[&str]) -> Finished {
    let all: Vec<&str> = [&["snapshot"], arguments].concat();
    scenario.command(&all).run(CATCH_UP)
}

/// The state of a table's snapshot and the rows that were read.
#[track_caller]
fn state(scenario: &Scenario, table: &str) -> (String, u64) {
    let text = run(scenario, &["status", "--json"]).success();
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let name = format!("{}.{table}", scenario.source());
    let entries = all.as_array().expect("an array");
    match entries.iter().find(|entry| entry["table"] == name.as_str()) {
        Some(entry) => {
            let state = entry["state"].as_str().expect("a state").to_owned();
            (state, entry["rows"].as_u64().expect("rows"))
        }
        None => (String::new(), 0),
    }
}

#[track_caller]
fn wait_state(scenario: &Scenario, table: &str, wanted: &str) {
    eventually(CATCH_UP, &format!("{table} is {wanted}"), || state(scenario, table).0 == wanted);
}

/// The one value of a query over the lake; empty while the table is not there.
fn value(scenario: &Scenario, sql: &str) -> String {
    let finished = scenario.command(&["query", "--format", "csv", sql]).run(ANSWER);
    finished.stdout.lines().nth(1).unwrap_or_default().to_owned()
}

#[track_caller]
fn wait_value(scenario: &Scenario, sql: &str, wanted: &str) {
    eventually(CATCH_UP, &format!("{sql} gives {wanted}"), || value(scenario, sql) == wanted);
}
