//! What a batch's columns do to a table's: nothing, new columns, or something the table can't follow. Dropped columns
//! stay and are NULL from then on. Pure.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array},
    compute::cast,
    datatypes::{Field, Fields, Schema, SchemaRef},
    error::ArrowError,
};

use crate::delta::arrow_types::type_name;

/// The table's columns after a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Evolution {
    /// The batch brings nothing new.
    Unchanged,
    /// New columns at the end.
    Added(SchemaRef),
}

/// Compares a table's columns with a batch's; the error says in words what can't be followed and what to do.
pub fn evolve(table: &SchemaRef, batch: &Fields) -> Result<Evolution, String> {
    check_names(batch)?;
    let mut added = Vec::new();
    for field in batch {
        match find(table.fields(), field.name()) {
            None => added.push(Arc::new(Field::new(field.name(), field.data_type().clone(), true))),
            Some(existing) if existing.data_type() == field.data_type() => {}
            Some(existing) => {
                return Err(format!(
                    "column {} is {} in the lake and {} at the source now; move the table's folder away and take a new snapshot of it",
                    field.name(),
                    type_name(existing.data_type()),
                    type_name(field.data_type()),
                ));
            }
        }
    }
    if added.is_empty() {
        return Ok(Evolution::Unchanged);
    }
    let fields: Vec<_> = table.fields().iter().cloned().chain(added).collect();
    Ok(Evolution::Added(Arc::new(Schema::new(fields))))
}

/// Brings rows into a table's columns: their order, NULL for those that are missing. Rows that a foreign writer stored
/// in another encoding of the same type are converted.
pub fn conform(rows: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    if rows.schema_ref() == schema {
        return Ok(rows.clone());
    }
    let columns = schema
        .fields()
        .iter()
        .map(|field| match position(rows.schema_ref().fields(), field.name()) {
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
            Some(column) => as_type(rows.column(column), field),
        })
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// The place of a column by name; Delta's names don't differ by case.
pub fn position(fields: &Fields, name: &str) -> Option<usize> {
    fields
        .iter()
        .position(|field| field.name() == name)
        .or_else(|| fields.iter().position(|field| field.name().eq_ignore_ascii_case(name)))
}

fn find<'a>(fields: &'a Fields, name: &str) -> Option<&'a Arc<Field>> {
    position(fields, name).and_then(|at| fields.get(at))
}

fn as_type(column: &ArrayRef, field: &Field) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == field.data_type() {
        Ok(Arc::clone(column))
    } else {
        cast(column, field.data_type())
    }
}

fn check_names(fields: &Fields) -> Result<(), String> {
    let mut lower: Vec<(String, &str)> =
        fields.iter().map(|field| (field.name().to_lowercase(), field.name().as_str())).collect();
    lower.sort();
    match lower.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        None => Ok(()),
        Some(pair) => Err(format!(
            "columns {} and {} differ only by case, which Delta tables can't hold; rename one at the source",
            pair[0].1, pair[1].1
        )),
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, StringArray},
        datatypes::DataType,
    };

    use super::*;

    fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
        let fields = columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    #[test]
    fn columns_are_added_kept_or_refused() {
        let table = schema(&[("id", DataType::Int64), ("name", DataType::Utf8)]);
        let reordered = schema(&[("name", DataType::Utf8), ("ID", DataType::Int64)]);
        assert_eq!(evolve(&table, reordered.fields()), Ok(Evolution::Unchanged));
        let dropped = schema(&[("id", DataType::Int64)]);
        assert_eq!(evolve(&table, dropped.fields()), Ok(Evolution::Unchanged));
        let added = schema(&[("id", DataType::Int64), ("age", DataType::Int16)]);
        let all =
            schema(&[("id", DataType::Int64), ("name", DataType::Utf8), ("age", DataType::Int16)]);
        assert_eq!(evolve(&table, added.fields()), Ok(Evolution::Added(all)));
        let widened = schema(&[("id", DataType::Decimal128(20, 0))]);
        let refused = evolve(&table, widened.fields()).expect_err("is refused");
        assert!(refused.contains("column id is long in the lake and decimal(20,0)"), "{refused}");
        let collision = schema(&[("a", DataType::Int64), ("A", DataType::Int64)]);
        assert!(evolve(&table, collision.fields()).expect_err("is refused").contains("case"));
    }

    #[test]
    fn rows_take_the_tables_shape() {
        let table = schema(&[("id", DataType::Int64), ("name", DataType::Utf8)]);
        let rows = RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![7])) as _)]);
        let rows = conform(&rows.expect("one column"), &table).expect("conforms");
        assert_eq!(rows.num_columns(), 2);
        let names = rows.column(1).as_any().downcast_ref::<StringArray>().expect("text");
        assert_eq!(names.iter().collect::<Vec<_>>(), [None]);
    }
}
