//! MySQL to change log: checks a server, takes a snapshot beside the stream, follows the binlog, and writes every
//! row change as Avro into the log, together with the position it stands for.

pub mod binlog;
pub mod capture;
pub mod config;
pub mod encode;
pub mod error;
pub mod export;
pub mod flow;
pub mod metrics;
pub mod mysql;
pub mod pipeline;
pub mod retention_guard;
pub mod signals;
pub mod snapshot;
pub mod source_digest;
pub mod spool;
pub mod table_filter;

pub use config::SourceConfig;
pub use error::ReaderError;
pub use metrics::ReaderMetrics;
pub use pipeline::{run, run_with_tables};
