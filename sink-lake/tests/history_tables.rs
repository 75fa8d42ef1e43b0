//! History tables: every version of a row is kept, whatever the source purges.

mod support;

use apache_avro::types::Value;
use sink_lake::{Mode, TableRule, digests, open_tables};
use support::{Change, ColumnType, RunningSink, SourceTable, World, text};

fn events() -> SourceTable {
    let columns = [("id", ColumnType::Int { unsigned: false }), ("what", ColumnType::Text)];
    SourceTable::new("events", &columns, &[0])
}

fn event(id: i32, what: &str) -> Vec<Value> {
    vec![Value::Int(id), text(what)]
}

fn history() -> Vec<TableRule> {
    vec![TableRule { pattern: "shop.market.*".into(), mode: Mode::History }]
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_add_versions_and_purges_remove_nothing() {
    let mut world = World::new();
    let table = events();
    let sink = RunningSink::start(&world, history());
    world.write(&table, &[Change::Snapshot(event(1, "a")), Change::Insert(event(2, "b"))]);
    sink.caught_up(&world, &table).await;
    world.write(
        &table,
        &[
            Change::Update(event(1, "a"), event(1, "A")),
            Change::Delete(event(2, "b")),
            Change::Tombstone(event(2, "b")),
            Change::Truncate,
            Change::Insert(event(3, "c")),
        ],
    );
    sink.caught_up(&world, &table).await;
    sink.stop().await;
    let sql = "select id, what, _op, _seq, _changed_at, _date from t order by _seq";
    let expected = "\
+----+------+-----+------+----------------------+------------+
| id | what | _op | _seq | _changed_at          | _date      |
+----+------+-----+------+----------------------+------------+
| 1  | a    | r   | 0    | 2023-11-14T22:13:20Z | 2023-11-14 |
| 2  | b    | c   | 1    | 2023-11-14T22:13:20Z | 2023-11-14 |
| 1  | A    | u   | 2    | 2023-11-14T22:13:20Z | 2023-11-14 |
| 3  | c    | c   | 6    | 2023-11-14T22:13:20Z | 2023-11-14 |
+----+------+-----+------+----------------------+------------+";
    assert_eq!(world.query(&table, sql).await, expected);
    let names = ["id".to_owned(), "what".to_owned()];
    let rows = digests(&table.schema.id, &world.lake_config(), &names, &names[..1]).await;
    let rows = rows.expect("reads").expect("is there");
    assert_eq!((rows.len(), rows.doubled), (3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_that_came_by_the_stream_and_again_by_a_snapshot_is_seen_as_doubled() {
    let mut world = World::new();
    let table = events();
    let sink = RunningSink::start(&world, history());
    world.write(&table, &[Change::Insert(event(1, "a")), Change::Snapshot(event(1, "a"))]);
    sink.caught_up(&world, &table).await;
    sink.stop().await;
    let names = ["id".to_owned(), "what".to_owned()];
    let rows = digests(&table.schema.id, &world.lake_config(), &names, &names[..1]).await;
    let rows = rows.expect("reads").expect("is there");
    assert_eq!((rows.len(), rows.doubled), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_a_key_is_a_history_by_itself() {
    let mut world = World::new();
    let columns = [("line", ColumnType::Text)];
    let table = SourceTable::new("log", &columns, &[]);
    let sink = RunningSink::start(&world, vec![]);
    world.write(&table, &[Change::Insert(vec![text("x")]), Change::Insert(vec![text("x")])]);
    sink.caught_up(&world, &table).await;
    sink.stop().await;
    assert!(world.query(&table, "select count(*) as n from t").await.contains("| 2 |"));
    let tables = open_tables(&world.lake_config()).await.expect("lists");
    assert_eq!((tables.len(), tables[0].mode, tables[0].rows), (1, Mode::History, 2));
    // In the configuration's other mode the table stops and says so.
    let rule = TableRule { pattern: "*".into(), mode: Mode::State };
    let sink = RunningSink::start(&world, vec![rule]);
    let sentence = sink.stopped_table(&table).await;
    assert!(sentence.contains("mode history and the configuration says state"), "{sentence}");
    sink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_of_a_day_become_one_and_new_columns_are_added() {
    let mut world = World::new();
    let mut table = events();
    let mut sink = RunningSink::start(&world, history());
    for id in 0..30 {
        world.write(&table, &[Change::Insert(event(id, "x"))]);
        sink.caught_up(&world, &table).await;
        if id == 14 {
            let columns = [
                ("id", ColumnType::Int { unsigned: false }),
                ("what", ColumnType::Text),
                ("more", ColumnType::Double),
            ];
            table = SourceTable::new("events", &columns, &[0]);
            world.write(
                &table,
                &[Change::Insert(vec![Value::Int(100), text("y"), Value::Double(0.5)])],
            );
            sink.caught_up(&world, &table).await;
            sink.stop().await;
            table = events();
            sink = RunningSink::start(&world, history());
        }
    }
    sink.stop().await;
    let tables = open_tables(&world.lake_config()).await.expect("lists");
    assert!(tables[0].files <= 10, "{tables:?}");
    assert_eq!(tables[0].rows, 31);
    let sql = "select count(*) as n, count(distinct _seq) as s, sum(more) as m from t";
    let rows = world.query(&table, sql).await;
    assert!(rows.contains("| 31 | 31 | 0.5 |"), "{rows}");
}
