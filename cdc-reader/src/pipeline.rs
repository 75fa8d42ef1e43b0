//! Builds the channels, spawns the named tasks and joins them; it processes nothing itself.
//!
//! ```text
//! stream task --Input, 16 chunks--> encode thread --> log
//! snapshot task --Input-----------------^
//! ```
//! A retention task looks, across attempts, whether the server keeps the binlog for long enough.
//! One attempt runs until a part ends. What may pass is tried again from the last committed position, after a pause
//! that grows; everything else stops the source with its sentence.

mod new_tables;
mod start;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use change_log::{LogConfig, LogError, LogWriter, Waiting, open_writer};
use schemas::position::Position;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::start::{
    StartPosition, has_lower_case_names, note_tables, schema_ids, start_position, table_history,
    windows,
};
use crate::{
    binlog::dump,
    capture::{self, CaptureSetup, LiveServer, ReadDefaults, captured_tables::leave_out_all},
    config::{SnapshotMode, SourceConfig},
    error::{Action, ReaderError},
    flow::Input,
    metrics::{ReaderMetrics, SourceMetrics},
    mysql::{
        catalog::{self, CatalogTable},
        connect::{connect, place, reconnect, server},
        flavor::Kind,
        insert_defaults,
        place::binlog_end,
        preflight, replica_id,
        resume::{coordinates_of, dump_start},
    },
    retention_guard::{self, Watched},
    signals,
    snapshot::{self, EncodeThread, chunk_buffers::ChunkBuffers, throttle::Throttle},
    table_filter::TableFilter,
};

/// Chunks of events in flight between the stream and the encode thread.
const INBOX_CHUNKS: usize = 16;
/// Tables that wait to be read while the stream goes on.
const TABLES_WAITING: usize = 1024;
/// How long opening the log may take.
const LOG_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Captures one source into the log until `shutdown`. Returns early only with an error that trying again cannot cure.
pub async fn run(
    config: SourceConfig,
    log: LogConfig,
    shutdown: CancellationToken,
    metrics: ReaderMetrics,
) -> Result<(), ReaderError> {
    let (_, tables) = watch::channel(config.tables.clone());
    run_with_tables(config, tables, log, shutdown, metrics).await
}

/// The same with `tables` of the configuration, which may change meanwhile, given besides.
pub async fn run_with_tables(
    config: SourceConfig,
    tables: watch::Receiver<Vec<String>>,
    log: LogConfig,
    shutdown: CancellationToken,
    metrics: ReaderMetrics,
) -> Result<(), ReaderError> {
    let metrics = metrics.source(&config.name);
    // Not known before it was looked at; 0 would be an alarm.
    metrics.binlog_headroom.set(f64::NAN);
    config.ensure_limits()?;
    let mut source = Source {
        throttle: Arc::new(Throttle::new(&config, metrics.clone())?),
        brief_connection: Arc::new(Semaphore::new(1)),
        committed: watch::Sender::default(),
        expected: watch::Sender::default(),
        tables,
        lost: None,
        stalled_since: None,
        metrics,
        config: Arc::new(config),
        log,
    };
    // Across attempts: the place is lost while the change log cannot be written, too.
    let stop = shutdown.child_token();
    let guard = stop.clone().drop_guard();
    let watching = tokio::spawn(retention_guard::run(source.watched(), stop));
    let ended = attempts(&mut source, &shutdown).await;
    drop(guard);
    let _ = watching.await;
    ended
}

