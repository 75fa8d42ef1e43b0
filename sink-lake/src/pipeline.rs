//! Builds the sink from its parts: the router's thread, a worker per table, and the way between them. No processing
//! is done here.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use change_log::{LogConfig, open_reader};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use uuid::Uuid;

use crate::{
    config::{LakeConfig, SinkConfig, TableRule, mode_of},
    dead_letters,
    error::{SinkError, with_causes},
    flush_policy::FlushPolicy,
    memory_budget::MemoryBudget,
    metrics::SinkMetrics,
    router::{self, Command, Discovered},
    schema_catalog::SchemaCatalog,
    status::TableState,
    table_worker::{Shared, TableWorker},
};

const LOG_TIMEOUT: Duration = Duration::from_secs(30);
const COMMANDS_MAX: usize = 1024;
const DISCOVERED_MAX: usize = 64;

/// Keeps the lake up to date with the tables of these sources until the token is cancelled; then commits what is
/// buffered and returns. A table that can't go on stops alone; an error here means that the whole sink can't.
pub async fn run(
    config: SinkConfig,
    log: LogConfig,
    sources: Vec<String>,
    shutdown: CancellationToken,
    metrics: SinkMetrics,
) -> Result<(), SinkError> {
    let (_, rules) = watch::channel(config.tables.clone());
    run_with_rules(config, rules, log, sources, shutdown, metrics).await
}

/// The same with rules that may change meanwhile: they hold for tables that the sink meets from then on.
pub async fn run_with_rules(
    config: SinkConfig,
    rules: watch::Receiver<Vec<TableRule>>,
    log: LogConfig,
    sources: Vec<String>,
    shutdown: CancellationToken,
    metrics: SinkMetrics,
) -> Result<(), SinkError> {
    let lake = config.lake.folder()?;
    ensure_writable(&lake)?;
    let reader = {
        let log = log.clone();
        blocking("change log", move || open_reader(&log, LOG_TIMEOUT)).await??
    };
    let (commands, commands_in) = mpsc::channel::<Command>(COMMANDS_MAX);
    let (discovered_out, mut discovered) = mpsc::channel::<Discovered>(DISCOVERED_MAX);
    let mut router = {
        let (sources, share, shutdown) = (sources.clone(), config.share, shutdown.child_token());
        tokio::task::spawn_blocking(move || {
            router::run(reader, sources, share, commands_in, discovered_out, shutdown)
        })
    };
    // Workers stop by this token too when the router fails.
    let workers_stop = shutdown.child_token();
    let catalogs = sources
        .iter()
        .map(|source| (source.clone(), SchemaCatalog::new(log.clone(), source, LOG_TIMEOUT)))
        .collect();
    let tables =
        Tables::new(&config, rules, lake, catalogs, commands, metrics.clone(), &workers_stop);
    let mut workers = JoinSet::new();
    let mut names: HashMap<Id, String> = HashMap::new();
    info!(sources = sources.join(", "), "sink started");
    let router_result = loop {
        tokio::select! {
            found = discovered.recv() => if let Some(found) = found {
                let name = found.table.to_string();
                if let Some(worker) = tables.worker(found) {
                    names.insert(workers.spawn(worker.run()).id(), name);
                }
            } else {
                // The router has ended; its result says why.
                break (&mut router).await;
            },
            Some(ended) = workers.join_next_with_id() => {
                table_ended(ended, &mut names, &metrics);
            }
            () = shutdown.cancelled() => break Ok(Ok(())),
        }
    };
    workers_stop.cancel();
    drop(discovered);
    drop(tables);
    while let Some(ended) = workers.join_next_with_id().await {
        table_ended(ended, &mut names, &metrics);
    }
    let router_result = match router_result {
        Ok(Ok(())) if !router.is_finished() => router.await,
        other => other,
    };
    info!("sink stopped");
    router_result
        .map_err(|error| SinkError::Task { task: "router".to_owned(), reason: error.to_string() })?
}

