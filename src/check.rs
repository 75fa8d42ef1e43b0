//! `binlake check`: looks at everything that has to be right before anything is started.

use std::{process::ExitCode, time::Duration};

use cdc_reader::mysql::{
    preflight::{self, CheckReport},
    privileges::Privileges,
};
use change_log::{LogConfig, open_reader};
use clap::Args;
use serde::Serialize;
use sink_lake::{ensure_lake_writable, error::with_causes};

use crate::{config::Config, output::print_line};

const LOG_TIMEOUT: Duration = Duration::from_secs(10);
/// Tables that are granted one by one may be many; `--json` has all.
const GRANTS_MAX: usize = 20;

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
    /// What is right besides the sources.
    usable: Vec<String>,
    problems: Vec<String>,
}

impl Report {
    fn note(&mut self, what: String, problem: Option<String>) {
        match problem {
            None => self.usable.push(what),
            Some(problem) => self.problems.push(problem),
        }
    }
}

/// The brokers or the folder.
fn log_place(config: &LogConfig) -> String {
    match config {
        LogConfig::Embedded { path, .. } => path.display().to_string(),
        LogConfig::Kafka(kafka) => kafka.bootstrap_servers.clone(),
    }
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
    let opened =
        tokio::task::spawn_blocking(move || open_reader(&log, LOG_TIMEOUT).map(drop)).await?;
    report.note(
        format!("change log {}", log_place(&config.log)),
        opened.err().map(|e| with_causes(&e)),
    );
    let lake = ensure_lake_writable(&config.lake);
    report.note(format!("lake {}", config.lake.url), lake.err().map(|e| with_causes(&e)));
    if args.json {
        print_line(serde_json::to_string_pretty(&report)?);
    } else {
        print(&report);
    }
    let missing = report.sources.iter().any(|source| !source.findings().is_empty());
    Ok(if missing || !report.problems.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn print(report: &Report) {
    for source in &report.sources {
        print_line(format_args!(
            "source {}: MySQL {} at {}",
            source.source, source.version, source.place
        ));
        for line in &source.settings {
            let mark = match (line.ok, line.required) {
                (true, _) => "ok     ",
                (false, true) => "MISSING",
                (false, false) => "note   ",
            };
            print_line(format_args!("  {mark} {} = {}", line.name, line.actual));
            if let Some(cure) = &line.cure {
                print_line(format_args!("          {cure}"));
            }
        }
        for table in source.tables.iter().filter(|table| table.captured) {
            let key = if table.key.is_empty() { "no key".to_owned() } else { table.key.join(", ") };
            print_line(format_args!(
                "  table   {} ({key}), about {} rows",
                table.name, table.rows_estimated
            ));
            if let Some(note) = &table.note {
                print_line(format_args!("          {note}"));
            }
        }
        source.privileges.iter().for_each(print_privileges);
    }
    report.usable.iter().for_each(|what| print_line(format_args!("ok        {what}")));
    report.problems.iter().for_each(|problem| print_line(format_args!("MISSING   {problem}")));
    if report.problems.is_empty() && report.sources.iter().all(|s| s.findings().is_empty()) {
        print_line("everything is ready: `binlake up` starts reader, sink and page");
    }
}

fn print_privileges(privileges: &Privileges) {
    print_line(format_args!("  the user needs these privileges, and no others:"));
    for grant in privileges.least.iter().take(GRANTS_MAX) {
        print_line(format_args!("          {grant};"));
    }
    match privileges.least.len().saturating_sub(GRANTS_MAX) {
        0 => {}
        more => print_line(format_args!("          and {more} more: binlake check --json")),
    }
    for note in &privileges.more_than_needed {
        print_line(format_args!("  note    {note}"));
    }
}
