//! What the command line says when something is not right: one sentence that names it, no secret, and the exit code
//! that scripts look at.

mod harness;
mod scenario;

use std::time::Duration;

use harness::{BinlakeCommand, Finished, MySql};
use scenario::{ANSWER, CATCH_UP, Scenario};
use tempfile::TempDir;

/// For commands that wait for a server that does not answer.
const GIVES_UP: Duration = Duration::from_secs(90);

/// A folder with a configuration.
struct Folder(TempDir);

impl Folder {
    fn new(configuration: &str) -> Folder {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("binlake.toml"), configuration).expect("can be written");
        Folder(folder)
    }

    fn command(&self, arguments: &[&str]) -> BinlakeCommand {
        BinlakeCommand::new(arguments).current_dir(self.0.path())
    }

    /// Runs a command that has to fail, and returns its last words.
    #[track_caller]
    fn complaint(&self, arguments: &[&str]) -> String {
        complaint(self.command(arguments).run(GIVES_UP))
    }
}

/// The one sentence of a command that failed.
#[track_caller]
fn complaint(finished: Finished) -> String {
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let errors: Vec<&str> =
        finished.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "not one sentence: {finished:?}");
    assert!(finished.stderr.trim_end().ends_with(errors[0]), "not at the end: {finished:?}");
    assert!(!finished.stderr.contains("panicked"), "{finished:?}");
    errors[0].to_owned()
}

fn configuration(mysql_url: &str, more: &str) -> String {
    format!(
        "[[source]]\nname = \"udon\"\nurl = \"{mysql_url}\"\n\n{more}\n[console]\nlisten = \"127.0.0.1:0\"\n"
    )
}

/// Nothing listens on port 1.
const NO_MYSQL: &str = "mysql://root@127.0.0.1:1";

#[test]
fn usage_is_explained_with_exit_code_2() {
    let folder = Folder::new("");
    for arguments in [&["chek"][..], &[], &["up", "--freshness", "1s"], &["query"]] {
        let finished = folder.command(arguments).run(ANSWER);
        assert_eq!(finished.status.code(), Some(2), "{arguments:?} {finished:?}");
        assert!(finished.stderr.contains("Usage: binlake"), "{finished:?}");
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let folder = Folder::new("");
    let commands = [
        "init", "check", "up", "reader", "sink", "console", "status", "query", "verify", "snapshot",
    ];
    for command in commands {
        let help = folder.command(&[command, "--help"]).run(ANSWER).success();
        assert!(help.contains("Example: binlake "), "{command}:\n{help}");
    }
}

#[test]
fn missing_configuration_is_named_with_what_to_do() {
    let folder = Folder::new("");
    let text = folder.complaint(&["status", "--config", "nowhere.toml"]);
    assert!(text.contains("nowhere.toml") && text.contains("binlake init"), "{text}");
}

#[test]
fn unknown_key_is_named_with_its_line_and_the_nearest_one() {
    let folder = Folder::new(&configuration(NO_MYSQL, "[lake]\nfreshnes = \"1s\"\n"));
    let text = folder.complaint(&["up"]);
    assert!(text.contains("line 6"), "{text}");
    assert!(text.contains("unknown key `freshnes` in [lake]; did you mean `freshness`?"), "{text}");
}

#[test]
fn environment_overrides_the_file_and_is_checked_too() {
    let folder = Folder::new(&configuration(NO_MYSQL, ""));
    let command = folder.command(&["query", "select 1"]).env("BINLAKE_LAKE__FRESHNESS", "soon");
    let text = complaint(command.run(ANSWER));
    assert!(text.contains("`soon` is no duration"), "{text}");
    let command = folder.command(&["query", "select 1"]).env("BINLAKE_LAKE__ULR", "x");
    let text = complaint(command.run(ANSWER));
    assert!(text.contains("BINLAKE_LAKE__ULR") && text.contains("did you mean `url`?"), "{text}");
}

#[test]
fn unreachable_kafka_is_named() {
    let log = "[change_log]\nkind = \"kafka\"\nbootstrap_servers = \"127.0.0.1:1\"\n";
    let folder = Folder::new(&configuration(NO_MYSQL, log));
    for command in ["sink", "reader", "status"] {
        let text = folder.complaint(&[command]);
        assert!(text.contains("127.0.0.1:1"), "{command}: {text}");
    }
    let finished = folder.command(&["check"]).run(GIVES_UP);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stdout.contains("change log at 127.0.0.1:1"), "{finished:?}");
}

