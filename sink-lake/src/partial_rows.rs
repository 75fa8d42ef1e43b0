//! Rows whose record lacks columns, because the binlog did not carry them: each is completed from the row as it was
//! before, earlier in the same batch or in the lake. A row that has none to be completed from is set apart.

use std::rc::Rc;

use arrow::{
    array::{Array, RecordBatch},
    compute::interleave,
    datatypes::SchemaRef,
    error::ArrowError,
};
use hashbrown::{HashMap, HashSet};

use crate::{
    collapse::RowPlace,
    flow::{ChangeBatch, DeadLetter, Operation, PartialRow, RowBatch},
    key_hash::{KeyHash, KeyHashBuilder},
    schema_evolution::position,
};

/// Where each column of a row is: a batch of [`Completed::sources`] and the row in it.
type Cells = Rc<[(u32, u32)]>;

/// Rows of the lake that partial rows are completed from.
#[derive(Debug, Default)]
pub struct FoundRows {
    /// The rows, in the table's columns.
    pub batches: Vec<RecordBatch>,
    /// Where each key's row is in `batches`.
    pub places: HashMap<KeyHash, RowPlace, KeyHashBuilder>,
}

/// The partial rows of a batch of changes, completed.
#[derive(Debug, Default)]
pub struct Completed {
    cells: HashMap<(u32, u32), Cells>,
    /// Rows that can't be completed: they count for nothing.
    pub lost: HashSet<(u32, u32)>,
    /// The same as letters.
    pub letters: Vec<DeadLetter>,
}

/// The keys whose earlier rows are needed.
pub fn wanted_keys(
    changes: &[ChangeBatch],
    hashes: &[Vec<KeyHash>],
) -> HashSet<KeyHash, KeyHashBuilder> {
    let mut wanted = HashSet::default();
    for (batch, hashes) in row_batches(changes).zip(hashes) {
        for partial in &batch.partial {
            wanted.extend(partial.old_key.or_else(|| hashes.get(partial.row).copied()));
        }
    }
    wanted
}

/// Completes all partial rows. `sources` are the changes' rows in the table's columns; `found` are the lake's rows for
/// [`wanted_keys`].
pub fn complete(
    changes: &[ChangeBatch],
    hashes: &[Vec<KeyHash>],
    sources: &[RecordBatch],
    found: &FoundRows,
    schema: &SchemaRef,
) -> Completed {
    let wanted = wanted_keys(changes, hashes);
    let mut completed = Completed::default();
    // Of wanted keys: the row after the changes so far, `None` for a deleted one.
    let mut current: HashMap<KeyHash, Option<Cells>, KeyHashBuilder> = HashMap::default();
    let columns = schema.fields().len();
    let whole = |batch: usize, row: usize| Cells::from(vec![(batch as u32, row as u32); columns]);
    for (hash, place) in &found.places {
        let batch = sources.len() + place.batch as usize;
        current.insert(*hash, Some(whole(batch, place.row as usize)));
    }
    let mut batch_index = 0;
    for change in changes {
        let ChangeBatch::Rows(batch) = change else {
            current.clear();
            continue;
        };
        let source_columns = batch.rows.schema_ref().fields();
        let in_source: Vec<Option<usize>> =
            schema.fields().iter().map(|field| position(source_columns, field.name())).collect();
        let mut partial_rows = batch.partial.iter().peekable();
        let hashes = hashes.get(batch_index).map_or(&[][..], Vec::as_slice);
        for (row, (&hash, operation)) in hashes.iter().zip(&batch.operations).enumerate() {
            let Some(partial) = partial_rows.next_if(|partial| partial.row == row) else {
                if wanted.contains(&hash) {
                    let cells = (*operation != Operation::Delete).then(|| whole(batch_index, row));
                    current.insert(hash, cells);
                }
                continue;
            };
            let place = (batch_index as u32, row as u32);
            let Some(base) = current.get(&partial.old_key.unwrap_or(hash)).cloned().flatten()
            else {
                completed.lost.insert(place);
                if !partial.before_snapshot {
                    completed.letters.push(letter(partial));
                }
                continue;
            };
            let absent = |column: &Option<usize>| column.is_some_and(|i| partial.is_absent(i));
            let cells: Cells = in_source
                .iter()
                .zip(base.iter())
                .map(|(column, &cell)| if absent(column) { cell } else { place })
                .collect();
            if wanted.contains(&hash) {
                current.insert(hash, Some(Rc::clone(&cells)));
            }
            completed.cells.insert(place, cells);
        }
        batch_index += 1;
    }
    completed
}

impl Completed {
    /// Whether the row was partial and is complete now.
    pub fn has(&self, place: RowPlace) -> bool {
        self.cells.contains_key(&(place.batch, place.row))
    }

    /// These rows as one batch; `sources` are followed by the lake's rows.
    pub fn rows(
        &self,
        places: &[RowPlace],
        sources: &[RecordBatch],
        schema: &SchemaRef,
    ) -> Result<RecordBatch, ArrowError> {
        let columns = (0..schema.fields().len())
            .map(|column| {
                let arrays: Vec<&dyn Array> =
                    sources.iter().map(|rows| rows.column(column).as_ref()).collect();
                let cells: Vec<(usize, usize)> = places
                    .iter()
                    .filter_map(|place| self.cells.get(&(place.batch, place.row)))
                    .map(|cells| (cells[column].0 as usize, cells[column].1 as usize))
                    .collect();
                interleave(&arrays, &cells)
            })
            .collect::<Result<Vec<_>, _>>()?;
        RecordBatch::try_new(schema.clone(), columns)
    }
}

fn row_batches(changes: &[ChangeBatch]) -> impl Iterator<Item = &RowBatch> {
    changes.iter().filter_map(|change| match change {
        ChangeBatch::Rows(batch) => Some(batch),
        ChangeBatch::Truncate { .. } => None,
    })
}

fn letter(partial: &PartialRow) -> DeadLetter {
    DeadLetter {
        reason: "it lacks columns (binlog_row_image) and the lake has no earlier row of its key to take them from"
            .to_owned(),
        ..partial.record.clone()
    }
}
