//! Writes an export's rows into files that no commit names yet: Avro rows -> the lake's types -> the chosen columns
//! under their names and in their types -> data files of the lake's usual size.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch, TimestampMicrosecondArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::{
    EXPORTED_AT_COLUMN, ExportColumn,
    conversion::{convert, is_possible},
};
use crate::{
    decode::{avro_schema::parse, column_builder::ColumnBuilder, envelope::EnvelopePlan},
    delta::{
        arrow_types::{TIMESTAMP, UTC, type_name},
        data_file::{DataFileWriter, StagedFile, TARGET_BYTES, discard},
    },
    error::SinkError,
};

/// Writes the rows of one run.
pub struct ExportWriter {
    folder: PathBuf,
    /// The source's table, for messages.
    table: String,
    plan: EnvelopePlan,
    builders: Vec<ColumnBuilder>,
    steps: Vec<Step>,
    /// Microseconds since 1970, in tables that have a column for it.
    exported_at: Option<i64>,
    open: Option<DataFileWriter>,
    staged: StagedExport,
}

struct Step {
    column: usize,
    to: DataType,
}

/// Files that were written and that nothing names yet. They are removed when it is dropped, unless they were handed
/// to a commit.
#[derive(Debug)]
pub struct StagedExport {
    folder: PathBuf,
    pub(super) schema: SchemaRef,
    files: Vec<StagedFile>,
}

impl StagedExport {
    /// Rows.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|staged| staged.file.rows).sum()
    }

    /// The files, which are the caller's from now on.
    pub(super) fn take_files(&mut self) -> Vec<StagedFile> {
        std::mem::take(&mut self.files)
    }
}

impl Drop for StagedExport {
    fn drop(&mut self) {
        discard(&self.folder, &self.files);
    }
}

impl ExportWriter {
    /// Prepares for rows of the schema's `after`; the error names the column that cannot become what it should.
    pub fn new(
        folder: &Path,
        table: &str,
        envelope_schema: &str,
        columns: &[ExportColumn],
        exported_at: Option<i64>,
    ) -> Result<Self, SinkError> {
        let refuse = |reason: String| SinkError::Export { table: table.to_owned(), reason };
        let envelope = parse(envelope_schema).map_err(|error| refuse(error.to_string()))?;
        let plan = EnvelopePlan::compile(&envelope).map_err(refuse)?;
        let builders = plan.schema().fields().iter();
        let builders = builders.map(|field| ColumnBuilder::new(field.data_type()));
        let builders = builders
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| refuse("a column has no builder".to_owned()))?;
        let (steps, mut fields) = steps(plan.schema(), columns).map_err(refuse)?;
        if exported_at.is_some() {
            fields.push(Field::new(EXPORTED_AT_COLUMN, TIMESTAMP.clone(), true));
        }
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = fields.iter().find(|field| !names.insert(field.name().to_lowercase()))
        {
            return Err(refuse(format!(
                "two columns are named {}; give one of them another name with `as`",
                twice.name()
            )));
        }
        let staged = StagedExport {
            folder: folder.to_owned(),
            schema: Arc::new(Schema::new(fields)),
            files: Vec::new(),
        };
        let (folder, table) = (folder.to_owned(), table.to_owned());
        Ok(Self { folder, table, plan, builders, steps, exported_at, open: None, staged })
    }

    /// Adds rows: `rows` says where each lies in `bytes`.
    pub fn write(&mut self, bytes: &[u8], rows: &[Range<usize>]) -> Result<(), SinkError> {
        let damaged =
            || SinkError::Export { table: self.table.clone(), reason: "a row is damaged".into() };
        for place in rows {
            let mut row = bytes.get(place.clone()).ok_or_else(damaged)?;
            self.plan.read_row(&mut row, &mut self.builders).map_err(|error| {
                SinkError::Export {
                    table: self.table.clone(),
                    reason: format!("a row cannot be kept: {}", error.reason()),
                }
            })?;
            if !row.is_empty() {
                return Err(damaged());
            }
        }
        let batch = self.batch(rows.len())?;
        let file = match &mut self.open {
            Some(file) => file,
            None => {
                self.open.insert(DataFileWriter::create(&self.folder, &self.staged.schema, None)?)
            }
        };
        file.write(&batch)?;
        if file.bytes() >= TARGET_BYTES {
            self.finish_file()?;
        }
        Ok(())
    }

    /// Ends the last file.
    pub fn finish(mut self) -> Result<StagedExport, SinkError> {
        self.finish_file()?;
        Ok(self.staged)
    }

    fn finish_file(&mut self) -> Result<(), SinkError> {
        if let Some(file) = self.open.take() {
            self.staged.files.extend(file.finish()?);
        }
        Ok(())
    }

    fn batch(&mut self, rows: usize) -> Result<RecordBatch, SinkError> {
        let refuse = |reason: String| SinkError::Export { table: self.table.clone(), reason };
        let read: Vec<ArrayRef> = self
            .builders
            .iter_mut()
            .map(ColumnBuilder::finish)
            .collect::<Result<_, _>>()
            .map_err(|error| refuse(error.to_string()))?;
        let mut columns = Vec::with_capacity(self.steps.len() + 1);
        for step in &self.steps {
            let Some(values) = read.get(step.column) else { continue };
            columns.push(convert(values, &step.to).map_err(|_| {
                let name = self.plan.schema().field(step.column).name();
                refuse(format!(
                    "column {name} holds a {} that {} cannot hold exactly; choose another type, or leave such rows \
                     out with `where`",
                    type_name(values.data_type()),
                    type_name(&step.to)
                ))
            })?);
        }
        if let Some(micros) = self.exported_at {
            let values = TimestampMicrosecondArray::from_value(micros, rows).with_timezone(UTC);
            columns.push(Arc::new(values));
        }
        RecordBatch::try_new(Arc::clone(&self.staged.schema), columns)
            .map_err(|error| refuse(error.to_string()))
    }
}

/// Which column becomes what; all columns as they are without a choice.
fn steps(read: &SchemaRef, columns: &[ExportColumn]) -> Result<(Vec<Step>, Vec<Field>), String> {
    if columns.is_empty() {
        let whole = |(column, field): (usize, &Arc<Field>)| {
            (Step { column, to: field.data_type().clone() }, field.as_ref().clone())
        };
        return Ok(read.fields().iter().enumerate().map(whole).unzip());
    }
    let (mut steps, mut fields) = (Vec::new(), Vec::new());
    for chosen in columns {
        let name = chosen.column.to_lowercase();
        let column = read.fields().iter().position(|field| field.name().to_lowercase() == name);
        let column = column.ok_or_else(|| format!("there is no column {}", chosen.column))?;
        let from = read.field(column).data_type();
        let to = chosen.lake_type.map_or_else(|| from.clone(), super::LakeType::data_type);
        if !is_possible(from, &to) {
            return Err(format!(
                "column {} is a {}, which cannot become a {}",
                chosen.column,
                type_name(from),
                type_name(&to)
            ));
        }
        fields.push(Field::new(&chosen.name, to.clone(), true));
        steps.push(Step { column, to });
    }
    Ok((steps, fields))
}
