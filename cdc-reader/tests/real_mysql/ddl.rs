//! DDL of every form between rows: each row comes out as MySQL showed it when it was written, with the columns of that
//! moment, and no table stops. The same on a server that sends names with its table maps and on one that does not, with
//! the reader at work meanwhile and with the reader away.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use cdc_reader::{ReaderError, ReaderMetrics};
use change_log::{LogConfig, LogReader, open_reader};
use mysql_async::{Row, prelude::Queryable};
use schemas::{
    position::Position,
    table_id::{TableId, positions_topic, schemas_topic, tables_topic},
    wire_format::{SchemaReference, read_framing},
};
use tokio_util::sync::CancellationToken;

use super::server::{Database, Running, block_on, shared, start, start_by};

const PATIENCE: Duration = Duration::from_secs(120);

const CREATE: &str = "create table t (id int primary key, a int, b varchar(20), e enum('x','y'))";

/// Statements, then a row into `t`; `?` is its id.
const STEPS: &[(&str, &str)] = &[
    ("do 0", "(id, a, b, e) values (?, 1, 'b', 'y')"),
    (
        "alter table t add column c1 int unsigned not null default 7",
        "(id, c1) values (?, 4294967295)",
    ),
    ("alter table t add f1 varchar(10) first", "(id, f1, a) values (?, 'first', 3)"),
    (
        "alter table t add m1 varchar(10) after a, add m2 smallint unsigned after m1",
        "(id, m1, m2) values (?, 'm', 65535)",
    ),
    ("alter table t add column (p1 int, p2 varchar(5) default 'p')", "(id, p1) values (?, 9)"),
    ("alter table t drop column f1", "(id, a) values (?, 5)"),
    (
        "alter table t rename column a to b, rename column b to a",
        "(id, a, b) values (?, 'was b', 6)",
    ),
    ("alter table t change a bb varchar(30) first", "(id, bb) values (?, 'moved')"),
    (
        "alter table t modify m1 varchar(10) after id, modify column b bigint",
        "(id, m1, b) values (?, 'r', 9223372036854775807)",
    ),
    ("alter table t modify b smallint not null default 0", "(id, b) values (?, -32768)"),
    ("alter table t modify m1 text", "(id, m1) values (?, repeat('x', 300))"),
    (
        "alter table t modify m1 varchar(300), alter column p2 set default 'dd'",
        "(id, m1) values (?, 'back')",
    ),
    ("alter table t modify p1 varchar(20)", "(id, p1) values (?, 'text now')"),
    ("alter table t modify p1 mediumint", "(id, p1) values (?, -3)"),
    ("alter table t convert to character set latin1", "(id, m1) values (?, 'é')"),
    ("alter table t modify m1 varchar(50) character set utf8mb4", "(id, m1) values (?, '한글 🌿')"),
    ("alter table t modify e enum('x','y','z,''q')", "(id, e) values (?, 'z,''q')"),
    ("alter table t modify e enum('w','z,''q','x','y')", "(id, e) values (?, 'x')"),
    ("alter table t add index i (p2), add unique key u (m2)", "(id, m2) values (?, 1)"),
    (
        "create index i2 on t (p1);\ndrop index i on t;\nalter table t rename index i2 to i3",
        "(id, p1) values (?, 2)",
    ),
    (
        "alter table t add g int as (id * 2) stored, add v int generated always as (id + 1) virtual",
        "(id) values (?)",
    ),
    ("alter table t add h int invisible default 5", "(id, h) values (?, 6)"),
    ("alter table t alter index u invisible, add constraint k check (id > 0)", "(id) values (?)"),
    (
        "alter /* rename to x */ table t /*!80013 add column */ vc int /* , drop a */ -- drop b",
        "(id, vc) values (?, 8)",
    ),
    (
        "alter table t add `after` int, comment = 'drop b, rename to x'",
        "(id, `after`) values (?, 1)",
    ),
    (
        "set sql_mode = 'ansi_quotes';\nalter table \"t\" add \"first\" varchar(9) default 'it''s';\nset sql_mode = ''",
        "(id) values (?)",
    ),
    (
        "create table n like t;\nalter table n add n1 int first;\nrename table t to old, n to t;\ndrop table old",
        "(id, n1) values (?, 1)",
    ),
    ("create table other as select id, b from t;\ndrop table other", "(id) values (?)"),
    (
        "alter table t engine = innodb, force;\noptimize table t;\nanalyze table t",
        "(id) values (?)",
    ),
    ("truncate table t", "(id, b) values (?, 1)"),
    (
        "alter table t drop index u, algorithm = inplace;\nalter table t partition by hash (id) partitions 4",
        "(id) values (?)",
    ),
    (
        "alter table t add partition partitions 2;\nalter table t coalesce partition 1",
        "(id) values (?)",
    ),
    ("alter table t remove partitioning", "(id) values (?)"),
    (
        "drop table t;\ncreate table t (k varchar(5) not null default 'k', ID int, note text, primary key (id))",
        "(id, note) values (?, 'anew')",
    ),
    ("alter table t drop primary key, add primary key (id, k)", "(id, k) values (?, 'kk')"),
    (
        "create procedure p() alter table t add x1 int;\ncall p();\ndrop procedure p",
        "(id, x1) values (?, 1)",
    ),
    (
        "create table u like t;\nalter table t rename to t9;\nrename table t9 to t;\ndrop table if exists u, nothing",
        "(id) values (?)",
    ),
    (
        "alter table t drop column note, drop column x1, add x1 varchar(3), add note int",
        "(id, x1, note) values (?, 'x', 2)",
    ),
    (
        "grant select on t to root@localhost;\ncreate view w as select * from t;\ndrop view w",
        "(id) values (?)",
    ),
];

