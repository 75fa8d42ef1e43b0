//! The existing rows of a table without a key, read whole from one read view; which of the stream's events the view
//! contains is settled by the encode thread (see [`crate::flow::KeylessView`] for its half).
//!
//! The view is taken by `START TRANSACTION WITH CONSISTENT SNAPSHOT`, between `gtid_executed` E and the binlog's end P.
//! A transaction of E is in the view: its engine has committed it. One that ends after P is not: it was not flushed when
//! the view existed. Only one that is before P and not in E is in doubt. That does harm only if it touches this very
//! table, and the encode thread sees whether it does, a moment after the view was taken and before a row is read. So a
//! view in doubt costs a few questions, and another one is taken, for as long as it takes: the table need be left alone
//! for no longer than those questions and one commit last.
//! Without GTIDs, E is told by a place: what is before it is in the view, because it was waited for
//! (`mysql::visible`). MariaDB's view stands for one place, which is both E and P: it is never in doubt.
//! No lock would be needed to be quicker, and none is taken.
//!
//! The rows go into a file without a name, so that memory does not grow with the table. The view stays open as long as
//! the rows take to be read: there is no other way to read them at one moment. Meanwhile the server keeps old versions of
//! the rows that change (in every table), and an ALTER of this table waits.

use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tracing::{info, warn};

use super::{
    avro_row::RowWriter,
    board::{Part, REPORT_INTERVAL},
    chunk_plan::{ChunkRange, chunk_select},
    chunk_read::ReadFailure,
    link::Link,
    reader::{ChunkFailure, SnapshotReader},
    view::{self, of_unchanged, run, see_all_of},
};
use crate::{
    error::ReaderError,
    flow::{Input, KeylessView, SpooledTable, StreamState, ViewFit, ViewRequest},
    mysql::{
        catalog::CatalogTable,
        place::{binlog_end, gtid_executed},
        rows::{Flow, RowConnection},
        visible::wait_until_visible,
    },
    spool::{Spool, folder},
};

const PAUSE_MIN: Duration = Duration::from_millis(2);
/// Quiet moments of a busy table are rare and short: they are found by looking often.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// How often a table that is written to all the time is told of.
const BUSY_INTERVAL: Duration = Duration::from_secs(30);
/// A stream that is further behind is not waited for before the rows are read.
const STREAM_PATIENCE: Duration = Duration::from_secs(5);

/// A view of which the encode thread has said that it is exact, or will say whether it is.
struct TakenView {
    view: KeylessView,
    awaited: Option<oneshot::Receiver<ViewFit>>,
}

impl SnapshotReader {
    /// Reads the whole table.
    pub(super) async fn keyless_table(&mut self, part: &Part) -> Result<(), ChunkFailure> {
        self.wait_for_leave().await?;
        let Some(TakenView { view, awaited }) = self.exact_view(part).await? else {
            return Ok(());
        };
        let writer = self.row_writer(&part.table);
        let (source, throttle) = (self.config.name.clone(), self.throttle.clone());
        let link = self.link().await?;
        let read = read_into(link, &part.table, writer).await;
        link.end_view().await?;
        let (rows, writer) = of_unchanged(read, link, &source, &part.table).await?;
        throttle.read(rows.len());
        if let Some(answer) = awaited
            && self.answered(answer).await? != ViewFit::Exact
        {
            return Err(ChunkFailure::Refused);
        }
        let (committed, answer) = oneshot::channel();
        let table = SpooledTable {
            schema: part.table.schema.clone(),
            rows,
            high: view.high,
            zero_dates: writer.zero_dates,
            invalid_texts: writer.invalid_texts,
            committed,
        };
        self.give(Input::Table(table)).await?;
        self.answered(answer).await
    }

