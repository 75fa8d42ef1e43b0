//! History tables: rows are only added, one for each version of a source row, with what happened (`_op`), when
//! (`_changed_at`) and its place in the order of all changes (`_seq`), partitioned by day (`_date`). A delete or a
//! truncate at the source is a purge and removes nothing here.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    },
    compute::filter_record_batch,
    datatypes::{DataType, Field, Schema, SchemaRef},
    error::ArrowError,
};
use schemas::row_digest::date_text;

use crate::{
    delta::{
        arrow_types::{TIMESTAMP, UTC},
        copy_on_write::{ChangesByKey, Rewrite, rewrite},
        data_file::{
            DataFile, DataFileWriter, SMALL_BYTES, SMALL_FILES_MAX, StagedFile, TARGET_BYTES,
        },
        table::DATE_COLUMN,
    },
    error::SinkError,
    flow::{ChangeBatch, DeadLetter, Operation, RowBatch},
    schema_evolution::conform,
};

/// What happened: `c`, `u` or `r`.
pub const OPERATION_COLUMN: &str = "_op";
/// When the source committed it.
pub const CHANGED_AT_COLUMN: &str = "_changed_at";
/// Rises with each change of a key: the record's offset, and above 48 bits its partition.
pub const SEQUENCE_COLUMN: &str = "_seq";

const LACKS_COLUMNS: &str = "it lacks columns, and a history table needs whole rows: set binlog_row_image = 'FULL' at the source";
const PARTITION_SHIFT: u32 = 48;
const DAY_US: i64 = 86_400_000_000;
/// 9999-12-31, the last day that every engine can write.
const LAST_DAY: i64 = 2_932_896;

/// The table's files by day.
#[derive(Debug, Default)]
pub struct HistoryTable {
    files: BTreeMap<String, Vec<DataFile>>,
}

/// Files of one day that were folded into one.
#[derive(Debug)]
pub struct Folded {
    /// The small files.
    pub removes: Vec<DataFile>,
    /// Their rows.
    pub adds: Vec<StagedFile>,
}

