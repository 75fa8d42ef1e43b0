//! The server seen through SQL: connecting, what it is, whether it is ready, and which tables it has.

pub mod catalog;
pub mod column_definition;
pub mod connect;
pub mod default_value;
pub mod flavor;
pub mod place;
pub mod preflight;
pub mod settings;
pub mod table_description;

pub use catalog::{Catalog, CatalogTable};
pub use connect::{Server, classify, connect, opts, reconnect, server};
pub use place::ensure_position;
pub use preflight::{check, ensure_ready};
