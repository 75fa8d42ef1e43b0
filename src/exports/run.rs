//! One run of an export.

use std::time::Instant;

use anyhow::Context;
use cdc_reader::export::{ExportRequest, ExportSummary, ExportTable};
use console::status::ExportStatus;
use sink_lake::export::{self, ExportMode, ExportWriter, StagedExport};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    look::{Failed, LastRun, Place},
    pause_after,
};
use crate::{
    config::{Config, export::ExportConfig},
    gather::now_ms,
};

/// Pieces between reading and writing.
const PIECES_MAX: usize = 1;

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// Its rows are in the lake.
    Done(LastRun),
    /// Another run of the export is under way.
    Busy,
    /// The process stops; the lake is as it was.
    Stopped,
    /// The lake is as it was; with the sentence that says why.
    Failed(String),
}

/// Runs an export now; `failures` of it came before in a row. What became of it is noted for `status`.
pub async fn run(
    config: &Config,
    export: &ExportConfig,
    failures: u32,
    stop: &CancellationToken,
) -> Ended {
    let ended = locked(config, export, stop).await;
    let noted = match &ended {
        Ok(Ended::Done(done)) => note(config, export, |state| {
            state.last = Some(done.clone());
            state.failed = None;
        }),
        Ok(_) => Ok(()),
        Err(error) => note(config, export, |state| {
            let times = failures + 1;
            let retry_ms = now_ms() + pause_after(times).as_millis() as i64;
            state.failed = Some(Failed { times, retry_ms, reason: format!("{error:#}") });
        }),
    };
    match (ended, noted) {
        (Ok(ended), Ok(())) => ended,
        // The rows are in the lake; only the note is not.
        (Ok(ended), Err(error)) => {
            tracing::warn!(export = export.name, error = %format!("{error:#}"), "run is not noted");
            ended
        }
        (Err(error), _) => Ended::Failed(format!("{error:#}")),
    }
}

fn note(
    config: &Config,
    export: &ExportConfig,
    change: impl FnOnce(&mut super::look::State),
) -> anyhow::Result<()> {
    let place = Place::of(config, export)?;
    let mut state = place.state();
    change(&mut state);
    place.write_state(&state)
}

async fn locked(
    config: &Config,
    export: &ExportConfig,
    stop: &CancellationToken,
) -> anyhow::Result<Ended> {
    let place = Place::of(config, export)?;
    let Some(_lock) = place.lock()? else { return Ok(Ended::Busy) };
    let started = Instant::now();
    export::clean(&place.folder, export.keep).await?;
    let last = export::last_run(&place.folder).await?;
    // A clock that was set back must not make two runs look like one.
    let began_ms = now_ms().max(last.map_or(0, |last| last + 1));
    let staged = tokio::select! {
        () = stop.cancelled() => return Ok(Ended::Stopped),
        staged = stage(config, export, &place, began_ms) => staged?,
    };
    let (staged, summary) = staged;
    let rows = staged.rows();
    anyhow::ensure!(rows == summary.rows, "{} rows were read and {rows} written", summary.rows);
    let table = export.lake_table();
    let version = export::commit(&place.folder, &table, export.mode, staged, began_ms).await?;
    let seconds = started.elapsed().as_secs_f64();
    if let Err(error) = export::clean(&place.folder, export.keep).await {
        tracing::warn!(export = export.name, %error, "old files of the export are not removed");
    }
    let ExportSummary { zero_dates, invalid_texts, .. } = summary;
    Ok(Ended::Done(LastRun { began_ms, seconds, rows, version, zero_dates, invalid_texts }))
}

/// Reads and writes at the same time: a slow disk slows the reading down.
async fn stage(
    config: &Config,
    export: &ExportConfig,
    place: &Place,
    began_ms: i64,
) -> anyhow::Result<(StagedExport, ExportSummary)> {
    let source = config.sources.iter().find(|source| source.name == export.source);
    let source = source.context("its source is gone")?;
    let request = ExportRequest {
        table: export.source_table(),
        columns: export.columns.iter().map(|column| column.column.clone()).collect(),
        filter: export.filter.clone(),
        consistent: export.consistent,
    };
    let mut table = ExportTable::open(source, request).await?;
    let exported_at = (export.mode == ExportMode::Append).then_some(began_ms * 1000);
    let mut writer = ExportWriter::new(
        &place.folder,
        &export.table,
        &table.envelope_schema(),
        &export.lake_columns(),
        exported_at,
    )?;
    let (pieces_in, mut pieces) = mpsc::channel::<cdc_reader::export::ExportedRows>(PIECES_MAX);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(piece) = pieces.blocking_recv() {
            writer.write(&piece.bytes, &piece.rows)?;
        }
        writer.finish()
    });
    let read = table.read(pieces_in).await;
    // A failed writer closes the channel: its error is the one to tell. Staged files are removed when dropped.
    let staged = writing.await.context("writing the rows")??;
    Ok((staged, read?))
}

impl LastRun {
    /// Into what is shown.
    pub fn fill(&self, status: &mut ExportStatus) {
        status.last_ms = Some(self.began_ms);
        status.rows = Some(self.rows);
        status.seconds = Some(self.seconds);
        status.version = Some(self.version);
        status.zero_dates = self.zero_dates;
        status.invalid_texts = self.invalid_texts;
    }
}
