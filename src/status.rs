//! `binlake status`: where every source and table stands.

use clap::Args;
use console::status::{SourceStatus, Status, TableStatus};

use crate::{
    config::Config,
    gather::{Gatherer, Servers},
};

/// Shows where every source and table stands: positions, lag, snapshots, and what is stopped
#[derive(Args, Debug)]
#[command(after_help = "Example: binlake status --json | jq '.tables[] | select(.lag_seconds > 10)'")]
pub struct StatusArgs {
    /// Prints one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub async fn run(config: &Config, args: &StatusArgs) -> anyhow::Result<()> {
    let status = Gatherer::open(config, None).await?.take(Servers::Asked).await;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print(&status);
    }
    Ok(())
}

fn print(status: &Status) {
    for source in &status.sources {
        print_source(source);
    }
    println!(
        "\n{:<36} {:<8} {:>12} {:>6} {:>10} {:>9}  snapshot",
        "table", "mode", "rows", "files", "waiting", "lag"
    );
    for table in &status.tables {
        print_table(table);
    }
    for problem in &status.problems {
        println!("problem: {problem}");
    }
}

fn print_source(source: &SourceStatus) {
    println!("source {}", source.name);
    if !source.place.is_empty() {
        println!("  in the log up to   {} ({})", source.place, source.gtid_set);
    }
    if let (Some(place), Some(behind)) = (&source.server_place, source.transactions_behind) {
        let lag = source.lag_seconds.unwrap_or_default();
        println!("  server's binlog    {place}, {behind} transactions and {lag:.1} s ahead");
    }
    if let Some(problem) = &source.problem {
        println!("  problem            {problem}");
    }
}

fn print_table(table: &TableStatus) {
    let snapshot = match &table.snapshot {
        None => "-".to_owned(),
        Some(snapshot) if snapshot.done => "done".to_owned(),
        Some(snapshot) => format!("{:.0} % ({} rows)", snapshot.percent, snapshot.rows),
    };
    println!(
        "{:<36} {:<8} {:>12} {:>6} {:>10} {:>7.1} s  {snapshot}",
        table.name,
        if table.mode.is_empty() { "-" } else { &table.mode },
        table.rows.map_or("-".to_owned(), |rows| rows.to_string()),
        table.files.map_or("-".to_owned(), |files| files.to_string()),
        table.lag_records,
        table.lag_seconds,
    );
    if let Some(sentence) = &table.stopped {
        println!("  STOPPED: {sentence}");
    }
}
