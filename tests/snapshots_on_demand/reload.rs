//! A configuration that changes while the process runs.

use crate::harness::{MySql, eventually};
use crate::scenario::{CATCH_UP, Scenario, metric};
use crate::{value, wait_value};

#[test]
fn tables_are_taken_in_and_out_without_a_restart() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("reload");
    mysql.exec(&format!(
        "create table {db}.a (id int primary key); insert into {db}.a values (1); \
         create table {db}.b (id int primary key, v int); insert into {db}.b values (1, 1), (2, 2), (3, 3); \
         create table {db}.e (id int primary key, v int); insert into {db}.e values (1, 1)"
    ));
    let (a, b, e) = (format!("{db}.a"), format!("{db}.b"), format!("{db}.e"));
    let scenario = Scenario::new(mysql, &db, &[&a], "");
    let mut running = scenario.start("up");
    scenario.verify();
    let count = |table: &str| format!("select count(*) from {db}.{table}");

    // Taken in, by the look that is taken every two seconds; with a rule for the new table.
    let (only_a, all) =
        (format!("tables = [\"{a}\"]"), format!("tables = [\"{a}\", \"{b}\", \"{e}\"]"));
    let rule = format!("\n[[table]]\nmatch = \"*.{e}\"\nmode = \"history\"\n");
    let listen = "listen = \"127.0.0.1:0\"\n";
    scenario.edit(listen, &format!("{listen}{rule}"));
    scenario.edit(&only_a, &all);
    wait_value(&scenario, &count(&b), "3");
    wait_value(&scenario, &count(&e), "1");
    mysql.exec(&format!(
        "update {b} set v = 10 where id = 1; insert into {a} values (2); update {e} set v = 2"
    ));
    scenario.verify();
    wait_value(&scenario, &format!("select count(*) from {db}.{e} where _op = 'u'"), "1");

    // Taken out, at once.
    scenario.edit(&all, &only_a);
    running.hang_up();
    running.wait_logged(CATCH_UP, "table is not captured any more");
    mysql.exec(&format!(
        "delete from {b} where id = 2; insert into {b} values (4, 4); insert into {a} values (3)"
    ));
    wait_value(&scenario, &count(&a), "3");
    assert_eq!(value(&scenario, &count(&b)), "3", "it is as it was");
    assert_eq!(value(&scenario, &format!("select count(*) from {db}.{b} where id = 2")), "1");

    // A start in between remembers that it was out.
    running.kill9();
    let mut running = scenario.start("up");
    scenario.verify();
    scenario.edit(&only_a, &all);
    running.wait_logged(CATCH_UP, "changes of the table were missed");
    wait_value(&scenario, &format!("select count(*) from {db}.{b} where id = 2"), "0");
    scenario.verify();
    assert!(running.is_running());
}

#[test]
fn what_needs_a_restart_is_named_and_a_broken_file_changes_nothing() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("broken");
    mysql.exec(&format!(
        "create table {db}.a (id int primary key); create table {db}.b (id int primary key); \
         insert into {db}.a values (1); insert into {db}.b values (1)"
    ));
    let one = format!("{db}.a");
    let scenario = Scenario::new(mysql, &db, &[&one], "");
    let mut running = scenario.start("up");
    scenario.verify();

    scenario.edit("freshness = \"1s\"", "freshness = \"2s\"");
    running.wait_logged(CATCH_UP, "holds after a restart");
    assert!(running.stderr().contains("[lake] freshness"), "{}", running.stderr());

    let (old, broken) = (format!("tables = [\"{one}\"]"), format!("tables = [\"{db}\"]"));
    scenario.edit(&old, &broken);
    running.wait_logged(CATCH_UP, "going on with the configuration as it was");
    scenario.edit(&broken, "tables = [");
    eventually(CATCH_UP, "the next finding is told", || {
        running.stderr().matches("going on with the configuration as it was").count() == 2
    });
    mysql.exec(&format!("insert into {one} values (2)"));
    // Commands read the broken file too; the process tells by its metrics that it goes on.
    let rows = "binlake_reader_rows_total";
    eventually(CATCH_UP, "the row is read", || metric(&running, rows) >= 1.0);

    scenario.edit("tables = [", &format!("tables = [\"{db}.*\"]"));
    wait_value(&scenario, &format!("select count(*) from {db}.{db}.b"), "1");
    scenario.verify();
}
