//! Every MySQL type through the reader: the bytes of a row that the snapshot reads equal the bytes of the same row from
//! the binlog, whatever the server's time zone and SQL mode, and both decode (with apache-avro, an independent decoder)
//! to what MySQL itself says.

mod harness;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};
use cdc_reader::{ReaderMetrics, SourceConfig};
use change_log::{LogConfig, LogReader, open_reader};
use harness::{MySql, eventually_some};
use schemas::{
    table_id::schemas_topic,
    wire_format::{SchemaReference, read_framing},
};
use tokio_util::sync::CancellationToken;

const ROWS: usize = 6;

/// Columns of every type; each with values for the six rows.
fn columns() -> Vec<(&'static str, [&'static str; ROWS])> {
    let same = |value: &'static str| [value; ROWS];
    vec![
        ("tinyint", ["-128", "127", "0", "NULL", "1", "-1"]),
        ("tinyint unsigned", ["255", "0", "1", "NULL", "128", "2"]),
        ("bool", ["true", "false", "2", "NULL", "-128", "127"]),
        ("tinyint(1)", ["1", "0", "-1", "NULL", "127", "2"]),
        ("smallint", ["-32768", "32767", "0", "NULL", "1", "-1"]),
        ("smallint unsigned", ["65535", "0", "1", "NULL", "32768", "2"]),
        ("mediumint", ["-8388608", "8388607", "0", "NULL", "1", "-1"]),
        ("mediumint unsigned", ["16777215", "0", "1", "NULL", "8388608", "2"]),
        ("int", ["-2147483648", "2147483647", "0", "NULL", "1", "-1"]),
        ("int unsigned zerofill", ["4294967295", "0", "1", "NULL", "2147483648", "2"]),
        ("bigint", ["-9223372036854775808", "9223372036854775807", "0", "NULL", "1", "-1"]),
        ("bigint unsigned", ["18446744073709551615", "9223372036854775808", "0", "NULL", "1", "2"]),
        ("float", ["1.1", "-3.4e38", "0", "NULL", "1.17549e-38", "16777217"]),
        ("float(7,4)", ["1.1", "-999.9999", "0", "NULL", "0.0001", "2.5"]),
        ("double", ["1.1", "-1.7e308", "0", "NULL", "2.2e-308", "0.1"]),
        ("decimal(10,2)", ["12345678.90", "-0.05", "0", "NULL", "99999999.99", "-99999999.99"]),
        (
            "decimal(38,10)",
            ["1234567890123456789012345678.0123456789", "-1", "0", "NULL", "0.5", "2"],
        ),
        (
            "decimal(65,30)",
            [
                "99999999999999999999999999999999999.999999999999999999999999999999",
                "-99999999999999999999999999999999999.999999999999999999999999999999",
                "0",
                "NULL",
                "0.000000000000000000000000000001",
                "-1.5",
            ],
        ),
        ("bit(1)", ["b'1'", "b'0'", "b'1'", "NULL", "b'0'", "b'1'"]),
        ("bit(9)", ["b'100000001'", "b'0'", "b'111111111'", "NULL", "b'1'", "b'10'"]),
        ("bit(17)", ["b'10000000000000001'", "0", "1", "NULL", "65536", "511"]),
        ("bit(64)", ["~0", "0", "1", "NULL", "256", "2"]),
        (
            "date",
            [
                "'2026-11-22'",
                "'0001-01-01'",
                "'9999-12-31'",
                "NULL",
                "'0000-00-00'",
                "'2026-00-10'",
            ],
        ),
        (
            "time",
            ["'838:59:59'", "'-838:59:59'", "'00:00:00'", "NULL", "'-00:00:01'", "'12:34:56'"],
        ),
        (
            "time(3)",
            ["'838:59:59.000'", "'-00:00:00.001'", "0", "NULL", "'-01:02:03.5'", "'12:34:56.789'"],
        ),
        (
            "time(6)",
            ["'1:00:00.000001'", "'-0:00:00.000001'", "0", "NULL", "'-1:2:3.9'", "'100:00:00'"],
        ),
        (
            "datetime",
            [
                "'2026-11-22 01:02:03'",
                "'1000-01-01'",
                "'9999-12-31 23:59:59'",
                "NULL",
                "'0000-00-00'",
                "'1969-12-31'",
            ],
        ),
        (
            "datetime(3) not null",
            [
                "'2026-11-22 01:02:03.456'",
                "'1000-01-01'",
                "'1969-12-31 23:59:59.999'",
                "'0000-00-00'",
                "'2026-01-01'",
                "'2026-05-00'",
            ],
        ),
        (
            "datetime(6)",
            [
                "'2026-11-22 01:02:03.000001'",
                "'1000-01-01'",
                "'9999-12-31 23:59:59.999999'",
                "NULL",
                "0, 0",
                "'1969-12-31 23:59:59.999999'",
            ],
        ),
        (
            "timestamp null",
            [
                "'2026-07-01 12:00:00'",
                "'2026-01-01 12:00:00'",
                "'2038-01-19 00:00:00'",
                "NULL",
                "'0000-00-00'",
                "'1970-01-02'",
            ],
        ),
        (
            "timestamp(2) null",
            [
                "'2026-07-01 12:00:00.12'",
                "'2026-01-01 12:00:00'",
                "'2038-01-19'",
                "NULL",
                "'0000-00-00'",
                "'1970-01-02'",
            ],
        ),
        (
            "timestamp(6) null",
            [
                "'2026-07-01 12:00:00.000001'",
                "'2026-01-01'",
                "'2038-01-19'",
                "NULL",
                "'1999-12-31'",
                "'1970-01-02'",
            ],
        ),
        ("year", ["2026", "1901", "2155", "NULL", "0", "1999"]),
        ("char(10)", ["'abc'", "''", "'가나다'", "NULL", "'é  '", "'🍜'"]),
        ("varchar(300)", ["'a\\'b'", "''", "repeat('우동', 100)", "NULL", "'x '", "'\\n\\t'"]),
        ("varchar(20) character set latin1", ["'café'", "''", "'€'", "NULL", "'x'", "'ÿ'"]),
        ("text character set euckr", ["'한글'", "''", "'abc'", "NULL", "'x'", "'가'"]),
        ("text character set sjis", ["'日本'", "''", "'abc'", "NULL", "'x'", "'ア'"]),
        ("text character set gbk", ["'中文'", "''", "'abc'", "NULL", "'x'", "'中'"]),
        ("varchar(20) character set utf16", ["'한글'", "''", "'abc'", "NULL", "'🍜'", "'a'"]),
        ("varchar(9) character set ascii", same("'a~'")),
        ("varchar(9) character set dec8", same("'aé'")),
        ("varchar(9) character set cp850", same("'aé'")),
        ("varchar(9) character set hp8", same("'aé'")),
        ("varchar(9) character set koi8r", same("'aя'")),
        ("varchar(9) character set latin2", same("'ał'")),
        ("varchar(9) character set swe7", same("'aÅé'")),
        ("varchar(9) character set ujis", same("'a日丂ｱ'")),
        ("varchar(9) character set hebrew", same("'aש'")),
        ("varchar(9) character set tis620", same("'aก'")),
        ("varchar(9) character set koi8u", same("'aї'")),
        ("varchar(9) character set gb2312", same("'a中'")),
        ("varchar(9) character set greek", same("'aλ'")),
        ("varchar(9) character set cp1250", same("'ař'")),
        ("varchar(9) character set latin5", same("'ağ'")),
        ("varchar(9) character set armscii8", same("'aԱ'")),
        ("varchar(9) character set utf8mb3", same("'a가'")),
        ("varchar(9) character set ucs2", same("'a가'")),
        ("varchar(9) character set cp866", same("'aя'")),
        ("varchar(9) character set keybcs2", same("'ař'")),
        ("varchar(9) character set macce", same("'ař'")),
        ("varchar(9) character set macroman", same("'aé'")),
        ("varchar(9) character set cp852", same("'ař'")),
        ("varchar(9) character set latin7", same("'aė'")),
        ("varchar(9) character set cp1251", same("'aя'")),
        ("varchar(9) character set utf16le", same("'a🍜'")),
        ("varchar(9) character set cp1256", same("'aش'")),
        ("varchar(9) character set cp1257", same("'aė'")),
        ("varchar(9) character set utf32", same("'a🍜'")),
        ("varchar(9) character set geostd8", same("'aა'")),
        ("varchar(9) character set cp932", same("'a日①'")),
        ("varchar(9) character set eucjpms", same("'a日①'")),
        ("varchar(9) character set gb18030", same("'a中🍜'")),
        ("varchar(9) character set big5", same("'a中'")),
        ("text", ["repeat('x', 300)", "''", "'abc'", "NULL", "'x'", "'가'"]),
        ("tinytext", ["'t'", "''", "'abc'", "NULL", "' '", "'가'"]),
        ("longtext", ["repeat('z', 200000)", "''", "'abc'", "NULL", "' '", "'🍜'"]),
        ("mediumtext", ["repeat('y', 70000)", "''", "'abc'", "NULL", "'x'", "'가'"]),
        ("binary(4)", ["x'01020000'", "''", "x'00000000'", "NULL", "x'ff'", "'abcd'"]),
        ("varbinary(300)", ["x'0100'", "''", "repeat(x'ff', 300)", "NULL", "x'00'", "'abc'"]),
        ("char(4) character set binary", ["x'0100'", "''", "x'ff'", "NULL", "x'00'", "'abcd'"]),
        ("tinyblob", ["x'00'", "''", "repeat(x'fe', 255)", "NULL", "'a'", "x'ff'"]),
        ("mediumblob", ["repeat(x'00', 70000)", "''", "x'01'", "NULL", "x'00'", "'abc'"]),
        ("longblob", ["repeat(x'ff', 70000)", "''", "x'01'", "NULL", "x'00'", "'abc'"]),
        ("blob", ["x'0100ff'", "''", "repeat(x'fe', 300)", "NULL", "x'00'", "'abc'"]),
        ("enum('a','b,c','d\\'e','한')", ["'a'", "'b,c'", "'d\\'e'", "NULL", "''", "'한'"]),
        ("enum('','a,','\'\'','\"')", ["''", "'a,'", "'\'\''", "NULL", "1", "'\"'"]),
        ("enum('a','b') character set binary", ["'a'", "'b'", "1", "NULL", "0", "2"]),
        (
            SET_64,
            ["18446744073709551615", "'m63'", "''", "NULL", "9223372036854775809", "'m0,m1,m62'"],
        ),
        ("set('x','y','z')", ["'x'", "'x,z'", "''", "NULL", "'x,y,z'", "'y'"]),
        (
            "json",
            [
                "'{\"b\": [1, 2.5, \"x\", null, true], \"a\": {\"k\": \"v\"}}'",
                "'[]'",
                "'\"text \\\\\" \\\\u0001\"'",
                "NULL",
                "json_array(cast('2026-01-02 03:04:05.5' as datetime(6)), cast(1.50 as decimal(5,2)), 18446744073709551615)",
                "'[1e22, -0.0, 123456789012, {}]'",
            ],
        ),
        (
            "geometry",
            [
                "st_geomfromtext('POINT(1 2)')",
                "st_geomfromtext('LINESTRING(0 0,1 1)', 4326)",
                "NULL",
                "NULL",
                "NULL",
                "NULL",
            ],
        ),
        ("linestring", same("st_geomfromtext('LINESTRING(0 0,1 1,2 4)')")),
        ("polygon srid 4326", same("st_geomfromtext('POLYGON((0 0,0 1,1 1,0 0))', 4326)")),
        ("multipoint", same("st_geomfromtext('MULTIPOINT(0 0,1 1)')")),
        ("multilinestring", same("st_geomfromtext('MULTILINESTRING((0 0,1 1),(2 2,3 3))')")),
        ("multipolygon", same("st_geomfromtext('MULTIPOLYGON(((0 0,0 1,1 1,0 0)))')")),
        (
            "geometrycollection",
            [
                "st_geomfromtext('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))')",
                "st_geomfromtext('GEOMETRYCOLLECTION EMPTY')",
                "NULL",
                "NULL",
                "NULL",
                "NULL",
            ],
        ),
        ("point srid 4326", same("st_geomfromtext('POINT(52.5 13.4)', 4326)")),
        ("point not null", same("st_geomfromtext('POINT(1.5 -2)')")),
        (
            "vector(3)",
            ["to_vector('[1,2.5,-3]')", "NULL", "NULL", "NULL", "NULL", "to_vector('[0,0,0]')"],
        ),
    ]
}

