//! A server that does not write whole rows into its binlog: the lake's state tables are equal to the source all the same.

mod harness;
mod scenario;

use harness::MySql;
use scenario::Scenario;

const TABLE: &str = "id int not null primary key, name varchar(40) not null default 'nobody', qty int default 7,
    price decimal(10,2) default 1.50, note text, pic blob, state enum('new','done') not null default 'done',
    doubled int as (qty * 2) stored, at datetime(3) default '2020-01-01 00:00:00', doc json,
    seen timestamp(3) not null default current_timestamp(3) on update current_timestamp(3)";

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Snapshot,
    Stream,
}

/// The workload of one session; what it leaves out of the binlog depends on its variables.
fn change(random: &mut fastrand::Rng, keys: u32, phase: Phase) -> String {
    let (id, n) = (random.u32(1..=keys), random.u32(0..1000));
    // A key must not change while its row is read for the first time: the table would stop.
    let first = if phase == Phase::Snapshot { 2 } else { 0 };
    match random.u8(first..12) {
        2 => format!("insert ignore into t (id) values ({id})"),
        3 => format!(
            "insert ignore into t (id, name, doc) values ({id}, 'n{n}', '{{\"n\": [{n}, 2, 3], \"pad\": \"{}\"}}')",
            "p".repeat(80)
        ),
        4 => format!("delete from t where id = {id}"),
        0 => format!("update ignore t set id = {} where id = {id}", random.u32(1..=keys)),
        1 => format!(
            "update ignore t set id = {}, note = 'moved {n}' where id = {id}",
            random.u32(1..=keys)
        ),
        5 => format!("replace into t (id, qty) values ({id}, {n})"),
        6 => format!("update t set note = 'note {n}' where id between {id} and {}", id + 5),
        7 => format!("update t set pic = null, name = '' where id = {id}"),
        8 => format!(
            "update t set doc = json_set(doc, '$.n[1]', {n}, '$.x', 'new') where id <= {id} and id > {id} - 10"
        ),
        9 => format!("update t set doc = json_remove(doc, '$.n[0]') where id = {id}"),
        _ => format!("update t set qty = {n} where id between {id} and {}", id + 3),
    }
}

fn follows(source: &str, settings: &str, keys: u32, seed: u64) {
    let Some(mysql) = MySql::shared() else { return };
    println!("BINLAKE_TEST_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let database = mysql.new_database("image");
    let session = &mut mysql.session();
    session.exec(&format!("use {database}; create table t ({TABLE})"));
    // Rows from before: the snapshot reads them while they are changed.
    session.exec(&format!(
        "insert into t (id, note, doc) select n, concat('note ', n), json_object('n', json_array(n, 1), 'pad', repeat('p', 80))
         from (with recursive c as (select 1 as n union all select n + 1 from c where n < {keys}) select n from c) q
         order by n"
    ));
    session.exec(settings);
    let tables = format!("{database}.*");
    let chunks = "snapshot_chunk_rows = 50\n";
    let scenario = Scenario::with_source_settings(mysql, source, &[&tables], chunks, "");
    let mut up = scenario.start("up");
    let phase = Phase::Snapshot;
    for _ in 0..400 {
        session.exec(&change(&mut random, keys, phase));
    }
    scenario.verify();
    let phase = Phase::Stream;
    for round in 0..3 {
        for step in 0..150 {
            if step == 75 + round {
                up.kill9();
            }
            session.exec(&change(&mut random, keys, phase));
        }
        up = scenario.start("up");
    }
    scenario.verify();
    session.exec(
        "alter table t alter column name set default 'somebody', add column extra int default 5",
    );
    for _ in 0..100 {
        session.exec(&change(&mut random, keys, phase));
    }
    session.exec("update t set extra = 6");
    scenario.verify();
    assert!(up.is_running());
    let table = scenario.table_folder(&format!("{database}.t"));
    let lake = table.ancestors().nth(3).expect("the lake's folder");
    assert!(!lake.join("_dead_letters").exists(), "no record is set apart");
}

fn seed() -> u64 {
    let given = std::env::var("BINLAKE_TEST_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(0..1 << 32))
}

#[test]
fn minimal_images_give_the_sources_rows() {
    follows("minimal", "set session binlog_row_image = 'MINIMAL'", 400, seed());
}

#[test]
fn images_without_blobs_give_the_sources_rows() {
    follows("noblob", "set session binlog_row_image = 'NOBLOB'", 400, seed());
}

#[test]
fn json_differences_give_the_sources_rows() {
    follows(
        "differences",
        "set session binlog_row_image = 'NOBLOB', binlog_row_value_options = 'PARTIAL_JSON'",
        200,
        seed(),
    );
}
