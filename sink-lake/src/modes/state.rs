//! State tables: one row per key, equal to the source. Changed keys are found by the index; only the files that hold
//! them are copied, with their rows replaced or left out; rows of new keys go into a new file.

use std::{collections::BTreeMap, path::Path};

use arrow::{
    array::RecordBatch, compute::interleave_record_batch, datatypes::SchemaRef, error::ArrowError,
};
use hashbrown::HashSet;

use crate::{
    collapse::{Collapsed, KeyChange, RowPlace, collapse},
    delta::{
        copy_on_write::{ChangesByKey, Rewrite, rewrite},
        data_file::{
            DataFile, DataFileWriter, SMALL_BYTES, SMALL_FILES_MAX, StagedFile, TARGET_BYTES,
            open_columns,
        },
    },
    error::SinkError,
    flow::{ChangeBatch, DeadLetter},
    key_hash::{KeyHash, KeyHashBuilder, key_hashes},
    key_index::{KeyIndex, SlotId, Slots, rebuild},
    partial_rows::{Completed, FoundRows, complete, wanted_keys},
    schema_evolution::conform,
};

const WRITE_ROWS: usize = 8192;

/// Where the rows are.
#[derive(Debug, Default)]
pub struct StateTable {
    index: KeyIndex,
    slots: Slots,
}

/// Files that were written, and what to remember once they are committed.
#[derive(Debug, Default)]
pub struct StagedState {
    truncated: bool,
    removes: Vec<DataFile>,
    outputs: Vec<Output>,
    /// New keys, all in one output.
    inserted: Vec<KeyHash>,
    inserted_output: usize,
    deleted: Vec<KeyHash>,
    lost: Vec<DeadLetter>,
}

#[derive(Debug)]
struct Output {
    inputs: Vec<SlotId>,
    file: Option<StagedFile>,
}

/// A batch's changes sorted by what they need.
#[derive(Default)]
struct Located {
    truncated: bool,
    changes: ChangesByKey,
    changes_per_slot: BTreeMap<SlotId, usize>,
    inserts: Vec<(KeyHash, RowPlace)>,
    deleted: Vec<KeyHash>,
}

impl StateTable {
    /// Reads the keys of a table's files.
    pub fn load(
        folder: &Path,
        schema: &SchemaRef,
        key: &[String],
        files: Vec<DataFile>,
    ) -> Result<Self, SinkError> {
        let rebuilt = rebuild(folder, schema, key, files)?;
        if rebuilt.doubled > 0 {
            tracing::warn!(
                table = %folder.display(),
                rows = rebuilt.doubled,
                "rows have keys that other rows have too; verify the table"
            );
        }
        Ok(Self { index: rebuilt.index, slots: rebuilt.slots })
    }

    /// How many keys are in the table.
    pub fn keys(&self) -> usize {
        self.index.len()
    }

    /// Writes the files that a batch needs; the table itself is not changed.
    pub fn stage(
        &self,
        folder: &Path,
        schema: &SchemaRef,
        key: &[String],
        changes: &[ChangeBatch],
    ) -> Result<StagedState, SinkError> {
        let unfit =
            |reason: String| SinkError::Delta { place: folder.display().to_string(), reason };
        let (mut sources, mut hashes) = (Vec::new(), Vec::new());
        for change in changes {
            if let ChangeBatch::Rows(batch) = change {
                let rows =
                    conform(&batch.rows, schema).map_err(|error| unfit(error.to_string()))?;
                hashes.push(key_hashes(&rows, key).map_err(unfit)?);
                sources.push(rows);
            }
        }
        let mut completed = Completed::default();
        let wanted = wanted_keys(changes, &hashes);
        let mut collapsed = if wanted.is_empty() {
            collapse(changes, &hashes, &completed.lost)
        } else {
            let found = self.find(folder, schema, key, &wanted)?;
            completed = complete(changes, &hashes, &sources, &found, schema);
            sources.extend(found.batches);
            collapse(changes, &hashes, &completed.lost)
        };
        use_whole_rows(&mut collapsed, &completed, &mut sources, schema)
            .map_err(|error| unfit(error.to_string()))?;
        let located = self.locate(collapsed);
        drop(hashes);
        let plan = self.plan(&located);
        let mut staged = StagedState {
            truncated: located.truncated,
            deleted: located.deleted,
            inserted_output: plan.inserts_in,
            lost: completed.letters,
            ..StagedState::default()
        };
        if located.truncated {
            staged.removes = self.slots.files().map(|(_, file)| file.clone()).collect();
        }
        let work = Rewrite { key, changes: &located.changes, sources: &sources };
        for (number, inputs) in plan.outputs.into_iter().enumerate() {
            let inserts: &[_] = if number == plan.inserts_in { &located.inserts } else { &[] };
            let mut writer = DataFileWriter::create(folder, schema, None)?;
            for &slot in &inputs {
                let Some(file) = self.slots.file(slot) else { continue };
                let expected = located.changes_per_slot.get(&slot).copied().unwrap_or(0);
                let changed = rewrite(&folder.join(&file.path), &work, &mut writer)?;
                if changed != expected {
                    return Err(unfit(format!(
                        "the key index expects {expected} changed rows in {} and there are {changed}; it is rebuilt",
                        file.path
                    )));
                }
                staged.removes.push(file.clone());
            }
            write_inserts(inserts, &sources, &mut writer).map_err(|error| match error {
                WriteInsertsError::Arrow(error) => unfit(error.to_string()),
                WriteInsertsError::Sink(error) => error,
            })?;
            staged.outputs.push(Output { inputs, file: writer.finish()? });
        }
        staged.inserted = located.inserts.into_iter().map(|(hash, _)| hash).collect();
        Ok(staged)
    }

