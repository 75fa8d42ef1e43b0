//! Kills a writing process again and again, and checks after each time that whole commits and nothing else are there.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use change_log::{EncodedBatch, LogConfig, LogReader, LogWriter, open_writer};

use crate::test_log::{PATIENCE, TestLog, all_numbers, data_topic, numbers, push};

const KILLS: u64 = 20;
const TOPICS: u64 = 3;
const CHILD_LOG: &str = "CHANGE_LOG_CHILD_LOG";
const CHILD_SOURCE: &str = "CHANGE_LOG_CHILD_SOURCE";
const CHILD_SEED: &str = "CHANGE_LOG_CHILD_SEED";

pub fn a_killed_writer_leaves_whole_commits(log: &TestLog) {
    let topics: Vec<_> = (0..TOPICS).map(|n| log.topic(&format!("t{n}"))).collect();
    // One reader lives through all of it.
    let mut reader = log.reader();
    for topic in &topics {
        reader.assign(topic, 0, 0).expect("assign");
    }
    let mut random = fastrand::Rng::with_seed(20_261_122);
    let mut seen = vec![Vec::new(); TOPICS as usize];
    let mut largest = 0;
    for kill in 0..KILLS {
        let (mut child, mut lines) = start_child(log, kill);
        for _ in 0..random.u32(1..12) {
            let mut line = String::new();
            lines.read_line(&mut line).expect("a line of the child");
            assert!(!line.is_empty(), "the child ended by itself");
        }
        thread::sleep(Duration::from_micros(random.u64(0..20_000)));
        child.kill().expect("kill -9");
        child.wait().expect("wait");

        let writer = log.writer();
        let position = position(&*writer);
        assert!(position >= largest, "commits were lost: {position} after {largest}");
        largest = position;
        read_until(&mut *reader, &topics, &mut seen, position);
        let total: usize = seen.iter().map(Vec::len).sum();
        assert_eq!(total as u64, position, "after kill {kill}: records and position differ");
        for (index, found) in seen.iter().enumerate() {
            let wanted = (0..position).filter(|n| n % TOPICS == index as u64);
            assert!(
                found.iter().copied().eq(wanted),
                "after kill {kill}: {} has other records",
                topics[index]
            );
        }
    }
    assert!(largest > 0, "nothing was ever committed");
    for (topic, seen) in topics.iter().zip(&seen) {
        assert_eq!(&all_numbers(log, topic), seen, "a new reader sees something else");
    }
}

fn read_until(reader: &mut dyn LogReader, topics: &[String], seen: &mut [Vec<u64>], position: u64) {
    let deadline = Instant::now() + PATIENCE;
    while (seen.iter().map(Vec::len).sum::<usize>() as u64) < position {
        if let Some(consumed) = reader.poll(Duration::from_millis(200)).expect("poll") {
            let index = topics
                .iter()
                .position(|topic| **topic == *consumed.topic)
                .expect("an assigned topic");
            seen[index].extend(numbers(&consumed));
        }
        assert!(Instant::now() < deadline, "records before position {position} are missing");
    }
    // Whatever else is visible would be too much.
    for _ in 0..3 {
        let more = reader.poll(Duration::from_millis(10)).expect("poll");
        assert!(
            more.is_none_or(|consumed| consumed.records.is_empty()),
            "records after the position"
        );
    }
}

fn position(writer: &dyn LogWriter) -> u64 {
    writer
        .last_position()
        .map_or(0, |bytes| std::str::from_utf8(bytes).expect("text").parse().expect("a number"))
}

fn start_child(log: &TestLog, seed: u64) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "kill::child_writes_until_killed", "--nocapture"])
        .env(CHILD_LOG, serde_json::to_string(&log.config).expect("json"))
        .env(CHILD_SOURCE, &log.source)
        .env(CHILD_SEED, seed.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut lines = BufReader::new(child.stdout.take().expect("its output"));
    // The test harness writes a few lines of its own first.
    let mut line = String::new();
    while !line.contains("child opened") {
        line.clear();
        assert_ne!(
            lines.read_line(&mut line).expect("a line of the child"),
            0,
            "the child ended by itself"
        );
    }
    (child, lines)
}

/// Not a test by itself: the process that is killed.
#[test]
fn child_writes_until_killed() {
    let Ok(config) = env::var(CHILD_LOG) else {
        return;
    };
    let config: LogConfig = serde_json::from_str(&config).expect("json");
    let source = env::var(CHILD_SOURCE).expect("a source");
    let mut random =
        fastrand::Rng::with_seed(env::var(CHILD_SEED).expect("a seed").parse().expect("a number"));
    let mut writer = open_writer(&config, &source, PATIENCE).expect("a writer");
    let handles: Vec<_> =
        (0..TOPICS).map(|n| data_topic(&mut *writer, &format!("{source}.db.t{n}"))).collect();
    let mut next = position(&*writer);
    println!("\nchild opened at {next}");
    let mut batch = EncodedBatch::default();
    loop {
        // Now and then more than what is gathered in memory.
        let width = if random.u8(0..6) == 0 { 20_000 } else { 20 };
        for _ in 0..random.usize(1..5) {
            batch.clear();
            for _ in 0..random.usize(1..400) {
                let value = format!("{next:0width$}");
                push(
                    &mut batch,
                    handles[(next % TOPICS) as usize],
                    Some(b"key"),
                    Some(value.as_bytes()),
                    5,
                );
                next += 1;
            }
            writer.append(&batch).expect("append");
        }
        writer.commit(next.to_string().as_bytes()).expect("commit");
        println!("committed {next}");
        std::io::stdout().flush().expect("flush");
    }
}
