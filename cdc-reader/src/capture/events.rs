//! Events in their order: transactions begin and end, tables are mapped, rows are encoded, statements are understood.

use std::{collections::BTreeMap, sync::Arc};

use schemas::{position::BinlogPlace, table_id::TableId};

use super::{Capture, metadata::OpenMetadata, tables::MappedTable, xa::XaPart};
use crate::{
    binlog::{
        byte_reader::{Malformed, take_le},
        compressed,
        event::{EventHeader, kind},
        table_map,
        transaction::{TransactionStart, parse_gtid, parse_tagged_gtid},
    },
    encode::{
        envelope::{SOURCE_VERSION, SourceBlock},
        rows_event::{RowsContext, encode_rows_event, lacks_defaults},
    },
    error::ReaderError,
};

/// The transaction that is being read.
pub(super) struct Transaction {
    pub(super) start: TransactionStart,
    pub(super) gtid: String,
    /// Where it starts, for servers without GTIDs and for messages.
    pub(super) began_at: BinlogPlace,
    pub(super) thread: u32,
    /// Set while it is the first part of an XA transaction.
    pub(super) xa: Option<XaPart>,
    /// The prepared part that it commits or rolls back.
    pub(super) decides: Option<TransactionStart>,
    /// It is in the log already, and is read for the sake of XA transactions only.
    pub(super) again: bool,
    /// It ends by an event of its own, whatever statements it holds (MariaDB).
    pub(super) grouped: bool,
    /// How many rows of which table are in the log already.
    logged: BTreeMap<String, u64>,
    /// The tables of the rows seen so far.
    pub(super) touched: Vec<Touched>,
    /// Whether a part of it is in the log.
    pub(super) partly_logged: bool,
    /// `None` until it has begun for the readers of transaction metadata.
    pub(super) metadata: Option<OpenMetadata>,
}

/// How many of a transaction's rows are a table's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) table: usize,
    name: Arc<str>,
    /// Seen so far.
    rows: u64,
    /// So many at its start are in the log already.
    logged: u64,
}

/// Where an event of the transaction stands.
pub(super) struct EventPlace<'a> {
    pub(super) file: &'a str,
    pub(super) offset: u64,
    pub(super) server_id: u32,
}

impl Transaction {
    /// What a record of an event in this transaction tells of its source.
    pub(super) fn source_block<'a>(
        &'a self,
        table: &'a TableId,
        event: EventPlace<'a>,
    ) -> SourceBlock<'a> {
        SourceBlock {
            version: SOURCE_VERSION,
            source: &table.source,
            snapshot: "false",
            database: &table.database,
            table: &table.table,
            committed_at_us: self.start.committed_at_us,
            server_id: event.server_id,
            gtid: &self.gtid,
            file: event.file,
            offset: event.offset,
            thread: self.thread,
        }
    }

    /// How many of the table's next rows are in the log already.
    fn passes_over(&mut self, table: usize, name: &Arc<str>) -> u64 {
        let touched = self.touched.iter().find(|touched| touched.table == table);
        let Some(touched) = touched else {
            let logged = self.logged.get(&**name).copied().unwrap_or_default();
            self.touched.push(Touched { table, name: name.clone(), rows: 0, logged });
            return logged;
        };
        touched.logged.saturating_sub(touched.rows)
    }

    /// Counts rows of a table.
    fn count(&mut self, table: usize, rows: u64) {
        if let Some(touched) = self.touched.iter_mut().find(|touched| touched.table == table) {
            touched.rows += rows;
        }
    }

    /// Whether rows of captured tables were seen.
    pub(super) fn has_rows(&self) -> bool {
        self.touched.iter().any(|touched| touched.rows > 0)
    }

    /// How many rows of which table are in the log once all that was seen is.
    pub(super) fn rows_done(&self) -> BTreeMap<String, u64> {
        let mut done = self.logged.clone();
        for touched in &self.touched {
            done.insert(touched.name.to_string(), touched.rows.max(touched.logged));
        }
        done
    }

    /// What names it in a position.
    pub(super) fn id(&self) -> String {
        if self.gtid.is_empty() {
            format!("{}:{}", self.began_at.file, self.began_at.offset)
        } else {
            self.gtid.clone()
        }
    }
}

