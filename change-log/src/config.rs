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
    /// What a crash or a broker's failure may do to records.
    #[serde(default)]
    pub delivery: Delivery,
    /// What becomes of a record that its topic does not take.
    #[serde(default)]
    pub record_too_large: RecordTooLarge,
}

/// What a crash or a broker's failure may do to records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Records and position in one Kafka transaction: readers of committed records see each change once.
    #[default]
    ExactlyOnce,
    /// For brokers without transactions: the position is written when the records are with the brokers, so what lies
    /// between two positions may come twice. Nothing fences a second reader of the same source.
    AtLeastOnce,
}

/// What becomes of a record that its topic does not take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordTooLarge {
    /// The source stops with a sentence: nothing is left out.
    #[default]
    Stop,
    /// Its key and what is known of it go into `<source>.__dead_letters`, in the same transaction, and the source goes
    /// on. The change is not in the lake.
    DeadLetter,
}

impl KafkaConfig {
    /// Brokers at `bootstrap_servers` with every default.
    pub fn new(bootstrap_servers: impl Into<String>) -> Self {
        Self {
            bootstrap_servers: bootstrap_servers.into(),
            partitions: default_partitions(),
            replication: default_replication(),
            retention_hours: default_kafka_retention_hours(),
            delivery: Delivery::default(),
            record_too_large: RecordTooLarge::default(),
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
