//! From a row image's bytes to Avro bytes, by a plan per table shape and without values in between. Synchronous.

pub mod address;
pub mod charset;
pub mod charset_tables;
pub mod compressed_column;
pub mod decimal;
pub mod envelope;
pub mod insert_default;
pub mod json;
mod json_diff;
pub mod key_header;
pub mod metadata;
pub mod partial_rows;
pub mod plan;
pub mod row;
pub mod rows_event;
pub mod schema_change;
pub mod temporal;
