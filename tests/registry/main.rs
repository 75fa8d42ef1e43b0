//! A real schema registry between the reader and everybody else: other people's consumers read the topics by it, and it
//! may be away, refuse a schema, or forget everything.

// Every test binary compiles the harness and uses a part of it.
#![allow(missing_docs)]

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../scenario/mod.rs"]
mod scenario;

use std::{process::Command, time::Duration};

use harness::{Kafka, MySql, Python, Registry, eventually, script_path};
use scenario::{CATCH_UP, Scenario};
use serde_json::Value;

const CONSUMER_TIMEOUT: Duration = Duration::from_secs(120);

/// A source whose records are named by the registry.
fn scenario(
    mysql: &MySql,
    kafka: &Kafka,
    registry: &Registry,
    source: &str,
    database: &str,
) -> Scenario {
    let log = format!(
        "[change_log]\nkind = \"kafka\"\nbootstrap_servers = \"{}\"\nschema_registry_url = \"{}\"\n",
        kafka.bootstrap_servers(),
        registry.url()
    );
    Scenario::new(mysql, source, &[&format!("{database}.*")], &log)
}

/// Asks the registry by `curl`'s means: another program than ours.
fn ask(python: &Python, registry: &Registry, method: &str, path: &str, body: &str) -> Value {
    let url = format!("{}{path}", registry.url());
    let said = python.run("ask_registry.py", &[method, &url, body], CONSUMER_TIMEOUT);
    serde_json::from_str(&said).expect("JSON")
}

