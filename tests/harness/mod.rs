//! What every integration test needs: real servers, the real binary, waiting for a condition,
//! Python readers.
//!
//! A test says `mod harness;` and takes what it uses. Nothing here outlives the test process,
//! however it ends: servers watch their standard input (`deploy/local/*.sh`), other processes are
//! in the care of `process_guard`.
//!
//! Where a server cannot be had, its function says so in one line that starts with `NOT TESTED` and
//! returns `None`, so that a developer can work without it; on CI (`CI` is set) it panics instead,
//! because there everything must run.

// Every test binary compiles a copy of its own and uses a part of it.
#![allow(dead_code, unused_imports)]

mod binlake;
mod eventually;
mod json_text;
mod kafka;
mod mysql;
mod process_guard;
mod proxy;
mod python;
mod registry;
mod servers;

pub use binlake::{Binlake, BinlakeCommand, Finished};
pub use eventually::{eventually, eventually_some};
pub use json_text::plain_json;
pub use kafka::Kafka;
pub use mysql::{MySql, Rows, Session};
pub use proxy::Proxy;
pub use python::Python;
pub use registry::Registry;
pub use servers::{Server, Stopped, install, script_path};

/// Reports that the running test cannot do its work here: a panic on CI, one loud line elsewhere.
pub fn not_tested(why: &str) {
    use std::io::Write;
    let thread = std::thread::current();
    let what = thread.name().unwrap_or("a test");
    assert!(std::env::var_os("CI").is_none(), "{what} cannot run, and on CI it must: {why}");
    // Not eprintln!, which the test runner hides for a test that passes.
    let line = format!("NOT TESTED: {what} because {why}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written");
}
