//! What a table's mode makes of a batch of changes: the files to write, the files to remove, and what to remember
//! once they are committed.

pub mod history;
pub mod state;
