//! One source of the configuration: which server, which tables, how hard it may be read.

mod limits;
mod snapshot_mode;

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use snapshot_mode::SnapshotMode;

/// A `[[source]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// The source's name: the first part of topics, lake paths and SQL names. Letters, digits, `_` and `-`.
    pub name: String,
    /// `mysql://user[:password]@host[:port][/database]`. The password belongs into `password_env` or `password_file`.
    pub url: String,
    /// The environment variable that holds the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_env: Option<String>,
    /// The file that holds the password (a trailing line break is cut off).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// How the connections to the server are encrypted and whom they trust.
    #[serde(default)]
    pub ssl_mode: SslMode,
    /// The file with the CA that signed the server's certificate (PEM); for `verify_ca` and `verify_identity`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_ca: Option<PathBuf>,
    /// The file with the reader's own certificate (PEM), for users that must show one (REQUIRE X509).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_cert: Option<PathBuf>,
    /// The file with the private key of `ssl_cert` (PEM).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssl_key: Option<PathBuf>,
    /// Patterns of `database.table` with `*` and `?`; one that starts with `!` takes tables out again; the last match
    /// decides. System schemas are never captured. Default: everything.
    #[serde(default = "all_tables")]
    pub tables: Vec<String>,
    /// The id under which the reader registers as a replica; unique among the server's replicas. 0 derives one from
    /// the source's name.
    #[serde(default)]
    pub server_id: u32,
    /// Whether the reader acknowledges what it receives, as a semi-synchronous replica does. The server then counts
    /// it as one that holds the transaction, although a crash of the reader before the next commit to the change log
    /// leaves it on the server alone. Without it the reader never stands in for a replica.
    #[serde(default)]
    pub semi_sync: bool,
    /// How many chunks are read at once, each on a connection of its own.
    #[serde(default = "snapshot_readers")]
    pub snapshot_readers: u32,
    /// Rows of one snapshot chunk, at most; it is cut at 8 MB as well.
    #[serde(default = "snapshot_chunk_rows")]
    pub snapshot_chunk_rows: u32,
    /// Which existing rows are read.
    #[serde(default)]
    pub snapshot: SnapshotMode,
    /// Rows that snapshots may read in a second, over all readers of the source; 0 for no limit.
    #[serde(default)]
    pub snapshot_max_rows_per_second: u64,
    /// Connections to the source's server at a time; 0 for no limit but the readers' number.
    #[serde(default)]
    pub max_connections: u32,
    /// Snapshots pause while the server's `Threads_running` is above this; 0 for never.
    #[serde(default)]
    pub snapshot_pause_threads_running: u32,
    /// Snapshots pause while one of `snapshot_replicas`, or the source itself when it is a replica, is further behind
    /// than this many seconds; 0 for never.
    #[serde(default)]
    pub snapshot_pause_replica_lag_seconds: u32,
    /// The replicas that are asked: urls like `url`, with the same password and TLS.
    #[serde(default)]
    pub snapshot_replicas: Vec<String>,
    /// Be Debezium to the byte (see `schemas::avro_schema::AvroOptions`).
    #[serde(default)]
    pub debezium_compat: bool,
    /// The longest time between two commits to the log, in milliseconds: what a change waits in the reader. 200 keeps
    /// the lake's freshness of seconds and gives the log large transactions. 0 makes each transaction of the source one
    /// of the log (one of more than 64 MB is committed in parts all the same), which costs throughput.
    #[serde(default = "commit_interval_ms")]
    pub commit_interval_ms: u64,
    /// Whether every record carries Debezium's headers `__debezium.context.*`: about 170 bytes each. Debezium 3.6
    /// writes them unless told not to.
    #[serde(default)]
    pub context_headers: bool,
    /// Debezium's `provide.transaction.metadata`: the topic `<name>.transaction`, and `transaction` in every envelope
    /// of the stream.
    #[serde(default)]
    pub transaction_metadata: bool,
    /// Debezium's `heartbeat.interval.ms`: how often a record goes into the topic `__debezium-heartbeat.<name>`;
    /// 0 for never.
    #[serde(default)]
    pub heartbeat_interval_ms: u64,
    /// Debezium's `include.schema.changes`: the topic `<name>` with a record for each statement that changes a
    /// captured table's definition.
    #[serde(default)]
    pub schema_changes: bool,
}

/// MySQL's modes of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SslMode {
    /// Plain text.
    Disabled,
    /// TLS when the server offers it; the certificate is not verified.
    #[default]
    Preferred,
    /// TLS or nothing; the certificate is not verified.
    Required,
    /// The certificate must be signed by a CA in `ssl_ca`.
    VerifyCa,
    /// It must also be for the host in the url.
    VerifyIdentity,
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "disabled",
            Self::Preferred => "preferred",
            Self::Required => "required",
            Self::VerifyCa => "verify_ca",
            Self::VerifyIdentity => "verify_identity",
        })
    }
}

fn all_tables() -> Vec<String> {
    vec!["*.*".into()]
}

fn snapshot_readers() -> u32 {
    2
}

fn snapshot_chunk_rows() -> u32 {
    50_000
}

fn commit_interval_ms() -> u64 {
    200
}
