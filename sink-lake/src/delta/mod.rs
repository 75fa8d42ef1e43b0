//! Delta tables: opening and creating them, writing their data files with exact statistics, and committing.

pub mod arrow_types;
pub mod commit;
pub mod copy_on_write;
pub mod data_file;
pub mod maintenance;
pub mod statistics;
pub mod table;
