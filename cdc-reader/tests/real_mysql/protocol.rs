//! The snapshot's half of the protocol, with an encode thread played by the test.

use std::{collections::BTreeMap, sync::Arc};

use cdc_reader::{
    ReaderMetrics,
    flow::{Input, SnapshotChunk, SpooledTable, StreamState, TablePart, ViewFit, ViewRequest},
    mysql::{catalog::CatalogTable, place::gtid_executed},
    snapshot::{self, EncodeThread, request::Request, throttle::Throttle},
};
use schemas::{position::TableSnapshot, table_id::TableId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    mariadb,
    server::{Database, block_on, shared},
};

pub struct Played {
    received: mpsc::Receiver<Input>,
    pub shutdown: CancellationToken,
    pub run: tokio::task::JoinHandle<Result<(), cdc_reader::ReaderError>>,
    pub state: StreamState,
}

impl Played {
    pub async fn start(
        db: &mut Database,
        tables: Vec<CatalogTable>,
        progress: BTreeMap<String, TableSnapshot>,
        chunk_rows: u32,
    ) -> Self {
        let mut config = db.config.clone();
        config.snapshot_chunk_rows = chunk_rows;
        let metrics = ReaderMetrics::new(&prometheus::Registry::new()).source("udon");
        let throttle = Arc::new(Throttle::new(&config, metrics).expect("no limits"));
        let (inbox, received) = mpsc::channel(4);
        let shutdown = CancellationToken::new();
        config.snapshot_readers = 1;
        let run = tokio::spawn(snapshot::run(
            Arc::new(config),
            tables,
            progress,
            mpsc::channel(1).1,
            EncodeThread { inbox, buffers: Default::default() },
            throttle,
            shutdown.clone(),
        ));
        let gtid_set = gtid_executed(&mut db.connection, &db.server).await.expect("a set");
        let state = StreamState { gtid_set, ..StreamState::default() };
        Self { received, shutdown, run, state }
    }

    async fn view(&mut self) -> ViewRequest {
        match self.next().await {
            Some(Input::View(request)) => request,
            other => panic!("{other:?}"),
        }
    }

    async fn table(&mut self) -> SpooledTable {
        match self.next().await {
            Some(Input::Table(table)) => table,
            other => panic!("{other:?}"),
        }
    }

    /// The next chunk, its window answered; `None` when the snapshot has ended.
    pub async fn chunk(&mut self) -> Option<SnapshotChunk> {
        match self.next().await? {
            Input::Chunk(chunk) => Some(chunk),
            other => panic!("{other:?}"),
        }
    }

    async fn next(&mut self) -> Option<Input> {
        loop {
            match self.received.recv().await? {
                Input::OpenWindow(request) => {
                    self.state.generation +=
                        u64::from(request.chunk.is_some_and(|chunk| chunk.restart));
                    request.reply.send(self.state.clone()).expect("is awaited");
                }
                Input::NoView(_) => {}
                other => return Some(other),
            }
        }
    }
}

/// How many rows a chunk has, and the key at which it ends, if the table does not end there.
fn size_and_end(chunk: &SnapshotChunk) -> (usize, Option<&str>) {
    let end = match &chunk.part {
        TablePart::Range(range) => range.upto.as_ref(),
        TablePart::Rest => None,
    };
    (chunk.rows.len(), end.map(|key| key[0].as_str()))
}

#[test]
fn tables_are_walked_and_a_refused_chunk_is_read_again() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1),(2),(3),(4),(5);\n\
             CREATE TABLE done (k INT PRIMARY KEY);\nINSERT INTO done VALUES (1)",
        )
        .await;
        let tables = db.catalog().await.tables;
        let done = TableSnapshot { done: true, ..TableSnapshot::default() };
        let progress = BTreeMap::from([(format!("{}.done", db.name), done)]);
        let mut played = Played::start(&mut db, tables, progress, 2).await;
        let first = played.chunk().await.expect("a chunk");
        assert_eq!(size_and_end(&first), (2, Some("2")));
        assert!(first.high.offset > 0 && !first.high.file.is_empty());
        // The next one does not wait for the first.
        let second = played.chunk().await.expect("a chunk");
        assert_eq!(size_and_end(&second), (2, Some("4")));
        drop(first);
        second.committed.send(()).expect("is awaited");
        let mut ends = Vec::new();
        while let Some(chunk) = played.chunk().await {
            ends.push((chunk.rows.len(), size_and_end(&chunk).1.map(str::to_owned)));
            chunk.committed.send(()).expect("is awaited");
        }
        ends.sort();
        assert_eq!(ends, [(1, None), (2, Some("2".to_owned()))]);
        played.run.await.expect("joins").expect("ends well");
    });
}

