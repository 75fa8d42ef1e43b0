//! A MySQL server shared by the tests of this binary; it ends with the test process, because its standard input does.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use cdc_reader::{
    SourceConfig,
    mysql::{
        Server,
        catalog::{Catalog, CatalogTable, load},
        connect,
        rows::RowConnection,
    },
    table_filter::TableFilter,
};
use mysql_async::{Conn, prelude::Queryable};
use tokio_util::sync::CancellationToken;

pub struct Running {
    pub port: u16,
    pub folder: PathBuf,
    // Holds the server's standard input open.
    _child: Child,
}

pub fn start(options: &[&str]) -> Running {
    start_by("mysql.sh", options)
}

pub fn start_by(script: &str, options: &[&str]) -> Running {
    let folder = tempfile::tempdir().expect("a folder").keep();
    // Below the range that clients' ports are taken from.
    let port = std::iter::repeat_with(|| fastrand::u16(20_000..32_000))
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port");
    let script = format!("{}/../deploy/local/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut child = Command::new(script)
        .args(["serve", folder.to_str().expect("UTF-8"), &port.to_string()])
        .args(options)
        .env("BINLAKE_SERVE_REMOVE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("mysql.sh runs");
    let stdout = child.stdout.take().expect("is piped");
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).expect("reads");
    assert_eq!(line.trim(), "ready");
    Running { port, folder, _child: child }
}

pub fn shared() -> &'static Running {
    static SHARED: OnceLock<Running> = OnceLock::new();
    SHARED.get_or_init(|| start(&[]))
}

impl Running {
    pub fn config(&self, user: &str, tables: &[&str]) -> SourceConfig {
        serde_json::from_value(serde_json::json!({
            "name": "udon",
            "url": format!("mysql://{user}@127.0.0.1:{}", self.port),
            "tables": tables,
        }))
        .expect("a source")
    }

    /// A database of the test's own.
    pub async fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("db{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let config = self.config("root", &[&format!("{name}.*")]);
        let mut connection = connect::connect(&config).await.expect("connects");
        connection.query_drop(format!("CREATE DATABASE {name}")).await.expect("created");
        connection.query_drop(format!("USE {name}")).await.expect("used");
        let server =
            connect::server(&mut connection, &connect::place(&config)).await.expect("answers");
        Database { name, config, connection, server, rows: None }
    }
}

pub struct Database {
    pub name: String,
    pub config: SourceConfig,
    pub connection: Conn,
    pub server: Server,
    pub rows: Option<RowConnection>,
}

/// A connection for rows.
pub fn connect_rows(config: &SourceConfig) -> RowConnection {
    RowConnection::connect(config, CancellationToken::new()).expect("connects")
}

impl Database {
    pub async fn run(&mut self, sql: &str) {
        for statement in sql.split(";\n").filter(|s| !s.trim().is_empty()) {
            self.connection
                .query_drop(statement)
                .await
                .unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }

    /// The connection for rows; a new one after a cut.
    pub fn rows(&mut self) -> &mut RowConnection {
        if !self.rows.as_ref().is_some_and(RowConnection::is_open) {
            self.rows = Some(connect_rows(&self.config));
        }
        self.rows.as_mut().expect("just connected")
    }

    pub async fn catalog(&mut self) -> Catalog {
        let filter = TableFilter::new(&self.config.tables).expect("valid");
        load(&mut self.connection, &self.server, "udon", &filter).await.expect("loads")
    }

    pub async fn table(&mut self, name: &str) -> CatalogTable {
        let catalog = self.catalog().await;
        let found = catalog.tables.into_iter().find(|table| table.schema.id.table == name);
        found.unwrap_or_else(|| panic!("no table {name}; {:?}", catalog.unsupported))
    }
}

/// The runtime of one test.
pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Columns of every type, with a key.
pub const EVERY_TYPE: &str = r"CREATE TABLE every_type (
  id BIGINT UNSIGNED NOT NULL,
  ti TINYINT, tiu TINYINT UNSIGNED, b BOOL, si SMALLINT, siu SMALLINT UNSIGNED, mi MEDIUMINT, miu MEDIUMINT UNSIGNED,
  i INT, iu INT(10) UNSIGNED ZEROFILL, bi BIGINT, biu BIGINT UNSIGNED,
  f FLOAT, f74 FLOAT(7,4), f53 FLOAT(53), d DOUBLE, r REAL,
  dec52 DECIMAL(5,2), dec38 DECIMAL(38,10), dec65 DECIMAL(65,30), decz DECIMAL(10,3) ZEROFILL,
  bit1 BIT(1), bit9 BIT(9), bit64 BIT(64),
  da DATE, t0 TIME, t6 TIME(6), dt0 DATETIME, dt3 DATETIME(3), dt6 DATETIME(6),
  ts0 TIMESTAMP NULL, ts2 TIMESTAMP(2) NULL, ts6 TIMESTAMP(6) NULL, y YEAR,
  c CHAR(10), c0 CHAR(0), nvc NATIONAL VARCHAR(20), vc VARCHAR(300), vl VARCHAR(50) CHARACTER SET latin1,
  vs VARCHAR(50) CHARACTER SET sjis, vu VARCHAR(50) CHARACTER SET ucs2, tt TINYTEXT, tx TEXT, mt MEDIUMTEXT, lt LONGTEXT,
  cb CHAR(4) CHARACTER SET binary, bin4 BINARY(4), bin255 BINARY(255), vb VARBINARY(300), bl BLOB, lb LONGBLOB,
  e ENUM('a','b''c','d,e','') , e2 ENUM('ä','ü') CHARACTER SET latin1, s SET('x','y','z'), j JSON,
  p POINT, g GEOMETRY, ls LINESTRING, mp MULTIPOLYGON, gc GEOMETRYCOLLECTION, v VECTOR(3),
  gv INT AS (i + 1) VIRTUAL, gs INT AS (i + 2) STORED, inv INT INVISIBLE DEFAULT 7,
  nn_da DATE NOT NULL DEFAULT '2020-01-01', nn_dt DATETIME(6) NOT NULL DEFAULT '2020-01-01',
  nn_ts TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP, nn_p POINT NOT NULL DEFAULT (POINT(1, 2)),
  PRIMARY KEY (id))";
