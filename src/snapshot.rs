//! `binlake snapshot`: commands to a running reader about its tables' snapshots. They go through the change log, so that
//! they reach it wherever it runs, and also when it does not run at the moment.

mod named_tables;

use std::time::{Duration, Instant};

use anyhow::{anyhow, bail};
use cdc_reader::{
    SourceConfig,
    signals::{self, Signal, SignalAction},
};
use change_log::{LogConfig, open_reader};
use clap::{Args, Subcommand};
use console::status::{SnapshotStatus, TableStatus};
use schemas::position::Position;

use crate::{config::Config, gather::now_ms, log_view, output::print_line, status};

const LOG_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a running reader may take to obey. It looks once a second, and first ends the transaction it is in.
const TAKEN_TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(200);

/// Reads tables again, puts snapshots off, ends them, and shows how far they are
#[derive(Args, Debug)]
#[command(after_help = "Example: binlake snapshot add market.orders --where 'id > 1000' --wait")]
pub struct SnapshotArgs {
    #[command(subcommand)]
    command: SnapshotCommand,
}

#[derive(Subcommand, Debug)]
enum SnapshotCommand {
    /// Reads the rows of tables (again), beside the stream
    #[command(after_help = "Example: binlake snapshot add market.orders --replace --wait")]
    Add(AddArgs),
    /// Puts snapshots off until `resume`, also over restarts
    #[command(after_help = "Example: binlake snapshot pause 'market.*'")]
    Pause(TableArgs),
    /// Goes on with snapshots that were paused
    #[command(after_help = "Example: binlake snapshot resume 'market.*'")]
    Resume(TableArgs),
    /// Ends snapshots where they are: the tables are streamed, rows that were not read stay out
    #[command(after_help = "Example: binlake snapshot stop market.page_events")]
    Stop(TableArgs),
    /// Shows how far snapshots are
    #[command(after_help = "Example: binlake snapshot status --json")]
    Status(StatusArgs),
}

#[derive(Args, Debug)]
struct TableArgs {
    /// `database.table`, or a pattern with * and ?
    #[arg(required = true, value_name = "TABLE")]
    tables: Vec<String>,
    /// Of which source; may be left out when there is only one
    #[arg(long)]
    source: Option<String>,
}

#[derive(Args, Debug)]
struct AddArgs {
    #[command(flatten)]
    target: TableArgs,
    /// Only rows for which this SQL condition is true
    #[arg(long = "where", value_name = "SQL", conflicts_with = "replace")]
    filter: Option<String>,
    /// Empties the lake's copies first, so that rows that are gone from the source go too
    #[arg(long)]
    replace: bool,
    /// Waits until all rows are in the change log
    #[arg(long)]
    wait: bool,
}

