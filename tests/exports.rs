//! Exports with the real program and a real server: what a run puts into the lake, that readers see whole contents
//! only, and that a run that fails or is killed leaves the lake as it was.

mod harness;
mod scenario;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use harness::{MySql, Python, Rows, eventually, eventually_some};
use scenario::{ANSWER, CATCH_UP, Scenario};
use serde_json::Value;

const ENGINES: [&str; 2] = ["deltalake", "duckdb"];
const SOURCE: &str = "udon";

/// A configuration with one export named `e` of `<database>.t`; nothing of the database is captured.
fn scenario(mysql: &MySql, database: &str, settings: &str) -> Scenario {
    let export = format!(
        "[[export]]\nname = \"e\"\nsource = \"{SOURCE}\"\ntable = \"{database}.t\"\n{settings}"
    );
    Scenario::with_source_settings(mysql, SOURCE, &["none.*"], "snapshot_chunk_rows = 500", &export)
}

/// The export's folder.
fn folder(scenario: &Scenario) -> PathBuf {
    let table = scenario.table_folder("x");
    let lake = table.ancestors().nth(2).expect("a table lies in a source's folder");
    lake.join(format!("exports/{SOURCE}/e"))
}

fn export(scenario: &Scenario) -> String {
    scenario.command(&["export", "run", "e"]).run(CATCH_UP).success()
}

fn status(scenario: &Scenario) -> Value {
    let text = scenario.command(&["export", "list", "--json"]).run(ANSWER).success();
    let mut exports: Vec<Value> = serde_json::from_str(&text).expect("is JSON");
    exports.remove(0)
}

fn read_by(scenario: &Scenario, engine: &str, columns: &str, key: &str) -> Option<Rows> {
    let folder = folder(scenario).display().to_string();
    let arguments = ["--engine", engine, "--table", &folder, "--columns", columns, "--key", key];
    let text = Python::shared()?.run("read_tables.py", &arguments, ANSWER);
    let row = |line: &str| serde_json::from_str(line).expect("the script prints JSON arrays");
    Some(text.lines().map(row).collect())
}

fn data_files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(".parquet")).count()
}

/// Rows 1 to `rows`, some 30 bytes each.
fn many(mysql: &MySql, database: &str, key: &str, rows: u32) {
    mysql.exec(&format!(
        "set session cte_max_recursion_depth = {rows};
         create table {database}.t (id int not null{key}, v varchar(100), run int not null default 1);
         insert into {database}.t (id, v) with recursive n (i) as (select 1 union all select i + 1 from n where i < {rows})
         select i, concat('text ', i) from n"
    ));
}

