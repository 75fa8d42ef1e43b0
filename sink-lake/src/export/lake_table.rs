//! The Delta table of an export: its whole content in one commit, when its last run began, and its folder tidied.

use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use arrow::datatypes::SchemaRef;
use deltalake::checkpoints;
use futures_util::TryStreamExt;
use schemas::table_id::TableId;
use serde::{Deserialize, Serialize};

use super::StagedExport;
use crate::{
    config::Mode,
    delta::{
        arrow_types::type_name,
        commit::{CommitOutcome, CommitRequest, commit as commit_request},
        data_file::now_ms,
        maintenance::{RETENTION, remove_unneeded},
        table::{Table, TableSpec, delta_error, table_folder},
    },
    error::SinkError,
};

/// Somebody else's commits (an OPTIMIZE) may come between; not for ever.
const COMMIT_TRIES: u32 = 5;
/// The only partition of an export's topic; its offset is when the last run began.
const PARTITION: i32 = 0;

/// What a run does with the rows that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExportMode {
    /// Its rows take their place.
    #[default]
    Replace,
    /// Its rows come on top.
    Append,
}

/// The table's folder.
pub fn folder(lake: &Path, table: &TableId) -> PathBuf {
    table_folder(lake, table)
}

/// When the last run whose rows are in the table began, in milliseconds since 1970.
pub async fn last_run(folder: &Path) -> Result<Option<i64>, SinkError> {
    match Table::open(folder).await? {
        Some(table) => Ok(table.next_offsets().await?.get(&PARTITION).copied()),
        None => Ok(None),
    }
}

/// Makes the files part of the table, which is made when it is not there; answers the table's version. After an error
/// nobody knows whether they are, until the table can be read again.
pub async fn commit(
    folder: &Path,
    table: &TableId,
    mode: ExportMode,
    mut staged: StagedExport,
    began_ms: i64,
) -> Result<u64, SinkError> {
    let schema = staged.schema.clone();
    check_append(Table::open(folder).await?.as_ref(), mode, &schema, table)?;
    let adds = staged.take_files();
    let mut last = None;
    for _ in 0..COMMIT_TRIES {
        let mut open = open_or_create(folder, table, &schema).await?;
        if open.next_offsets().await?.get(&PARTITION) == Some(&began_ms) {
            return Ok(open.version().unwrap_or(0));
        }
        check_append(Some(&open), mode, &schema, table)?;
        let removes = match mode {
            ExportMode::Replace => open.files()?,
            ExportMode::Append => Vec::new(),
        };
        let request = CommitRequest {
            adds: adds.clone(),
            removes,
            schema: (open.schema != schema).then(|| schema.clone()),
            next_offsets: [(PARTITION, began_ms)].into(),
            ..CommitRequest::default()
        };
        match commit_request(&mut open, request).await {
            Ok(CommitOutcome::Committed | CommitOutcome::CommittedAndOvertaken) => {
                return Ok(open.version().unwrap_or(0));
            }
            Ok(CommitOutcome::Conflicted) => {}
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| SinkError::Delta {
        place: folder.display().to_string(),
        reason: format!("another program committed first, {COMMIT_TRIES} times"),
    }))
}

/// Removes the files of runs that did not come to their commit, and those that were replaced: at most `keep` older
/// contents stay, and none longer than a week. Nobody else may be writing the table.
pub async fn clean(folder: &Path, keep: Option<usize>) -> Result<usize, SinkError> {
    let mut needed = HashSet::new();
    if let Some(table) = Table::open(folder).await? {
        let failed = |error| delta_error(folder, error);
        checkpoints::cleanup_metadata(table.delta(), None).await.map_err(failed)?;
        needed.extend(table.files()?.into_iter().map(|file| file.path));
        let state = table.delta().snapshot().map_err(failed)?;
        let log_store = table.delta().log_store();
        let mut tombstones = state.all_tombstones(&*log_store);
        let oldest_ms = now_ms() - i64::try_from(RETENTION.as_millis()).unwrap_or(i64::MAX);
        let mut removed = Vec::new();
        while let Some(tombstone) = tombstones.try_next().await.map_err(failed)? {
            // Without a time nobody knows how old it is.
            let removed_ms = tombstone.deletion_timestamp().unwrap_or(i64::MAX);
            if removed_ms > oldest_ms {
                removed.push((removed_ms, tombstone.path().into_owned()));
            }
        }
        // All files of one content were removed by one commit, at one time.
        let times: BTreeSet<i64> = removed.iter().map(|(time, _)| *time).collect();
        let kept: HashSet<i64> = times.into_iter().rev().take(keep.unwrap_or(usize::MAX)).collect();
        needed.extend(removed.into_iter().filter(|(t, _)| kept.contains(t)).map(|(_, path)| path));
    }
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || remove_unneeded(&folder, &needed, Duration::ZERO))
        .await
        .map_err(|error| SinkError::Task { task: "clean-up".into(), reason: error.to_string() })
}

async fn open_or_create(
    folder: &Path,
    table: &TableId,
    schema: &SchemaRef,
) -> Result<Table, SinkError> {
    if let Some(open) = Table::open(folder).await? {
        return Ok(open);
    }
    // Neither of the two modes fits what an export is; no sink opens the table, and its readers need none.
    let spec = TableSpec {
        topic: table.topic(),
        mode: Mode::State,
        key: Vec::new(),
        schema: schema.clone(),
    };
    Table::create(folder, &spec).await
}

/// The rows of earlier runs stay as they are, so their columns have to stay too.
fn check_append(
    open: Option<&Table>,
    mode: ExportMode,
    schema: &SchemaRef,
    table: &TableId,
) -> Result<(), SinkError> {
    let (Some(open), ExportMode::Append) = (open, mode) else { return Ok(()) };
    for field in open.schema.fields() {
        let now = schema.field_with_name(field.name()).ok().map(|field| field.data_type());
        if now != Some(field.data_type()) {
            let now = now.map_or("is not exported any more".to_owned(), |now| {
                format!("is a {} now", type_name(now))
            });
            return Err(SinkError::Export {
                table: table.to_string(),
                reason: format!(
                    "earlier runs have the column {} as a {}, and it {now}; give the export another name, or convert \
                     the column with `type`",
                    field.name(),
                    type_name(field.data_type())
                ),
            });
        }
    }
    Ok(())
}
