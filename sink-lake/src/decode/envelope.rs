//! Debezium's envelope as a compiled plan: which fields to step over, where the row images are, and what of `source`
//! and `op` is needed. One plan per schema.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use schemas::avro_write::{read_bytes, read_long};

use super::{
    avro_schema::{AvroField, AvroKind, AvroType, optional, skip},
    column_builder::ColumnBuilder,
    column_reader::{ColumnReader, ValueError},
};
use crate::flow::Operation;

/// How to read one schema's envelopes.
#[derive(Debug)]
pub struct EnvelopePlan {
    steps: Vec<Step>,
    columns: Vec<ColumnReader>,
    schema: SchemaRef,
}

/// What an envelope told besides its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What happened.
    pub operation: Operation,
    /// Microseconds since 1970 when the source committed it; 0 when the envelope does not tell.
    pub changed_at_us: i64,
}

#[derive(Debug)]
enum Step {
    /// The row as it was.
    Before {
        null_branch: Option<i64>,
        row: Arc<AvroType>,
    },
    /// The row as it is.
    After {
        null_branch: Option<i64>,
    },
    Source(Vec<SourceStep>),
    Operation,
    Other(Arc<AvroType>),
}

#[derive(Debug)]
enum SourceStep {
    Micros { null_branch: Option<i64> },
    Millis { null_branch: Option<i64> },
    Snapshot { null_branch: Option<i64> },
    Other(Arc<AvroType>),
}

/// What is needed of `source`.
#[derive(Clone, Copy, Debug, Default)]
struct Origin {
    micros: Option<i64>,
    millis: Option<i64>,
    /// A snapshot beside the first one read the row.
    incremental: bool,
}

impl EnvelopePlan {
    /// Compiles the plan of a schema; the error says in words why it is no envelope, or which column can't be kept.
    pub fn compile(envelope: &AvroType) -> Result<Self, String> {
        let AvroKind::Record(fields) = &envelope.kind else {
            return Err("the value's schema is no record".to_owned());
        };
        let field = |name: &str| fields.iter().find(|field| field.name == name);
        let (Some(_), Some(after), Some(_)) = (field("before"), field("after"), field("op")) else {
            return Err(
                "the value's schema is no change event (before, after, op); only those are read"
                    .to_owned(),
            );
        };
        let AvroKind::Record(columns) = &row_type(after)?.1.kind else {
            return Err("the envelope's `after` is no record".to_owned());
        };
        let mut readers = Vec::with_capacity(columns.len());
        let mut arrow_fields = Vec::with_capacity(columns.len());
        for column in columns {
            let reader = ColumnReader::of(&column.avro_type)
                .map_err(|reason| format!("column {} can't be kept: {reason}", column.name))?;
            arrow_fields.push(Field::new(&column.name, reader.data_type(), true));
            readers.push(reader);
        }
        let steps = fields.iter().map(step).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { steps, columns: readers, schema: Arc::new(Schema::new(arrow_fields)) })
    }

    /// The row's columns with their types in the lake.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Reads one record's datum and adds its row, if it has one, to the columns. After an error the columns may hold
    /// a part of the row: cut them back.
    pub fn read(&self, datum: &[u8], columns: &mut [ColumnBuilder]) -> Result<Change, ValueError> {
        let mut rest = datum;
        let input = &mut rest;
        let (mut before, mut has_row) = (None, false);
        let (mut operation, mut origin) = (None, Origin::default());
        for step in &self.steps {
            match step {
                Step::Before { null_branch, row } => {
                    if is_there(*null_branch, input)? {
                        before = Some(*input);
                        skip(row, input).ok_or(ValueError::Damaged)?;
                    }
                }
                Step::After { null_branch } => {
                    if is_there(*null_branch, input)? {
                        self.read_row(input, columns)?;
                        has_row = true;
                    }
                }
                Step::Source(steps) => origin = read_source(steps, input)?,
                Step::Operation => {
                    let text = read_bytes(input).ok_or(ValueError::Damaged)?;
                    operation = Some(Operation::from_code(text).ok_or(ValueError::Damaged)?);
                }
                Step::Other(avro_type) => {
                    skip(avro_type, input).ok_or(ValueError::Damaged)?;
                }
            }
        }
        let operation = operation.ok_or(ValueError::Damaged)?;
        if !input.is_empty() {
            return Err(ValueError::Damaged);
        }
        match (operation, has_row, before) {
            (Operation::Delete, false, Some(mut before)) => self.read_row(&mut before, columns)?,
            (Operation::Truncate, false, _) => {}
            (Operation::Create | Operation::Update | Operation::Read, true, _) => {}
            _ => return Err(ValueError::Damaged),
        }
        let operation = match operation {
            Operation::Read if origin.incremental => Operation::ReadAgain,
            other => other,
        };
        let millis = origin.millis.and_then(|millis| millis.checked_mul(1000));
        let changed_at_us = origin.micros.or(millis);
        Ok(Change { operation, changed_at_us: changed_at_us.unwrap_or(0) })
    }

    /// Reads one row and adds it to the columns. After an error they may hold a part of it.
    pub fn read_row(
        &self,
        input: &mut &[u8],
        columns: &mut [ColumnBuilder],
    ) -> Result<(), ValueError> {
        self.columns.iter().zip(columns).try_for_each(|(reader, column)| reader.read(input, column))
    }
}