    /// Remembers what was committed.
    pub fn apply(&mut self, staged: StagedState) {
        if staged.truncated {
            self.index.clear();
            self.slots.clear();
        }
        for hash in &staged.deleted {
            self.index.remove(*hash);
        }
        for (number, output) in staged.outputs.into_iter().enumerate() {
            let slot = self.slots.replace(&output.inputs, output.file.map(|staged| staged.file));
            if let (Some(slot), true) = (slot, number == staged.inserted_output) {
                self.index.reserve(staged.inserted.len());
                for hash in &staged.inserted {
                    self.index.insert(*hash, slot);
                }
            }
        }
    }

    /// Reads the rows of these keys.
    fn find(
        &self,
        folder: &Path,
        schema: &SchemaRef,
        key: &[String],
        wanted: &HashSet<KeyHash, KeyHashBuilder>,
    ) -> Result<FoundRows, SinkError> {
        let mut found = FoundRows::default();
        let mut slots: Vec<SlotId> = wanted
            .iter()
            .filter_map(|&hash| self.index.get(hash))
            .map(|slot| self.slots.resolve(slot))
            .collect();
        let expected = slots.len();
        slots.sort();
        slots.dedup();
        for slot in slots {
            let Some(file) = self.slots.file(slot) else { continue };
            let path = folder.join(&file.path);
            let unfit = |reason: String| SinkError::Delta { place: file.path.clone(), reason };
            for rows in open_columns(&path, None)? {
                let rows = rows.and_then(|rows| conform(&rows, schema));
                let rows = rows.map_err(|error| unfit(error.to_string()))?;
                let hashes = key_hashes(&rows, key).map_err(unfit)?;
                let mut places = Vec::new();
                for (row, hash) in hashes.iter().enumerate() {
                    if wanted.contains(hash) {
                        let place = RowPlace {
                            batch: found.batches.len() as u32,
                            row: places.len() as u32,
                        };
                        found.places.insert(*hash, place);
                        places.push((0, row));
                    }
                }
                if !places.is_empty() {
                    let rows = interleave_record_batch(&[&rows], &places);
                    found.batches.push(rows.map_err(|error| unfit(error.to_string()))?);
                }
            }
        }
        if found.places.len() != expected {
            return Err(SinkError::Delta {
                place: folder.display().to_string(),
                reason: format!(
                    "the key index expects {expected} rows to complete others from and there are {}; it is rebuilt",
                    found.places.len()
                ),
            });
        }
        Ok(found)
    }

    fn locate(&self, collapsed: Collapsed) -> Located {
        let mut located = Located { truncated: collapsed.truncated, ..Located::default() };
        for (hash, change) in collapsed.changes {
            let slot = if collapsed.truncated { None } else { self.index.get(hash) };
            match (slot, change) {
                (Some(slot), change) => {
                    let slot = self.slots.resolve(slot);
                    *located.changes_per_slot.entry(slot).or_default() += 1;
                    located.changes.insert(hash, change);
                    if change == KeyChange::Delete {
                        located.deleted.push(hash);
                    }
                }
                (None, KeyChange::Upsert(place)) => located.inserts.push((hash, place)),
                // A row that came and went within the batch, or a delete that was applied before.
                (None, KeyChange::Delete) => {}
            }
        }
        located
    }