/// Rows by id: each column's name and text, in order.
type Rows = BTreeMap<i64, Vec<(String, Option<String>)>>;

#[test]
fn every_form_of_ddl_is_followed_with_names_from_the_server() {
    follow(shared(), STEPS, true);
}

#[test]
fn every_form_of_ddl_is_followed_without_names_from_the_server() {
    follow(&start(&["--binlog-row-metadata=MINIMAL"]), STEPS, false);
}

/// MariaDB has another syntax for some of them, and passes over comments for MySQL 8.
#[test]
fn every_form_of_ddl_is_followed_on_mariadb_without_names() {
    let other = ["alter index", "80013", "partition"];
    let is_other = |ddl: &str| other.iter().any(|word| ddl.contains(word));
    let steps: Vec<_> = STEPS.iter().copied().filter(|(ddl, _)| !is_other(ddl)).collect();
    follow(&start_by("mariadb.sh", &["--binlog-row-metadata=MINIMAL"]), &steps, false);
}

fn follow(server: &Running, all: &[(&str, &str)], names: bool) {
    block_on(async {
        let mut db = server.database().await;
        db.config.tables = vec![format!("{}.t", db.name)];
        db.run("set sql_mode = ''").await;
        db.run(CREATE).await;
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogConfig::Embedded { path: folder.path().into(), retention_hours: 24 };
        let mut expected = Rows::new();
        let mut written = 0;
        // The reader is at work during the first part, away during the second, and at work again in the third.
        for (part, steps) in all.chunks(all.len().div_ceil(3)).enumerate() {
            let reader = (part != 1).then(|| Reader::start(&db, &log));
            if part != 1 {
                read_until(&log, &db, written).await;
            }
            for (ddl, row) in steps {
                written += 1;
                expected.insert(written, step(&mut db, ddl, row, written).await);
            }
            if let Some(reader) = reader {
                read_until(&log, &db, written).await;
                reader.stop().await;
            }
        }
        let read = rows(&log, &db.name);
        for (id, row) in &expected {
            assert_eq!(read.get(id), Some(row), "after {}", all[*id as usize - 1].0);
        }
        let mut reader = open(&log);
        let history = records(reader.as_mut(), &tables_topic("udon"));
        assert_eq!(history.is_empty(), names, "only a server without names needs it");
    });
}

#[test]
fn unique_key_that_a_ddl_adds_becomes_the_records_key() {
    block_on(async {
        let mut db = shared().database().await;
        db.config.tables = vec![format!("{}.t", db.name)];
        db.run("create table t (id int not null, b int)").await;
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogConfig::Embedded { path: folder.path().into(), retention_hours: 24 };
        let reader = Reader::start(&db, &log);
        read_until(&log, &db, 0).await;
        db.run("insert into t values (1, 1);\nalter table t add unique key (id);\ninsert into t values (2, 2)").await;
        read_until(&log, &db, 2).await;
        reader.stop().await;
        let topic = TableId::new("udon", &db.name, "t").topic();
        let keys: Vec<bool> =
            records(open(&log).as_mut(), &topic).iter().map(|(key, _)| !key.is_empty()).collect();
        assert_eq!(keys, [false, true]);
    });
}

/// Does the DDL, writes the row, and answers how MySQL shows it.
async fn step(db: &mut Database, ddl: &str, row: &str, id: i64) -> Vec<(String, Option<String>)> {
    db.run(ddl).await;
    let row = row.replace('?', &id.to_string());
    db.run(&format!("insert into t {row}")).await;
    let columns: Vec<String> = db
        .connection
        .query(format!(
            "select column_name from information_schema.columns where table_schema = '{}' and table_name = 't'
             order by ordinal_position",
            db.name
        ))
        .await
        .expect("the columns");
    let list: Vec<String> = columns
        .iter()
        .map(|name| format!("cast(`{}` as char character set utf8mb4)", name.replace('`', "``")))
        .collect();
    let found: Option<Row> = db
        .connection
        .query_first(format!("select {} from t where id = {id}", list.join(", ")))
        .await
        .expect("the row");
    let values: Vec<Option<String>> =
        found.expect("it is there").unwrap().into_iter().map(mysql_async::from_value).collect();
    columns.into_iter().zip(values).collect()
}

