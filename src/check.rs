//! `binlake check`: looks at everything that has to be right before anything is started.

use std::{process::ExitCode, time::Duration};

use cdc_reader::mysql::preflight::{self, CheckReport};
use change_log::open_reader;
use clap::Args;
use serde::Serialize;
use sink_lake::ensure_lake_writable;

use crate::config::Config;

const LOG_TIMEOUT: Duration = Duration::from_secs(10);

/// Checks servers, change log and lake, and says what is missing with the SQL that cures it
#[derive(Args, Debug)]
#[command(after_help = "Example: binlake check --json")]
pub struct CheckArgs {
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Report {
    sources: Vec<CheckReport>,
    problems: Vec<String>,
}

/// Runs the command.
pub async fn run(config: &Config, args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    for source in &config.sources {
        match preflight::check(source).await {
            Ok(checked) => report.sources.push(checked),
            Err(error) => report.problems.push(error.to_string()),
        }
    }
    let log = config.log.clone();
    let opened = tokio::task::spawn_blocking(move || open_reader(&log, LOG_TIMEOUT).map(drop)).await?;
    report.problems.extend(opened.err().map(|error| error.to_string()));
    report.problems.extend(ensure_lake_writable(&config.lake).err().map(|error| error.to_string()));
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let missing = report.sources.iter().any(|source| !source.findings().is_empty());
    Ok(if missing || !report.problems.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(report: &Report) {
    for source in &report.sources {
        println!("source {}: MySQL {} at {}", source.source, source.version, source.place);
        for line in &source.settings {
            let mark = match (line.ok, line.required) {
                (true, _) => "ok     ",
                (false, true) => "MISSING",
                (false, false) => "note   ",
            };
            println!("  {mark} {} = {}", line.name, line.actual);
            if let Some(cure) = &line.cure {
                println!("          {cure}");
            }
        }
        for table in source.tables.iter().filter(|table| table.captured) {
            let key = if table.key.is_empty() { "no key".to_owned() } else { table.key.join(", ") };
            println!("  table   {} ({key}), about {} rows", table.name, table.rows_estimated);
            if let Some(note) = &table.note {
                println!("          {note}");
            }
        }
    }
    for problem in &report.problems {
        println!("MISSING {problem}");
    }
    if report.problems.is_empty() && report.sources.iter().all(|s| s.findings().is_empty()) {
        println!("everything is ready: `binlake up` starts reader, sink and page");
    }
}
