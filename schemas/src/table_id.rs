//! Names a source table, and from that its topic, its folder in the lake and its SQL name.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A table of a source: `source.database.table`, the name used in SQL, the console and messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TableId {
    /// The source's name in the configuration.
    pub source: String,
    /// The MySQL schema.
    pub database: String,
    /// The table.
    pub table: String,
}

impl TableId {
    /// Names a table.
    pub fn new(
        source: impl Into<String>,
        database: impl Into<String>,
        table: impl Into<String>,
    ) -> Self {
        Self { source: source.into(), database: database.into(), table: table.into() }
    }

    /// The topic of its changes; characters that Kafka forbids become `_`, as Debezium does
    /// (`AbstractTopicNamingStrategy.sanitizedTopicName`).
    pub fn topic(&self) -> String {
        sanitize_topic(&format!("{}.{}.{}", self.source, self.database, self.table))
    }

    /// The table a data topic belongs to: the text before the first dot is the source, before the second the database.
    /// `None` for the service topics (`<source>.__positions`) and for names with fewer parts.
    pub fn from_topic(topic: &str) -> Option<Self> {
        let mut parts = topic.splitn(3, '.');
        let (source, database, table) = (parts.next()?, parts.next()?, parts.next()?);
        if source.is_empty() || database.is_empty() || table.is_empty() {
            return None;
        }
        Some(Self::new(source, database, table))
    }

    /// The folder below the lake's root: `source/database/table`, with the characters that its topic has: the sink knows
    /// the table by its topic.
    pub fn lake_path(&self) -> String {
        let [source, database, table] =
            [&self.source, &self.database, &self.table].map(|part| sanitize_topic(part));
        format!("{source}/{database}/{table}")
    }
}

impl fmt::Display for TableId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.source, self.database, self.table)
    }
}

/// The compacted, single-partition topic that holds a source's reader position.
pub fn positions_topic(source: &str) -> String {
    sanitize_topic(&format!("{source}.__positions"))
}

/// The compacted, single-partition topic that holds the Avro schemas by fingerprint.
pub fn schemas_topic(source: &str) -> String {
    sanitize_topic(&format!("{source}.__schemas"))
}

/// The compacted, single-partition topic that holds the tables' columns by name, for servers that do not send names.
pub fn tables_topic(source: &str) -> String {
    sanitize_topic(&format!("{source}.__tables"))
}

/// The single-partition topic by which commands reach a source's reader.
pub fn signals_topic(source: &str) -> String {
    sanitize_topic(&format!("{source}.__signals"))
}

/// The single-partition topic of what is known of records that were too large for theirs.
pub fn dead_letters_topic(source: &str) -> String {
    sanitize_topic(&format!("{source}.__dead_letters"))
}

fn sanitize_topic(name: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    name.chars().map(|c| if legal(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_replaces_what_kafka_forbids_and_reads_back() {
        assert_eq!(TableId::new("udon", "market", "of fers").topic(), "udon.market.of_fers");
        let id = TableId::new("udon", "market", "orders");
        assert_eq!(TableId::from_topic(&id.topic()), Some(id));
        assert_eq!(TableId::from_topic("udon.__positions"), None);
        // What a source writes for Debezium's consumers is no table, and a database may have such a name.
        for topic in
            ["udon.transaction", "udon", "__debezium-heartbeat.udon", &signals_topic("udon")]
        {
            assert_eq!(TableId::from_topic(topic), None);
        }
        let id = TableId::new("udon", "transaction", "orders");
        assert_eq!(TableId::from_topic(&id.topic()), Some(id));
    }

    #[test]
    fn reader_and_sink_mean_the_same_folder_by_a_name_that_kafka_forbids() {
        let id = TableId::new("udon", "market", "odd `name");
        let known_to_the_sink = TableId::from_topic(&id.topic()).expect("a table's topic");
        assert_eq!(id.lake_path(), known_to_the_sink.lake_path());
    }
}
