//! Constant defaults of columns, for inserted rows that lack columns: asked of the server when such a row comes, kept
//! until the table is changed.
//!
//! The server tells today's defaults, and the stream may be behind. A statement that changes a table before the moment
//! at which its defaults were read, and after they were used, shows that they may have been the wrong ones: then the
//! table stops.

use std::{collections::HashMap, sync::Arc};

use schemas::position::BinlogPlace;

use super::{Capture, tables::MappedTable};
use crate::{
    encode::{insert_default::TableDefaults, plan::EncodePlan},
    error::ReaderError,
};

/// Asks the server: the defaults of all captured tables and the end of the binlog after that. Blocks.
pub type ReadDefaults =
    Box<dyn FnMut() -> Result<(HashMap<String, TableDefaults>, BinlogPlace), ReaderError> + Send>;

/// The defaults that are in use, by `database.table`.
pub(super) struct Defaults {
    read: ReadDefaults,
    known: HashMap<String, (TableDefaults, BinlogPlace)>,
}

impl Defaults {
    pub(super) fn new(read: ReadDefaults) -> Self {
        Self { read, known: HashMap::new() }
    }

    fn of(&mut self, table: &str) -> Result<&TableDefaults, ReaderError> {
        if !self.known.contains_key(table) {
            let (mut tables, end) = (self.read)()?;
            let defaults = tables.remove(table).unwrap_or_default();
            self.known.insert(table.to_owned(), (defaults, end));
        }
        Ok(&self.known[table].0)
    }

    /// Forgets a table that the statement that ends at `place` changed. `Some(true)`: those that were used may have been wrong.
    fn forget(&mut self, table: &str, place: &BinlogPlace) -> Option<bool> {
        let (_, read_at) = self.known.remove(table)?;
        Some(read_at.reached(place))
    }
}

impl Capture {
    /// The table's plan with its columns' defaults.
    pub(super) fn plan_with_defaults(
        &mut self,
        table_id: u64,
        mapped: &MappedTable,
    ) -> Result<Arc<EncodePlan>, ReaderError> {
        let defaults = self.defaults.of(&mapped.name)?;
        let plan = Arc::new(EncodePlan::clone(&mapped.plan).with_defaults(defaults));
        self.tables.replace_plan(table_id, plan.clone());
        Ok(plan)
    }

    /// A statement changes the table: its defaults may be others from here on.
    pub(super) fn forget_defaults(&mut self, table: &str) {
        let Some(doubtful) = self.defaults.forget(table, &self.place) else { return };
        self.tables.forget_maps();
        if doubtful {
            self.stop_table(
                table,
                "rows were inserted without all their columns (binlog_row_image) before it was altered, and the \
                 defaults of that time are not known any more; take a new snapshot of the table",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_that_an_older_statement_changed_are_doubtful() {
        let place = |offset| BinlogPlace { file: "b.000001".into(), offset };
        let read = Box::new(move || Ok((HashMap::new(), place(100))));
        let mut defaults = Defaults::new(read);
        assert_eq!(defaults.forget("d.t", &place(50)), None);
        defaults.of("d.t").expect("reads");
        assert_eq!(defaults.forget("d.t", &place(100)), Some(true));
        assert_eq!(defaults.forget("d.t", &place(50)), None);
        defaults.of("d.t").expect("reads");
        assert_eq!(defaults.forget("d.t", &place(101)), Some(false));
    }
}
