//! The reader's SQL half against a real MySQL server (`deploy/local/mysql.sh`): catalog, preflight, the walk by keys,
//! snapshot bytes against binlog bytes, the snapshot's protocol, and the digests of `verify`.

mod catalog;
mod charsets;
mod ddl;
mod debezium_records;
mod debezium_schemas;
mod dump;
mod following;
mod json_differences;
mod keyless;
mod login;
mod mariadb;
mod mariadb_columns;
mod preflight;
mod protocol;
mod reading;
mod resume;
mod retention;
mod row_images;
mod rows;
mod server;
mod snapshot_bytes;
mod source_digest;
mod source_load;
mod stale_view;
mod throttle;
mod transactions;
mod walk;
mod without_gtids;
