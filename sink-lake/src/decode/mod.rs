//! Framed Avro records in, Arrow rows out: schema text -> compiled plan -> columns, with undecodable records set apart.

pub mod avro_schema;
pub mod column_builder;
pub mod column_reader;
pub mod decimal;
pub mod envelope;
pub mod key_reader;
pub mod rows;
pub mod table_decoder;
pub mod zoned_timestamp;

#[cfg(test)]
mod tests;