impl Capture {
    /// Takes one event from the stream.
    pub(super) fn take_event(
        &mut self,
        header: &EventHeader,
        body: &[u8],
    ) -> Result<(), ReaderError> {
        let began_at = start_of_event(&self.place, header);
        // Before what is inside: a transaction that ends there is committed with the place behind it.
        self.advance(header);
        if header.kind == kind::TRANSACTION_PAYLOAD {
            let mut buffer = std::mem::take(&mut self.inflated);
            let mut result = Ok(());
            let read = compressed::for_each_inner_event::<Malformed>(
                body,
                &mut buffer,
                |inner, inner_body| {
                    if result.is_ok() {
                        // Inner events have no place: they carry that of the payload, as Debezium's do.
                        result = self.take_transaction_event(inner, inner_body, began_at);
                    }
                    Ok(())
                },
            );
            self.inflated = buffer;
            read.map_err(|error| self.bad_event(&error))?;
            result?;
            self.set_boundary();
            return Ok(());
        }
        self.take_transaction_event(header, body, began_at)?;
        self.set_boundary();
        Ok(())
    }

    /// After the last event of a transaction the stream stands between two transactions.
    pub(super) fn set_boundary(&mut self) {
        // What is read again lies before the boundary.
        if let Some(until) = &self.read_again_until {
            if !self.place.reached(until) {
                return;
            }
            self.read_again_until = None;
        }
        if self.transaction.is_none() && self.boundary != self.place && !self.place.file.is_empty()
        {
            self.boundary.file.clone_from(&self.place.file);
            self.boundary.offset = self.place.offset;
            // A server may begin new files and write nothing into them: the position goes along, for whoever waits for it
            // and so that the older files can be purged.
            self.moved = true;
        }
    }

    /// `log_pos` has 32 bits and wraps in files above 4 GiB; it only rises within a file.
    fn advance(&mut self, header: &EventHeader) {
        if header.is_artificial() || header.next_offset == 0 {
            return;
        }
        self.place.offset = unwrap_offset(self.place.offset, header.next_offset);
    }

    pub(super) fn take_transaction_event(
        &mut self,
        header: &EventHeader,
        body: &[u8],
        began_at: u64,
    ) -> Result<(), ReaderError> {
        match header.kind {
            kind::TABLE_MAP
            | kind::PARTIAL_UPDATE_ROWS
            | kind::WRITE_ROWS..=kind::DELETE_ROWS
            | kind::WRITE_ROWS_V1..=kind::DELETE_ROWS_V1
                if self.hold_xa(header, body, began_at)? || self.is_read_again() =>
            {
                Ok(())
            }
            kind::WRITE_ROWS..=kind::DELETE_ROWS
            | kind::WRITE_ROWS_V1..=kind::DELETE_ROWS_V1
            | kind::PARTIAL_UPDATE_ROWS => self.take_rows(header, body, began_at),
            kind::TABLE_MAP => self.take_table_map(body),
            kind::GTID | kind::ANONYMOUS_GTID => {
                let start = parse_gtid(body, header.kind == kind::ANONYMOUS_GTID)
                    .map_err(|error| self.bad_event(&error))?;
                self.begin(start, header)
            }
            kind::TAGGED_GTID_PLAIN => {
                let start = parse_tagged_gtid(body).map_err(|error| self.bad_event(&error))?;
                self.begin(start, header)
            }
            kind::XID => self.end_transaction(),
            kind::XA_PREPARE => self.take_xa_prepare(body),
            kind::QUERY => self.take_statement(header, body),
            kind::ROTATE => self.rotate(body),
            kind::HEARTBEAT => {
                self.take_heartbeat(header, body);
                Ok(())
            }
            _ => self.take_rare_event(header, body, began_at),
        }
    }

    pub(super) fn is_read_again(&self) -> bool {
        self.transaction.as_ref().is_some_and(|transaction| transaction.again)
    }