const SET_64: &str = "set('m0','m1','m2','m3','m4','m5','m6','m7','m8','m9','m10','m11','m12','m13','m14','m15',\
    'm16','m17','m18','m19','m20','m21','m22','m23','m24','m25','m26','m27','m28','m29','m30','m31','m32','m33','m34',\
    'm35','m36','m37','m38','m39','m40','m41','m42','m43','m44','m45','m46','m47','m48','m49','m50','m51','m52','m53',\
    'm54','m55','m56','m57','m58','m59','m60','m61','m62','m63')";

/// A type's name without lengths, members and attributes: `TINYINT UNSIGNED`, `DECIMAL`.
fn bare(kind: &str) -> String {
    let kind = kind.to_uppercase();
    let name: String = kind.chars().take_while(|c| c.is_alphanumeric()).collect();
    let rest = kind.rsplit(')').next().unwrap_or_default();
    let binary =
        rest.contains("CHARACTER SET BINARY") && matches!(name.as_str(), "CHAR" | "VARCHAR");
    match (binary, rest.contains("UNSIGNED")) {
        (true, _) => name.replace("CHAR", "BINARY"),
        (_, true) => format!("{name} UNSIGNED"),
        _ => name,
    }
}

/// The types in the first columns of the tables of `docs/TYPES.md`, and the character sets that it lists.
fn documented() -> (BTreeSet<String>, BTreeSet<String>) {
    let document = include_str!("../docs/TYPES.md");
    let tables = document.split("### JSON").next().expect("split has a first part");
    let mut types = BTreeSet::new();
    for row in tables.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| MySQL "))
    {
        let mut depth = 0;
        let cell = row.split('|').nth(1).unwrap_or_default();
        let names = cell.split(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        });
        // "DECIMAL(p,s), p > 38": a condition is no type.
        types.extend(names.map(str::trim).filter(|name| !name.contains(['<', '>'])).map(bare));
    }
    let sets = document.split("Character sets: ").nth(1).and_then(|rest| rest.split('.').next());
    let sets = sets.expect("the character sets are listed").split(',').map(|set| set.trim().into());
    (types, sets.collect())
}