fn row_type(field: &AvroField) -> Result<(Option<i64>, &Arc<AvroType>), String> {
    optional(&field.avro_type).ok_or_else(|| format!("the envelope's `{}` is no row", field.name))
}

fn step(field: &AvroField) -> Result<Step, String> {
    Ok(match field.name.as_str() {
        "before" => {
            let (null_branch, row) = row_type(field)?;
            Step::Before { null_branch, row: Arc::clone(row) }
        }
        "after" => Step::After { null_branch: row_type(field)?.0 },
        "op" if matches!(field.avro_type.kind, AvroKind::String) => Step::Operation,
        "op" => return Err("the envelope's `op` is no text".to_owned()),
        "source" => match &field.avro_type.kind {
            AvroKind::Record(fields) => Step::Source(fields.iter().map(source_step).collect()),
            _ => Step::Other(Arc::clone(&field.avro_type)),
        },
        _ => Step::Other(Arc::clone(&field.avro_type)),
    })
}

fn source_step(field: &AvroField) -> SourceStep {
    match (field.name.as_str(), optional(&field.avro_type)) {
        ("ts_us", Some((null_branch, value))) if matches!(value.kind, AvroKind::Long) => {
            SourceStep::Micros { null_branch }
        }
        ("ts_ms", Some((null_branch, value))) if matches!(value.kind, AvroKind::Long) => {
            SourceStep::Millis { null_branch }
        }
        ("snapshot", Some((null_branch, value))) if matches!(value.kind, AvroKind::String) => {
            SourceStep::Snapshot { null_branch }
        }
        _ => SourceStep::Other(Arc::clone(&field.avro_type)),
    }
}

fn read_source(steps: &[SourceStep], input: &mut &[u8]) -> Result<Origin, ValueError> {
    let mut origin = Origin::default();
    for step in steps {
        match step {
            SourceStep::Micros { null_branch } => {
                if is_there(*null_branch, input)? {
                    origin.micros = Some(read_long(input).ok_or(ValueError::Damaged)?);
                }
            }
            SourceStep::Millis { null_branch } => {
                if is_there(*null_branch, input)? {
                    origin.millis = Some(read_long(input).ok_or(ValueError::Damaged)?);
                }
            }
            SourceStep::Snapshot { null_branch } => {
                if is_there(*null_branch, input)? {
                    let text = read_bytes(input).ok_or(ValueError::Damaged)?;
                    origin.incremental = text == b"incremental";
                }
            }
            SourceStep::Other(avro_type) => {
                skip(avro_type, input).ok_or(ValueError::Damaged)?;
            }
        }
    }
    Ok(origin)
}

fn is_there(null_branch: Option<i64>, input: &mut &[u8]) -> Result<bool, ValueError> {
    let Some(null_branch) = null_branch else { return Ok(true) };
    match read_long(input) {
        Some(branch @ (0 | 1)) => Ok(branch != null_branch),
        _ => Err(ValueError::Damaged),
    }
}
