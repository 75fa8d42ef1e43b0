//! `binlake demo`: Udon Market, a small shop with two MySQL databases, copied into a Delta lake while it works; then
//! three questions to the lake, and proof that it equals MySQL.

mod live_line;
mod parts;
mod place;
mod private_server;
mod questions;
mod workload;
pub mod workload_command;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use console::{LakeSql, SqlError, download};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ConfigError};
use live_line::{LiveLine, thousands};
use parts::Parts;
use place::Place;
use private_server::{Data, PrivateServer, Program, ServerError};
use questions::QUESTIONS;
use workload::{Workload, WorkloadError, WorkloadOptions};

/// The shop opens this long at least, so that there is something to look at.
const SHORTEST_DAY: Duration = Duration::from_secs(15);
/// How often the line of progress is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);
const CONNECTIONS: usize = 4;

/// Shows everything at work on a small example
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Ends when the questions are answered and every table is compared; fails when one differs
    #[arg(long)]
    once: bool,
    /// Puts Kafka between reader and sink: a private one, or the one at BOOTSTRAP
    #[arg(long, value_name = "BOOTSTRAP", num_args = 0..=1)]
    kafka: Option<Option<String>>,
    /// Uses this MySQL server (its databases `market` and `delivery`) instead of a private one
    #[arg(long, value_name = "URL")]
    mysql_url: Option<String>,
    /// Orders in all; the first half is there before Binlake starts
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(2..=500_000_000))]
    orders: u64,
    /// The same seed and number of orders write the same rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keeps the lake and everything else in DIR, which must be new or empty
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where the status page listens; any free port when it is left out
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: String,
}

