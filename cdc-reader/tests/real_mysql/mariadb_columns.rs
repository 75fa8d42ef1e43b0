//! MariaDB's own column types: from its binlog file and from a snapshot the same bytes, and the server's text.

use cdc_reader::{
    binlog::{
        byte_reader::{take, take_length},
        event::{EventHeader, HEADER_LENGTH, kind},
        table_map,
    },
    encode::{
        plan::EncodePlan,
        row::{RowScratch, encode_row},
    },
    mysql::{catalog::load, connect},
    snapshot::{
        avro_row::RowWriter,
        chunk_plan::ChunkRange,
        chunk_read::{Overflow, read_chunk},
    },
    table_filter::TableFilter,
};
use mysql_async::prelude::Queryable;
use schemas::{
    avro_schema::{AvroOptions, envelope_schema},
    avro_write::{read_bytes, read_long},
};

use super::server::{block_on, connect_rows, start_by};

const TABLE: &str = r"CREATE TABLE t (id INT PRIMARY KEY, u UUID, i4 INET4, i6 INET6, vc VARCHAR(300) COMPRESSED,
 l1 VARCHAR(3000) COMPRESSED CHARACTER SET latin1, tx MEDIUMTEXT COMPRESSED, bl BLOB COMPRESSED, j JSON,
 vb VARBINARY(200) COMPRESSED, c CHAR(5) COLLATE utf8mb4_uca1400_ai_ci, un UUID NOT NULL DEFAULT UUID(),
 ts TIMESTAMP(3) NULL, x VARCHAR(20) DEFAULT 'it''s')";
const ROWS: [&str; 6] = [
    "(1, '123e4567-e89b-12d3-a456-426655440000', '192.0.2.1', '2001:db8::ff', REPEAT('ab', 100), REPEAT('é', 1500), \
     REPEAT('우동', 30000), REPEAT(X'00FF', 20000), '{\"a\": [1, 2.50]}', REPEAT('z', 150), 'é', \
     '00000000-0000-0000-0000-000000000000', '2038-01-19 03:14:07.5', NULL)",
    "(2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'ffffffff-ffff-ffff-ffff-ffffffffffff', NULL, 'b')",
    "(3, '00000000-0000-0000-0000-000000000001', '0.0.0.0', '::', '', '', '', '', '[]', '', '', \
     '00112233-4455-6677-8899-aabbccddeeff', '2100-06-01 12:00:00.123', 'c')",
    "(4, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '255.255.255.255', '::ffff:192.0.2.1', 'short', 'ä€', 'x', X'00', '\"s\"', \
     'v', 'abcde', 'fffefdfc-fbfa-f9f8-f7f6-f5f4f3f2f100', '2106-02-07 06:28:15', 'd')",
    "(5, NULL, '1.0.0.0', '::192.0.2.1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, UUID(), NULL, NULL)",
    "(6, NULL, '10.0.0.0', '2001:db8:0:1:1:1:1:1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, UUID(), NULL, NULL)",
];

/// The rows in the newest binlog file, encoded.
fn streamed(file: &[u8], plan: impl Fn(&table_map::TableMap) -> EncodePlan) -> Vec<Vec<u8>> {
    let (mut current, mut rows, mut at) = (None, Vec::new(), 4);
    while at < file.len() {
        let header = EventHeader::parse(&file[at..]).expect("a header");
        let end = at + header.size as usize;
        let mut body = &file[at + HEADER_LENGTH..end - 4];
        if header.kind == kind::TABLE_MAP {
            current = Some(plan(&table_map::parse(body).expect("a table map")));
        }
        if header.kind == kind::WRITE_ROWS_V1 {
            let plan = current.as_ref().expect("a table map came before");
            take(&mut body, 8).expect("a post-header");
            let columns = take_length(&mut body).expect("a count");
            take(&mut body, columns.div_ceil(8)).expect("a bitmap");
            let mut scratch = RowScratch::default();
            while !body.is_empty() {
                let mut out = Vec::new();
                encode_row(plan, &mut body, &mut out, &mut scratch).expect("encodes");
                rows.push(out);
            }
        }
        at = end;
    }
    rows
}