struct Tables {
    rules: watch::Receiver<Vec<TableRule>>,
    lake: PathBuf,
    policy: FlushPolicy,
    budget: Arc<MemoryBudget>,
    catalogs: HashMap<String, SchemaCatalog>,
    writers: Arc<Semaphore>,
    commands: mpsc::Sender<Command>,
    metrics: SinkMetrics,
    shutdown: CancellationToken,
}

impl Tables {
    fn new(
        config: &SinkConfig,
        rules: watch::Receiver<Vec<TableRule>>,
        lake: PathBuf,
        catalogs: HashMap<String, SchemaCatalog>,
        commands: mpsc::Sender<Command>,
        metrics: SinkMetrics,
        stop: &CancellationToken,
    ) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            budget: MemoryBudget::new(config.lake.memory_bytes_max.max(1)),
            policy: FlushPolicy {
                age_max: config.lake.freshness,
                rows_max: config.lake.commit_rows_max,
                bytes_max: config.lake.commit_bytes_max,
            },
            writers: Arc::new(Semaphore::new(cores.max(2))),
            shutdown: stop.clone(),
            rules,
            lake,
            catalogs,
            commands,
            metrics,
        }
    }

    fn worker(&self, found: Discovered) -> Option<TableWorker> {
        let name = found.table.to_string();
        let status = self.metrics.status();
        let parts = [&found.table.source, &found.table.database, &found.table.table];
        if parts.iter().any(|part| {
            matches!(part.as_str(), "." | "..")
                || part.starts_with('_') && part.as_str() == dead_letters::FOLDER
        }) {
            let reason = "its name can't be a folder of the lake; rename it or leave it out";
            stop_table(&name, reason, &self.metrics);
            return None;
        }
        status.update(&name, |status| status.state = TableState::Opening);
        let shared = Shared {
            lake: self.lake.clone(),
            policy: self.policy,
            commands: self.commands.clone(),
            catalog: self.catalogs.get(&found.table.source)?.clone(),
            writers: Arc::clone(&self.writers),
            metrics: self.metrics.clone(),
            shutdown: self.shutdown.clone(),
        };
        let rule = mode_of(&self.rules.borrow(), &name);
        Some(TableWorker::new(found, rule, shared, self.budget.table()))
    }
}

fn table_ended(
    ended: Result<(Id, Result<(), SinkError>), tokio::task::JoinError>,
    names: &mut HashMap<Id, String>,
    metrics: &SinkMetrics,
) {
    let (id, sentence) = match ended {
        Ok((id, Ok(()))) => {
            names.remove(&id);
            return;
        }
        Ok((id, Err(error))) => (id, with_causes(&error)),
        Err(error) => (error.id(), format!("its worker ended unexpectedly: {error}")),
    };
    stop_table(&names.remove(&id).unwrap_or_default(), &sentence, metrics);
}

fn stop_table(name: &str, sentence: &str, metrics: &SinkMetrics) {
    error!(table = name, reason = sentence, "table stopped; the others go on");
    metrics.stopped_tables.inc();
    let state = TableState::Stopped(sentence.to_owned());
    metrics.status().update(name, |status| status.state = state);
}

/// Says whether the lake's folder can be written, making it when it is missing.
pub fn ensure_lake_writable(lake: &LakeConfig) -> Result<(), SinkError> {
    ensure_writable(&lake.folder()?)
}

fn ensure_writable(lake: &Path) -> Result<(), SinkError> {
    let not_writable = |error: std::io::Error| SinkError::LakeNotWritable {
        folder: lake.display().to_string(),
        reason: error.to_string(),
    };
    std::fs::create_dir_all(lake).map_err(not_writable)?;
    let probe = lake.join(format!(".binlake-probe-{}", Uuid::new_v4()));
    std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)).map_err(not_writable)
}

async fn blocking<T: Send + 'static>(
    task: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SinkError> {
    let lost = |error: tokio::task::JoinError| SinkError::Task {
        task: task.to_owned(),
        reason: error.to_string(),
    };
    tokio::task::spawn_blocking(work).await.map_err(lost)
}
