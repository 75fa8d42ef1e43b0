//! The encode thread: takes raw events and snapshot chunks, keeps the transaction state, and writes records and
//! position to the log. One thread owns all of it, so there is one order.
//!
//! Records of a transaction are appended as its events come; they become visible with the next commit, which also
//! holds the position. A commit happens between transactions when it is due by time or bytes. Inside a transaction
//! it happens only when the transaction has outgrown `PART_BYTES`; the position then names the open transaction and
//! how many of its rows are in the log, so that a restart reads the transaction again and passes those rows over.

pub(crate) mod captured_tables;
mod commit;
mod defaults;
mod events;
mod held_records;
mod keyless;
mod live_tables;
mod metadata;
mod orders;
mod rare_events;
mod read_again;
mod schema_changes;
pub mod schema_ids;
mod snapshot_rows;
mod spooled_rows;
mod statements;
pub mod table_history;
mod tables;
mod xa;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use change_log::{EncodedBatch, LogWriter};
use schemas::{
    avro_schema::AvroOptions,
    position::{BinlogPlace, Position},
    table_schema::TableSchema,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{
    defaults::Defaults, events::Transaction, keyless::KeylessTables, live_tables::LiveTables,
    metadata::Metadata, schema_ids::SchemaIds, table_history::TableHistory, tables::Tables,
    xa::PreparedParts,
};
pub use self::{defaults::ReadDefaults, live_tables::LiveServer, metadata::DebeziumOptions};
use crate::{
    binlog::{
        byte_reader::{little_endian, take},
        consumed::{Consumed, Coordinates},
        dump::give_back,
        event::{EventHeader, HEADER_LENGTH},
    },
    config::SourceConfig,
    encode::{envelope::EnvelopeParts, row::RowScratch},
    error::ReaderError,
    flow::{Input, Order, SpentSender, SpooledTable, StreamState, WindowRequest},
    metrics::SourceMetrics,
    mysql::catalog::CatalogTable,
    snapshot::{chunk_buffers::ChunkBuffers, window::Windows},
    table_filter::TableFilter,
};

/// Inputs that are put by while a chunk is written.
const STASHED_MAX: usize = 4;
/// How long the thread waits for input before it looks at the clock.
const TICK: Duration = Duration::from_millis(50);

/// What the encode thread starts with.
pub struct CaptureSetup {
    /// The source's name.
    pub source: String,
    /// How the schemas are made.
    pub options: AvroOptions,
    /// Which of Debezium's additions are written.
    pub debezium: DebeziumOptions,
    /// The longest time between commits that have records.
    pub commit_interval: Duration,
    /// Which tables are captured.
    pub filter: TableFilter,
    /// The log, opened.
    pub writer: Box<dyn LogWriter>,
    /// Where to go on.
    pub position: Position,
    /// How places in the source's binlog are named.
    pub coordinates: Coordinates,
    /// Whether the server is MariaDB.
    pub mariadb: bool,
    /// Shapes from the catalog by `database.table`: for keys without a primary key, and for TRUNCATE of a table
    /// that the stream has not shown yet.
    pub catalog: HashMap<String, Arc<TableSchema>>,
    /// Tables without a key whose existing rows are still to be read.
    pub keyless_pending: HashSet<String>,
    /// Tables whose snapshot is under way, each with the keys that the stream has changed since it began.
    pub windows: Windows,
    /// Tables whose copies are to be emptied before anything else.
    pub emptied: Vec<CatalogTable>,
    /// Asks for the columns' defaults.
    pub defaults: ReadDefaults,
    /// The source's metrics.
    pub metrics: SourceMetrics,
    /// Takes the chunks of events back.
    pub spent: SpentSender,
    /// The way to the server and to the snapshot reader.
    pub live: LiveServer,
    /// The tables' columns by name, as of the position.
    pub history: TableHistory,
    /// The schema registry's numbers, where there is one.
    pub schema_ids: Option<SchemaIds>,
    /// Tells what was committed last.
    pub committed: watch::Sender<Position>,
    /// Why no snapshot reads on at this moment.
    pub held_back: watch::Receiver<Option<String>>,
    /// Takes the memory of chunks back.
    pub buffers: ChunkBuffers,
}

impl CaptureSetup {
    /// A source from the beginning: no position, no catalog, no snapshot, and no way back for its chunks.
    pub fn new(
        config: &SourceConfig,
        filter: TableFilter,
        writer: Box<dyn LogWriter>,
        metrics: SourceMetrics,
    ) -> Self {
        Self {
            source: config.name.clone(),
            options: AvroOptions { debezium_compat: config.debezium_compat },
            debezium: config.into(),
            commit_interval: Duration::from_millis(config.commit_interval_ms),
            filter,
            writer,
            position: Position::default(),
            coordinates: Coordinates::default(),
            mariadb: false,
            catalog: HashMap::new(),
            keyless_pending: HashSet::new(),
            windows: Windows::new(&std::env::temp_dir()),
            emptied: Vec::new(),
            defaults: Box::new(|| Ok(Default::default())),
            metrics,
            spent: mpsc::channel(1).0,
            live: LiveServer::default(),
            history: TableHistory::default(),
            committed: watch::Sender::default(),
            held_back: watch::channel(None).1,
            schema_ids: None,
            buffers: ChunkBuffers::default(),
        }
    }
}

/// The state of the encode thread.
struct Capture {
    source: String,
    commit_interval: Duration,
    filter: TableFilter,
    writer: Box<dyn LogWriter>,
    metrics: SourceMetrics,
    spent: SpentSender,
    /// As it will be committed; `gtid_set` and `place` are filled in by `commit`.
    position: Position,
    committed: watch::Sender<Position>,
    held_back: watch::Receiver<Option<String>>,
    buffers: ChunkBuffers,
    inbox: mpsc::Receiver<Input>,
    /// Came while a chunk was written.
    stashed: VecDeque<Input>,
    consumed: Consumed,
    prepared: PreparedParts,
    /// The stream began before the position, for XA transactions that are undecided; what is in the log already is passed
    /// over: up to this place, or what `consumed` contains.
    reads_again: bool,
    read_again_until: Option<BinlogPlace>,
    /// The file that the stream reads, and when it was begun.
    file_created: (String, u32),
    /// After the last event; where a transaction is open, inside it.
    place: BinlogPlace,
    /// After the last whole transaction.
    boundary: BinlogPlace,
    transaction: Option<Transaction>,
    tables: Tables,
    metadata: Metadata,
    runtime: tokio::runtime::Handle,
    live: LiveServer,
    defaults: Defaults,
    windows: Windows,
    window_requests: Vec<WindowRequest>,
    orders: Vec<Order>,
    keyless: KeylessTables,
    /// To be written between two transactions.
    spooled_tables: Vec<SpooledTable>,
    stop: CancellationToken,
    batch: EncodedBatch,
    parts: EnvelopeParts,
    scratch: RowScratch,
    inflated: Vec<u8>,
    answers: Vec<oneshot::Sender<()>>,
    bytes_uncommitted: usize,
    too_large_told: u64,
    moved: bool,
    now: Instant,
    now_us: i64,
    last_commit: Instant,
    metrics_told: Option<Instant>,
    /// The position has changed since.
    metrics_behind: bool,
}

/// Runs until `shutdown`, the inbox closes, or an error. What is complete is committed before it returns.
pub fn run(
    setup: CaptureSetup,
    inbox: mpsc::Receiver<Input>,
    runtime: &tokio::runtime::Handle,
    shutdown: &CancellationToken,
) -> Result<(), ReaderError> {
    let mut capture = Capture::new(setup, inbox, runtime, shutdown.clone())?;
    loop {
        let input = runtime.block_on(async {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => Next::Stop,
                input = tokio::time::timeout(TICK, capture.next_input()) => match input {
                    Ok(Some(input)) => Next::Input(input),
                    Ok(None) => Next::Stop,
                    Err(_) => Next::Tick,
                },
            }
        });
        capture.read_clock();
        match input {
            Next::Input(input) => capture.take_input(input)?,
            Next::Tick => {}
            Next::Stop => return capture.finish(),
        }
        capture.emit_ready_chunks()?;
        capture.heartbeat_if_due();
        capture.commit_if_due()?;
    }
}

