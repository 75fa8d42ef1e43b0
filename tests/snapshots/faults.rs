//! The ways in which snapshots of other readers lost rows or changed them, each in a test of its own. The fault is what
//! the test's name begins with. (A whole table in memory is in `memory`.)
//!
//! LOCK TABLES holds a table's chunks up where a test needs a moment in the middle of the snapshot. Sources have the
//! names of their databases, because a reader's id among the server's replicas comes from its name.

use apache_avro::types::Value;

use super::{
    harness::{Binlake, Kafka, MySql, Session, eventually},
    log_audit::Log,
    log_config,
    scenario::{CATCH_UP, Scenario},
};

/// Small chunks, so that there is a middle; one reader, so that the smaller table is read first.
const SETTINGS: &str = "snapshot_chunk_rows = 4\nsnapshot_readers = 1";

/// With statistics, by which the reader chooses the smaller table.
fn create(mysql: &MySql, table: &str, rows: i64) {
    mysql.exec(&format!(
        "create table {table} (rid int primary key, v int not null);
         insert into {table} with recursive up (n) as
           (select 1 union all select n + 1 from up where n < {rows}) select n, 1 from up;
         analyze table {table}"
    ));
}

/// Existing rows by their snapshot, and then these changes.
fn read_and<'a>(rows: i64, changes: &[(&'a str, i64, i64)]) -> Vec<(&'a str, i64, i64)> {
    (1..=rows).map(|rid| ("r", rid, 1)).chain(changes.iter().copied()).collect()
}

const FIRST_ROWS: i64 = 200;
const SECOND_ROWS: i64 = 800;

/// A reader that has read one table to its end, and waits for a lock in the middle of the next.
struct HalfRead {
    scenario: Scenario,
    log: Log,
    reader: Binlake,
    locked: Session,
    /// `database.table`.
    first: String,
    second: String,
}

impl HalfRead {
    fn start(mysql: &MySql) -> HalfRead {
        let database = mysql.new_database("faults");
        let (first, second) = (format!("{database}.first"), format!("{database}.second"));
        create(mysql, &first, FIRST_ROWS);
        create(mysql, &second, SECOND_ROWS);
        let pattern = format!("{database}.*");
        let scenario = Scenario::with_source_settings(
            mysql,
            &database,
            &[&pattern],
            SETTINGS,
            "[change_log]\nkind = \"embedded\"\n",
        );
        let log = Log::new(log_config(&scenario, None), &database);
        let mut locked = mysql.session();
        let mut reader = scenario.start("reader");
        // A locked table would keep the reader from its catalog.
        log.wait_until_read(&mut reader, 1, &[], |_| {});
        locked.exec(&format!("lock tables {second} write"));
        log.wait_until_read(&mut reader, u64::MAX, std::slice::from_ref(&first), |_| {});
        let half = HalfRead { scenario, log, reader, locked, first, second };
        half.second_is_unfinished();
        half
    }

    fn second_is_unfinished(&self) {
        let position = self.log.position().expect("a position");
        let second = position.snapshots.get(&self.second);
        assert!(second.is_none_or(|second| !second.done), "{second:?}");
    }

    fn expect(&mut self, of_first: &[(&str, i64, i64)]) {
        self.locked.exec("unlock tables");
        let HalfRead { log, reader, first, second, .. } = self;
        log.wait_for(reader, first, &read_and(FIRST_ROWS, of_first));
        log.wait_for(reader, second, &read_and(SECOND_ROWS, &[]));
    }
}

#[test]
fn snapshot_gap_a_commit_after_a_table_was_read_is_not_lost() {
    let Some(mysql) = MySql::shared() else { return };
    let mut half = HalfRead::start(mysql);
    let first = &half.first;
    mysql.exec(&format!(
        "update {first} set v = 2 where rid = 7; insert into {first} values (0, 1)"
    ));
    half.second_is_unfinished();
    half.expect(&[("u", 7, 2), ("c", 0, 1)]);
}

