//! Binlake seen from outside: SQL over the lake, and HTTP with a page of status, metrics and health. Writes nothing
//! to the lake.

pub mod api;
pub mod download;
pub mod lake_catalog;
pub mod server;
pub mod sql;
pub mod status;

pub use server::{Health, Service, serve};
pub use sql::{LakeSql, SqlError};
