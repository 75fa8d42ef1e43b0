//! `binlake snapshot add`, `pause`, `resume`, `stop`, `status`.

use crate::harness::{Kafka, MySql, Session, eventually};
use crate::scenario::{CATCH_UP, Scenario, metric};
use crate::{refused, run, snapshot, state, value, wait_state, wait_value};

/// A table of this many rows, `id` from 1.
fn fill(mysql: &MySql, table: &str, rows: u32) {
    mysql.exec(&format!(
        "create table {table} (id int primary key, v varchar(100) not null); \
         set session /*!80000 cte_max_recursion_depth = 1000000, */ autocommit = 1; \
         insert into {table} with recursive n (i) as (select 1 union all select i + 1 from n where i < {rows}) \
         select i, 'old' from n"
    ));
}

/// Changes that the binlog does not tell.
fn unseen(mysql: &MySql, sql: &str) {
    mysql.exec(&format!("set sql_log_bin = 0; {sql}"));
}

/// Keeps every chunk of a table waiting.
fn lock(mysql: &MySql, table: &str) -> Session {
    let mut session = mysql.session();
    session.exec(&format!("lock tables {table} write"));
    session
}

#[test]
fn added_table_is_read_again_in_part_or_whole_or_in_place_of_what_was_there() {
    let Some(mysql) = MySql::shared() else { return };
    adds_again(mysql);
}

#[test]
fn added_table_is_read_again_on_mariadb() {
    let Some(mariadb) = MySql::shared_mariadb() else { return };
    adds_again(mariadb);
}

fn adds_again(mysql: &MySql) {
    let db = mysql.new_database("repair");
    fill(mysql, &format!("{db}.t"), 50);
    let scenario = Scenario::new(mysql, &db, &[&format!("{db}.*")], "");
    let running = scenario.start("up");
    let name = format!("{db}.t");
    let count = |condition: &str| format!("select count(*) from {db}.{name} where {condition}");
    wait_value(&scenario, &count("true"), "50");

    unseen(mysql, &format!("update {name} set v = 'new'; delete from {name} where id = 50"));
    let said =
        snapshot(&scenario, &["add", &name, "--where", "id <= 10 or v = 'x' -- few", "--wait"]);
    assert!(said.contains("all rows are in the change log"), "{said}");
    wait_value(&scenario, &count("v = 'new'"), "10");
    assert_eq!(state(&scenario, &name), ("done".into(), 10));

    snapshot(&scenario, &["add", &name, "--wait"]);
    wait_value(&scenario, &count("v = 'new'"), "49");
    assert_eq!(value(&scenario, &count("id = 50 and v = 'old'")), "1", "a row that is gone stays");

    snapshot(&scenario, &["add", &format!("{db}.?"), "--replace", "--wait"]);
    wait_value(&scenario, &count("true"), "49");
    scenario.verify();
    let rows = format!("binlake_reader_snapshot_table_rows{{source=\"{db}\",table=\"{name}\"}}");
    eventually(CATCH_UP, "the metrics tell the rows", || metric(&running, &rows) == 49.0);
}

#[test]
fn what_cannot_be_done_is_refused_in_one_sentence() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("refusals");
    fill(mysql, &format!("{db}.t"), 3);
    mysql.exec(&format!(
        "create table {db}.other (id int primary key); create table {db}.log (a int); insert into {db}.log values (1)"
    ));
    let patterns = [format!("{db}.t"), format!("{db}.log")];
    let scenario = Scenario::new(mysql, &db, &[&patterns[0], &patterns[1]], "");
    let name = format!("{db}.t");
    let text = refused(&scenario, &["pause", &name]);
    assert!(text.contains("has not run yet"), "{text}");
    let _running = scenario.start("up");
    scenario.verify();

    let (none, other, log) = (format!("{db}.none"), format!("{db}.other"), format!("{db}.log"));
    let cases: &[(&[&str], &str)] = &[
        (&["add", &none], "there is no table"),
        (&["add", &other], "does not capture"),
        (&["add", "nowhere.*"], "matches 'nowhere.*'"),
        (&["add", "t"], "database.table"),
        (&["add", &name, "--source", "soba"], "there is no source soba; there is refusals"),
        (&["add", &name, "--where", "nope = 1"], "Unknown column 'nope'"),
        (&["add", &name, "--where", "1 = 1; drop table t"], "error 1064"),
        (&["add", &name, "--where", "1 = 1) or (1 = 1"], "error 1064"),
        (&["add", &name, "--where", "1 then 1 end, case when 1"], "error 1064"),
        (&["add", &name, "--where", "id = ?"], "parameter"),
        (&["add", &name, "--where", "1 /*"], "error 1064"),
        (&["add", &log], "has no key and is kept as history"),
        (&["pause", &name], "is not under way: it is done"),
        (&["resume", &name], "is not under way: it is done"),
        (&["stop", &none], "is not a table that the reader knows"),
        (&["stop", "*.*"], "no snapshot that is under way"),
    ];
    for (arguments, words) in cases {
        let text = refused(&scenario, arguments);
        assert!(text.contains(words), "{arguments:?}: {text}");
    }
    let usage = run(&scenario, &["add", &name, "--where", "true", "--replace"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    // Nothing came of all that.
    scenario.verify();
}

#[test]
fn a_condition_that_fails_on_a_row_stops_its_table_alone() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("conditions");
    mysql.exec(&format!(
        "create table {db}.t (id int unsigned primary key, v varchar(9)); insert into {db}.t values (1, 'a'), (9, 'b');
         create table {db}.other (id int primary key, v varchar(9)); insert into {db}.other values (0, 'old')"
    ));
    let scenario = Scenario::new(mysql, &db, &[&format!("{db}.*")], "");
    let mut up = scenario.start("up");
    scenario.verify();
    let name = format!("{db}.t");
    snapshot(&scenario, &["add", &name, "--where", "id - 5 > 0"]);
    eventually(CATCH_UP, "the table is stopped", || up.stderr().contains("`id - 5 > 0` fails"));
    mysql.exec(&format!("update {db}.other set v = 'new'"));
    wait_value(&scenario, &format!("select v from {db}.{db}.other"), "new");
    up.kill9();
    up = scenario.start("up");
    eventually(CATCH_UP, "and again", || up.stderr().contains("`id - 5 > 0` fails"));
    snapshot(&scenario, &["stop", &name]);
    eventually(CATCH_UP, "the snapshot is over", || state(&scenario, &name).0 != "reading");
    scenario.verify();
}

