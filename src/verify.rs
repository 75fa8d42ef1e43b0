//! `binlake verify`: proves that the lake holds what MySQL holds, table by table, while both are in use.

mod caught_up;
mod compare;

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use cdc_reader::{
    mysql::{
        catalog,
        connect::{connect, place, server},
    },
    table_filter::TableFilter,
};
use clap::Args;
use schemas::table_id::TableId;
use serde::Serialize;
use sink_lake::{Mode, open_tables};

use self::{
    caught_up::CaughtUp,
    compare::{CompareError, Sides, compare},
};
use crate::config::Config;

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
    /// Rows in the lake; of a history table the keys.
    pub rows_lake: u64,
    /// Keys of a history table that MySQL no longer has.
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

/// The first difference of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How many rows differ.
    pub count: u64,
    /// The first of them.
    pub first: String,
}

impl Difference {
    fn doubled(count: u64) -> Self {
        Self { count, first: "rows are in the lake twice".into() }
    }

    fn missing(count: u64, first: String) -> Self {
        Self { count, first }
    }

    /// Names the key and the first column that differs.
    fn between(
        columns: &[String],
        key: &[String],
        source: Option<&Vec<Option<Vec<u8>>>>,
        lake: Option<&Vec<Option<Vec<u8>>>>,
    ) -> Self {
        let value_of = |row: &Vec<Option<Vec<u8>>>, name: &String| {
            columns.iter().position(|c| c == name).and_then(|at| row.get(at).cloned()).flatten()
        };
        let row = source.or(lake);
        let key_text: Vec<String> = key
            .iter()
            .map(|name| format!("{name} = {}", shown(row.and_then(|row| value_of(row, name)))))
            .collect();
        let what = match (source, lake) {
            (Some(source), Some(lake)) => columns
                .iter()
                .zip(source.iter().zip(lake))
                .find(|(_, (source, lake))| source != lake)
                .map_or_else(
                    || "differs".to_owned(),
                    |(name, (source, lake))| {
                        format!("{name}: {} in MySQL, {} in the lake", shown(source.clone()), shown(lake.clone()))
                    },
                ),
            (Some(_), None) => "is not in the lake".to_owned(),
            (None, _) => "is in the lake and not in MySQL".to_owned(),
        };
        Self { count: 1, first: format!("{}: {what}", key_text.join(", ")) }
    }
}

/// A value in a message: whoever runs `verify` may read the tables.
fn shown(value: Option<Vec<u8>>) -> String {
    const LENGTH_MAX: usize = 60;
    match value {
        None => "NULL".to_owned(),
        Some(bytes) => match String::from_utf8(bytes) {
            Ok(text) if text.chars().count() > LENGTH_MAX => {
                format!("'{}...'", text.chars().take(LENGTH_MAX).collect::<String>())
            }
            Ok(text) => format!("'{text}'"),
            Err(error) => format!("{} bytes", error.into_bytes().len()),
        },
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
    let timeout = Duration::from_secs(args.timeout);
    let quiet = args.json;
    let results = verify(config, &args.tables, timeout, |result| {
        if !quiet {
            println!("{}", line(result));
        }
    })
    .await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    }
    if results.is_empty() {
        anyhow::bail!("no table of these names is captured; `binlake check` lists them");
    }
    let equal = results.iter().filter(|result| result.is_equal()).count();
    if !args.json {
        println!("{equal} of {} tables are equal", results.len());
    }
    Ok(if equal == results.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One line for people.
pub fn line(result: &TableResult) -> String {
    let purged = match result.purged {
        0 => String::new(),
        purged => format!(", {purged} purged rows kept"),
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

/// Compares the captured tables (or only those of `names`), telling each result as it comes.
pub async fn verify(
    config: &Config,
    names: &[String],
    timeout: Duration,
    mut tell: impl FnMut(&TableResult),
) -> anyhow::Result<Vec<TableResult>> {
    let mut caught_up = CaughtUp::open(&config.log).await?;
    let lake_tables = open_tables(&config.lake).await?;
    let mut results = Vec::new();
    for source in &config.sources {
        let mut connection = connect(source).await?;
        let server = server(&mut connection, &place(source)).await?;
        let filter = TableFilter::new(&source.tables)?;
        let catalog = catalog::load(&mut connection, &server, &source.name, &filter).await?;
        let _ = connection.disconnect().await;
        let position = caught_up.position(&source.name).await?;
        let Some(position) = position else {
            anyhow::bail!("the reader of source {} has not run yet; start `binlake up`", source.name);
        };
        for table in &catalog.tables {
            let id = &table.schema.id;
            if !names.is_empty() && !names.contains(&id.to_string()) {
                continue;
            }
            let known = lake_tables.iter().find(|found| found.id == *id);
            let by_key = if table.schema.key.is_empty() { Mode::History } else { Mode::State };
            let mode = known
                .map(|found| found.mode)
                .or_else(|| sink_lake::mode_of(&config.tables, &id.to_string()))
                .unwrap_or(by_key);
            let result = match position.stopped.get(&table.name()) {
                Some(sentence) => TableResult {
                    outcome: Outcome::not_proved(format!("the table is stopped: {sentence}")),
                    ..TableResult::new(id, mode)
                },
                None => {
                    let deadline = Instant::now() + timeout;
                    let sides = Sides { source, lake: &config.lake, table: id, mode, deadline };
                    match compare(&sides, &mut caught_up).await {
                        Ok(result) => result,
                        Err(CompareError::Wait(error)) => TableResult {
                            outcome: Outcome::not_proved(error),
                            ..TableResult::new(id, mode)
                        },
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            tell(&result);
            results.push(result);
        }
    }
    Ok(results)
}
