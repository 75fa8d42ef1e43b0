//! Statements in QUERY events: they end transactions, empty tables, make new ones, or show that a table cannot be
//! followed.

use change_log::EncodedRecord;
use schemas::position::TableSnapshot;

use super::{Capture, events::EventPlace, xa::XaStatement};
use crate::{
    binlog::{
        ddl::{Dialect, Statement, TableName},
        event::EventHeader,
        query_event::Query,
    },
    error::ReaderError,
};

impl Capture {
    pub(super) fn take_statement(
        &mut self,
        header: &EventHeader,
        body: &[u8],
    ) -> Result<(), ReaderError> {
        let query = Query::parse(body).map_err(|error| self.bad_event(&error))?;
        if let Some(transaction) = &mut self.transaction {
            transaction.thread = query.thread;
        }
        if let Some(statement) = XaStatement::parse(&query.sql) {
            return self.take_xa_statement(statement);
        }
        let dialect = Dialect { mariadb: self.tables.is_mariadb(), ..query.dialect };
        let mut statement = dialect.classify(&query.sql, &query.database);
        if self.live.lower_case_names {
            statement.lower_case_names();
        }
        let (again, grouped) =
            self.transaction.as_ref().map_or((false, false), |open| (open.again, open.grouped));
        if !again {
            self.tell_schema_change(&statement, &query.sql, header)?;
        }
        if again && !matches!(statement, Statement::Begin | Statement::Dml(_)) {
            // What it did is in the log. CREATE TABLE may have rows behind it.
            statement = match statement {
                Statement::CreateTable(table) => Statement::CreateTable(table),
                Statement::Other => Statement::Other,
                _ => Statement::Commit,
            };
        }
        let ends = !grouped || matches!(statement, Statement::Commit | Statement::Rollback);
        match statement {
            Statement::Begin => {
                if !again {
                    self.begin_metadata(self.place.offset.saturating_sub(u64::from(header.size)));
                }
                return Ok(());
            }
            Statement::XaStart => return Ok(()),
            Statement::Rollback => self.stop_rolled_back(),
            Statement::Dml(table) => {
                if let Some(table) = table {
                    self.stop_for_statement(&table);
                }
                // In statement format it stands between BEGIN and COMMIT.
                return Ok(());
            }
            Statement::Truncate(table) => self.empty_table(&table, header)?,
            Statement::DropTables(tables) => {
                for table in &tables {
                    self.forget_defaults(&full_name(table));
                    self.tables.history().drop_table(&full_name(table), &self.place);
                    self.empty_table(table, header)?;
                }
            }
            Statement::DropDatabase(database) => {
                for table in self.tables.names_in(&database) {
                    self.forget_defaults(&full_name(&table));
                    self.tables.history().drop_table(&full_name(&table), &self.place);
                    self.empty_table(&table, header)?;
                }
            }
            Statement::CreateTable(creation) => {
                self.forget_defaults(&full_name(&creation.table));
                if creation.replaces {
                    self.empty_table(&creation.table, header)?;
                }
                self.tables.note_altered(&full_name(&creation.table));
                let history = self.tables.history();
                if creation.replaces {
                    history.drop_table(&full_name(&creation.table), &self.place);
                }
                history.create(&creation.table, &query.sql, dialect, &self.place);
                self.note_created(&creation.table);
                // CREATE TABLE ... SELECT carries its rows in the same transaction (WL#13355).
                if creation.with_rows {
                    return Ok(());
                }
            }
            Statement::RenameTables(pairs) => {
                for (old, new) in &pairs {
                    self.forget_defaults(&full_name(old));
                    self.forget_defaults(&full_name(new));
                }
                self.rename(&pairs, header)?;
            }
            Statement::AlterTable(alteration) => {
                let name = full_name(&alteration.table);
                self.forget_defaults(&name);
                let history = self.tables.history();
                if let Some(sentence) = history.alter(&name, &query.sql, dialect, &self.place)
                    && self.filter.captures(&alteration.table.database, &alteration.table.table)
                {
                    self.stop_table(&name, &sentence);
                }
                self.alter(alteration, header)?;
            }
            Statement::Commit => {}
            Statement::Other if in_transaction_only(&query.sql) => {
                // The rows since the savepoint stay in the binlog when they cannot be taken back at the source.
                if query
                    .sql
                    .trim_start()
                    .get(..8)
                    .is_some_and(|w| w.eq_ignore_ascii_case("ROLLBACK"))
                {
                    self.stop_rolled_back();
                }
                return Ok(());
            }
            Statement::Other => {}
        }
        if ends { self.end_transaction() } else { Ok(()) }
    }