enum Next {
    Input(Input),
    Tick,
    Stop,
}

impl Capture {
    fn new(
        setup: CaptureSetup,
        inbox: mpsc::Receiver<Input>,
        runtime: &tokio::runtime::Handle,
        stop: CancellationToken,
    ) -> Result<Self, ReaderError> {
        let consumed = Consumed::parse(setup.coordinates, &setup.position.gtid_set)
            .map_err(|error| ReaderError::PositionLost(format!("the stored position: {error}")))?;
        let reads_again = consumed.needs_prepared() && !setup.position.prepared.is_empty();
        let now = Instant::now();
        let mut capture = Self {
            tables: Tables::new(
                setup.source.clone(),
                setup.options,
                setup.catalog,
                setup.mariadb,
                LiveTables::new(setup.live.config.clone(), runtime.clone()),
                setup.history,
                setup.schema_ids,
            ),
            live: setup.live,
            metadata: Metadata::default(),
            runtime: runtime.clone(),
            prepared: PreparedParts::default(),
            reads_again,
            read_again_until: (reads_again && setup.coordinates == Coordinates::Place)
                .then(|| setup.position.place.clone()),
            file_created: (String::new(), 0),
            defaults: Defaults::new(setup.defaults),
            source: setup.source,
            commit_interval: setup.commit_interval,
            filter: setup.filter,
            writer: setup.writer,
            metrics: setup.metrics,
            spent: setup.spent,
            boundary: setup.position.place.clone(),
            position: setup.position,
            committed: setup.committed,
            held_back: setup.held_back,
            buffers: setup.buffers,
            inbox,
            stashed: VecDeque::new(),
            consumed,
            place: BinlogPlace::default(),
            transaction: None,
            windows: setup.windows,
            window_requests: Vec::new(),
            orders: Vec::new(),
            keyless: KeylessTables::new(setup.keyless_pending),
            spooled_tables: Vec::new(),
            stop,
            batch: EncodedBatch::default(),
            parts: EnvelopeParts::default(),
            scratch: RowScratch::default(),
            inflated: Vec::new(),
            answers: Vec::new(),
            bytes_uncommitted: 0,
            too_large_told: 0,
            moved: true,
            now,
            now_us: 0,
            last_commit: now,
            metrics_told: None,
            metrics_behind: false,
        };
        capture.read_clock();
        capture.metadata = Metadata::open(
            &setup.debezium,
            &capture.source,
            capture.now_us,
            &mut capture.tables,
            capture.writer.as_mut(),
            &mut capture.batch,
        )?;
        capture.metrics.stopped_tables.set(capture.position.stopped.len() as i64);
        for table in &setup.emptied {
            let emptied = capture.empty_copy(table);
            capture.stop_refused(emptied)?;
        }
        // The position is in the log before anything is read: a restart goes on from here, not from a later place.
        capture.commit()?;
        Ok(capture)
    }