#[test]
fn every_documented_type_and_character_set_has_a_column_here_and_the_other_way_round() {
    let (types, sets) = documented();
    let tested: BTreeSet<String> = columns().iter().map(|(kind, _)| bare(kind)).collect();
    assert_eq!(types, tested);
    let mut tested: BTreeSet<String> = columns()
        .iter()
        .filter_map(|(kind, _)| kind.split_once("character set "))
        .map(|(_, set)| set.into())
        .collect();
    tested.insert("utf8mb4".into());
    assert_eq!(sets, tested);
}

/// Creates the table and fills it; NULL where a value is not allowed by the row's own expression.
fn create(mysql: &MySql, database: &str) {
    let columns = columns();
    let definitions: Vec<String> =
        columns.iter().enumerate().map(|(i, (kind, _))| format!("c{i} {kind}")).collect();
    let mut session = mysql.session();
    session.exec("set sql_mode = '', time_zone = '+00:00'");
    session.exec(&format!("use `{database}`"));
    session.exec(&format!("create table snap (id int primary key, {})", definitions.join(", ")));
    for row in 0..ROWS {
        let values: Vec<&str> = columns
            .iter()
            .map(|(_, values)| if values[row] == "0, 0" { "NULL" } else { values[row] })
            .collect();
        session.exec(&format!("insert into snap values ({row}, {})", values.join(", ")));
    }
}

