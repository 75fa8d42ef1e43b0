//! Waits until the lake has passed a place in a source's binlog: first the reader's position in the change log, then
//! the sink's offsets in the table.

use std::time::{Duration, Instant};

use cdc_reader::{
    ReaderError,
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
    #[error("the reader of {source_name} {reason} in time; is it running?")]
    Reader { source_name: String, reason: String },
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
    pub async fn with_source(&mut self, sides: &Sides<'_>) -> Result<(), NotCaughtUp> {
        let mut connection = connect(sides.source).await?;
        let server = server(&mut connection, &place(sides.source)).await?;
        let gtid_set = gtid_executed(&mut connection, &server).await?;
        let high = binlog_end(&mut connection, &server).await?;
        let _ = connection.disconnect().await;
        self.past(sides, &high, &gtid_set).await
    }

    /// Waits until the lake's table has passed the place.
    pub async fn past(
        &mut self,
        sides: &Sides<'_>,
        high: &BinlogPlace,
        gtid_set: &str,
    ) -> Result<(), NotCaughtUp> {
        self.reader_past(sides, high, gtid_set).await?;
        self.sink_at_end(sides.lake, sides.table, sides.deadline).await
    }

    /// Waits until the reader has written its first position.
    pub async fn first_position(
        &mut self,
        source: &str,
        deadline: Instant,
    ) -> Result<Position, NotCaughtUp> {
        loop {
            if let Some(position) = self.position(source).await? {
                return Ok(position);
            }
            pause(deadline).await.ok_or_else(|| NotCaughtUp::Reader {
                source_name: source.to_owned(),
                reason: "has not begun".into(),
            })?;
        }
    }

    /// Whether changes of the table were missed and its rows read anew, as the newest position knows: that may have come
    /// about since the comparison began.
    pub async fn has_gap(&mut self, sides: &Sides<'_>) -> Result<bool, NotCaughtUp> {
        let table = format!("{}.{}", sides.table.database, sides.table.table);
        let position = self.position(&sides.source.name).await?.unwrap_or_default();
        Ok(position.snapshots.get(&table).is_some_and(|progress| progress.gap || progress.anew))
    }

    async fn reader_past(
        &mut self,
        sides: &Sides<'_>,
        high: &BinlogPlace,
        gtid_set: &str,
    ) -> Result<(), NotCaughtUp> {
        let wanted: GtidSet = gtid_set.parse().unwrap_or_default();
        loop {
            let position = self.position(&sides.source.name).await?.unwrap_or_default();
            let Some(reason) = behind(&position, sides.table, high, &wanted) else { return Ok(()) };
            pause(sides.deadline).await.ok_or_else(|| NotCaughtUp::Reader {
                source_name: sides.source.name.clone(),
                reason,
            })?;
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
                (0..info.partitions)
                    .map(|p| reader.bounds(&name, p).map(|(_, end)| (p, end)))
                    .collect()
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
        let waiting = self
            .look(move |reader| log_view::first_waiting(reader, &topic, partition, next))
            .await?;
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

/// What the reader has not done yet; `None` when it has passed the place and finished the table's snapshot.
fn behind(
    position: &Position,
    table: &TableId,
    high: &BinlogPlace,
    wanted: &GtidSet,
) -> Option<String> {
    let short = format!("{}.{}", table.database, table.table);
    match position.snapshots.get(&short) {
        Some(snapshot) if snapshot.done => {}
        Some(snapshot) => {
            let (rows, all) = (snapshot.rows, snapshot.rows_estimated);
            return Some(format!("has read {rows} of about {all} rows of the snapshot of {short}"));
        }
        None => return Some(format!("has not begun the snapshot of {short}")),
    }
    let consumed: GtidSet = position.gtid_set.parse().unwrap_or_default();
    // Where places name the transactions, a set that the server has beside them says nothing.
    let all = position.by_place || consumed.contains_set(wanted);
    let reached = all && position.place.reached(high);
    (!reached).then(|| "has not reached the end of the server's binlog".into())
}

async fn pause(deadline: Instant) -> Option<()> {
    if Instant::now() >= deadline {
        return None;
    }
    tokio::time::sleep(PAUSE).await;
    Some(())
}

#[cfg(test)]
mod tests {
    use schemas::position::TableSnapshot;

    use super::*;

    const SERVER: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    #[test]
    fn reader_is_behind_until_snapshot_place_and_transactions_are_there() {
        let table = TableId::new("udon", "market", "orders");
        let place = |offset| BinlogPlace { file: "binlog.000002".into(), offset };
        let wanted: GtidSet = format!("{SERVER}:1-7").parse().expect("a set");
        let mut position = Position {
            gtid_set: format!("{SERVER}:1-9"),
            place: place(500),
            ..Position::default()
        };
        let expect = |position: &Position, offset, words: Option<&str>| {
            let found = behind(position, &table, &place(offset), &wanted);
            assert_eq!(found.is_some(), words.is_some(), "{found:?}");
            assert!(found.unwrap_or_default().contains(words.unwrap_or_default()));
        };
        expect(&position, 500, Some("has not begun the snapshot of market.orders"));
        let snapshot = TableSnapshot { rows: 3, rows_estimated: 10, ..TableSnapshot::default() };
        position.snapshots.insert("market.orders".into(), snapshot);
        expect(&position, 500, Some("3 of about 10 rows"));
        let done = TableSnapshot { done: true, ..TableSnapshot::default() };
        position.snapshots.insert("market.orders".into(), done);
        expect(&position, 500, None);
        expect(&position, 501, Some("end of the server's binlog"));
        position.gtid_set = format!("{SERVER}:1-6");
        expect(&position, 500, Some("end of the server's binlog"));
    }
}
