//! Statements in QUERY events: they end transactions, empty tables, make new ones, or show that a table cannot be
//! followed.

use change_log::EncodedRecord;
use schemas::position::TableSnapshot;

use super::{Capture, events::EventPlace, xa::XaStatement};
use crate::{
    binlog::{
        byte_reader::{Malformed, little_endian, take, take_array, take_le},
        ddl::{Statement, TableName, classify},
        event::EventHeader,
    },
    error::ReaderError,
};

impl Capture {
    pub(super) fn take_statement(
        &mut self,
        header: &EventHeader,
        body: &[u8],
    ) -> Result<(), ReaderError> {
        let query = parse_query(body).map_err(|error| self.bad_event(&error))?;
        if let Some(transaction) = &mut self.transaction {
            transaction.thread = query.thread;
        }
        if let Some(statement) = XaStatement::parse(&query.sql) {
            return self.take_xa_statement(statement);
        }
        let mut statement = classify(&query.sql, &query.database);
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
                    self.empty_table(table, header)?;
                }
            }
            Statement::CreateTable(creation) => {
                self.note_created(&creation.table);
                // CREATE TABLE ... SELECT carries its rows in the same transaction (WL#13355).
                if creation.with_rows {
                    return Ok(());
                }
            }
            Statement::RenameTables(pairs) => {
                for (old, new) in &pairs {
                    self.note_renamed(old, new);
                }
            }
            Statement::AlterTable(altered) => self.keyless.reset(&full_name(&altered.table)),
            Statement::DropDatabase(_) => {}
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
        for index in touched {
            let name = self.tables.name(index);
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
    fn empty_table(&mut self, table: &TableName, header: &EventHeader) -> Result<(), ReaderError> {
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

    /// A table that the stream sees being made has no earlier rows: it needs no snapshot.
    fn note_created(&mut self, table: &TableName) {
        let name = full_name(table);
        if self.filter.captures(&table.database, &table.table) {
            self.position
                .snapshots
                .entry(name)
                .or_insert_with(|| TableSnapshot { done: true, ..Default::default() });
        }
    }

    fn note_renamed(&mut self, old: &TableName, new: &TableName) {
        for table in [old, new] {
            let name = full_name(table);
            self.windows.empty(&name);
            self.keyless.reset(&name);
        }
        if self.filter.captures(&new.database, &new.table)
            && !self.position.snapshots.contains_key(&full_name(new))
        {
            tracing::warn!(
                source = %self.source, from = %full_name(old), to = %full_name(new),
                "table renamed: its earlier rows are read when the reader starts the next time"
            );
        }
    }
}

/// `database.table`.
fn full_name(table: &TableName) -> String {
    format!("{}.{}", table.database, table.table)
}

/// SAVEPOINT and the like stand inside a transaction and do not end it.
fn in_transaction_only(sql: &str) -> bool {
    let first = sql.split_ascii_whitespace().next().unwrap_or_default();
    ["SAVEPOINT", "RELEASE", "ROLLBACK"].iter().any(|word| first.eq_ignore_ascii_case(word))
}

struct Query {
    thread: u32,
    database: String,
    sql: String,
}

/// The body of a QUERY event: thread 4, seconds 4, length of the database 1, error 2, length of the status variables
/// 2, those, the database with a zero byte, the statement.
fn parse_query(mut body: &[u8]) -> Result<Query, Malformed> {
    let thread = little_endian(take(&mut body, 4)?) as u32;
    take(&mut body, 4)?;
    let [database_length] = take_array::<1>(&mut body)?;
    take(&mut body, 2)?;
    let variables = take_le(&mut body, 2)? as usize;
    take(&mut body, variables)?;
    let database =
        String::from_utf8_lossy(take(&mut body, usize::from(database_length))?).into_owned();
    take(&mut body, 1)?;
    Ok(Query { thread, database, sql: String::from_utf8_lossy(body).into_owned() })
}
