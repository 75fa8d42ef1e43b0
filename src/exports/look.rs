//! Where an export's files are, what is noted about its runs, and its status from both. The notes only serve the
//! status: when an export is due is told by its table.

use std::{
    fs::{self, File, TryLockError},
    path::PathBuf,
};

use anyhow::Context;
use console::status::ExportStatus;
use serde::{Deserialize, Serialize};
use sink_lake::export;

use crate::config::{Config, export::ExportConfig};

/// The folder in the lake for locks and notes; beside the tables, as `_dead_letters` is.
const FOLDER: &str = "_exports";

/// An export's files.
pub struct Place {
    /// Its table's.
    pub folder: PathBuf,
    state: PathBuf,
    lock: PathBuf,
}

/// What is noted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// The last run that came to its end.
    pub last: Option<LastRun>,
    /// Those after it.
    pub failed: Option<Failed>,
}

/// A run that came to its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LastRun {
    /// When it began, in milliseconds since 1970.
    pub began_ms: i64,
    /// How long it took.
    pub seconds: f64,
    /// Its rows.
    pub rows: u64,
    /// The Delta version that it made.
    pub version: u64,
    /// Zero or partly zero dates that became NULL.
    pub zero_dates: u64,
    /// Texts with bytes that mean nothing in their character set.
    pub invalid_texts: u64,
}

/// Runs that failed, one after the other.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failed {
    /// How many.
    pub times: u32,
    /// When a scheduled export is tried again, in milliseconds since 1970.
    pub retry_ms: i64,
    /// Why the last one failed.
    pub reason: String,
}

impl Place {
    /// The files of an export.
    pub fn of(config: &Config, export: &ExportConfig) -> anyhow::Result<Self> {
        let lake = config.lake.folder()?;
        let table = export.lake_table();
        let file = |ending: &str| lake.join(FOLDER).join(format!("{}.{ending}", export.name));
        Ok(Self { folder: export::folder(&lake, &table), state: file("json"), lock: file("lock") })
    }

    /// Makes the export ours until the file is dropped; `None` when it is somebody else's.
    pub fn lock(&self) -> anyhow::Result<Option<File>> {
        let place = || format!("cannot lock {}", self.lock.display());
        if let Some(folder) = self.lock.parent() {
            fs::create_dir_all(folder).with_context(place)?;
        }
        let file = File::options().create(true).append(true).open(&self.lock);
        let file = file.with_context(place)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(place),
        }
    }

    /// Whether a run is under way.
    fn is_locked(&self) -> bool {
        // Shared, so that two that look do not take each other for a run.
        File::open(&self.lock)
            .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// What is noted; nothing when that cannot be read.
    pub fn state(&self) -> State {
        let text = fs::read(&self.state).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Notes.
    pub fn write_state(&self, state: &State) -> anyhow::Result<()> {
        let place = || format!("cannot write {}", self.state.display());
        let draft = self.state.with_extension("json.new");
        fs::write(&draft, serde_json::to_vec_pretty(state)?).with_context(place)?;
        fs::rename(&draft, &self.state).with_context(place)
    }
}

/// When the last run whose rows are in the lake began.
pub async fn last_run(config: &Config, export: &ExportConfig) -> anyhow::Result<Option<i64>> {
    Ok(export::last_run(&Place::of(config, export)?.folder).await?)
}

/// The status of all exports.
pub fn all(config: &Config) -> anyhow::Result<Vec<ExportStatus>> {
    let exports = config.exports.iter().map(|export| one(config, export));
    exports.collect()
}

fn one(config: &Config, export: &ExportConfig) -> anyhow::Result<ExportStatus> {
    let place = Place::of(config, export)?;
    let state = place.state();
    let schedule = export.schedule();
    let mut status = ExportStatus {
        name: export.name.clone(),
        from: export.source_table().to_string(),
        table: export.lake_table().to_string(),
        schedule: schedule.map_or("by hand".to_owned(), |schedule| schedule.to_string()),
        running: place.is_locked(),
        ..ExportStatus::default()
    };
    let last_ms = state.last.as_ref().map(|last| last.began_ms);
    status.next_ms = schedule.map(|schedule| schedule.next_ms(last_ms));
    if let Some(last) = &state.last {
        last.fill(&mut status);
    }
    if let Some(failed) = state.failed {
        status.next_ms = status.next_ms.map(|next| next.max(failed.retry_ms));
        status.failures = failed.times;
        status.error = Some(failed.reason);
    }
    Ok(status)
}
