//! Rule 2 of the design: a snapshot's bytes are the stream's bytes, for every type.

use cdc_reader::{
    binlog::{
        byte_reader::{take, take_le, take_length},
        event::{EventHeader, HEADER_LENGTH, kind},
        table_map,
    },
    encode::{
        plan::EncodePlan,
        row::{RowScratch, encode_row},
    },
    mysql::place::binlog_end,
    snapshot::{
        avro_row::RowWriter,
        chunk_plan::ChunkRange,
        chunk_read::{Overflow, read_chunk},
    },
};
use mysql_async::prelude::Queryable;
use schemas::{
    avro_schema::{AvroOptions, envelope_schema, key_schema},
    position::BinlogPlace,
    table_schema::TableSchema,
};

use super::server::{Database, EVERY_TYPE, block_on, shared};

const ROWS: &str = r#"
INSERT INTO every_type (id) VALUES (1);
INSERT INTO every_type (id, ti, tiu, b, si, siu, mi, miu, i, iu, bi, biu, f, f74, f53, d, r, dec52, dec38, dec65, decz)
 VALUES (18446744073709551615, -128, 255, 1, -32768, 65535, -8388608, 16777215, -2147483648, 4294967295,
 -9223372036854775808, 18446744073709551615, 1.1, 1.1, 1e300, -0.1, 1e22, -999.99, -0.0000000001,
 -99999999999999999999999999999999999.999999999999999999999999999999, 0.005),
 (3, 127, 0, 0, 32767, 0, 8388607, 0, 2147483646, 0, 9223372036854775807, 9223372036854775808, -3.4e38, 0, 0, 0, -1e-300,
 0, 9999999999999999999999999999.9999999999, 0.000000000000000000000000000001, 1234567.891);
INSERT INTO every_type (id, bit1, bit9, bit64, da, t0, t6, dt0, dt3, dt6, ts0, ts2, ts6, y)
 VALUES (4, b'1', b'100000001', 0xFF00000000000001, '2024-02-29', '-838:59:59', '-00:00:00.000001', '1000-01-01',
 '2024-02-29 23:59:59.999', '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07', '2024-10-27 01:30:00.25',
 '1970-01-01 00:00:01.000001', 2155),
 (5, b'0', b'0', 0, '0000-00-00', '838:59:59', '00:00:00', '0000-00-00 00:00:00', '2024-00-00 00:00:00', '0000-00-00',
 '0000-00-00 00:00:00', '0000-00-00', '0000-00-00', 0);
INSERT INTO every_type (id, c, c0, nvc, vc, vl, vs, vu, tt, tx, mt, lt, cb, bin4, bin255, vb, bl, lb, e, e2, s)
 VALUES (6, 'pad  ', '', 'ñ', '🍜 우동', 'café €', '日本表ソ', '한글', 't', REPEAT('x', 60000), 'm', REPEAT('y', 100000), X'0100',
 X'01020000', 'a', X'00FF00', X'', X'DEADBEEF', 'b''c', 'ü', 'x,z'),
 (7, '', NULL, '', '', '', '', '', '', '', '', '', '', '', '', '', X'00', X'00', '', 'ä', ''),
 (8, '1234567890', '', 'a b', 'trailing ', 'ä ', 'a ', 'b ', ' ', '\n', '\t', '\0', 'abcd', 'abcd', REPEAT('z', 255), ' ',
 ' ', ' ', 'd,e', 'ä', 'x,y,z');