#[test]
fn lake_that_cannot_be_written_is_named() {
    // Not even root can make a folder there.
    let folder = Folder::new(&configuration(NO_MYSQL, "[lake]\nurl = \"/proc/binlake\"\n"));
    let text = folder.complaint(&["sink"]);
    assert!(text.contains("lake folder /proc/binlake is not writable"), "{text}");
    let finished = folder.command(&["check"]).run(ANSWER);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stdout.contains("/proc/binlake is not writable"), "{finished:?}");
    let folder = Folder::new(&configuration(NO_MYSQL, "[lake]\nurl = \"s3://bucket/lake\"\n"));
    let text = folder.complaint(&["sink"]);
    assert!(text.contains("s3://bucket/lake") && text.contains("later release"), "{text}");
}

#[test]
fn address_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    let address = taken.local_addr().expect("it has an address").to_string();
    let folder = Folder::new(&configuration(NO_MYSQL, ""));
    let text = folder.complaint(&["console", "--listen", &address]);
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
}

#[test]
fn unreachable_mysql_ends_up_with_its_address() {
    let folder = Folder::new(&configuration(NO_MYSQL, ""));
    for arguments in [&["up"][..], &["reader"], &["verify"]] {
        let text = folder.complaint(arguments);
        assert!(text.contains("cannot connect to MySQL at 127.0.0.1:1"), "{arguments:?}: {text}");
    }
}

#[test]
fn wrong_password_is_told_without_the_password() {
    let Some(mysql) = MySql::shared() else { return };
    mysql.exec("create user 'locked'@'%' identified by 'right'");
    let url = format!("mysql://locked@127.0.0.1:{}", mysql.port());
    let folder = Folder::new(
        &configuration(&url, "").replace("\n\n", "\npassword_env = \"TEST_PASSWORD\"\n\n"),
    );
    for arguments in [&["up"][..], &["verify"]] {
        let finished =
            folder.command(arguments).env("TEST_PASSWORD", "very-wrong-secret").run(ANSWER);
        assert!(!format!("{finished:?}").contains("very-wrong-secret"), "{finished:?}");
        let text = complaint(finished);
        assert!(text.contains("Access denied") && text.contains("password"), "{text}");
    }
    let text = folder.complaint(&["up"]);
    assert!(text.contains("TEST_PASSWORD"), "a variable that is not set is named: {text}");
}

#[test]
fn missing_grant_is_told_with_the_sql_that_cures_it() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("grants");
    mysql.exec(&format!("create table {database}.t (id int primary key)"));
    mysql.exec("create user 'reads'@'%' identified by 'x'; grant select on *.* to 'reads'@'%'");
    let url = format!("mysql://reads:x@127.0.0.1:{}", mysql.port());
    let folder = Folder::new(&configuration(&url, ""));
    let cure = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'reads'@'%'";
    let finished = folder.command(&["check"]).run(ANSWER);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    assert!(finished.stdout.contains(cure), "{finished:?}");
    let json = folder.command(&["check", "--json"]).run(ANSWER).stdout;
    let report: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert!(report["sources"][0]["settings"].is_array(), "{json}");
    let text = folder.complaint(&["up"]);
    assert!(text.contains(cure), "{text}");
}

#[test]
fn server_settings_that_lose_changes_are_refused_by_name() {
    for (options, wanted) in [
        (&["--skip-log-bin"][..], "log_bin"),
        (&["--binlog-format=STATEMENT"], "binlog_format"),
        (
            &["--binlog-row-image=MINIMAL", "--binlog-row-value-options=PARTIAL_JSON"],
            "binlog_row_image",
        ),
    ] {
        let Some(mysql) = MySql::start(options) else { return };
        let folder = Folder::new(&configuration(&mysql.url(), ""));
        let text = folder.complaint(&["up"]);
        assert!(text.contains("is not ready") && text.contains(wanted), "{options:?}: {text}");
        let finished = folder.command(&["check"]).run(ANSWER);
        assert_eq!(finished.status.code(), Some(1), "{finished:?}");
        assert!(finished.stdout.contains(&format!("MISSING {wanted}")), "{finished:?}");
    }
}

