//! The server seen through SQL: connecting, what it is, whether it is ready, and which tables it has.

pub mod catalog;
pub mod column_definition;
pub mod connect;
pub mod default_value;
pub mod flavor;
pub mod insert_defaults;
pub mod limit_checks;
pub mod load;
pub mod place;
pub mod preflight;
pub mod privileges;
pub mod replica_id;
pub mod resume;
pub mod retention;
pub mod rows;
pub mod settings;
pub mod table_description;
pub mod tls;
mod tunnel;
pub mod visible;
pub(crate) mod wire;

pub use catalog::{Catalog, CatalogTable};
pub use connect::{Server, classify, connect, opts, reconnect, server};
pub use preflight::{check, ensure_ready};
pub use resume::ensure_position;
