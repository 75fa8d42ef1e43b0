//! The topic of schema changes: one record for each statement that changes a captured table's definition.
//!
//! What the table is afterwards is asked of the server, and told only when nothing was written to the binlog since the
//! statement: otherwise a later statement may have changed the table again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use change_log::EncodedRecord;
use mysql_async::{Conn, prelude::Queryable};
use schemas::{position::BinlogPlace, table_id::TableId};

use super::{Capture, events::EventPlace, metadata::MetadataTopic};
use crate::{
    binlog::{
        ddl::{Statement, TableName},
        event::EventHeader,
        transaction::TransactionStart,
    },
    config::SourceConfig,
    encode::{
        envelope::SourceBlock,
        schema_change::{TableChange, TableDescription, write_schema_change},
    },
    error::ReaderError,
    mysql::{
        connect::{Server, classify, place, reconnect, server},
        place::binlog_end,
        table_description::describe,
    },
    snapshot::chunk_plan::quoted_table,
};
use schemas::avro_write::write_bytes;

/// How long the server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a server that did not answer is not asked again.
const SILENCE: Duration = Duration::from_secs(30);

/// The topic, and the way to the server.
#[derive(Debug)]
pub(super) struct SchemaChanges {
    pub(super) topic: MetadataTopic,
    pub(super) config: Arc<SourceConfig>,
    link: Option<(Conn, Server)>,
    silent_until: Option<Instant>,
}

/// One record to be written.
struct Change<'a> {
    kind: &'static str,
    /// The captured table; of a rename its new name.
    table: &'a TableName,
    ddl: String,
}

impl SchemaChanges {
    pub(super) fn new(topic: MetadataTopic, config: Arc<SourceConfig>) -> Self {
        Self { topic, config, link: None, silent_until: None }
    }

    /// What the table is now, when the binlog still ends at `end`.
    fn describe(
        &mut self,
        runtime: &tokio::runtime::Handle,
        table: &TableName,
        end: &BinlogPlace,
    ) -> Option<TableDescription> {
        if self.silent_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let answer = runtime
            .block_on(async { tokio::time::timeout(ANSWER_TIMEOUT, self.ask(table, end)).await });
        let error = match answer {
            Ok(Ok(description)) => return description,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {} s", ANSWER_TIMEOUT.as_secs()),
        };
        self.link = None;
        self.silent_until = Some(Instant::now() + SILENCE);
        let source = &self.config.name;
        tracing::warn!(source, error, "schema changes are told without the tables' columns");
        None
    }

    async fn ask(
        &mut self,
        table: &TableName,
        end: &BinlogPlace,
    ) -> Result<Option<TableDescription>, ReaderError> {
        let (mut connection, answering) = match self.link.take() {
            Some(link) => link,
            None => {
                let mut connection = reconnect(&self.config).await?;
                let answering = server(&mut connection, &place(&self.config)).await?;
                (connection, answering)
            }
        };
        // The binlog has the statement before the server has done it: the table is locked until then.
        let id = TableId::new(&self.config.name, &table.database, &table.table);
        let locked = connection.query_drop(format!("SELECT 1 FROM {} LIMIT 0", quoted_table(&id)));
        let description = match locked.await.map_err(|error| classify(error, &answering.place)) {
            Ok(()) => describe(&mut connection, &answering, &table.database, &table.table).await?,
            // It is gone again, or may not be read.
            Err(ReaderError::Query { .. }) => None,
            Err(error) => return Err(error),
        };
        let current = binlog_end(&mut connection, &answering).await? == *end;
        self.link = Some((connection, answering));
        Ok(description.filter(|_| current))
    }
}

impl Capture {
    /// Tells of a statement that changes captured tables. TRUNCATE changes no definition.
    pub(super) fn tell_schema_change(
        &mut self,
        statement: &Statement,
        sql: &str,
        header: &EventHeader,
    ) -> Result<(), ReaderError> {
        if self.metadata.schema_changes.is_none() {
            return Ok(());
        }
        let changes = changes(statement, sql);
        for change in changes {
            let TableName { database, table } = change.table;
            if self.filter.captures(database, table) {
                self.write_change(change, header)?;
            }
        }
        Ok(())
    }

