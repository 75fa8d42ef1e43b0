//! Measures the reader without a log: `tests/bench/decode.sh` runs it beside `mysqlbinlog --raw`.
//!
//! - `stream URL GTID_SET ROWS`: follows the server's binlog after the set, through the reader's own connection and
//!   encode thread, into a log that only counts, until ROWS rows are complete Avro records.
//! - `file THREADS FILE...`: decodes binlog files from memory, each thread all of them.
//!
//! Prints one line: rows, records, bytes of keys and values, seconds, CPU seconds, peak memory in MB.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cdc_reader::{
    ReaderMetrics, SourceConfig,
    binlog::{
        dump::{self, DumpStart},
        event::{EventHeader, HEADER_LENGTH, kind},
        table_map,
        transaction::{TransactionStart, parse_gtid},
    },
    capture::{self, CaptureSetup},
    encode::{
        envelope::{EnvelopeParts, SOURCE_VERSION, SourceBlock},
        plan::EncodePlan,
        row::RowScratch,
        rows_event::{RowsContext, encode_rows_event},
    },
    table_filter::TableFilter,
};
use change_log::{Cleanup, EncodedBatch, LogError, LogWriter, TopicHandle, TopicSpec};
use schemas::{avro_schema::AvroOptions, gtid_set::GtidSet, position::Position};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// As in the reader's own pipeline.
const INBOX_CHUNKS: usize = 16;
/// The batch is handed on at this size, as the encode thread does.
const BATCH_BYTES: usize = 1 << 20;

/// Where the schemas go; they are no rows' records.
const SCHEMAS: TopicHandle = TopicHandle(1);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let started = Instant::now();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let counted = match words[..] {
        ["stream", url, gtid_set, rows] => follow(url, gtid_set, rows.parse()?)?,
        ["file", threads, ref files @ ..] => decode_files(threads.parse()?, files)?,
        _ => {
            return Err(
                "usage: decode_bench stream URL GTID_SET ROWS | file THREADS FILE...".into()
            );
        }
    };
    let start = counted.started.unwrap_or(started);
    println!(
        "{} {} {} {:.4} {:.2} {}",
        counted.rows,
        counted.records,
        counted.bytes,
        (counted.ended - start).as_secs_f64(),
        counted.cpu_seconds - counted.cpu_before,
        peak_megabytes()?,
    );
    Ok(())
}

/// What was done, and when.
struct Counted {
    rows: u64,
    records: u64,
    bytes: u64,
    /// `None`: with the process.
    started: Option<Instant>,
    ended: Instant,
    cpu_before: f64,
    cpu_seconds: f64,
}

// --- the stream ------------------------------------------------------------------------------------------------------

/// A log that counts what it is given and keeps nothing.
#[derive(Clone, Default)]
struct CountingLog {
    records: Arc<AtomicU64>,
    bytes: Arc<AtomicU64>,
}

impl LogWriter for CountingLog {
    fn last_position(&self) -> Option<&[u8]> {
        None
    }

    fn topic(&mut self, spec: &TopicSpec) -> Result<TopicHandle, LogError> {
        Ok(if spec.cleanup == Cleanup::Compact { SCHEMAS } else { TopicHandle(0) })
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), LogError> {
        let records = batch.records.iter().filter(|record| record.topic != SCHEMAS).count();
        self.records.fetch_add(records as u64, Ordering::Relaxed);
        self.bytes.fetch_add(batch.bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn commit(&mut self, _: &[u8]) -> Result<(), LogError> {
        Ok(())
    }
}

fn follow(url: &str, gtid_set: &str, rows: u64) -> Result<Counted, Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let config: SourceConfig = serde_json::from_value(
        serde_json::json!({ "name": "bench", "url": url, "server_id": 77 }),
    )?;
    let metrics = ReaderMetrics::new(&prometheus::Registry::new()).source("bench");
    let log = CountingLog::default();
    let start: GtidSet = gtid_set.parse()?;
    let (spent, back) = mpsc::channel(INBOX_CHUNKS + 2);
    let setup = CaptureSetup {
        position: Position { gtid_set: gtid_set.to_owned(), ..Position::default() },
        spent,
        ..CaptureSetup::new(
            &config,
            TableFilter::new(&config.tables)?,
            Box::new(log.clone()),
            metrics.clone(),
        )
    };
    let (inbox, received) = mpsc::channel(INBOX_CHUNKS);
    let stop = CancellationToken::new();
    let (handle, stopped) = (runtime.handle().clone(), stop.clone());
    let encoding = std::thread::spawn(move || capture::run(setup, received, &handle, &stopped));
    let mut ended = None;
    runtime.block_on(async {
        let start = DumpStart::Gtid(start);
        let follow = dump::follow(&config, config.server_id, start, inbox, back, stop.clone());
        let watch = async {
            while metrics.rows.get() < rows {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ended = Some((Instant::now(), cpu_seconds()));
            // What is encoded is counted once it is in the log; an idle stream commits within its interval.
            while log.records.load(Ordering::Relaxed) < rows {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            result = follow => result.map_err(Failure::from),
            () = watch => Ok(()),
        }
    })?;
    stop.cancel();
    encoding.join().map_err(|_| "the encode thread panicked")??;
    let (ended, cpu_seconds) = ended.ok_or("the stream ended early")?;
    Ok(Counted {
        rows: metrics.rows.get(),
        records: log.records.load(Ordering::Relaxed),
        bytes: log.bytes.load(Ordering::Relaxed),
        started: None,
        ended,
        cpu_before: 0.0,
        cpu_seconds: cpu_seconds?,
    })
}

// --- files -----------------------------------------------------------------------------------------------------------

fn decode_files(threads: usize, files: &[&str]) -> Result<Counted, Failure> {
    let files: Vec<Vec<u8>> = files.iter().map(std::fs::read).collect::<Result<_, _>>()?;
    let (started, cpu_before) = (Instant::now(), cpu_seconds()?);
    let totals = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(|| decode_all(&files))).collect();
        workers
            .into_iter()
            .map(|w| w.join().map_err(|_| "a thread panicked")?)
            .collect::<Result<Vec<_>, Failure>>()
    })?;
    let sum = |of: fn(&(u64, u64, u64)) -> u64| totals.iter().map(of).sum();
    Ok(Counted {
        rows: sum(|t| t.0),
        records: sum(|t| t.1),
        bytes: sum(|t| t.2),
        started: Some(started),
        ended: Instant::now(),
        cpu_before,
        cpu_seconds: cpu_seconds()?,
    })
}

