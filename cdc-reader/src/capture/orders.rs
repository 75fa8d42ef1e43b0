//! What is asked of a running source from outside: signals, and another set of tables. Obeyed between two transactions;
//! what it does to the log and to the position is one log transaction, after which the snapshot readers are told.

use change_log::EncodedRecord;
use schemas::position::{RefusedSignal, TableSnapshot};
use tokio::sync::mpsc::error::TrySendError;
use tracing::{info, warn};

use super::{
    Capture,
    captured_tables::{CapturedTables, enter_tables},
};
use crate::{
    encode::envelope::{SOURCE_VERSION, SourceBlock},
    error::ReaderError,
    flow::{Order, SignalOrder, TablesOrder},
    mysql::catalog::CatalogTable,
    signals::{Signal, SignalAction, refusal},
    snapshot::request::Request,
};

/// Refused signals that the position keeps, for whoever sent them and waits.
const REFUSED_MAX: usize = 8;

impl Capture {
    /// Does what was asked for, if the stream stands between two transactions. A transaction that is in the log in part
    /// was counted by the tables that were captured then: it comes first.
    pub(super) fn obey_orders(&mut self) -> Result<(), ReaderError> {
        while !self.orders.is_empty()
            && self.transaction.is_none()
            && self.position.open_transaction.is_none()
        {
            let (requests, taken) = match self.orders.remove(0) {
                Order::Signal(order) => (self.obey_signal(order)?, None),
                Order::Tables(order) => {
                    let (requests, taken) = self.capture_tables(order)?;
                    (requests, Some(taken))
                }
            };
            self.commit()?;
            // A crash before this loses nothing: the next start finds in the position what is to be read.
            for request in requests {
                self.ask_readers(request)?;
            }
            if let Some(taken) = taken {
                let _ = taken.send(());
            }
        }
        Ok(())
    }

    /// Without a receiver this attempt is about to end.
    fn ask_readers(&self, request: Request) -> Result<(), ReaderError> {
        let Some(requests) = &self.live.requests else { return Ok(()) };
        match requests.try_send(request) {
            Err(TrySendError::Full(_)) => Err(ReaderError::Transient {
                place: "this process".into(),
                reason: "too many tables wait to be read again".into(),
            }),
            Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
        }
    }

    fn obey_signal(&mut self, order: SignalOrder) -> Result<Vec<Request>, ReaderError> {
        let SignalOrder { signal, tables, refused, next_offset } = order;
        self.position.signals_read = Some(next_offset);
        let refused = refused
            .or_else(|| signal.tables.iter().find_map(|table| self.not_now(&signal, table)))
            .or_else(|| tables.iter().find_map(|table| self.keyless_refusal(&signal, table)));
        if let Some(reason) = refused {
            warn!(source = %self.source, signal = signal.id, reason, "signal refused");
            let refused = &mut self.position.signals_refused;
            if refused.len() >= REFUSED_MAX {
                refused.remove(0);
            }
            refused.push(RefusedSignal { id: signal.id, reason });
            return Ok(Vec::new());
        }
        info!(source = %self.source, signal = signal.id, action = ?signal.action, tables = ?signal.tables, "signal");
        let mut requests = Vec::new();
        for table in &tables {
            requests.extend(self.add(&signal, table)?);
        }
        for table in &signal.tables {
            match signal.action {
                SignalAction::Add => {}
                SignalAction::Pause => requests.extend(self.set_paused(table, true)),
                SignalAction::Resume => requests.extend(self.set_paused(table, false)),
                SignalAction::Stop => requests.extend(self.end_snapshot(table)?),
            }
        }
        Ok(requests)
    }

    fn not_now(&self, signal: &Signal, table: &str) -> Option<String> {
        let captured =
            table.split_once('.').is_some_and(|(db, name)| self.filter.captures(db, name));
        if !captured {
            return Some(format!("{table} is not captured; add it to `tables`"));
        }
        refusal(&self.position, signal, table)
    }

    /// Rows of a table without a key cannot be told from those that are in the lake.
    fn keyless_refusal(&self, signal: &Signal, table: &CatalogTable) -> Option<String> {
        let name = table.name();
        if !table.schema.key.is_empty() {
            return None;
        }
        let progress = self.position.snapshots.get(&name);
        if signal.filter.is_some() {
            return Some(format!("{name} has no key, so it can only be read whole, and once"));
        }
        let stopped = self.position.stopped.contains_key(&name);
        (!stopped && progress.is_some_and(|progress| progress.done)).then(|| {
            format!(
                "{name} has no key and is kept as history: its rows cannot be told from those that are in the lake \
                 already, so it is read once only"
            )
        })
    }

    fn add(
        &mut self,
        signal: &Signal,
        table: &CatalogTable,
    ) -> Result<Option<Request>, ReaderError> {
        let name = table.name();
        let was_stopped = self.position.stopped.remove(&name).is_some();
        self.metrics.stopped_tables.set(self.position.stopped.len() as i64);
        // The stream may have learned that it cannot read the table as it was.
        self.tables.forget_maps();
        self.tables.list(&table.schema);
        let before = self.position.snapshots.get(&name).cloned().unwrap_or_default();
        if was_stopped && table.schema.key.is_empty() && before.done {
            warn!(
                source = %self.source, table = name,
                "the table has no key: its changes are captured again from here on, and those since it was stopped are lost"
            );
            let progress = TableSnapshot { partial: true, ..before };
            self.position.snapshots.insert(name, progress);
            return Ok(None);
        }
        let complete = before.done && !before.partial && !was_stopped;
        let keyed = !table.schema.key.is_empty();
        let progress = TableSnapshot {
            again: complete,
            anew: !complete && keyed,
            partial: keyed && (!complete || signal.replace),
            gap: before.gap,
            filter: signal.filter.clone(),
            rows_estimated: table.rows_estimated(),
            ..TableSnapshot::default()
        };
        if keyed && (signal.replace || was_stopped) {
            let emptied = self.empty_copy(table);
            self.stop_refused(emptied)?;
        }
        Ok(Some(self.begin_reading(table, progress)))
    }

