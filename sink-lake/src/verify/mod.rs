//! The lake's half of `verify`: digests of a table's live rows, all of one version, in the canonical form that
//! [`schemas::row_digest`] describes, read file by file and column by column.

mod canonical;
mod live_rows;

use std::collections::{BTreeMap, HashMap, HashSet};

use schemas::{row_digest::row_digest, table_id::TableId};

use self::{
    canonical::CanonicalColumn,
    live_rows::{FileReader, HistoryColumns},
};
use crate::{
    config::{LakeConfig, Mode},
    delta::table::{Table, table_folder},
    error::SinkError,
    modes::history::{OPERATION_COLUMN, SEQUENCE_COLUMN},
};

/// The live rows of one version of a table: 32 bytes per row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LakeRows {
    /// The version that was read.
    pub version: u64,
    /// Per partition of its topic: the offset after the last record that the version contains.
    pub next_offsets: BTreeMap<i32, i64>,
    /// Rows that should not be there: in a state table those whose key an earlier row has, in a history table those
    /// whose change an earlier row has, and those that a snapshot read although the stream had brought the key before.
    pub doubled: u64,
    /// Sorted by key.
    rows: Vec<(u128, u128)>,
}

impl LakeRows {
    /// The row digest of a key.
    pub fn get(&self, key: u128) -> Option<u128> {
        let at = self.rows.binary_search_by_key(&key, |(key, _)| *key).ok()?;
        self.rows.get(at).map(|(_, row)| *row)
    }

    /// How many keys there are; of a table without a key, how many rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All key digests with their row digests, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.rows.iter().copied()
    }
}

/// A row's canonical values in the order of the columns asked for.
pub type CanonicalRow = Vec<Option<Vec<u8>>>;

/// Digests all live rows of a table. `columns` are the source's, in its order: a column that the lake does not have is
/// NULL. The key digest is [`row_digest`] over `key_columns`; without any, a row is its own key, and equal rows are all
/// there. Of a history table a key's newest version counts. `None` when the lake has no such table.
pub async fn digests(
    table: &TableId,
    lake: &LakeConfig,
    columns: &[String],
    key_columns: &[String],
) -> Result<Option<LakeRows>, SinkError> {
    let Some((reader, version, next_offsets)) = open(table, lake, columns, key_columns).await?
    else {
        return Ok(None);
    };
    let (rows, doubled) = blocking(move || collect(&reader)).await??;
    Ok(Some(LakeRows { version, next_offsets, doubled, rows }))
}

/// The canonical values of the rows with these key digests, in the order of `columns`.
pub async fn rows_by_key(
    table: &TableId,
    lake: &LakeConfig,
    columns: &[String],
    key_columns: &[String],
    keys: HashSet<u128>,
) -> Result<HashMap<u128, CanonicalRow>, SinkError> {
    let Some((reader, _, _)) = open(table, lake, columns, key_columns).await? else {
        return Ok(HashMap::new());
    };
    blocking(move || find(&reader, &keys)).await?
}

async fn open(
    table: &TableId,
    lake: &LakeConfig,
    columns: &[String],
    key_columns: &[String],
) -> Result<Option<(FileReader, u64, BTreeMap<i32, i64>)>, SinkError> {
    let folder = table_folder(&lake.folder()?, table);
    let Some(open) = Table::open(&folder).await? else { return Ok(None) };
    let next_offsets = open.next_offsets().await?;
    let version = open.version().unwrap_or(0);
    let mut wanted = columns.to_vec();
    let mut key = Vec::with_capacity(key_columns.len());
    for name in key_columns {
        key.push(wanted.iter().position(|column| column == name).unwrap_or_else(|| {
            wanted.push(name.clone());
            wanted.len() - 1
        }));
    }
    let history = (open.mode == Mode::History).then(|| {
        wanted.extend([SEQUENCE_COLUMN.to_owned(), OPERATION_COLUMN.to_owned()]);
        HistoryColumns { sequence: wanted.len() - 2, operation: wanted.len() - 1 }
    });
    let reader = FileReader {
        folder,
        schema: open.schema.clone(),
        files: open.files()?,
        wanted,
        columns: columns.len(),
        key,
        history,
    };
    Ok(Some((reader, version, next_offsets)))
}

fn collect(reader: &FileReader) -> Result<(Vec<(u128, u128)>, u64), SinkError> {
    if reader.history.is_some() {
        return collect_history(reader);
    }
    let mut rows = Vec::with_capacity(reader.rows());
    reader.for_each(|row| rows.push((row.key_digest(), row.row_digest())))?;
    rows.sort_unstable();
    let total = rows.len();
    rows.dedup_by_key(|(key, _)| *key);
    let doubled = (total - rows.len()) as u64;
    Ok((rows, doubled))
}

/// One version of a row in a history table.
struct Version {
    key: u128,
    sequence: i64,
    row: u128,
    /// It was read by a snapshot.
    read: bool,
}

fn collect_history(reader: &FileReader) -> Result<(Vec<(u128, u128)>, u64), SinkError> {
    let mut versions = Vec::with_capacity(reader.rows());
    reader.for_each(|row| {
        versions.push(Version {
            key: row.key_digest(),
            sequence: row.sequence(),
            row: row.row_digest(),
            read: row.operation() == Some(b"r"),
        });
    })?;
    // Newest first within a key.
    versions.sort_unstable_by(|a, b| (a.key, b.sequence, a.row).cmp(&(b.key, a.sequence, b.row)));
    let total = versions.len();
    versions.dedup_by_key(|version| (version.key, version.sequence));
    let mut doubled = (total - versions.len()) as u64;
    // Without a key, every copy of a row counts.
    if !reader.key.is_empty() {
        // A snapshot leaves out what the stream has brought: a row that it read is its key's first version.
        doubled += versions.windows(2).filter(|two| two[0].read && two[0].key == two[1].key).count()
            as u64;
        versions.dedup_by_key(|version| version.key);
    }
    Ok((versions.into_iter().map(|version| (version.key, version.row)).collect(), doubled))
}

fn find(
    reader: &FileReader,
    keys: &HashSet<u128>,
) -> Result<HashMap<u128, CanonicalRow>, SinkError> {
    let mut found: HashMap<u128, (i64, CanonicalRow)> = HashMap::new();
    reader.for_each(|row| {
        let key = row.key_digest();
        if !keys.contains(&key) {
            return;
        }
        let sequence = row.sequence();
        if found.get(&key).is_none_or(|(newest, _)| sequence > *newest) {
            found.insert(key, (sequence, row.values()));
        }
    })?;
    Ok(found.into_iter().map(|(key, (_, row))| (key, row)).collect())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SinkError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| SinkError::Task {
        task: "digests of a table".to_owned(),
        reason: error.to_string(),
    })
}

/// The digest of some of a row's canonical values.
fn digest_of(columns: &[CanonicalColumn], which: impl Iterator<Item = usize>, row: usize) -> u128 {
    row_digest(which.map(|at| columns.get(at).and_then(|column| column.value(row))))
}
