//! Of each key only the last change in a batch counts: what is left is one upsert or one delete per key.

use hashbrown::{HashMap, HashSet, hash_map::Entry};

use crate::{
    flow::{ChangeBatch, Operation},
    key_hash::{KeyHash, KeyHashBuilder},
};

/// A row of a batch: which one, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowPlace {
    /// The batch's index among the row batches.
    pub batch: u32,
    /// The row in it.
    pub row: u32,
}

/// What to do with one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// The row is now this one.
    Upsert(RowPlace),
    /// The row is gone.
    Delete,
}

/// A batch's changes, one per key, in the order in which the keys were first seen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Collapsed {
    /// Whether the table was emptied; the changes are those after it.
    pub truncated: bool,
    /// The changes.
    pub changes: Vec<(KeyHash, KeyChange)>,
}

/// Collapses changes; `hashes` holds the key hashes of each row batch, in order. Rows in `lost` (batch and row) count for
/// nothing.
pub fn collapse(
    changes: &[ChangeBatch],
    hashes: &[Vec<KeyHash>],
    lost: &HashSet<(u32, u32)>,
) -> Collapsed {
    let mut collapsed = Collapsed::default();
    let rows = hashes.iter().map(Vec::len).sum();
    let mut places: HashMap<KeyHash, usize, KeyHashBuilder> =
        HashMap::with_capacity_and_hasher(rows, KeyHashBuilder::default());
    let mut batch_index = 0;
    for change in changes {
        let batch = match change {
            ChangeBatch::Truncate { .. } => {
                collapsed.truncated = true;
                collapsed.changes.clear();
                places.clear();
                continue;
            }
            ChangeBatch::Rows(batch) => batch,
        };
        let hashes = hashes.get(batch_index).map_or(&[][..], Vec::as_slice);
        for (row, (&hash, operation)) in hashes.iter().zip(&batch.operations).enumerate() {
            if !lost.is_empty() && lost.contains(&(batch_index as u32, row as u32)) {
                continue;
            }
            let change = match operation {
                Operation::Delete => KeyChange::Delete,
                _ => KeyChange::Upsert(RowPlace { batch: batch_index as u32, row: row as u32 }),
            };
            match places.entry(hash) {
                Entry::Occupied(place) => collapsed.changes[*place.get()].1 = change,
                Entry::Vacant(place) => {
                    place.insert(collapsed.changes.len());
                    collapsed.changes.push((hash, change));
                }
            }
        }
        batch_index += 1;
    }
    collapsed
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use arrow::array::{Int64Array, RecordBatch};
    use proptest::prelude::*;

    use super::*;
    use crate::flow::RowBatch;

    fn batch(operations: &[Operation]) -> ChangeBatch {
        let ids = Arc::new(Int64Array::from(vec![0; operations.len()]));
        ChangeBatch::Rows(RowBatch {
            partition: 0,
            rows: RecordBatch::try_from_iter([("id", ids as _)]).expect("one column"),
            operations: operations.to_vec(),
            offsets: vec![0; operations.len()],
            changed_at_us: vec![0; operations.len()],
            partial: Vec::new(),
            bytes: 0,
        })
    }

    proptest! {
        #[test]
        fn the_last_change_of_each_key_counts(
            batches in prop::collection::vec(prop::option::weighted(0.8, prop::collection::vec((0u128..9, any::<bool>()), 0..20)), 0..8),
        ) {
            let (mut changes, mut hashes) = (Vec::new(), Vec::new());
            let (mut model, mut truncated) = (BTreeMap::new(), false);
            for rows in &batches {
                let Some(rows) = rows else {
                    changes.push(ChangeBatch::Truncate { partition: 0, offset: 0 });
                    model.clear();
                    truncated = true;
                    continue;
                };
                for (row, &(key, deleted)) in rows.iter().enumerate() {
                    let place = RowPlace { batch: hashes.len() as u32, row: row as u32 };
                    model.insert(key, if deleted { KeyChange::Delete } else { KeyChange::Upsert(place) });
                }
                let operation = |&(_, deleted): &(u128, bool)| if deleted { Operation::Delete } else { Operation::Update };
                changes.push(batch(&rows.iter().map(operation).collect::<Vec<_>>()));
                hashes.push(rows.iter().map(|row| row.0).collect());
            }
            let collapsed = collapse(&changes, &hashes, &HashSet::default());
            prop_assert_eq!(collapsed.truncated, truncated);
            prop_assert_eq!(collapsed.changes.len(), model.len());
            prop_assert_eq!(collapsed.changes.into_iter().collect::<BTreeMap<_, _>>(), model);
        }
    }
}
