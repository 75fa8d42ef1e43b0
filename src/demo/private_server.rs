//! A MySQL or Kafka server of the demo's own, run by the scripts of `deploy/local`, which the program carries.
//!
//! The server is a child of its script, and the script stops it when its standard input ends. The only writing end of
//! that pipe is ours, so the server goes when we go: by dropping it, after a panic, after kill -9.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use thiserror::Error;

/// A script gives its server ten seconds before it kills it.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);
/// A port that was free a moment ago can be taken; so often in a row it cannot be chance.
const PORT_ATTEMPTS: usize = 5;

/// What can be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// MySQL.
    MySql,
    /// Apache Kafka.
    Kafka,
}

/// What becomes of a server's data when it has stopped, also when it stops because we were killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// It stays.
    Kept,
    /// Its script removes it.
    Removed,
}

/// A running server. Dropping it stops it and waits until it is gone.
#[derive(Debug)]
pub struct PrivateServer {
    script: Child,
    port: u16,
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// The folder or the script cannot be written, or bash does not start.
    #[error("cannot prepare {what}")]
    Prepare {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The program is not on this machine and could not be fetched; the script has said why.
    #[error("{name} is not to be had on this machine (see above); {instead}")]
    Install {
        /// The program.
        name: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// It did not start.
    #[error("{name} did not start: {reason}")]
    Start {
        /// The program.
        name: &'static str,
        /// The end of what it said.
        reason: String,
    },
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Program::MySql => "MySQL",
            Program::Kafka => "Kafka",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Program::MySql => "mysql",
            Program::Kafka => "kafka",
        }
    }

    fn script(self) -> &'static str {
        match self {
            Program::MySql => include_str!("../../deploy/local/mysql.sh"),
            Program::Kafka => include_str!("../../deploy/local/kafka.sh"),
        }
    }

    fn instead(self) -> &'static str {
        match self {
            Program::MySql => "name a server with --mysql-url mysql://user@host:port",
            Program::Kafka => "name a broker with --kafka host:port, or leave --kafka out",
        }
    }
}

impl PrivateServer {
    /// Fetches the program when the machine has none (its script says what it downloads), and starts it with its data
    /// in a folder below `folder`. Blocks until the server answers.
    pub fn start(
        program: Program,
        folder: &Path,
        data: Data,
    ) -> Result<PrivateServer, ServerError> {
        let script = folder.join(format!("{}.sh", program.folder()));
        prepared(&script.display().to_string(), std::fs::write(&script, program.script()))?;
        let install = Command::new("bash")
            .arg(&script)
            .arg("install")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if !prepared("bash", install)?.success() {
            return Err(ServerError::Install { name: program.name(), instead: program.instead() });
        }
        let data_folder = folder.join(program.folder());
        prepared(&data_folder.display().to_string(), std::fs::create_dir_all(&data_folder))?;
        let mut reason = String::new();
        for _ in 0..PORT_ATTEMPTS {
            let port = prepared("a port", free_port())?;
            match serve(&script, (&data_folder, data), port)? {
                Ok(server) => return Ok(server),
                Err(said) => reason = said,
            }
            if !reason.contains("Address already in use") {
                break;
            }
        }
        let reason = reason.lines().last().unwrap_or("it said nothing").to_owned();
        Err(ServerError::Start { name: program.name(), reason })
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        drop(self.script.stdin.take());
        let asked = Instant::now();
        while matches!(self.script.try_wait(), Ok(None)) {
            if asked.elapsed() > STOP_TIMEOUT {
                // Its children are told to die with it; see the script.
                if self.script.kill().is_ok() && self.script.wait().is_ok() {
                    return;
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Starts a script and waits for its word; the inner error is what it said instead.
fn serve(
    script: &Path,
    (data_folder, data): (&Path, Data),
    port: u16,
) -> Result<Result<PrivateServer, String>, ServerError> {
    let messages: PathBuf = script.with_extension("err");
    let stderr = prepared(&messages.display().to_string(), File::create(&messages))?;
    let child = Command::new("bash")
        .arg(script)
        .arg("serve")
        .arg(data_folder)
        .arg(port.to_string())
        .env("BINLAKE_SERVE_REMOVE", if data == Data::Removed { "1" } else { "" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        // Ctrl-C goes to our whole process group; the server has to outlive the reader and the sink.
        .process_group(0)
        .spawn();
    let mut server = PrivateServer { script: prepared("bash", child)?, port };
    let mut line = String::new();
    let said = match server.script.stdout.take() {
        Some(stdout) => BufReader::new(stdout).read_line(&mut line),
        None => Ok(0),
    };
    if said.is_ok() && line == "ready\n" {
        return Ok(Ok(server));
    }
    drop(server);
    Ok(Err(std::fs::read_to_string(&messages).unwrap_or_default()))
}

/// A port that is free, with the next one free as well, because Kafka takes two.
fn free_port() -> std::io::Result<u16> {
    loop {
        let first = TcpListener::bind(("127.0.0.1", 0))?;
        let port = first.local_addr()?.port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
}

fn prepared<T>(what: &str, result: std::io::Result<T>) -> Result<T, ServerError> {
    result.map_err(|source| ServerError::Prepare { what: what.to_owned(), source })
}
