//! Appends and commits records of 350 bytes to a change log, reads them back, and prints the speed of both.
//!
//!     cargo run --release -p change-log --example throughput -- embedded FOLDER [RECORDS] [RECORDS_PER_COMMIT]
//!     cargo run --release -p change-log --example throughput -- kafka HOST:PORT [RECORDS] [RECORDS_PER_COMMIT]

use std::{
    env,
    error::Error,
    time::{Duration, Instant},
};

use change_log::{
    Cleanup, EncodedBatch, EncodedRecord, KafkaConfig, LogConfig, TopicSpec, open_reader,
    open_writer,
};

const KEY_LENGTH: usize = 16;
const RECORD_LENGTH: usize = 350;
const RECORDS_PER_BATCH: usize = 1000;
const TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let number = |index: usize, default: usize| {
        arguments.get(index).map_or(Ok(default), |text| text.parse::<usize>())
    };
    let (records, per_commit) = (number(2, 3_000_000)?, number(3, 100_000)?);
    let place = arguments.get(1).ok_or("usage: throughput embedded FOLDER | kafka HOST:PORT")?;
    let config = if arguments[0] == "kafka" {
        LogConfig::Kafka(KafkaConfig::new(place))
    } else {
        LogConfig::Embedded { path: place.into(), retention_hours: 1 }
    };

    let source = format!("throughput{}", std::process::id());
    let topic = format!("{source}.bench.t");
    let mut writer = open_writer(&config, &source, TIMEOUT)?;
    let handle = writer.topic(&TopicSpec { name: topic.clone(), cleanup: Cleanup::Delete })?;
    let batch = batch(handle);
    let meter = Meter::start("append and commit");
    let mut longest_commit = Duration::ZERO;
    let mut written = 0;
    while written < records {
        writer.append(&batch)?;
        written += RECORDS_PER_BATCH;
        if written % per_commit == 0 || written >= records {
            let commit = Instant::now();
            writer.commit(written.to_string().as_bytes())?;
            longest_commit = longest_commit.max(commit.elapsed());
        }
    }
    meter.finish(written)?;
    println!("longest commit: {longest_commit:?}");

    let mut reader = open_reader(&config, TIMEOUT)?;
    reader.assign(&topic, 0, 0)?;
    let meter = Meter::start("read");
    let (mut read, mut bytes) = (0, 0);
    while read < written {
        let consumed = reader.poll(TIMEOUT)?.ok_or("records are missing")?;
        for span in &consumed.records {
            bytes += consumed.key(span).map_or(0, <[u8]>::len);
            bytes += consumed.value(span).map_or(0, <[u8]>::len);
        }
        read += consumed.records.len();
    }
    meter.finish(read)?;
    assert_eq!((read, bytes), (written, written * RECORD_LENGTH));
    Ok(())
}

fn batch(topic: change_log::TopicHandle) -> EncodedBatch {
    let mut batch = EncodedBatch::default();
    // Half of it random, so that compression has an ordinary day.
    let mut random = 88_172_645_463_325_252_u64;
    for _ in 0..RECORDS_PER_BATCH {
        let from = batch.bytes.len();
        for index in 0..RECORD_LENGTH {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            batch.bytes.push(if index % 2 == 0 { random as u8 } else { index as u8 });
        }
        let (key, end) = (from + KEY_LENGTH, batch.bytes.len());
        let record = EncodedRecord {
            topic,
            key: Some(from..key),
            value: Some(key..end),
            headers: 0..0,
            timestamp_ms: 5,
        };
        batch.records.push(record);
    }
    batch
}

struct Meter {
    what: &'static str,
    started: Instant,
    cpu_seconds: f64,
}

impl Meter {
    fn start(what: &'static str) -> Self {
        Self { what, started: Instant::now(), cpu_seconds: cpu_seconds().unwrap_or_default() }
    }

    fn finish(self, records: usize) -> Result<(), Box<dyn Error>> {
        let seconds = self.started.elapsed().as_secs_f64();
        let cpu = cpu_seconds()? - self.cpu_seconds;
        let million = records as f64 / 1e6;
        println!(
            "{}: {:.0} records/s, {:.0} MB/s, {:.2} CPU s per million records, {:.0} MB resident",
            self.what,
            records as f64 / seconds,
            million * RECORD_LENGTH as f64 / seconds,
            cpu / million,
            resident_megabytes()?,
        );
        Ok(())
    }
}

/// User and system time of this process, from Linux's /proc (100 ticks a second).
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().ok_or("stat")?;
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .try_fold(0, |sum, ticks| ticks.map(|ticks| sum + ticks))?;
    Ok(ticks as f64 / 100.0)
}

fn resident_megabytes() -> Result<f64, Box<dyn Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split_whitespace().nth(1).ok_or("statm")?.parse()?;
    Ok(pages * 4096.0 / 1e6)
}
