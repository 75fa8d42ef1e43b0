//! A real tool that changes tables of running services by swapping a copy into their place, with rows being written
//! meanwhile. `tests/ddl.rs` does what it and gh-ost do with plain SQL; no package registry has gh-ost.

mod harness;
mod scenario;

use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use harness::{MySql, not_tested};
use scenario::Scenario;

const PT_OSC: &str = "tests/tools/pt_online_schema_change.sh";

#[test]
fn pt_online_schema_change_leaves_a_correct_table() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(PT_OSC);
    let run = |arguments: &[&str]| Command::new(&script).args(arguments).output();
    match run(&["install"]) {
        Ok(output) if output.status.success() => {}
        Ok(output) => return not_tested(&said(&output)),
        Err(error) => return not_tested(&error.to_string()),
    }
    migrated("ptosc", |mysql, database| {
        let place = format!("h=127.0.0.1,P={},u=root,D={database},t=orders", mysql.port());
        let arguments = [
            "run",
            "--recursion-method=none",
            "--chunk-size=200",
            "--alter",
            "add column kind varchar(9) not null default 'plain' after id, drop column memo",
            &place,
            "--execute",
        ];
        run(&arguments).expect("the tool runs")
    });
}

/// Lets a tool change a table that is written to meanwhile, and compares.
#[track_caller]
fn migrated(hint: &str, tool: impl FnOnce(&MySql, &str) -> Output) {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database(hint);
    let rows: Vec<String> = (1..=3000).map(|id| format!("({id}, {id}, 'm{id}')")).collect();
    mysql.exec(&format!(
        "use {database};
         create table orders (id int primary key auto_increment, qty int not null, memo varchar(20));
         insert into orders values {}",
        rows.join(",")
    ));
    let scenario = Scenario::new(mysql, &database, &[&format!("{database}.orders")], "");
    let mut up = scenario.start("up");
    scenario.verify();

    let migrating = AtomicBool::new(true);
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut session = mysql.session();
            let mut round = 0;
            while migrating.load(Ordering::Relaxed) {
                round += 1;
                session.exec(&format!(
                    "update {database}.orders set qty = qty + 1 where id % 97 = {};
                     delete from {database}.orders where id = {round};
                     insert into {database}.orders (qty) values ({round})",
                    round % 97
                ));
            }
        });
        let output = tool(mysql, &database);
        migrating.store(false, Ordering::Relaxed);
        output
    });
    assert!(output.status.success(), "{}", said(&output));
    mysql.exec(&format!("insert into {database}.orders (qty, kind) values (-1, 'after')"));
    scenario.verify();
    let kinds = scenario.query(&format!(
        "select kind, count(*) as n from {database}.{database}.orders group by kind order by kind"
    ));
    let plain =
        mysql.value(&format!("select count(*) from {database}.orders where kind = 'plain'"));
    assert_eq!(kinds, ["after,1".to_owned(), format!("plain,{}", plain.unwrap_or_default())]);
    assert!(up.is_running());
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
