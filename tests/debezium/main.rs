//! The real Debezium beside our reader on one server: every record of a mixed workload, snapshot and stream, is the
//! same to the byte, or differs in a way that docs/DEBEZIUM.md names.

#[path = "../harness/mod.rs"]
mod harness;

mod binlake;
mod columns;
mod compare;
mod engine;
mod known;
mod record;
mod workload;

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write,
};

use binlake::Binlake;
use compare::{ColumnTypes, Difference, Report, compare, readable};
use engine::Debezium;
use harness::MySql;
use known::KNOWN;
use record::Record;

const SOURCE: &str = "udon";
const SEED: u64 = 1;
/// How many examples of an unexplained difference are shown.
const EXAMPLES_MAX: usize = 4;

#[test]
fn every_record_is_debeziums_or_documented() {
    let Some(mysql) = MySql::start(&[]) else { return };
    workload::before(&mysql, seed());
    let both = SideBySide {
        mysql: &mysql,
        // Four headers on every record, which we write when told so.
        properties: &["extended.headers.enabled=false"],
        keys: serde_json::json!({}),
    };
    let Some(report) = both.run(workload::during) else { return };
    assert!(report.compared > 5000 && report.snapshot > 500, "records are missing");
}

#[test]
fn transactions_and_headers_are_debeziums() {
    // Also a server elsewhere, and statements of more than one rows event.
    let options = ["--default-time-zone=-09:30", "--binlog-row-event-max-size=1024"];
    let Some(mysql) = MySql::start(&options) else { return };
    workload::before_transactions(&mysql, seed());
    let both = SideBySide {
        mysql: &mysql,
        properties: &["provide.transaction.metadata=true"],
        keys: serde_json::json!({ "transaction_metadata": true, "context_headers": true }),
    };
    let Some(report) = both.run(workload::transactions) else { return };
    assert!(report.compared > 1000, "records are missing");
}

fn seed() -> u64 {
    std::env::var("BINLAKE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED)
}

/// Both readers on one server.
struct SideBySide<'a> {
    mysql: &'a MySql,
    /// Of the connector.
    properties: &'a [&'a str],
    /// Of our source.
    keys: serde_json::Value,
}

impl SideBySide<'_> {
    /// Lets both read what is there and then the changes, and compares; panics where a difference has no reason.
    fn run(self, changes: fn(&MySql, u64)) -> Option<Report> {
        let mysql = self.mysql;
        let mut types = column_types(mysql);
        let mut properties = vec![
            // Names that Avro forbids are made legal; AvroConverter refuses them otherwise.
            "schema.name.adjustment.mode=avro",
            "field.name.adjustment.mode=avro",
            // Also TRUNCATE, which it leaves out unless told so.
            "skipped.operations=none",
        ];
        properties.extend(self.properties);
        let mut debezium = Debezium::start(mysql, SOURCE, &properties)?;
        let mut binlake = Binlake::start(mysql, SOURCE, self.keys);
        debezium.wait_for_stream();
        for (topic, rows) in counts(mysql) {
            binlake.wait_for_count(&topic, rows);
        }
        changes(mysql, seed());
        types.extend(column_types(mysql));
        mysql.exec("insert into z_end.sentinel values (1)");
        let last = format!("{SOURCE}.z_end.sentinel");
        debezium.wait_for_topic(&last);
        binlake.wait_for_topic(&last);

        let mut ours = binlake.finish();
        let mut theirs: HashMap<String, Vec<Record>> = HashMap::new();
        for record in debezium.records() {
            theirs.entry(record.topic.clone()).or_default().push(record);
        }
        // The schema changes.
        theirs.remove(SOURCE);
        forget_last_transaction(mysql, [&mut ours, &mut theirs]);
        let report = compare(&ours, &theirs, &types);
        let (text, unknown) = described(&report);
        println!("{text}");
        let seed = seed();
        assert!(
            unknown == 0,
            "{unknown} differences that docs/DEBEZIUM.md does not name, with seed {seed}:\n{text}"
        );
        Some(report)
    }
}

