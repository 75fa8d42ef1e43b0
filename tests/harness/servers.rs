//! Runs one of `deploy/local/*.sh`: install, serve on a free port, stop, kill and start again.
//!
//! The scripts own everything about a server but its port and its folder. A `Server` is stopped
//! when it is dropped, and by its script when this process dies, because then the script's standard
//! input ends.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Seek};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use tempfile::TempDir;

use super::eventually::eventually_some;

/// Servers start in seconds; the limit is for a machine that compiles something else at the same
/// time.
const START_TIMEOUT: Duration = Duration::from_secs(180);
/// The script gives its server ten seconds before it kills it.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);
/// A port that was free a moment ago can be taken; that it happens this often in a row means
/// something else is wrong.
const PORT_ATTEMPTS: usize = 5;

/// How a server's folder is disposed of.
pub enum Folder {
    /// Removed when the `Server` is dropped.
    Owned(TempDir),
    /// Removed by the script: for servers in statics, which are never dropped.
    RemovedByScript(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Folder::Owned(temp) => temp.path(),
            Folder::RemovedByScript(path) => path,
        }
    }
}

/// Whether the server that a `Server` stands for can be started again after it was stopped or
/// killed.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Stopped {
    /// It ended as it was told to.
    Orderly,
    /// Its script ended with an error: the server had been killed, or did not stop.
    Killed,
}

/// One running server.
pub struct Server {
    script: &'static str,
    folder: Folder,
    port: u16,
    serving: Option<Child>,
}

/// Where a script of `deploy/local` is.
pub fn script_path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/local").join(script)
}

/// Makes sure that a server's program is on this machine; says in one sentence why not. Asked once
/// per script.
pub fn install(script: &'static str) -> Result<(), String> {
    type Answers = Mutex<HashMap<&'static str, Result<(), String>>>;
    static ANSWERS: OnceLock<Answers> = OnceLock::new();
    let answers = ANSWERS.get_or_init(Mutex::default);
    let mut answers = answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    answers.entry(script).or_insert_with(|| run_install(script)).clone()
}

fn run_install(script: &str) -> Result<(), String> {
    let output = Command::new("bash")
        .arg(script_path(script))
        .arg("install")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("bash does not start: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let messages = String::from_utf8_lossy(&output.stderr);
    Err(messages.lines().last().unwrap_or("the install script failed silently").to_owned())
}

/// A port that is free now, with the next one free as well (Kafka takes two). Below the range that systems take clients'
/// ports from: else, while a server is down, its port may become a client's, or a client may reach itself there.
fn free_port() -> u16 {
    let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = fastrand::u16(20_000..32_000);
        if free(port) && free(port + 1) {
            return port;
        }
    }
}

impl Server {
    /// Starts a server with a new folder, on a port of the operating system's choice.
    pub fn start(script: &'static str, folder: Folder, options: &[&str]) -> Server {
        let mut server = Server { script, folder, port: 0, serving: None };
        for _ in 1..PORT_ATTEMPTS {
            server.port = free_port();
            match server.serve(options) {
                Ok(()) => return server,
                Err(messages) if messages.contains("Address already in use") => {}
                Err(messages) => panic!("{script} does not start:\n{messages}"),
            }
        }
        panic!("{script} found its port taken {PORT_ATTEMPTS} times");
    }

    /// The port of the first start; later starts keep it, so that clients find the server again.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder that the script was given.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the stopped or killed server again, with its data and on its port.
    pub fn start_again(&mut self, options: &[&str]) {
        assert!(self.serving.is_none(), "{} is still running", self.script);
        if let Err(messages) = self.serve(options) {
            panic!("{} does not start again:\n{messages}", self.script);
        }
    }

    /// Asks the server to stop and waits until it has.
    pub fn stop(&mut self) -> Stopped {
        let Some(mut serving) = self.serving.take() else { return Stopped::Orderly };
        drop(serving.stdin.take());
        let status = wait(&mut serving, self.script);
        if status.success() { Stopped::Orderly } else { Stopped::Killed }
    }

    /// Kills a server (not its script) as a power failure would, and waits until it is gone.
    pub fn kill9(&mut self, id: u32) {
        let mut serving = self.serving.take().expect("the server is running");
        let killed = Command::new("kill").args(["-KILL", &id.to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()), "process {id} can be killed");
        wait(&mut serving, self.script);
    }

    fn serve(&mut self, options: &[&str]) -> Result<(), String> {
        // A file without a name: the script may remove its folder before the messages are read.
        let mut messages = tempfile::tempfile().expect("a temporary file can be made");
        let for_script = messages.try_clone().expect("an open file can be cloned");
        let mut command = Command::new("bash");
        command
            .arg(script_path(self.script))
            .arg("serve")
            .arg(self.folder())
            .arg(self.port.to_string())
            .args(options.iter().filter(|option| option.starts_with('-')))
            // `TZ=America/New_York` is for the server's environment.
            .envs(
                options
                    .iter()
                    .filter(|option| !option.starts_with('-'))
                    .filter_map(|o| o.split_once('=')),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(for_script);
        if matches!(self.folder, Folder::RemovedByScript(_)) {
            command.env("BINLAKE_SERVE_REMOVE", "1");
        }
        let mut serving = command.spawn().expect("bash starts");
        let stdout = serving.stdout.take().expect("stdout is piped");

        // Read in a thread, because a pipe has no timeout. The thread ends with the script, which
        // closes the pipe.
        let (sender, receiver) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line);
            // Nobody listens any more after a timeout, which has been reported by then.
            let _ = sender.send(read.is_ok() && line == "ready\n");
        });
        if receiver.recv_timeout(START_TIMEOUT) == Ok(true) {
            self.serving = Some(serving);
            return Ok(());
        }
        drop(serving.stdin.take());
        wait(&mut serving, self.script);
        let mut text = String::new();
        messages.rewind().expect("a file can be read again");
        messages.read_to_string(&mut text).expect("the messages are text");
        Err(text)
    }
}

fn wait(serving: &mut Child, script: &str) -> ExitStatus {
    eventually_some(STOP_TIMEOUT, &format!("{script} ends"), || {
        serving.try_wait().expect("a child can be waited for")
    })
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A new folder for a server that is dropped at the end of its test.
pub fn owned_folder() -> Folder {
    Folder::Owned(tempfile::tempdir().expect("a temporary folder can be made"))
}

/// A new folder for a server in a static.
pub fn shared_folder() -> Folder {
    Folder::RemovedByScript(tempfile::tempdir().expect("a temporary folder can be made").keep())
}
