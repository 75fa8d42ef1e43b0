//! Partial row images and JSON differences: whatever the binlog leaves out, the records give the server's rows.
//!
//! `BINLAKE_TEST_SEED=n` runs one seed again.

use std::path::Path;

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use cdc_reader::{
    binlog::{
        event::{EventHeader, HEADER_LENGTH, kind},
        table_map,
    },
    encode::{
        envelope::{EnvelopeParts, SourceBlock},
        partial_rows::{AFTER_ABSENT, BEFORE_ABSENT, OLD_KEY},
        plan::EncodePlan,
        row::RowScratch,
        rows_event::{RowsContext, encode_rows_event, lacks_defaults},
    },
    mysql::{insert_defaults, place::binlog_end},
    snapshot::{
        avro_row::RowWriter,
        chunk_plan::ChunkRange,
        chunk_read::{Overflow, read_chunk},
    },
    table_filter::TableFilter,
};
use change_log::{EncodedBatch, EncodedRecord, TopicHandle, headers};
use schemas::{avro_schema::AvroOptions, wire_format::read_framing};

use super::server::{Database, block_on, shared};

/// The row of a table: one Avro value per column.
type Row = Vec<Value>;

/// What the records of one table make, as a reader of the log would keep it.
pub struct Model {
    table: String,
    pub plan: Option<EncodePlan>,
    rows: Vec<(Vec<u8>, Row)>,
    /// Changed rows that lacked columns.
    lacking: usize,
    pub differences: usize,
}

impl Model {
    pub fn new(table: &str) -> Self {
        Self { table: table.into(), plan: None, rows: Vec::new(), lacking: 0, differences: 0 }
    }

    /// Takes what the binlog files have of the table from `from` on.
    pub async fn follow(&mut self, db: &mut Database, folder: &Path, from: &str) {
        let filter = TableFilter::new(&db.config.tables).expect("valid");
        let defaults = insert_defaults::load(&mut db.connection, &db.server, &filter).await;
        let defaults = defaults.expect("loads");
        let defaults = &defaults[&format!("{}.{}", db.name, self.table)];
        let mut files: Vec<_> = std::fs::read_dir(folder.join("data"))
            .expect("lists")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .filter(|name| name.starts_with("binlog.0") && name.as_str() >= from)
            .collect();
        files.sort();
        let mut keep = false;
        for name in files {
            let file = std::fs::read(folder.join("data").join(name)).expect("reads");
            let mut at = 4;
            while at < file.len() {
                let header = EventHeader::parse(&file[at..]).expect("a header");
                let end = at + header.size as usize;
                let body = &file[at + HEADER_LENGTH..end - 4];
                match header.kind {
                    kind::TABLE_MAP => {
                        let (database, table) = table_map::table_name(body).expect("a name");
                        keep = database == db.name.as_bytes() && table == self.table.as_bytes();
                        if keep {
                            let map = table_map::parse(body).expect("a table map");
                            let key: Vec<String> = db
                                .table(&self.table.clone())
                                .await
                                .schema
                                .key_columns()
                                .map(|column| column.name.clone())
                                .collect();
                            let options = AvroOptions::default();
                            let plan = EncodePlan::new(&map, "udon", &key, options);
                            self.plan = Some(plan.expect("a plan"));
                        }
                    }
                    kind::WRITE_ROWS..=kind::DELETE_ROWS | kind::PARTIAL_UPDATE_ROWS if keep => {
                        self.differences += usize::from(header.kind == kind::PARTIAL_UPDATE_ROWS);
                        let plan = self.plan.as_ref().expect("a table map came before");
                        if lacks_defaults(plan, header.kind, body) {
                            self.plan = Some(plan.clone().with_defaults(defaults));
                        }
                        let batch = self.encode(header.kind, body).expect("encodes");
                        for record in &batch.records {
                            self.apply(&batch, record);
                        }
                    }
                    _ => {}
                }
                at = end;
            }
        }
    }

