//! A snapshot reader gets leave to read its next chunk while the encode thread writes an earlier one: it must not wait
//! for that chunk's end.

use std::sync::Arc;

use cdc_reader::{
    ReaderMetrics, SourceConfig,
    capture::{self, CaptureSetup},
    flow::{AskedChunk, Input, SnapshotChunk, StreamState, TablePart, WindowRequest},
    snapshot::window::Windows,
    table_filter::TableFilter,
};
use change_log::{EncodedBatch, LogError, LogWriter, TopicHandle, TopicSpec};
use schemas::{
    column_type::ColumnType,
    position::{BinlogPlace, DoneRange},
    table_id::TableId,
    table_schema::{Column, TableSchema},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

const ROW_BYTES: usize = 400_000;

/// Asks for the next chunk while it is given the first rows of a chunk, and sees whether it is answered with the last.
struct AskingLog {
    inbox: mpsc::Sender<Input>,
    asked: Option<oneshot::Receiver<StreamState>>,
    rows: usize,
    answered_after_rows: mpsc::Sender<usize>,
    stop: CancellationToken,
}

impl LogWriter for AskingLog {
    fn last_position(&self) -> Option<&[u8]> {
        None
    }

    fn topic(&mut self, _spec: &TopicSpec) -> Result<TopicHandle, LogError> {
        Ok(TopicHandle(0))
    }

    fn append(&mut self, batch: &EncodedBatch) -> Result<(), LogError> {
        let rows = batch
            .records
            .iter()
            .filter(|record| record.value.as_ref().is_some_and(|v| v.len() > ROW_BYTES));
        self.rows += rows.count();
        if self.rows == 0 {
            return Ok(());
        }
        let Some(answer) = &mut self.asked else {
            self.asked = Some(ask(&self.inbox, 2));
            return Ok(());
        };
        if answer.try_recv().is_ok() {
            let _ = self.answered_after_rows.try_send(self.rows);
        }
        Ok(())
    }

    fn commit(&mut self, _position: &[u8]) -> Result<(), LogError> {
        if self.rows > 0 {
            self.stop.cancel();
        }
        Ok(())
    }
}

fn ask(inbox: &mpsc::Sender<Input>, order: u64) -> oneshot::Receiver<StreamState> {
    let (reply, answer) = oneshot::channel();
    let chunk = AskedChunk { order, generation: 0, restart: false, has_key: true };
    let request = WindowRequest { table: "d.t".into(), chunk: Some(chunk), reply };
    // Something of the stream is in front of it.
    inbox.try_send(Input::Events(Vec::new())).expect("there is room");
    inbox.try_send(Input::OpenWindow(request)).expect("there is room");
    answer
}

#[test]
fn next_chunk_is_let_in_while_one_is_written() {
    const ROWS: usize = 12;
    let column = |name: &str, column_type| Column {
        name: name.into(),
        column_type,
        nullable: false,
        details: Default::default(),
    };
    let id = column("id", ColumnType::Int { unsigned: false });
    let schema = TableSchema { id: TableId::new("s", "d", "t"), columns: vec![id], key: vec![0] };
    let (committed, _answer) = oneshot::channel();
    let chunk = SnapshotChunk {
        schema: Arc::new(schema),
        bytes: vec![0; ROW_BYTES],
        rows: vec![(0..1, 0..ROW_BYTES); ROWS],
        high: BinlogPlace::default(),
        order: 1,
        part: TablePart::Range(DoneRange { order: 1, ..DoneRange::default() }),
        generation: 0,
        rows_estimated: ROWS as u64,
        zero_dates: 0,
        invalid_texts: 0,
        committed,
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (inbox, received) = mpsc::channel(8);
    let (tell, mut answered) = mpsc::channel(1);
    let stop = CancellationToken::new();
    let log = AskingLog {
        inbox: inbox.clone(),
        asked: None,
        rows: 0,
        answered_after_rows: tell,
        stop: stop.clone(),
    };
    let json = serde_json::json!({ "name": "s", "url": "mysql://u@h", "commit_interval_ms": 1 });
    let config: SourceConfig = serde_json::from_value(json).expect("a source");
    let filter = TableFilter::new(&["*.*".to_owned()]).expect("a pattern");
    let metrics = ReaderMetrics::new(&prometheus::Registry::new()).source("s");
    let mut windows = Windows::new(&std::env::temp_dir());
    windows.open("d.t");
    let setup =
        CaptureSetup { windows, ..CaptureSetup::new(&config, filter, Box::new(log), metrics) };
    let mut first = ask(&inbox, 1);
    inbox.try_send(Input::Chunk(chunk)).expect("there is room");
    capture::run(setup, received, runtime.handle(), &stop).expect("captures");
    assert_eq!(first.try_recv().expect("an answer").generation, 0);
    let rows = answered.try_recv().expect("it is answered while the chunk is written");
    assert!(rows < ROWS, "{rows}");
}