#[test]
fn snapshot_rows_equal_stream_rows_in_every_server_time_zone() {
    for options in [
        &["--default-time-zone=+00:00"][..],
        &["TZ=America/New_York", "--sql-mode=ANSI"],
        &["TZ=Asia/Kolkata", "--sql-mode=NO_ZERO_DATE,NO_ZERO_IN_DATE,STRICT_TRANS_TABLES"],
    ] {
        let Some(mysql) = MySql::start(options) else { return };
        let zone = options.iter().find_map(|option| option.strip_prefix("TZ="));
        let offset = mysql.value("select timestampdiff(minute, utc_timestamp(), now())");
        let expected: &[&str] = match zone {
            Some("Asia/Kolkata") => &["330"],
            Some(_) => &["-300", "-240"],
            None => &["0"],
        };
        assert!(offset.is_some_and(|offset| expected.contains(&offset.as_str())), "{options:?}");
        let database = mysql.new_database("types");
        create(&mysql, &database);
        let folder = tempfile::tempdir().expect("a folder");
        let log = LogConfig::Embedded { path: folder.path().into(), retention_hours: 24 };
        let config: SourceConfig = serde_json::from_value(serde_json::json!({
            "name": "t", "url": mysql.url(), "tables": [format!("{database}.*")],
        }))
        .expect("a configuration");

        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let stop = CancellationToken::new();
        let metrics = ReaderMetrics::new(&prometheus::Registry::new());
        let running = runtime.spawn(cdc_reader::run(config, log.clone(), stop.clone(), metrics));

        let mut reader = eventually_some(Duration::from_secs(60), "the log", || {
            open_reader(&log, Duration::from_secs(5)).ok()
        });
        let snapshot = rows(reader.as_mut(), &format!("t.{database}.snap"));
        let mut session = mysql.session();
        session.exec("set sql_mode = '', time_zone = '+00:00'");
        session.exec(&format!("use `{database}`"));
        session.exec("create table stream like snap; insert into stream select * from snap");
        let stream = rows(reader.as_mut(), &format!("t.{database}.stream"));
        stop.cancel();
        runtime.block_on(running).expect("joins").expect("the reader stops in order");

        assert_eq!(snapshot.len(), ROWS);
        for (id, from_snapshot) in &snapshot {
            let from_stream = &stream[id];
            for (name, value) in from_snapshot {
                let index: Option<usize> = name.strip_prefix('c').and_then(|n| n.parse().ok());
                let kind = index.map_or("key", |i| columns()[i].0);
                assert_eq!(value, &from_stream[name], "{kind} ({name}) of row {id}, {options:?}");
            }
        }
        compare_with_mysql(&mysql, &database, &stream);
    }
}

