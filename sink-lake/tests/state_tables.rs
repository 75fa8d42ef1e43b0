//! State tables from the log to SQL: whatever happens to the rows, the lake holds what the source holds.

mod support;

use std::{collections::BTreeMap, time::Duration};

use apache_avro::types::Value;
use sink_lake::{LakeConfig, SinkConfig};
use support::{Change, ColumnType, RunningSink, SourceTable, World, decimal, text};

fn users() -> SourceTable {
    let columns = [
        ("id", ColumnType::BigInt { unsigned: false }),
        ("name", ColumnType::Text),
        ("age", ColumnType::TinyInt { unsigned: false }),
    ];
    SourceTable::new("users", &columns, &[0])
}

fn user(id: i64, name: &str, age: i32) -> Vec<Value> {
    vec![Value::Long(id), text(name), Value::Int(age)]
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_updates_deletes_and_key_changes_reach_the_lake() {
    let mut world = World::new();
    let table = users();
    let sink = RunningSink::start(&world, vec![]);
    let rows: Vec<Change> =
        (1..=5).map(|id| Change::Snapshot(user(id, &format!("u{id}"), 20))).collect();
    world.write(&table, &rows);
    sink.caught_up(&world, &table).await;
    world.write(
        &table,
        &[
            Change::Update(user(1, "u1", 20), user(1, "ann", 21)),
            Change::Delete(user(2, "u2", 20)),
            Change::Tombstone(user(2, "u2", 20)),
            // A changed key.
            Change::Delete(user(3, "u3", 20)),
            Change::Tombstone(user(3, "u3", 20)),
            Change::Insert(user(30, "u3", 20)),
            // Came and went.
            Change::Insert(user(9, "ghost", 1)),
            Change::Delete(user(9, "ghost", 1)),
            // Went and came.
            Change::Delete(user(4, "u4", 20)),
            Change::Insert(vec![Value::Long(4), Value::Null, Value::Int(44)]),
        ],
    );
    sink.caught_up(&world, &table).await;
    sink.stop().await;
    let expected = "\
+----+------+-----+
| id | name | age |
+----+------+-----+
| 1  | ann  | 21  |
| 4  |      | 44  |
| 5  | u5   | 20  |
| 30 | u3   | 20  |
+----+------+-----+";
    assert_eq!(world.query(&table, "select * from t order by id").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn truncate_empties_what_came_before_it_only() {
    let mut world = World::new();
    let table = users();
    let sink = RunningSink::start(&world, vec![]);
    world.write(&table, &[Change::Insert(user(1, "a", 1)), Change::Insert(user(2, "b", 1))]);
    sink.caught_up(&world, &table).await;
    let changes =
        [Change::Insert(user(3, "c", 1)), Change::Truncate, Change::Insert(user(1, "new", 2))];
    world.write(&table, &changes);
    sink.caught_up(&world, &table).await;
    let rows = world.query(&table, "select id, name from t").await;
    assert!(rows.contains("| 1  | new  |") && !rows.contains("| 2 "), "{rows}");
    world.write(&table, &[Change::Truncate]);
    sink.caught_up(&world, &table).await;
    sink.stop().await;
    assert!(world.query(&table, "select count(*) as n from t").await.contains("| 0 |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_columns_are_added_and_dropped_ones_become_null() {
    let mut world = World::new();
    let mut table = users();
    let sink = RunningSink::start(&world, vec![]);
    world.write(&table, &[Change::Insert(user(1, "a", 1)), Change::Insert(user(2, "b", 2))]);
    sink.caught_up(&world, &table).await;
    let columns = [
        ("id", ColumnType::BigInt { unsigned: false }),
        ("email", ColumnType::Text),
        ("age", ColumnType::TinyInt { unsigned: false }),
    ];
    table = SourceTable::new("users", &columns, &[0]);
    world.write(&table, &[Change::Insert(vec![Value::Long(3), text("c@x"), Value::Int(3)])]);
    sink.caught_up(&world, &table).await;
    let update = vec![Value::Long(1), text("a@x"), Value::Int(1)];
    world.write(&table, &[Change::Update(update.clone(), update)]);
    sink.caught_up(&world, &table).await;
    sink.stop().await;
    let expected = "\
+----+------+-----+-------+
| id | name | age | email |
+----+------+-----+-------+
| 1  |      | 1   | a@x   |
| 2  | b    | 2   |       |
| 3  |      | 3   | c@x   |
+----+------+-----+-------+";
    assert_eq!(world.query(&table, "select * from t order by id").await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_type_stops_the_table_alone_with_a_sentence() {
    let mut world = World::new();
    let table = users();
    let other = SourceTable::new("other", &[("id", ColumnType::Int { unsigned: false })], &[0]);
    let sink = RunningSink::start(&world, vec![]);
    world.write(&table, &[Change::Insert(user(1, "a", 1))]);
    sink.caught_up(&world, &table).await;
    let columns = [("id", ColumnType::BigInt { unsigned: true }), ("name", ColumnType::Text)];
    let changed = SourceTable::new("users", &columns, &[0]);
    world.write(&changed, &[Change::Insert(vec![decimal(5), text("b")])]);
    let sentence = sink.stopped_table(&table).await;
    assert!(sentence.contains("column id is long in the lake and decimal(20,0)"), "{sentence}");
    world.write(&other, &[Change::Insert(vec![Value::Int(1)])]);
    sink.caught_up(&world, &other).await;
    sink.stop().await;
    assert!(world.query(&table, "select count(*) as n from t").await.contains("| 1 |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_keys_above_two_to_the_63_are_found_by_engines() {
    let mut world = World::new();
    let columns = [("u", ColumnType::BigInt { unsigned: true }), ("name", ColumnType::Text)];
    let table = SourceTable::new("big", &columns, &[0]);
    let sink = RunningSink::start(&world, vec![]);
    let largest = i128::from(u64::MAX);
    for (key, name) in [(largest, "max"), (9_007_199_254_740_993, "odd"), (0, "zero")] {
        world.write(&table, &[Change::Insert(vec![decimal(key), text(name)])]);
        sink.caught_up(&world, &table).await;
    }
    // Enough commits for a checkpoint, which must keep the exact numbers.
    for round in 0..60 {
        world.write(&table, &[Change::Insert(vec![decimal(100 + round), text("x")])]);
        sink.caught_up(&world, &table).await;
    }
    sink.stop().await;
    let log = world.lake().join(table.schema.id.lake_path()).join("_delta_log");
    let checkpoints = std::fs::read_dir(log).expect("lists").flatten();
    let is_checkpoint = |name: &str| name.contains("checkpoint") && name.ends_with(".parquet");
    let checkpoints =
        checkpoints.filter(|entry| is_checkpoint(&entry.file_name().to_string_lossy())).count();
    assert!(checkpoints >= 2, "one at version 0 and one at 49, found {checkpoints}");
    for (key, name) in [("18446744073709551615", "max"), ("9007199254740993", "odd")] {
        let sql = format!("select name from t where u = {key}");
        let rows = world.query(&table, &sql).await;
        assert!(rows.contains(name), "{sql}: {rows}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_sink_loses_and_doubles_nothing() {
    let mut world = World::new();
    let table = users();
    let mut model: BTreeMap<i64, i32> = BTreeMap::new();
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..6 {
        let sink = RunningSink::start(&world, vec![]);
        for _ in 0..5 {
            let mut changes = Vec::new();
            for _ in 0..40 {
                let (id, age) = (random.i64(0..60), random.i32(0..100));
                let row = |age: i32| user(id, "n", age);
                changes.push(match (model.get(&id).copied(), random.u8(0..3)) {
                    (None, _) => {
                        model.insert(id, age);
                        Change::Insert(row(age))
                    }
                    (Some(before), 0) => {
                        model.remove(&id);
                        Change::Delete(row(before))
                    }
                    (Some(before), _) => {
                        model.insert(id, age);
                        Change::Update(row(before), row(age))
                    }
                });
            }
            world.write(&table, &changes);
            tokio::time::sleep(Duration::from_millis(random.u64(0..120))).await;
        }
        if round < 5 {
            sink.kill().await;
        } else {
            sink.caught_up(&world, &table).await;
            sink.stop().await;
        }
    }
    let expected: i64 = model.iter().map(|(id, age)| id * 1000 + i64::from(*age)).sum();
    let sql = "select count(*) as n, count(distinct id) as k, sum(id * 1000 + age) as s from t";
    let rows = world.query(&table, sql).await;
    let wanted = format!("| {} | {} | {expected} |", model.len(), model.len());
    assert!(rows.replace("  ", " ").contains(&wanted), "{rows} {wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sinks_at_once_do_no_harm() {
    let mut world = World::new();
    let table = users();
    let sinks = [RunningSink::start(&world, vec![]), RunningSink::start(&world, vec![])];
    for round in 0..20i64 {
        let changes: Vec<Change> = (0..30)
            .map(|i| Change::Insert(user(round * 30 + i, "n", 1)))
            .chain((0..5).filter(|_| round > 0).map(|i| {
                let id = (round - 1) * 30 + i;
                Change::Update(user(id, "n", 1), user(id, "n", 2))
            }))
            .collect();
        world.write(&table, &changes);
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    for sink in &sinks {
        sink.caught_up(&world, &table).await;
    }
    for sink in sinks {
        sink.stop().await;
    }
    let sql = "select count(*) as n, count(distinct id) as k, sum(age) as s from t";
    let rows = world.query(&table, sql).await;
    assert!(rows.contains("| 600 | 600 | 695 |"), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn small_memory_and_small_batches_give_the_same_table() {
    let mut world = World::new();
    let table = users();
    let lake = LakeConfig { commit_rows_max: 37, memory_bytes_max: 4096, ..world.lake_config() };
    let sink = RunningSink::start_with(&world, SinkConfig { lake, ..SinkConfig::default() });
    for round in 0..30i64 {
        let rows: Vec<Change> =
            (0..100).map(|i| Change::Insert(user(round * 100 + i, "some name", 3))).collect();
        world.write(&table, &rows);
    }
    sink.caught_up(&world, &table).await;
    sink.stop().await;
    let rows = world.query(&table, "select count(*) as n, sum(age) as s from t").await;
    assert!(rows.contains("| 3000 | 9000 |"), "{rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_cannot_be_decoded_are_set_apart() {
    let mut world = World::new();
    let table = users();
    let sink = RunningSink::start(&world, vec![]);
    let (key, value) = table.encode(&Change::Insert(user(7, "cut", 1)));
    let value = value.expect("has a value");
    world.write(&table, &[Change::Insert(user(1, "a", 1))]);
    world.write_raw(&table, key.as_deref(), Some(&value[..value.len() - 9]));
    world.write_raw(&table, key.as_deref(), Some(b"no framing"));
    let mut unknown = value.clone();
    unknown[2] ^= 0xff;
    world.write_raw(&table, key.as_deref(), Some(&unknown));
    world.write(&table, &[Change::Insert(user(2, "b", 1))]);
    sink.caught_up(&world, &table).await;
    assert_eq!(sink.status.tables()[&table.name()].dead_letters, 3);
    sink.stop().await;
    let rows = world.query(&table, "select id, name from t order by id").await;
    assert!(rows.contains("| 1  | a    |") && rows.contains("| 2  | b    |"), "{rows}");
    let letters = world.lake().join("_dead_letters/shop/market/users/partition-0.jsonl");
    let letters = std::fs::read_to_string(letters).expect("reads");
    assert_eq!(letters.lines().count(), 3);
    assert!(
        letters.contains("its bytes end early") && letters.contains("\"offset\":1"),
        "{letters}"
    );
}
