//! What a source writes for Debezium's consumers besides its tables' records, through the real reader and a log.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use cdc_reader::{ReaderError, ReaderMetrics, SourceConfig};
use change_log::{LogConfig, LogReader, headers, open_reader};
use schemas::{
    position::Position,
    table_id::{positions_topic, schemas_topic},
    wire_format::{SchemaReference, read_framing},
};
use serde_json::{Value as Json, json};
use tokio_util::sync::CancellationToken;

use super::server::{Database, block_on, shared};

const PATIENCE: Duration = Duration::from_secs(60);

/// A record's framed key, framed value, and headers.
type RawRecord = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<u8>);

/// A reader of one database into an embedded log.
struct Source {
    config: SourceConfig,
    log: LogConfig,
    _folder: tempfile::TempDir,
    running: Option<(CancellationToken, tokio::task::JoinHandle<Result<(), ReaderError>>)>,
}

/// A record as JSON, with its topic's own schemas.
#[derive(Debug)]
struct Record {
    key: Json,
    value: Json,
    headers: Vec<(String, String)>,
}

impl Source {
    async fn start(db: &Database, options: Json) -> Self {
        let mut config = serde_json::to_value(&db.config).expect("JSON");
        config["name"] = db.name.clone().into();
        config["commit_interval_ms"] = 10.into();
        for (key, value) in options.as_object().expect("options") {
            config[key] = value.clone();
        }
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogConfig::Embedded { path: folder.path().join("log"), retention_hours: 24 };
        let config = serde_json::from_value(config).expect("a source");
        let mut source = Self { config, log, _folder: folder, running: None };
        source.resume().await;
        source
    }

    async fn resume(&mut self) {
        let stop = CancellationToken::new();
        let metrics = ReaderMetrics::new(&prometheus::Registry::new());
        let run = cdc_reader::run(self.config.clone(), self.log.clone(), stop.clone(), metrics);
        self.running = Some((stop, tokio::spawn(run)));
        // Changes are captured from the first position on.
        self.until("a position", |reader, name| {
            reader.bounds(&positions_topic(name), 0).expect("bounds").1 > 0
        })
        .await;
    }

    async fn stop(&mut self) {
        let (stop, run) = self.running.take().expect("is running");
        stop.cancel();
        run.await.expect("no panic").expect("stops in order");
    }

