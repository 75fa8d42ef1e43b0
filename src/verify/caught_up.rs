//! Waits until the lake has passed a place in a source's binlog: first the reader's position in the change log, then
//! the sink's offsets in the table.

use std::time::{Duration, Instant};

use cdc_reader::{
    ReaderError, SourceConfig,
    mysql::{
        connect::{connect, place, server},
        place::{binlog_end, gtid_executed},
    },
};
use change_log::{LogConfig, LogError, LogReader, open_reader};
use schemas::{
    gtid_set::GtidSet,
    position::{BinlogPlace, Position},
    table_id::TableId,
};
use sink_lake::{LakeConfig, SinkError, table_offsets};
use thiserror::Error;

use super::compare::Sides;
use crate::log_view;

const LOG_TIMEOUT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(100);

/// Why it could not be waited for.
#[derive(Debug, Error)]
pub enum NotCaughtUp {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Source(#[from] ReaderError),
    #[error(transparent)]
    Lake(#[from] SinkError),
    #[error("the reader of {0} has not reached the server's binlog in time; is it running?")]
    Reader(String),
    #[error("the sink has not reached the end of {0}'s changes in time; is it running?")]
    Sink(String),
    #[error("the change log could not be looked at")]
    Gone,
}

/// Looks into the change log.
pub struct CaughtUp {
    reader: Option<Box<dyn LogReader>>,
}

impl CaughtUp {
    /// Opens the log.
    pub async fn open(log: &LogConfig) -> Result<Self, NotCaughtUp> {
        let log = log.clone();
        let reader = tokio::task::spawn_blocking(move || open_reader(&log, LOG_TIMEOUT))
            .await
            .map_err(|_| NotCaughtUp::Gone)??;
        Ok(Self { reader: Some(reader) })
    }

    /// The reader's newest position.
    pub async fn position(&mut self, source: &str) -> Result<Option<Position>, NotCaughtUp> {
        let source = source.to_owned();
        self.look(move |reader| log_view::position(reader, &source)).await
    }

    /// Waits until the lake's table holds everything that the server has committed by now.
    pub async fn with_source(
        &mut self,
        source: &SourceConfig,
        lake: &LakeConfig,
        table: &TableId,
        deadline: Instant,
    ) -> Result<(), NotCaughtUp> {
        let mut connection = connect(source).await?;
        let server = server(&mut connection, &place(source)).await?;
        let gtid_set = gtid_executed(&mut connection, &server).await?;
        let high = binlog_end(&mut connection, &server).await?;
        let _ = connection.disconnect().await;
        self.reader_past(&source.name, &high, &gtid_set, deadline).await?;
        self.sink_at_end(lake, table, deadline).await
    }

    /// Waits until the lake's table has passed the place.
    pub async fn past(
        &mut self,
        sides: &Sides<'_>,
        high: &BinlogPlace,
        gtid_set: &str,
    ) -> Result<(), NotCaughtUp> {
        self.reader_past(&sides.source.name, high, gtid_set, sides.deadline).await?;
        self.sink_at_end(sides.lake, sides.table, sides.deadline).await
    }

    async fn reader_past(
        &mut self,
        source: &str,
        high: &BinlogPlace,
        gtid_set: &str,
        deadline: Instant,
    ) -> Result<(), NotCaughtUp> {
        let wanted: GtidSet = gtid_set.parse().unwrap_or_default();
        loop {
            if let Some(position) = self.position(source).await? {
                let consumed: GtidSet = position.gtid_set.parse().unwrap_or_default();
                let snapshot_done = position.snapshots.values().all(|table| table.done);
                if consumed.contains_set(&wanted) && position.place.reached(high) && snapshot_done {
                    return Ok(());
                }
            }
            pause(deadline).await.ok_or_else(|| NotCaughtUp::Reader(source.to_owned()))?;
        }
    }

    /// Waits until the table holds all records that its topic has now.
    async fn sink_at_end(
        &mut self,
        lake: &LakeConfig,
        table: &TableId,
        deadline: Instant,
    ) -> Result<(), NotCaughtUp> {
        let topic = table.topic();
        let name = topic.clone();
        let ends = self
            .look(move |reader| {
                let found = reader.topics(&name)?.into_iter().find(|info| info.name == name);
                let Some(info) = found else { return Ok(Vec::new()) };
                (0..info.partitions).map(|p| reader.bounds(&name, p).map(|(_, end)| (p, end))).collect()
            })
            .await?;
        for (partition, end) in ends {
            loop {
                let next = table_offsets(lake, table).await?.get(&partition).copied().unwrap_or(0);
                if next >= end || !self.data_between(&topic, partition, next, end).await? {
                    break;
                }
                pause(deadline).await.ok_or_else(|| NotCaughtUp::Sink(table.to_string()))?;
            }
        }
        Ok(())
    }

    /// Whether a record lies before `end`. Near the end there may be Kafka's control records only.
    async fn data_between(
        &mut self,
        topic: &str,
        partition: i32,
        next: i64,
        end: i64,
    ) -> Result<bool, NotCaughtUp> {
        const CONTROL_RECORDS_MAX: i64 = 1000;
        if end - next > CONTROL_RECORDS_MAX {
            return Ok(true);
        }
        let topic = topic.to_owned();
        let waiting =
            self.look(move |reader| log_view::first_waiting(reader, &topic, partition, next)).await?;
        Ok(waiting.is_some())
    }

    /// The log's calls block.
    async fn look<T: Send + 'static>(
        &mut self,
        look: impl FnOnce(&mut dyn LogReader) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, NotCaughtUp> {
        let mut reader = self.reader.take().ok_or(NotCaughtUp::Gone)?;
        let (reader, result) = tokio::task::spawn_blocking(move || {
            let result = look(reader.as_mut());
            (reader, result)
        })
        .await
        .map_err(|_| NotCaughtUp::Gone)?;
        self.reader = Some(reader);
        Ok(result?)
    }
}

async fn pause(deadline: Instant) -> Option<()> {
    if Instant::now() >= deadline {
        return None;
    }
    tokio::time::sleep(PAUSE).await;
    Some(())
}
