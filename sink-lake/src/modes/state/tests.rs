//! A state table after any batches equals a map of its keys, and is rebuilt from its files alone.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{AsArray, Int64Array, StringArray},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use proptest::prelude::*;

use super::*;
use crate::{
    delta::data_file::open_columns,
    flow::{Operation, RowBatch},
};

fn schema() -> SchemaRef {
    let fields =
        vec![Field::new("id", DataType::Int64, true), Field::new("v", DataType::Utf8, true)];
    Arc::new(Schema::new(fields))
}

fn batch(rows: &[(i64, Option<String>)]) -> ChangeBatch {
    let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.0));
    let values: StringArray = rows.iter().map(|row| row.1.clone()).collect();
    let operations = rows.iter().map(|row| match row.1 {
        Some(_) => Operation::Update,
        None => Operation::Delete,
    });
    ChangeBatch::Rows(RowBatch {
        partition: 0,
        rows: RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(values)]).expect("fits"),
        operations: operations.collect(),
        offsets: (0..rows.len() as i64).collect(),
        changed_at_us: vec![0; rows.len()],
        partial: Vec::new(),
        bytes: 0,
    })
}

fn contents(folder: &Path, files: &[DataFile]) -> Vec<(i64, String)> {
    let mut rows = Vec::new();
    for file in files {
        for batch in open_columns(&folder.join(&file.path), None).expect("opens") {
            let batch = batch.expect("reads");
            let ids = batch.column(0).as_primitive::<Int64Type>().values().to_vec();
            let values = batch.column(1).as_string::<i32>();
            rows.extend(ids.into_iter().zip(values.iter().map(|v| v.unwrap_or("").to_owned())));
        }
    }
    rows.sort();
    rows
}

/// Changes of one record batch: a key and its new value, or `None` for a delete.
type Changes = Vec<(i64, Option<String>)>;

fn check(rounds: Vec<Vec<Changes>>, truncate_at: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let key = ["id".to_owned()];
    let mut table = StateTable::default();
    let mut model: BTreeMap<i64, String> = BTreeMap::new();
    for (number, round) in rounds.iter().enumerate() {
        let mut changes: Vec<ChangeBatch> = round.iter().map(|rows| batch(rows)).collect();
        if number == truncate_at {
            changes.insert(1.min(changes.len()), ChangeBatch::Truncate { partition: 0, offset: 0 });
        }
        for (at, rows) in round.iter().enumerate() {
            if number == truncate_at && at == 1 {
                model.clear();
            }
            for (id, value) in rows {
                match value {
                    Some(value) => model.insert(*id, value.clone()),
                    None => model.remove(id),
                };
            }
        }
        if number == truncate_at && round.len() <= 1 {
            model.clear();
        }
        let before: Vec<DataFile> = table.slots.files().map(|(_, file)| file.clone()).collect();
        // Files without a commit: nothing of them is seen, and the same can be staged again.
        let lost = table.stage(folder.path(), &schema(), &key, &changes).expect("stages");
        drop(lost);
        let staged = table.stage(folder.path(), &schema(), &key, &changes).expect("stages again");
        let removes = staged.removes();
        assert!(removes.iter().all(|file| before.contains(file)), "removes only what is there");
        table.apply(staged);
        let files: Vec<DataFile> = table.slots.files().map(|(_, file)| file.clone()).collect();
        let expected: Vec<(i64, String)> = model.clone().into_iter().collect();
        assert_eq!(contents(folder.path(), &files), expected);
        let rows: u64 = files.iter().map(|file| file.rows).sum();
        assert_eq!((table.keys(), rows), (model.len(), model.len() as u64));
        let rebuilt = rebuild(folder.path(), &schema(), &key, files).expect("rebuilds");
        assert_eq!((rebuilt.index.len(), rebuilt.doubled), (model.len(), 0));
    }
    assert!(table.slots.files().count() <= SMALL_FILES_MAX + 1);
}

fn rounds() -> impl Strategy<Value = Vec<Vec<Changes>>> {
    let change = (0i64..30, prop::option::weighted(0.7, "[a-z]{0,3}"));
    let batch = prop::collection::vec(change, 1..12);
    prop::collection::vec(prop::collection::vec(batch, 0..4), 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn state_equals_the_model_after_any_batches(rounds in rounds(), truncate_at in 0usize..30) {
        check(rounds, truncate_at);
    }
}

#[test]
fn new_rows_fill_a_copied_small_file_and_many_small_files_become_one() {
    const LARGE: u64 = TARGET_BYTES;
    let slots = |ids: &[u32]| ids.iter().map(|&id| SlotId(id)).collect::<Vec<_>>();
    let few = [(SlotId(0), LARGE), (SlotId(1), 10), (SlotId(2), 10)];
    assert_eq!(
        plan_outputs(&few, &slots(&[0, 2]), true),
        Plan { outputs: vec![slots(&[0]), slots(&[2])], inserts_in: 1 }
    );
    assert_eq!(
        plan_outputs(&few, &slots(&[0]), true),
        Plan { outputs: vec![slots(&[0]), vec![]], inserts_in: 1 }
    );
    assert_eq!(
        plan_outputs(&few, &slots(&[1]), false),
        Plan { outputs: vec![slots(&[1])], inserts_in: 1 }
    );
    let mut many: Vec<(SlotId, u64)> = (0..8).map(|id| (SlotId(id), 10)).collect();
    many.push((SlotId(8), LARGE));
    assert_eq!(
        plan_outputs(&many, &slots(&[3, 8]), true),
        Plan { outputs: vec![slots(&[8]), slots(&[0, 1, 2, 3, 4, 5, 6, 7])], inserts_in: 1 }
    );
}
