//! The rows of one partition and one schema while they are being gathered.

use std::sync::Arc;

use arrow::{array::RecordBatch, error::ArrowError};
use schemas::wire_format::SchemaReference;

use super::{column_builder::ColumnBuilder, column_reader::ValueError, envelope::EnvelopePlan};
use crate::flow::{Operation, PartialRow, RowBatch};

/// Gathered rows.
#[derive(Debug)]
pub struct OpenRows {
    /// The schema, as the records name it.
    pub schema_reference: SchemaReference,
    /// The partition.
    pub partition: i32,
    plan: Arc<EnvelopePlan>,
    columns: Vec<ColumnBuilder>,
    operations: Vec<Operation>,
    offsets: Vec<i64>,
    changed_at_us: Vec<i64>,
    partial: Vec<PartialRow>,
    partial_bytes: usize,
}

/// What adding a record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// A row was added.
    Row,
    /// The record empties the table; nothing was added.
    Truncate,
}

impl OpenRows {
    /// No rows yet.
    pub fn new(
        schema_reference: SchemaReference,
        partition: i32,
        plan: Arc<EnvelopePlan>,
    ) -> Option<Self> {
        let columns =
            plan.schema().fields().iter().map(|field| ColumnBuilder::new(field.data_type()));
        let columns = columns.collect::<Option<Vec<_>>>()?;
        Some(Self {
            schema_reference,
            partition,
            plan,
            columns,
            operations: Vec::new(),
            offsets: Vec::new(),
            changed_at_us: Vec::new(),
            partial: Vec::new(),
            partial_bytes: 0,
        })
    }

    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.operations.len()
    }

    /// About how many bytes they hold.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(ColumnBuilder::bytes).sum::<usize>()
            + self.rows() * 17
            + self.partial_bytes
    }

    /// Notes that the row that was added last lacks columns.
    pub fn note_partial(&mut self, partial: PartialRow) {
        let record = &partial.record;
        let bytes = [&record.key, &record.value].into_iter().flatten().map(Vec::len).sum::<usize>();
        self.partial_bytes += bytes + 200;
        self.partial.push(partial);
    }

    /// Adds a record's row; a record that can't be read leaves nothing behind.
    pub fn add(&mut self, offset: i64, datum: &[u8]) -> Result<Added, ValueError> {
        let rows = self.rows();
        match self.plan.read(datum, &mut self.columns) {
            Ok(change) if change.operation == Operation::Truncate => Ok(Added::Truncate),
            Ok(change) => {
                self.operations.push(change.operation);
                self.offsets.push(offset);
                self.changed_at_us.push(change.changed_at_us);
                Ok(Added::Row)
            }
            Err(error) => {
                for column in &mut self.columns {
                    column.truncate(rows);
                }
                Err(error)
            }
        }
    }

    /// The rows as a batch; `None` when there are none.
    pub fn finish(mut self) -> Result<Option<RowBatch>, ArrowError> {
        if self.operations.is_empty() {
            return Ok(None);
        }
        let bytes = self.bytes();
        let columns =
            self.columns.iter_mut().map(ColumnBuilder::finish).collect::<Result<Vec<_>, _>>()?;
        Ok(Some(RowBatch {
            partition: self.partition,
            rows: RecordBatch::try_new(Arc::clone(self.plan.schema()), columns)?,
            operations: self.operations,
            offsets: self.offsets,
            changed_at_us: self.changed_at_us,
            partial: self.partial,
            bytes,
        }))
    }
}
