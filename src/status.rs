//! `binlake status`: where every source and table stands.

use std::time::Duration;

use clap::Args;
use console::status::{SourceStatus, Status, TableStatus};

use crate::{
    config::Config,
    gather::{Gatherer, Servers},
    output::print_line,
};

const SECOND_LOOK_AFTER: Duration = Duration::from_secs(2);

/// Shows where every source and table stands: positions, lag, snapshots, and what is stopped
#[derive(Args, Debug)]
#[command(
    after_help = "Example: binlake status --json | jq '.tables[] | select(.lag_seconds > 10)'"
)]
pub struct StatusArgs {
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(config: &Config, args: &StatusArgs) -> anyhow::Result<()> {
    let status = take(config).await?;
    if args.json {
        print_line(serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(())
}

/// How things stand; with the snapshots' speed where one is under way.
pub async fn take(config: &Config) -> anyhow::Result<Status> {
    let mut gatherer = Gatherer::open(config, None).await?;
    let mut status = gatherer.take(Servers::Asked).await;
    let reading = |table: &TableStatus| table.snapshot.as_ref().is_some_and(|s| !s.done);
    if status.tables.iter().any(reading) {
        // The speed, and with it the time to go, shows between two looks.
        tokio::time::sleep(SECOND_LOOK_AFTER).await;
        status = gatherer.take(Servers::Asked).await;
    }
    Ok(status)
}

fn print(status: &Status) {
    for source in &status.sources {
        print_source(source);
    }
    print_line(format_args!(
        "\n{:<36} {:<8} {:>12} {:>6} {:>10} {:>9}  snapshot",
        "table", "mode", "rows", "files", "waiting", "lag"
    ));
    for table in &status.tables {
        print_table(table);
    }
    crate::exports::command::print(&status.exports);
    for problem in &status.problems {
        print_line(format_args!("problem: {problem}"));
    }
}

fn print_source(source: &SourceStatus) {
    print_line(format_args!("source {}", source.name));
    if !source.place.is_empty() {
        print_line(format_args!("  in the log up to   {} ({})", source.place, source.gtid_set));
    }
    if let (Some(place), Some(behind)) = (&source.server_place, source.transactions_behind) {
        let lag = source.lag_seconds.unwrap_or_default();
        print_line(format_args!(
            "  server's binlog    {place}, {behind} transactions and {lag:.1} s ahead"
        ));
    }
    if let Some(problem) = &source.problem {
        print_line(format_args!("  problem            {problem}"));
    }
}

fn print_table(table: &TableStatus) {
    let snapshot =
        table.snapshot.as_ref().map_or_else(|| "-".to_owned(), |snapshot| snapshot.sentence());
    print_line(format_args!(
        "{:<36} {:<8} {:>12} {:>6} {:>10} {:>7.1} s  {snapshot}",
        table.name,
        if table.mode.is_empty() { "-" } else { &table.mode },
        table.rows.map_or("-".to_owned(), |rows| rows.to_string()),
        table.files.map_or("-".to_owned(), |files| files.to_string()),
        table.lag_records,
        table.lag_seconds,
    ));
    if let Some(sentence) = &table.stopped {
        print_line(format_args!("  STOPPED: {sentence}"));
    }
}
