//! A Delta table of ours: made with the protocol that every engine reads (reader 1, writer 2), opened with a check
//! that nobody changed it into something that this sink can't keep right.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use deltalake::{
    DeltaTable, DeltaTableBuilder, DeltaTableError, checkpoints,
    kernel::{
        Action, Protocol, StructType, new_metadata,
        transaction::{CommitBuilder, CommitProperties},
    },
    protocol::{DeltaOperation, SaveMode},
};
use schemas::table_id::TableId;
use serde_json::json;
use url::Url;

use super::{
    arrow_types::{from_delta, to_delta},
    data_file::DataFile,
};
use crate::{config::Mode, error::SinkError};

/// The partition column of history tables.
pub const DATE_COLUMN: &str = "_date";

const MODE_PROPERTY: &str = "binlake.mode";
const TOPIC_PROPERTY: &str = "binlake.topic";
const KEY_PROPERTY: &str = "binlake.key";

/// An open table.
#[derive(Debug)]
pub struct Table {
    /// The table's folder.
    pub folder: PathBuf,
    /// How it is kept.
    pub mode: Mode,
    /// The key's columns in key order; empty without a key.
    pub key: Vec<String>,
    /// The columns of its data files: all but the partition column.
    pub schema: SchemaRef,
    pub(super) delta: DeltaTable,
    pub(super) commits_since_load: u32,
    topic: String,
}

/// What a new table is to be.
#[derive(Debug)]
pub struct TableSpec {
    /// The topic it is filled from.
    pub topic: String,
    /// How it is kept.
    pub mode: Mode,
    /// The key's columns.
    pub key: Vec<String>,
    /// The columns of its data files.
    pub schema: SchemaRef,
}

impl Table {
    /// Opens the table in a folder; `None` when there is none.
    pub async fn open(folder: &Path) -> Result<Option<Self>, SinkError> {
        if !has_log(folder) {
            return Ok(None);
        }
        let mut delta = unloaded(folder)?;
        delta.load().await.map_err(|error| delta_error(folder, error))?;
        let refuse =
            |reason: String| SinkError::Unfit { table: folder.display().to_string(), reason };
        let state = delta.snapshot().map_err(|error| delta_error(folder, error))?;
        let protocol = state.protocol();
        let (reader, writer) = (protocol.min_reader_version(), protocol.min_writer_version());
        if reader > 1 || writer > 2 {
            return Err(refuse(format!(
                "another program raised its protocol to reader {reader} and writer {writer}, and this sink writes 1 and 2; move the folder away and take a new snapshot of the table"
            )));
        }
        let properties = state.metadata().configuration();
        let property = |name: &str| {
            properties.get(name).cloned().ok_or_else(|| {
                refuse(format!(
                    "it has no property {name}, so this sink did not make it; move the folder away"
                ))
            })
        };
        let mode = property(MODE_PROPERTY)?;
        let mode = Mode::from_name(&mode).ok_or_else(|| {
            refuse(format!("its {MODE_PROPERTY} `{mode}` is none that this release knows"))
        })?;
        let topic = property(TOPIC_PROPERTY)?;
        let key: Vec<String> = serde_json::from_str(&property(KEY_PROPERTY)?)
            .map_err(|error| refuse(error.to_string()))?;
        let schema = from_delta(&state.schema()).map_err(refuse)?;
        let schema = without_date(&schema);
        Ok(Some(Self {
            folder: folder.to_owned(),
            mode,
            key,
            schema,
            delta,
            commits_since_load: 0,
            topic,
        }))
    }

    /// Makes a table, with a checkpoint: Presto on S3 takes 20 s for a table without one.
    pub async fn create(folder: &Path, spec: &TableSpec) -> Result<Self, SinkError> {
        fs::create_dir_all(folder).map_err(|error| SinkError::File {
            place: folder.display().to_string(),
            reason: error.to_string(),
        })?;
        let failed = |error| delta_error(folder, error);
        let delta = unloaded(folder)?;
        let protocol: Protocol =
            serde_json::from_value(json!({"minReaderVersion": 1, "minWriterVersion": 2}))
                .map_err(|error| failed(error.into()))?;
        let columns = delta_columns(folder, spec.mode, &spec.schema)?;
        let partitions = match spec.mode {
            Mode::State => Vec::new(),
            Mode::History => vec![DATE_COLUMN],
        };
        let key = json!(spec.key).to_string();
        let properties = [
            ("delta.checkpointInterval", "50"),
            // The sink cleans the log itself: delta-rs would list all of it on each commit.
            ("delta.enableExpiredLogCleanup", "false"),
            // Longer than our own clean-up waits, which needs the tombstones.
            ("delta.deletedFileRetentionDuration", "interval 8 days"),
            (MODE_PROPERTY, spec.mode.name()),
            (TOPIC_PROPERTY, &spec.topic),
            (KEY_PROPERTY, &key),
        ];
        let metadata = new_metadata(&columns, partitions, properties)
            .map_err(|error| delta_error(folder, error))?;
        let operation = DeltaOperation::Create {
            mode: SaveMode::ErrorIfExists,
            metadata: metadata.clone(),
            location: table_url(folder)?,
            protocol: protocol.clone(),
        };
        CommitBuilder::from(CommitProperties::default().with_max_retries(0))
            .with_actions(vec![Action::Protocol(protocol), Action::Metadata(metadata)])
            .build(None, delta.log_store(), operation)
            .await
            .map_err(failed)?;
        let table = Self::open(folder).await?.ok_or_else(|| SinkError::Delta {
            place: folder.display().to_string(),
            reason: "the table was made and is not there".to_owned(),
        })?;
        checkpoints::create_checkpoint(&table.delta, None).await.map_err(failed)?;
        Ok(table)
    }

