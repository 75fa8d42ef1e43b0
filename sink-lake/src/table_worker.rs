//! One table's way from the log to the lake: takes its records, decodes them, and commits when it is due. It is the
//! table's only writer in this process; a writer in another process is noticed when a commit conflicts, after which the
//! table is loaded anew and what it already contains is dropped from the buffer.

mod flush;
mod lake_side;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use change_log::Consumed;
use schemas::table_id::TableId;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::lake_side::LakeSide;
use crate::{
    buffer::Buffer,
    config::Mode,
    dead_letters,
    decode::table_decoder::{DecodeStop, KeyColumns, TableDecoder},
    error::{Consequence, SinkError, with_causes},
    flow::DeadLetter,
    flush_policy::{Buffered, FlushPolicy, flush_due},
    memory_budget::TableMemory,
    metrics::SinkMetrics,
    router::{Command, Delivery, Discovered, Service},
    schema_catalog::SchemaCatalog,
    status::TableState,
};

const QUEUE_BATCHES: usize = 64;
const TICK: Duration = Duration::from_millis(100);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// A stopping sink commits what it has within this time; what it can't is read again after the start.
const DRAIN_MAX: Duration = Duration::from_secs(20);

/// What all workers share.
#[derive(Clone)]
pub struct Shared {
    /// The lake's folder.
    pub lake: PathBuf,
    /// When to commit.
    pub policy: FlushPolicy,
    /// To the router.
    pub commands: mpsc::Sender<Command>,
    /// The schemas of the table's source.
    pub catalog: SchemaCatalog,
    /// How many tables write files at the same time.
    pub writers: Arc<Semaphore>,
    /// Metrics and status.
    pub metrics: SinkMetrics,
    /// Stops everything.
    pub shutdown: CancellationToken,
}

/// A table's worker.
pub struct TableWorker {
    table: TableId,
    name: String,
    topic: String,
    partitions: i32,
    rule: Option<Mode>,
    shared: Shared,
    memory: Arc<TableMemory>,
    /// What of `memory` is in `buffer` and `decoder`.
    buffered_bytes: usize,
    decoder: TableDecoder,
    buffer: Buffer,
    lake_side: LakeSide,
    /// Per partition: the next offset that is neither committed nor buffered.
    positions: BTreeMap<i32, i64>,
}

impl TableWorker {
    /// A worker for a discovered table, whose mode is `rule` if there is one.
    pub fn new(
        discovered: Discovered,
        rule: Option<Mode>,
        shared: Shared,
        memory: Arc<TableMemory>,
    ) -> Self {
        let mut decoder = TableDecoder::default();
        if rule == Some(Mode::History) {
            decoder.ignore_key_changes();
        }
        Self {
            name: discovered.table.to_string(),
            lake_side: LakeSide::new(&shared.lake, &discovered.table, &discovered.topic),
            table: discovered.table,
            topic: discovered.topic,
            partitions: discovered.partitions,
            rule,
            shared,
            memory,
            buffered_bytes: 0,
            decoder,
            buffer: Buffer::default(),
            positions: BTreeMap::new(),
        }
    }

    /// Works until the sink stops or the table does; the error says why the table did.
    pub async fn run(mut self) -> Result<(), SinkError> {
        let result = self.work().await;
        let release = Command::Release { topic: self.topic.clone() };
        // A router that is gone needs no release.
        self.shared.commands.send(release).await.ok();
        result
    }

