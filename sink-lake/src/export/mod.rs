//! Exports: a table's rows as Avro in, one Delta commit out. The rows are decoded as the change log's are, converted
//! as the configuration says, written to files that nothing names yet, and made the table's content at once; so a
//! reader sees the whole old content or the whole new one, and a run that fails or is killed changes nothing.
//!
//! The commit carries when the run began (as the offset of a topic that only the export has), so that what is in the
//! table and what is known about its last run can't differ.

mod conversion;
mod lake_table;
mod lake_type;
mod staging;

pub use lake_table::{ExportMode, clean, commit, folder, last_run};
pub use lake_type::LakeType;
pub use staging::{ExportWriter, StagedExport};

use schemas::table_id::TableId;

/// Where exports lie in the lake and in SQL: `exports.<source>.<name>`. No source may have this name.
pub const CATALOG: &str = "exports";

/// The column that tells when the run of a row began, in tables that each run adds to.
pub const EXPORTED_AT_COLUMN: &str = "_exported_at";

/// A column of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportColumn {
    /// The source's column.
    pub column: String,
    /// Its name in the lake.
    pub name: String,
    /// Its type in the lake; the one that `docs/TYPES.md` gives it without one.
    pub lake_type: Option<LakeType>,
}

/// The name of an export's table.
pub fn table_id(source: &str, name: &str) -> TableId {
    TableId::new(CATALOG, source, name)
}