    async fn until(&self, what: &str, holds: impl Fn(&mut dyn LogReader, &str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut reader = open_reader(&self.log, PATIENCE).expect("a reader");
        while !holds(reader.as_mut(), &self.config.name) {
            assert!(Instant::now() < deadline, "{what} never came");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn until_records(&self, topic: &str, count: usize) -> Vec<Record> {
        self.until(topic, |reader, _| reader.bounds(topic, 0).expect("bounds").1 >= count as i64)
            .await;
        let records = self.records(topic);
        assert_eq!(records.len(), count, "{topic}");
        records
    }

    fn raw(&self, topic: &str) -> Vec<RawRecord> {
        let mut reader = open_reader(&self.log, PATIENCE).expect("a reader");
        let (first, end) = reader.bounds(topic, 0).expect("bounds");
        reader.assign(topic, 0, first).expect("assign");
        let (mut records, mut next) = (Vec::new(), first);
        while next < end {
            let consumed = reader.poll(PATIENCE).expect("poll").expect("records");
            next = consumed.next_offset;
            records.extend(consumed.records.iter().map(|span| {
                let owned = |part: Option<&[u8]>| part.map(<[u8]>::to_vec);
                let headers = consumed.headers(span).to_vec();
                (owned(consumed.key(span)), owned(consumed.value(span)), headers)
            }));
        }
        records
    }

    fn schemas(&self) -> HashMap<u64, Schema> {
        let texts = self.raw(&schemas_topic(&self.config.name));
        let schema = |(key, value, _): RawRecord| {
            let key = u64::from_le_bytes(key?.try_into().ok()?);
            let text = String::from_utf8(value?).ok()?;
            Some((key, Schema::parse_str(&text).expect("parses")))
        };
        texts.into_iter().filter_map(schema).collect()
    }

    fn records(&self, topic: &str) -> Vec<Record> {
        // Before the schemas, which are there when their records are.
        let raw = self.raw(topic);
        let schemas = self.schemas();
        let decode = |framed: Option<Vec<u8>>| -> Json {
            let Some(framed) = framed else { return Json::Null };
            let (reference, mut datum) = read_framing(&framed).expect("framed");
            let SchemaReference::Fingerprint(id) = reference else { panic!("{reference:?}") };
            let reader = GenericDatumReader::builder(&schemas[&id]).build().expect("a reader");
            let value = reader.read_value(&mut datum).expect("decodes");
            assert!(datum.is_empty(), "bytes are left");
            json_of(value)
        };
        let header = |header: Result<(&[u8], &[u8]), _>| {
            let (name, value) = header.expect("whole");
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
            (text(name), text(value))
        };
        raw.into_iter()
            .map(|(key, value, encoded)| Record {
                key: decode(key),
                value: decode(value),
                headers: headers::iter(&encoded).map(header).collect(),
            })
            .collect()
    }

    fn position(&self) -> Position {
        let (_, value, _) =
            self.raw(&positions_topic(&self.config.name)).pop().expect("a position");
        serde_json::from_slice(&value.expect("a value")).expect("JSON")
    }
}

fn json_of(value: Value) -> Json {
    match value {
        Value::Record(fields) => {
            Json::Object(fields.into_iter().map(|(name, value)| (name, json_of(value))).collect())
        }
        Value::Union(_, value) => json_of(*value),
        Value::Array(values) => values.into_iter().map(json_of).collect(),
        Value::String(text) => text.into(),
        Value::Int(number) => number.into(),
        Value::Long(number) => number.into(),
        Value::Boolean(flag) => flag.into(),
        Value::Null => Json::Null,
        other => format!("{other:?}").into(),
    }
}

/// The counts of `transaction` in a topic's envelopes, in order; `None` for null.
fn orders(records: &[Record]) -> Vec<Option<(i64, i64)>> {
    let envelopes = records.iter().filter(|record| !record.value.is_null());
    envelopes
        .map(|record| {
            let transaction = &record.value["transaction"];
            let total = transaction["total_order"].as_i64()?;
            Some((total, transaction["data_collection_order"].as_i64().expect("both")))
        })
        .collect()
}

#[test]
fn transactions_are_told_as_debezium_tells_them() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE orders (id BIGINT PRIMARY KEY, v TEXT);\nCREATE TABLE nokey (a INT);\n\
             INSERT INTO orders VALUES (100, 'from the snapshot')",
        )
        .await;
        let options = json!({"transaction_metadata": true, "tables": [format!("{}.*", db.name)]});
        let source = Source::start(&db, options).await;
        let (name, orders_topic) = (db.name.clone(), format!("{0}.{0}.orders", db.name));
        source.until_records(&orders_topic, 1).await;
        // As in the run of the real Debezium that the goldens are from.
        db.run(
            "START TRANSACTION;\nINSERT INTO orders VALUES (1, 'one'), (2, 'two');\nINSERT INTO nokey VALUES (1);\n\
             UPDATE orders SET v = 'uno' WHERE id = 1;\nUPDATE orders SET id = 10 WHERE id = 1;\n\
             DELETE FROM orders WHERE id = 2;\nCOMMIT;\n\
             TRUNCATE TABLE nokey;\nINSERT INTO nokey VALUES (2)",
        )
        .await;
        let topic = format!("{name}.transaction");
        source
            .until("both transactions", |reader, _| {
                reader.bounds(&topic, 0).expect("bounds").1 >= 4
            })
            .await;
        let told = source.records(&topic);
        // Other tests run on the same server: their transactions begin and end too, without events of ours.
        let told: Vec<&Record> = {
            let ours: Vec<&Json> = told
                .iter()
                .filter(|record| {
                    record.value["event_count"].as_i64().is_some_and(|count| count > 0)
                })
                .map(|record| &record.key["id"])
                .collect();
            told.iter().filter(|record| ours.contains(&&record.key["id"])).collect()
        };
        assert_eq!(told.len(), 4, "{told:?}");
        let collection = |table: &str, count: i64| json!({"data_collection": format!("{name}.{table}"), "event_count": count});
        for (pair, (count, collections)) in told.chunks(2).zip([
            (7, vec![collection("orders", 6), collection("nokey", 1)]),
            (1, vec![collection("nokey", 1)]),
        ]) {
            let (begin, end) = (&pair[0].value, &pair[1].value);
            assert_eq!((&begin["status"], &end["status"]), (&json!("BEGIN"), &json!("END")));
            assert_eq!(begin["id"], end["id"]);
            assert_eq!(begin["ts_ms"], end["ts_ms"]);
            assert_eq!(
                (&begin["event_count"], &begin["data_collections"]),
                (&Json::Null, &Json::Null)
            );
            assert_eq!(end["event_count"], count);
            let found = end["data_collections"].as_array().expect("a list");
            assert_eq!(found.len(), collections.len());
            assert!(collections.iter().all(|collection| found.contains(collection)), "{found:?}");
            assert!(pair.iter().all(|record| record.headers.is_empty()));
        }
        let rows = source.records(&orders_topic);
        let some = |total, table| Some((total, table));
        let wanted = [None, some(1, 1), some(2, 2), some(4, 3), some(5, 4), some(6, 5), some(7, 6)];
        assert_eq!(orders(&rows), wanted);
        assert_eq!(rows[1].value["transaction"]["id"], told[0].key["id"]);
        // TRUNCATE is no transaction with BEGIN.
        let rows = source.records(&format!("{name}.{name}.nokey"));
        assert_eq!(orders(&rows), [some(3, 1), None, some(1, 1)]);
    });
}

