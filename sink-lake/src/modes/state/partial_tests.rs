//! Rows that lack columns, in any batches: the table equals a model that was told everything.

use std::{collections::BTreeMap, sync::Arc};

use arrow::{
    array::{Array, AsArray, Int64Array},
    datatypes::{DataType, Field, Int64Type, Schema},
};
use proptest::prelude::*;

use super::*;
use crate::{
    delta::data_file::open_columns,
    flow::{Operation, PartialRow, RowBatch},
};

const KEY: &str = "id";

fn schema() -> SchemaRef {
    let column = |name: &str| Field::new(name, DataType::Int64, true);
    Arc::new(Schema::new(vec![column(KEY), column("a"), column("b")]))
}

/// What the source did. `None` is NULL.
#[derive(Clone, Debug)]
enum Done {
    Put {
        id: i64,
        a: Option<i64>,
        b: Option<i64>,
    },
    /// The binlog has one of the two columns.
    Set {
        id: i64,
        column: usize,
        value: Option<i64>,
    },
    /// The binlog has the keys and perhaps `a`.
    Move {
        from: i64,
        to: i64,
        a: Option<i64>,
    },
    Delete {
        id: i64,
    },
}

type Model = BTreeMap<i64, [Option<i64>; 2]>;

/// Does it to the model; answers how many records can't be completed.
fn apply(done: &Done, model: &mut Model) -> usize {
    match *done {
        Done::Put { id, a, b } => {
            model.insert(id, [a, b]);
        }
        Done::Set { id, column, value } => match model.get_mut(&id) {
            Some(row) => row[column] = value,
            None => return 1,
        },
        Done::Move { from, to, a } => match model.remove(&from) {
            Some(row) => {
                model.insert(to, [a.or(row[0]), row[1]]);
            }
            None => return 1,
        },
        Done::Delete { id } => {
            model.remove(&id);
        }
    }
    0
}

#[derive(Default)]
struct Records {
    rows: Vec<[Option<i64>; 3]>,
    operations: Vec<Operation>,
    partial: Vec<PartialRow>,
}

impl Records {
    fn push(
        &mut self,
        operation: Operation,
        row: [Option<i64>; 3],
        lacks: Option<(u8, Option<i64>)>,
    ) {
        if let Some((absent, old)) = lacks {
            let ids = Arc::new(Int64Array::from(vec![old.unwrap_or(0)])) as _;
            let keys = RecordBatch::try_from_iter([(KEY, ids)]).expect("a key");
            let hash = key_hashes(&keys, &[KEY.to_owned()]).expect("hashes")[0];
            self.partial.push(PartialRow {
                row: self.rows.len(),
                absent: vec![absent],
                old_key: old.map(|_| hash),
                before_snapshot: false,
                record: DeadLetter::default(),
            });
        }
        self.rows.push(row);
        self.operations.push(operation);
    }

    fn add(&mut self, done: &Done) {
        match *done {
            Done::Put { id, a, b } => self.push(Operation::Create, [Some(id), a, b], None),
            Done::Set { id, column: 0, value } => {
                self.push(Operation::Update, [Some(id), value, None], Some((0b100, None)));
            }
            Done::Set { id, value, .. } => {
                self.push(Operation::Update, [Some(id), None, value], Some((0b010, None)));
            }
            Done::Move { from, to, a } => {
                let absent = if a.is_some() { 0b100 } else { 0b110 };
                self.push(Operation::Create, [Some(to), a, None], Some((absent, Some(from))));
                self.push(Operation::Delete, [Some(from), None, None], None);
            }
            Done::Delete { id } => self.push(Operation::Delete, [Some(id), None, None], None),
        }
    }

    fn batch(self) -> ChangeBatch {
        let column =
            |i: usize| Arc::new(self.rows.iter().map(|row| row[i]).collect::<Int64Array>()) as _;
        let count = self.rows.len();
        ChangeBatch::Rows(RowBatch {
            partition: 0,
            rows: RecordBatch::try_new(schema(), vec![column(0), column(1), column(2)])
                .expect("fits"),
            operations: self.operations,
            offsets: (0..count as i64).collect(),
            changed_at_us: vec![0; count],
            partial: self.partial,
            bytes: 0,
        })
    }
}

fn contents(folder: &Path, table: &StateTable) -> Model {
    let mut rows = Model::new();
    for (_, file) in table.slots.files() {
        for batch in open_columns(&folder.join(&file.path), None).expect("opens") {
            let batch = batch.expect("reads");
            for row in 0..batch.num_rows() {
                let value = |column: usize| {
                    let column = batch.column(column).as_primitive::<Int64Type>();
                    (!column.is_null(row)).then(|| column.value(row))
                };
                assert!(rows.insert(value(0).expect("a key"), [value(1), value(2)]).is_none());
            }
        }
    }
    rows
}

fn done() -> impl Strategy<Value = Done> {
    let (id, value) = (|| 0i64..12, || prop::option::of(0i64..100));
    prop_oneof![
        2 => (id(), value(), value()).prop_map(|(id, a, b)| Done::Put { id, a, b }),
        4 => (id(), 0usize..2, value()).prop_map(|(id, column, value)| Done::Set { id, column, value }),
        2 => (id(), id(), value()).prop_filter("another key", |(from, to, _)| from != to)
            .prop_map(|(from, to, a)| Done::Move { from, to, a }),
        1 => id().prop_map(|id| Done::Delete { id }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]
    #[test]
    fn rows_that_lack_columns_take_them_from_the_row_before(
        // Flushes of batches of changes; a flush may begin with a truncate.
        flushes in prop::collection::vec(
            (prop::bool::weighted(0.1), prop::collection::vec(prop::collection::vec(done(), 0..12), 1..4)), 1..8),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut table, mut model) = (StateTable::default(), Model::new());
        for (truncated, batches) in flushes {
            let mut changes = Vec::new();
            let mut lost = 0;
            if truncated {
                changes.push(ChangeBatch::Truncate { partition: 0, offset: 0 });
                model.clear();
            }
            for batch in batches {
                let mut records = Records::default();
                for done in &batch {
                    lost += apply(done, &mut model);
                    records.add(done);
                }
                changes.push(records.batch());
            }
            let staged = table.stage(folder.path(), &schema(), &[KEY.to_owned()], &changes).expect("stages");
            prop_assert_eq!(staged.lost().len(), lost);
            table.apply(staged);
            prop_assert_eq!(contents(folder.path(), &table), model.clone());
        }
    }
}