    pub fn encode(&self, event_kind: u8, body: &[u8]) -> Result<EncodedBatch, String> {
        let mut batch = EncodedBatch::default();
        let mut parts = EnvelopeParts::default();
        let block = SourceBlock {
            version: "1",
            source: "udon",
            snapshot: "false",
            database: "d",
            table: "t",
            committed_at_us: 0,
            server_id: 1,
            gtid: "",
            file: "f",
            offset: 4,
            thread: 0,
        };
        parts.fill(&block, 0);
        let plan = self.plan.as_ref().expect("a plan");
        let context = RowsContext {
            plan,
            topic: TopicHandle(0),
            timestamp_ms: 0,
            skip_rows: 0,
            headers: &[],
        };
        let mut scratch = RowScratch::default();
        encode_rows_event(&context, event_kind, body, &mut parts, &mut scratch, &mut batch, |_| {})
            .map_err(|error| error.to_string())?;
        Ok(batch)
    }

    fn apply(&mut self, batch: &EncodedBatch, record: &EncodedRecord) {
        let Some(value) = record.value.clone() else {
            let mut headers = headers::iter(&batch.bytes[record.headers.clone()]).flatten();
            assert!(
                headers.all(|(name, _)| !name.starts_with(b"binlake.")),
                "a tombstone is no row"
            );
            return;
        };
        let plan = self.plan.as_ref().expect("a plan");
        let schema = Schema::parse_str(&plan.schemas.value.text).expect("parses");
        let (_, datum) = read_framing(&batch.bytes[value]).expect("framed");
        let envelope = read(&schema, datum);
        let field = |name: &str| {
            let Value::Record(fields) = &envelope else { panic!("a record") };
            fields.iter().find(|(field, _)| field == name).expect("the field").1.clone()
        };
        let row = |name: &str| -> Option<Row> {
            let Value::Union(_, row) = field(name) else { panic!("a union") };
            match *row {
                Value::Record(fields) => Some(fields.into_iter().map(|(_, value)| value).collect()),
                _ => None,
            }
        };
        let header = |wanted: &str| {
            let mut all =
                headers::iter(&batch.bytes[record.headers.clone()]).map(|h| h.expect("reads"));
            all.find(|(name, _)| *name == wanted.as_bytes()).map(|(_, value)| value.to_vec())
        };
        let is_absent = |bitmap: &Option<Vec<u8>>, i: usize| {
            bitmap.as_ref().is_some_and(|bytes| bytes[i / 8] >> (i % 8) & 1 == 1)
        };
        let key = record.key.clone().map(|key| batch.bytes[key].to_vec()).unwrap_or_default();
        let Value::String(op) = field("op") else { panic!("a text") };
        let (before, before_absent) = (row("before"), header(BEFORE_ABSENT));
        let (after, after_absent) = (row("after"), header(AFTER_ABSENT));
        let fits = |kept: &(Vec<u8>, Row), key: &[u8]| {
            kept.0 == key
                && before.as_ref().is_none_or(|before| {
                    let same = |(i, (old, now)): (usize, (&Value, &Value))| {
                        is_absent(&before_absent, i) || old == now
                    };
                    kept.1.iter().zip(before).enumerate().all(same)
                })
        };
        let place = |rows: &[(Vec<u8>, Row)], key: &[u8]| {
            let place = rows.iter().position(|kept| fits(kept, key));
            place.unwrap_or_else(|| panic!("{op} {key:?}: no row like {before:?} in {rows:?}"))
        };
        match op.as_str() {
            "d" => {
                let at = place(&self.rows, &key);
                self.rows.remove(at);
            }
            "c" => {
                let mut row = after.expect("an insert has a row");
                if after_absent.is_some() {
                    self.lacking += 1;
                    let old_key = header(OLD_KEY).expect("the old key is told");
                    let at = place(&self.rows, &old_key);
                    fill(&mut row, &self.rows[at].1, |i| is_absent(&after_absent, i));
                }
                assert!(key.is_empty() || self.rows.iter().all(|kept| kept.0 != key));
                self.rows.push((key, row));
            }
            "u" => {
                let at = place(&self.rows, &key);
                let mut row = after.expect("an update has a row");
                self.lacking += usize::from(after_absent.is_some());
                fill(&mut row, &self.rows[at].1, |i| is_absent(&after_absent, i));
                self.rows[at].1 = row;
            }
            other => panic!("{other}"),
        }
    }

