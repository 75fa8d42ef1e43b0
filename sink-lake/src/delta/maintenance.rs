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
    let data_files =
        tokio::task::spawn_blocking(move || remove_unneeded(&folder, &needed, retention))
            .await
            .map_err(|error| SinkError::Task {
                task: "maintenance".into(),
                reason: error.to_string(),
            })?;
    Ok(Tidied { data_files, log_files })
}

/// Removes data files that are not needed and older than `retention`; answers how many.
pub fn remove_unneeded(folder: &Path, needed: &HashSet<String>, retention: Duration) -> usize {
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Int64Array, RecordBatch},
        datatypes::{DataType, Field, Schema, SchemaRef},
    };

    use super::*;
    use crate::{
        config::Mode,
        delta::{
            commit::{CommitOutcome, CommitRequest, commit},
            data_file::{DataFileWriter, StagedFile},
            table::TableSpec,
        },
    };

    fn write(folder: &Path, schema: &SchemaRef) -> StagedFile {
        let rows = vec![Arc::new(Int64Array::from(vec![1])) as _];
        let rows = RecordBatch::try_new(Arc::clone(schema), rows).expect("fits");
        let mut writer = DataFileWriter::create(folder, schema, None).expect("creates");
        writer.write(&rows).expect("writes");
        writer.finish().expect("finishes").expect("has rows")
    }

    #[tokio::test]
    async fn only_files_that_no_recent_version_needs_are_removed() {
        let lake = tempfile::tempdir().expect("a folder");
        let folder = lake.path().join("t");
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        let spec = TableSpec {
            topic: "s.d.t".into(),
            mode: Mode::State,
            key: vec!["id".into()],
            schema: Arc::clone(&schema),
        };
        let mut table = Table::create(&folder, &spec).await.expect("creates");
        let [replaced, live, orphan] = [(); 3].map(|()| write(&folder, &schema));
        for (adds, removes) in
            [(vec![replaced.clone()], vec![]), (vec![live.clone()], vec![replaced.file.clone()])]
        {
            let request = CommitRequest { adds, removes, ..CommitRequest::default() };
            let outcome = commit(&mut table, request).await.expect("commits");
            assert_eq!(outcome, CommitOutcome::Committed);
        }
        let exists = |staged: &StagedFile| folder.join(&staged.file.path).exists();
        let tidied = tidy(&table, RETENTION).await.expect("tidies");
        assert_eq!(tidied.data_files, 0);
        assert!(exists(&replaced) && exists(&live) && exists(&orphan));
        std::thread::sleep(Duration::from_millis(20));
        let tidied = tidy(&table, Duration::from_millis(1)).await.expect("tidies");
        assert_eq!(tidied.data_files, 2);
        assert!(!exists(&replaced) && exists(&live) && !exists(&orphan));
    }

    #[tokio::test]
    async fn a_commit_against_an_older_version_conflicts_and_a_reload_sees_the_winner() {
        let lake = tempfile::tempdir().expect("a folder");
        let folder = lake.path().join("t");
        let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]));
        let spec = TableSpec {
            topic: "s.d.t".into(),
            mode: Mode::State,
            key: vec!["id".into()],
            schema: Arc::clone(&schema),
        };
        let mut first = Table::create(&folder, &spec).await.expect("creates");
        let mut second = Table::open(&folder).await.expect("opens").expect("is there");
        let request = |next_offset| CommitRequest {
            adds: vec![write(&folder, &schema)],
            next_offsets: [(0, next_offset)].into(),
            ..CommitRequest::default()
        };
        let outcome = commit(&mut first, request(5)).await.expect("commits");
        assert_eq!(outcome, CommitOutcome::Committed);
        let outcome = commit(&mut second, request(7)).await.expect("is told");
        assert_eq!(outcome, CommitOutcome::Conflicted);
        second.load().await.expect("loads");
        assert_eq!(second.next_offsets().await.expect("reads"), [(0, 5)].into());
        assert_eq!(second.files().expect("lists").len(), 1);
    }
}