#[test]
fn a_restart_inside_a_transaction_tells_it_once_with_all_its_events() {
    const ROWS: i64 = 500;
    block_on(async {
        let mut db = shared().database().await;
        // Nothing is stored, but the binlog has the rows.
        db.run("CREATE TABLE big (id INT PRIMARY KEY, v LONGTEXT) ENGINE = BLACKHOLE").await;
        let options = json!({"transaction_metadata": true, "snapshot": "never"});
        let mut source = Source::start(&db, options).await;
        let name = db.name.clone();
        let topic = format!("{name}.{name}.big");
        db.run(&format!(
            "INSERT INTO big WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) \
             SELECT i, REPEAT('x', 400000) FROM n"
        ))
        .await;
        source.until("a part", |reader, _| reader.bounds(&topic, 0).expect("bounds").1 > 0).await;
        source.stop().await;
        let open =
            source.position().open_transaction.expect("it was stopped inside the transaction");
        let done: u64 = open.rows_done.values().sum();
        assert!(done > 0 && (done as i64) < ROWS, "{open:?}");
        source.resume().await;
        let rows = source.until_records(&topic, ROWS as usize).await;
        let wanted: Vec<_> = (1..=ROWS).map(|n| Some((n, n))).collect();
        assert!(orders(&rows) == wanted, "the orders differ");
        let topic = format!("{name}.transaction");
        let ended =
            |record: &Record| record.key["id"] == *open.id && record.value["status"] == "END";
        source.until("the end", |_, _| source.records(&topic).iter().any(ended)).await;
        let told = source.records(&topic);
        let told: Vec<_> = told.iter().filter(|record| record.key["id"] == *open.id).collect();
        let status: Vec<_> = told.iter().map(|record| record.value["status"].clone()).collect();
        assert_eq!(status, ["BEGIN", "END"]);
        assert_eq!(told[1].value["event_count"], ROWS);
        let count = json!([{"data_collection": format!("{name}.big"), "event_count": ROWS}]);
        assert_eq!(told[1].value["data_collections"], count);
    });
}

