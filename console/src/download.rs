//! A query's rows as text or a file. CSV and JSON are written batch by batch, so that a result may be larger than
//! memory.

use std::io::Write;

use arrow::{
    array::{ArrayRef, RecordBatch},
    csv, json,
    util::{
        display::{ArrayFormatter, FormatOptions},
        pretty::pretty_format_batches_with_options,
    },
};
use datafusion::execution::SendableRecordBatchStream;
use futures_util::StreamExt;
use parquet::arrow::ArrowWriter;

use crate::sql::SqlError;

/// Rows that the form for reading shows; more would not be read, and have to be held to align their columns.
const TABLE_ROWS_MAX: usize = 10_000;

/// The form of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns, at most 10,000 rows.
    Table,
    /// RFC 4180 with a header.
    Csv,
    /// One JSON array of objects.
    Json,
    /// A Parquet file.
    Parquet,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows.
    pub rows: usize,
    /// Whether there were more that were left out.
    pub cut: bool,
}

/// Writes all rows of `stream` to `out`.
pub async fn write(
    mut stream: SendableRecordBatchStream,
    format: Format,
    out: impl Write + Send,
) -> Result<Written, SqlError> {
    match format {
        Format::Table => write_table(stream, out).await,
        Format::Csv => {
            let mut writer = csv::WriterBuilder::new().with_header(true).build(out);
            // A result without rows still has its header.
            writer.write(&RecordBatch::new_empty(stream.schema())).map_err(failed)?;
            let mut written = Written::default();
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                writer.write(&batch).map_err(failed)?;
                written.rows += batch.num_rows();
            }
            writer.into_inner().flush().map_err(failed)?;
            Ok(written)
        }
        Format::Json => {
            let builder = json::WriterBuilder::new().with_explicit_nulls(true);
            let mut writer = builder.build::<_, json::writer::JsonArray>(out);
            let mut written = Written::default();
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                writer.write(&batch).map_err(failed)?;
                written.rows += batch.num_rows();
            }
            writer.finish().map_err(failed)?;
            let mut out = writer.into_inner();
            out.write_all(b"\n").and_then(|()| out.flush()).map_err(failed)?;
            Ok(written)
        }
        Format::Parquet => {
            let mut writer = ArrowWriter::try_new(out, stream.schema(), None).map_err(failed)?;
            let mut written = Written::default();
            while let Some(batch) = stream.next().await {
                let batch = batch?;
                writer.write(&batch).map_err(failed)?;
                written.rows += batch.num_rows();
            }
            writer.close().map_err(failed)?;
            Ok(written)
        }
    }
}

async fn write_table(
    stream: SendableRecordBatchStream,
    mut out: impl Write + Send,
) -> Result<Written, SqlError> {
    let schema = stream.schema();
    let head = head(stream, TABLE_ROWS_MAX).await?;
    let batches =
        if head.batches.is_empty() { vec![RecordBatch::new_empty(schema)] } else { head.batches };
    let text = pretty_format_batches_with_options(&batches, &options()).map_err(failed)?;
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(failed)?;
    Ok(Written { rows: head.rows, cut: head.cut })
}

/// The first rows of a result.
pub struct Head {
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// How many they are.
    pub rows: usize,
    /// Whether there were more.
    pub cut: bool,
}

/// Takes the first `rows_max` rows and drops the query.
pub async fn head(
    mut stream: SendableRecordBatchStream,
    rows_max: usize,
) -> Result<Head, SqlError> {
    let mut head = Head { batches: Vec::new(), rows: 0, cut: false };
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        let left = rows_max - head.rows;
        head.cut = batch.num_rows() > left;
        let taken = batch.num_rows().min(left);
        head.rows += taken;
        if taken > 0 {
            head.batches.push(batch.slice(0, taken));
        }
        if head.cut {
            break;
        }
    }
    Ok(head)
}

/// Rows as texts, NULL as `None`.
pub fn texts(batch: &RecordBatch) -> Result<Vec<Vec<Option<String>>>, SqlError> {
    let options = options();
    let formatters = batch
        .columns()
        .iter()
        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
        .collect::<Result<Vec<_>, _>>()
        .map_err(failed)?;
    let cell = |(column, formatter): (&ArrayRef, &ArrayFormatter), row: usize| {
        column.is_valid(row).then(|| formatter.value(row).to_string())
    };
    let row = |row| {
        batch.columns().iter().zip(&formatters).map(|pair| cell(pair, row)).collect::<Vec<_>>()
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

fn options() -> FormatOptions<'static> {
    FormatOptions::default().with_null("NULL").with_display_error(true)
}

fn failed(error: impl std::fmt::Display) -> SqlError {
    SqlError::Write(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::prelude::SessionContext;

    use super::*;

    async fn written(sql: &str, format: Format) -> (String, Written) {
        let frame = SessionContext::new().sql(sql).await.expect("plans");
        let mut out = Vec::new();
        let stream = frame.execute_stream().await.expect("runs");
        let written = write(stream, format, &mut out).await.expect("writes");
        (String::from_utf8_lossy(&out).into_owned(), written)
    }

    #[tokio::test]
    async fn forms() {
        let sql = "select 1 as a, 'x,\"y' as b, cast(null as int) as c";
        let (text, written_rows) = written(sql, Format::Csv).await;
        assert_eq!(text, "a,b,c\n1,\"x,\"\"y\",\n");
        assert_eq!(written_rows, Written { rows: 1, cut: false });
        let (text, _) = written(sql, Format::Json).await;
        assert_eq!(text, "[{\"a\":1,\"b\":\"x,\\\"y\",\"c\":null}]\n");
        let (text, _) = written(sql, Format::Table).await;
        assert!(text.contains("| a | b    | c    |") && text.contains("NULL"), "{text}");
        let (text, _) = written(sql, Format::Parquet).await;
        assert!(text.starts_with("PAR1") && text.ends_with("PAR1"));
    }

    #[tokio::test]
    async fn nothing_has_a_header() {
        let sql = "select 1 as a where false";
        assert_eq!(written(sql, Format::Csv).await.0, "a\n");
        assert_eq!(written(sql, Format::Json).await.0, "[]\n");
        assert!(written(sql, Format::Table).await.0.contains("| a |"));
    }

    #[tokio::test]
    async fn head_says_that_it_cut() {
        let stream = |sql: &'static str| async move {
            let frame = SessionContext::new().sql(sql).await.expect("plans");
            frame.execute_stream().await.expect("runs")
        };
        let sql = "select * from (values (1), (2), (3))";
        let three = head(stream(sql).await, 3).await.expect("reads");
        assert_eq!((three.rows, three.cut), (3, false));
        let two = head(stream(sql).await, 2).await.expect("reads");
        assert_eq!((two.rows, two.cut), (2, true));
        assert_eq!(two.batches.iter().map(|b| b.num_rows()).sum::<usize>(), 2);
    }

    #[test]
    fn null_is_no_text() {
        let column: ArrayRef = Arc::new(arrow::array::StringArray::from(vec![Some("NULL"), None]));
        let batch = RecordBatch::try_from_iter_with_nullable([("a", column, true)]).expect("batch");
        assert_eq!(texts(&batch).expect("formats"), [[Some("NULL".to_string())], [None]]);
    }
}
