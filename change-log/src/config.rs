//! How to reach a log.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Which store, and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum LogConfig {
    /// A local SQLite file: for one machine, no other service needed. Several processes may use it at once.
    Embedded {
        /// The folder that holds the log; created when missing.
        path: PathBuf,
        /// How long consumed records stay, in hours; 24 so that a sink's table can be made again within a day.
        #[serde(default = "default_retention_hours")]
        retention_hours: u32,
    },
    /// Apache Kafka (2.5 or newer: transactions).
    Kafka(KafkaConfig),
}

/// How to reach Kafka, and how its topics are made and written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// Partitions of data topics that Binlake creates. One keeps a table's changes in one order.
    #[serde(default = "default_partitions")]
    pub partitions: i32,
    /// Copies of each topic that Binlake creates; -1 takes the broker's default.
    #[serde(default = "default_replication")]
    pub replication: i32,
    /// How long data topics keep their records, in hours; 168 is Kafka's own default.
    #[serde(default = "default_kafka_retention_hours")]
    pub retention_hours: u32,
}

impl KafkaConfig {
    /// Brokers at `bootstrap_servers` with every default.
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            partitions: default_partitions(),
            replication: default_replication(),
            retention_hours: default_kafka_retention_hours(),
        }
    }
}

fn default_retention_hours() -> u32 {
    24
}

fn default_partitions() -> i32 {
    1
}

fn default_replication() -> i32 {
    -1
}

fn default_kafka_retention_hours() -> u32 {
    168
}
