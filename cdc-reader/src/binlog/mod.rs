//! The binlog: from the socket to events with meaning. Only `dump` does I/O.

pub mod byte_reader;
pub mod column_changes;
pub mod compressed;
pub mod consumed;
pub mod ddl;
pub mod dump;
pub mod event;
pub mod mariadb;
pub mod query_event;
mod sql_tokens;
pub mod table_map;
pub mod table_shape;
pub mod transaction;
