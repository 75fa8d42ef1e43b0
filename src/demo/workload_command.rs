//! `binlake demo-workload`: the demo's business alone, on a server that is already there. Hidden: it is for the tests
//! and the benchmark, which measure and disturb Binlake's parts as separate programs.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};

use super::workload::{Workload, WorkloadError, WorkloadOptions};

/// Writes Udon Market's business into a MySQL server.
#[derive(Args, Debug)]
pub struct WorkloadArgs {
    /// The server, as `mysql://user[:password]@host:port`
    #[arg(long, value_name = "URL")]
    mysql_url: String,
    /// Orders in all; half of them are written by the phase `prepare`
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(2..))]
    orders: u64,
    /// The same seed and number of orders write the same rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Connections to write over
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Spreads the phase `run` over at least this many seconds
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// What to write
    #[arg(long, value_enum)]
    phase: Phase,
    /// The first order's number, for the phase `fill`
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    first: u64,
}

/// Parts of the business.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Phase {
    /// The databases, and what happened before Binlake was started
    Prepare,
    /// What happens while it runs
    Run,
    /// A trickle that only ends with the program
    GoOn,
    /// Nothing but rows of market.orders, as fast as possible
    Fill,
}

/// Writes one phase and prints what it did.
pub async fn run(args: WorkloadArgs) -> ExitCode {
    match write(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn write(args: &WorkloadArgs) -> Result<(), WorkloadError> {
    let options = WorkloadOptions {
        seed: args.seed,
        orders: args.orders,
        connections: args.connections.into(),
        spread: Duration::from_secs(args.seconds),
    };
    let workload = Workload::new(&args.mysql_url, options)?;
    match args.phase {
        Phase::Prepare => workload.prepare().await?,
        Phase::Run => workload.run().await?,
        Phase::GoOn => workload.go_on().await?,
        Phase::Fill => workload.fill_orders(args.first).await?,
    }
    let written = workload.progress.snapshot();
    println!(
        "{} rows in {} transactions, {} of them started again after a deadlock",
        written.rows, written.transactions, written.retries
    );
    Ok(())
}