    async fn work(&mut self) -> Result<(), SinkError> {
        let mut records = match self.start().await? {
            Some(records) => records,
            None => return Ok(()),
        };
        let shutdown = self.shared.shutdown.clone();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                delivery = records.recv() => match delivery {
                    Some(delivery) => self.take(delivery).await?,
                    None => break,
                },
                _ = tick.tick() => {}
            }
            self.report();
            if flush_due(&self.buffered(), &self.shared.policy, Instant::now()) {
                self.flush_until_done().await?;
            }
        }
        self.drain().await
    }

    /// Opens the table and asks for its records; `None` when the sink stops first.
    async fn start(&mut self) -> Result<Option<mpsc::Receiver<Delivery>>, SinkError> {
        let mut wait = RETRY_FIRST;
        while let Err(error) = self.lake_side.open().await {
            self.endure(error, &mut wait).await?;
            if self.shared.shutdown.is_cancelled() {
                return Ok(None);
            }
        }
        self.check_mode()?;
        let (sender, receiver) = mpsc::channel(QUEUE_BATCHES);
        let next_offsets = self.lake_side.next_offsets().clone();
        let service = Service {
            topic: self.topic.clone(),
            partitions: self.partitions,
            next_offsets: next_offsets.clone(),
            records: sender,
            memory: Arc::clone(&self.memory),
        };
        let mode = self.lake_side.mode();
        self.shared.metrics.status().update(&self.name, |status| {
            status.state = TableState::Running;
            status.mode = mode;
            status.next_offsets = next_offsets;
        });
        let sent = self.shared.commands.send(Command::Serve(service)).await;
        Ok(sent.is_ok().then_some(receiver))
    }

    fn check_mode(&mut self) -> Result<(), SinkError> {
        let Some(mode) = self.lake_side.mode() else { return Ok(()) };
        if mode == Mode::History {
            self.decoder.ignore_key_changes();
        }
        match self.rule {
            Some(rule) if rule != mode => Err(self.unfit(format!(
                "the lake keeps it in mode {} and the configuration says {}; take the configuration back, or move its folder away and take a new snapshot of it",
                mode.name(),
                rule.name()
            ))),
            _ => Ok(()),
        }
    }

    async fn take(&mut self, delivery: Delivery) -> Result<(), SinkError> {
        match delivery {
            Delivery::Assigned(starts) => {
                self.positions = starts;
                Ok(())
            }
            Delivery::Gone { partition, wanted, first } if wanted < first => {
                let topic = self.topic.clone();
                Err(SinkError::OffsetGone { topic, partition, wanted, first })
            }
            Delivery::Gone { partition, wanted, .. } => Err(self.unfit(format!(
                "it goes on from offset {wanted} of {}[{partition}], which the change log does not have: the log was made anew; move the table's folder away and take a new snapshot of it",
                self.topic
            ))),
            Delivery::Records(consumed) => {
                let bytes = consumed.bytes.len();
                let result = self.decode(consumed).await;
                let buffered = self.buffer.bytes + self.decoder.open_bytes();
                self.memory.add(buffered.saturating_sub(self.buffered_bytes));
                self.memory.remove(bytes);
                self.buffered_bytes = self.buffered_bytes.max(buffered);
                result
            }
        }
    }

    async fn decode(&mut self, consumed: Consumed) -> Result<(), SinkError> {
        let partition = consumed.partition;
        let position = self.positions.get(&partition).copied().unwrap_or(0);
        let unknown = self.decoder.unknown_schemas(&consumed);
        if !unknown.is_empty() {
            let mut wait = RETRY_FIRST;
            let texts = loop {
                match self.shared.catalog.find(unknown.clone()).await {
                    Ok(texts) => break texts,
                    Err(error) => self.endure(error, &mut wait).await?,
                }
                if self.shared.shutdown.is_cancelled() {
                    return Ok(());
                }
            };
            for (fingerprint, text) in texts {
                let learned = self.decoder.learn(fingerprint, &text);
                learned.map_err(|stop| self.stopped(stop))?;
            }
        }
        let decoded = self.decoder.decode(&consumed, position, &mut self.buffer);
        let letters = decoded.map_err(|stop| self.stopped(stop))?;
        self.positions.insert(partition, consumed.next_offset);
        self.set_apart(&letters).await
    }

    /// Keeps records that can't be rows of the table.
    async fn set_apart(&self, letters: &[DeadLetter]) -> Result<(), SinkError> {
        let Some(first) = letters.first() else { return Ok(()) };
        warn!(
            table = self.name,
            records = letters.len(),
            reason = first.reason,
            "records are set apart"
        );
        self.shared
            .metrics
            .dead_letters
            .with_label_values(&[&self.name])
            .inc_by(letters.len() as u64);
        let count = letters.len() as u64;
        self.shared.metrics.status().update(&self.name, |status| status.dead_letters += count);
        let mut wait = RETRY_FIRST;
        while let Err(error) = dead_letters::write(&self.shared.lake, &self.table, letters) {
            self.endure(error, &mut wait).await?;
            if self.shared.shutdown.is_cancelled() {
                break;
            }
        }
        Ok(())
    }

    async fn drain(&mut self) -> Result<(), SinkError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        match tokio::time::timeout(DRAIN_MAX, self.flush()).await {
            Ok(Ok(_)) => info!(table = self.name, "committed before stopping"),
            Ok(Err(error)) => {
                let error = with_causes(&error);
                warn!(
                    table = self.name,
                    error, "not committed before stopping; read again after the start"
                );
            }
            Err(_) => {
                warn!(
                    table = self.name,
                    "not committed in time before stopping; read again after the start"
                );
            }
        }
        Ok(())
    }

    fn buffered(&self) -> Buffered {
        Buffered {
            oldest: self.buffer.oldest,
            rows: self.buffer.rows + self.decoder.open_rows(),
            bytes: self.buffered_bytes,
            memory_is_short: self.memory.is_short(),
        }
    }

    fn report(&self) {
        let metrics = &self.shared.metrics;
        let labels = [self.name.as_str()];
        let oldest_ms = self.buffer.oldest_ms;
        let age_ms = oldest_ms.map_or(0, |oldest| crate::delta::data_file::now_ms() - oldest);
        metrics.lag_seconds.with_label_values(&labels).set(age_ms.max(0) as f64 / 1000.0);
        let bytes = i64::try_from(self.memory.bytes()).unwrap_or(i64::MAX);
        metrics.buffered_bytes.with_label_values(&labels).set(bytes);
        let rows = (self.buffer.rows + self.decoder.open_rows()) as u64;
        metrics.status().update(&self.name, |status| {
            status.rows_waiting = rows;
            status.oldest_waiting_ms = oldest_ms;
        });
    }

    /// Waits after an error that may pass; fails with one that does not.
    async fn endure(&self, error: SinkError, wait: &mut Duration) -> Result<(), SinkError> {
        if error.consequence() != Consequence::Retry {
            return Err(error);
        }
        warn!(table = self.name, error = with_causes(&error), "trying again");
        tokio::select! {
            () = self.shared.shutdown.cancelled() => {}
            () = tokio::time::sleep(*wait) => {}
        }
        *wait = (*wait * 2).min(RETRY_MAX);
        Ok(())
    }

    fn stopped(&self, stop: DecodeStop) -> SinkError {
        match stop {
            DecodeStop::Unfit(reason) => self.unfit(reason),
            DecodeStop::KeyChanged { before, now } => SinkError::SchemaChange {
                table: self.name.clone(),
                reason: format!(
                    "its key was ({before}) and is ({now}) now; move the table's folder away and take a new snapshot of it"
                ),
            },
        }
    }

    fn unfit(&self, reason: String) -> SinkError {
        SinkError::Unfit { table: self.name.clone(), reason }
    }

    /// The mode of a table that is not there yet.
    fn mode_of_new(&self, key: Option<&KeyColumns>) -> Result<Mode, SinkError> {
        match (self.rule, key) {
            (Some(Mode::History), _) | (None, None | Some(KeyColumns::None)) => Ok(Mode::History),
            (None | Some(Mode::State), Some(KeyColumns::Columns(_))) => Ok(Mode::State),
            (Some(Mode::State), None | Some(KeyColumns::None)) => Err(self.unfit(
                "mode state needs a key, and the source's table has neither a primary key nor a unique one without NULLs; give it one or keep it in mode history".to_owned(),
            )),
        }
    }
}
