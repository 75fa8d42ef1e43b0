//! Gathers the status of all sources and tables from the change log, the lake and, where it answers, the server.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cdc_reader::SourceConfig;
use change_log::{LogError, LogReader, open_reader};
use console::status::{SnapshotStatus, SourceStatus, Status, TableStatus};
use schemas::{position::Position, table_id::TableId};
use sink_lake::{LakeTable, SinkError, SinkStatus, TableState, error::with_causes, open_tables};

use crate::{config::Config, log_view, server_watch::ServerWatch};

const LOG_TIMEOUT: Duration = Duration::from_secs(15);
/// Rates are taken over this time: shorter ones jump with every commit.
const RATE_WINDOW: Duration = Duration::from_secs(10);
/// Looking at all tables reads their Delta logs; a sink in this process tells the rest.
const LAKE_INTERVAL: Duration = Duration::from_secs(5);

/// Takes the status again and again.
pub struct Gatherer {
    config: Config,
    reader: Option<Box<dyn LogReader>>,
    /// The sink of this process, when there is one: it knows best how far it is.
    sink: Option<SinkStatus>,
    servers: Vec<ServerWatch>,
    lake: Option<(Instant, Vec<LakeTable>)>,
    /// By source the records in the log, and by table the rows and the bytes of its snapshot.
    before: VecDeque<(Instant, BTreeMap<String, i64>)>,
}

/// What one look into the log tells.
#[derive(Default)]
struct Looked {
    positions: BTreeMap<String, Option<Position>>,
    /// Topic to (partition, end).
    ends: BTreeMap<String, Vec<(i32, i64)>>,
}

impl Gatherer {
    /// Opens the log.
    pub async fn open(config: &Config, sink: Option<SinkStatus>) -> Result<Self, LogError> {
        let log = config.log.clone();
        let reader = blocking(move || open_reader(&log, LOG_TIMEOUT)).await?;
        Ok(Self {
            servers: config.sources.iter().map(ServerWatch::new).collect(),
            config: config.clone(),
            reader: Some(reader),
            sink,
            lake: None,
            before: VecDeque::new(),
        })
    }

    /// The status now.
    pub async fn take(&mut self, servers: Servers) -> Status {
        let mut status = Status { taken_ms: now_ms(), ..Status::default() };
        let looked = match self.look().await {
            Ok(looked) => looked,
            Err(error) => {
                status.problems.push(error.to_string());
                Looked::default()
            }
        };
        let lake = match self.look_at_lake().await {
            Ok(tables) => tables,
            Err(error) => {
                status.problems.push(with_causes(&error));
                Vec::new()
            }
        };
        let rates = self.rates(&looked);
        for (at, source) in self.config.sources.clone().iter().enumerate() {
            let position = looked.positions.get(&source.name).cloned().flatten();
            let mut entry = source_status(source, position.as_ref());
            entry.rows_per_second = rates.get(&source.name).copied();
            if let (Servers::Asked, Some(server)) = (servers, self.servers.get_mut(at)) {
                server.fill(position.as_ref(), &mut entry).await;
            }
            status.sources.push(entry);
            let mut tables = self.tables(source, position.as_ref(), &looked, &lake).await;
            for table in &mut tables {
                let rate = |of: String| rates.get(&of).copied();
                let (rows, bytes) = (rate(table.name.clone()), rate(bytes_of(&table.name)));
                table.snapshot = table.snapshot.take().map(|s| s.at_speed(rows, bytes));
            }
            status.tables.extend(tables);
        }
        match crate::exports::look::all(&self.config) {
            Ok(exports) => status.exports = exports,
            Err(error) => status.problems.push(format!("{error:#}")),
        }
        status.tables.sort_by(|a, b| a.name.cmp(&b.name));
        status
    }

    async fn look_at_lake(&mut self) -> Result<Vec<LakeTable>, SinkError> {
        if let Some((at, tables)) = &self.lake
            && self.sink.is_some()
            && at.elapsed() < LAKE_INTERVAL
        {
            return Ok(tables.clone());
        }
        let tables = open_tables(&self.config.lake).await?;
        self.lake = Some((Instant::now(), tables.clone()));
        Ok(tables)
    }

