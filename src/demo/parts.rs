//! Binlake at work inside the demo: reader and sink as `binlake up` runs them, and the two things that the demo asks
//! of them: to say when the lake has everything, and to prove it.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use console::status::Status;
use schemas::gtid_set::GtidSet;
use tokio::sync::Mutex;

use super::{DemoError, live_line::thousands};
use crate::{
    config::Config,
    running::{self, Running},
    verify::{Outcome, verify},
};

/// A lake that has been told everything needs a commit or two; a machine that does much else needs patience.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(300);

/// Running parts.
pub struct Parts {
    running: Mutex<Running>,
    address: SocketAddr,
    status: tokio::sync::watch::Receiver<Arc<Status>>,
}

impl Parts {
    /// Starts reader, sink and page.
    pub async fn start(config: &Config) -> Result<Parts, DemoError> {
        let running = Running::start(config, running::Parts::All, &config.console.listen)
            .await
            .map_err(part_failed)?;
        let (address, status) = (running.address(), running.watch_status());
        Ok(Parts { running: Mutex::new(running), address, status })
    }

    /// Where the page is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How things stand.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// Does `work` unless a part fails meanwhile.
    pub async fn unless_failed<T>(
        &self,
        work: impl Future<Output = Result<T, DemoError>>,
    ) -> Result<T, DemoError> {
        let mut running = self.running.lock().await;
        tokio::select! {
            result = work => result,
            error = running.failed() => Err(part_failed(error)),
        }
    }

    /// Returns when the lake has every transaction of `executed`.
    pub async fn caught_up(&self, executed: &GtidSet) -> Result<(), DemoError> {
        let mut status = self.status.clone();
        // The first status may have been gathered before the last transaction was.
        status.mark_unchanged();
        let stopped =
            |status: &Status| status.tables.iter().find_map(|table| table.stopped.clone());
        let has_all = status
            .wait_for(|status| has_everything(status, executed) || stopped(status).is_some())
            .await
            .map_err(|_| DemoError::Part("the status is no longer gathered".to_owned()))?;
        match stopped(&has_all) {
            Some(sentence) => Err(DemoError::Part(sentence)),
            None => Ok(()),
        }
    }

    /// Compares every table with MySQL, prints each result, and tells whether all are equal.
    pub async fn verify(&self, config: &Config) -> Result<bool, DemoError> {
        println!("Is the lake equal to MySQL?");
        let results = verify(config, &[], VERIFY_TIMEOUT, |result| {
            let kept = match result.purged {
                0 => String::new(),
                purged => format!(", {} that MySQL purged are kept", thousands(purged)),
            };
            let outcome = match &result.outcome {
                Outcome::Equal => format!("equal, {} rows{kept}", thousands(result.rows_source)),
                Outcome::Different(difference) => {
                    format!("DIFFERENT in {} rows; {}", difference.count, difference.first)
                }
                Outcome::NotProved { reason } => format!("NOT PROVED: {reason}"),
            };
            println!("  {:<28} {outcome}", result.table);
        })
        .await
        .map_err(part_failed)?;
        let equal = results.iter().filter(|result| result.is_equal()).count();
        println!("{equal} of {} tables are equal.", results.len());
        Ok(equal == results.len() && equal > 0)
    }

    /// Stops everything in order.
    pub async fn stop(self) {
        if let Err(error) = self.running.into_inner().stop().await {
            eprintln!("warning: {error:#}");
        }
    }
}

fn has_everything(status: &Status, executed: &GtidSet) -> bool {
    let consumed = |source: &console::status::SourceStatus| {
        source.gtid_set.parse::<GtidSet>().is_ok_and(|set| set.contains_set(executed))
    };
    let in_lake = |table: &console::status::TableStatus| {
        let snapshot_done = table.snapshot.as_ref().is_some_and(|snapshot| snapshot.done);
        snapshot_done && table.lag_records == 0 && table.version.is_some()
    };
    !status.tables.is_empty()
        && status.sources.iter().all(consumed)
        && status.tables.iter().all(in_lake)
}

fn part_failed(error: anyhow::Error) -> DemoError {
    DemoError::Part(format!("{error:#}"))
}
