//! The ordered log between reader and sink: one writer and one reader interface over two stores, Kafka and an
//! embedded one. Records and the reader's position become durable together or not at all.

pub mod config;
pub mod embedded;
pub mod error;
pub mod headers;
pub mod kafka;
pub mod open;
pub mod reader;
pub mod record;
pub mod registry;
pub mod writer;

pub use config::{
    Delivery, IncompatibleSchema, KafkaConfig, LogConfig, RecordTooLarge, SaslMechanism,
    SecurityProtocol,
};
pub use error::LogError;
pub use open::{open_reader, open_writer};
pub use reader::{Consumed, LogReader, RecordSpan, TopicInfo};
pub use record::{EncodedBatch, EncodedRecord};
pub use writer::{Cleanup, LogWriter, TopicHandle, TopicSpec, Waiting};