/// Rows, records and bytes.
fn decode_all(files: &[Vec<u8>]) -> Result<(u64, u64, u64), Failure> {
    let mut totals = (0, 0, 0);
    let mut batch = EncodedBatch::default();
    let (mut parts, mut scratch) = (EnvelopeParts::default(), RowScratch::default());
    let mut plans: HashMap<u64, (Vec<u8>, EncodePlan)> = HashMap::new();
    for file in files {
        let (mut start, mut at) = (TransactionStart::default(), 4);
        let mut gtid = String::new();
        while at < file.len() {
            let header = EventHeader::parse(&file[at..])?;
            let end = at + header.size as usize;
            let body =
                file.get(at + HEADER_LENGTH..end - 4).ok_or("an event ends after its file")?;
            match header.kind {
                kind::GTID => {
                    start = parse_gtid(body, false)?;
                    gtid = start.gtid();
                }
                kind::TABLE_MAP => {
                    let id = table_map::table_id(body)?;
                    if plans.get(&id).is_none_or(|(known, _)| known != body) {
                        let map = table_map::parse(body)?;
                        let plan = EncodePlan::new(
                            &map,
                            "bench",
                            &[],
                            AvroOptions { debezium_compat: false },
                        )?;
                        plans.insert(id, (body.to_vec(), plan));
                    }
                }
                kind::WRITE_ROWS..=kind::DELETE_ROWS => {
                    let (_, plan) = plans.get(&table_map::table_id(body)?).ok_or("no table map")?;
                    let id = &plan.schemas.schema.id;
                    let block = SourceBlock {
                        version: SOURCE_VERSION,
                        source: &id.source,
                        snapshot: "false",
                        database: &id.database,
                        table: &id.table,
                        committed_at_us: start.committed_at_us,
                        server_id: header.server_id,
                        gtid: &gtid,
                        file: "binlog.000001",
                        offset: at as u64,
                        thread: 1,
                    };
                    parts.fill(&block, start.committed_at_us);
                    let context = RowsContext {
                        plan,
                        topic: TopicHandle(0),
                        timestamp_ms: 0,
                        skip_rows: 0,
                        headers: &[],
                    };
                    let (parts, scratch) = (&mut parts, &mut scratch);
                    totals.0 += encode_rows_event(
                        &context,
                        header.kind,
                        body,
                        parts,
                        scratch,
                        &mut batch,
                        |_| {},
                    )?;
                    if batch.bytes.len() >= BATCH_BYTES {
                        totals.1 += batch.records.len() as u64;
                        totals.2 += batch.bytes.len() as u64;
                        batch.clear();
                    }
                }
                _ => {}
            }
            at = end;
        }
    }
    Ok((totals.0, totals.1 + batch.records.len() as u64, totals.2 + batch.bytes.len() as u64))
}

// --- this process ----------------------------------------------------------------------------------------------------

/// User and system time of this process, in seconds. Linux counts in hundredths on every usual platform.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, after_name) = stat.rsplit_once(") ").ok_or("/proc/self/stat has another form")?;
    let ticks = |at: usize| after_name.split(' ').nth(at).and_then(|t| t.parse::<f64>().ok());
    Ok((ticks(11).unwrap_or_default() + ticks(12).unwrap_or_default()) / 100.0)
}

fn peak_megabytes() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes =
        line.and_then(|l| l.trim().split(' ').next()).and_then(|n| n.parse::<u64>().ok());
    Ok(kilobytes.unwrap_or_default() / 1024)
}