async fn attempts(source: &mut Source, shutdown: &CancellationToken) -> Result<(), ReaderError> {
    let mut first = true;
    let mut pause = PAUSE_FIRST;
    loop {
        let began = Instant::now();
        let error = match attempt(source, first, shutdown).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        source.lost = match &error {
            ReaderError::PositionLost(sentence) if source.begins_anew() => Some(sentence.clone()),
            _ => None,
        };
        if source.lost.is_none() && error.action() == Action::StopService || shutdown.is_cancelled()
        {
            return if shutdown.is_cancelled() { Ok(()) } else { Err(error) };
        }
        first = false;
        source.tell_stalled(&error);
        source.metrics.reconnects.inc();
        // What worked for a while is a new failure, not the last one still.
        if began.elapsed() >= PAUSE_MAX {
            pause = PAUSE_FIRST;
        }
        warn!(source = %source.config.name, %error, pause_s = pause.as_secs(), "trying again");
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

struct Source {
    config: Arc<SourceConfig>,
    log: LogConfig,
    /// The patterns of the tables to capture.
    tables: watch::Receiver<Vec<String>>,
    /// Why the stored position cannot be gone on from, found while that was tried.
    lost: Option<String>,
    metrics: SourceMetrics,
    throttle: Arc<Throttle>,
    /// Held by whoever connects to ask a question and leaves again.
    brief_connection: Arc<Semaphore>,
    /// Since when the log could not be written to, over attempts.
    stalled_since: Option<Instant>,
    /// The position as it is in the log.
    committed: watch::Sender<Position>,
    /// The tables whose rows are to be read, with the server's estimates.
    expected: watch::Sender<BTreeMap<String, u64>>,
}

impl Source {
    fn watched(&self) -> Watched {
        Watched {
            config: self.config.clone(),
            committed: self.committed.subscribe(),
            expected: self.expected.subscribe(),
            brief_connection: self.brief_connection.clone(),
            metrics: self.metrics.clone(),
        }
    }
}

impl Source {
    /// Tells the metrics for how long the log could not be used. Opening it ends that.
    fn tell_stalled(&mut self, error: &ReaderError) {
        let stalled = matches!(
            error,
            ReaderError::Log(LogError::Unavailable { .. } | LogError::Aborted { .. })
        );
        self.stalled_since = stalled.then(|| self.stalled_since.unwrap_or_else(Instant::now));
        if let Some(since) = self.stalled_since {
            self.metrics.log_stalled.set(since.elapsed().as_secs_f64());
        }
    }

    /// Whether a lost position is no reason to stop.
    fn begins_anew(&self) -> bool {
        self.config.snapshot == SnapshotMode::WhenNeeded
    }

    fn filter(&self) -> Result<TableFilter, ReaderError> {
        TableFilter::new(&self.tables.borrow()).map_err(|reason| ReaderError::Config {
            source_name: self.config.name.clone(),
            reason: reason.to_string(),
        })
    }
}

async fn attempt(
    source: &Source,
    first: bool,
    shutdown: &CancellationToken,
) -> Result<(), ReaderError> {
    let config = &source.config;
    // What changes from here on is told to the encode thread.
    let mut tables = source.tables.clone();
    tables.mark_unchanged();
    let filter = source.filter()?;
    let mut connection = if first { connect(config).await? } else { reconnect(config).await? };
    let server = server(&mut connection, &place(config)).await?;
    preflight::ensure_ready(&mut connection, &server, config).await?;
    let mut writer = open_log(source).await?;
    writer.wait_as(waiting(source, shutdown));
    let stored = writer.last_position().map(<[u8]>::to_vec);
    // The position comes before the catalog: a table that is made in between is seen by both, never by neither.
    let StartPosition { mut position, lost } =
        start_position(&mut connection, &server, source, stored).await?;
    let catalog = catalog::load(&mut connection, &server, &config.name, &filter).await?;
    if lost {
        leave_out_all(&mut position, &catalog);
    }
    let emptied = note_tables(&mut position, source, &filter, &catalog);
    let lower_case_names = has_lower_case_names(&mut connection, &server).await?;
    let history = table_history(source, &mut connection, &server, &catalog, lost).await?;
    // The snapshot and the stream use connections of their own.
    let _ = connection.disconnect().await;

    let stop = shutdown.child_token();
    let guard = stop.clone().drop_guard();
    let (inbox, received) = mpsc::channel::<Input>(INBOX_CHUNKS);
    let start = dump_start(&server, &position)?;
    // One chunk is being taken and one is being filled beside those in flight.
    let (spent, back) = mpsc::channel(INBOX_CHUNKS + 2);
    // Both the encode thread and the readers go by these numbers.
    position.snapshots.values_mut().for_each(|table| drop(table.open_ranges()));
    let progress = position.snapshots.clone();
    let shapes: HashMap<_, _> =
        catalog.tables.iter().map(|table| (table.name(), table.schema.clone())).collect();
    let to_read: Vec<CatalogTable> = catalog
        .tables
        .into_iter()
        .filter(|table| {
            let name = table.name();
            !progress.get(&name).is_some_and(|p| p.done) && !position.stopped.contains_key(&name)
        })
        .collect();
    let signals_read = position.signals_read;
    let windows = windows(source, &to_read, &progress).await?;
    let schema_ids = schema_ids(source, &stop).await?;
    let expected = to_read.iter().map(|table| (table.name(), table.rows_estimated())).collect();
    source.expected.send_replace(expected);
    let buffers = ChunkBuffers::default();
    let (to_read_now, asked_to_read) = mpsc::channel(TABLES_WAITING);
    let setup = CaptureSetup {
        coordinates: coordinates_of(&server, &position),
        position,
        mariadb: server.flavor.kind == Kind::MariaDb,
        catalog: shapes,
        keyless_pending: keyless(&to_read),
        windows,
        defaults: read_defaults(source),
        emptied,
        live: LiveServer {
            config: Some(config.clone()),
            to_read: (config.snapshot != SnapshotMode::Never).then(|| to_read_now.clone()),
            requests: Some(to_read_now),
            mode: config.snapshot,
            lower_case_names,
        },
        history,
        schema_ids,
        spent,
        committed: source.committed.clone(),
        held_back: source.throttle.states(),
        buffers: buffers.clone(),
        ..CaptureSetup::new(config, filter, writer, source.metrics.clone())
    };
    let mut captured = spawn_capture(setup, received, stop.clone())?;

    let stream_config = config.clone();
    let (stream_inbox, stream_stop) = (inbox.clone(), stop.clone());
    let mut streaming = tokio::spawn(async move {
        let id = replica_id::server_id(&stream_config);
        dump::follow(&stream_config, id, start, stream_inbox, back, stream_stop).await
    });
    let signals = signals::follow(
        config.clone(),
        source.log.clone(),
        signals_read,
        inbox.clone(),
        stop.clone(),
    );
    let mut asking = JoinSet::new();
    asking.spawn(signals);
    asking.spawn(new_tables::follow(config.clone(), tables, inbox.clone(), stop.clone()));
    let mut snapshotting = tokio::spawn(snapshot::run(
        config.clone(),
        to_read,
        progress,
        asked_to_read,
        EncodeThread { inbox, buffers },
        source.throttle.clone(),
        stop,
    ));
    let mut snapshot_running = true;
    let result = loop {
        tokio::select! {
            captured = &mut captured => {
                drop(guard);
                if snapshot_running {
                    let _ = snapshotting.await;
                }
                let streamed = joined(streaming.await, "the stream task");
                // The encode thread also ends, in order, when the stream has left it alone: then the stream knows why.
                return captured.unwrap_or_else(|_| Err(ended("the encode thread"))).and(streamed);
            }
            streamed = &mut streaming => break joined(streamed, "the stream task"),
            read = &mut snapshotting, if snapshot_running => {
                snapshot_running = false;
                match joined(read, "the snapshot task") {
                    Err(error) => break Err(error),
                    Ok(()) if config.snapshot == SnapshotMode::Only => {
                        info!(source = %config.name, "all rows are in the change log, ending");
                        break Ok(());
                    }
                    Ok(()) => {}
                }
            }
        }
    };
    // The encode thread commits what is complete; then the log is closed before the next attempt opens it.
    drop(guard);
    if snapshot_running {
        let _ = snapshotting.await;
    }
    if !streaming.is_finished() {
        let _ = streaming.await;
    }
    match captured.await {
        Ok(Err(error)) if result.is_ok() => Err(error),
        _ => result,
    }
}

/// How the encode thread asks for the columns' defaults, on a connection of its own.
fn read_defaults(source: &Source) -> ReadDefaults {
    let (config, tables) = (source.config.clone(), source.tables.clone());
    let brief_connection = source.brief_connection.clone();
    let runtime = tokio::runtime::Handle::current();
    Box::new(move || {
        let filter = TableFilter::new(&tables.borrow()).unwrap_or_else(|_| TableFilter::none());
        runtime.block_on(async {
            // It is never closed.
            let _turn = brief_connection.acquire().await;
            let mut connection = reconnect(&config).await?;
            let server = server(&mut connection, &place(&config)).await?;
            let defaults = insert_defaults::load(&mut connection, &server, &filter).await?;
            let end = binlog_end(&mut connection, &server).await?;
            let _ = connection.disconnect().await;
            Ok((defaults, end))
        })
    })
}

/// Reads on a thread of its own, because the log's calls block. A stop is a cancelled token.
fn spawn_capture(
    setup: CaptureSetup,
    inbox: mpsc::Receiver<Input>,
    stop: CancellationToken,
) -> Result<oneshot::Receiver<Result<(), ReaderError>>, ReaderError> {
    let (done, captured) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let name = format!("encode-{}", setup.source);
    std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _ = done.send(capture::run(setup, inbox, &runtime, &stop));
        })
        .map_err(|error| ended(&format!("starting the encode thread: {error}")))?;
    Ok(captured)
}