#[test]
fn a_restart_goes_on_after_the_stored_key_and_shutdown_ends_it() {
    block_on(async {
        let mut db = shared().database().await;
        db.run(
            "CREATE TABLE t (k VARCHAR(9) PRIMARY KEY);\nINSERT INTO t VALUES ('a'),('B'),('c')",
        )
        .await;
        let tables = db.catalog().await.tables;
        let stored = TableSnapshot {
            last_key: Some(vec!["utf8mb4_0900_ai_ci:61".into()]),
            rows: 1,
            ..TableSnapshot::default()
        };
        let progress = BTreeMap::from([(format!("{}.t", db.name), stored)]);
        let mut played = Played::start(&mut db, tables, progress, 1).await;
        let chunk = played.chunk().await.expect("a chunk");
        assert_eq!(size_and_end(&chunk), (1, Some("utf8mb4_0900_ai_ci:42")));
        played.shutdown.cancel();
        played.run.await.expect("joins").expect("ends well");
    });
}

#[test]
fn ddl_between_chunks_is_followed() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY, v INT, w INT);\nINSERT INTO t VALUES (1,1,1),(2,2,2),(3,3,3)").await;
        let tables = db.catalog().await.tables;
        let mut played = Played::start(&mut db, tables, BTreeMap::new(), 1).await;
        // Chunks that have been read already are of the old shape, and right.
        let first = played.chunk().await.expect("a chunk");
        db.run("ALTER TABLE t DROP COLUMN v, ADD COLUMN x INT").await;
        let mut rows = first.rows.len();
        let mut last = first.schema.clone();
        first.committed.send(()).expect("is awaited");
        while rows < 3 {
            let chunk = played.chunk().await.expect("a chunk");
            rows += chunk.rows.len();
            last = chunk.schema.clone();
            chunk.committed.send(()).expect("is awaited");
        }
        assert!(last.columns.iter().any(|column| column.name == "x"));
        while let Some(chunk) = played.chunk().await {
            chunk.committed.send(()).expect("is awaited");
        }
        played.run.await.expect("joins").expect("ends well");
    });
}

#[test]
fn row_of_a_table_that_was_changed_meanwhile_is_no_bad_row() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY, v INT);\nCREATE TABLE n (v INT)").await;
        let tables = db.catalog().await.tables;
        db.run("ALTER TABLE t MODIFY v VARCHAR(9);\nINSERT INTO t VALUES (1,'a');\nALTER TABLE n MODIFY v VARCHAR(9);\nINSERT INTO n VALUES ('a')").await;
        let mut played = Played::start(&mut db, tables, BTreeMap::new(), 1).await;
        let mut read = Vec::new();
        while let Some(input) = played.next().await {
            let (table, rows, committed) = match input {
                Input::View(request) => {
                    request.fit.send(ViewFit::Exact).expect("is awaited");
                    continue;
                }
                Input::Chunk(chunk) => (chunk.schema, chunk.rows.len(), chunk.committed),
                Input::Table(table) => (table.schema, table.rows.len() as usize, table.committed),
                other => panic!("{other:?}"),
            };
            read.extend((0..rows).map(|_| table.id.table.clone()));
            committed.send(()).expect("is awaited");
        }
        read.sort();
        assert_eq!(read, ["n", "t"]);
        played.run.await.expect("joins").expect("ends well");
    });
}

#[test]
fn view_of_a_chunk_that_is_not_used_does_not_stay_open() {
    block_on(async {
        let mut db = mariadb::shared().database().await;
        db.run("CREATE TABLE t (k INT PRIMARY KEY);\nINSERT INTO t VALUES (1),(2)").await;
        let tables = db.catalog().await.tables;
        let mut played = Played::start(&mut db, tables, BTreeMap::new(), 10).await;
        for change in ["ADD COLUMN v INT", "DROP COLUMN v"] {
            let Some(Input::OpenWindow(request)) = played.received.recv().await else {
                panic!("a window is asked for first")
            };
            // The second one waits for the chunk before, if that has left a transaction open.
            db.run(&format!("SET lock_wait_timeout = 10;\nALTER TABLE t {change}")).await;
            request.reply.send(played.state.clone()).expect("is awaited");
        }
        assert_eq!(played.chunk().await.expect("a chunk").rows.len(), 2);
        played.shutdown.cancel();
        played.run.await.expect("joins").expect("ends well");
    });
}

