//! What a set of captured tables means for a position: which tables are to be read, and which are left out. Pure.

use schemas::position::{Position, TableSnapshot};

use crate::{
    config::SnapshotMode,
    mysql::catalog::{Catalog, CatalogTable},
    table_filter::TableFilter,
};

/// What has changed by it.
#[derive(Debug, Default)]
pub struct CapturedTables {
    /// To be read from their first key, beginning now.
    pub begun: Vec<CatalogTable>,
    /// Of those: their copies are to be emptied first, because changes were missed.
    pub emptied: Vec<CatalogTable>,
    /// No longer captured, by `database.table`.
    pub left_out: Vec<String>,
    /// Without a key and with a gap in their history, by `database.table`.
    pub with_gap: Vec<String>,
}

/// Enters the tables that are captured now. One that was captured before and was left out for a while is begun anew;
/// one without a key has only history, which would be doubled by that: it goes on with a gap.
pub fn enter_tables(
    position: &mut Position,
    filter: &TableFilter,
    catalog: &Catalog,
    mode: SnapshotMode,
) -> CapturedTables {
    let mut found = CapturedTables::default();
    for (name, progress) in &mut position.snapshots {
        let captured = name.split_once('.').is_some_and(|(db, table)| filter.captures(db, table));
        if !captured && !progress.left_out {
            progress.left_out = true;
            found.left_out.push(name.clone());
        }
    }
    for table in &catalog.tables {
        let name = table.name();
        let new = TableSnapshot { rows_estimated: table.rows_estimated(), ..Default::default() };
        let unread = TableSnapshot { done: true, partial: true, ..TableSnapshot::default() };
        match position.snapshots.get_mut(&name) {
            None => {
                let reads = mode != SnapshotMode::Never;
                position.snapshots.insert(name, if reads { new } else { unread });
                if reads {
                    found.begun.push(table.clone());
                }
            }
            Some(progress) if progress.left_out => {
                position.stopped.remove(&name);
                let without_key = table.schema.key.is_empty();
                if mode == SnapshotMode::Never || without_key && progress.done {
                    *progress = TableSnapshot { done: true, partial: true, ..progress.clone() };
                    progress.left_out = false;
                    found.with_gap.push(name);
                    continue;
                }
                let anew = !without_key;
                let TableSnapshot { paused, gap, .. } = *progress;
                *progress = TableSnapshot { anew, partial: anew, paused, gap, ..new };
                found.begun.push(table.clone());
                if anew {
                    found.emptied.push(table.clone());
                }
            }
            Some(_) => {}
        }
    }
    found
}

/// Every table is to be taken for one that was left out for a while.
pub fn leave_out_all(position: &mut Position, catalog: &Catalog) {
    for table in &catalog.tables {
        position.snapshots.entry(table.name()).or_default();
    }
    for progress in position.snapshots.values_mut() {
        progress.left_out = true;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use schemas::{table_id::TableId, table_schema::TableSchema};

    use super::*;

    fn catalog(tables: &[(&str, bool)]) -> Catalog {
        let table = |(name, keyed): &(&str, bool)| CatalogTable {
            schema: Arc::new(TableSchema {
                id: TableId::new("s", "d", *name),
                columns: Vec::new(),
                key: if *keyed { vec![0] } else { Vec::new() },
            }),
            key_index: None,
            texts: Vec::new(),
            estimate: Default::default(),
        };
        Catalog { tables: tables.iter().map(table).collect(), unsupported: Vec::new() }
    }

    fn enter(
        position: &mut Position,
        patterns: &[&str],
        tables: &[(&str, bool)],
    ) -> [Vec<String>; 4] {
        let patterns: Vec<String> = patterns.iter().map(|text| (*text).into()).collect();
        let filter = TableFilter::new(&patterns).expect("patterns");
        let found = enter_tables(position, &filter, &catalog(tables), SnapshotMode::Initial);
        let names = |tables: Vec<CatalogTable>| tables.iter().map(CatalogTable::name).collect();
        [names(found.begun), names(found.emptied), found.left_out, found.with_gap]
    }

    #[test]
    fn table_that_is_taken_in_again_is_emptied_and_read_anew() {
        let mut position = Position::default();
        let none = Vec::<String>::new;
        let a = || vec!["d.a".to_owned()];
        let found = enter(&mut position, &["d.*"], &[("a", true)]);
        assert_eq!(found, [a(), none(), none(), none()]);
        position.snapshots.get_mut("d.a").expect("entered").done = true;
        position.stopped.insert("d.a".into(), "why".into());
        assert_eq!(
            enter(&mut position, &["d.*"], &[("a", true)]),
            [none(), none(), none(), none()]
        );
        assert_eq!(enter(&mut position, &["d.b"], &[]), [none(), none(), a(), none()]);
        assert_eq!(enter(&mut position, &["d.b"], &[]), [none(), none(), none(), none()]);
        assert_eq!(enter(&mut position, &["d.*"], &[("a", true)]), [a(), a(), none(), none()]);
        let progress = &position.snapshots["d.a"];
        assert!(progress.anew && progress.partial && !progress.left_out && !progress.done);
        assert!(position.stopped.is_empty());
    }

    #[test]
    fn table_without_key_goes_on_with_a_gap_once_its_rows_were_read() {
        let mut position = Position::default();
        let none = Vec::<String>::new;
        let log = || vec!["d.log".to_owned()];
        enter(&mut position, &["d.*"], &[("log", false)]);
        enter(&mut position, &["d.b"], &[]);
        let found = enter(&mut position, &["d.*"], &[("log", false)]);
        assert_eq!(found, [log(), none(), none(), none()], "nothing of it was in the log");
        position.snapshots.get_mut("d.log").expect("entered").done = true;
        enter(&mut position, &["d.b"], &[]);
        let found = enter(&mut position, &["d.*"], &[("log", false)]);
        assert_eq!(found, [none(), none(), none(), log()]);
        assert!(position.snapshots["d.log"].done && position.snapshots["d.log"].partial);
    }

    #[test]
    fn without_snapshots_tables_are_done_and_lack_rows() {
        let mut position = Position::default();
        let filter = TableFilter::new(&["d.*".to_owned()]).expect("patterns");
        let found =
            enter_tables(&mut position, &filter, &catalog(&[("a", true)]), SnapshotMode::Never);
        assert!(found.begun.is_empty());
        assert!(position.snapshots["d.a"].done && position.snapshots["d.a"].partial);
    }
}
