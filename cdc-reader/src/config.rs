//! One source of the configuration: which server, which tables, how hard it may be read.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// Patterns of `database.table` with `*` and `?`; one that starts with `!` takes tables out again; the last match
    /// decides. System schemas are never captured. Default: everything.
    #[serde(default = "all_tables")]
    pub tables: Vec<String>,
    /// The id under which the reader registers as a replica; unique among the server's replicas. 0 derives one from
    /// the source's name.
    #[serde(default)]
    pub server_id: u32,
    /// Rows of one snapshot chunk.
    #[serde(default = "snapshot_chunk_rows")]
    pub snapshot_chunk_rows: u32,
    /// Whether existing rows are read first. Without it only changes from now on are captured.
    #[serde(default = "yes")]
    pub snapshot: bool,
    /// Be Debezium to the byte (see `schemas::avro_schema::AvroOptions`).
    #[serde(default)]
    pub debezium_compat: bool,
    /// The longest time between two commits to the log, in milliseconds: what a change waits in the reader. 200 keeps
    /// the lake's freshness of seconds and gives the log large transactions.
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

fn all_tables() -> Vec<String> {
    vec!["*.*".into()]
}

fn snapshot_chunk_rows() -> u32 {
    10_000
}

fn yes() -> bool {
    true
}

fn commit_interval_ms() -> u64 {
    200
}