#[test]
fn columns_are_chosen_renamed_and_converted_for_every_engine() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("exported");
    mysql.exec(&format!(
        "create table {database}.t (
             id bigint unsigned primary key, price decimal(12,2) not null, amount varchar(30), day varchar(20),
             at timestamp(6) null, doc json, name varchar(50) character set latin1, secret text, flag tinyint(1));
         set time_zone = '+09:00';
         insert into {database}.t values
             (18446744073709551615, 12.50, '-7.125', '2024-02-29', '2026-01-02 09:00:00.000001', '{{\"a\": [1, 2]}}',
              'h\u{e4}', 'x', 1),
             (9007199254740993, -0.05, '12', null, null, null, null, 'y', 0),
             (3, 0, null, '1970-01-01', '2026-01-02 08:59:59.999999', 'null', '', 'z', null),
             (4, 99, 'not a number', null, null, null, 'left out', 'z', null)"
    ));
    let scenario = scenario(
        mysql,
        &database,
        "where = \"name <> 'left out' or name is null -- a comment\"
         columns = [
             \"id\",
             { column = \"PRICE\", as = \"price_krw\", type = \"decimal(18,4)\" },
             { column = \"amount\", type = \"decimal(10,3)\" },
             { column = \"day\", type = \"date\" },
             { column = \"at\", as = \"day_of\", type = \"date\" },
             { column = \"at\", as = \"at_text\", type = \"text\" },
             { column = \"doc\", type = \"text\" },
             \"name\",
             { column = \"flag\", type = \"boolean\" },
         ]",
    );
    let said = export(&scenario);
    assert!(
        said.starts_with(&format!("3 rows of {database}.t are in exports.udon.e (version 1,")),
        "{said}"
    );
    let columns = "id,price_krw,amount,day,day_of,at_text,doc,name,flag";
    let row = |values: [Option<&str>; 9]| values.map(|value| value.map(str::to_owned)).to_vec();
    let expected: Rows = vec![
        row([
            Some("3"),
            Some("0.0000"),
            None,
            Some("1970-01-01"),
            Some("2026-01-01"),
            Some("2026-01-01 23:59:59.999999"),
            Some("null"),
            Some(""),
            None,
        ]),
        row([
            Some("9007199254740993"),
            Some("-0.0500"),
            Some("12.000"),
            None,
            None,
            None,
            None,
            None,
            Some("0"),
        ]),
        row([
            Some("18446744073709551615"),
            Some("12.5000"),
            Some("-7.125"),
            Some("2024-02-29"),
            Some("2026-01-02"),
            Some("2026-01-02 00:00:00.000001"),
            Some("{\"a\":[1,2]}"),
            Some("h\u{e4}"),
            Some("1"),
        ]),
    ];
    for engine in ENGINES {
        let Some(read) = read_by(&scenario, engine, columns, "id") else { return };
        assert_eq!(read, expected, "{engine}");
        let Some(all) = read_by(&scenario, engine, "*", "id") else { return };
        assert_eq!(all, expected, "{engine} finds other columns");
    }
    // The lake's own SQL finds it, and files are skipped by exact statistics.
    let found =
        scenario.query("select price_krw from exports.udon.e where id = 18446744073709551615");
    assert_eq!(found, ["12.5000"]);
    let status = status(&scenario);
    assert_eq!((status["rows"].as_u64(), status["schedule"].as_str()), (Some(3), Some("by hand")));
}

#[test]
fn readers_see_the_old_rows_or_the_new_ones_and_old_files_go() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("replaced");
    many(mysql, &database, " primary key", 20_000);
    let scenario = scenario(mysql, &database, "keep = 1");
    export(&scenario);
    mysql.exec(&format!(
        "update {database}.t set run = 2; delete from {database}.t where id > 15000"
    ));
    let done = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| {
        let polled = scope.spawn(|| {
            let mut counts = Vec::new();
            loop {
                let last = done.load(Ordering::Acquire);
                let sql = "select count(*), min(run), max(run) from exports.udon.e";
                counts.extend(scenario.query(sql));
                if last {
                    return counts;
                }
            }
        });
        export(&scenario);
        done.store(true, Ordering::Release);
        polled.join().expect("polls")
    });
    let whole = |count: &String| count == "20000,1,1" || count == "15000,2,2";
    assert!(counts.iter().all(whole), "{counts:?}");
    assert_eq!(counts.last().map(String::as_str), Some("15000,2,2"));
    assert_eq!(data_files(&folder(&scenario)), 2, "the old content is kept for its readers");
    export(&scenario);
    export(&scenario);
    assert_eq!(data_files(&folder(&scenario)), 2, "one older content is kept and no more");
}

#[test]
fn a_killed_run_leaves_the_old_rows_and_no_file_for_ever() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("killed");
    many(mysql, &database, " primary key", 300);
    let scenario = scenario(mysql, &database, "keep = 0");
    export(&scenario);
    // Enough chunks for a kill in the middle.
    mysql.exec(&format!(
        "set session cte_max_recursion_depth = 100000; truncate {database}.t;
         insert into {database}.t (id, v) with recursive n (i) as (select 1 union all select i + 1 from n where i < 90000)
         select i, 'new' from n"
    ));
    let mut run = scenario.command(&["export", "run", "e"]).start();
    let before = data_files(&folder(&scenario));
    eventually(CATCH_UP, "the run has begun a file", || {
        data_files(&folder(&scenario)) > before || !run.is_running()
    });
    assert!(run.is_running(), "the run was too quick to be killed");
    run.kill9();
    assert_eq!(scenario.query("select count(*), max(v) from exports.udon.e"), ["300,text 99"]);
    assert_eq!(data_files(&folder(&scenario)), before + 1, "the killed run's file is there");
    // A sink removes it, without a run being due.
    let mut sink = scenario.start("up");
    eventually(CATCH_UP, "the killed run's file is removed", || {
        data_files(&folder(&scenario)) == before
    });
    assert!(sink.is_running());
    sink.terminate();
    assert!(sink.wait_exit(CATCH_UP).success());
    export(&scenario);
    assert_eq!(scenario.query("select count(*), max(v) from exports.udon.e"), ["90000,new"]);
    assert_eq!(data_files(&folder(&scenario)), 1);
}

#[test]
fn a_value_that_does_not_fit_fails_the_run_and_leaves_the_old_rows() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("unfit");
    mysql.exec(&format!(
        "create table {database}.t (id int primary key, v varchar(30));
         insert into {database}.t values (1, '12'), (2, null)"
    ));
    let scenario = scenario(
        mysql,
        &database,
        "every = \"1s\"\ncolumns = [\"id\", { column = \"v\", type = \"bigint\" }]",
    );
    export(&scenario);
    mysql.exec(&format!("insert into {database}.t values (3, 'forty-two')"));
    let said = scenario.command(&["export", "run", "e"]).run(ANSWER).failure();
    let sentence =
        format!("export of {database}.t: column v holds a string that long cannot hold exactly");
    assert!(said.contains(&sentence), "{said}");
    assert!(!said.contains("forty-two"), "no row's value is told: {said}");
    let left = || scenario.query("select id, v from exports.udon.e order by id");
    assert_eq!(left(), ["1,12", "2,"]);
    assert_eq!(data_files(&folder(&scenario)), 1);
    // The schedule tries it again, says so, and goes on when the row is cured.
    let mut up = scenario.start("up");
    eventually(CATCH_UP, "status counts the failures", || {
        let status = status(&scenario);
        status["failures"].as_u64() >= Some(2)
            && status["error"].as_str().is_some_and(|error| error.contains(&sentence))
    });
    let shown = scenario.command(&["status"]).run(ANSWER).success();
    assert!(shown.contains(&sentence), "{shown}");
    mysql.exec(&format!("update {database}.t set v = '42' where id = 3"));
    eventually(CATCH_UP, "the cured row is exported", || left() == ["1,12", "2,", "3,42"]);
    eventually(CATCH_UP, "status forgets the failures", || status(&scenario)["error"].is_null());
    assert!(up.is_running());
}

#[test]
fn the_schedule_runs_beside_the_sink_and_adds_rows_in_mode_append() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("scheduled");
    many(mysql, &database, " primary key", 100);
    let scenario = scenario(mysql, &database, "every = \"2s\"\nmode = \"append\"");
    let mut up = scenario.start("up");
    let sql =
        "select count(*), count(distinct _exported_at), count(distinct id) from exports.udon.e";
    let runs = |wanted: usize| {
        eventually_some(CATCH_UP, &format!("{wanted} runs are in the lake"), || {
            let finished = scenario.command(&["query", "--format", "csv", sql]).run(ANSWER);
            let line = finished.stdout.lines().nth(1)?.to_owned();
            let counts: Vec<usize> = line.split(',').filter_map(|n| n.parse().ok()).collect();
            (counts.get(1)? >= &wanted).then_some(counts)
        })
    };
    let counts = runs(3);
    assert_eq!((counts[0], counts[2]), (100 * counts[1], 100));
    up.kill9();
    let mut up = scenario.start("up");
    let counts = runs(counts[1] + 2);
    assert_eq!((counts[0], counts[2]), (100 * counts[1], 100), "a kill doubled or lost rows");
    assert_eq!(status(&scenario)["schedule"].as_str(), Some("every 2s"));
    up.terminate();
    assert!(up.wait_exit(CATCH_UP).success());
}

#[test]
fn a_table_without_a_key_and_a_consistent_one_are_read_whole() {
    let Some(mysql) = MySql::shared() else { return };
    for (hint, key, settings) in
        [("keyless", "", ""), ("view", " primary key", "consistent = true")]
    {
        let database = mysql.new_database(hint);
        many(mysql, &database, key, 30_000);
        if key.is_empty() {
            mysql.exec(&format!(
                "insert into {database}.t (id, v) values (1, 'text 1'), (1, 'text 1')"
            ));
        }
        let scenario = scenario(mysql, &database, settings);
        export(&scenario);
        let rows = mysql.value(&format!("select concat(count(*), ',', sum(id)) from {database}.t"));
        let found = scenario.query("select count(*), sum(id) from exports.udon.e");
        assert_eq!(found.first(), rows.as_ref(), "{hint}");
    }
}

#[test]
fn a_consistent_export_stays_in_its_view_whatever_the_rows_size() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("large_rows");
    // The first rows say that many fit into a chunk; of the others it holds a fraction.
    many(mysql, &database, " primary key", 1000);
    mysql.exec(&format!(
        "alter table {database}.t add column doc mediumtext;
         insert into {database}.t (id, doc) select id + 1000, repeat('x', 100000) from {database}.t where id <= 400"
    ));
    let scenario = scenario(mysql, &database, "consistent = true");
    let (done, began) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                mysql.exec(&format!("update {database}.t set run = run + 1"));
                began.store(true, Ordering::Relaxed);
            }
        });
        eventually(ANSWER, "rows are changed", || began.load(Ordering::Relaxed));
        export(&scenario);
        done.store(true, Ordering::Relaxed);
    });
    let found = scenario.query("select count(*), count(distinct run) from exports.udon.e");
    assert_eq!(found, ["1400,1"], "rows of several moments");
}

