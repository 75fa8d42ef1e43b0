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
    let seed =
        std::env::var("BINLAKE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let Some(mysql) = MySql::start(&[]) else { return };
    workload::before(&mysql, seed);
    let mut types = column_types(&mysql);
    let properties = [
        // Names that Avro forbids are made legal; AvroConverter refuses them otherwise.
        "schema.name.adjustment.mode=avro",
        "field.name.adjustment.mode=avro",
        // Also TRUNCATE, which it leaves out unless told so.
        "skipped.operations=none",
        // Four headers on every record, which we write when told so.
        "extended.headers.enabled=false",
    ];
    let Some(mut debezium) = Debezium::start(&mysql, SOURCE, &properties) else { return };
    let mut binlake = binlake::Binlake::start(&mysql, SOURCE, serde_json::json!({}));
    debezium.wait_for_stream();
    for (topic, rows) in counts(&mysql) {
        binlake.wait_for_count(&topic, rows);
    }
    workload::during(&mysql, seed);
    types.extend(column_types(&mysql));
    debezium.wait_for_topic(&format!("{SOURCE}.z_end.sentinel"));
    binlake.wait_for_topic(&format!("{SOURCE}.z_end.sentinel"));

    let mut theirs: HashMap<String, Vec<Record>> = HashMap::new();
    for record in debezium.records() {
        theirs.entry(record.topic.clone()).or_default().push(record);
    }
    theirs.remove(SOURCE);
    let report = compare(&binlake.finish(), &theirs, &types);
    let (text, unknown) = described(&report);
    println!("{text}");
    assert!(
        unknown == 0,
        "{unknown} differences that docs/DEBEZIUM.md does not name, with seed {seed}:\n{text}"
    );
    assert!(report.compared > 5000 && report.snapshot > 500, "records are missing:\n{text}");
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
