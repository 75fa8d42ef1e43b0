//! `snapshot = "never"`, `"only"`, `"when_needed"`.

use crate::harness::MySql;
use crate::scenario::{CATCH_UP, SOURCE, Scenario};
use crate::{snapshot, value, wait_value};

#[test]
fn never_leaves_the_present_rows_out_until_they_are_asked_for() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("never");
    mysql.exec(&format!(
        "create table {db}.t (id int primary key); insert into {db}.t values (1), (2)"
    ));
    let patterns = [format!("{db}.*")];
    let never = "snapshot = \"never\"";
    let scenario = Scenario::with_source_settings(mysql, &db, &[&patterns[0]], never, "");
    let mut running = scenario.start("up");
    running.wait_logged(CATCH_UP, "new source");
    // A change from then on is captured; the first position is in the log before the snapshot would begin.
    let count = format!("select count(*) from {db}.{db}.t");
    running.wait_logged(CATCH_UP, "snapshot complete");
    mysql.exec(&format!("insert into {db}.t values (3)"));
    wait_value(&scenario, &count, "1");
    let said = scenario.command(&["verify"]).run(CATCH_UP).stdout;
    assert!(said.contains("NOT PROVED"), "{said}");
    snapshot(&scenario, &["add", &format!("{db}.t"), "--wait"]);
    wait_value(&scenario, &count, "3");
    scenario.verify();
}

#[test]
fn only_reads_all_rows_and_ends_in_order() {
    let Some(mysql) = MySql::shared() else { return };
    let db = mysql.new_database("only");
    mysql.exec(&format!(
        "create table {db}.a (id int primary key); insert into {db}.a values (1), (2), (3); \
         create table {db}.b (x int); insert into {db}.b values (1), (1)"
    ));
    let patterns = [format!("{db}.*")];
    let only = "snapshot = \"only\"";
    let scenario = Scenario::with_source_settings(mysql, &db, &[&patterns[0]], only, "");
    let mut running = scenario.start("up");
    let status = running.wait_exit(CATCH_UP);
    assert!(status.success(), "{}", running.stderr());
    assert_eq!(value(&scenario, &format!("select count(*) from {db}.{db}.a")), "3");
    assert_eq!(value(&scenario, &format!("select count(*) from {db}.{db}.b")), "2");
    // All is there already.
    let again = scenario.command(&["reader"]).run(CATCH_UP);
    assert!(again.status.success(), "{again:?}");
}

#[test]
fn when_needed_reads_everything_anew_after_the_position_is_lost() {
    // Its binlog is purged, which others would not like.
    let Some(mysql) = MySql::start(&[]) else { return };
    mysql.exec(
        "create database d; create table d.t (id int primary key, v int); create table d.h (id int primary key, v int); \
         insert into d.t values (1, 1), (2, 2), (3, 3); insert into d.h values (1, 1), (2, 2)",
    );
    let needed = "snapshot = \"when_needed\"";
    let rules = "[[table]]\nmatch = \"*.h\"\nmode = \"history\"\n";
    let scenario = Scenario::with_source_settings(&mysql, SOURCE, &["d.*"], needed, rules);
    let mut running = scenario.start("up");
    scenario.verify();
    running.terminate();
    assert!(running.wait_exit(CATCH_UP).success());

    mysql.exec(
        "update d.t set v = 20 where id = 2; delete from d.t where id = 3; update d.h set v = 20 where id = 2; \
         reset binary logs and gtids; insert into d.t values (4, 4)",
    );
    let mut running = scenario.start("up");
    running.wait_logged(CATCH_UP, "the stored position is LOST");
    scenario.verify();
    assert_eq!(value(&scenario, "select count(*) from udon.d.t"), "3");
    // The history keeps its versions, and has one more of each row, as it is now.
    wait_value(&scenario, "select count(*) from udon.d.h", "4");
    assert_eq!(value(&scenario, "select count(*) from udon.d.h where v = 20"), "1");
    // From there on it goes on as ever.
    running.kill9();
    let running = scenario.start("up");
    mysql.exec("insert into d.t values (5, 5); insert into d.h values (5, 5)");
    scenario.verify();
    assert!(!running.stderr().contains("LOST"), "{}", running.stderr());
}
