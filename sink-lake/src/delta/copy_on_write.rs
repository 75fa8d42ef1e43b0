//! Copies a data file with some of its rows replaced or left out, batch by batch.

use std::path::Path;

use arrow::{array::RecordBatch, compute::interleave_record_batch};
use hashbrown::HashMap;

use super::data_file::{DataFileWriter, open_columns};
use crate::{
    collapse::KeyChange,
    error::SinkError,
    key_hash::{KeyHash, KeyHashBuilder, key_hashes},
    schema_evolution::conform,
};

/// Changes of keys that are in the table.
pub type ChangesByKey = HashMap<KeyHash, KeyChange, KeyHashBuilder>;

/// What is done to the rows on their way.
pub struct Rewrite<'a> {
    /// The key's columns.
    pub key: &'a [String],
    /// The changes; keys of other files may be among them.
    pub changes: &'a ChangesByKey,
    /// The batches that upserts point into, in the table's columns.
    pub sources: &'a [RecordBatch],
}

/// Copies the rows of the file at `path`; returns how many of them were replaced or left out.
pub fn rewrite(
    path: &Path,
    rewrite: &Rewrite<'_>,
    writer: &mut DataFileWriter,
) -> Result<usize, SinkError> {
    let unfit = |reason: String| SinkError::Delta { place: path.display().to_string(), reason };
    let schema = writer.schema().clone();
    let mut changed = 0;
    for rows in open_columns(path, None)? {
        let rows = rows.map_err(|error| unfit(error.to_string()))?;
        let rows = conform(&rows, &schema).map_err(|error| unfit(error.to_string()))?;
        if rewrite.changes.is_empty() {
            writer.write(&rows)?;
            continue;
        }
        let hashes = key_hashes(&rows, rewrite.key).map_err(unfit)?;
        let (places, changed_here) = places(&hashes, rewrite.changes);
        changed += changed_here;
        if changed_here == 0 {
            writer.write(&rows)?;
        } else if !places.is_empty() {
            let batches: Vec<&RecordBatch> =
                std::iter::once(&rows).chain(rewrite.sources).collect();
            let rows = interleave_record_batch(&batches, &places);
            writer.write(&rows.map_err(|error| unfit(error.to_string()))?)?;
        }
    }
    Ok(changed)
}

/// Where each row of the copy comes from: batch 0 is the file's, the others are the sources.
fn places(hashes: &[KeyHash], changes: &ChangesByKey) -> (Vec<(usize, usize)>, usize) {
    let mut places = Vec::with_capacity(hashes.len());
    let mut changed = 0;
    for (row, hash) in hashes.iter().enumerate() {
        match changes.get(hash) {
            None => places.push((0, row)),
            Some(KeyChange::Upsert(place)) => {
                changed += 1;
                places.push((place.batch as usize + 1, place.row as usize));
            }
            Some(KeyChange::Delete) => changed += 1,
        }
    }
    (places, changed)
}