#[test]
fn what_cannot_be_exported_is_refused_with_what_to_do() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("refused");
    mysql.exec(&format!("create table {database}.t (id int primary key, b blob)"));
    for (settings, sentence) in [
        ("where = \"nope > 1\"", "the condition cannot be used on"),
        ("where = \"nope > 1\"", "error 1054: Unknown column 'nope'"),
        ("where = \"1); drop table t; -- \"", "error 1064"),
        ("where = \"id = 1) or (id = 2\"", "error 1064"),
        ("columns = [\"idd\"]", "has no column idd; it has id, b"),
        (
            "columns = [{ column = \"id\", type = \"timestamp\" }]",
            "column id is a int, which cannot become a timestamp",
        ),
    ] {
        let scenario = scenario(mysql, &database, settings);
        let said = scenario.command(&["export", "run", "e"]).run(ANSWER).failure();
        assert!(said.contains(sentence), "{said}");
        assert!(!folder(&scenario).join("_delta_log").exists());
    }
    let scenario = scenario(mysql, &database, "");
    mysql.exec(&format!("rename table {database}.t to {database}.other"));
    let said = scenario.command(&["export", "run", "e"]).run(ANSWER).failure();
    assert!(
        said.contains(&format!("there is no table {database}.t that the user may read")),
        "{said}"
    );
    let said = scenario.command(&["export", "run", "f"]).run(ANSWER).failure();
    assert!(said.contains("there is no export f; there are e"), "{said}");
}