/// The values of an encoded row as texts; bytes as Latin-1.
fn texts(mut row: &[u8]) -> Vec<Option<String>> {
    let input = &mut row;
    let mut all = vec![read_long(input).map(|id| id.to_string())];
    for column in 1..14 {
        let null = column != 11 && read_long(input).expect("a branch") == 0;
        let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().map(|&b| char::from(b)).collect(),
        };
        all.push(if null { None } else { read_bytes(input).map(text) });
    }
    assert!(input.is_empty());
    all
}

#[test]
fn mariadbs_own_types_have_the_servers_text_from_binlog_and_snapshot() {
    block_on(async {
        let server = start_by("mariadb.sh", &[]);
        let config = server.config("root", &["d.*"]);
        let mut connection = connect::connect(&config).await.expect("connects");
        let facts =
            connect::server(&mut connection, &connect::place(&config)).await.expect("answers");
        for sql in ["CREATE DATABASE d", "USE d", TABLE] {
            connection.query_drop(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
        }
        connection.query_drop("FLUSH BINARY LOGS").await.expect("flushed");
        let place: (String, u64) = connection
            .query_first("SHOW MASTER STATUS")
            .await
            .map(|row: Option<mysql_async::Row>| {
                let row = row.expect("a row");
                (row.get(0).expect("a file"), row.get(1).expect("a position"))
            })
            .expect("answers");
        for row in ROWS {
            connection
                .query_drop(format!("INSERT INTO t VALUES {row}"))
                .await
                .unwrap_or_else(|e| panic!("{row}: {e}"));
        }
        let filter = TableFilter::new(&config.tables).expect("valid");
        let catalog = load(&mut connection, &facts, "s", &filter).await.expect("loads");
        assert_eq!(catalog.unsupported, []);
        let table = &catalog.tables[0];
        let file = std::fs::read(server.folder.join("data").join(&place.0)).expect("a binlog");
        for debezium_compat in [false, true] {
            let options = AvroOptions { debezium_compat };
            let text = envelope_schema(&table.schema, options);
            apache_avro::Schema::parse_str(&text).expect("a schema");
            let mut streamed = streamed(&file, |map| {
                let plan = EncodePlan::enriched(map, "s", &[], options, Some(&table.schema));
                let plan = plan.expect("a plan");
                assert_eq!(plan.schemas.value.text, text);
                plan
            });
            let mut writer = RowWriter::new(table, options);
            let range = ChunkRange { after: None, rows: 100, ..Default::default() };
            let read = read_chunk(
                &mut connect_rows(&config),
                table,
                range,
                usize::MAX,
                Overflow::CutShort,
                &mut writer,
            )
            .expect("reads");
            let mut snapshot: Vec<Vec<u8>> =
                read.rows.iter().map(|(_, row)| read.bytes[row.clone()].to_vec()).collect();
            streamed.sort();
            snapshot.sort();
            assert_eq!(streamed.len(), ROWS.len());
            for (ours, theirs) in snapshot.iter().zip(&streamed) {
                assert!(ours == theirs, "{:?}\n{:?}", ours, theirs);
            }
            if debezium_compat {
                continue;
            }
            let sql = "SELECT id, u, i4, i6, vc, l1, tx, bl, j, vb, c, un, \
                       DATE_FORMAT(ts, '%Y-%m-%dT%H:%i:%s.%f'), x FROM t ORDER BY id";
            let rows: Vec<mysql_async::Row> = connection.query(sql).await.expect("answers");
            for (row, encoded) in rows.into_iter().zip(&streamed) {
                let ours = texts(encoded);
                for (i, value) in row.unwrap().into_iter().enumerate() {
                    let theirs = match value {
                        mysql_async::Value::NULL => None,
                        mysql_async::Value::Bytes(bytes) => Some(match String::from_utf8(bytes) {
                            Ok(text) if i == 12 => format!("{}Z", &text[..text.len() - 3]),
                            Ok(text) => text,
                            Err(error) => error.as_bytes().iter().map(|&b| char::from(b)).collect(),
                        }),
                        other => panic!("{other:?}"),
                    };
                    assert_eq!(ours[i], theirs, "column {i}");
                }
            }
        }
    });
}
