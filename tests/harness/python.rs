//! Python with other people's readers of Delta and Avro, for looking at our files from outside.
//!
//! The packages of `tests/requirements.txt` go into a virtual environment in the cache, made once
//! per version of that file. Scripts are in `tests/python`.

use std::ffi::OsStr;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::eventually::eventually_some;
use super::{not_tested, process_guard};

const REQUIREMENTS: &str = include_str!("../requirements.txt");

/// A virtual environment with the packages in place.
pub struct Python {
    program: PathBuf,
}

impl Python {
    /// The environment of all tests; the first one that asks on a machine makes it, which downloads
    /// packages.
    pub fn shared() -> Option<&'static Python> {
        static SHARED: OnceLock<Result<Python, String>> = OnceLock::new();
        match SHARED.get_or_init(prepare) {
            Ok(python) => Some(python),
            Err(why) => {
                not_tested(why);
                None
            }
        }
    }

    /// Runs `tests/python/<script>` and returns what it printed; panics when it fails or takes too
    /// long.
    #[track_caller]
    pub fn run<A: AsRef<OsStr>>(&self, script: &str, arguments: &[A], timeout: Duration) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
        // Into files and not pipes: a pipe that nobody reads stops the script when it is full.
        let output = tempfile::tempdir().expect("a temporary folder can be made");
        let file = |name| File::create(output.path().join(name)).expect("a file can be made");
        let read = |name| std::fs::read(output.path().join(name)).expect("its output can be read");
        let mut child = Command::new(&self.program)
            .arg(path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .expect("python starts");
        process_guard::watch(child.id());
        let started = std::time::Instant::now();
        let status = eventually_some(timeout * 2, &format!("{script} ends"), || {
            if started.elapsed() > timeout {
                // An error here means that it has just ended by itself, which try_wait tells.
                child.kill().ok();
            }
            child.try_wait().expect("a child can be waited for")
        });
        process_guard::forget(child.id());
        let (said, complained) = (read("stdout"), read("stderr"));
        let [said_text, complained] =
            [&said, &complained].map(|text| String::from_utf8_lossy(text));
        assert!(status.success(), "{script}: {status}\n{said_text}\n{complained}");
        String::from_utf8(said).expect("the script prints UTF-8")
    }
}

fn prepare() -> Result<Python, String> {
    let home = std::env::var_os("HOME").ok_or("HOME is not set")?;
    let mut hasher = DefaultHasher::new();
    REQUIREMENTS.hash(&mut hasher);
    let cache = PathBuf::from(home).join(".cache/binlake");
    let environment = cache.join(format!("python-{:016x}", hasher.finish()));
    let program = environment.join("bin/python");
    let complete = environment.join("complete");
    std::fs::create_dir_all(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;

    // Test binaries may run side by side: one makes the environment, the others wait for it.
    let lock = File::create(cache.join("python.lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    if !complete.exists() {
        if environment.exists() {
            std::fs::remove_dir_all(&environment).map_err(|error| error.to_string())?;
        }
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requirements.txt");
        run(Command::new(&program)
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
            .arg(requirements))?;
        // Last, so that an interrupted install is made again and not used.
        File::create(&complete).map_err(|error| error.to_string())?;
    }
    Ok(Python { program })
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let messages = String::from_utf8_lossy(&output.stderr);
    Err(format!("{command:?} failed: {}", messages.lines().last().unwrap_or_default()))
}
