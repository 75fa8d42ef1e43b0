//! The existing rows of a table without a key, read whole from one read view; which of the stream's events the view
//! contains is settled by the encode thread (see [`crate::flow::KeylessView`] for its half).
//!
//! The view is taken by `START TRANSACTION WITH CONSISTENT SNAPSHOT`. Around it, in this order: the binlog's end P1,
//! `gtid_owned`, `gtid_executed` E, the view, the binlog's end P2 (which is the chunk's HIGH).
//! A transaction of E is in the view. One that ends after P2 is not: it was not flushed when the view existed. Only a
//! transaction that is before P2 and not in E is in doubt. There is none if P1 = P2 and nothing was owned: what is
//! before P1 owned its GTID before it was flushed and gives it up after the engine's commit. Such a quiet moment lasts
//! a millisecond; it is looked for a few times. Without one the last view is used all the same, because a transaction
//! in doubt does harm only if it touches this very table, and the encode thread sees whether it does.
//! Without GTIDs, E is told by a place: what is before P1 is in the view, because between P1 and the view it was waited
//! for (`mysql::visible`). MariaDB's view stands for one place, which is both P1 and P2.

use std::time::Duration;

use schemas::position::{BinlogPlace, OpenRange};
use tracing::warn;

use super::{
    board::Part,
    chunk_read::{Overflow, ReadFailure},
    link::{ChunkSize, Link},
    reader::{ChunkEnd, ChunkFailure, Failure, SnapshotReader},
    view::{self, of_unchanged, run, see_all_of},
};
use crate::{
    error::ReaderError,
    flow::{KeylessView, TablePart},
    mysql::{
        place::{binlog_end, gtid_executed, gtid_owned},
        visible::wait_until_visible,
    },
};

/// The rows are in memory at once.
const ROWS_MAX: u64 = 1_000_000;
/// See [`ROWS_MAX`].
const BYTES_MAX: usize = 256 << 20;
const QUIET_TRIES: u32 = 40;
const QUIET_PAUSE: Duration = Duration::from_millis(5);
const VIEW_TRIES: u32 = 20;

struct View {
    keyless: KeylessView,
    high: BinlogPlace,
}

impl SnapshotReader {
    /// Reads the whole table, or gives its existing rows up with a warning when that cannot be done exactly.
    pub(super) async fn keyless_table(&mut self, part: &Part) -> Result<(), ChunkFailure> {
        let name = &*part.name;
        for _ in 0..VIEW_TRIES {
            match self.read_view(part).await {
                Ok(()) => return Ok(()),
                Err(ChunkFailure::Refused) => {}
                Err(ChunkFailure::Read(ReadFailure::TooLarge)) => {
                    // Rows are still on their way.
                    self.drop_link();
                    warn!(
                        table = name,
                        "table without a key has over {ROWS_MAX} rows or {} MB: its existing rows are NOT captured, only \
                         changes from now on; add a primary key and run binlake snapshot",
                        BYTES_MAX >> 20
                    );
                    return self.give_up(part).await.map_err(given_up);
                }
                Err(failure) => return Err(failure),
            }
        }
        warn!(
            table = name,
            "table without a key is written to all the time, so that no exact view of it was found in {VIEW_TRIES} \
             tries: its existing rows are NOT captured, only changes from now on; add a primary key and run binlake \
             snapshot"
        );
        self.give_up(part).await.map_err(given_up)
    }

    async fn read_view(&mut self, part: &Part) -> Result<(), ChunkFailure> {
        let writer = self.row_writer(&part.table);
        let (source, throttle) = (self.config.name.clone(), self.throttle.clone());
        self.wait_for_leave().await?;
        let stream = self.open_window(part).await?;
        let link = self.link().await?;
        let view = match see_all_of(link, &stream).await? {
            view::View::Exact(place) => View {
                keyless: KeylessView { visible_before: Some(place.clone()), ..Default::default() },
                high: place,
            },
            view::View::Latest if stream.gtid_set.is_empty() => view_by_place(link).await?,
            view::View::Latest => take_view(link).await?,
        };
        let size = ChunkSize { rows: ROWS_MAX + 1, bytes_max: BYTES_MAX, overflow: Overflow::Fail };
        let read = link.read_chunk(&part.table, &OpenRange::default(), None, size, writer).await;
        if !matches!(read, Err(ReadFailure::TooLarge | ReadFailure::Reader(_))) {
            link.end_view().await?;
        }
        let (mut read, writer) = of_unchanged(read, link, &source, &part.table).await?;
        throttle.read(read.rows.len() as u64);
        if !read.complete {
            return Err(ReadFailure::TooLarge.into());
        }
        read.last_key = None;
        let end = ChunkEnd {
            high: view.high,
            part: TablePart::Rest,
            zero_dates: writer.zero_dates,
            invalid_texts: writer.invalid_texts,
            keyless: Some(view.keyless),
        };
        self.send_and_wait(part, read, end).await
    }
}

/// Takes a read view, in a quiet moment if there is one; it stays open.
async fn take_view(link: &mut Link) -> Result<View, ReaderError> {
    let mut tries = 1;
    loop {
        let before = binlog_end(&mut link.connection, &link.server).await?;
        let owned = gtid_owned(&mut link.connection, &link.server).await?;
        let executed_before = gtid_executed(&mut link.connection, &link.server).await?;
        run(link, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        let high = binlog_end(&mut link.connection, &link.server).await?;
        if before == high && owned.is_empty() || tries >= QUIET_TRIES {
            let keyless = KeylessView { executed_before, visible_before: None };
            return Ok(View { keyless, high });
        }
        run(link, "ROLLBACK").await?;
        tokio::time::sleep(QUIET_PAUSE).await;
        tries += 1;
    }
}

/// The same without GTIDs.
async fn view_by_place(link: &mut Link) -> Result<View, ReaderError> {
    let mut tries = 1;
    loop {
        let before = binlog_end(&mut link.connection, &link.server).await?;
        wait_until_visible(&mut link.connection, &link.server, view::EXECUTED_TIMEOUT).await?;
        run(link, "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
        let high = binlog_end(&mut link.connection, &link.server).await?;
        if before == high || tries >= QUIET_TRIES {
            let keyless = KeylessView { visible_before: Some(before), ..Default::default() };
            return Ok(View { keyless, high });
        }
        run(link, "ROLLBACK").await?;
        tokio::time::sleep(QUIET_PAUSE).await;
        tries += 1;
    }
}

fn given_up(failure: Failure) -> ChunkFailure {
    match failure {
        Failure::Closed => ChunkFailure::Closed,
        Failure::Reader(error) => ChunkFailure::Reader(error),
    }
}
