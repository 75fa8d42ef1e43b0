//! The source's digests: stable, complete, and precise about which row differs.

use cdc_reader::source_digest::SourceTable;
use schemas::{row_digest::row_digest, table_id::TableId};

use super::server::{EVERY_TYPE, block_on, shared};

#[test]
fn rows_are_digested_by_their_canonical_values() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE t (k VARCHAR(9) COLLATE utf8mb4_0900_ai_ci, n DECIMAL(9,2), at TIMESTAMP(3) NULL, PRIMARY KEY (k));\n\
             INSERT INTO t VALUES ('é', -1.5, '2024-02-29 01:02:03.04'), ('b', NULL, NULL)",
        )
        .await;
        let id = TableId::new("udon", &db.name, "t");
        let mut table = SourceTable::open(&db.config, &id).await.expect("opens");
        let chunk = table.next_chunk().await.expect("reads").expect("has rows");
        assert!(table.next_chunk().await.expect("reads").is_none());
        let text = |texts: &[Option<&str>]| row_digest(texts.iter().map(|t| t.map(str::as_bytes)));
        let b = &chunk.rows[0];
        assert_eq!((b.key, b.row), (text(&[Some("b")]), text(&[Some("b"), None, None])));
        let e = &chunk.rows[1];
        assert_eq!(e.row, text(&[Some("é"), Some("-1.50"), Some("2024-02-29 01:02:03.040000")]));
        assert!(!chunk.gtid_set.is_empty() && chunk.high.offset > 0);

        let key = table.key_text(e).expect("has a key");
        db.run("UPDATE t SET n = 7 WHERE k = 'é'").await;
        let again =
            table.rows_by_key(&[key, vec!["utf8mb4_0900_ai_ci:7A7A".into()]]).await.expect("reads");
        assert_eq!(again.rows.len(), 1);
        assert_eq!(again.rows[0].key, e.key);
        assert_eq!(again.rows[0].values[1].as_deref(), Some(&b"7.00"[..]));
    });
}

#[test]
fn tables_without_a_key_and_of_every_type_are_read() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(EVERY_TYPE).await;
        db.run("INSERT INTO every_type (id, da) VALUES (1, NULL), (2, '0000-00-00');\nCREATE TABLE log (a INT)").await;
        db.run("INSERT INTO log VALUES (1), (1), (2)").await;
        let mut log = SourceTable::open(&db.config, &TableId::new("udon", &db.name, "log"))
            .await
            .expect("opens");
        let chunk = log.next_chunk().await.expect("reads").expect("has rows");
        assert_eq!(chunk.rows.len(), 3);
        assert_eq!(chunk.rows[0].row, chunk.rows[1].row);
        assert_eq!(log.key_text(&chunk.rows[0]), None);
        let id = TableId::new("udon", &db.name, "every_type");
        let mut every = SourceTable::open(&db.config, &id).await.expect("opens");
        assert_eq!(every.next_chunk().await.expect("reads").expect("has rows").rows.len(), 2);
        let gone = SourceTable::open(&db.config, &TableId::new("udon", &db.name, "gone")).await;
        assert!(gone.expect_err("is gone").to_string().contains("is not there"));
    });
}
