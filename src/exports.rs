//! Scheduled exports: chosen tables, columns and rows of a source into lake tables of their own, beside the stream.
//!
//! The way of a run: `cdc_reader::export` (rows) -> a channel of one piece -> a thread with `sink_lake::export` (files)
//! -> one commit. A lock on a file keeps a run alone with its table, in this process and in others; the system gives
//! it back when a process is killed, and the next run removes the files that were left.

pub mod command;
pub mod look;
mod run;
pub mod schedule;

use std::{sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use self::{
    look::Place,
    run::{Ended, run},
    schedule::Schedule,
};
use crate::{
    config::{Config, export::ExportConfig},
    gather::now_ms,
};

/// Exports that run at the same time: each takes a connection, a core and some 100 MB.
const RUNNING_MAX: usize = 2;
const RETRY_MIN: Duration = Duration::from_secs(5);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// How often a waiting export looks whether somebody has run it by hand, and at the clock, which may be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(15);

/// Runs the exports when they are due, until the token is cancelled. None of them ends the process.
pub async fn keep(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let running = Arc::new(Semaphore::new(RUNNING_MAX));
    let config = Arc::new(config);
    let mut tasks = JoinSet::new();
    for export in config.exports.clone() {
        let (config, running, stop) = (config.clone(), running.clone(), stop.clone());
        tasks.spawn(async move {
            let place = Place::of(&config, &export)?;
            // What a killed run left must not wait for the next one.
            if let Ok(Some(_lock)) = place.lock() {
                let _ = sink_lake::export::clean(&place.folder, export.keep).await;
            }
            if let Some(schedule) = export.schedule() {
                keep_one(&config, &export, schedule, &running, &stop).await;
            }
            anyhow::Ok(())
        });
    }
    stop.cancelled().await;
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended.map_err(anyhow::Error::from).flatten() {
            error!(error = %format!("{error:#}"), "an export ended unexpectedly");
        }
    }
    Ok(())
}

async fn keep_one(
    config: &Config,
    export: &ExportConfig,
    schedule: Schedule,
    running: &Semaphore,
    stop: &CancellationToken,
) {
    let mut failures = 0;
    let mut not_before_ms = 0;
    while !stop.is_cancelled() {
        let now = now_ms();
        let due = look::last_run(config, export).await.map(|last| schedule.next_ms(last));
        let due = due.unwrap_or(0).max(not_before_ms);
        if due > now {
            let left = Duration::from_millis(due.abs_diff(now)).min(LOOK_INTERVAL);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(left) => continue,
            }
        }
        let permit = tokio::select! {
            () = stop.cancelled() => return,
            permit = running.acquire() => permit,
        };
        let ended = run(config, export, failures, stop).await;
        drop(permit);
        match ended {
            Ended::Done(done) => {
                failures = 0;
                info!(
                    export = export.name,
                    rows = done.rows,
                    seconds = done.seconds,
                    version = done.version,
                    "exported"
                );
            }
            Ended::Busy => not_before_ms = now_ms() + RETRY_MIN.as_millis() as i64,
            Ended::Stopped => return,
            Ended::Failed(reason) => {
                failures += 1;
                not_before_ms = now_ms() + pause_after(failures).as_millis() as i64;
                error!(export = export.name, reason, failures, "export failed, trying again later");
            }
        }
    }
}

/// How long is waited after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    RETRY_MIN.saturating_mul(doubled).min(RETRY_MAX)
}