/// The columns of a history table's files: the source's, then ours. The error names a column that has our name.
pub fn schema_of(source: &SchemaRef) -> Result<SchemaRef, String> {
    let ours = [OPERATION_COLUMN, CHANGED_AT_COLUMN, SEQUENCE_COLUMN, DATE_COLUMN];
    let taken =
        |field: &&Arc<Field>| ours.iter().any(|name| field.name().eq_ignore_ascii_case(name));
    if let Some(field) = source.fields().iter().find(taken) {
        return Err(format!(
            "the source has a column {}, a name that history tables need; rename it there or keep the table in mode state",
            field.name()
        ));
    }
    let own = [
        Field::new(OPERATION_COLUMN, DataType::Utf8, true),
        Field::new(CHANGED_AT_COLUMN, TIMESTAMP.clone(), true),
        Field::new(SEQUENCE_COLUMN, DataType::Int64, true),
    ];
    let fields = source.fields().iter().cloned().chain(own.map(Arc::new));
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

impl HistoryTable {
    /// Sorts a table's files by day.
    pub fn load(files: Vec<DataFile>) -> Self {
        let mut table = Self::default();
        table.add(files);
        table
    }

    /// Remembers files that were committed.
    pub fn add(&mut self, files: impl IntoIterator<Item = DataFile>) {
        for file in files {
            self.files.entry(file.date.clone().unwrap_or_default()).or_default().push(file);
        }
    }

    /// Remembers that files were folded.
    pub fn apply(&mut self, folded: Folded) {
        for files in self.files.values_mut() {
            files.retain(|file| !folded.removes.contains(file));
        }
        self.add(folded.adds.into_iter().map(|staged| staged.file));
    }

    /// Small files of one day to fold into one, when there are too many.
    pub fn foldable(&self) -> Option<Vec<DataFile>> {
        self.files.values().rev().find_map(|files| {
            let small = files.iter().filter(|file| file.size < SMALL_BYTES);
            if small.clone().count() <= SMALL_FILES_MAX {
                return None;
            }
            let mut bytes = 0;
            let fits = |file: &&DataFile| {
                bytes += file.size;
                bytes <= TARGET_BYTES
            };
            Some(small.take_while(fits).cloned().collect())
        })
    }
}

/// Files that were written, and records that could not be rows of them.
#[derive(Debug)]
pub struct StagedHistory {
    /// One file per day.
    pub files: Vec<StagedFile>,
    /// Records that lack columns.
    pub lost: Vec<DeadLetter>,
}

/// Writes a batch's rows, one file per day. A version of a row is whole or none: there is no finding the one before it
/// among all that were ever written.
pub fn stage(
    folder: &Path,
    schema: &SchemaRef,
    changes: &[ChangeBatch],
) -> Result<StagedHistory, SinkError> {
    let unfit = |error: ArrowError| SinkError::Delta {
        place: folder.display().to_string(),
        reason: error.to_string(),
    };
    let (mut batches, mut lost) = (Vec::new(), Vec::new());
    let mut days = BTreeSet::new();
    for change in changes {
        let ChangeBatch::Rows(batch) = change else { continue };
        let rows = extended(batch).and_then(|rows| conform(&rows, schema)).map_err(unfit)?;
        let mut days_here: Vec<Option<i64>> = batch
            .operations
            .iter()
            .zip(&batch.changed_at_us)
            .map(|(operation, changed_at)| {
                (!matches!(operation, Operation::Delete | Operation::ReadAgain))
                    .then(|| changed_at.div_euclid(DAY_US).clamp(0, LAST_DAY))
            })
            .collect();
        for partial in &batch.partial {
            if let Some(day) = days_here.get_mut(partial.row) {
                *day = None;
            }
            if !partial.before_snapshot {
                let reason = LACKS_COLUMNS.to_owned();
                lost.push(DeadLetter { reason, ..partial.record.clone() });
            }
        }
        days.extend(days_here.iter().flatten());
        batches.push((rows, days_here));
    }
    let mut files = Vec::new();
    for day in days {
        let mut writer = DataFileWriter::create(folder, schema, Some(&date_text(day)))?;
        for (rows, days_here) in &batches {
            let of_day: BooleanArray = days_here.iter().map(|d| Some(*d == Some(day))).collect();
            match of_day.true_count() {
                0 => {}
                count if count == rows.num_rows() => writer.write(rows)?,
                _ => writer.write(&filter_record_batch(rows, &of_day).map_err(unfit)?)?,
            }
        }
        files.extend(writer.finish()?);
    }
    Ok(StagedHistory { files, lost })
}

/// Writes the rows of small files of one day into one.
pub fn fold(folder: &Path, schema: &SchemaRef, files: Vec<DataFile>) -> Result<Folded, SinkError> {
    let date = files.first().and_then(|file| file.date.clone());
    let mut writer = DataFileWriter::create(folder, schema, date.as_deref())?;
    let changes = ChangesByKey::default();
    let unchanged = Rewrite { key: &[], changes: &changes, sources: &[] };
    for file in &files {
        rewrite(&folder.join(&file.path), &unchanged, &mut writer)?;
    }
    Ok(Folded { removes: files, adds: writer.finish()?.into_iter().collect() })
}

fn extended(batch: &RowBatch) -> Result<RecordBatch, ArrowError> {
    let schema = schema_of(batch.rows.schema_ref()).map_err(ArrowError::SchemaError)?;
    let operations = batch.operations.iter().map(|operation| operation.code());
    let operations: ArrayRef = Arc::new(StringArray::from_iter_values(operations));
    let changed_at = TimestampMicrosecondArray::from(batch.changed_at_us.clone());
    let sequences = batch.offsets.iter().map(|offset| sequence(batch.partition, *offset));
    let mut columns = batch.rows.columns().to_vec();
    columns.push(operations);
    columns.push(Arc::new(changed_at.with_timezone(UTC)));
    columns.push(Arc::new(Int64Array::from_iter_values(sequences)));
    RecordBatch::try_new(schema, columns)
}

fn sequence(partition: i32, offset: i64) -> i64 {
    (i64::from(partition) << PARTITION_SHIFT) + offset
}