#[test]
fn paused_snapshot_stays_so_over_a_kill_and_goes_on_where_it_was() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("paused");
    let name = format!("{db}.t");
    fill(mysql, &name, 20_000);
    let settings = "snapshot_chunk_rows = 10\nsnapshot_readers = 1";
    let patterns = [format!("{db}.*")];
    let scenario = Scenario::with_source_settings(mysql, &db, &[&patterns[0]], settings, "");
    let mut running = scenario.start("up");
    // Thousands of chunks take longer than this.
    running.wait_logged(CATCH_UP, "new source");
    let mut held = lock(mysql, &name);
    wait_state(&scenario, &name, "reading");
    let said = snapshot(&scenario, &["pause", &name]);
    assert_eq!(said.trim(), format!("{name}: paused"));
    let text = refused(&scenario, &["pause", &name]);
    assert!(text.contains("is paused already"), "{text}");
    let text = refused(&scenario, &["add", &name, "--replace"]);
    assert!(text.contains("is paused"), "{text}");
    held.exec("unlock tables");
    let said = snapshot(&scenario, &["status", &name]);
    assert!(said.contains("paused by `binlake snapshot pause`"), "{said}");

    running.kill9();
    let running = scenario.start("up");
    // It follows the stream, and reads nothing.
    mysql.exec(&format!("insert into {name} values (0, 'streamed')"));
    wait_value(&scenario, &format!("select v from {db}.{name} where id = 0"), "streamed");
    let (what, rows) = state(&scenario, &name);
    assert!(what == "paused" && rows < 20_000, "{what} {rows}");
    let text = scenario.command(&["verify"]).run(CATCH_UP).stdout;
    assert!(text.contains("its snapshot is paused"), "{text}");
    let paused = "binlake_reader_snapshot_table_state{";
    eventually(CATCH_UP, "the metrics tell that it is paused", || metric(&running, paused) == 2.0);

    let said = snapshot(&scenario, &["resume", &format!("{db}.*")]);
    assert!(said.contains(&name), "{said}");
    wait_state(&scenario, &name, "done");
    scenario.verify();
}

#[test]
fn snapshot_that_is_held_back_says_why_and_the_stream_goes_on() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("held_back");
    let name = format!("{db}.t");
    fill(mysql, &name, 10);
    // Nobody listens at port 1: a replica that does not answer counts as one that is behind.
    let settings = "snapshot_pause_replica_lag_seconds = 5\n\
                    snapshot_replicas = [\"mysql://root@127.0.0.1:1\"]";
    let patterns = [format!("{db}.*")];
    let scenario = Scenario::with_source_settings(mysql, &db, &[&patterns[0]], settings, "");
    let mut running = scenario.start("up");
    eventually(CATCH_UP, "status says why nothing is read", || {
        let said = run(&scenario, &["status", &name]).stdout;
        said.contains("held back: 127.0.0.1:1 cannot be asked")
    });
    mysql.exec(&format!("insert into {name} values (0, 'streamed')"));
    wait_value(&scenario, &format!("select v from {db}.{name} where id = 0"), "streamed");
    assert_eq!(state(&scenario, &name).1, 0);

    running.terminate();
    assert!(running.wait_exit(CATCH_UP).success());
    scenario.edit(settings, "");
    let _running = scenario.start("up");
    scenario.verify();
    let said = snapshot(&scenario, &["status", &name]);
    assert!(!said.contains("held back"), "{said}");
}