    async fn look(&mut self) -> Result<Looked, LogError> {
        let sources = self.config.source_names();
        self.with_reader(move |reader| {
            let mut looked = Looked::default();
            for source in sources {
                let position = log_view::position(reader, &source)?;
                for topic in reader.topics(&format!("{source}."))? {
                    if TableId::from_topic(&topic.name).is_none() {
                        continue;
                    }
                    let mut ends = Vec::new();
                    for partition in 0..topic.partitions {
                        ends.push((partition, reader.bounds(&topic.name, partition)?.1));
                    }
                    looked.ends.insert(topic.name, ends);
                }
                looked.positions.insert(source, position);
            }
            Ok(looked)
        })
        .await
    }

    async fn tables(
        &mut self,
        source: &SourceConfig,
        position: Option<&Position>,
        looked: &Looked,
        lake: &[LakeTable],
    ) -> Vec<TableStatus> {
        let mut ids: BTreeMap<String, TableId> = BTreeMap::new();
        let mut add = |id: TableId| {
            if id.source == source.name {
                ids.insert(id.to_string(), id);
            }
        };
        looked.ends.keys().filter_map(|topic| TableId::from_topic(topic)).for_each(&mut add);
        lake.iter().map(|table| table.id.clone()).for_each(&mut add);
        let known = position.iter().flat_map(|p| p.snapshots.keys().chain(p.stopped.keys()));
        known
            .filter_map(|name| name.split_once('.'))
            .map(|(database, table)| TableId::new(&source.name, database, table))
            .for_each(&mut add);
        let mut tables = Vec::new();
        for id in ids.into_values() {
            let ends = looked.ends.get(&id.topic()).cloned().unwrap_or_default();
            let in_lake = lake.iter().find(|table| table.id == id);
            tables.push(self.table(&id, position, &ends, in_lake).await);
        }
        tables
    }

    async fn table(
        &mut self,
        id: &TableId,
        position: Option<&Position>,
        ends: &[(i32, i64)],
        lake: Option<&LakeTable>,
    ) -> TableStatus {
        let short = format!("{}.{}", id.database, id.table);
        let mut status = TableStatus { name: id.to_string(), ..TableStatus::default() };
        if let Some(lake) = lake {
            status.mode = lake.mode.name().to_owned();
            status.rows = Some(lake.rows);
            status.files = Some(lake.files as u64);
            status.bytes = Some(lake.bytes);
            status.version = i64::try_from(lake.version).ok();
            status.last_commit_ms = lake.last_commit_ms;
            status.sink_offset = lake.next_offsets.values().sum();
        }
        status.log_end = ends.iter().map(|(_, end)| end).sum();
        let progress = position.and_then(|p| p.snapshots.get(&short));
        let held_back = position.and_then(|p| p.snapshots_held_back.as_deref());
        status.snapshot = progress
            .filter(|progress| !progress.left_out)
            .map(|progress| SnapshotStatus::new(progress).held_back(held_back));
        status.stopped = position.and_then(|p| p.stopped.get(&short)).cloned();

        let own = self.sink.as_ref().and_then(|sink| sink.tables().remove(&status.name));
        if let Some(own) = own {
            if let TableState::Stopped(sentence) = &own.state {
                status.stopped.get_or_insert_with(|| sentence.clone());
            }
            let next: i64 = own.next_offsets.values().sum();
            status.sink_offset = status.sink_offset.max(next);
            status.lag_records =
                (status.log_end - status.sink_offset).max(0).max(own.rows_waiting as i64);
            status.lag_seconds = age(own.oldest_waiting_ms);
            if own.rows_waiting == 0 && status.lag_seconds == 0.0 {
                self.without_control_records(id, ends, lake, &mut status).await;
            }
        } else {
            self.without_control_records(id, ends, lake, &mut status).await;
        }
        status
    }

