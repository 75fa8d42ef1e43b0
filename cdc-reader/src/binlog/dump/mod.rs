//! The replication connection.

mod failure;
mod request;

pub use request::DumpStart;
