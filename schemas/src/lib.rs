//! The contract between Binlake's parts: table schemas, positions, Avro text and wire framing. Pure; no I/O.

pub mod avro_names;
pub mod avro_schema;
pub mod avro_write;
pub mod column_type;
pub mod default_value;
pub mod gtid_set;
pub mod json_text;
pub mod mariadb_gtid;
pub mod position;
pub mod row_digest;
pub mod snapshot_state;
pub mod table_id;
pub mod table_schema;
pub mod wire_format;
