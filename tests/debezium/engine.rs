//! The real Debezium engine as a child process, and the records it prints.

use std::{
    io::{BufRead, BufReader, Read, Seek},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;

use crate::{
    harness::{MySql, eventually, install, not_tested, script_path},
    record::Record,
};

const SCRIPT: &str = "debezium.sh";
/// A Java program that compiles itself and reads a catalog, on a machine that is busy with something else.
const START_TIMEOUT: Duration = Duration::from_secs(180);

/// A running engine. Its standard input ends with this process, and with it the engine.
pub struct Debezium {
    child: Child,
    messages: std::fs::File,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    records: Vec<Record>,
    /// How many of them came before the stream.
    snapshot: Option<usize>,
    ended: bool,
}

impl Debezium {
    /// Starts the engine on a server, with further properties of the connector.
    pub fn start(mysql: &MySql, prefix: &str, more: &[&str]) -> Option<Debezium> {
        if let Err(why) = install(SCRIPT) {
            not_tested(&why);
            return None;
        }
        let messages = tempfile::tempfile().expect("a temporary file can be made");
        let mut child = Command::new("bash")
            .arg(script_path(SCRIPT))
            .arg("run")
            .args([
                "name=side-by-side",
                "connector.class=io.debezium.connector.mysql.MySqlConnector",
                "offset.storage=org.apache.kafka.connect.storage.MemoryOffsetBackingStore",
                "schema.history.internal=io.debezium.relational.history.MemorySchemaHistory",
                "database.hostname=127.0.0.1",
                "database.user=root",
                "database.password=",
                "database.server.id=4242",
                "database.ssl.mode=disabled",
                "poll.interval.ms=20",
            ])
            .arg(format!("topic.prefix={prefix}"))
            .arg(format!("database.port={}", mysql.port()))
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(messages.try_clone().expect("an open file can be cloned"))
            .spawn()
            .expect("bash starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let for_reader = seen.clone();
        // Ends with the child, which closes the pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let line: Value = serde_json::from_str(&line)
                    .unwrap_or_else(|error| panic!("not JSON ({error}): {line}"));
                let mut seen = for_reader.lock().expect("no reader panicked");
                if line.get("streaming").is_some() {
                    seen.snapshot = Some(seen.records.len());
                } else {
                    seen.records.push(record(&line));
                }
            }
            for_reader.lock().expect("no reader panicked").ended = true;
        });
        Some(Debezium { child, messages, seen })
    }

    /// Waits until the snapshot is complete.
    pub fn wait_for_stream(&mut self) {
        self.wait("Debezium's snapshot ends", |seen| seen.snapshot.is_some());
    }

    /// Waits for a record of a topic.
    pub fn wait_for_topic(&mut self, topic: &str) {
        let what = format!("Debezium's record of {topic}");
        self.wait(&what, |seen| seen.records.iter().any(|record| record.topic == topic));
    }

    /// All records so far.
    pub fn records(&self) -> Vec<Record> {
        self.seen.lock().expect("no reader panicked").records.clone()
    }

    fn wait(&mut self, what: &str, reached: impl Fn(&Seen) -> bool) {
        let mut ended = false;
        eventually(START_TIMEOUT, what, || {
            let seen = self.seen.lock().expect("no reader panicked");
            ended = seen.ended;
            ended || reached(&seen)
        });
        if ended {
            let mut text = String::new();
            self.messages.rewind().expect("a file can be read again");
            self.messages.read_to_string(&mut text).expect("the messages are text");
            panic!("Debezium ended before {what}:\n{text}");
        }
    }
}

impl Drop for Debezium {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // The engine ends at once; an error means that it has already been waited for.
        let _ = self.child.wait();
    }
}

fn record(line: &Value) -> Record {
    let bytes = |name: &str| line[name].as_str().map(from_hex);
    let text = |name: &str| line[name].as_str().map(Arc::from);
    let headers = line["headers"].as_array().into_iter().flatten();
    Record {
        topic: line["topic"].as_str().expect("a topic").to_owned(),
        key: bytes("key"),
        value: bytes("value"),
        key_schema: text("key_schema"),
        value_schema: text("value_schema"),
        headers: headers
            .map(|pair| {
                let text = |i: usize| pair[i].as_str().unwrap_or_default();
                (text(0).to_owned(), from_hex(text(1)))
            })
            .collect(),
    }
}

fn from_hex(digits: &str) -> Vec<u8> {
    let nibble = |byte: u8| (byte as char).to_digit(16).expect("a hex digit") as u8;
    digits.as_bytes().chunks(2).map(|pair| nibble(pair[0]) << 4 | nibble(pair[1])).collect()
}