    pub(super) fn begin(
        &mut self,
        start: TransactionStart,
        header: &EventHeader,
    ) -> Result<(), ReaderError> {
        // A transaction without an end of its own (a single statement that we do not know) ends where the next begins.
        if self.transaction.is_some() {
            self.end_transaction()?;
        }
        let committed_at_us = match start.committed_at_us {
            0 => i64::from(header.timestamp) * 1_000_000,
            told => told,
        };
        let gtid = start.gtid();
        let offset = self.place.offset.saturating_sub(u64::from(header.size));
        let began_at = BinlogPlace { file: self.place.file.clone(), offset };
        let mut transaction = Transaction {
            start: TransactionStart { committed_at_us, ..start },
            gtid,
            began_at,
            thread: 0,
            xa: None,
            decides: None,
            again: false,
            grouped: false,
            logged: BTreeMap::new(),
            touched: Vec::new(),
            partly_logged: false,
            metadata: None,
        };
        transaction.again = match &self.read_again_until {
            Some(until) => !transaction.began_at.reached(until),
            None => self.reads_again && self.consumed.contains(&transaction.start),
        };
        if let Some(open) = &self.position.open_transaction
            && transaction.id() == open.id
        {
            transaction.logged.clone_from(&open.rows_done);
            transaction.partly_logged = true;
        }
        self.transaction = Some(transaction);
        Ok(())
    }

    pub(super) fn end_transaction(&mut self) -> Result<(), ReaderError> {
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        self.end_metadata(&transaction);
        if let Some(prepared) = &transaction.decides {
            self.consumed.insert(prepared);
        }
        if transaction.again {
            self.set_boundary();
            self.open_windows();
            return Ok(());
        }
        self.consumed.insert(&transaction.start);
        self.position.source_time_ms = transaction.start.committed_at_us / 1000;
        self.position.open_transaction = None;
        self.moved = true;
        self.keyless.end_transaction(&transaction.start, &self.place);
        self.set_boundary();
        self.open_windows();
        self.commit_if_due()
    }