#[test]
fn resume_gap_changes_of_finished_tables_while_the_reader_was_dead_are_not_lost() {
    let Some(mysql) = MySql::shared() else { return };
    let mut half = HalfRead::start(mysql);
    half.reader.kill9();
    let first = &half.first;
    mysql.exec(&format!("update {first} set v = 2 where rid = 7; flush binary logs"));
    mysql.exec(&format!("insert into {first} values (0, 1); delete from {first} where rid = 7"));
    half.locked.exec("unlock tables");
    half.reader = half.scenario.start("reader");
    half.expect(&[("u", 7, 2), ("c", 0, 1), ("d", 7, 2)]);
}

#[test]
fn done_before_durable_rows_that_no_broker_has_are_read_again() {
    const ROWS: i64 = 400;
    let Some(mut kafka) = Kafka::start(&[]) else { return };
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("faults");
    let name = format!("{database}.t");
    create(mysql, &name, ROWS);
    let servers = kafka.bootstrap_servers();
    let scenario = Scenario::with_source_settings(
        mysql,
        &database,
        &[&name],
        SETTINGS,
        &format!("[change_log]\nkind = \"kafka\"\nbootstrap_servers = \"{servers}\"\n"),
    );
    let log = Log::new(log_config(&scenario, Some(&kafka)), &database);
    let mut reader = scenario.start("reader");
    log.wait_until_read(&mut reader, 40, &[], |_| {});
    let mut locked = mysql.session();
    locked.exec(&format!("lock tables {name} write"));
    kafka.stop();
    let fetched = || {
        let count = mysql.value(&format!(
            "select sum(count_fetch) from performance_schema.table_io_waits_summary_by_table
             where object_schema = '{database}' and object_name = 't'"
        ));
        count.and_then(|count| count.parse::<u64>().ok()).expect("a number")
    };
    let before = fetched();
    locked.exec("unlock tables");
    eventually(CATCH_UP, "more rows are read than the broker has", || {
        assert!(reader.is_running(), "the reader ended by itself");
        fetched() > before
    });
    reader.kill9();
    kafka.start_again(&[]);
    let mut reader = scenario.start("reader");
    log.wait_until_read(&mut reader, u64::MAX, std::slice::from_ref(&name), |_| {});
    log.progress_is_that_of_the_records(std::slice::from_ref(&name));
    log.wait_for(&mut reader, &name, &read_and(ROWS, &[]));
}

/// The key's two moments are one and the same in the server's local time.
#[test]
fn session_time_zone_moments_of_the_hour_that_comes_twice_stay_apart() {
    let Some(mysql) = MySql::start(&["TZ=America/New_York"]) else { return };
    let database = mysql.new_database("faults");
    let name = format!("{database}.t");
    let moments = ["2024-11-03 05:30:00", "2024-11-03 06:30:00"];
    let mut session = mysql.session();
    session.exec(&format!(
        "create table {name} (at timestamp primary key, rid int not null, v int not null);
         set time_zone = '+00:00';
         insert into {name} values ('{}', 1, 1), ('{}', 2, 1)",
        moments[0], moments[1]
    ));
    let local = mysql.value(&format!("select count(distinct cast(at as char)) from {name}"));
    assert_eq!(local.as_deref(), Some("1"), "the server's own time zone tells them not apart");
    let scenario = Scenario::with_source_settings(
        &mysql,
        &database,
        &[&format!("{database}.*")],
        // One reader: two would read the two chunks in either order.
        "snapshot_chunk_rows = 1\nsnapshot_readers = 1",
        "[change_log]\nkind = \"embedded\"\n",
    );
    let log = Log::new(log_config(&scenario, None), &database);
    let mut reader = scenario.start("reader");
    log.wait_for(&mut reader, &name, &[("r", 1, 1), ("r", 2, 1)]);
    session.exec(&format!("update {name} set v = 2 where rid = 1"));
    log.wait_for(&mut reader, &name, &[("r", 1, 1), ("r", 2, 1), ("u", 1, 2)]);
    // The stream's image before the update is the snapshot's row, which `replay` insists on.
    let rows = log.replay(&name).rows;
    let mut found: Vec<&str> = rows
        .values()
        .map(|row| match &row["at"] {
            Value::String(text) => text.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    found.sort_unstable();
    assert_eq!(found, ["2024-11-03T05:30:00Z", "2024-11-03T06:30:00Z"]);
}
