//! A key record as the hash that its row has in the lake.

use std::sync::Arc;

use arrow::{
    array::RecordBatch,
    datatypes::{Field, Schema},
};

use super::{
    avro_schema::{AvroKind, AvroType},
    column_builder::ColumnBuilder,
    column_reader::ColumnReader,
};
use crate::key_hash::{KeyHash, key_hashes};

/// How to read the key records of one schema.
#[derive(Debug)]
pub struct KeyReader {
    columns: Vec<(String, ColumnReader)>,
}

impl KeyReader {
    /// `None` for a record with a column that can't be kept.
    pub fn of(key: &AvroType) -> Option<Self> {
        let AvroKind::Record(fields) = &key.kind else { return None };
        let column = |field: &super::avro_schema::AvroField| {
            Some((field.name.clone(), ColumnReader::of(&field.avro_type).ok()?))
        };
        Some(Self { columns: fields.iter().map(column).collect::<Option<_>>()? })
    }

    /// The hash of a key; `None` when its bytes don't fit.
    pub fn hash(&self, datum: &[u8]) -> Option<KeyHash> {
        let mut rest = datum;
        let (mut fields, mut arrays, mut names) = (Vec::new(), Vec::new(), Vec::new());
        for (name, reader) in &self.columns {
            let mut column = ColumnBuilder::new(&reader.data_type())?;
            reader.read(&mut rest, &mut column).ok()?;
            arrays.push(column.finish().ok()?);
            fields.push(Field::new(name, reader.data_type(), true));
            names.push(name.clone());
        }
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).ok()?;
        let hash = key_hashes(&rows, &names).ok()?.first().copied();
        hash.filter(|_| rest.is_empty())
    }
}