#[test]
fn heartbeats_come_and_go_into_a_topic_of_their_own() {
    block_on(async {
        let db = shared().database().await;
        let source = Source::start(&db, json!({"heartbeat_interval_ms": 20})).await;
        let topic = format!("__debezium-heartbeat.{}", db.name);
        source
            .until("heartbeats", |reader, _| reader.bounds(&topic, 0).expect("bounds").1 >= 3)
            .await;
        let beats = source.records(&topic);
        assert!(
            beats
                .iter()
                .all(|beat| beat.key == json!({"serverName": db.name}) && beat.headers.is_empty())
        );
        let times: Vec<_> =
            beats.iter().map(|beat| beat.value["ts_ms"].as_i64().expect("a time")).collect();
        assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= 20), "{times:?}");
    });
}

#[test]
fn context_headers_stand_on_every_record_of_a_table_behind_the_changed_key() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (id INT PRIMARY KEY, v LONGTEXT);\nINSERT INTO t VALUES (1, REPEAT('x', 1100000)), (2, REPEAT('y', 1100000)), (3, 'z')").await;
        let source = Source::start(&db, json!({"context_headers": true})).await;
        let topic = format!("{0}.{0}.t", db.name);
        source.until_records(&topic, 3).await;
        db.run("UPDATE t SET id = 7, v = 'w' WHERE id = 1;\nDELETE FROM t WHERE id = 2;\nTRUNCATE TABLE t").await;
        let records = source.until_records(&topic, 9).await;
        let run_id = records[0].headers.last().expect("headers").1.clone();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let context = vec![
            pair("__debezium.context.connectorLogicalName", &db.name),
            pair("__debezium.context.taskId", "0"),
            pair("__debezium.context.connectorName", "mysql"),
            pair("__debezium.context.runId", &run_id),
        ];
        let changed = [
            None,
            None,
            None,
            Some(("new", 7)),
            Some(("new", 7)),
            Some(("old", 1)),
            None,
            None,
            None,
        ];
        for (i, (record, changed)) in records.iter().zip(changed).enumerate() {
            let mut wanted = context.clone();
            if let Some((side, id)) = changed {
                wanted
                    .insert(0, pair(&format!("__debezium.{side}key"), &format!("{{\"id\":{id}}}")));
            }
            assert_eq!(record.headers, wanted, "record {i}");
        }
    });
}

#[test]
fn without_the_options_there_is_nothing_of_it() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (id INT PRIMARY KEY)").await;
        let source = Source::start(&db, json!({})).await;
        db.run("INSERT INTO t VALUES (1);\nUPDATE t SET id = 2;\nALTER TABLE t ADD COLUMN v INT")
            .await;
        let records = source.until_records(&format!("{0}.{0}.t", db.name), 4).await;
        assert!(orders(&records).iter().all(Option::is_none));
        let headers: Vec<_> = records.iter().map(|record| record.headers.len()).collect();
        assert_eq!(headers, [0, 1, 1, 1]);
        let mut reader = open_reader(&source.log, PATIENCE).expect("a reader");
        let names: Vec<_> =
            reader.topics("").expect("topics").into_iter().map(|t| t.name).collect();
        let name = &db.name;
        let wanted = [positions_topic(name), schemas_topic(name), format!("{name}.{name}.t")];
        assert_eq!(names, wanted);
    });
}

