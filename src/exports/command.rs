//! `binlake export`: runs an export now, or shows all.

use std::process::ExitCode;

use anyhow::Context;
use chrono::DateTime;
use clap::{Args, Subcommand};
use console::status::ExportStatus;
use tokio_util::sync::CancellationToken;

use super::{
    look,
    run::{self, Ended},
};
use crate::{config::Config, output::print_line};

/// Runs an export of the configuration now, or shows where all of them stand
#[derive(Args, Debug)]
#[command(after_help = "Example: binlake export run prices")]
pub struct ExportArgs {
    #[command(subcommand)]
    command: ExportCommand,
}

#[derive(Subcommand, Debug)]
enum ExportCommand {
    /// Runs an export now, whatever its schedule says
    Run {
        /// Its name in the configuration
        name: String,
    },
    /// Shows each export's last run, the next one, and what went wrong
    List {
        /// Prints one JSON array
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
pub async fn run(config: &Config, args: &ExportArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        ExportCommand::Run { name } => run_now(config, name).await,
        ExportCommand::List { json } => {
            let exports = look::all(config)?;
            match json {
                true => print_line(serde_json::to_string_pretty(&exports)?),
                false if exports.is_empty() => print_line("there is no [[export]]"),
                false => print(&exports),
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn run_now(config: &Config, name: &str) -> anyhow::Result<ExitCode> {
    let names: Vec<&str> = config.exports.iter().map(|export| export.name.as_str()).collect();
    let export = config.exports.iter().find(|export| export.name == name).with_context(|| {
        match names.is_empty() {
            true => format!("there is no export {name}: the configuration has no [[export]]"),
            false => format!("there is no export {name}; there are {}", names.join(", ")),
        }
    })?;
    let stop = CancellationToken::new();
    let failures = look::all(config)?.iter().find(|e| e.name == name).map_or(0, |e| e.failures);
    let running = run::run(config, export, failures, &stop);
    tokio::pin!(running);
    let mut signals = crate::signals::Signals::new()?;
    let ended = tokio::select! {
        ended = &mut running => ended,
        () = signals.next() => {
            stop.cancel();
            running.await
        }
    };
    match ended {
        Ended::Done(done) => {
            let table = export.lake_table();
            print_line(format_args!(
                "{} rows of {} are in {table} (version {}, {:.1} s)",
                done.rows, export.table, done.version, done.seconds
            ));
            if done.zero_dates > 0 {
                print_line(format_args!("{} zero dates became NULL", done.zero_dates));
            }
            Ok(ExitCode::SUCCESS)
        }
        Ended::Busy => anyhow::bail!("a run of export {name} is under way; wait for its end"),
        Ended::Stopped => anyhow::bail!("export {name} was stopped; the lake is as it was"),
        Ended::Failed(reason) => anyhow::bail!("export {name}: {reason}; the lake is as it was"),
    }
}

/// Prints the exports as a table; nothing without one.
pub fn print(exports: &[ExportStatus]) {
    if exports.is_empty() {
        return;
    }
    print_line(format_args!(
        "\n{:<36} {:<22} {:>12} {:>9} {:<20}  next run",
        "export", "schedule", "rows", "seconds", "last run"
    ));
    for export in exports {
        let next = match (export.running, export.next_ms) {
            (true, _) => "running now".to_owned(),
            (false, None) => "-".to_owned(),
            (false, Some(0)) => "as soon as a sink runs".to_owned(),
            (false, Some(ms)) => instant(ms),
        };
        print_line(format_args!(
            "{:<36} {:<22} {:>12} {:>9} {:<20}  {next}",
            export.table,
            export.schedule,
            export.rows.map_or("-".to_owned(), |rows| rows.to_string()),
            export.seconds.map_or("-".to_owned(), |seconds| format!("{seconds:.1}")),
            export.last_ms.map_or("-".to_owned(), instant),
        ));
        if let Some(error) = &export.error {
            print_line(format_args!("  FAILED {} times: {error}", export.failures));
        }
    }
}

fn instant(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms);
    time.map_or("-".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%SZ").to_string())
}
