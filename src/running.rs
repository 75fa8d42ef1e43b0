//! Runs the parts that a command asks for in this process: readers, the sink, and the HTTP server with metrics, health
//! and, where there is a sink, the page. When one part fails, all stop.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use cdc_reader::ReaderMetrics;
use change_log::LogError;
use console::{
    Health, LakeSql, Service,
    status::{Status, TableStatus},
};
use prometheus::Registry;
use sink_lake::{SinkMetrics, SinkStatus, TableRule};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::Config,
    gather::{Gatherer, Servers, now_ms},
    reload::ConfigFile,
};

/// How often the status is gathered.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a stop may take; what is not committed by then is done again at the next start.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

/// What shells report for a program that Ctrl-C ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Which parts run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parts {
    /// Readers of all sources.
    Reader,
    /// The sink.
    Sink,
    /// Both.
    All,
    /// Neither: only the page.
    Page,
}

/// How a part ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartEnd {
    /// A reader, or another part, that was to stop.
    Stopped,
    /// A reader that has read everything it was to read.
    SourceDone,
}

/// What may change while the parts are at work.
struct Changeable {
    /// By source.
    tables: HashMap<String, watch::Sender<Vec<String>>>,
    rules: watch::Sender<Vec<TableRule>>,
}

/// The parts at work.
pub struct Running {
    tasks: JoinSet<anyhow::Result<PartEnd>>,
    parts: Parts,
    /// Readers that are at work; `None` when none was started.
    sources_left: Option<usize>,
    /// When the last of them was done.
    sources_done_ms: Option<i64>,
    changeable: Changeable,
    stop: CancellationToken,
    address: std::net::SocketAddr,
    status: watch::Receiver<Arc<Status>>,
}

impl Running {
    /// Starts the parts; `listen` is where the HTTP server listens.
    pub async fn start(config: &Config, parts: Parts, listen: &str) -> anyhow::Result<Self> {
        // Later, a log that does not answer is waited for; at the start, it is most likely a wrong address.
        drop(Gatherer::open(config, None).await?);
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!(
                "cannot listen on {listen}; name another address with --listen or [console] listen"
            )
        })?;
        let address = listener.local_addr()?;
        let registry = Registry::new();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (rules, rules_out) = watch::channel(config.tables.clone());
        let mut changeable = Changeable { tables: HashMap::new(), rules };
        if matches!(parts, Parts::Reader | Parts::All) {
            let metrics = ReaderMetrics::new(&registry);
            for source in &config.sources {
                let (patterns, tables) = watch::channel(source.tables.clone());
                changeable.tables.insert(source.name.clone(), patterns);
                let (source, log) = (source.clone(), config.log.clone());
                let (stop, metrics) = (stop.clone(), metrics.clone());
                tasks.spawn(async move {
                    cdc_reader::run_with_tables(source, tables, log, stop.clone(), metrics).await?;
                    Ok(if stop.is_cancelled() { PartEnd::Stopped } else { PartEnd::SourceDone })
                });
            }
        }
        let mut sink_status = None;
        if matches!(parts, Parts::Sink | Parts::All) {
            let metrics = SinkMetrics::register(&registry)?;
            sink_status = Some(metrics.status());
            let run = sink_lake::run_with_rules(
                config.sink(),
                rules_out,
                config.log.clone(),
                config.source_names(),
                stop.clone(),
                metrics,
            );
            tasks.spawn(async move { Ok(run.await.map(|()| PartEnd::Stopped)?) });
            // Of several sinks, one runs the exports.
            if config.share.is_first() {
                let exporting = crate::exports::keep(config.clone(), stop.clone());
                tasks.spawn(async move { exporting.await.map(|()| PartEnd::Stopped) });
            }
        }
        let (status_in, status) = watch::channel(Arc::new(Status::default()));
        let (health_in, health) = watch::channel(Health::default());
        let gathered = Gathered { parts, status: status_in, health: health_in };
        let gathering = gather(config.clone(), sink_status, gathered, stop.clone());
        tasks.spawn(async move { gathering.await.map(|()| PartEnd::Stopped) });
        let sql = match parts {
            Parts::Reader => None,
            Parts::Sink | Parts::All | Parts::Page => {
                Some(Arc::new(LakeSql::open(&config.lake.url)?))
            }
        };
        let service =
            Service { registries: vec![registry], health, status: Some(status.clone()), sql };
        let serving = console::serve(listener, service, stop.clone());
        tasks.spawn(async move { serving.await.map(|()| PartEnd::Stopped).context("the page") });
        let sources_left = Some(changeable.tables.len()).filter(|&sources| sources > 0);
        Ok(Self {
            tasks,
            parts,
            sources_left,
            sources_done_ms: None,
            changeable,
            stop,
            address,
            status,
        })
    }

    /// Where the page is.
    pub fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// The newest status.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// The status as it changes.
    pub fn watch_status(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// Takes over what may change: which tables are captured, and the rules of tables that are new to the lake.
    pub fn change(&self, config: &Config) {
        // The rules come first: the sink may meet a table as soon as it is captured.
        self.changeable.rules.send_if_modified(|rules| replaced(rules, &config.tables));
        for source in &config.sources {
            if let Some(tables) = self.changeable.tables.get(&source.name) {
                tables.send_if_modified(|patterns| replaced(patterns, &source.tables));
            }
        }
    }

    /// Waits for a part to fail. A part that ends without being asked to is a failure too.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.done().await {
            Ok(()) => anyhow!("a part ended without a reason"),
            Err(error) => error,
        }
    }

    /// Waits until all sources are done (those with `snapshot = "only"` can be) and the lake has their rows, or for a
    /// part to fail. May be dropped and called again.
    pub async fn done(&mut self) -> anyhow::Result<()> {
        while self.sources_left != Some(0) {
            match self.tasks.join_next().await {
                Some(Ok(Err(error))) => return Err(error),
                Some(Err(error)) => bail!("a part ended unexpectedly: {error}"),
                Some(Ok(Ok(PartEnd::SourceDone))) => {
                    self.sources_left = self.sources_left.map(|left| left.saturating_sub(1));
                }
                Some(Ok(Ok(PartEnd::Stopped))) | None => bail!("a part ended without a reason"),
            }
        }
        if self.parts != Parts::All {
            return Ok(());
        }
        let done_ms = *self.sources_done_ms.get_or_insert_with(now_ms);
        let in_lake = |status: &Arc<Status>| {
            let has_all = |t: &TableStatus| t.stopped.is_some() || t.lag_records == 0;
            status.taken_ms > done_ms
                && status.problems.is_empty()
                && status.tables.iter().all(has_all)
        };
        tokio::select! {
            waited = self.status.wait_for(in_lake) => {
                waited.map(drop).context("the status is no longer gathered")
            }
            ended = self.tasks.join_next() => match ended {
                Some(Ok(Err(error))) => Err(error),
                _ => Err(anyhow!("a part ended without a reason")),
            },
        }
    }

    /// Stops all parts in order: what is complete is committed.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        let ended = tokio::time::timeout(STOP_TIMEOUT, async {
            let mut first = Ok(());
            while let Some(result) = self.tasks.join_next().await {
                let result = result
                    .unwrap_or_else(|error| Err(anyhow!("a part ended unexpectedly: {error}")));
                if first.is_ok() {
                    first = result.map(drop);
                }
            }
            first
        });
        match ended.await {
            Ok(result) => result,
            Err(_) => {
                warn!(
                    "stopping took too long; what is not committed is done again at the next start"
                );
                Ok(())
            }
        }
    }
}