    /// The rows are those of the server.
    pub async fn check(&self, db: &mut Database) {
        let table = db.table(&self.table).await;
        let mut writer = RowWriter::new(&table, AvroOptions::default());
        let range = ChunkRange { after: None, rows: 100_000, ..Default::default() };
        let read =
            read_chunk(db.rows(), &table, range, usize::MAX, Overflow::CutShort, &mut writer)
                .expect("reads");
        let plan = self.plan.as_ref().expect("a plan");
        let row_schema = row_schema(&plan.schemas.value.text);
        let mut theirs: Vec<String> = read
            .rows
            .iter()
            .map(|(_, row)| match self::read(&row_schema, &read.bytes[row.clone()]) {
                Value::Record(fields) => {
                    let values: Row = fields.into_iter().map(|(_, value)| value).collect();
                    format!("{values:?}")
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let mut ours: Vec<String> = self.rows.iter().map(|(_, row)| format!("{row:?}")).collect();
        theirs.sort();
        ours.sort();
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs);
        }
    }
}

fn fill(row: &mut Row, base: &Row, is_absent: impl Fn(usize) -> bool) {
    for (i, value) in row.iter_mut().enumerate().filter(|(i, _)| is_absent(*i)) {
        value.clone_from(&base[i]);
    }
}

fn read(schema: &Schema, datum: &[u8]) -> Value {
    let reader = GenericDatumReader::builder(schema).build().expect("a reader");
    reader.read_value(&mut &datum[..]).expect("is Avro")
}

/// The schema of the envelope's row.
fn row_schema(envelope: &str) -> Schema {
    let envelope: serde_json::Value = serde_json::from_str(envelope).expect("JSON");
    Schema::parse_str(&envelope["fields"][0]["type"][1].to_string()).expect("parses")
}

pub fn seed() -> u64 {
    let given = std::env::var("BINLAKE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(0..1 << 32));
    println!("BINLAKE_TEST_SEED={seed}");
    seed
}

/// Columns with every kind of default that an image may leave out.
const COLUMNS: &str = r"part VARCHAR(5) NOT NULL, id INT NOT NULL, a INT DEFAULT 7, b VARCHAR(30) NOT NULL DEFAULT 'd''x',
  c TEXT, bl BLOB, e ENUM('x','y') NOT NULL DEFAULT 'y', e0 ENUM('x','y') NOT NULL, d DECIMAL(10,2) DEFAULT 1.50,
  dt DATETIME(3) DEFAULT '2020-01-02 03:04:05.678', da DATE NOT NULL DEFAULT '2001-02-03', zd DATE DEFAULT '0000-00-00',
  bits BIT(9) DEFAULT b'100000001', bit1 BIT(1) NOT NULL, s SET('p','q') DEFAULT 'p,q', t TIME(2) DEFAULT '-10:00:01.25',
  y YEAR DEFAULT 1999, dbl DOUBLE DEFAULT 0.1, bu BIGINT UNSIGNED DEFAULT 18446744073709551615, nn INT NOT NULL,
  nt TEXT NOT NULL, ndt DATETIME NOT NULL, nb BINARY(3) NOT NULL, ex INT DEFAULT (3 + 4), inv INT INVISIBLE DEFAULT -5,
  g INT AS (a + 1) STORED, v INT AS (a + 2) VIRTUAL,
  ts TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3), j JSON, k JSON";

fn assignment(random: &mut fastrand::Rng) -> String {
    let n = random.i32(0..100);
    match random.u8(0..13) {
        0 => "a = NULL".into(),
        1 => format!("a = {n}"),
        2 => format!("b = 'text {n}'"),
        3 => format!("c = '{}'", "c".repeat(n as usize)),
        4 => "c = NULL, bl = NULL".into(),
        5 => format!("bl = X'00{n:02}FF'"),
        6 => "e = 'x', e0 = 'y'".into(),
        7 => format!("d = {n}.25, dbl = {n}.5"),
        8 => format!("dt = '2021-01-01 00:00:00.{n:03}', da = '2022-01-01'"),
        9 => format!("bits = {n}, bit1 = 1, s = 'q', t = '{n}:00:00', bu = {n}"),
        10 => format!("nn = {n}, nt = 'n{n}', nb = 'ab'"),
        11 => format!("j = '{{\"n\": {n}}}'"),
        _ => "k = NULL".into(),
    }
}

fn change(table: &str, keys: i32, random: &mut fastrand::Rng) -> String {
    let key = |random: &mut fastrand::Rng| (["p", "q"][random.usize(0..2)], random.i32(0..keys));
    let (part, id) = key(random);
    let filter = match random.u8(0..4) {
        0 => format!("part = '{part}' AND id BETWEEN {id} AND {}", id + 4),
        _ => format!("part = '{part}' AND id = {id}"),
    };
    match random.u8(0..12) {
        0..3 => format!("INSERT IGNORE INTO {table} (part, id) VALUES ('{part}', {id})"),
        3 => format!(
            "INSERT IGNORE INTO {table} (id, part, c, a, k) VALUES ({id}, '{part}', 'c{id}', {id}, '[1]'), \
             ({}, '{part}', NULL, NULL, NULL)",
            id + 1
        ),
        4 => format!("REPLACE INTO {table} (part, id, e) VALUES ('{part}', {id}, 'x')"),
        5 => format!(
            "INSERT IGNORE INTO {table} (part, id, a) VALUES ('{part}', {id}, 1) ON DUPLICATE KEY UPDATE a = 2, b = 'dup'"
        ),
        6 => format!("DELETE FROM {table} WHERE {filter}"),
        7 => {
            let (part, id) = key(random);
            format!("UPDATE IGNORE {table} SET part = '{part}', id = {id} WHERE {filter} LIMIT 1")
        }
        _ => format!("UPDATE IGNORE {table} SET {} WHERE {filter}", assignment(random)),
    }
}

async fn random_changes(key: &str, steps: usize, keyed: bool) {
    let seed = seed();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut db = shared().database().await;
    db.run("SET sql_mode = ''").await;
    db.run(&format!("CREATE TABLE t ({COLUMNS}{key})")).await;
    db.run("FLUSH BINARY LOGS").await;
    let from = binlog_end(&mut db.connection, &db.server).await.expect("a place");
    for step in 0..steps {
        if step % 5 == 0 {
            let image = ["MINIMAL", "NOBLOB", "FULL", "MINIMAL"][random.usize(0..4)];
            db.run(&format!("SET SESSION binlog_row_image = '{image}'")).await;
        }
        db.run(&change("t", 12, &mut random)).await;
    }
    let mut model = Model::new("t");
    model.follow(&mut db, &shared().folder, &from.file).await;
    model.check(&mut db).await;
    assert_eq!(model.lacking > 20, keyed, "{} records lacked columns", model.lacking);
}

#[test]
fn rows_of_any_image_are_the_servers_with_a_primary_key() {
    block_on(random_changes(", PRIMARY KEY (id, part)", 600, true));
}

#[test]
fn rows_of_any_image_are_the_servers_with_a_unique_key_only() {
    block_on(random_changes(", UNIQUE KEY (part, id)", 300, true));
}

#[test]
fn rows_of_any_image_are_whole_without_a_key() {
    block_on(random_changes(", KEY (part, id)", 300, false));
}

#[test]
fn table_with_a_nullable_unique_key_has_whole_images() {
    block_on(random_changes(", UNIQUE KEY (part, a, id)", 200, false));
}
