//! Parquet files of a table: written with our own statistics and made durable before any commit names them, and read
//! back batch by batch.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder},
    },
    basic::Compression,
    file::properties::WriterProperties,
};
use uuid::Uuid;

use super::statistics::Statistics;
use crate::error::SinkError;

/// The size that files grow to.
pub const TARGET_BYTES: u64 = 64 * 1024 * 1024;
/// Files below this size are folded together when there are many.
pub const SMALL_BYTES: u64 = TARGET_BYTES / 4;
/// More small files than this are folded together.
pub const SMALL_FILES_MAX: usize = 8;

const ROW_GROUP_ROWS: usize = 128 * 1024;
/// Bounds what the writer holds of an unfinished row group of wide rows.
const ROW_GROUP_BYTES: usize = 48 * 1024 * 1024;
const READ_ROWS: usize = 8192;

/// A data file of a table, as its commits name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// Relative to the table's folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Rows.
    pub rows: u64,
    /// The day, in a table that is partitioned by `_date`.
    pub date: Option<String>,
}

/// A file that was written and that no commit names yet.
#[derive(Clone, Debug)]
pub struct StagedFile {
    /// The file.
    pub file: DataFile,
    /// Its statistics as JSON.
    pub statistics: String,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
}

/// Writes one data file. Dropping it unfinished removes the file.
pub struct DataFileWriter {
    path: PathBuf,
    relative: String,
    date: Option<String>,
    schema: SchemaRef,
    writer: Option<ArrowWriter<File>>,
    statistics: Statistics,
}

impl DataFileWriter {
    /// Starts a file in a table's folder, in the partition of `date` if there is one.
    pub fn create(
        folder: &Path,
        schema: &SchemaRef,
        date: Option<&str>,
    ) -> Result<Self, SinkError> {
        let name = format!("part-{}.snappy.parquet", Uuid::new_v4());
        let relative = date.map_or_else(|| name.clone(), |date| format!("_date={date}/{name}"));
        let path = folder.join(&relative);
        let io = |error: std::io::Error| failed(&path, error);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_created_by(concat!("binlake ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let file = File::create_new(&path).map_err(io)?;
        let writer = ArrowWriter::try_new(file, Arc::clone(schema), Some(properties));
        Ok(Self {
            writer: Some(writer.map_err(|error| failed(&path, error))?),
            statistics: Statistics::new(schema),
            schema: Arc::clone(schema),
            date: date.map(str::to_owned),
            relative,
            path,
        })
    }

    /// The columns that rows must have.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// About how many bytes the file will have.
    pub fn bytes(&self) -> u64 {
        let bytes = |writer: &ArrowWriter<File>| writer.bytes_written() + writer.in_progress_size();
        self.writer.as_ref().map_or(0, bytes) as u64
    }

    /// Adds rows.
    pub fn write(&mut self, rows: &RecordBatch) -> Result<(), SinkError> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let result = writer.write(rows).and_then(|()| {
            if writer.in_progress_size() >= ROW_GROUP_BYTES { writer.flush() } else { Ok(()) }
        });
        result.map_err(|error| failed(&self.path, error))?;
        self.statistics.add(rows);
        Ok(())
    }

    /// Ends the file and makes it durable; `None`, and no file, when it has no rows.
    pub fn finish(mut self) -> Result<Option<StagedFile>, SinkError> {
        if self.statistics.rows() == 0 {
            return Ok(None);
        }
        let Some(writer) = self.writer.take() else { return Ok(None) };
        let finished = (|| {
            let file = writer.into_inner().map_err(|error| failed(&self.path, error))?;
            file.sync_all().map_err(|error| failed(&self.path, error))?;
            file.metadata().map_err(|error| failed(&self.path, error))
        })();
        match finished {
            Ok(metadata) => Ok(Some(StagedFile {
                file: DataFile {
                    path: std::mem::take(&mut self.relative),
                    size: metadata.len(),
                    rows: self.statistics.rows(),
                    date: self.date.take(),
                },
                statistics: self.statistics.to_json(),
                modified_ms: now_ms(),
            })),
            Err(error) => {
                remove(&self.path);
                Err(error)
            }
        }
    }
}

impl Drop for DataFileWriter {
    fn drop(&mut self) {
        if self.writer.take().is_some() {
            remove(&self.path);
        }
    }
}

/// Removes files that no commit will name.
pub fn discard(folder: &Path, staged: &[StagedFile]) {
    for staged in staged {
        remove(&folder.join(&staged.file.path));
    }
}

/// Reads a file's rows, all columns or those of these names that it has.
pub fn open_columns(
    path: &Path,
    columns: Option<&[String]>,
) -> Result<ParquetRecordBatchReader, SinkError> {
    let file = File::open(path).map_err(|error| failed(path, error))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file);
    let builder = builder.map_err(|error| failed(path, error))?.with_batch_size(READ_ROWS);
    let builder = match columns {
        None => builder,
        Some(names) => {
            let fields = builder.schema().fields();
            let wanted: Vec<usize> = names
                .iter()
                .filter_map(|name| crate::schema_evolution::position(fields, name))
                .collect();
            let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
            builder.with_projection(mask)
        }
    };
    builder.build().map_err(|error| failed(path, error))
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(file = %path.display(), %error, "an unused data file was not removed");
    }
}

fn failed(path: &Path, error: impl std::fmt::Display) -> SinkError {
    SinkError::File { place: path.display().to_string(), reason: error.to_string() }
}