/// Puts a value in the place of another; answers whether it is another.
fn replaced<T: Clone + PartialEq>(old: &mut T, new: &T) -> bool {
    let changed = old != new;
    if changed {
        old.clone_from(new);
    }
    changed
}

/// Where the status goes.
struct Gathered {
    parts: Parts,
    status: watch::Sender<Arc<Status>>,
    health: watch::Sender<Health>,
}

/// Gathers the status each second, for the page, the probes and the status line.
async fn gather(
    config: Config,
    sink: Option<SinkStatus>,
    out: Gathered,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // A sink needs no way to the servers.
    let servers = if out.parts == Parts::Sink { Servers::LeftAlone } else { Servers::Asked };
    let mut gatherer = None;
    loop {
        let taken = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            taken = take(&config, &sink, servers, &mut gatherer) => taken,
        };
        let unready = match taken {
            Ok(status) => {
                let unready = unready(&status, out.parts);
                out.status.send_replace(Arc::new(status));
                unready
            }
            Err(error) => Some(error.to_string()),
        };
        out.health.send_replace(Health { unhealthy: None, unready });
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(STATUS_INTERVAL) => {}
        }
    }
}

async fn take(
    config: &Config,
    sink: &Option<SinkStatus>,
    servers: Servers,
    gatherer: &mut Option<Gatherer>,
) -> Result<Status, LogError> {
    let opened = match gatherer {
        Some(opened) => opened,
        None => gatherer.insert(Gatherer::open(config, sink.clone()).await?),
    };
    Ok(opened.take(servers).await)
}

/// Why the process does not do its work: the log or the lake cannot be used, or its reader cannot use a source.
fn unready(status: &Status, parts: Parts) -> Option<String> {
    let reads = matches!(parts, Parts::Reader | Parts::All);
    let sources = status.sources.iter().filter(|_| reads);
    let mut problems =
        sources.filter_map(|s| Some(format!("source {}: {}", s.name, s.problem.as_ref()?)));
    status.problems.first().cloned().or_else(|| problems.next())
}

/// Runs the parts until a signal, a failure, or the end of all work, and draws a line of progress. Changes of the
/// configuration file are taken over where that is possible.
pub async fn until_signal(
    config: Config,
    file: &Path,
    parts: Parts,
    listen: &str,
) -> anyhow::Result<()> {
    let mut running = Running::start(&config, parts, listen).await?;
    info!(page = %format!("http://{}", running.address()), "running");
    let mut line = crate::status_line::StatusLine::new();
    let mut interval = tokio::time::interval(STATUS_INTERVAL);
    let mut signals = crate::signals::Signals::new()?;
    let mut file = ConfigFile::new(file, config)?;
    loop {
        let status = running.status();
        tokio::select! {
            () = signals.next() => break,
            done = running.done() => {
                line.clear();
                // The others commit what they have; the first error is the one to tell.
                let stopped = running.stop().await;
                return done.and(stopped);
            }
            changed = file.changed() => running.change(changed),
            _ = interval.tick() => line.show(&status),
        }
    }
    line.clear();
    info!("stopping");
    tokio::select! {
        result = running.stop() => result,
        () = signals.next() => {
            #[expect(clippy::disallowed_methods, reason = "a second signal asks for no draining")]
            std::process::exit(EXIT_INTERRUPTED)
        }
    }
}
