//! `binlake verify`: proves that the lake holds what MySQL holds, table by table, while both are in use.

mod caught_up;
mod compare;
mod compare_keyless;
mod difference;
mod lake_key;
mod recheck;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use cdc_reader::{
    SourceConfig,
    mysql::{
        CatalogTable, catalog,
        connect::{connect, place, server},
    },
    table_filter::TableFilter,
};
use clap::Args;
use indicatif::ProgressBar;
use schemas::{position::TableSnapshot, snapshot_state::SnapshotState, table_id::TableId};
use serde::Serialize;
use sink_lake::{LakeTable, Mode, open_tables};

use self::{
    caught_up::CaughtUp,
    compare::{CompareError, Sides, compare},
    compare_keyless::compare_keyless,
    difference::Difference,
};
use crate::{config::Config, output::print_line};

/// Proves that the lake equals MySQL, table by table
#[derive(Args, Debug)]
#[command(after_help = "Example: binlake verify udon.market.orders --timeout 300")]
pub struct VerifyArgs {
    /// Only these tables (`source.database.table`)
    tables: Vec<String>,
    /// Seconds after which a table that still moves is given up
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Prints one JSON array
    #[arg(long)]
    json: bool,
}

/// One table's result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableResult {
    /// `source.database.table`.
    pub table: String,
    /// `state` or `history`.
    pub mode: &'static str,
    /// Rows in MySQL when it was walked.
    pub rows_source: u64,
    /// Rows in the lake; of a history table with a key, the keys.
    pub rows_lake: u64,
    /// Of a history table: what the lake keeps and MySQL no longer has.
    pub purged: u64,
    /// What was found.
    pub outcome: Outcome,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    /// Every row is the same.
    Equal,
    /// Rows are missing, stale, doubled or have other values.
    Different(Difference),
    /// It could not be told.
    NotProved {
        /// Why, and what to do.
        reason: String,
    },
}

impl Outcome {
    fn not_proved(reason: impl ToString) -> Self {
        Self::NotProved { reason: reason.to_string() }
    }
}

impl TableResult {
    fn new(table: &TableId, mode: Mode) -> Self {
        Self {
            table: table.to_string(),
            mode: mode.name(),
            rows_source: 0,
            rows_lake: 0,
            purged: 0,
            outcome: Outcome::Equal,
        }
    }

    /// Whether the table was proved equal.
    pub fn is_equal(&self) -> bool {
        self.outcome == Outcome::Equal
    }
}

/// Runs the command.
pub async fn run(config: &Config, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let bar = ProgressBar::new_spinner();
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.set_message("comparing");
    let results = verify(config, &args.tables, Duration::from_secs(args.timeout), |result| {
        if !args.json {
            bar.suspend(|| print_line(line(result)));
        }
    });
    let results = results.await;
    bar.finish_and_clear();
    let results = results?;
    let equal = results.iter().filter(|result| result.is_equal()).count();
    if args.json {
        print_line(serde_json::to_string_pretty(&results)?);
    } else {
        print_line(format_args!("{equal} of {} tables are equal", results.len()));
    }
    Ok(if equal == results.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line for people.
pub fn line(result: &TableResult) -> String {
    let purged = match result.purged {
        0 => String::new(),
        purged => format!(", {purged} rows kept that MySQL no longer has"),
    };
    let outcome = match &result.outcome {
        Outcome::Equal => "equal".to_owned(),
        Outcome::Different(difference) => {
            format!("DIFFERENT in {} rows; {}", difference.count, difference.first)
        }
        Outcome::NotProved { reason } => format!("NOT PROVED: {reason}"),
    };
    format!(
        "{:<32} {:<8} {:>10} rows in MySQL, {:>10} in the lake: {outcome}{purged}",
        result.table, result.mode, result.rows_source, result.rows_lake
    )
}

/// Compares the captured tables (or only those of `names`), telling each result as it comes. A table is given up
/// after `timeout`; so is a source whose reader has not begun by then. There is always a result.
pub async fn verify(
    config: &Config,
    names: &[String],
    timeout: Duration,
    mut tell: impl FnMut(&TableResult),
) -> anyhow::Result<Vec<TableResult>> {
    let mut caught_up = CaughtUp::open(&config.log).await?;
    let mut sources = Vec::new();
    for source in &config.sources {
        sources.push((source, captured(source).await?));
    }
    let wanted = |id: &TableId| names.is_empty() || names.contains(&id.to_string());
    let all: Vec<String> = sources
        .iter()
        .flat_map(|(_, tables)| tables.iter().map(|table| table.schema.id.to_string()))
        .collect();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        anyhow::bail!("no table {unknown} is captured; `binlake check` lists those that are");
    }
    if all.is_empty() {
        anyhow::bail!("no table is captured; `binlake check` tells more");
    }
    let mut results = Vec::new();
    for (source, tables) in sources {
        let position = caught_up.first_position(&source.name, Instant::now() + timeout).await?;
        let lake = open_tables(&config.lake).await?;
        for table in tables.iter().filter(|table| wanted(&table.schema.id)) {
            let id = &table.schema.id;
            let mode = mode_of(config, &lake, table);
            let progress = position.snapshots.get(&table.name());
            let sides = Sides {
                source,
                lake: &config.lake,
                table: id,
                mode,
                deadline: Instant::now() + timeout,
            };
            let not_proved = |reason: String| TableResult {
                outcome: Outcome::not_proved(reason),
                ..TableResult::new(id, mode)
            };
            let state = progress.map(TableSnapshot::state).unwrap_or_default();
            let compared = match position.stopped.get(&table.name()) {
                Some(sentence) => Ok(not_proved(format!("the table is stopped: {sentence}"))),
                None if state == SnapshotState::Paused => Ok(not_proved(
                    "its snapshot is paused; `binlake snapshot resume` goes on".into(),
                )),
                None if state == SnapshotState::Stopped => Ok(not_proved(format!(
                    "the lake lacks rows of it: its snapshot was ended early or left out, or changes were missed; \
                     `binlake snapshot add {}` reads it",
                    table.name()
                ))),
                None if table.schema.key.is_empty() => {
                    compare_keyless(&sides, &mut caught_up).await
                }
                None => compare(&sides, &mut caught_up).await,
            };
            let result = match compared {
                Err(CompareError::Wait(error)) => not_proved(error.to_string()),
                other => other?,
            };
            tell(&result);
            results.push(result);
        }
    }
    Ok(results)
}

/// The tables of a source that are captured, as the server has them now.
async fn captured(source: &SourceConfig) -> Result<Vec<CatalogTable>, anyhow::Error> {
    let mut connection = connect(source).await?;
    let server = server(&mut connection, &place(source)).await?;
    let filter = TableFilter::new(&source.tables)?;
    let catalog = catalog::load(&mut connection, &server, &source.name, &filter).await?;
    let _ = connection.disconnect().await;
    Ok(catalog.tables)
}

/// How the lake keeps the table, or would keep it.
fn mode_of(config: &Config, lake: &[LakeTable], table: &CatalogTable) -> Mode {
    let id = &table.schema.id;
    if let Some(kept) = lake.iter().find(|kept| kept.id == *id) {
        return kept.mode;
    }
    match table.schema.key.is_empty() {
        true => Mode::History,
        false => sink_lake::mode_of(&config.tables, &id.to_string()).unwrap_or(Mode::State),
    }
}