    /// Kafka's control records lie between the last record and the end: only a look tells whether a record waits.
    async fn without_control_records(
        &mut self,
        id: &TableId,
        ends: &[(i32, i64)],
        lake: Option<&LakeTable>,
        status: &mut TableStatus,
    ) {
        let offsets = lake.map(|lake| lake.next_offsets.clone()).unwrap_or_default();
        let (topic, ends) = (id.topic(), ends.to_vec());
        let waiting = self
            .with_reader(move |reader| {
                let mut oldest: Option<i64> = None;
                let mut records = 0;
                for (partition, end) in ends {
                    let next = offsets.get(&partition).copied().unwrap_or(0);
                    if next >= end {
                        continue;
                    }
                    if let Some(time) = log_view::first_waiting(reader, &topic, partition, next)? {
                        oldest = Some(oldest.map_or(time, |known| known.min(time)));
                        records += end - next;
                    }
                }
                Ok((records, oldest))
            })
            .await;
        if let Ok((records, oldest)) = waiting {
            status.lag_records = records;
            status.lag_seconds = age(oldest);
        }
    }

    /// Per second: by source the records that came into the log, and by table the rows and the bytes of its snapshot.
    fn rates(&mut self, looked: &Looked) -> BTreeMap<String, f64> {
        let now = Instant::now();
        let mut counts = BTreeMap::new();
        for (source, position) in &looked.positions {
            let prefix = format!("{source}.");
            let ends = looked.ends.iter().filter(|(topic, _)| topic.starts_with(&prefix));
            counts
                .insert(source.clone(), ends.flat_map(|(_, ends)| ends).map(|(_, end)| end).sum());
            for (table, snapshot) in position.iter().flat_map(|position| &position.snapshots) {
                let name = format!("{source}.{table}");
                counts.insert(bytes_of(&name), snapshot.bytes as i64);
                counts.insert(name, snapshot.rows as i64);
            }
        }
        let old = |(at, _): &(Instant, _)| now.duration_since(*at) > RATE_WINDOW;
        while self.before.get(1).is_some_and(old) {
            self.before.pop_front();
        }
        let rates = self.before.front().map(|(at, before)| {
            let seconds = now.duration_since(*at).as_secs_f64().max(0.001);
            let rate = |(name, count): (&String, &i64)| {
                let grown = count - before.get(name).unwrap_or(count);
                (name.clone(), grown.max(0) as f64 / seconds)
            };
            counts.iter().map(rate).collect()
        });
        self.before.push_back((now, counts));
        rates.unwrap_or_default()
    }

    async fn with_reader<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&mut dyn LogReader) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let Some(mut reader) = self.reader.take() else { return Err(gone()) };
        let (reader, result) = blocking(move || {
            let result = look(reader.as_mut());
            Ok((reader, result))
        })
        .await?;
        self.reader = Some(reader);
        result
    }
}

/// The name under which a table's bytes are counted; no table has such a name.
fn bytes_of(table: &str) -> String {
    format!("{table}/bytes")
}

/// Whether the sources' servers are asked too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servers {
    /// They are.
    Asked,
    /// They are left alone.
    LeftAlone,
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| gone())?
}

fn gone() -> LogError {
    LogError::Unavailable { place: "this process".into(), reason: "a look into it failed".into() }
}

fn source_status(source: &SourceConfig, position: Option<&Position>) -> SourceStatus {
    let mut entry = SourceStatus { name: source.name.clone(), ..SourceStatus::default() };
    match position {
        None => entry.problem = Some("its reader has not run yet".into()),
        Some(position) => {
            entry.gtid_set = position.gtid_set.clone();
            entry.place = format!("{}:{}", position.place.file, position.place.offset);
        }
    }
    entry
}

/// Seconds from then to now; 0 when there is no then.
pub fn age(since_ms: Option<i64>) -> f64 {
    since_ms.map_or(0.0, |since| (now_ms() - since).max(0) as f64 / 1000.0)
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_1970.as_millis()).unwrap_or_default()
}
