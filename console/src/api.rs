//! What the page's script asks for: status and query results as JSON.

use std::time::{Duration, Instant};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use crate::{
    download::{head, texts},
    server::Service,
    sql::{LakeSql, SqlError},
};

/// More rows than this are for `binlake query`.
const ROWS_MAX: usize = 10_000;
/// A query that somebody waits for in a browser.
const QUERY_TIME_MAX: Duration = Duration::from_secs(60);

/// The body of `/api/query`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRequest {
    /// One statement.
    pub sql: String,
}

#[derive(Debug, Serialize)]
struct QueryResult {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
    cut: bool,
    milliseconds: u128,
}

#[derive(Debug, Serialize)]
struct Refusal {
    error: String,
}

/// `/api/status`.
pub async fn status(State(service): State<Service>) -> Response {
    match service.status {
        Some(status) => {
            let status = status.borrow().clone();
            Json(&*status).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// `/api/query`.
pub async fn query(State(service): State<Service>, Json(request): Json<QueryRequest>) -> Response {
    let Some(sql) = service.sql else { return StatusCode::NOT_FOUND.into_response() };
    let running = run(&sql, &request.sql);
    match tokio::time::timeout(QUERY_TIME_MAX, running).await {
        Ok(Ok(result)) => Json(result).into_response(),
        Ok(Err(error)) => refuse(error.to_string()),
        Err(_) => refuse(format!(
            "the query took longer than {} s; `binlake query` has no such limit",
            QUERY_TIME_MAX.as_secs()
        )),
    }
}

async fn run(lake: &LakeSql, sql: &str) -> Result<QueryResult, SqlError> {
    let started = Instant::now();
    let stream = lake.query(sql).await?;
    let columns = stream.schema().fields().iter().map(|field| field.name().clone()).collect();
    let head = head(stream, ROWS_MAX).await?;
    let mut rows = Vec::with_capacity(head.rows);
    for batch in &head.batches {
        rows.extend(texts(batch)?);
    }
    Ok(QueryResult { columns, rows, cut: head.cut, milliseconds: started.elapsed().as_millis() })
}

fn refuse(error: String) -> Response {
    (StatusCode::BAD_REQUEST, Json(Refusal { error })).into_response()
}