#[derive(Args, Debug)]
struct StatusArgs {
    /// Only these tables: `database.table`, or patterns with * and ?
    #[arg(value_name = "TABLE")]
    tables: Vec<String>,
    /// Only this source
    #[arg(long)]
    source: Option<String>,
    /// Prints one JSON array
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(config: &Config, args: &SnapshotArgs) -> anyhow::Result<()> {
    let (action, target) = match &args.command {
        SnapshotCommand::Add(args) => return add(config, args).await,
        SnapshotCommand::Status(args) => return show(config, args).await,
        SnapshotCommand::Pause(target) => (SignalAction::Pause, target),
        SnapshotCommand::Resume(target) => (SignalAction::Resume, target),
        SnapshotCommand::Stop(target) => (SignalAction::Stop, target),
    };
    let source = source_of(config, target.source.as_deref())?;
    let Some(position) = position(&config.log, &source.name).await? else {
        bail!("the reader of {} has not run yet, so no snapshot is under way", source.name);
    };
    let tables = named_tables::under_way(&position, &target.tables)?;
    let signal = new_signal(action, tables);
    refuse(&position, &signal)?;
    if let Some(position) = sent_and_taken(config, source, &signal, TAKEN_TIMEOUT).await? {
        for table in &signal.tables {
            let state = position.snapshots.get(table).map(|progress| progress.state());
            print_line(format_args!("{table}: {}", state.unwrap_or_default()));
        }
    }
    Ok(())
}

async fn add(config: &Config, args: &AddArgs) -> anyhow::Result<()> {
    let source = source_of(config, args.target.source.as_deref())?;
    let position = position(&config.log, &source.name).await?.unwrap_or_default();
    let filter = args.filter.as_deref();
    let tables = named_tables::captured(source, &args.target.tables, filter).await?;
    let signal = Signal {
        filter: args.filter.clone(),
        replace: args.replace,
        ..new_signal(SignalAction::Add, tables)
    };
    refuse(&position, &signal)?;
    let timeout = if args.wait { Duration::MAX } else { TAKEN_TIMEOUT };
    let Some(mut position) = sent_and_taken(config, source, &signal, timeout).await? else {
        return Ok(());
    };
    for table in &signal.tables {
        print_line(match position.snapshots.get(table) {
            Some(progress) if progress.done => format!("{table}: captured again from here on"),
            _ => format!("{table}: its rows are being read"),
        });
    }
    if !args.wait {
        return Ok(());
    }
    loop {
        let mut left = Vec::new();
        for table in &signal.tables {
            if let Some(sentence) = position.stopped.get(table) {
                bail!("{table} is stopped: {sentence}");
            }
            if !position.snapshots.get(table).is_some_and(|progress| progress.done) {
                left.push(table);
            }
        }
        if left.is_empty() {
            print_line("all rows are in the change log");
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
        position = self::position(&config.log, &source.name).await?.unwrap_or_default();
    }
}

fn new_signal(action: SignalAction, tables: Vec<String>) -> Signal {
    let id = format!("{:016x}", fastrand::u64(..));
    Signal { id, at_ms: now_ms(), action, tables, filter: None, replace: false }
}

fn refuse(position: &Position, signal: &Signal) -> anyhow::Result<()> {
    let found = signal.tables.iter().find_map(|t| signals::refusal(position, signal, t));
    found.map_or(Ok(()), |reason| Err(anyhow!(reason)))
}

fn source_of<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<&'a SourceConfig> {
    let names = || config.source_names().join(", ");
    match (name, config.sources.as_slice()) {
        (None, [source]) => Ok(source),
        (None, _) => bail!("there are several sources: name one with --source ({})", names()),
        (Some(name), sources) => sources
            .iter()
            .find(|source| source.name == name)
            .ok_or_else(|| anyhow!("there is no source {name}; there is {}", names())),
    }
}

async fn position(log: &LogConfig, source: &str) -> anyhow::Result<Option<Position>> {
    let (log, source) = (log.clone(), source.to_owned());
    let look = move || {
        let mut reader = open_reader(&log, LOG_TIMEOUT)?;
        log_view::position(reader.as_mut(), &source)
    };
    Ok(tokio::task::spawn_blocking(look).await??)
}

/// Sends a signal and waits for the reader to obey; answers the position in which it did. `None`, and a sentence, when
/// it does not within `timeout`.
async fn sent_and_taken(
    config: &Config,
    source: &SourceConfig,
    signal: &Signal,
    timeout: Duration,
) -> anyhow::Result<Option<Position>> {
    let (log, name, sent) = (config.log.clone(), source.name.clone(), signal.clone());
    let offset = tokio::task::spawn_blocking(move || signals::send(&log, &name, &sent)).await??;
    let started = Instant::now();
    loop {
        let position = position(&config.log, &source.name).await?.unwrap_or_default();
        if let Some(refused) = position.signals_refused.iter().find(|r| r.id == signal.id) {
            bail!("{}", refused.reason);
        }
        if position.signals_read.is_some_and(|read| read > offset) {
            return Ok(Some(position));
        }
        if started.elapsed() >= timeout {
            print_line(format_args!(
                "sent, but no reader of {} has taken it within {} s; it is done when one runs",
                source.name,
                timeout.as_secs()
            ));
            return Ok(None);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn show(config: &Config, args: &StatusArgs) -> anyhow::Result<()> {
    let source = args.source.as_deref().map(|name| source_of(config, Some(name))).transpose()?;
    let wanted = named_tables::patterns(&args.tables)?;
    let status = status::take(config).await?;
    let shown: Vec<&TableStatus> = status
        .tables
        .iter()
        .filter(|table| table.snapshot.is_some())
        .filter(|table| {
            let Some((of, name)) = table.name.split_once('.') else { return false };
            source.is_none_or(|source| source.name == of) && wanted.contain(name)
        })
        .collect();
    if let Some(problem) = status.problems.first() {
        bail!("{problem}");
    }
    if shown.is_empty() && !args.tables.is_empty() {
        bail!("the reader knows no table that matches {}", args.tables.join(" or "));
    }
    if args.json {
        #[derive(serde::Serialize)]
        struct Shown<'a> {
            table: &'a str,
            #[serde(flatten)]
            snapshot: Option<&'a SnapshotStatus>,
            stopped: Option<&'a String>,
        }
        let shown = shown.into_iter().map(|table| Shown {
            table: &table.name,
            snapshot: table.snapshot.as_ref(),
            stopped: table.stopped.as_ref(),
        });
        print_line(serde_json::to_string_pretty(&shown.collect::<Vec<_>>())?);
        return Ok(());
    }
    print_line(format_args!(
        "{:<36} {:<8} {:>12} {:>12} {:>6} {:>8} {:>9} {:>7}",
        "table", "state", "rows", "estimated", "done", "MB/s", "to go", "chunks"
    ));
    shown.into_iter().for_each(print_table);
    Ok(())
}

fn print_table(table: &TableStatus) {
    let Some(snapshot) = &table.snapshot else { return };
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    print_line(format_args!(
        "{:<36} {:<8} {:>12} {:>12} {:>4.0} % {:>8} {:>9} {:>7}",
        table.name,
        snapshot.state.name(),
        snapshot.rows,
        snapshot.rows_estimated,
        snapshot.percent,
        or_none(snapshot.bytes_per_second.map(|rate| format!("{:.1}", rate / 1e6))),
        or_none(snapshot.eta_seconds.map(|seconds| format!("{seconds:.0} s"))),
        snapshot.chunks_in_flight,
    ));
    if let Some(filter) = &snapshot.filter {
        print_line(format_args!("  only rows where {filter}"));
    }
    if let Some(reason) = &snapshot.reason {
        print_line(format_args!("  {} {reason}", snapshot.state));
    }
    if let Some(sentence) = &table.stopped {
        print_line(format_args!("  TABLE STOPPED: {sentence}"));
    }
}