/// A reader at work.
struct Reader {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), ReaderError>>,
}

impl Reader {
    fn start(db: &Database, log: &LogConfig) -> Self {
        let stop = CancellationToken::new();
        let metrics = ReaderMetrics::new(&prometheus::Registry::new());
        let run = cdc_reader::run(db.config.clone(), log.clone(), stop.clone(), metrics);
        Self { stop, running: tokio::spawn(run) }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.running.await.expect("joins").expect("ends in order");
    }
}

/// Waits until the log has this row (0: the first reading is done); a table that stops fails the test.
async fn read_until(log: &LogConfig, db: &Database, id: i64) {
    let began = Instant::now();
    loop {
        let name = format!("{}.t", db.name);
        if let Some(position) = position(log) {
            assert_eq!(position.stopped.get(&name), None);
            let done = position.snapshots.get(&name).is_some_and(|table| table.done);
            if done && (id == 0 || rows(log, &db.name).contains_key(&id)) {
                return;
            }
        }
        assert!(began.elapsed() < PATIENCE, "row {id} does not come");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn open(log: &LogConfig) -> Box<dyn LogReader> {
    open_reader(log, PATIENCE).expect("opens")
}

fn position(log: &LogConfig) -> Option<Position> {
    let mut reader = open_reader(log, Duration::from_secs(1)).ok()?;
    let stored = records(reader.as_mut(), &positions_topic("udon")).pop()?.1;
    serde_json::from_slice(&stored).ok()
}

/// The rows that were inserted (not those that a snapshot read).
fn rows(log: &LogConfig, database: &str) -> Rows {
    let mut reader = open(log);
    // Before the schemas, which are there when their records are.
    let changes = records(reader.as_mut(), &TableId::new("udon", database, "t").topic());
    let schemas: HashMap<u64, Schema> = records(reader.as_mut(), &schemas_topic("udon"))
        .into_iter()
        .map(|(key, value)| {
            let fingerprint = u64::from_le_bytes(key.try_into().expect("8 bytes"));
            let text = String::from_utf8(value).expect("UTF-8");
            (fingerprint, Schema::parse_str(&text).expect("a schema"))
        })
        .collect();
    let inserted = changes.into_iter().filter_map(|(_, value)| {
        let (reference, mut datum) = read_framing(&value).expect("framed");
        let SchemaReference::Fingerprint(fingerprint) = reference else { panic!("a registry id") };
        let decoder =
            GenericDatumReader::builder(&schemas[&fingerprint]).build().expect("a decoder");
        let envelope: HashMap<_, _> =
            record(decoder.read_value(&mut datum).expect("decodes")).into_iter().collect();
        if envelope["op"] != Value::String("c".into()) {
            return None;
        }
        let Value::Union(_, after) = envelope["after"].clone() else { panic!("no union") };
        let row: Vec<_> =
            record(*after).into_iter().map(|(name, value)| (name, text(value))).collect();
        let id = row.iter().find(|(name, _)| name.eq_ignore_ascii_case("id"))?.1.clone()?;
        Some((id.parse().expect("a number"), row))
    });
    inserted.collect()
}

fn record(value: Value) -> Vec<(String, Value)> {
    match value {
        Value::Record(fields) => fields,
        other => panic!("no record: {other:?}"),
    }
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Union(_, inner) => text(*inner),
        Value::Int(number) => Some(number.to_string()),
        Value::Long(number) => Some(number.to_string()),
        Value::String(text) => Some(text),
        other => panic!("no plain text for {other:?}"),
    }
}

fn records(reader: &mut dyn LogReader, topic: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    if !reader.topics(topic).expect("are listed").iter().any(|found| found.name == topic) {
        return records;
    }
    let (first, end) = reader.bounds(topic, 0).expect("bounds");
    reader.assign(topic, 0, first).expect("assigned");
    let mut next = first;
    while next < end {
        let batch = reader.poll(PATIENCE).expect("polls").expect("has records");
        for span in &batch.records {
            if let (Some(key), Some(value)) = (batch.key(span).or(Some(&[])), batch.value(span)) {
                records.push((key.to_vec(), value.to_vec()));
            }
        }
        next = batch.next_offset;
    }
    reader.unassign(topic, 0).expect("unassigned");
    records
}
