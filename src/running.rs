//! Runs the parts that a command asks for in this process: readers, the sink, and the HTTP server with metrics, health
//! and, where there is a sink, the page. When one part fails, all stop.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, anyhow};
use cdc_reader::ReaderMetrics;
use change_log::LogError;
use console::{Health, LakeSql, Service, status::Status};
use prometheus::Registry;
use sink_lake::{SinkMetrics, SinkStatus};
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::Config,
    gather::{Gatherer, Servers},
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

/// The parts at work.
pub struct Running {
    tasks: JoinSet<anyhow::Result<()>>,
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
        if matches!(parts, Parts::Reader | Parts::All) {
            let metrics = ReaderMetrics::new(&registry);
            for source in &config.sources {
                let (source, log) = (source.clone(), config.log.clone());
                let (stop, metrics) = (stop.clone(), metrics.clone());
                tasks.spawn(async move {
                    cdc_reader::run(source, log, stop, metrics).await.map_err(anyhow::Error::from)
                });
            }
        }
        let mut sink_status = None;
        if matches!(parts, Parts::Sink | Parts::All) {
            let metrics = SinkMetrics::register(&registry)?;
            sink_status = Some(metrics.status());
            let run = sink_lake::run(
                config.sink(),
                config.log.clone(),
                config.source_names(),
                stop.clone(),
                metrics,
            );
            tasks.spawn(async move { run.await.map_err(anyhow::Error::from) });
        }
        let (status_in, status) = watch::channel(Arc::new(Status::default()));
        let (health_in, health) = watch::channel(Health::default());
        let gathered = Gathered { parts, status: status_in, health: health_in };
        tasks.spawn(gather(config.clone(), sink_status, gathered, stop.clone()));
        let sql = match parts {
            Parts::Reader => None,
            Parts::Sink | Parts::All | Parts::Page => {
                Some(Arc::new(LakeSql::open(&config.lake.url)?))
            }
        };
        let service =
            Service { registries: vec![registry], health, status: Some(status.clone()), sql };
        let serving = console::serve(listener, service, stop.clone());
        tasks.spawn(async move { serving.await.context("the page") });
        Ok(Self { tasks, stop, address, status })
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

    /// Waits for a part to fail. A part that ends without being asked to is a failure too.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Err(error)) => anyhow!("a part ended unexpectedly: {error}"),
            Some(Ok(Ok(()))) | None => anyhow!("a part ended without a reason"),
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
                    first = result;
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

/// Runs the parts until a signal or a failure, and draws a line of progress.
pub async fn until_signal(config: &Config, parts: Parts, listen: &str) -> anyhow::Result<()> {
    let mut running = Running::start(config, parts, listen).await?;
    info!(page = %format!("http://{}", running.address()), "running");
    let mut line = crate::status_line::StatusLine::new();
    let mut interval = tokio::time::interval(STATUS_INTERVAL);
    let mut signals = crate::signals::Signals::new()?;
    loop {
        let status = running.status();
        tokio::select! {
            () = signals.next() => break,
            error = running.failed() => {
                line.clear();
                // The others commit what they have; the first error is the one to tell.
                let _ = running.stop().await;
                return Err(error);
            }
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
