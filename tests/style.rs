//! The rules of style that a program can check, checked over the whole tree.
//!
//! The reasons are in CONTRIBUTING.md. A rule has no list of exceptions: a file that needs one needs
//! another look first.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

const LINES_MAX: usize = 500;

/// Names that say nothing about what is inside.
const BANNED_NAMES: [&str; 10] = [
    "base", "common", "helper", "helpers", "manager", "managers", "misc", "shared", "util", "utils",
];

/// What would let the contract of the records read or write anything but its arguments.
const INPUT_OUTPUT_CRATES: [&str; 17] = [
    "arrow",
    "axum",
    "cdc-reader",
    "change-log",
    "console",
    "datafusion",
    "deltalake",
    "hyper",
    "mysql_async",
    "object_store",
    "parquet",
    "rdkafka",
    "reqwest",
    "rusqlite",
    "sink-lake",
    "tempfile",
    "tokio",
];

struct SourceFile {
    /// Relative to the root, with forward slashes.
    path: String,
    text: String,
}

#[test]
fn every_file_begins_by_saying_what_it_is_for() {
    let offenders = rust_files().into_iter().filter(|file| !file.text.starts_with("//! "));
    report("does not begin with //!", offenders.map(|file| file.path));
}

#[test]
fn no_file_is_too_long_to_read_at_once() {
    let lengths = rust_files().into_iter().map(|file| (file.text.lines().count(), file.path));
    let offenders = lengths.filter(|(lines, _)| *lines > LINES_MAX);
    report(
        &format!("is longer than {LINES_MAX} lines"),
        offenders.map(|(lines, path)| format!("{path} ({lines})")),
    );
}

#[test]
fn names_say_what_is_inside() {
    let offenders = rust_files().into_iter().filter(|file| {
        let path = file.path.trim_end_matches(".rs");
        path.split('/').any(|part| BANNED_NAMES.contains(&part))
    });
    report("has a name that says nothing", offenders.map(|file| file.path));
}

#[test]
fn no_unfinished_code_in_the_program() {
    let wanted = ["todo!(", "unimplemented!(", "dbg!("];
    let offenders = rust_files().into_iter().filter(|file| {
        is_program(&file.path) && wanted.iter().any(|macro_name| file.text.contains(macro_name))
    });
    report("is unfinished", offenders.map(|file| file.path));
}

#[test]
fn no_test_is_switched_off() {
    // In two parts, so that this file does not contain what it looks for.
    let wanted = [concat!("#[", "ignore"), concat!("#[", "should_panic")];
    let offenders = rust_files()
        .into_iter()
        .filter(|file| wanted.iter().any(|attribute| file.text.contains(attribute)));
    report("ignores a test or accepts any panic", offenders.map(|file| file.path));
}

#[test]
fn schemas_does_no_input_or_output() {
    let dependencies = dependencies_of("schemas");
    let offenders = dependencies
        .into_iter()
        .filter(|dependency| INPUT_OUTPUT_CRATES.contains(&dependency.as_str()));
    report("is not for schemas", offenders);
}

#[test]
fn reader_and_sink_do_not_know_each_other() {
    for (package, other) in [("cdc-reader", "sink-lake"), ("sink-lake", "cdc-reader")] {
        let offenders = dependencies_of(package).into_iter().filter(|name| name == other);
        report(&format!("is not for {package}"), offenders);
    }
}

#[test]
fn nothing_below_depends_on_the_services() {
    let services = ["cdc-reader", "sink-lake", "console"];
    for package in ["schemas", "change-log"] {
        let offenders = dependencies_of(package)
            .into_iter()
            .filter(|name| services.contains(&name.as_str()) || name == "binlake");
        report(&format!("is not for {package}"), offenders);
    }
}

/// Fails with the whole list: one run shows everything there is to mend.
#[track_caller]
fn report(rule: &str, offenders: impl Iterator<Item = String>) {
    let mut list = String::new();
    for offender in offenders {
        writeln!(list, "  {offender}").expect("a string can be written to");
    }
    assert!(list.is_empty(), "{rule}:\n{list}");
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Code that ends up in the binary, as opposed to tests, examples and benchmarks.
fn is_program(path: &str) -> bool {
    path.starts_with("src/") || path.split('/').nth(1) == Some("src")
}

fn rust_files() -> Vec<SourceFile> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the project can be read") {
            let entry = entry.expect("an entry can be read");
            let path = entry.path();
            let kind = entry.file_type().expect("an entry has a type");
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // Build output and hidden folders are not the project's text.
            if kind.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if kind.is_file() && name.ends_with(".rs") {
                files.push(read(&root, &path));
            }
        }
    }
    assert!(files.len() > 1, "the project's files are found");
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn read(root: &Path, path: &Path) -> SourceFile {
    let relative = path.strip_prefix(root).expect("found below the root");
    let text = std::fs::read_to_string(path).expect("a source file is UTF-8");
    SourceFile { path: relative.to_string_lossy().replace('\\', "/"), text }
}

/// The names of a package's dependencies of every kind but those of its tests.
fn dependencies_of(package: &str) -> Vec<String> {
    let path = root().join(package).join("Cargo.toml");
    let text = std::fs::read_to_string(path).expect("a package has a manifest");
    let manifest: Table = text.parse().expect("a manifest is TOML");
    let mut names = Vec::new();
    collect_dependencies(&manifest, &mut names);
    // Dependencies of one platform have sections of their own.
    for platform in manifest.get("target").and_then(Value::as_table).into_iter().flatten() {
        collect_dependencies(platform.1.as_table().expect("a section is a table"), &mut names);
    }
    names
}

fn collect_dependencies(section: &Table, names: &mut Vec<String>) {
    for kind in ["dependencies", "build-dependencies"] {
        let dependencies = section.get(kind).and_then(Value::as_table);
        names.extend(dependencies.into_iter().flatten().map(|(name, _)| name.clone()));
    }
}
