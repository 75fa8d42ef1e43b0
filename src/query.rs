//! `binlake query`: SQL over the lake's tables.

use std::{
    fs::File,
    io::{BufWriter, Write, stdout},
    path::PathBuf,
};

use anyhow::Context;
use clap::{Args, ValueEnum};
use console::{LakeSql, download};

use crate::config::Config;

/// Runs one SELECT over the lake's tables, which are named `source.database.table`
#[derive(Args, Debug)]
#[command(
    after_help = "Example: binlake query \"SELECT status, count(*) FROM udon.market.orders GROUP BY status\" --format csv"
)]
pub struct QueryArgs {
    /// The statement
    sql: String,
    /// The form of the result
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Writes into FILE instead of to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
    Parquet,
}

/// Runs the command.
pub async fn run(config: &Config, args: &QueryArgs) -> anyhow::Result<()> {
    let format = match args.format {
        Format::Table => download::Format::Table,
        Format::Csv => download::Format::Csv,
        Format::Json => download::Format::Json,
        Format::Parquet => download::Format::Parquet,
    };
    let lake = LakeSql::open(&config.lake.url)?;
    let stream = lake.query(&args.sql).await?;
    let written = match &args.output {
        None => download::write(stream, format, stdout()).await?,
        Some(path) => {
            let file = File::create(path)
                .with_context(|| format!("cannot write {}; name another file", path.display()))?;
            let mut out = BufWriter::new(file);
            let written = download::write(stream, format, &mut out).await?;
            out.flush().with_context(|| format!("cannot write {}", path.display()))?;
            written
        }
    };
    if written.cut {
        eprintln!("only the first {} rows are shown; --format csv writes all", written.rows);
    }
    Ok(())
}
