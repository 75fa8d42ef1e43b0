//! Lists the tables of a lake with what their Delta logs tell about them, for `status`, `verify` and the console.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, stream};
use schemas::table_id::TableId;
use url::Url;

use crate::{
    config::{LakeConfig, Mode},
    delta::table::{Table, has_log, table_folder, table_url},
    error::SinkError,
};

/// Tables that are opened at the same time.
const OPEN_MAX: usize = 8;

/// A table of the lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LakeTable {
    /// Which source table it is kept for.
    pub id: TableId,
    /// Its address.
    pub url: Url,
    /// Its folder.
    pub folder: PathBuf,
    /// How it is kept.
    pub mode: Mode,
    /// The key's columns in key order; empty without a key.
    pub key: Vec<String>,
    /// Its newest version.
    pub version: u64,
    /// Rows.
    pub rows: u64,
    /// Data files.
    pub files: usize,
    /// Bytes of the data files.
    pub bytes: u64,
    /// Per partition of its topic: the offset after the last record that it contains.
    pub next_offsets: BTreeMap<i32, i64>,
    /// When its newest version was committed, in milliseconds since 1970.
    pub last_commit_ms: Option<i64>,
}

/// All tables of a lake by name; those that this sink did not make are left out.
pub async fn open_tables(lake: &LakeConfig) -> Result<Vec<LakeTable>, SinkError> {
    let root = lake.folder()?;
    let found = tokio::task::spawn_blocking(move || find_tables(&root)).await;
    let found = found.map_err(|error| SinkError::Task {
        task: "listing of the lake".to_owned(),
        reason: error.to_string(),
    })?;
    let opened = stream::iter(found).map(|(id, folder)| describe(id, folder)).buffered(OPEN_MAX);
    let opened: Vec<Result<Option<LakeTable>, SinkError>> = opened.collect().await;
    opened.into_iter().filter_map(Result::transpose).collect()
}

/// Per partition of its topic the offset after the last record that a table contains; empty when there is no table yet.
pub async fn table_offsets(
    lake: &LakeConfig,
    table: &TableId,
) -> Result<BTreeMap<i32, i64>, SinkError> {
    match Table::open(&table_folder(&lake.folder()?, table)).await? {
        Some(open) => open.next_offsets().await,
        None => Ok(BTreeMap::new()),
    }
}

async fn describe(id: TableId, folder: PathBuf) -> Result<Option<LakeTable>, SinkError> {
    let table = match Table::open(&folder).await {
        Ok(Some(table)) => table,
        Ok(None) => return Ok(None),
        Err(SinkError::Unfit { table, reason }) => {
            tracing::warn!(table, reason, "table is left out");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let files = table.files()?;
    let version = table.version().unwrap_or(0);
    Ok(Some(LakeTable {
        url: table_url(&folder)?,
        mode: table.mode,
        key: table.key.clone(),
        version,
        rows: files.iter().map(|file| file.rows).sum(),
        files: files.len(),
        bytes: files.iter().map(|file| file.size).sum(),
        next_offsets: table.next_offsets().await?,
        last_commit_ms: last_commit_ms(&table, version),
        folder,
        id,
    }))
}

fn last_commit_ms(table: &Table, version: u64) -> Option<i64> {
    table.delta().snapshot().ok()?.version_timestamp(version).or_else(|| {
        let entry = table.folder.join(format!("_delta_log/{version:020}.json"));
        let modified = fs::metadata(entry).ok()?.modified().ok()?;
        let since_1970 = modified.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(since_1970.as_millis()).ok()
    })
}

fn find_tables(root: &Path) -> Vec<(TableId, PathBuf)> {
    let mut found = Vec::new();
    for (source, source_folder) in folders(root) {
        for (database, database_folder) in folders(&source_folder) {
            for (table, folder) in folders(&database_folder) {
                if has_log(&folder) {
                    found.push((TableId::new(&source, &database, table), folder));
                }
            }
        }
    }
    found
}

/// The folders in a folder by name; those of our own (`_dead_letters`) and hidden ones are left out.
fn folders(parent: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut folders: Vec<(String, PathBuf)> = entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| !name.starts_with('.') && name != crate::dead_letters::FOLDER)
        .collect();
    folders.sort();
    folders
}