fn joined(
    result: Result<Result<(), ReaderError>, tokio::task::JoinError>,
    what: &str,
) -> Result<(), ReaderError> {
    result.unwrap_or_else(|_| Err(ended(what)))
}

fn ended(what: &str) -> ReaderError {
    ReaderError::Transient {
        place: "this process".into(),
        reason: format!("{what} ended unexpectedly"),
    }
}

async fn open_log(source: &Source) -> Result<Box<dyn LogWriter>, ReaderError> {
    let (log, name) = (source.log.clone(), source.config.name.clone());
    tokio::task::spawn_blocking(move || open_writer(&log, &name, LOG_TIMEOUT))
        .await
        .map_err(|_| ended("opening the change log"))?
        .map_err(ReaderError::from)
}

/// How the log's writer waits for it: until the source is to stop, and told to the metrics.
fn waiting(source: &Source, shutdown: &CancellationToken) -> Waiting {
    let (stop, stalled) = (shutdown.clone(), source.metrics.log_stalled.clone());
    stalled.set(0.0);
    Waiting {
        stopped: Box::new(move || stop.is_cancelled()),
        stalled: Box::new(move |waited| stalled.set(waited.as_secs_f64())),
    }
}

fn keyless(tables: &[CatalogTable]) -> HashSet<String> {
    tables.iter().filter(|table| table.schema.key.is_empty()).map(CatalogTable::name).collect()
}