/// Why the demo ended early.
#[derive(Debug, Error)]
enum DemoError {
    #[error("cannot use the folder: {0}")]
    Place(#[source] io::Error),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Sql(#[from] SqlError),
    #[error("{0}")]
    Part(String),
    #[error("stopped")]
    Interrupted,
}

/// Servers of the demo's own; dropping them stops them.
struct Servers {
    mysql: Option<PrivateServer>,
    kafka: Option<PrivateServer>,
}

/// Runs the demo.
pub async fn run(args: DemoArgs) -> ExitCode {
    let interrupted = watch_signals();
    match demo(&args, &interrupted).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(DemoError::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the lake was equal to MySQL in the end.
async fn demo(args: &DemoArgs, interrupted: &CancellationToken) -> Result<bool, DemoError> {
    println!("Udon Market: two MySQL databases of a small shop, and their copy in a Delta lake.\n");
    let place = Place::new(args.dir.as_deref()).map_err(DemoError::Place)?;
    let servers = until(interrupted, start_servers(args, &place)).await?;
    let result = with_servers(args, &place, &servers, interrupted).await;
    if matches!(result, Err(DemoError::Interrupted)) {
        println!("\nStopping.");
    }
    // Stopping waits for the servers' own end, which is no work for a runtime's thread.
    if tokio::task::spawn_blocking(move || drop(servers)).await.is_err() {
        eprintln!("a server did not stop in an orderly way");
    }
    result
}

async fn with_servers(
    args: &DemoArgs,
    place: &Place,
    servers: &Servers,
    interrupted: &CancellationToken,
) -> Result<bool, DemoError> {
    let mysql_url = match (&args.mysql_url, &servers.mysql) {
        (Some(url), _) => url.clone(),
        (None, Some(server)) => format!("mysql://root@127.0.0.1:{}", server.port()),
        (None, None) => return Err(DemoError::Part("there is no MySQL".to_owned())),
    };
    let spread = if args.orders <= 100_000 { SHORTEST_DAY } else { Duration::ZERO };
    let options =
        WorkloadOptions { seed: args.seed, orders: args.orders, connections: CONNECTIONS, spread };
    let workload = Workload::new(&mysql_url, options)?;
    until(interrupted, async { Ok(workload.prepare().await?) }).await?;
    let before = workload.progress.snapshot();
    println!("History  {} rows were written before Binlake is started", thousands(before.rows));

    let config = configuration(args, place.path(), &mysql_url, servers)?;
    let parts = Parts::start(&config).await?;
    println!("Binlake  reader and sink are running; their page is http://{}", parts.address());
    let told = until(interrupted, story(args, &workload, &parts, &config, place)).await;
    let result = match told {
        Ok(equal) if !args.once => stay_open(&workload, &parts, interrupted).await.map(|()| equal),
        told => told,
    };
    parts.stop().await;
    result
}

/// A trickle of business until somebody has seen enough, which is how the demo is meant to end.
async fn stay_open(
    workload: &Workload,
    parts: &Parts,
    interrupted: &CancellationToken,
) -> Result<(), DemoError> {
    println!(
        "\nThe shop stays open, and http://{} shows the lake following it. Ctrl-C ends the demo.",
        parts.address()
    );
    let trickle = parts.unless_failed(async { Ok(workload.go_on().await?) });
    match until(interrupted, trickle).await {
        Err(DemoError::Interrupted) => {
            println!("\nStopping.");
            Ok(())
        }
        ended => ended,
    }
}

/// Everything from the first change to the last word.
async fn story(
    args: &DemoArgs,
    workload: &Workload,
    parts: &Parts,
    config: &Config,
    place: &Place,
) -> Result<bool, DemoError> {
    println!("Business {} customers' connections write at once:\n", CONNECTIONS);
    let mut line = LiveLine::new();
    drawn(&mut line, workload, parts, async { Ok(workload.run().await?) }).await?;
    let written = workload.progress.snapshot();
    let executed = workload.executed().await?;
    drawn(&mut line, workload, parts, parts.caught_up(&executed)).await?;
    line.clear();
    println!(
        "         {} rows changed in {} transactions, and the lake has them all\n",
        thousands(written.rows),
        thousands(written.transactions)
    );

    let lake = LakeSql::open(&config.lake.url)?;
    for question in QUESTIONS {
        println!("{}", question.text);
        let stream = lake.query(question.sql).await?;
        download::write(stream, download::Format::Table, io::stdout()).await?;
        println!();
    }
    let equal = parts.verify(config).await?;
    farewell(args, place, config);
    Ok(equal)
}

/// Draws the line while something is going on.
async fn drawn<T>(
    line: &mut LiveLine,
    workload: &Workload,
    parts: &Parts,
    going_on: impl Future<Output = Result<T, DemoError>>,
) -> Result<T, DemoError> {
    let mut going_on = std::pin::pin!(parts.unless_failed(going_on));
    let mut interval = tokio::time::interval(DRAW_INTERVAL);
    loop {
        tokio::select! {
            result = &mut going_on => return result,
            _ = interval.tick() => line.show(workload.progress.snapshot(), &parts.status()),
        }
    }
}

async fn start_servers(args: &DemoArgs, place: &Place) -> Result<Servers, DemoError> {
    let mysql = match args.mysql_url {
        Some(_) => None,
        None => Some(start_server(Program::MySql, place).await?),
    };
    if let Some(server) = &mysql {
        println!("MySQL    a private server on port {}", server.port());
    }
    let kafka = match args.kafka {
        Some(None) => Some(start_server(Program::Kafka, place).await?),
        _ => None,
    };
    if let Some(server) = &kafka {
        println!("Kafka    a private broker on port {}", server.port());
    }
    Ok(Servers { mysql, kafka })
}

async fn start_server(program: Program, place: &Place) -> Result<PrivateServer, DemoError> {
    let folder = place.path().to_owned();
    let data = if place.is_kept() { Data::Kept } else { Data::Removed };
    match tokio::task::spawn_blocking(move || PrivateServer::start(program, &folder, data)).await {
        Ok(started) => Ok(started?),
        Err(_) => Err(DemoError::Part("starting a server ended unexpectedly".to_owned())),
    }
}

/// The configuration, which is also written down, so that other commands can be tried on the running demo.
fn configuration(
    args: &DemoArgs,
    folder: &Path,
    mysql_url: &str,
    servers: &Servers,
) -> Result<Config, DemoError> {
    let bootstrap = match (&args.kafka, &servers.kafka) {
        (Some(Some(named)), _) => Some(named.clone()),
        (_, Some(server)) => Some(format!("127.0.0.1:{}", server.port())),
        _ => None,
    };
    let change_log = match bootstrap {
        Some(servers) => format!("kind = \"kafka\"\nbootstrap_servers = \"{servers}\""),
        None => "kind = \"embedded\"\npath = \"./change-log\"".to_owned(),
    };
    let text = format!(
        "[[source]]\nname = \"udon\"\nurl = \"{mysql_url}\"\ntables = [\"market.*\", \"delivery.*\"]\n\n\
         [change_log]\n{change_log}\n\n\
         [lake]\nurl = \"file:./lake\"\nfreshness = \"2s\"\n\n\
         [[table]]\nmatch = \"udon.market.*_events\"\nmode = \"history\"\n\n\
         [console]\nlisten = \"{}\"\n",
        args.listen
    );
    let file = folder.join("binlake.toml");
    std::fs::write(&file, &text).map_err(DemoError::Place)?;
    Ok(Config::parse(&text, &file, [])?)
}

fn farewell(args: &DemoArgs, place: &Place, config: &Config) {
    if place.is_kept() {
        println!("\nThe lake stays in {}", config.lake.url);
        println!(
            "Ask it more: binlake query --config {}/binlake.toml \"SELECT ...\"",
            place.path().display()
        );
    } else if args.once {
        println!("\nThe lake was in {} and goes now; --dir DIR keeps it.", config.lake.url);
    } else {
        println!(
            "\nThe lake lies in {} until the demo ends. From another terminal:",
            config.lake.url
        );
        println!("binlake query --config {}/binlake.toml \"SELECT ...\"", place.path().display());
    }
}

/// Ends `work` when somebody wants the program to stop.
async fn until<T>(
    interrupted: &CancellationToken,
    work: impl Future<Output = Result<T, DemoError>>,
) -> Result<T, DemoError> {
    tokio::select! {
        result = work => result,
        () = interrupted.cancelled() => Err(DemoError::Interrupted),
    }
}

/// Cancelled by Ctrl-C and by what a service manager sends.
fn watch_signals() -> CancellationToken {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        cancelled.cancel();
    });
    token
}
