//! What the snapshot of a running source is asked to do. Whoever asks has entered it in the position before, so that a
//! restart finds it there.

use schemas::table_id::TableId;

/// See the module. Names are `database.table`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Read a table from its first key. Its window is open.
    Read {
        /// Which table.
        table: TableId,
        /// The generation of the walk, as its window has it.
        generation: u64,
    },
    /// Begin no chunk of the table for now.
    Pause(String),
    /// Go on with it.
    Resume(String),
    /// Forget it: its window is closed.
    Stop(String),
}
