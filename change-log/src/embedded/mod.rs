//! The embedded log: one SQLite file per source in one folder, used by several processes at once.
//!
//! Why records and position become visible together, or not at all:
//!
//! - A topic's row holds `next_offset`. Readers take records below it only, whatever else the file contains.
//! - `append` gathers records in memory and, when they grow large, *stages* them: segments at or above `next_offset`,
//!   written in small transactions of their own. No reader sees them, the write lock is held briefly however large the
//!   source's transaction is, and the write-ahead log can be folded back in between.
//! - `commit` raises `next_offset` of every topic concerned, and writes the position, in one SQLite transaction with
//!   `synchronous = FULL`. SQLite syncs its write-ahead log in order, so what was staged before is durable with it.
//! - Each writing transaction first compares the epoch in the file with the writer's own. Opening a writer raises the
//!   epoch and then removes staged segments, so an older writer can neither commit nor stage any more, and what it left
//!   behind can't be mistaken for the new writer's records.
//! - A process killed at any moment leaves the last committed SQLite transaction, hence the last committed position.

mod acknowledgements;
mod database;
mod log_file_reader;
mod reader;
mod retention;
mod segment;
mod write_transaction;
mod writer;

pub use reader::EmbeddedReader;
pub use writer::EmbeddedWriter;