#[test]
fn ended_snapshot_leaves_its_table_streamed_and_marked_until_it_is_added() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("ended");
    let name = format!("{db}.t");
    fill(mysql, &name, 20_000);
    let settings = "snapshot_chunk_rows = 10\nsnapshot_readers = 1";
    let patterns = [format!("{db}.*")];
    let scenario = Scenario::with_source_settings(mysql, &db, &[&patterns[0]], settings, "");
    let mut running = scenario.start("up");
    running.wait_logged(CATCH_UP, "new source");
    let mut held = lock(mysql, &name);
    wait_state(&scenario, &name, "reading");
    let said = snapshot(&scenario, &["stop", &name]);
    assert_eq!(said.trim(), format!("{name}: stopped"));
    held.exec("unlock tables");
    mysql.exec(&format!("insert into {name} values (0, 'streamed')"));
    wait_value(&scenario, &format!("select v from {db}.{name} where id = 0"), "streamed");
    let rows = value(&scenario, &format!("select count(*) from {db}.{name}"));
    assert!(rows.parse::<u64>().is_ok_and(|rows| rows < 20_000), "{rows}");
    let finished = scenario.command(&["verify"]).run(CATCH_UP);
    assert!(
        finished.stdout.contains(&format!("`binlake snapshot add {name}` reads it")),
        "{finished:?}"
    );
    assert!(!finished.status.success());

    snapshot(&scenario, &["add", &name, "--wait"]);
    assert_eq!(state(&scenario, &name).0, "done");
    scenario.verify();
}

#[test]
fn stopped_table_that_is_added_starts_afresh() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("afresh");
    let name = format!("{db}.t");
    fill(mysql, &name, 20);
    let scenario = Scenario::new(mysql, &db, &[&format!("{db}.*")], "");
    let mut running = scenario.start("up");
    scenario.verify();
    mysql.exec(&format!(
        "set session binlog_format = 'STATEMENT'; delete from {name} where id = 7; update {name} set v = 'x' where id = 8"
    ));
    running.wait_logged(CATCH_UP, "table stopped");
    mysql.exec(&format!("insert into {name} values (21, 'missed')"));
    let text = refused(&scenario, &["add", &name, "--where", "id > 5"]);
    assert!(text.contains("it has to be read whole"), "{text}");
    snapshot(&scenario, &["add", &name, "--wait"]);
    scenario.verify();
}

#[test]
fn commands_wait_for_a_reader_that_is_down_and_two_at_once_are_both_obeyed() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("waiting");
    for table in ["a", "b"] {
        fill(mysql, &format!("{db}.{table}"), 5);
    }
    let scenario = Scenario::new(mysql, &db, &[&format!("{db}.*")], "");
    let mut running = scenario.start("up");
    scenario.verify();
    running.terminate();
    assert!(running.wait_exit(CATCH_UP).success());
    for table in ["a", "b"] {
        unseen(mysql, &format!("update {db}.{table} set v = 'new'"));
    }
    // Each sends its own, at the same time.
    let (a, b) = (format!("{db}.a"), format!("{db}.b"));
    let mut sending = [&a, &b].map(|name| scenario.command(&["snapshot", "add", name]).start());
    for command in &mut sending {
        assert!(command.wait_exit(CATCH_UP).success());
        assert!(command.stdout().contains("it is done when one runs"), "{}", command.stdout());
    }
    let mut running = scenario.start("up");
    for table in [&a, &b] {
        let changed = format!("select count(*) from {db}.{table} where v = 'new'");
        wait_value(&scenario, &changed, "5");
    }
    scenario.verify();
    // Each was obeyed once: a new start does not do it again.
    running.kill9();
    let running = scenario.start("up");
    scenario.verify();
    assert!(!running.stderr().contains("action=Add"), "{}", running.stderr());
}

#[test]
fn commands_go_through_kafka() {
    let (Some(mysql), Some(kafka)) = (MySql::shared(), Kafka::shared()) else { return };
    let db = mysql.new_database("by_kafka");
    let name = format!("{db}.t");
    fill(mysql, &name, 30);
    let servers = kafka.bootstrap_servers();
    let log = format!("[change_log]\nkind = \"kafka\"\nbootstrap_servers = \"{servers}\"\n");
    let scenario = Scenario::new(mysql, &db, &[&format!("{db}.*")], &log);
    let mut running = scenario.start("up");
    scenario.verify();
    unseen(mysql, &format!("update {name} set v = 'new'; delete from {name} where id = 3"));
    snapshot(&scenario, &["add", &name, "--replace", "--wait"]);
    scenario.verify();
    running.kill9();
    unseen(mysql, &format!("delete from {name} where id = 4"));
    let sent = scenario.command(&["snapshot", "add", &name, "--replace", "--wait"]).start();
    let running = scenario.start("up");
    let mut sent = sent;
    assert!(sent.wait_exit(CATCH_UP).success(), "{}", sent.stderr());
    scenario.verify();
    let obeyed = running.stderr().matches("action=Add").count();
    assert_eq!(obeyed, 1, "each signal is obeyed once");
}