    fn write_change(
        &mut self,
        change: Change<'_>,
        header: &EventHeader,
    ) -> Result<(), ReaderError> {
        if self.transaction.is_none() {
            self.begin(TransactionStart::default(), header)?;
        }
        let (Some(transaction), Some(changes)) =
            (&self.transaction, &mut self.metadata.schema_changes)
        else {
            return Ok(());
        };
        let table = change.table;
        let index = change.kind == "INDEX";
        let mut told = Vec::new();
        if !index {
            let description = match change.kind {
                "DROP" => None,
                _ => changes.describe(&self.runtime, table, &self.place),
            };
            let (database, table) = (table.database.clone(), table.table.clone());
            told.push(TableChange { kind: change.kind, database, table, description });
        }
        // Debezium names no table in what it tells of an index.
        let named = if index { "" } else { &table.table };
        let id = TableId::new(&self.source, &table.database, named);
        let offset = self.place.offset.saturating_sub(u64::from(header.size));
        let event = EventPlace { file: &self.place.file, offset, server_id: header.server_id };
        let block = transaction.source_block(&id, event);
        // Of a statement Debezium tells the millisecond and no thread.
        let committed_at_ms = block.committed_at_us.div_euclid(1000);
        let block = SourceBlock { committed_at_us: committed_at_ms * 1000, thread: 0, ..block };
        self.parts.fill(&block, self.now_us);
        let bytes = &mut self.batch.bytes;
        let headers_start = bytes.len();
        bytes.extend_from_slice(&self.metadata.headers);
        let key_start = bytes.len();
        bytes.extend_from_slice(&changes.topic.key.framing);
        write_bytes(bytes, table.database.as_bytes());
        let value_start = bytes.len();
        bytes.extend_from_slice(&changes.topic.value.framing);
        let now_ms = self.now_us.div_euclid(1000);
        write_schema_change(bytes, &self.parts, now_ms, &table.database, &change.ddl, &told);
        self.batch.records.push(EncodedRecord {
            topic: changes.topic.topic,
            key: Some(key_start..value_start),
            value: Some(value_start..bytes.len()),
            headers: headers_start..key_start,
            timestamp_ms: committed_at_ms,
        });
        Ok(())
    }
}

/// The records of a statement, of all its tables. Debezium tells of each table of a DROP and of each pair of a RENAME
/// as if it were a statement of its own.
fn changes<'a>(statement: &'a Statement, sql: &str) -> Vec<Change<'a>> {
    let quoted = |name: &TableName| quoted_table(&TableId::new("", &name.database, &name.table));
    let whole = |kind, table| vec![Change { kind, table, ddl: sql.to_owned() }];
    match statement {
        Statement::CreateTable(creation) => whole("CREATE", &creation.table),
        Statement::AlterTable(alteration) => {
            let first = sql.split_ascii_whitespace().next().unwrap_or_default();
            let index = ["CREATE", "DROP"].iter().any(|word| first.eq_ignore_ascii_case(word));
            let table = alteration.renamed.as_ref().unwrap_or(&alteration.table);
            whole(if index { "INDEX" } else { "ALTER" }, table)
        }
        Statement::RenameTables(pairs) if pairs.len() == 1 => {
            pairs.iter().flat_map(|(_, new)| whole("ALTER", new)).collect()
        }
        Statement::RenameTables(pairs) => pairs
            .iter()
            .map(|(old, new)| Change {
                kind: "ALTER",
                table: new,
                ddl: format!("RENAME TABLE {} TO {}", quoted(old), quoted(new)),
            })
            .collect(),
        Statement::DropTables(tables) => tables
            .iter()
            .map(|table| Change {
                kind: "DROP",
                table,
                ddl: format!("DROP TABLE {}", quoted(table)),
            })
            .collect(),
        _ => Vec::new(),
    }
}