    fn stop_rolled_back(&mut self) {
        let touched = self.transaction.as_ref().map(|t| t.touched.clone()).unwrap_or_default();
        for touched in touched {
            let name = self.tables.name(touched.table);
            self.stop_table(
                &name,
                "a transaction that was rolled back, whole or to a savepoint, and that also changed a non-transactional table is in the binlog; \
                 take a new snapshot of the table",
            );
        }
    }

    fn stop_for_statement(&mut self, table: &TableName) {
        if self.filter.captures(&table.database, &table.table) {
            self.stop_table(
                &full_name(table),
                "a session changed it with binlog_format = STATEMENT, so its rows are not in the binlog; \
                 use ROW and take a new snapshot of the table",
            );
        }
    }

    /// TRUNCATE and DROP leave no rows: one record of operation `t`.
    pub(super) fn empty_table(
        &mut self,
        table: &TableName,
        header: &EventHeader,
    ) -> Result<(), ReaderError> {
        let name = full_name(table);
        self.windows.empty(&name);
        self.keyless.reset(&name);
        if !self.filter.captures(&table.database, &table.table)
            || self.position.stopped.contains_key(&name)
        {
            return Ok(());
        }
        let Some((transaction, target)) = self.transaction.as_ref().zip(self.tables.target(
            &name,
            self.writer.as_mut(),
            &mut self.batch,
        )?) else {
            return Ok(());
        };
        let began_at = self.place.offset.saturating_sub(u64::from(header.size));
        let event =
            EventPlace { file: &self.place.file, offset: began_at, server_id: header.server_id };
        let mut block = transaction.source_block(&target.schemas.schema.id, event);
        if self.tables.options().debezium_compat {
            // Debezium knows the thread of a BEGIN only, and the time of a statement to the millisecond.
            block.thread = 0;
            block.committed_at_us -= block.committed_at_us.rem_euclid(1000);
        }
        self.parts.fill(&block, self.now_us);
        self.parts.set_op(b't');
        let headers_start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(&self.metadata.headers);
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(&target.schemas.value.framing);
        self.batch.bytes.extend_from_slice(&[0, 0]);
        self.parts.write(&mut self.batch.bytes, 0);
        self.batch.records.push(EncodedRecord {
            topic: target.topic,
            key: None,
            value: Some(start..self.batch.bytes.len()),
            headers: headers_start..start,
            timestamp_ms: transaction.start.committed_at_us / 1000,
        });
        Ok(())
    }

    /// A table that the stream sees being made has no earlier rows: it needs no snapshot. One that is still to be read
    /// was there already (IF NOT EXISTS), or its walk finds what there is.
    fn note_created(&mut self, table: &TableName) {
        let name = full_name(table);
        if self.filter.captures(&table.database, &table.table)
            && self.windows.of(&name).is_none()
            && !self.keyless.is_pending(&name)
        {
            self.position
                .snapshots
                .entry(name)
                .or_insert_with(|| TableSnapshot { done: true, ..Default::default() });
        }
    }
}

/// `database.table`.
pub(super) fn full_name(table: &TableName) -> String {
    format!("{}.{}", table.database, table.table)
}

/// SAVEPOINT and the like stand inside a transaction and do not end it.
fn in_transaction_only(sql: &str) -> bool {
    let first = sql.split_ascii_whitespace().next().unwrap_or_default();
    ["SAVEPOINT", "RELEASE", "ROLLBACK"].iter().any(|word| first.eq_ignore_ascii_case(word))
}