/// What MySQL prints for the columns whose Avro value has an obvious text.
fn compare_with_mysql(mysql: &MySql, database: &str, stream: &BTreeMap<i32, Row>) {
    for (i, (kind, _)) in columns().iter().enumerate() {
        let integral =
            kind.contains("int") && !kind.contains("point") && !kind.contains("bigint unsigned")
                || *kind == "bool";
        let text = kind.contains("char") && !kind.contains("set binary")
            || kind.contains("text")
            || kind.contains("enum") && !kind.contains("set binary")
            || kind.starts_with("set(");
        if !integral && !text {
            continue;
        }
        for row in mysql.rows(&format!("select id, c{i} from `{database}`.snap order by id")) {
            let id: i32 = row[0].as_deref().expect("a key").parse().expect("a number");
            let ours = match &stream[&id][&format!("c{i}")] {
                Value::Union(_, inner) => plain(inner),
                other => plain(other),
            };
            let theirs = row[1].clone().map(|text| match kind.contains("zerofill") {
                true => text.trim_start_matches('0').to_owned(),
                false => text,
            });
            let ours = ours.map(|text| match kind.contains("zerofill") {
                true => text.trim_start_matches('0').to_owned(),
                false => text,
            });
            assert_eq!(ours, theirs, "{kind} of row {id}");
        }
    }
}

fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::Int(number) => Some(number.to_string()),
        Value::Long(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        other => panic!("no plain text for {other:?}"),
    }
}

type Row = HashMap<String, Value>;

/// The `after` images of a topic by id, once all rows are there.
fn rows(reader: &mut dyn LogReader, topic: &str) -> BTreeMap<i32, Row> {
    eventually_some(Duration::from_secs(60), topic, || {
        let rows = read_rows(reader, topic)?;
        (rows.len() == ROWS).then_some(rows)
    })
}

fn read_rows(reader: &mut dyn LogReader, topic: &str) -> Option<BTreeMap<i32, Row>> {
    // Before the schemas, which are there when their records are.
    let changes = read_all(reader, topic)?;
    let schemas = read_all(reader, &schemas_topic("t"))?;
    let schemas: HashMap<u64, Schema> = schemas
        .into_iter()
        .map(|(key, value)| {
            let fingerprint = u64::from_le_bytes(key.try_into().expect("8 bytes"));
            let text = String::from_utf8(value).expect("UTF-8");
            (fingerprint, Schema::parse_str(&text).expect("a schema"))
        })
        .collect();
    let mut rows = BTreeMap::new();
    for (_, value) in changes {
        let (reference, mut datum) = read_framing(&value).expect("framed");
        let SchemaReference::Fingerprint(fingerprint) = reference else { panic!("a registry id") };
        let schema = &schemas[&fingerprint];
        let decoder = GenericDatumReader::builder(schema).build().expect("a decoder");
        let Value::Record(envelope) = decoder.read_value(&mut datum).expect("decodes") else {
            panic!("no record")
        };
        assert!(datum.is_empty(), "bytes are left after the envelope");
        let after = envelope.into_iter().find(|(name, _)| name == "after").expect("after").1;
        let Value::Union(_, after) = after else { panic!("after is no union") };
        let Value::Record(fields) = *after else { panic!("after is no record") };
        let row: Row = fields.into_iter().collect();
        let Value::Int(id) = row["id"] else { panic!("id is no int") };
        rows.insert(id, row);
    }
    Some(rows)
}

fn read_all(reader: &mut dyn LogReader, topic: &str) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    if !reader.topics(topic).ok()?.iter().any(|found| found.name == topic) {
        return None;
    }
    let (first, end) = reader.bounds(topic, 0).ok()?;
    reader.assign(topic, 0, first).expect("assigned");
    let (mut records, mut next) = (Vec::new(), first);
    while next < end {
        let batch = reader.poll(Duration::from_secs(10)).expect("polls")?;
        for span in &batch.records {
            let key = batch.key(span).unwrap_or_default().to_vec();
            if let Some(value) = batch.value(span) {
                records.push((key, value.to_vec()));
            }
        }
        next = batch.next_offset;
    }
    reader.unassign(topic, 0).expect("unassigned");
    Some(records)
}
