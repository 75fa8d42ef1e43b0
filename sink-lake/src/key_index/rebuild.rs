//! Rebuilds a table's key index by reading the key columns of its data files, one file after the other.

use std::path::Path;

use arrow::datatypes::SchemaRef;

use super::{KeyIndex, SlotId, Slots};
use crate::{
    delta::data_file::{DataFile, open_columns},
    error::SinkError,
    key_hash::key_hashes,
    schema_evolution::conform,
};

/// An index over files, and how many rows have a key that another row has too (0 in a sound table).
pub struct Rebuilt {
    /// Key hash to slot.
    pub index: KeyIndex,
    /// Slot to file.
    pub slots: Slots,
    /// Rows whose key occurs more than once.
    pub doubled: usize,
}

/// Reads the files' keys.
pub fn rebuild(
    folder: &Path,
    schema: &SchemaRef,
    key: &[String],
    files: Vec<DataFile>,
) -> Result<Rebuilt, SinkError> {
    let mut rebuilt = Rebuilt { index: KeyIndex::default(), slots: Slots::default(), doubled: 0 };
    let rows: u64 = files.iter().map(|file| file.rows).sum();
    rebuilt.index.reserve(usize::try_from(rows).unwrap_or(0));
    let unfit = |reason: String| SinkError::Delta { place: folder.display().to_string(), reason };
    let at = key
        .iter()
        .map(|name| {
            crate::schema_evolution::position(schema.fields(), name)
                .ok_or_else(|| unfit(format!("key column {name} is not in the table")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let key_schema = schema.project(&at).map_err(|error| unfit(error.to_string()))?.into();
    for file in files {
        let path = folder.join(&file.path);
        let slot: SlotId = rebuilt.slots.add(file);
        for rows in open_columns(&path, Some(key))? {
            let rows = rows.map_err(|error| unfit(error.to_string()))?;
            let rows = conform(&rows, &key_schema).map_err(|error| unfit(error.to_string()))?;
            for hash in key_hashes(&rows, key).map_err(unfit)? {
                rebuilt.doubled += usize::from(rebuilt.index.insert(hash, slot).is_some());
            }
        }
    }
    Ok(rebuilt)
}
