//! Change log to Delta: reads a source's topics, keeps one Delta table per source table, and tells what is in them.
//!
//! The way of a change: `router` (one thread that owns the log's reader) -> `table_worker` (one task per table) ->
//! `decode` -> `buffer` -> `modes` (what to write) -> `delta` (files, commit) -> acknowledged to the log. A table's
//! offsets are part of its Delta commits, so a restart goes on exactly where the table is.

pub mod config;
pub mod error;
pub mod export;
pub mod metrics;
pub mod open_tables;
pub mod pipeline;
pub mod share;
pub mod status;
pub mod verify;

mod buffer;
mod collapse;
mod dead_letters;
mod decode;
mod delta;
mod flow;
mod flush_policy;
mod key_hash;
mod key_index;
mod memory_budget;
mod modes;
mod partial_rows;
mod router;
mod schema_catalog;
mod schema_evolution;
mod table_worker;

pub use config::{LakeConfig, Mode, SinkConfig, TableRule, mode_of};
pub use error::SinkError;
pub use metrics::SinkMetrics;
pub use open_tables::{LakeTable, open_tables, table_offsets};
pub use pipeline::{ensure_lake_writable, run, run_with_rules};
pub use share::Share;
pub use status::{SinkStatus, TableState, TableStatus};
pub use verify::{CanonicalRow, LakeRows, digests, rows_by_key};