#[test]
fn schema_changes_are_told_with_the_columns_after_them() {
    block_on(async {
        let mut db = shared().database().await;
        let source = Source::start(&db, json!({"schema_changes": true, "snapshot": "never"})).await;
        let (name, topic) = (db.name.clone(), db.name.clone());
        let statements = [
            "CREATE TABLE orders (id bigint unsigned NOT NULL AUTO_INCREMENT PRIMARY KEY, n varchar(20) CHARACTER SET \
             latin1 NOT NULL DEFAULT 'x', p decimal(10,2), st enum('a','b,c') DEFAULT 'a', at timestamp(3) NOT NULL \
             DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), bt bit(3) DEFAULT b'101', j json)",
            "ALTER TABLE orders ADD COLUMN extra text, DROP COLUMN j",
            "TRUNCATE TABLE orders",
            "CREATE INDEX i ON orders (p)",
            "RENAME TABLE orders TO bought",
            "DROP TABLE bought",
        ];
        // The columns are told while nothing else happens on the server, so statement by statement; other tests may
        // write to the same server at any time, and then a record comes without.
        let mut told = 0;
        for statement in statements {
            db.run(statement).await;
            told += usize::from(!statement.starts_with("TRUNCATE"));
            source.until_records(&topic, told).await;
        }
        let records = source.records(&topic);
        let id = |table: &str| format!("\"{name}\".\"{table}\"");
        let wanted = [
            ("orders", statements[0].to_owned(), Some(("CREATE", id("orders")))),
            ("orders", statements[1].to_owned(), Some(("ALTER", id("orders")))),
            ("", statements[3].to_owned(), None),
            ("bought", statements[4].to_owned(), Some(("ALTER", id("bought")))),
            ("bought", format!("DROP TABLE `{name}`.`bought`"), Some(("DROP", id("bought")))),
        ];
        for (record, (table, ddl, change)) in records.iter().zip(wanted) {
            let value = &record.value;
            assert_eq!(record.key, json!({"databaseName": name}));
            assert_eq!((&value["ddl"], &value["databaseName"]), (&json!(ddl), &json!(name)));
            assert_eq!(
                (&value["source"]["table"], &value["source"]["thread"]),
                (&json!(table), &Json::Null)
            );
            let changes = value["tableChanges"].as_array().expect("a list");
            assert_eq!(changes.len(), usize::from(change.is_some()));
            if let Some((kind, id)) = change {
                assert_eq!((&changes[0]["type"], &changes[0]["id"]), (&json!(kind), &json!(id)));
                assert!(kind != "DROP" || changes[0]["table"].is_null());
            }
        }
        // A server of one's own would be idle; on the shared one the statement is tried until nobody disturbs it.
        let mut tables: Vec<Json> = Vec::new();
        for attempt in 0..50 {
            let table = format!("t{attempt}");
            db.run(&statements[0].replacen("orders", &table, 1)).await;
            told += 1;
            let records = source.until_records(&topic, told).await;
            let described = &records.last().expect("a record").value["tableChanges"][0]["table"];
            if !described.is_null() {
                tables.push(described.clone());
                break;
            }
        }
        let table = tables.pop().expect("one of them was described");
        assert_eq!(
            (&table["defaultCharsetName"], &table["primaryKeyColumnNames"]),
            (&json!("utf8mb4"), &json!(["id"]))
        );
        // As Debezium 3.6.3 told them of the same columns.
        let column = |column: &Json| {
            let fields = [
                "name",
                "jdbcType",
                "typeName",
                "charsetName",
                "length",
                "scale",
                "optional",
                "autoIncremented",
                "generated",
                "defaultValueExpression",
                "enumValues",
            ];
            fields.map(|field| column[field].clone())
        };
        let columns: Vec<_> =
            table["columns"].as_array().expect("columns").iter().map(column).collect();
        let wanted = json!([
            ["id", -5, "BIGINT UNSIGNED", null, null, null, false, true, true, null, null],
            ["n", 12, "VARCHAR", "latin1", 20, null, false, false, false, "x", null],
            ["p", 3, "DECIMAL", null, 10, 2, true, false, false, null, null],
            ["st", 1, "ENUM", "utf8mb4", 1, null, true, false, false, "a", ["'a'", "'b,c'"]],
            [
                "at",
                2014,
                "TIMESTAMP",
                null,
                3,
                null,
                false,
                true,
                true,
                "1970-01-01 00:00:00",
                null
            ],
            ["bt", -7, "BIT", null, 3, null, true, false, false, "101", null],
            ["j", 1111, "JSON", null, null, null, true, false, false, null, null],
        ]);
        assert_eq!(json!(columns), wanted);
    });
}
