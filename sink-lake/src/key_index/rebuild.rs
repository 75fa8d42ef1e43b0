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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{
            ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array,
            Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
            TimestampMicrosecondArray,
        },
        datatypes::Schema,
    };

    use super::*;
    use crate::delta::data_file::DataFileWriter;

    #[test]
    fn keys_of_every_type_hash_alike_before_and_after_the_lake() {
        let timestamps = TimestampMicrosecondArray::from(vec![-1, 5]).with_timezone("UTC");
        let decimals = Decimal128Array::from(vec![i128::from(u64::MAX), -3]);
        let decimals = decimals.with_precision_and_scale(20, 0).expect("fits");
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(Int16Array::from(vec![-5, 5]))),
            ("b", Arc::new(Int32Array::from(vec![7, 8]))),
            ("c", Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX]))),
            ("d", Arc::new(Date32Array::from(vec![-1, 20_000]))),
            ("e", Arc::new(timestamps)),
            ("f", Arc::new(decimals)),
            ("g", Arc::new(BooleanArray::from(vec![true, false]))),
            ("h", Arc::new(Float32Array::from(vec![0.1, -0.0]))),
            ("i", Arc::new(Float64Array::from(vec![0.1, 1e300]))),
            ("j", Arc::new(StringArray::from(vec!["", "grüß"]))),
            ("k", Arc::new(BinaryArray::from(vec![&b"\0\xff"[..], b""]))),
        ];
        let key: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
        let rows = RecordBatch::try_from_iter(columns).expect("columns");
        let fields = rows.schema_ref().fields().iter();
        let fields = fields.map(|field| field.as_ref().clone().with_nullable(true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let rows = conform(&rows, &schema).expect("conforms");
        let hashes = key_hashes(&rows, &key).expect("hashes");
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = DataFileWriter::create(folder.path(), &schema, None).expect("creates");
        writer.write(&rows).expect("writes");
        let file = writer.finish().expect("finishes").expect("has rows").file;
        // The order of the key decides, not that of the columns.
        let reversed: Vec<String> = key.iter().rev().cloned().collect();
        for (key, same) in [(&key, true), (&reversed, false)] {
            let rebuilt = rebuild(folder.path(), &schema, key, vec![file.clone()]);
            let rebuilt = rebuilt.expect("rebuilds");
            assert_eq!(rebuilt.index.len(), 2);
            assert!(hashes.iter().all(|hash| rebuilt.index.get(*hash).is_some() == same));
        }
    }
}