    pub(super) fn take_table_map(&mut self, body: &[u8]) -> Result<(), ReaderError> {
        let stopped = self.tables.map(body, &self.filter, self.writer.as_mut(), &mut self.batch)?;
        match stopped {
            Some((table, sentence)) => {
                self.stop_table(&table, &sentence);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn take_rows(
        &mut self,
        header: &EventHeader,
        body: &[u8],
        began_at: u64,
    ) -> Result<(), ReaderError> {
        let table_id = table_map::table_id(body).map_err(|error| self.bad_event(&error))?;
        let Some(mut mapped) = self.tables.mapped(table_id) else { return Ok(()) };
        if self.position.stopped.contains_key(mapped.name.as_ref()) {
            return Ok(());
        }
        if lacks_defaults(&mapped.plan, header.kind, body) {
            mapped.plan = self.plan_with_defaults(table_id, &mapped)?;
        }
        let MappedTable { index, name, topic, plan } = mapped;
        // Rows outside a GTID event's transaction do not occur; one is made up so that nothing is lost if they do.
        if self.transaction.is_none() {
            self.begin(TransactionStart::default(), header)?;
        }
        self.begin_metadata(began_at);
        let Some(transaction) = &mut self.transaction else { return Ok(()) };
        let skip_rows = transaction.passes_over(index, &name);
        let event =
            EventPlace { file: &self.place.file, offset: began_at, server_id: header.server_id };
        let block = transaction.source_block(&plan.schemas.schema.id, event);
        self.parts.fill(&block, self.now_us);
        if let Some(metadata) = &transaction.metadata {
            metadata.before_event(index, &mut self.parts);
        }
        let context = RowsContext {
            plan: &plan,
            topic,
            timestamp_ms: transaction.start.committed_at_us / 1000,
            skip_rows,
            headers: &self.metadata.headers,
        };
        let held = self.keyless.batch(&name);
        let mut window = self.windows.of(&name);
        self.scratch.snapshot_open = window.is_some();
        let on_key = |key: &[u8]| {
            if let Some(window) = &mut window {
                window.note(key);
            }
        };
        let batch = held.unwrap_or(&mut self.batch);
        let encoded = encode_rows_event(
            &context,
            header.kind,
            body,
            &mut self.parts,
            &mut self.scratch,
            batch,
            on_key,
        );
        match encoded {
            Ok(rows) => {
                transaction.count(index, rows);
                if let Some(metadata) = &mut transaction.metadata {
                    metadata.after_event(index, &self.parts);
                }
                self.metrics.rows.inc_by(rows);
                self.windows.remember(&name)?;
                if !self.scratch.lacking.is_empty() {
                    self.hold_lacking(&name)?;
                }
                self.count_policies();
                self.keyless.limit(&name)?;
                self.append_if_full()?;
                // Inside a transaction: only when it has outgrown memory.
                self.commit_if_due()
            }
            Err(error) => {
                let place = format!("{}:{began_at}", self.place.file);
                self.stop_table(
                    &name,
                    &format!(
                        "its rows event at {place} cannot be read: {error}; take a new snapshot of the table"
                    ),
                );
                Ok(())
            }
        }
    }

    fn count_policies(&mut self) {
        self.metrics.zero_dates.inc_by(std::mem::take(&mut self.scratch.zero_dates));
        self.metrics.invalid_texts.inc_by(std::mem::take(&mut self.scratch.invalid_texts));
    }

    /// Stops one table; the rest goes on. The sentence is stored with the position and shown by `status`.
    pub(super) fn stop_table(&mut self, table: &str, sentence: &str) {
        if self.position.stopped.contains_key(table) {
            return;
        }
        tracing::error!(source = %self.source, table, reason = sentence, "table stopped");
        self.position.stopped.insert(table.to_owned(), sentence.to_owned());
        self.metrics.stopped_tables.set(self.position.stopped.len() as i64);
        self.keyless.forget(table);
        self.moved = true;
    }

    fn rotate(&mut self, mut body: &[u8]) -> Result<(), ReaderError> {
        let offset = take_le(&mut body, 8).map_err(|error| self.bad_event(&error))?;
        let file = String::from_utf8_lossy(body).into_owned();
        if file != self.place.file {
            // Table maps stand before their rows in every statement: old numbers are not used in a new file.
            self.tables.forget_maps();
        }
        self.place = BinlogPlace { file, offset };
        Ok(())
    }

    /// An idle server, or one that skips transactions which we have, says where it stands.
    fn take_heartbeat(&mut self, header: &EventHeader, body: &[u8]) {
        let file = String::from_utf8_lossy(body);
        if self.transaction.is_none() && file == self.place.file.as_str() {
            self.place.offset = unwrap_offset(self.place.offset, header.next_offset);
        }
    }
}

/// The place after an event, from the low 32 bits that its header tells.
fn unwrap_offset(current: u64, low: u32) -> u64 {
    let next = current & !0xffff_ffff | u64::from(low);
    if next < current { next + (1 << 32) } else { next }
}

/// Where an event starts, given the place before it.
fn start_of_event(before: &BinlogPlace, header: &EventHeader) -> u64 {
    if header.next_offset == 0 {
        return before.offset;
    }
    unwrap_offset(before.offset, header.next_offset).saturating_sub(u64::from(header.size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(logged: BTreeMap<String, u64>) -> Transaction {
        Transaction {
            start: TransactionStart::default(),
            gtid: String::new(),
            began_at: BinlogPlace::default(),
            thread: 0,
            xa: None,
            decides: None,
            again: false,
            grouped: false,
            logged,
            touched: Vec::new(),
            partly_logged: false,
            metadata: None,
        }
    }

    /// Takes events of (table, rows); answers the rows of each that are not passed over.
    fn take(transaction: &mut Transaction, events: &[(usize, u64)]) -> Vec<u64> {
        let names: [Arc<str>; 3] = ["d.a".into(), "d.b".into(), "d.c".into()];
        let take_one = |&(table, rows): &(usize, u64)| {
            let passed_over = transaction.passes_over(table, &names[table]).min(rows);
            transaction.count(table, rows);
            rows - passed_over
        };
        events.iter().map(take_one).collect()
    }

    #[test]
    fn rows_that_are_in_the_log_are_passed_over_table_by_table() {
        let mut first = transaction(BTreeMap::new());
        assert!(!first.has_rows());
        assert_eq!(take(&mut first, &[(0, 500), (1, 700), (0, 30)]), [500, 700, 30]);
        assert!(first.has_rows());
        // Read again with `d.b` left out and `d.c` new, and in events of other sizes.
        let mut again = transaction(first.rows_done());
        assert_eq!(take(&mut again, &[(0, 520), (2, 9), (0, 30), (0, 5)]), [0, 9, 20, 5]);
        // Committed in the middle of that and read once more, with `d.b`.
        let mut third = transaction(again.rows_done());
        assert_eq!(take(&mut third, &[(0, 555), (1, 701), (2, 10), (0, 1)]), [0, 1, 1, 1]);
    }

    #[test]
    fn a_part_that_is_read_again_and_committed_early_keeps_what_was_done() {
        let mut again = transaction(BTreeMap::from([("d.a".to_owned(), 100)]));
        assert_eq!(take(&mut again, &[(0, 60)]), [0]);
        assert_eq!(again.rows_done(), BTreeMap::from([("d.a".to_owned(), 100)]));
    }
}
