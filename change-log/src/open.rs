//! Opens a log by its configuration.

use std::time::Duration;

use crate::{
    config::LogConfig,
    embedded::{EmbeddedReader, EmbeddedWriter},
    error::LogError,
    kafka::{KafkaReader, KafkaWriter},
    reader::LogReader,
    writer::LogWriter,
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Opens the writer of `source_name`, fencing an older one, and reads the last committed position. Waits at most
/// `timeout` for the log to answer.
pub fn open_writer(
    config: &LogConfig,
    source_name: &str,
    timeout: Duration,
) -> Result<Box<dyn LogWriter>, LogError> {
    match config {
        LogConfig::Embedded { path, retention_hours } => {
            let retention = HOUR * *retention_hours;
            Ok(Box::new(EmbeddedWriter::open(path, source_name, retention, timeout)?))
        }
        LogConfig::Kafka(kafka) => Ok(Box::new(KafkaWriter::open(kafka, source_name, timeout)?)),
    }
}

/// Opens a reader. Waits at most `timeout` for the log to answer.
pub fn open_reader(config: &LogConfig, timeout: Duration) -> Result<Box<dyn LogReader>, LogError> {
    match config {
        LogConfig::Embedded { path, .. } => Ok(Box::new(EmbeddedReader::open(path)?)),
        LogConfig::Kafka(kafka) => Ok(Box::new(KafkaReader::open(kafka, timeout)?)),
    }
}
