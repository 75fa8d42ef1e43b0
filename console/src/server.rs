//! The HTTP server of every service: metrics and health always, the page, status and SQL where they are given.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use prometheus::{Registry, TextEncoder};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{api, sql::LakeSql, status::Status};

/// What a probe is told; a sentence where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why the process should be started again.
    pub unhealthy: Option<String>,
    /// Why it does not do its work right now.
    pub unready: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self { unhealthy: None, unready: Some("starting".into()) }
    }
}

/// What is served.
#[derive(Clone)]
pub struct Service {
    /// The parts' metrics.
    pub registries: Vec<Registry>,
    /// For `/healthz` and `/readyz`.
    pub health: watch::Receiver<Health>,
    /// For the page and `/api/status`.
    pub status: Option<watch::Receiver<Arc<Status>>>,
    /// For `/api/query`.
    pub sql: Option<Arc<LakeSql>>,
}

/// Serves on `listener` until `shutdown`.
pub async fn serve(
    listener: TcpListener,
    service: Service,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let mut router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz));
    if service.status.is_some() {
        router = router.route("/", get(page)).route("/api/status", get(api::status));
    }
    if service.sql.is_some() {
        router = router.route("/api/query", post(api::query));
    }
    let router = router.with_state(service);
    axum::serve(listener, router).with_graceful_shutdown(shutdown.cancelled_owned()).await
}

async fn page() -> Response {
    // Only this page's own script and style run, whatever a value holds.
    const POLICY: &str = "default-src 'none'; style-src 'self' 'unsafe-inline'; \
                          script-src 'self' 'unsafe-inline'; connect-src 'self'; base-uri 'none'; \
                          form-action 'none'; frame-ancestors 'none'";
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY), (header::CACHE_CONTROL, "no-store")];
    (headers, Html(include_str!("pages/index.html"))).into_response()
}

async fn metrics(State(service): State<Service>) -> Response {
    let mut families: Vec<_> = service.registries.iter().flat_map(Registry::gather).collect();
    families.sort_by(|a, b| a.name().cmp(b.name()));
    match TextEncoder::new().encode_to_string(&families) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn healthz(State(service): State<Service>) -> Response {
    answer(service.health.borrow().unhealthy.clone())
}

async fn readyz(State(service): State<Service>) -> Response {
    let health = service.health.borrow().clone();
    answer(health.unhealthy.or(health.unready))
}

fn answer(finding: Option<String>) -> Response {
    match finding {
        None => "ok\n".into_response(),
        Some(sentence) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{sentence}\n")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn answer_to(request: &str, address: std::net::SocketAddr) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("connects");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("reads");
        text
    }

    async fn get(path: &str, address: std::net::SocketAddr) -> String {
        answer_to(
            &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"),
            address,
        )
        .await
    }

    #[tokio::test]
    async fn health_page_status_and_query() {
        let folder = tempfile::tempdir().expect("folder");
        let (health, health_seen) = watch::channel(Health::default());
        let (_status, status_seen) = watch::channel(Arc::new(Status::default()));
        let service = Service {
            registries: vec![Registry::new()],
            health: health_seen,
            status: Some(status_seen),
            sql: Some(Arc::new(
                LakeSql::open(&format!("file:{}", folder.path().display())).expect("opens"),
            )),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("has an address");
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, service, shutdown.clone()));

        assert!(get("/healthz", address).await.starts_with("HTTP/1.1 200"));
        let text = get("/readyz", address).await;
        assert!(text.starts_with("HTTP/1.1 503") && text.contains("starting"), "{text}");
        health.send_replace(Health { unhealthy: None, unready: None });
        assert!(get("/readyz", address).await.starts_with("HTTP/1.1 200"));
        assert!(get("/", address).await.contains("<title>Binlake"));
        assert!(get("/api/status", address).await.contains("\"sources\":[]"));

        let post = |body: &str, kind: &str| {
            format!(
                "POST /api/query HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let text =
            answer_to(&post(r#"{"sql":"select 1 as a"}"#, "application/json"), address).await;
        assert!(text.contains(r#""columns":["a"]"#) && text.contains(r#"[["1"]]"#), "{text}");
        let text = answer_to(&post(r#"{"sql":"drop table a"}"#, "application/json"), address).await;
        assert!(text.starts_with("HTTP/1.1 400"), "{text}");
        // A form of another site cannot send this content type.
        let text = answer_to(&post(r#"{"sql":"select 1"}"#, "text/plain"), address).await;
        assert!(text.starts_with("HTTP/1.1 415"), "{text}");

        shutdown.cancel();
        server.await.expect("joins").expect("stops");
    }
}