INSERT INTO every_type (id, e) VALUES (9, 'not a member');
INSERT INTO every_type (id, j, p, g, ls, mp, gc, v) VALUES
 (10, '{"b": [1, 2.50, 1e22, -0.0, true, null], "a": "q\\"uo\\\\te/\\u0001\\n é🍜", "": {}}', POINT(1.5, -2.25),
 ST_GeomFromText('POINT(1 2)', 4326), ST_GeomFromText('LINESTRING(0 0,1 1,2 4)'),
 ST_GeomFromText('MULTIPOLYGON(((0 0,0 1,1 1,0 0)))'), ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1),LINESTRING(0 0,1 1))'),
 STRING_TO_VECTOR('[1.5, -2, 3e10]')),
 (11, '[]', ST_GeomFromText('POINT(1 2)', 4326), NULL, NULL, NULL, NULL, NULL),
 (12, '"text"', NULL, POINT(0, 0), NULL, NULL, ST_GeomFromText('GEOMETRYCOLLECTION EMPTY'), NULL),
 (13, 'null', NULL, NULL, NULL, NULL, NULL, NULL), (14, '12345678901234567890', NULL, NULL, NULL, NULL, NULL, NULL),
 (15, '[1e7, 12345678.0, 0.1, 1.7976931348623157e308, 5e-324, 123456789012345680000, 1e15, 1e16, 0.00001]', NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO every_type (id, j) VALUES
 (16, JSON_OBJECT('d', CAST('2024-02-29 01:02:03.000004' AS DATETIME(6)), 't', CAST('-01:02:03.5' AS TIME(1)), 'day', CAST('2024-02-29' AS DATE),
 'dec', CAST(12.50 AS DECIMAL(10,2)), 'u', CAST(18446744073709551615 AS UNSIGNED), 'b', CAST('abc' AS BINARY), 'f', 1e0));
INSERT INTO every_type (id, nn_da, nn_dt, nn_ts, inv, i) VALUES (17, '0000-00-00', '2024-00-01', '0000-00-00', 8, 41);
INSERT INTO every_type (id, inv, da, dt0, dt6) VALUES (18, NULL, '0069-02-28', '0070-01-01', '0099-12-31 23:59:59.999999'),
 (19, 9, '0100-01-01', '0001-01-01', '0096-02-29');
"#;

/// Keys and rows as the binlog path encodes them, from the server's binlog file.
fn streamed(
    file: &[u8],
    from: usize,
    options: AvroOptions,
    catalog: &TableSchema,
) -> (EncodePlan, Vec<Vec<u8>>) {
    let (mut plan, mut rows) = (None, Vec::new());
    let mut at = from;
    while at < file.len() {
        let header = EventHeader::parse(&file[at..]).expect("a header");
        let end = at + header.size as usize;
        let mut body = &file[at + HEADER_LENGTH..end - 4];
        match header.kind {
            kind::TABLE_MAP => {
                let map = table_map::parse(body).expect("a table map");
                let enriched = EncodePlan::enriched(&map, "udon", &[], options, Some(catalog));
                plan = Some(enriched.expect("a plan"));
            }
            kind::WRITE_ROWS => {
                let plan = plan.as_ref().expect("a table map came before");
                take(&mut body, 8).expect("a post-header");
                let extra = take_le(&mut body, 2).expect("a length") as usize;
                take(&mut body, extra - 2).expect("extra data");
                let columns = take_length(&mut body).expect("a count");
                take(&mut body, columns.div_ceil(8)).expect("a bitmap");
                let mut scratch = RowScratch::default();
                while !body.is_empty() {
                    let mut out = Vec::new();
                    encode_row(plan, &mut body, &mut out, &mut scratch).expect("encodes");
                    rows.push(out);
                }
            }
            _ => {}
        }
        at = end;
    }
    (plan.expect("rows were written"), rows)
}

async fn snapshot(db: &mut Database, options: AvroOptions) -> Vec<Vec<u8>> {
    let table = db.table("every_type").await;
    let mut writer = RowWriter::new(&table, options);
    let range = ChunkRange { after: None, rows: 1000, ..Default::default() };
    let read = read_chunk(db.rows(), &table, range, usize::MAX, Overflow::CutShort, &mut writer)
        .expect("reads");
    read.rows.iter().map(|(_, row)| read.bytes[row.clone()].to_vec()).collect()
}

#[test]
fn snapshot_bytes_equal_stream_bytes_for_every_type() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(EVERY_TYPE).await;
        // Sessions of applications differ from ours; binlog and snapshot must not care.
        db.run(
            "SET time_zone = '+09:00', sql_mode = 'ALLOW_INVALID_DATES,PAD_CHAR_TO_FULL_LENGTH'",
        )
        .await;
        // Only this test's transactions may be in the file from here on.
        db.run("FLUSH BINARY LOGS").await;
        let from: BinlogPlace = binlog_end(&mut db.connection, &db.server).await.expect("a place");
        db.run(ROWS).await;
        let mut reader = connected(&db).await;
        for debezium_compat in [false, true] {
            let options = AvroOptions { debezium_compat };
            let path = shared().folder.join("data").join(&from.file);
            let file = std::fs::read(path).expect("the binlog is there");
            let table = reader.table("every_type").await;
            let (plan, mut streamed) = streamed_of(&file, &db.name, options, &table.schema);
            let mut read = snapshot(&mut reader, options).await;
            assert_eq!(*plan.schemas.schema, *table.schema);
            assert_eq!(plan.schemas.value.text, envelope_schema(&table.schema, options));
            assert_eq!(
                plan.schemas.key.as_ref().map(|k| k.text.clone()),
                key_schema(&table.schema, options)
            );
            assert_eq!(read.len(), 19);
            streamed.sort();
            read.sort();
            let schema = apache_avro::Schema::parse_str(&plan.schemas.value.text).expect("parses");
            for (ours, theirs) in read.iter().zip(&streamed) {
                let (ours, theirs) = (datum(&schema, ours), datum(&schema, theirs));
                // The server's text does not tell bytes and times inside JSON from strings, as Debezium's form would
                // need.
                let opaque = debezium_compat && ours.contains("base64:type15:YWJj");
                assert!(ours == theirs || opaque, "{ours}\n{theirs}");
            }
            assert!(read == streamed || debezium_compat);
        }
    });
}