#[test]
fn other_peoples_consumers_read_the_topics_by_the_registry() {
    let (Some(kafka), Some(mysql), Some(python), Some(registry)) =
        (Kafka::shared(), MySql::shared(), Python::shared(), Registry::start())
    else {
        return;
    };
    let database = mysql.new_database("registry");
    mysql.exec(&format!(
        "CREATE TABLE {database}.orders (id BIGINT PRIMARY KEY, total DECIMAL(10,2) NOT NULL, note VARCHAR(20));
         INSERT INTO {database}.orders VALUES (1, 10.50, 'one'), (2, 20.00, NULL)"
    ));
    let scenario = scenario(mysql, kafka, &registry, "reg-read", &database);
    let up = scenario.start("up");
    scenario
        .wait_for_query(&format!("SELECT count(*) FROM \"reg-read\".{database}.orders"), &["2"]);
    mysql.exec(&format!(
        "UPDATE {database}.orders SET note = 'two' WHERE id = 2;
         DELETE FROM {database}.orders WHERE id = 1;
         ALTER TABLE {database}.orders ADD COLUMN paid BOOLEAN;
         INSERT INTO {database}.orders VALUES (3, 30.00, 'three', TRUE)"
    ));
    scenario.verify();

    let topic = format!("reg-read.{database}.orders");
    let (servers, url) = (kafka.bootstrap_servers(), registry.url());
    let arguments = [servers.as_str(), url.as_str(), topic.as_str(), "5"];
    let said = python.run("read_topic.py", &arguments, CONSUMER_TIMEOUT);
    let records: Vec<Value> =
        said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let seen: Vec<(&str, i64)> = records
        .iter()
        .map(|r| (r["op"].as_str().expect("an operation"), r["key"]["id"].as_i64().expect("an id")))
        .collect();
    assert_eq!(seen, [("r", 1), ("r", 2), ("u", 2), ("d", 1), ("c", 3)]);
    assert_eq!(records[0]["row"]["total"], "10.50");
    assert_eq!(records[2]["row"]["note"], "two");
    assert!(records[2]["row"].get("paid").is_none() && records[4]["row"]["paid"] == 1, "{said}");

    let output = Command::new(script_path("debezium.sh"))
        .args(["java", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/registry/Consumer.java")])
        .args(arguments)
        .output()
        .expect("bash runs");
    let (said, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    let operations: Vec<&str> = said.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(operations, ["r", "r", "u", "d", "c"], "{said}{complained}");
    assert!(said.contains("\"note\": \"two\"") && said.contains("d null"), "{said}");
    drop(up);
}

#[test]
fn a_registry_that_is_away_holds_up_new_schemas_only() {
    let (Some(kafka), Some(mysql), Some(mut registry)) =
        (Kafka::shared(), MySql::shared(), Registry::start())
    else {
        return;
    };
    let database = mysql.new_database("away");
    mysql.exec(&format!("CREATE TABLE {database}.t (id INT PRIMARY KEY, v INT); INSERT INTO {database}.t VALUES (1, 1)"));
    let scenario = scenario(mysql, kafka, &registry, "reg-away", &database);
    let reader = scenario.start("reader");
    let sink = scenario.start("sink");
    scenario.verify();
    registry.stop();
    // Known schemas are in the log: neither a running reader nor one that starts again needs the registry for them, nor
    // does a sink.
    mysql.exec(&format!("INSERT INTO {database}.t VALUES (2, 2)"));
    scenario.verify();
    drop((reader, sink));
    let (mut reader, sink) = (scenario.start("reader"), scenario.start("sink"));
    mysql.exec(&format!("INSERT INTO {database}.t VALUES (3, 3)"));
    scenario.verify();
    // A new schema waits, and comes when the registry does.
    mysql.exec(&format!(
        "ALTER TABLE {database}.t ADD COLUMN w INT; INSERT INTO {database}.t VALUES (4, 4, 4)"
    ));
    eventually(CATCH_UP, "the reader says that it waits", || {
        reader.stderr().contains("waiting for the schema registry")
    });
    registry.start_again();
    scenario.verify();
    let last = format!("SELECT w FROM \"reg-away\".{database}.t WHERE id = 4");
    assert_eq!(scenario.query(&last), ["4"]);
    // One that has lost everything gives its numbers anew. A record that names another schema than it means must not be.
    registry.stop();
    registry.forget();
    registry.start_again();
    mysql.exec(&format!(
        "ALTER TABLE {database}.t ADD COLUMN x INT; INSERT INTO {database}.t VALUES (5, 5, 5, 5)"
    ));
    let status = reader.wait_exit(CATCH_UP);
    assert!(!status.success() && reader.stderr().contains("was made anew"), "{}", reader.stderr());
    assert_eq!(scenario.query(&format!("SELECT count(*) FROM \"reg-away\".{database}.t")), ["4"]);
    drop(sink);
}

#[test]
fn a_refused_schema_stops_its_table_and_no_other() {
    let (Some(kafka), Some(mysql), Some(python), Some(registry)) =
        (Kafka::shared(), MySql::shared(), Python::shared(), Registry::start())
    else {
        return;
    };
    let database = mysql.new_database("refused");
    mysql.exec(&format!(
        "CREATE TABLE {database}.strict (id INT PRIMARY KEY, v INT NOT NULL);
         CREATE TABLE {database}.free (id INT PRIMARY KEY, v INT NOT NULL);
         INSERT INTO {database}.strict VALUES (1, 1); INSERT INTO {database}.free VALUES (1, 1)"
    ));
    let scenario = scenario(mysql, kafka, &registry, "reg-refused", &database);
    let up = scenario.start("up");
    scenario.verify();
    let config = format!("/config/reg-refused.{database}.strict-value");
    ask(python, &registry, "PUT", &config, "{\"compatibility\": \"FULL\"}");
    // Readers of the old schema could not read a NOT NULL column without a default.
    for table in ["strict", "free"] {
        mysql.exec(&format!(
            "ALTER TABLE {database}.{table} ADD COLUMN w INT NOT NULL; INSERT INTO {database}.{table} VALUES (2, 2, 2)"
        ));
    }
    let of = |table: &str| format!("SELECT count(*) FROM \"reg-refused\".{database}.{table}");
    scenario.wait_for_query(&of("free"), &["2"]);
    let log = up.stderr();
    let sentence = log
        .lines()
        .find(|line| line.contains("table stopped") && line.contains("strict"))
        .unwrap_or_else(|| panic!("no sentence in {log}"));
    assert!(sentence.contains("compatib") && sentence.contains("strict-value"), "{sentence}");
    assert_eq!(scenario.query(&of("strict")), ["1"]);
    drop(up);
}