    fn plan(&self, located: &Located) -> Plan {
        if located.truncated {
            return Plan::new(Vec::new(), !located.inserts.is_empty());
        }
        let files: Vec<(SlotId, u64)> =
            self.slots.files().map(|(slot, file)| (slot, file.size)).collect();
        let touched: Vec<SlotId> = located.changes_per_slot.keys().copied().collect();
        plan_outputs(&files, &touched, !located.inserts.is_empty())
    }
}

impl StagedState {
    /// Files for the commit.
    pub fn adds(&self) -> Vec<StagedFile> {
        self.outputs.iter().filter_map(|output| output.file.clone()).collect()
    }

    /// Records whose rows can't be completed.
    pub fn lost(&self) -> &[DeadLetter] {
        &self.lost
    }

    /// Files that the commit replaces.
    pub fn removes(&self) -> Vec<DataFile> {
        self.removes.clone()
    }
}

/// Puts completed rows, as a batch of their own, in the place of partial ones.
fn use_whole_rows(
    collapsed: &mut Collapsed,
    completed: &Completed,
    sources: &mut Vec<RecordBatch>,
    schema: &SchemaRef,
) -> Result<(), ArrowError> {
    let batch = sources.len() as u32;
    let mut places = Vec::new();
    for (_, change) in &mut collapsed.changes {
        if let KeyChange::Upsert(place) = change
            && completed.has(*place)
        {
            places.push(*place);
            *place = RowPlace { batch, row: places.len() as u32 - 1 };
        }
    }
    if !places.is_empty() {
        let rows = completed.rows(&places, sources, schema)?;
        sources.push(rows);
    }
    Ok(())
}

/// Which files to write, each from the files of these slots.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    outputs: Vec<Vec<SlotId>>,
    /// The output that new rows go to.
    inserts_in: usize,
}

impl Plan {
    fn new(mut outputs: Vec<Vec<SlotId>>, has_inserts: bool) -> Self {
        let inserts_in = outputs.len();
        if has_inserts {
            outputs.push(Vec::new());
        }
        Self { outputs, inserts_in }
    }
}

/// Copies each touched file into one of its own. When there are too many small files they become one, and new rows go
/// there too; otherwise new rows go into a touched small file, which is copied anyway, or into a new one.
fn plan_outputs(files: &[(SlotId, u64)], touched: &[SlotId], has_inserts: bool) -> Plan {
    let small: Vec<(SlotId, u64)> =
        files.iter().copied().filter(|&(_, size)| size < SMALL_BYTES).collect();
    if small.len() + usize::from(has_inserts) > SMALL_FILES_MAX {
        let (mut folded, mut bytes) = (Vec::new(), 0);
        for &(slot, size) in &small {
            if bytes < TARGET_BYTES {
                folded.push(slot);
                bytes += size;
            }
        }
        let mut outputs: Vec<Vec<SlotId>> =
            touched.iter().filter(|slot| !folded.contains(slot)).map(|&slot| vec![slot]).collect();
        outputs.push(folded);
        let inserts_in = outputs.len() - 1;
        return Plan { outputs, inserts_in };
    }
    let outputs: Vec<Vec<SlotId>> = touched.iter().map(|&slot| vec![slot]).collect();
    let copied_small = touched.iter().position(|slot| small.iter().any(|(small, _)| small == slot));
    match copied_small {
        Some(inserts_in) if has_inserts => Plan { outputs, inserts_in },
        _ => Plan::new(outputs, has_inserts),
    }
}

enum WriteInsertsError {
    Arrow(arrow::error::ArrowError),
    Sink(SinkError),
}

fn write_inserts(
    inserts: &[(KeyHash, RowPlace)],
    sources: &[RecordBatch],
    writer: &mut DataFileWriter,
) -> Result<(), WriteInsertsError> {
    let batches: Vec<&RecordBatch> = sources.iter().collect();
    for chunk in inserts.chunks(WRITE_ROWS) {
        let places: Vec<(usize, usize)> =
            chunk.iter().map(|(_, place)| (place.batch as usize, place.row as usize)).collect();
        let rows = interleave_record_batch(&batches, &places).map_err(WriteInsertsError::Arrow)?;
        writer.write(&rows).map_err(WriteInsertsError::Sink)?;
    }
    Ok(())
}

#[cfg(test)]
mod partial_tests;
#[cfg(test)]
mod tests;
