//! The log on Apache Kafka: a transactional writer, and readers that see committed records only.
//!
//! Why records and position become visible together, or not at all: the position is the last record of the same Kafka
//! transaction, and readers use `read_committed`. The transactional id is the source's name, so opening a writer fences
//! the older one in the broker and ends its open transaction. Only then is the last position read, up to the high
//! watermark that stood after that; nothing of an older writer can be committed behind it.

mod client;
mod deliveries;
mod error_class;
mod flush;
mod headers;
mod in_flight;
mod positions;
mod producer;
mod reader;
mod security;
mod sender;
mod stall;
pub mod too_large;
mod topics;
mod watermarks;
mod writer;

pub use reader::KafkaReader;
pub use writer::KafkaWriter;