    /// The table's rows are read from the first key on, from now on.
    fn begin_reading(&mut self, table: &CatalogTable, progress: TableSnapshot) -> Request {
        let name = table.name();
        self.position.snapshots.insert(name.clone(), progress);
        let generation = self.windows.open_now(&name);
        if table.schema.key.is_empty() {
            self.keyless.add(&name);
        }
        Request::Read { table: table.schema.id.clone(), generation }
    }

    fn set_paused(&mut self, table: &str, paused: bool) -> Option<Request> {
        let progress = self.position.snapshots.get_mut(table)?;
        progress.paused = paused;
        Some(if paused { Request::Pause(table.into()) } else { Request::Resume(table.into()) })
    }

    /// The table is streamed from here on; rows that were not read stay out.
    fn end_snapshot(&mut self, table: &str) -> Result<Option<Request>, ReaderError> {
        let Some(progress) = self.position.snapshots.get_mut(table) else { return Ok(None) };
        // Rows that are only read again are all there; of chosen ones, what was there before says it.
        let lacks_rows = progress.partial || !progress.again && progress.filter.is_none();
        progress.finish();
        progress.partial = lacks_rows;
        self.windows.close(table);
        if let Some(held) = self.keyless.give_up(table) {
            self.append_held(held)?;
        }
        Ok(Some(Request::Stop(table.into())))
    }

    fn capture_tables(
        &mut self,
        order: TablesOrder,
    ) -> Result<(Vec<Request>, tokio::sync::oneshot::Sender<()>), ReaderError> {
        self.filter = order.filter;
        self.tables.forget_maps();
        for table in &order.catalog.tables {
            self.tables.list(&table.schema);
        }
        for (table, sentence) in &order.catalog.unsupported {
            self.stop_table(table, sentence);
        }
        let found = enter_tables(&mut self.position, &self.filter, &order.catalog, self.live.mode);
        self.metrics.stopped_tables.set(self.position.stopped.len() as i64);
        found.tell(&self.source);
        let mut requests = Vec::new();
        for name in &found.left_out {
            self.windows.close(name);
            self.keyless.forget(name);
            requests.push(Request::Stop(name.clone()));
        }
        for table in &found.emptied {
            let emptied = self.empty_copy(table);
            self.stop_refused(emptied)?;
        }
        for table in &found.begun {
            let progress = self.position.snapshots.get(&table.name()).cloned().unwrap_or_default();
            let paused = progress.paused;
            requests.push(self.begin_reading(table, progress));
            if paused {
                requests.push(Request::Pause(table.name()));
            }
        }
        Ok((requests, order.taken))
    }

    /// One record of operation `t`, between two transactions.
    pub(super) fn empty_copy(&mut self, table: &CatalogTable) -> Result<(), ReaderError> {
        let schema = &table.schema;
        let target = self.tables.target_of_schema(schema, self.writer.as_mut(), &mut self.batch)?;
        self.parts.fill(
            &SourceBlock {
                version: SOURCE_VERSION,
                source: &self.source,
                snapshot: "incremental",
                database: &schema.id.database,
                table: &schema.id.table,
                committed_at_us: self.now_us,
                server_id: 0,
                gtid: "",
                file: &self.boundary.file,
                offset: self.boundary.offset,
                thread: 0,
            },
            self.now_us,
        );
        self.parts.set_op(b't');
        let bytes = &mut self.batch.bytes;
        let headers_start = bytes.len();
        bytes.extend_from_slice(&self.metadata.headers);
        let start = bytes.len();
        bytes.extend_from_slice(&target.schemas.value.framing);
        // Neither a row before nor one after.
        bytes.extend_from_slice(&[0, 0]);
        self.parts.write(bytes, 0);
        self.batch.records.push(EncodedRecord {
            topic: target.topic,
            key: None,
            value: Some(start..self.batch.bytes.len()),
            headers: headers_start..start,
            timestamp_ms: self.now_us / 1000,
        });
        Ok(())
    }
}

impl CapturedTables {
    /// What whoever runs the reader should know.
    pub fn tell(&self, source: &str) {
        for table in &self.left_out {
            info!(source, table, "table is not captured any more");
        }
        for table in self.begun.iter().map(CatalogTable::name) {
            info!(source, table, "table is captured, its rows are to be read");
        }
        for table in self.emptied.iter().map(CatalogTable::name) {
            warn!(
                source,
                table,
                "changes of the table were missed: its copy is emptied and read anew; a history table keeps its rows, \
                 lacks the versions of the time between and gets a version of every row"
            );
        }
        for table in &self.with_gap {
            warn!(
                source,
                table,
                "changes of the table were missed, and it has no key, so it is not read again: its history has a gap"
            );
        }
    }
}