#[test]
fn init_writes_a_configuration_without_the_password_and_overwrites_none() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("init");
    mysql.exec(&format!(
        "use {database}; create table orders (id int primary key);
         create table page_events (id int primary key); create table clicks (page int);
         create user 'init'@'%' identified by 'a-secret'; grant all on *.* to 'init'@'%'"
    ));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let url = format!("mysql://init:a-secret@127.0.0.1:{}/{database}", mysql.port());
    let init = || {
        let arguments = ["init", &url, "--name", "udon"];
        BinlakeCommand::new(arguments).current_dir(folder.path()).run(ANSWER)
    };
    let said = init().success();
    assert!(said.contains("MYSQL_PASSWORD") && !said.contains("a-secret"), "{said}");
    let text = std::fs::read_to_string(folder.path().join("binlake.toml")).expect("is there");
    assert!(!text.contains("a-secret") && text.contains("password_env"), "{text}");
    for (table, mode) in [("page_events", "history"), ("clicks", "history")] {
        let rule = format!("match = \"udon.{database}.{table}\"\nmode = \"{mode}\"");
        assert!(text.contains(&rule), "{text}");
    }
    let check = || BinlakeCommand::new(["check"]).current_dir(folder.path());
    check().env("MYSQL_PASSWORD", "a-secret").run(ANSWER).success();
    let again = complaint(init());
    assert!(again.contains("is there already"), "{again}");
}

#[test]
fn query_takes_no_statement_that_writes() {
    let folder = Folder::new(&configuration(NO_MYSQL, ""));
    for sql in ["drop table a", "create table a (b int)", "copy (select 1) to 'a.csv'"] {
        let text = folder.complaint(&["query", sql]);
        assert!(text.contains("read-only"), "{sql}: {text}");
    }
    let text = folder.complaint(&["query", "select * from udon.market.orders"]);
    assert!(text.contains("there is no table udon.market.orders"), "{text}");
}

#[test]
fn query_writes_every_form() {
    let folder = Folder::new(&configuration(NO_MYSQL, ""));
    let run = |arguments: &[&str]| folder.command(arguments).run(ANSWER).success();
    let sql = "select 7 as a, 'x' as b";
    assert_eq!(run(&["query", "--format", "csv", sql]), "a,b\n7,x\n");
    assert_eq!(run(&["query", "--format", "json", sql]), "[{\"a\":7,\"b\":\"x\"}]\n");
    run(&["query", "--format", "parquet", "--output", "out.parquet", sql]);
    let bytes = std::fs::read(folder.0.path().join("out.parquet")).expect("is written");
    assert!(bytes.starts_with(b"PAR1") && bytes.ends_with(b"PAR1"));
}

#[test]
fn verify_finds_changes_that_never_came_through_the_binlog() {
    let Some(mysql) = MySql::shared() else { return };
    let database = mysql.new_database("verified");
    mysql.exec(&format!(
        "use {database}; create table t (id int primary key, name varchar(20));
         insert into t values (1, 'a'), (2, 'b'), (3, 'c');
         create table clicks (page varchar(9)); insert into clicks values ('/'), ('/')"
    ));
    let scenario = Scenario::new(mysql, "udon", &[&format!("{database}.*")], "");
    let mut waiting = scenario.command(&["verify", "--timeout", "1"]).run(ANSWER);
    assert_eq!(waiting.status.code(), Some(1), "no reader has run: {waiting:?}");
    let _up = scenario.start("up");
    scenario.verify();
    for (change, cure, sentence) in [
        (
            "update t set name = 'x' where id = 2",
            "update t set name = 'b' where id = 2",
            "id = '2': name: 'x' in MySQL, 'b' in the lake",
        ),
        (
            "delete from t where id = 1",
            "insert into t values (1, 'a')",
            "id = '1': is in the lake and not in MySQL",
        ),
        (
            "insert into t values (4, 'd')",
            "delete from t where id = 4",
            "id = '4': is not in the lake",
        ),
        ("insert into clicks values ('/')", "delete from clicks limit 1", "DIFFERENT in 1 rows"),
    ] {
        mysql.exec(&format!("use {database}; set sql_log_bin = 0; {change}"));
        waiting = scenario.command(&["verify"]).run(CATCH_UP);
        assert_eq!(waiting.status.code(), Some(1), "{change}: {waiting:?}");
        assert!(waiting.stdout.contains(sentence), "{change}: {waiting:?}");
        mysql.exec(&format!("use {database}; set sql_log_bin = 0; {cure}"));
    }
    let json = scenario.command(&["verify", "--json"]).run(CATCH_UP).success();
    let results: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
    assert_eq!(results.as_array().map(Vec::len), Some(2), "{json}");
}