/// Other tests write into the same file: their tables are passed over.
fn streamed_of(
    file: &[u8],
    database: &str,
    options: AvroOptions,
    catalog: &TableSchema,
) -> (EncodePlan, Vec<Vec<u8>>) {
    let mut own = file[..4].to_vec();
    let mut keep = false;
    let mut at = 4;
    while at < file.len() {
        let header = EventHeader::parse(&file[at..]).expect("a header");
        let end = at + header.size as usize;
        if header.kind == kind::TABLE_MAP {
            let (db, table) = table_map::table_name(&file[at + HEADER_LENGTH..]).expect("a name");
            keep = db == database.as_bytes() && table == b"every_type";
        }
        if keep && matches!(header.kind, kind::TABLE_MAP | kind::WRITE_ROWS) {
            own.extend_from_slice(&file[at..end]);
        }
        at = end;
    }
    streamed(&own, 4, options, catalog)
}

async fn connected(db: &Database) -> Database {
    let connection = cdc_reader::mysql::connect(&db.config).await.expect("connects");
    let mut reader = Database {
        name: db.name.clone(),
        config: db.config.clone(),
        connection,
        server: db.server.clone(),
        rows: None,
    };
    reader.connection.query_drop(format!("USE {}", db.name)).await.expect("used");
    reader
}

/// A row as an envelope's `after`, read by an independent Avro library.
fn datum(schema: &apache_avro::Schema, row: &[u8]) -> String {
    let mut bytes = vec![0, 2];
    bytes.extend_from_slice(row);
    // source, transaction, op and the clock: empty texts, zeros, nulls.
    let texts = |n: usize| vec![0u8; n];
    bytes.extend(texts(3)); // version, connector, name
    bytes.extend([0]); // ts_ms
    bytes.extend([2]); // snapshot: null
    bytes.extend([0]); // db
    bytes.extend([0, 0, 0, 0]); // sequence, ts_us, ts_ns, table
    bytes.extend([0, 0, 0, 0, 0]); // server_id, gtid, file, pos, row
    bytes.extend([0, 0, 0]); // thread, query, transaction
    bytes.extend([0, 0, 0, 0]); // op, ts_ms, ts_us, ts_ns
    let value = apache_avro::reader::datum::GenericDatumReader::builder(schema)
        .build()
        .and_then(|r| r.read_value(&mut &bytes[..]))
        .expect("is Avro");
    let apache_avro::types::Value::Record(fields) = value else { panic!("a record") };
    fields
        .into_iter()
        .find(|(name, _)| name == "after")
        .map(|(_, v)| format!("{v:?}"))
        .expect("after")
}
