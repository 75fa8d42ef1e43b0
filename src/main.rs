//! The command `binlake`: parses, calls a package, prints.

mod allocator;
mod check;
mod config;
mod demo;
mod exports;
mod gather;
mod init;
mod log_view;
mod output;
mod query;
mod reload;
mod running;
mod server_watch;
mod signals;
mod snapshot;
mod status;
mod status_line;
mod verify;

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use sink_lake::Share;
use tracing_subscriber::EnvFilter;

use self::{
    check::CheckArgs,
    config::Config,
    demo::{DemoArgs, workload_command::WorkloadArgs},
    exports::command::ExportArgs,
    init::InitArgs,
    query::QueryArgs,
    running::{Parts, until_signal},
    snapshot::SnapshotArgs,
    status::StatusArgs,
    verify::VerifyArgs,
};

/// Keeps a Delta Lake copy of MySQL databases
#[derive(Parser, Debug)]
#[command(
    version,
    about,
    after_help = "Start with `binlake demo`, or with `binlake init mysql://...`."
)]
struct Cli {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "binlake.toml")]
    config: PathBuf,
    /// The form of log lines on standard error
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
enum Command {
    Init(InitArgs),
    Check(CheckArgs),
    /// Runs reader, sink and page in one process
    Up(ListenArgs),
    /// Runs the readers: MySQL to change log
    Reader(ListenArgs),
    /// Runs the sink: change log to Delta Lake
    Sink(SinkArgs),
    /// Runs the page alone
    Console(ListenArgs),
    Status(StatusArgs),
    Snapshot(SnapshotArgs),
    Query(QueryArgs),
    Verify(VerifyArgs),
    Export(ExportArgs),
    Demo(DemoArgs),
    #[command(hide = true)]
    DemoWorkload(WorkloadArgs),
}

#[derive(Args, Debug)]
#[command(after_help = "Example: binlake up --listen 127.0.0.1:8642")]
struct ListenArgs {
    /// Where page, metrics and probes listen; `[console] listen` of the configuration when it is left out
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
}

#[derive(Args, Debug)]
#[command(after_help = "Example: binlake sink --replica 0 --replicas 3")]
struct SinkArgs {
    #[command(flatten)]
    listen: ListenArgs,
    /// How many sinks share the tables; each table has one of them
    #[arg(long, value_name = "NUMBER", default_value_t = 1, env = "BINLAKE_SINK_REPLICAS")]
    replicas: u32,
    /// Which of them this one is, from 0; the number at the end of the host's name when it is left out
    #[arg(long, value_name = "NUMBER", env = "BINLAKE_SINK_REPLICA")]
    replica: Option<u32>,
}

impl SinkArgs {
    /// The host name of a pod of a StatefulSet ends with its number.
    fn share(&self) -> anyhow::Result<Share> {
        let by_name = || {
            let host = std::env::var("HOSTNAME").ok()?;
            host.rsplit_once('-')?.1.parse().ok()
        };
        let replica = match self.replica {
            Some(replica) => replica,
            None if self.replicas == 1 => 0,
            None => by_name().context(
                "--replicas needs --replica: $HOSTNAME does not end with a number as a StatefulSet's pods' do",
            )?,
        };
        Share::new(replica, self.replicas).with_context(|| {
            format!("there is no replica {replica} of {}: they are counted from 0", self.replicas)
        })
    }
}

fn main() -> ExitCode {
    allocator::give_large_memory_back();
    let cli = Cli::parse();
    start_logging(&cli);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(run(cli)).unwrap_or_else(|error| {
        eprintln!("error: {}", one_line(&format!("{error:#}")));
        ExitCode::FAILURE
    });
    // What had to be finished is finished; a call that still blocks (a broker that does not answer) is left behind.
    runtime.shutdown_background();
    code
}

/// Some libraries' messages come with line breaks.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let load = || Config::load(&cli.config, std::env::vars());
    match cli.command {
        Command::Demo(args) => return Ok(demo::run(args).await),
        Command::DemoWorkload(args) => return Ok(demo::workload_command::run(args).await),
        Command::Init(args) => init::run(&cli.config, &args).await?,
        Command::Check(args) => return check::run(&load()?, &args).await,
        Command::Up(args) => serve(load()?, &cli.config, Parts::All, args).await?,
        Command::Reader(args) => serve(load()?, &cli.config, Parts::Reader, args).await?,
        Command::Sink(args) => {
            let config = Config { share: args.share()?, ..load()? };
            serve(config, &cli.config, Parts::Sink, args.listen).await?;
        }
        Command::Console(args) => serve(load()?, &cli.config, Parts::Page, args).await?,
        Command::Status(args) => status::run(&load()?, &args).await?,
        Command::Snapshot(args) => snapshot::run(&load()?, &args).await?,
        Command::Query(args) => query::run(&load()?, &args).await?,
        Command::Export(args) => return exports::command::run(&load()?, &args).await,
        Command::Verify(args) => return verify::run(&load()?, &args).await,
    }
    Ok(ExitCode::SUCCESS)
}

async fn serve(config: Config, file: &Path, parts: Parts, args: ListenArgs) -> anyhow::Result<()> {
    let listen = args.listen.unwrap_or_else(|| config.console.listen.clone());
    until_signal(config, file, parts, &listen).await
}

/// Log lines go to standard error; `RUST_LOG` chooses them. The demo speaks for itself and shows only what is wrong.
fn start_logging(cli: &Cli) {
    let default = match cli.command {
        Command::Up(_) | Command::Reader(_) | Command::Sink(_) | Command::Console(_) => "info",
        _ => "error",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(format!(
            "warn,binlake={default},cdc_reader={default},sink_lake={default},change_log={default}"
        ))
    });
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(terminal)
        .with_writer(status_line::log_writer);
    match cli.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
