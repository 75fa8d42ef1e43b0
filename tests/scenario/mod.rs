//! One Binlake with a configuration of its own in a temporary folder, on a server that others may use as well.

// Every test binary compiles a copy of its own and uses a part of it.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::harness::{Binlake, BinlakeCommand, MySql, Python, Rows, eventually};

/// For a lake to catch up on a machine that compiles something else at the same time.
pub const CATCH_UP: Duration = Duration::from_secs(180);
/// For commands that only look.
pub const ANSWER: Duration = Duration::from_secs(60);

/// The source's name in every scenario; topics and lakes are told apart by broker and folder.
pub const SOURCE: &str = "udon";

/// A configuration, its lake and its change log.
pub struct Scenario {
    folder: TempDir,
    source: String,
}

impl Scenario {
    /// Writes a configuration that captures `tables` of `mysql`; `more` is added to it as it is.
    pub fn new(mysql: &MySql, source: &str, tables: &[&str], more: &str) -> Scenario {
        Scenario::with_source_settings(mysql, source, tables, "", more)
    }

    /// The same with lines in the source's own section.
    pub fn with_source_settings(
        mysql: &MySql,
        source: &str,
        tables: &[&str],
        source_settings: &str,
        more: &str,
    ) -> Scenario {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let tables: Vec<String> = tables.iter().map(|pattern| format!("{pattern:?}")).collect();
        let text = format!(
            "[[source]]\nname = \"{source}\"\nurl = \"{}\"\ntables = [{}]\n{source_settings}\n\
             [lake]\nurl = \"file:./lake\"\nfreshness = \"1s\"\n\n\
             [console]\nlisten = \"127.0.0.1:0\"\n\n{more}\n",
            mysql.url(),
            tables.join(", ")
        );
        std::fs::write(folder.path().join("binlake.toml"), text).expect("the file can be written");
        Scenario { folder, source: source.to_owned() }
    }

    /// The source's name.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Where the configuration is, and all that its relative paths name.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A subcommand with this configuration.
    pub fn command(&self, arguments: &[&str]) -> BinlakeCommand {
        let mut all = arguments.to_vec();
        let file = self.folder.path().join("binlake.toml").display().to_string();
        all.extend(["--config", &file]);
        BinlakeCommand::new(all)
    }

    /// Writes something else in the place of a part of the configuration, as an editor does: at once.
    #[track_caller]
    pub fn edit(&self, old: &str, new: &str) {
        let (file, other) =
            (self.folder.path().join("binlake.toml"), self.folder.path().join("new"));
        let text = std::fs::read_to_string(&file).expect("the file can be read");
        assert!(text.contains(old), "{old:?} is not in {text}");
        std::fs::write(&other, text.replacen(old, new, 1)).expect("a file can be written");
        std::fs::rename(other, file).expect("a file can be renamed");
    }

    /// Starts `binlake up`, or one part of it.
    pub fn start(&self, part: &str) -> Binlake {
        self.command(&[part]).start()
    }

    /// Waits until `binlake verify` finds the lake equal to the source, and returns what it said. A lake that is
    /// still behind is looked at again; one that stays different fails the test with its last words.
    #[track_caller]
    pub fn verify(&self) -> String {
        self.command(&["verify"]).run(CATCH_UP).success()
    }

    /// The rows of a query over the lake, without the header.
    #[track_caller]
    pub fn query(&self, sql: &str) -> Vec<String> {
        let text = self.command(&["query", "--format", "csv", sql]).run(ANSWER).success();
        text.lines().skip(1).map(str::to_owned).collect()
    }

    /// Waits until a query over the lake gives these lines of CSV.
    #[track_caller]
    pub fn wait_for_query(&self, sql: &str, expected: &[&str]) {
        eventually(CATCH_UP, &format!("{sql} gives {expected:?}"), || {
            let finished = self.command(&["query", "--format", "csv", sql]).run(ANSWER);
            let lines: Vec<&str> = finished.stdout.lines().skip(1).collect();
            finished.status.success() && lines == expected
        });
    }

    /// Where a table lies.
    pub fn table_folder(&self, table: &str) -> PathBuf {
        let path = table.replace('.', "/");
        self.folder.path().join("lake").join(&self.source).join(path)
    }

    /// What another program reads from a table, sorted by its key.
    #[track_caller]
    pub fn rows_read_by(
        &self,
        engine: &str,
        table: &str,
        columns: &str,
        key: &str,
    ) -> Option<Rows> {
        let python = Python::shared()?;
        let folder = self.table_folder(table).display().to_string();
        let arguments =
            ["--engine", engine, "--table", &folder, "--columns", columns, "--key", key];
        let text = python.run("read_tables.py", &arguments, ANSWER);
        let row = |line: &str| serde_json::from_str(line).expect("the script prints JSON arrays");
        Some(text.lines().map(row).collect())
    }
}

/// The sum of a metric over its labels, asked of a running part; 0 while it does not listen yet.
pub fn metric(process: &Binlake, name: &str) -> f64 {
    let said = process.stderr();
    let address =
        said.split_once("page=http://").and_then(|(_, rest)| rest.split_whitespace().next());
    let Some(text) = address.and_then(|address| get(address, "/metrics").ok()) else { return 0.0 };
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

fn get(address: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
