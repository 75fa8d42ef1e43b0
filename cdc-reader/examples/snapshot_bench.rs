//! Measures the reading of a table's rows: `snapshot_bench HOW URL DATABASE.TABLE CHUNK_ROWS`.
//!
//! - `avro`: chunk after chunk to Avro, as the snapshot does, without a log.
//! - `rows`: the same SELECTs; the packets are thrown away.
//! - `driver`: the same SELECTs through mysql_async, to its values.
//!
//! Prints one line: rows, bytes, seconds, CPU seconds of this process.

use std::time::Instant;

use cdc_reader::{
    SourceConfig,
    mysql::{
        catalog, connect,
        rows::{Flow, RowConnection},
    },
    snapshot::{
        avro_row::RowWriter,
        chunk_plan::{ChunkRange, chunk_select},
        chunk_read::{Overflow, read_chunk},
    },
};
use futures_util::TryStreamExt;
use mysql_async::{Row, prelude::Queryable};
use schemas::{avro_schema::AvroOptions, table_id::TableId};
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run())
}

async fn run() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [how, url, table, chunk_rows] = arguments.as_slice() else {
        return Err("usage: snapshot_bench avro|rows|driver URL DATABASE.TABLE CHUNK_ROWS".into());
    };
    let config: SourceConfig =
        serde_json::from_value(serde_json::json!({ "name": "b", "url": url, "tables": [table] }))?;
    let (database, name) = table.split_once('.').ok_or("the table has no database")?;
    let mut driver = connect::connect(&config).await?;
    let server = connect::server(&mut driver, "bench").await?;
    let id = TableId::new("b", database, name);
    let table =
        catalog::load_one(&mut driver, &server, "b", &id).await?.ok_or("there is no such table")?;
    let mut connection = RowConnection::connect(&config, CancellationToken::new())?;
    let mut writer = RowWriter::new(&table, AvroOptions::default());
    let (mut rows, mut bytes, mut after) = (0u64, 0usize, None);
    let limit: u64 = chunk_rows.parse()?;
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    loop {
        let range = ChunkRange { after: after.as_deref(), rows: limit, ..ChunkRange::default() };
        let sql = chunk_select(&table, range).ok_or("the key does not fit")?;
        let before = rows;
        match how.as_str() {
            "avro" => {
                let read = read_chunk(
                    &mut connection,
                    &table,
                    range,
                    usize::MAX,
                    Overflow::CutShort,
                    &mut writer,
                )
                .map_err(|failure| format!("{failure:?}"))?;
                rows += read.rows.len() as u64;
                bytes += read.bytes.len();
                after = read.last_key;
            }
            "rows" => {
                connection
                    .select(&sql, |row| {
                        rows += 1;
                        bytes += row.bytes.len();
                        Flow::Go
                    })
                    .map_err(|failure| failure.error)?;
                after = Some(vec![rows.to_string()]);
            }
            _ => {
                let statement = driver.prep(&sql).await?;
                let mut result = driver.exec_iter(&statement, ()).await?;
                if let Some(mut stream) = result.stream::<Row>().await? {
                    while let Some(row) = stream.try_next().await? {
                        rows += 1;
                        bytes += row.unwrap_raw().len();
                    }
                }
                result.drop_result().await?;
                after = Some(vec![rows.to_string()]);
            }
        }
        if rows - before < limit {
            break;
        }
    }
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    println!("{how}: {rows} rows, {bytes} bytes, {seconds:.2} s, {cpu:.2} CPU s");
    Ok(())
}

/// User and system time of this process. The kernel counts in hundredths of a second on every platform that matters.
fn cpu_seconds() -> Result<f64, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let after_name = stat.rsplit(')').next().ok_or("/proc/self/stat has another form")?;
    let ticks = |field: usize| -> Result<f64, Failure> {
        let text = after_name.split_whitespace().nth(field).ok_or("a field is missing")?;
        Ok(text.parse::<f64>()?)
    };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
