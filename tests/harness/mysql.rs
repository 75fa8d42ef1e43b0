//! A real MySQL or MariaDB server, and SQL on it, without async in the tests.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder, Row, Value};
use tokio::runtime::Runtime;

use super::not_tested;
use super::servers::{self, Folder, Server, Stopped};

/// Rows as the server writes them as text; `None` is NULL, and bytes that are not UTF-8 come as
/// `0x` and hex digits.
pub type Rows = Vec<Vec<Option<String>>>;

/// A running server; root has no password.
pub struct MySql {
    server: Server,
    databases: AtomicU32,
}

impl MySql {
    /// The MySQL server that all tests of this binary share; each test works in databases of its
    /// own.
    pub fn shared() -> Option<&'static MySql> {
        static SHARED: OnceLock<Option<MySql>> = OnceLock::new();
        shared(&SHARED, "mysql.sh")
    }

    /// The same of MariaDB.
    pub fn shared_mariadb() -> Option<&'static MySql> {
        static SHARED: OnceLock<Option<MySql>> = OnceLock::new();
        shared(&SHARED, "mariadb.sh")
    }

    /// A MySQL server of the test's own, with options such as `--gtid-mode=OFF`.
    pub fn start(options: &[&str]) -> Option<MySql> {
        start("mysql.sh", options)
    }

    /// A MariaDB server of the test's own.
    pub fn start_mariadb(options: &[&str]) -> Option<MySql> {
        start("mariadb.sh", options)
    }

    /// The TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.server.port()
    }

    /// The folder with the server's log and data.
    pub fn folder(&self) -> &std::path::Path {
        self.server.folder()
    }

    /// What `binlake init` takes.
    pub fn url(&self) -> String {
        format!("mysql://root@127.0.0.1:{}", self.port())
    }

    /// Creates a database that no other test has, and returns its name.
    pub fn new_database(&self, hint: &str) -> String {
        let name = format!("{hint}_{}", self.databases.fetch_add(1, Ordering::Relaxed) + 1);
        self.exec(&format!("create database `{name}`"));
        name
    }

    /// Executes statements, separated by semicolons, on a connection of their own.
    #[track_caller]
    pub fn exec(&self, sql: &str) {
        self.session().exec(sql);
    }

    /// The rows of one SELECT, on a connection of its own.
    #[track_caller]
    pub fn rows(&self, sql: &str) -> Rows {
        self.session().rows(sql)
    }

    /// The only value of a SELECT that has one.
    #[track_caller]
    pub fn value(&self, sql: &str) -> Option<String> {
        let mut rows = self.rows(sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "not one value: {sql}");
        rows[0].remove(0)
    }

    /// A connection as root that keeps its variables and transactions.
    #[track_caller]
    pub fn session(&self) -> Session {
        let options = OptsBuilder::default().user(Some("root"));
        Session::open(self.port(), options).unwrap_or_else(|error| panic!("no connection: {error}"))
    }

    /// A connection as somebody else; the server's words when it refuses.
    pub fn session_as(&self, user: &str, password: &str) -> Result<Session, String> {
        Session::open(self.port(), OptsBuilder::default().user(Some(user)).pass(Some(password)))
    }

    /// Stops the server in an orderly way.
    pub fn stop(&mut self) -> Stopped {
        self.server.stop()
    }

    /// Kills the server, as a power failure would.
    pub fn kill9(&mut self) {
        // The server's own folder holds one pid file, named after the program.
        let id = ["mysqld.pid", "mariadbd.pid"]
            .iter()
            .find_map(|name| std::fs::read_to_string(self.server.folder().join(name)).ok())
            .and_then(|text| text.trim().parse().ok())
            .expect("a running server has written its pid");
        self.server.kill9(id);
    }

    /// Starts a stopped or killed server again, with its data and on its port.
    pub fn start_again(&mut self, options: &[&str]) {
        self.server.start_again(options);
    }
}

fn shared(place: &'static OnceLock<Option<MySql>>, script: &'static str) -> Option<&'static MySql> {
    let shared = place.get_or_init(|| {
        servers::install(script).ok()?;
        Some(serve(script, servers::shared_folder(), &[]))
    });
    if shared.is_none() {
        not_tested(&servers::install(script).err().unwrap_or_default());
    }
    shared.as_ref()
}

fn start(script: &'static str, options: &[&str]) -> Option<MySql> {
    if let Err(why) = servers::install(script) {
        not_tested(&why);
        return None;
    }
    Some(serve(script, servers::owned_folder(), options))
}

fn serve(script: &'static str, folder: Folder, options: &[&str]) -> MySql {
    MySql { server: Server::start(script, folder, options), databases: AtomicU32::new(0) }
}

/// One connection.
pub struct Session {
    connection: Conn,
}

impl Session {
    /// A connection as root to a local server; the reason when there is none.
    pub fn local(port: u16) -> Result<Session, String> {
        Session::open(port, OptsBuilder::default().user(Some("root")))
    }

    fn open(port: u16, options: OptsBuilder) -> Result<Session, String> {
        // Without prefer_socket(false) the client moves to the server's Unix socket, whose path is
        // relative here.
        let options = options.ip_or_hostname("127.0.0.1").tcp_port(port).prefer_socket(false);
        let connection =
            runtime().block_on(Conn::new(options)).map_err(|error| error.to_string())?;
        Ok(Session { connection })
    }

    /// Executes statements, separated by semicolons; the server's words when one fails.
    pub fn try_exec(&mut self, sql: &str) -> Result<(), String> {
        runtime().block_on(self.connection.query_drop(sql)).map_err(|error| error.to_string())
    }

    /// Executes statements, separated by semicolons.
    #[track_caller]
    pub fn exec(&mut self, sql: &str) {
        if let Err(error) = self.try_exec(sql) {
            panic!("{error}: {}", shortened(sql));
        }
    }

    /// The rows of one SELECT.
    #[track_caller]
    pub fn rows(&mut self, sql: &str) -> Rows {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{error}: {}", shortened(sql)))
    }

    /// The rows of one SELECT; the server's words when it fails.
    pub fn try_rows(&mut self, sql: &str) -> Result<Rows, String> {
        let rows: Result<Vec<Row>, _> = runtime().block_on(self.connection.query(sql));
        rows.map(|rows| rows.into_iter().map(texts).collect()).map_err(|error| error.to_string())
    }
}

/// A small runtime for all connections: tests are ordinary functions.
fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be built")
    })
}

fn texts(row: Row) -> Vec<Option<String>> {
    row.unwrap().into_iter().map(text).collect()
}

fn text(value: Value) -> Option<String> {
    match value {
        Value::NULL => None,
        Value::Bytes(bytes) => Some(String::from_utf8(bytes).unwrap_or_else(|error| {
            let digits: String =
                error.as_bytes().iter().map(|byte| format!("{byte:02X}")).collect();
            format!("0x{digits}")
        })),
        // The text protocol sends every value as its text.
        other => panic!("not text: {other:?}"),
    }
}

/// A failing statement of megabytes would bury the server's message.
fn shortened(sql: &str) -> String {
    const CHARACTERS_MAX: usize = 1000;
    sql.chars().take(CHARACTERS_MAX).collect()
}
