//! The real `binlake` program: started with its output in files, interrupted, killed, waited for.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::eventually::{eventually, eventually_some};
use super::process_guard;

/// How much of a program's output a failing test shows.
const SHOWN_BYTES: usize = 4000;

/// What to start.
pub struct BinlakeCommand {
    arguments: Vec<OsString>,
    environment: Vec<(String, OsString)>,
    directory: Option<PathBuf>,
}

/// A running `binlake`. It is killed when dropped, and shows the end of its output if the test is
/// failing then.
pub struct Binlake {
    child: Child,
    status: Option<ExitStatus>,
    arguments: Vec<OsString>,
    output: TempDir,
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything it printed.
    pub stdout: String,
    /// Everything it complained about.
    pub stderr: String,
}

impl BinlakeCommand {
    /// `binlake` with these arguments.
    pub fn new<A: Into<OsString>>(arguments: impl IntoIterator<Item = A>) -> BinlakeCommand {
        let arguments = arguments.into_iter().map(Into::into).collect();
        BinlakeCommand { arguments, environment: Vec::new(), directory: None }
    }

    /// Adds an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> BinlakeCommand {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Runs it in another directory than the test's.
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> BinlakeCommand {
        self.directory = Some(directory.into());
        self
    }

    /// Starts it and returns at once.
    pub fn start(self) -> Binlake {
        let output = tempfile::tempdir().expect("a temporary folder can be made");
        let file = |name| File::create(output.path().join(name)).expect("a file can be made");
        // A release build, for runs that are about what happens and not about what the debug build checks.
        let program = std::env::var_os("BINLAKE_TEST_PROGRAM")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_binlake").into());
        let mut command = Command::new(program);
        command
            .args(&self.arguments)
            .envs(self.environment)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"));
        if let Some(directory) = self.directory {
            command.current_dir(directory);
        }
        let child = command.spawn().expect("binlake starts");
        process_guard::watch(child.id());
        Binlake { child, status: None, arguments: self.arguments, output }
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self, timeout: Duration) -> Finished {
        let mut binlake = self.start();
        let status = binlake.wait_exit(timeout);
        Finished { status, stdout: binlake.stdout(), stderr: binlake.stderr() }
    }
}

impl Finished {
    /// What it printed, of a command that has to succeed.
    #[track_caller]
    pub fn success(self) -> String {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self.stdout
    }

    /// What it complained about, of a command that has to fail.
    #[track_caller]
    pub fn failure(self) -> String {
        assert!(!self.status.success(), "unexpected success\n{}\n{}", self.stdout, self.stderr);
        self.stderr
    }
}

impl Binlake {
    /// Starts `binlake` with these arguments, in this directory and with this environment.
    pub fn start(arguments: &[&str]) -> Binlake {
        BinlakeCommand::new(arguments).start()
    }

    /// Runs `binlake` with these arguments to its end.
    #[track_caller]
    pub fn run(arguments: &[&str], timeout: Duration) -> Finished {
        BinlakeCommand::new(arguments).run(timeout)
    }

    /// Its process id, for looking at its memory.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn stdout(&self) -> String {
        read(&self.output.path().join("stdout"))
    }

    /// What it has logged so far.
    pub fn stderr(&self) -> String {
        read(&self.output.path().join("stderr"))
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.try_wait().is_none()
    }

    /// Kills it as a power failure would, and waits until it is gone.
    pub fn kill9(&mut self) {
        if self.try_wait().is_none() {
            self.child.kill().expect("a running child can be killed");
            self.wait_exit(Duration::from_secs(10));
        }
    }

    /// Sends what Ctrl-C sends and returns at once.
    pub fn interrupt(&mut self) {
        self.signal("INT");
    }

    /// Sends what Kubernetes sends and returns at once.
    pub fn terminate(&mut self) {
        self.signal("TERM");
    }

    /// Stops it in its tracks, as a machine that swaps does, until `go_on`.
    pub fn freeze(&mut self) {
        self.signal("STOP");
    }

    /// Ends a `freeze`.
    pub fn go_on(&mut self) {
        self.signal("CONT");
    }

    /// Sends what asks a service to read its configuration.
    pub fn hang_up(&mut self) {
        self.signal("HUP");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_exit(&mut self, timeout: Duration) -> ExitStatus {
        let what = format!("binlake {:?} ends", self.arguments);
        eventually_some(timeout, &what, || self.try_wait())
    }

    /// Waits until a text has appeared in what it logged; fails at once when it ends without having
    /// said it.
    #[track_caller]
    pub fn wait_logged(&mut self, timeout: Duration, wanted: &str) {
        eventually(timeout, &format!("binlake logs {wanted:?}"), || {
            let running = self.is_running();
            let found = self.stderr().contains(wanted) || self.stdout().contains(wanted);
            assert!(found || running, "binlake ended without saying {wanted:?}");
            found
        });
    }

    fn signal(&mut self, name: &str) {
        // A child that was not waited for keeps its id, so this cannot hit another process.
        if self.try_wait().is_none() {
            let id = self.child.id().to_string();
            let sent = Command::new("kill").arg(format!("-{name}")).arg(id).status();
            assert!(sent.is_ok_and(|status| status.success()), "SIG{name} can be sent");
        }
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child can be waited for");
            if self.status.is_some() {
                process_guard::forget(self.child.id());
            }
        }
        self.status
    }
}

impl Drop for Binlake {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() {
            eprintln!("--- binlake {:?}: {:?}", self.arguments, self.status);
            for (name, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
                let start = text.ceil_char_boundary(text.len().saturating_sub(SHOWN_BYTES));
                eprintln!("--- the end of its {name}:\n{}", &text[start..]);
            }
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).expect("its output can be read")).into_owned()
}