/// The readers are stopped when they have the last row, and its transaction's end may not have come by then.
fn forget_last_transaction(mysql: &MySql, both: [&mut HashMap<String, Vec<Record>>; 2]) {
    let executed = mysql.value("select @@gtid_executed").expect("the server has GTIDs");
    let last = executed.replace(":1-", ":");
    for records in both {
        if let Some(transactions) = records.get_mut(&format!("{SOURCE}.transaction")) {
            let is_last = |key: &[u8]| key.ends_with(last.as_bytes());
            transactions.retain(|record| !record.key.as_deref().is_some_and(is_last));
        }
    }
}

#[test]
fn every_known_difference_is_documented() {
    let document = include_str!("../../docs/DEBEZIUM.md");
    for known in KNOWN {
        let heading = format!("### {}\n", known.heading);
        assert!(document.contains(&heading), "docs/DEBEZIUM.md has no {heading}");
    }
}

/// What was compared and found, and how many differences have no reason.
fn described(report: &Report) -> (String, usize) {
    let mut text = format!(
        "{} records compared ({} of the snapshot, {} tombstones), {} equal\n",
        report.compared, report.snapshot, report.tombstones, report.equal
    );
    let mut classes: BTreeMap<String, Vec<&Difference>> = BTreeMap::new();
    let mut unknown = 0;
    for difference in &report.differences {
        let known = KNOWN.iter().find(|known| (known.covers)(difference));
        unknown += usize::from(known.is_none());
        let reason = known.map_or("WITHOUT A REASON", |known| known.heading);
        classes.entry(format!("{reason}: {}", difference.class())).or_default().push(difference);
    }
    for (class, differences) in classes {
        writeln!(text, "{}x {class}", differences.len()).expect("a string can be written to");
        if !class.starts_with("WITHOUT") {
            continue;
        }
        let mut shown: Vec<(&[u8], &[u8])> = Vec::new();
        for difference in differences {
            let pair = (difference.ours.as_slice(), difference.theirs.as_slice());
            if shown.len() < EXAMPLES_MAX && !shown.contains(&pair) {
                shown.push(pair);
                writeln!(
                    text,
                    "    {}\n      ours   {}\n      theirs {}",
                    difference.topic,
                    readable(pair.0),
                    readable(pair.1)
                )
                .expect("a string can be written to");
            }
        }
    }
    (text, unknown)
}

/// The tables that have rows, as topics.
fn counts(mysql: &MySql) -> Vec<(String, usize)> {
    let tables = mysql.rows(
        "select table_schema, table_name from information_schema.tables
         where table_schema not in ('mysql', 'sys', 'performance_schema', 'information_schema')",
    );
    let mut session = mysql.session();
    let mut counts = Vec::new();
    for names in tables {
        let (database, table) = (text(&names[0]), text(&names[1]));
        let count = session.rows(&format!("select count(*) from `{database}`.`{table}`"));
        let rows: usize = text(&count[0][0]).parse().expect("a number");
        if rows > 0 {
            counts.push((topic(database, table), rows));
        }
    }
    counts
}

fn column_types(mysql: &MySql) -> ColumnTypes {
    let columns = mysql.rows(
        "select table_schema, table_name, column_name, column_type, ifnull(character_set_name, ''), column_default,
           is_nullable from information_schema.columns
         where table_schema not in ('mysql', 'sys', 'performance_schema', 'information_schema')",
    );
    columns
        .iter()
        .map(|column| {
            let mut kind = text(&column[3]).to_owned();
            if !text(&column[4]).is_empty() && text(&column[4]) != "utf8mb4" {
                let _ = write!(kind, " {}", text(&column[4]));
            }
            if text(&column[6]) == "NO" {
                kind.push_str(" not null");
            }
            if let Some(default) = &column[5] {
                let _ = write!(kind, " default {default}");
            }
            ((topic(text(&column[0]), text(&column[1])), text(&column[2]).to_owned()), kind)
        })
        .collect()
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// As both readers name it.
fn topic(database: &str, table: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let name = format!("{SOURCE}.{database}.{table}");
    name.chars().map(|c| if legal(c) { c } else { '_' }).collect()
}
