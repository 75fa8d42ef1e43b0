//! Keeps a table's folder tidy: removes data files that no version of the last days needs, and old entries of its log.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use deltalake::checkpoints;
use futures_util::TryStreamExt;

use super::{
    data_file::now_ms,
    table::{Table, delta_error},
};
use crate::error::SinkError;

/// Removed files stay this long for readers of older versions; Delta's own default.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Data files.
    pub data_files: usize,
    /// Files of the log.
    pub log_files: usize,
}

/// Removes data files that are not part of the table, have not been for `retention`, and are older than that: files
/// that were replaced, and files of commits that never came about.
pub async fn tidy(table: &Table, retention: Duration) -> Result<Tidied, SinkError> {
    let failed = |error| delta_error(&table.folder, error);
    let log_files = checkpoints::cleanup_metadata(table.delta(), None).await.map_err(failed)?;
    let mut needed: HashSet<String> = table.files()?.into_iter().map(|file| file.path).collect();
    let state = table.delta().snapshot().map_err(failed)?;
    let log_store = table.delta().log_store();
    let oldest_ms = now_ms() - i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    let mut tombstones = state.all_tombstones(&*log_store);
    while let Some(tombstone) = tombstones.try_next().await.map_err(failed)? {
        if tombstone.deletion_timestamp().is_none_or(|removed_ms| removed_ms > oldest_ms) {
            needed.insert(tombstone.path().into_owned());
        }
    }
    drop(tombstones);
    let folder = table.folder.clone();
    let data_files = tokio::task::spawn_blocking(move || remove_unneeded(&folder, &needed, retention))
        .await
        .map_err(|error| SinkError::Task { task: "maintenance".into(), reason: error.to_string() })?;
    Ok(Tidied { data_files, log_files })
}

fn remove_unneeded(folder: &Path, needed: &HashSet<String>, retention: Duration) -> usize {
    let Some(oldest) = SystemTime::now().checked_sub(retention) else { return 0 };
    let mut removed = 0;
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, prefix)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                if prefix.is_empty() && name.starts_with("_date=") {
                    folders.push((entry.path(), format!("{name}/")));
                }
                continue;
            }
            let is_ours = name.starts_with("part-") && name.ends_with(".parquet");
            let is_old = metadata.modified().is_ok_and(|modified| modified < oldest);
            if is_ours
                && is_old
                && !needed.contains(&format!("{prefix}{name}"))
                && fs::remove_file(entry.path()).is_ok()
            {
                removed += 1;
            }
        }
    }
    removed
}
