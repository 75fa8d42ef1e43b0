//! Tables whose rows become others without events, because of a RENAME or an operation on partitions: their lake copy
//! is emptied and their rows are read again beside the stream, as a first snapshot reads them.

use std::collections::HashMap;

use schemas::{position::TableSnapshot, table_id::TableId};

use tokio::sync::mpsc::error::TrySendError;

use super::{Capture, live_tables::Definition, statements::full_name};
use crate::{
    binlog::{
        ddl::{Alteration, TableName},
        event::EventHeader,
    },
    error::ReaderError,
    snapshot::request::Request,
};

impl Capture {
    /// ALTER TABLE and its relatives.
    pub(super) fn alter(
        &mut self,
        alteration: Alteration,
        header: &EventHeader,
    ) -> Result<(), ReaderError> {
        let Alteration { table, renamed, rows_replaced } = alteration;
        let name = full_name(&table);
        self.keyless.reset(&name);
        self.tables.note_altered(&name);
        for table in &rows_replaced {
            self.read_again(table, header)?;
        }
        match renamed {
            Some(new) => self.rename(&[(table, new)], header),
            None => Ok(()),
        }
    }

    /// Renames happen one after the other: what each captured name has at the end decides. A name that has another
    /// table's rows now is read again (gh-ost and pt-online-schema-change put their copy in the table's place this
    /// way); one that has none any more is emptied.
    pub(super) fn rename(
        &mut self,
        pairs: &[(TableName, TableName)],
        header: &EventHeader,
    ) -> Result<(), ReaderError> {
        // From each name that is there at the end to the one that the table had at the start.
        let mut was: HashMap<String, TableName> = HashMap::new();
        let mut touched: Vec<&TableName> = Vec::new();
        for (old, new) in pairs {
            self.tables.history().rename(&full_name(old), &full_name(new), &self.place);
            let original = was.remove(&full_name(old)).unwrap_or_else(|| old.clone());
            was.insert(full_name(new), original);
            for table in [old, new] {
                if !touched.contains(&table) {
                    touched.push(table);
                }
            }
        }
        for table in touched {
            let name = full_name(table);
            self.keyless.reset(&name);
            self.tables.note_altered(&name);
            match was.get(&name) {
                // It went away and came back.
                Some(original) if original == table => {}
                Some(_) => self.read_again(table, header)?,
                None => self.empty_table(table, header)?,
            }
        }
        Ok(())
    }

    /// Empties a captured table's copy and asks for its rows.
    fn read_again(&mut self, table: &TableName, header: &EventHeader) -> Result<(), ReaderError> {
        let name = full_name(table);
        if !self.filter.captures(&table.database, &table.table)
            || self.position.stopped.contains_key(&name)
        {
            return Ok(());
        }
        // Rows that were never in the log are not read again.
        let before = self.position.snapshots.get(&name);
        let known =
            before.is_some_and(|progress| progress.done || progress.rows > 0 || progress.again);
        let Some(to_read) = &self.live.to_read else {
            tracing::warn!(
                source = %self.source, table = name,
                "a DDL changed the table's rows without writing them to the binlog, and `snapshot = \"never\"` says not to \
                 read existing rows; the lake's copy differs from the table from here on"
            );
            return Ok(());
        };
        let id = TableId::new(&self.source, &table.database, &table.table);
        let without_key = match self.tables.ask(&id) {
            Definition::Table(live, _) => live.schema.key.is_empty(),
            // Later events of the stream say what became of it.
            Definition::Gone => return self.empty_table(table, header),
            Definition::Unfit | Definition::Unknown => self.tables.is_without_key(&name),
        };
        if known && without_key && !self.keyless.is_pending(&name) {
            tracing::warn!(
                source = %self.source, table = name,
                "a DDL changed the table's rows without writing them to the binlog; the table has no key and is kept \
                 as history, so that its earlier rows stay as they are"
            );
            return Ok(());
        }
        let to_read = to_read.clone();
        self.empty_table(table, header)?;
        let TableSnapshot { paused, gap, .. } =
            self.position.snapshots.get(&name).cloned().unwrap_or_default();
        // Either way a restart does not read the changed keys back: those from before the table was emptied say nothing
        // of the rows that are read now.
        let progress = TableSnapshot {
            again: known,
            anew: !known,
            partial: true,
            paused,
            gap,
            ..TableSnapshot::default()
        };
        self.position.snapshots.insert(name.clone(), progress);
        tracing::info!(
            source = %self.source, table = name,
            "a DDL changed the table's rows without writing them to the binlog: reading the table again"
        );
        if !without_key {
            self.keyless.forget(&name);
        }
        if !self.windows.begin_again(&name) {
            let generation = self.windows.open_now(&name);
            if without_key {
                self.keyless.add(&name);
            }
            // Without a receiver this attempt is about to end; the position says that the table is to be read.
            let request = Request::Read { table: id, generation };
            if let Err(TrySendError::Full(_)) = to_read.try_send(request) {
                return Err(ReaderError::Transient {
                    place: "this process".into(),
                    reason: "too many tables wait to be read again".into(),
                });
            }
        }
        Ok(())
    }
}
