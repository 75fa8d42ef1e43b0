//! Two sinks that were started on one lake by mistake: they get in each other's way, and no row is lost or doubled.

mod support;

use apache_avro::types::Value;
use sink_lake::{Mode, TableRule};
use support::{Change, ColumnType, RunningSink, SourceTable, World, text};

const TABLES: i64 = 24;
const ROUNDS: i64 = 10;
const ROWS: i64 = 5;

fn table(number: i64, kind: &str) -> SourceTable {
    let columns = [("id", ColumnType::BigInt { unsigned: false }), ("name", ColumnType::Text)];
    SourceTable::new(&format!("{kind}{number}"), &columns, &[0])
}

fn row(id: i64, round: i64) -> Vec<Value> {
    vec![Value::Long(id), text(format!("round {round}"))]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_sinks_on_one_lake_lose_and_double_nothing() {
    let mut world = World::new();
    let rules = vec![TableRule { pattern: "*.events*".to_owned(), mode: Mode::History }];
    let sinks = [RunningSink::start(&world, rules.clone()), RunningSink::start(&world, rules)];
    // Each table is made while both look for it, and both then write into it at the same pace.
    for number in 0..TABLES {
        let (state, events) = (table(number, "users"), table(number, "events"));
        for round in 0..ROUNDS {
            let ids = round * ROWS..(round + 1) * ROWS;
            let inserts: Vec<Change> = ids.map(|id| Change::Insert(row(id, round))).collect();
            world.write(&events, &inserts);
            world.write(&state, &inserts);
            if round > 0 {
                let old = (round - 1) * ROWS;
                world.write(
                    &state,
                    &[
                        Change::Update(row(old, round - 1), row(old, round)),
                        Change::Delete(row(old + 1, round - 1)),
                    ],
                );
            }
            tokio::task::yield_now().await;
        }
    }
    for number in 0..TABLES {
        for kind in ["users", "events"] {
            for sink in &sinks {
                sink.caught_up(&world, &table(number, kind)).await;
            }
        }
    }
    for sink in sinks {
        sink.stop().await;
    }
    for number in 0..TABLES {
        let sql = "select count(*) as n, count(distinct id) as ids from t";
        let (all, left) = (ROUNDS * ROWS, ROUNDS * ROWS - (ROUNDS - 1));
        for (kind, rows) in [("events", all), ("users", left)] {
            let found = world.query(&table(number, kind), sql).await.replace(' ', "");
            assert!(found.contains(&format!("|{rows}|{rows}|")), "{kind}{number}\n{found}");
        }
    }
}
