//! Makes sure that a process started by a test is gone when the test process is, however that one
//! ended.
//!
//! Destructors do not run for statics, on abort or after kill -9. So one small shell per test
//! binary knows the ids of what is running and kills them when its standard input ends, which the
//! kernel sees to.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock};

const SCRIPT: &str = r#"
alive=" "
while read -r what id; do
  case $what in
    add) alive="$alive$id " ;;
    remove) alive=${alive/ $id / } ;;
  esac
done
for id in $alive; do kill -KILL "$id" 2>/dev/null; done
"#;

fn tell(what: &str, id: u32) {
    static GUARD: OnceLock<Mutex<ChildStdin>> = OnceLock::new();
    // It is waited for by nobody: it lives until this process is gone.
    #[expect(clippy::zombie_processes, reason = "it outlives this process")]
    let guard = GUARD.get_or_init(|| {
        let mut shell = Command::new("bash")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            // Ctrl-C goes to the whole process group of the test; the guard has to live longer than
            // that.
            .process_group(0)
            .spawn()
            .expect("bash starts");
        Mutex::new(shell.stdin.take().expect("stdin is piped"))
    });
    let mut stdin = guard.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    writeln!(stdin, "{what} {id}").expect("the guard is reading");
}

/// From now on the process does not outlive this one.
pub(super) fn watch(id: u32) {
    tell("add", id);
}

/// The process has been waited for; its id may belong to somebody else soon.
pub(super) fn forget(id: u32) {
    tell("remove", id);
}