#[test]
fn changed_order_of_the_key_begins_the_table_anew() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE t (k VARCHAR(9) COLLATE utf8mb4_bin PRIMARY KEY);\nINSERT INTO t VALUES ('a'),('B')").await;
        let tables = db.catalog().await.tables;
        let mut played = Played::start(&mut db, tables, BTreeMap::new(), 1).await;
        let first = played.chunk().await.expect("a chunk");
        assert_eq!(size_and_end(&first), (1, Some("utf8mb4_bin:42")));
        db.run("ALTER TABLE t MODIFY k VARCHAR(9) COLLATE utf8mb4_0900_ai_ci").await;
        drop(first);
        // The reader says that the walk begins again, and goes on when it has another generation.
        let anew = loop {
            let chunk = played.chunk().await.expect("a chunk");
            if chunk.generation == 1 {
                break chunk;
            }
        };
        assert_eq!(size_and_end(&anew), (1, Some("utf8mb4_0900_ai_ci:61")));
        played.shutdown.cancel();
        played.run.await.expect("joins").expect("ends well");
    });
}

#[test]
fn table_without_a_key_is_read_from_one_view_once_it_is_exact() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE log (a INT);\nINSERT INTO log VALUES (1),(1),(2)").await;
        let tables = db.catalog().await.tables;
        let mut played = Played::start(&mut db, tables, BTreeMap::new(), 1).await;
        let in_doubt = played.view().await;
        db.run("INSERT INTO log VALUES (3)").await;
        in_doubt.fit.send(ViewFit::InDoubt).expect("is awaited");
        let exact = played.view().await;
        assert!(!exact.view.executed_before.is_empty() && !exact.view.high.file.is_empty());
        // Not in the view.
        db.run("INSERT INTO log VALUES (4)").await;
        exact.fit.send(ViewFit::Exact).expect("is awaited");
        let table = played.table().await;
        assert_eq!((table.rows.len(), &table.high), (4, &exact.view.high));
        // Refused: everything begins anew.
        drop(table);
        played.view().await.fit.send(ViewFit::Exact).expect("is awaited");
        let table = played.table().await;
        assert_eq!(table.rows.len(), 5);
        let (mut rows, mut bytes) = (table.rows.into_entries().expect("read"), Vec::new());
        while rows.next(&mut bytes).expect("read").is_some() {}
        // Each the branch of its union and a zigzag number.
        assert_eq!(bytes, [2, 2, 2, 2, 2, 4, 2, 6, 2, 8]);
        table.committed.send(()).expect("is awaited");
        assert!(played.chunk().await.is_none());
        played.run.await.expect("joins").expect("ends well");
    });
}

#[test]
fn table_that_is_not_wanted_any_more_is_left_alone() {
    block_on(async {
        let mut db = shared().database().await;
        db.run("CREATE TABLE log (a INT);\nINSERT INTO log VALUES (1)").await;
        let tables = db.catalog().await.tables;
        let mut played = Played::start(&mut db, tables, BTreeMap::new(), 1).await;
        played.view().await.fit.send(ViewFit::Unwanted).expect("is awaited");
        assert!(played.chunk().await.is_none());
        played.run.await.expect("joins").expect("ends well");
    });
}

#[test]
fn table_that_is_gone_when_it_is_to_be_read_is_told_to_the_stream() {
    block_on(async {
        let db = shared().database().await;
        let id = TableId::new(&db.config.name, &db.name, "gone");
        let (inbox, mut received) = mpsc::channel(4);
        let (ask, asked) = mpsc::channel(1);
        let metrics = ReaderMetrics::new(&prometheus::Registry::new()).source("udon");
        let throttle = Arc::new(Throttle::new(&db.config, metrics).expect("no limits"));
        let run = tokio::spawn(snapshot::run(
            Arc::new(db.config.clone()),
            Vec::new(),
            BTreeMap::new(),
            asked,
            EncodeThread { inbox, buffers: Default::default() },
            throttle,
            CancellationToken::new(),
        ));
        ask.send(Request::Read { table: id.clone(), generation: 1 }).await.expect("is awaited");
        drop(ask);
        for taken in [false, true] {
            // Where the stream stands, before the server is asked for the table; then for leave to end it.
            for ends in [false, true] {
                let Some(Input::OpenWindow(request)) = received.recv().await else {
                    panic!("a window is asked for first")
                };
                assert_eq!(request.table, format!("{}.gone", db.name));
                assert_eq!(request.chunk.is_some(), ends);
                request.reply.send(StreamState::default()).expect("is awaited");
            }
            let Some(Input::Chunk(end)) = received.recv().await else { panic!("the end is told") };
            assert_eq!((&end.part, end.rows.len(), &end.schema.id), (&TablePart::Rest, 0, &id));
            // Refused when the table's rows became others meanwhile: then the server is asked again.
            if taken {
                end.committed.send(()).expect("is awaited");
            }
        }
        assert!(received.recv().await.is_none());
        run.await.expect("joins").expect("ends well");
    });
}