    fn read_clock(&mut self) {
        self.now = Instant::now();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.now_us = i64::try_from(since_1970.as_micros()).unwrap_or_default();
    }

    async fn next_input(&mut self) -> Option<Input> {
        match self.stashed.pop_front() {
            Some(input) => Some(input),
            None => self.inbox.recv().await,
        }
    }

    /// Opens the windows that were asked for while a chunk is written: else their readers wait for its end. Whatever
    /// else has come keeps its turn.
    fn answer_readers(&mut self) {
        while self.stashed.len() < STASHED_MAX {
            match self.inbox.try_recv() {
                Ok(Input::OpenWindow(request))
                    if request.chunk.is_none_or(|chunk| !chunk.restart)
                        && self.stashed.iter().all(is_events) =>
                {
                    self.window_requests.push(request);
                    self.open_windows();
                }
                Ok(input) => self.stashed.push_back(input),
                Err(_) => return,
            }
        }
    }

    fn take_input(&mut self, input: Input) -> Result<(), ReaderError> {
        match input {
            Input::Events(chunk) => {
                self.take_events(&chunk)?;
                give_back(&self.spent, chunk);
                Ok(())
            }
            Input::OpenWindow(request) => {
                self.window_requests.push(request);
                self.open_windows();
                Ok(())
            }
            Input::Chunk(chunk) => {
                self.windows.wait(chunk);
                Ok(())
            }
            Input::Order(order) => {
                self.orders.push(order);
                self.obey_orders()
            }
            Input::View(request) => {
                self.keyless.view(request);
                Ok(())
            }
            Input::NoView(table) => {
                self.keyless.reset(&table);
                Ok(())
            }
            Input::Table(table) => {
                self.spooled_tables.push(table);
                Ok(())
            }
        }
    }

    /// Opens the windows that were asked for. Only between transactions: keys that an open transaction has changed
    /// already would be missed, and it is not in the state that the answer tells.
    fn open_windows(&mut self) {
        if self.transaction.is_some() {
            return;
        }
        for request in std::mem::take(&mut self.window_requests) {
            let walk = self.windows.generation(&request.table);
            if let Some(chunk) = request.chunk.filter(|chunk| walk == Some(chunk.generation)) {
                if chunk.restart {
                    self.restart_walk(&request.table, chunk.has_key);
                } else {
                    self.keyless.open(&request.table);
                    self.windows.ask(&request.table, chunk.order);
                }
            }
            let unwanted = self.position.stopped.contains_key(&request.table);
            let generation = self.windows.generation(&request.table).filter(|_| !unwanted);
            let state = StreamState {
                gtid_set: self.consumed.to_string(),
                place: self.boundary.clone(),
                generation: generation.unwrap_or_default(),
                filter: self.position.snapshots.get(&request.table).and_then(|p| p.filter.clone()),
                unwanted: generation.is_none(),
            };
            // Whoever looks at the position sees the chunk in flight.
            self.moved = true;
            // The snapshot reader may be gone; then its window is of no use and is replaced by the next one.
            let _ = request.reply.send(state);
        }
    }

    fn take_events(&mut self, chunk: &[u8]) -> Result<(), ReaderError> {
        let mut rest = chunk;
        while !rest.is_empty() {
            let event = take(&mut rest, 4)
                .and_then(|length| take(&mut rest, little_endian(length) as usize))
                .map_err(|error| self.bad_event(&error))?;
            let header = EventHeader::parse(event).map_err(|error| self.bad_event(&error))?;
            self.take_event(&header, &event[HEADER_LENGTH..])?;
            self.obey_orders()?;
        }
        Ok(())
    }

    fn bad_event(&self, error: &crate::binlog::byte_reader::Malformed) -> ReaderError {
        ReaderError::BadEvent {
            place: format!("{}:{}", self.place.file, self.place.offset),
            reason: error.to_string(),
        }
    }
}

fn is_events(input: &Input) -> bool {
    matches!(input, Input::Events(_))
}
