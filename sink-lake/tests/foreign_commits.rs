//! Other programs write to our tables: their commits are noticed, and nothing is doubled or lost.

mod support;

use apache_avro::types::Value;
use sink_lake::{digests, open_tables};
use support::{Change, ColumnType, RunningSink, SourceTable, World, text};

#[tokio::test(flavor = "multi_thread")]
async fn an_optimize_by_another_program_doubles_nothing() {
    let mut world = World::new();
    let columns = [("id", ColumnType::Int { unsigned: false }), ("name", ColumnType::Text)];
    let table = SourceTable::new("users", &columns, &[0]);
    let row = |id: i32, name: &str| vec![Value::Int(id), text(name)];
    let sink = RunningSink::start(&world, vec![]);
    for id in 0..5 {
        world.write(&table, &[Change::Insert(row(id, "a"))]);
        sink.caught_up(&world, &table).await;
    }
    let folder = world.lake().join(table.schema.id.lake_path());
    let url = url::Url::from_directory_path(folder).expect("absolute");
    let delta = deltalake::open_table(url).await.expect("opens");
    let (_, optimized) = delta.optimize().await.expect("optimizes");
    assert!(optimized.num_files_removed > 1, "{optimized:?}");
    world.write(&table, &[Change::Update(row(3, "a"), row(3, "b")), Change::Delete(row(4, "a"))]);
    sink.caught_up(&world, &table).await;
    world.write(&table, &[Change::Update(row(2, "a"), row(2, "c"))]);
    sink.caught_up(&world, &table).await;
    sink.stop().await;
    let expected = "\
+----+------+
| id | name |
+----+------+
| 0  | a    |
| 1  | a    |
| 2  | c    |
| 3  | b    |
+----+------+";
    assert_eq!(world.query(&table, "select * from t order by id").await, expected);
    let tables = open_tables(&world.lake_config()).await.expect("lists");
    assert_eq!((tables[0].rows, tables[0].next_offsets[&0]), (4, 8));
    let names = ["id".to_owned(), "name".to_owned()];
    let rows = digests(&table.schema.id, &world.lake_config(), &names, &names[..1]).await;
    assert_eq!(rows.expect("reads").expect("is there").doubled, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_have_the_protocol_that_every_engine_reads_and_a_checkpoint_from_the_start() {
    let mut world = World::new();
    let columns = [
        ("id", ColumnType::Int { unsigned: false }),
        ("at", ColumnType::DateTime { digits: 6 }),
        ("d", ColumnType::Decimal { precision: 38, scale: 10 }),
    ];
    let table = SourceTable::new("plain", &columns, &[0]);
    let sink = RunningSink::start(&world, vec![]);
    world.write(&table, &[Change::Insert(vec![Value::Int(1), Value::Long(0), Value::Null])]);
    sink.caught_up(&world, &table).await;
    sink.stop().await;
    let log = world.lake().join(table.schema.id.lake_path()).join("_delta_log");
    let first = std::fs::read_to_string(log.join("00000000000000000000.json")).expect("reads");
    assert!(first.contains(r#""minReaderVersion":1,"minWriterVersion":2"#), "{first}");
    assert!(!first.contains("Features") && !first.contains("timestamp_ntz"), "{first}");
    assert!(!first.contains(r#"\"nullable\":false"#), "{first}");
    assert!(log.join("_last_checkpoint").exists());
}