    /// Takes views until one is exact; it stays open. `None` when the table is not to be read.
    async fn exact_view(&mut self, part: &Part) -> Result<Option<TakenView>, ChunkFailure> {
        let name = &*part.name;
        let (mut pause, mut told, mut tries) = (PAUSE_MIN, Instant::now(), 0u64);
        loop {
            let stream = self.open_window(part).await?;
            let view = take_view(self.link().await?, &stream).await?;
            let (fit, mut answer) = oneshot::channel();
            let request = ViewRequest { table: name.to_owned(), view: view.clone(), fit };
            self.give(Input::View(request)).await?;
            let answered = tokio::time::timeout(STREAM_PATIENCE, &mut answer).await;
            let in_time = answered.map(|answer| answer.map_err(|_| self.dropped()));
            match in_time {
                Err(_) => return Ok(Some(TakenView { view, awaited: Some(answer) })),
                Ok(Ok(ViewFit::Exact)) => return Ok(Some(TakenView { view, awaited: None })),
                Ok(Ok(fit)) => {
                    run(self.link().await?, "ROLLBACK").await?;
                    if fit == ViewFit::Unwanted {
                        return Ok(None);
                    }
                }
                Ok(Err(failure)) => {
                    run(self.link().await?, "ROLLBACK").await?;
                    return Err(failure);
                }
            }
            tries += 1;
            if told.elapsed() >= BUSY_INTERVAL {
                told = Instant::now();
                warn!(
                    table = name,
                    tries,
                    "table without a key is written to all the time, so that no exact view of its existing rows was \
                     found yet; trying on, changes are held meanwhile; a primary key or a pause of its writers ends it"
                );
            }
            tokio::time::sleep(pause).await;
            pause = pause.mul_f32(1.1).min(PAUSE_MAX);
        }
    }

    async fn answered<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, ChunkFailure> {
        answer.await.map_err(|_| self.dropped())
    }
}

/// Takes a read view that contains all that the stream has consumed; it stays open.
async fn take_view(link: &mut Link, stream: &StreamState) -> Result<KeylessView, ReaderError> {
    let mut view = KeylessView::default();
    match see_all_of(link, stream).await? {
        view::View::Exact(place) => {
            return Ok(KeylessView {
                visible_before: Some(place.clone()),
                high: place,
                ..KeylessView::default()
            });
        }
        view::View::Latest if stream.gtid_set.is_empty() => {
            view.visible_before = Some(binlog_end(&mut link.connection, &link.server).await?);
            let timeout = view::EXECUTED_TIMEOUT;
            wait_until_visible(&mut link.connection, &link.server, timeout).await?;
        }
        view::View::Latest => {
            view.executed_before = gtid_executed(&mut link.connection, &link.server).await?;
        }
    }
    run(link, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    view.high = binlog_end(&mut link.connection, &link.server).await?;
    Ok(view)
}

/// Reads the table's rows into a file; fails when that has no room. With the writer, for what it has counted.
async fn read_into(
    link: &mut Link,
    table: &CatalogTable,
    mut writer: RowWriter,
) -> Result<(Spool, RowWriter), ReadFailure> {
    let range = ChunkRange { rows: u64::MAX, ..ChunkRange::default() };
    let sql = chunk_select(table, range).ok_or(ReadFailure::TableChanged)?;
    let name = table.name();
    let work = move |connection: &mut RowConnection| {
        let mut rows = Spool::new(format!("rows of {name}, which has no key,"), &folder());
        let (mut failure, mut reported) = (None, Instant::now());
        connection.select(&sql, |row| {
            let expected = if rows.is_empty() { writer.expect(row.kinds) } else { Ok(()) };
            let written =
                expected.and_then(|()| rows.push(|out| writer.write(row.bytes, out).map(drop)));
            failure = match (written, rows.spill_if_full()) {
                (Err(what), _) => Some(ReadFailure::BadRow(what)),
                (Ok(()), Err(error)) => Some(ReadFailure::Reader(error)),
                (Ok(()), Ok(())) => None,
            };
            if rows.len().is_multiple_of(1 << 16) && reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                info!(table = name, rows = rows.len(), "snapshot progress");
            }
            // The rest of the rows is on its way: the connection is given up, and the view with it.
            if failure.is_some() { Flow::Stop } else { Flow::Go }
        })?;
        failure.map_or(Ok((rows, writer)), Err)
    };
    link.rows.run(work).await
}
