//! Reads the rows of a table's files in canonical form, one batch at a time.

use std::{path::PathBuf, sync::Arc};

use arrow::{
    array::{Array, AsArray, Int64Array},
    datatypes::{Int64Type, Schema, SchemaRef},
};

use super::{CanonicalRow, canonical::CanonicalColumn, digest_of};
use crate::{
    delta::data_file::{DataFile, open_columns},
    error::SinkError,
    schema_evolution::{conform, position},
};

/// What to read.
pub struct FileReader {
    /// The table's folder.
    pub folder: PathBuf,
    /// The columns of its files.
    pub schema: SchemaRef,
    /// The files of one version.
    pub files: Vec<DataFile>,
    /// The columns to read: the source's, then key columns that are not among them, then those of a history table.
    pub wanted: Vec<String>,
    /// How many of them make the row.
    pub columns: usize,
    /// Which of them are the key; none when the row is its own key.
    pub key: Vec<usize>,
    /// Where a history table tells of its versions.
    pub history: Option<HistoryColumns>,
}

/// Places among the columns to read.
#[derive(Clone, Copy, Debug)]
pub struct HistoryColumns {
    /// The sequence.
    pub sequence: usize,
    /// The operation.
    pub operation: usize,
}

/// One row while it is being looked at.
pub struct Row<'a> {
    reader: &'a FileReader,
    columns: &'a [CanonicalColumn],
    sequences: Option<&'a Int64Array>,
    row: usize,
}

impl FileReader {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.files.iter().map(|file| usize::try_from(file.rows).unwrap_or(0)).sum()
    }

    /// Shows every row.
    pub fn for_each(&self, mut show: impl FnMut(&Row<'_>)) -> Result<(), SinkError> {
        let places: Vec<Option<usize>> =
            self.wanted.iter().map(|name| position(self.schema.fields(), name)).collect();
        let mut distinct: Vec<usize> = places.iter().flatten().copied().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let fields = distinct.iter().map(|&at| self.schema.field(at).clone());
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let mut columns: Vec<CanonicalColumn> =
            self.wanted.iter().map(|_| CanonicalColumn::default()).collect();
        for file in &self.files {
            let path = self.folder.join(&file.path);
            let failed = |error: arrow::error::ArrowError| SinkError::File {
                place: path.display().to_string(),
                reason: error.to_string(),
            };
            for rows in open_columns(&path, Some(&names))? {
                let rows = conform(&rows.map_err(failed)?, &schema).map_err(failed)?;
                for (column, place) in columns.iter_mut().zip(&places) {
                    match place.and_then(|at| distinct.binary_search(&at).ok()) {
                        Some(at) => column.fill(rows.column(at)),
                        None => column.fill_null(rows.num_rows()),
                    }
                }
                let sequences = self
                    .history
                    .map(|history| history.sequence)
                    .and_then(|at| places.get(at).copied().flatten())
                    .and_then(|at| distinct.binary_search(&at).ok())
                    .and_then(|at| rows.column(at).as_primitive_opt::<Int64Type>());
                for row in 0..rows.num_rows() {
                    show(&Row { reader: self, columns: &columns, sequences, row });
                }
            }
        }
        Ok(())
    }
}

impl Row<'_> {
    /// The digest of its key.
    pub fn key_digest(&self) -> u128 {
        if self.reader.key.is_empty() {
            return self.row_digest();
        }
        digest_of(self.columns, self.reader.key.iter().copied(), self.row)
    }

    /// The digest of all its values.
    pub fn row_digest(&self) -> u128 {
        digest_of(self.columns, 0..self.reader.columns, self.row)
    }

    /// Its place in the order of changes; 0 in a state table.
    pub fn sequence(&self) -> i64 {
        let sequences = self.sequences.filter(|sequences| sequences.is_valid(self.row));
        sequences.map_or(0, |sequences| sequences.value(self.row))
    }

    /// The operation that brought it; `None` in a state table.
    pub fn operation(&self) -> Option<&[u8]> {
        self.columns.get(self.reader.history?.operation)?.value(self.row)
    }

    /// All its values.
    pub fn values(&self) -> CanonicalRow {
        self.columns
            .iter()
            .take(self.reader.columns)
            .map(|column| column.value(self.row).map(<[u8]>::to_vec))
            .collect()
    }
}
