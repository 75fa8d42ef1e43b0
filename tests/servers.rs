//! The servers that the other tests stand on: they start, answer, survive a crash and never outlive
//! their parent.

mod harness;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use harness::{Kafka, MySql, Stopped, eventually};

const STOPS_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn mysql_shared_by_tests_gives_each_its_own_database() {
    let Some(mysql) = MySql::shared() else { return };
    let (one, two) = (mysql.new_database("market"), mysql.new_database("market"));
    mysql.exec(&format!("create table {one}.t (id int primary key, v varbinary(9))"));
    mysql.exec(&format!("create table {two}.t (id int primary key)"));
    mysql.exec(&format!("insert into {one}.t values (1, null), (2, 'a'), (3, x'ff00')"));
    let rows = mysql.rows(&format!("select * from {one}.t order by id"));
    let cell = |text: &str| Some(text.to_owned());
    let expected =
        [[cell("1"), None], [cell("2"), cell("a")], [cell("3"), cell("0xFF00")]].map(Vec::from);
    assert_eq!(rows, expected);
    assert_eq!(mysql.value(&format!("select count(*) from {two}.t")), cell("0"));
}

#[test]
fn mysql_options_override_the_defaults() {
    let Some(mysql) = MySql::start(&["--gtid-mode=OFF", "--skip-log-bin"]) else { return };
    let variables = mysql.rows("select @@gtid_mode, @@log_bin, @@binlog_row_metadata");
    assert_eq!(variables, [["OFF", "0", "FULL"].map(|text| Some(text.to_owned())).to_vec()]);
}

#[test]
fn mysql_comes_back_after_a_crash_with_its_data_on_its_port() {
    let Some(mut mysql) = MySql::start(&[]) else { return };
    let database = mysql.new_database("crash");
    mysql.exec(&format!("create table {database}.t (id int); insert into {database}.t values (7)"));
    let (port, identity) = (mysql.port(), mysql.value("select @@server_uuid"));
    mysql.kill9();
    mysql.start_again(&[]);
    assert_eq!(mysql.value(&format!("select id from {database}.t")), Some("7".to_owned()));
    assert_eq!((mysql.port(), mysql.value("select @@server_uuid")), (port, identity));
    assert_eq!(mysql.stop(), Stopped::Orderly);
}

#[test]
fn two_servers_have_different_identities() {
    let Some(one) = MySql::shared() else { return };
    let Some(two) = MySql::start(&[]) else { return };
    assert_ne!(one.value("select @@server_uuid"), two.value("select @@server_uuid"));
}

#[test]
fn mariadb_writes_row_events_with_column_names() {
    let Some(mariadb) = MySql::shared_mariadb() else { return };
    let variables = mariadb.rows("select @@log_bin, @@binlog_format, @@binlog_row_metadata");
    assert_eq!(variables, [["1", "ROW", "FULL"].map(|text| Some(text.to_owned())).to_vec()]);
}

#[test]
fn kafka_listens_where_it_says() {
    let Some(kafka) = Kafka::shared() else { return };
    std::net::TcpStream::connect(kafka.bootstrap_servers()).expect("the broker listens");
}

#[test]
fn kafka_can_be_stopped_and_started_again() {
    let Some(mut kafka) = Kafka::start(&["message.max.bytes=2000000"]) else { return };
    let address = kafka.bootstrap_servers();
    assert_eq!(kafka.stop(), Stopped::Orderly);
    std::net::TcpStream::connect(&address).expect_err("nobody listens after a stop");
    kafka.start_again(&[]);
    std::net::TcpStream::connect(&address).expect("the broker listens again");
}

#[test]
fn a_server_goes_away_when_its_parent_is_killed() {
    // For its report where there is no MySQL, and so that the installation is not part of what is
    // timed here.
    if MySql::shared().is_none() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut parent = start_parent(folder.path());
    let pid_file = folder.path().join("mysqld.pid");
    let server: u32 = std::fs::read_to_string(pid_file)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .expect("a running server has written its pid");
    assert!(is_alive(server), "the server runs while its parent does");
    parent.kill().expect("the parent can be killed");
    parent.wait().expect("the parent can be waited for");
    eventually(STOPS_WITHIN, "the server ends after its parent", || !is_alive(server));
}

/// A process that starts `mysql.sh serve` as its child, with a pipe to its standard input as a
/// program would, and waits. It has said `ready` when this returns.
fn start_parent(folder: &std::path::Path) -> Child {
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .expect("a port can be had")
        .port();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/local/mysql.sh");
    // `read` keeps the shell, which holds the only writing end of the pipe, in wait for us.
    let program = r#"exec 4> >(exec bash "$1" serve "$2" "$3"); read -r _"#;
    let mut parent = Command::new("bash")
        .args(["-c", program, "parent", script])
        .arg(folder)
        .arg(port.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash starts");
    // Kept open and unused: if this test panics, the parent reads the end of its input and ends.
    parent.stdin.as_mut().expect("stdin is piped").flush().expect("a pipe can be flushed");
    let mut line = String::new();
    let stdout = parent.stdout.take().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut line).expect("the script's words can be read");
    assert_eq!(line, "ready\n");
    parent
}

fn is_alive(id: u32) -> bool {
    let status = Command::new("kill").args(["-0", &id.to_string()]).stderr(Stdio::null()).status();
    status.expect("kill starts").success()
}