    /// Loads the newest version.
    pub async fn load(&mut self) -> Result<(), SinkError> {
        let mut delta = unloaded(&self.folder)?;
        delta.load().await.map_err(|error| delta_error(&self.folder, error))?;
        self.delta = delta;
        self.commits_since_load = 0;
        Ok(())
    }

    /// The loaded version.
    pub fn version(&self) -> Option<u64> {
        self.delta.version()
    }

    /// The topic it is filled from.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The library's table.
    pub fn delta(&self) -> &DeltaTable {
        &self.delta
    }

    /// The table's data files, in no order.
    pub fn files(&self) -> Result<Vec<DataFile>, SinkError> {
        let state = self.delta.snapshot().map_err(|error| delta_error(&self.folder, error))?;
        state
            .log_data()
            .iter()
            .map(|file| {
                if file.deletion_vector_descriptor().is_some() {
                    return Err(SinkError::Unfit {
                        table: self.folder.display().to_string(),
                        reason: "another program wrote deletion vectors into it; move the folder away and take a new snapshot of the table".to_owned(),
                    });
                }
                Ok(DataFile {
                    path: file.path().into_owned(),
                    size: u64::try_from(file.size()).unwrap_or(0),
                    rows: file.num_records().map_or(0, |rows| rows as u64),
                    date: file.partition_values_map().remove(DATE_COLUMN).flatten(),
                })
            })
            .collect()
    }

    /// Per partition, counted from 0 without gaps: the offset after the last record that the table contains.
    pub async fn next_offsets(&self) -> Result<BTreeMap<i32, i64>, SinkError> {
        let failed = |error| delta_error(&self.folder, error);
        let state = self.delta.snapshot().map_err(failed)?;
        let log_store = self.delta.log_store();
        let mut next_offsets = BTreeMap::new();
        for partition in 0.. {
            let app_id = self.app_id(partition);
            match state.transaction_version(&*log_store, app_id).await.map_err(failed)? {
                Some(next_offset) => next_offsets.insert(partition, next_offset),
                None => break,
            };
        }
        Ok(next_offsets)
    }

    /// The Delta application id of a partition.
    pub(super) fn app_id(&self, partition: i32) -> String {
        format!("binlake:{}:{partition}", self.topic)
    }

    /// The columns as Delta's metadata has them.
    pub(super) fn delta_schema(&self, schema: &SchemaRef) -> Result<StructType, SinkError> {
        delta_columns(&self.folder, self.mode, schema)
    }
}

/// The table's folder in the lake.
pub fn table_folder(lake: &Path, table: &TableId) -> PathBuf {
    lake.join(table.lake_path())
}

/// The table's address.
pub fn table_url(folder: &Path) -> Result<Url, SinkError> {
    Url::from_directory_path(folder).map_err(|()| SinkError::Delta {
        place: folder.display().to_string(),
        reason: "the folder's path is not absolute".to_owned(),
    })
}

/// Whether the folder holds a Delta log.
pub fn has_log(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder.join("_delta_log")) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.ends_with(".json") || name.ends_with(".parquet")
    })
}

/// An error of the library, with the table's place.
pub fn delta_error(folder: &Path, error: impl Into<DeltaTableError>) -> SinkError {
    let error: DeltaTableError = error.into();
    SinkError::Delta {
        place: folder.display().to_string(),
        reason: crate::error::with_causes(&error),
    }
}

fn unloaded(folder: &Path) -> Result<DeltaTable, SinkError> {
    DeltaTableBuilder::from_url(table_url(folder)?)
        .and_then(DeltaTableBuilder::build)
        .map_err(|error| delta_error(folder, error))
}

fn delta_columns(folder: &Path, mode: Mode, schema: &SchemaRef) -> Result<StructType, SinkError> {
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    if mode == Mode::History {
        fields.push(Arc::new(Field::new(DATE_COLUMN, DataType::Date32, true)));
    }
    to_delta(&fields.into())
        .map_err(|reason| SinkError::Unfit { table: folder.display().to_string(), reason })
}

fn without_date(schema: &SchemaRef) -> SchemaRef {
    let fields = schema.fields().iter().filter(|field| field.name() != DATE_COLUMN);
    Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
}
