//! SQL over the lake, read only: catalogs are sources, schemas are databases, tables are Delta tables at the version
//! that was the latest when the query began.

use std::sync::Arc;

use datafusion::{
    catalog::{CatalogProvider, MemoryCatalogProvider, MemorySchemaProvider, SchemaProvider},
    common::TableReference,
    error::DataFusionError,
    execution::{
        SendableRecordBatchStream,
        context::SQLOptions,
        memory_pool::FairSpillPool,
        runtime_env::{RuntimeEnv, RuntimeEnvBuilder},
    },
    prelude::{SessionConfig, SessionContext},
    sql::{parser::Statement, sqlparser::ast},
};
use thiserror::Error;

use crate::lake_catalog::{LakeCatalog, TableName, by_source};

/// What one program's queries may use together before they spill: a console beside reader and sink must not starve
/// them.
const MEMORY_BYTES_MAX: usize = 1 << 30;

/// Why a query gave nothing.
#[derive(Debug, Error)]
pub enum SqlError {
    /// The lake's folder cannot be looked at.
    #[error("lake {url} cannot be read: {reason}")]
    Lake {
        /// The lake.
        url: String,
        /// What the store said.
        reason: String,
    },
    /// A table cannot be opened.
    #[error("table {name} cannot be opened: {reason}")]
    Table {
        /// The table.
        name: String,
        /// What delta-rs said.
        reason: String,
    },
    /// The query names a table that is not there.
    #[error("there is no table {name} in the lake{known}")]
    NoTable {
        /// The table as it was written.
        name: String,
        /// `; it holds ...`.
        known: String,
    },
    /// The statement would change something.
    #[error("the lake is read-only here: only SELECT, SHOW, DESCRIBE and EXPLAIN are taken")]
    ReadOnly,
    /// The query is wrong or failed.
    #[error("{0}")]
    Query(String),
    /// A result could not be written.
    #[error("cannot write the result: {0}")]
    Write(String),
}

impl From<DataFusionError> for SqlError {
    fn from(error: DataFusionError) -> Self {
        Self::Query(error.strip_backtrace())
    }
}

/// The lake as a database.
pub struct LakeSql {
    catalog: LakeCatalog,
    runtime: Arc<RuntimeEnv>,
}

impl LakeSql {
    /// Opens the lake below `url`; it may still be empty.
    pub fn open(url: &str) -> Result<Self, SqlError> {
        let pool = Arc::new(FairSpillPool::new(MEMORY_BYTES_MAX));
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
        Ok(Self { catalog: LakeCatalog::new(url)?, runtime })
    }

    /// The tables there are, as `source.database.table`.
    pub async fn tables(&self) -> Result<Vec<String>, SqlError> {
        Ok(self.catalog.tables().await?.iter().map(|name| name.join(".")).collect())
    }

    /// Starts one statement; its rows come as they are computed.
    pub async fn query(&self, sql: &str) -> Result<SendableRecordBatchStream, SqlError> {
        let tables = self.catalog.tables().await?;
        let context = SessionContext::new_with_config_rt(config(&tables), self.runtime.clone());
        let state = context.state();
        let statement = state.sql_to_statement(sql, &state.config_options().sql_parser.dialect)?;
        if !only_reads(&statement) {
            return Err(SqlError::ReadOnly);
        }
        let references = state.resolve_table_references(&statement)?;
        let wanted = wanted(&context, &tables, &references)?;
        self.register(&context, &wanted).await?;

        let plan = context.state().statement_to_plan(statement).await?;
        let read_only = SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false);
        read_only.verify_plan(&plan).map_err(|_| SqlError::ReadOnly)?;
        Ok(context.execute_logical_plan(plan).await?.execute_stream().await?)
    }

    async fn register(
        &self,
        context: &SessionContext,
        tables: &[TableName],
    ) -> Result<(), SqlError> {
        for (source, databases) in by_source(tables) {
            let catalog = MemoryCatalogProvider::new();
            for (database, names) in databases {
                let schema = MemorySchemaProvider::new();
                for name in names {
                    let table = self.catalog.open(name).await?;
                    let provider = table.table_provider().await?;
                    schema.register_table(name[2].clone(), provider)?;
                }
                catalog.register_schema(database, Arc::new(schema))?;
            }
            context.register_catalog(source, Arc::new(catalog));
        }
        Ok(())
    }
}

/// Whether a statement is of a kind that reads. What stands inside it is judged by its plan.
fn only_reads(statement: &Statement) -> bool {
    use ast::Statement as Sql;
    match statement {
        Statement::Statement(statement) => matches!(
            **statement,
            Sql::Query(_)
                | Sql::Explain { .. }
                | Sql::ExplainTable { .. }
                | Sql::ShowTables { .. }
                | Sql::ShowColumns { .. }
                | Sql::ShowFunctions { .. }
                | Sql::ShowVariable { .. }
        ),
        Statement::Explain(explain) => only_reads(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => false,
    }
}

/// Names as MySQL keeps them; the first source and, when it is alone, its database may be left out.
fn config(tables: &[TableName]) -> SessionConfig {
    let sources = by_source(tables);
    let (source, databases) =
        sources.iter().next().map_or(("lake", Vec::new()), |(s, d)| (*s, d.keys().collect()));
    let database = if let [only] = databases.as_slice() { only } else { "public" };
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema(source, database)
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(true);
    config.options_mut().sql_parser.enable_ident_normalization = false;
    config
}

/// The tables that a statement needs opened: those it names, or all when it asks for what there is (SHOW TABLES).
fn wanted(
    context: &SessionContext,
    tables: &[TableName],
    references: &[TableReference],
) -> Result<Vec<TableName>, SqlError> {
    let state = context.state();
    let defaults = &state.config_options().catalog;
    let mut wanted = Vec::new();
    for reference in references {
        let full = reference.clone().resolve(&defaults.default_catalog, &defaults.default_schema);
        if &*full.schema == "information_schema" {
            return Ok(tables.to_vec());
        }
        let name = [&full.catalog, &full.schema, &full.table].map(|part| part.to_string());
        if tables.contains(&name) {
            wanted.push(name);
        } else if !is_table_function(reference) {
            return Err(SqlError::NoTable { name: reference.to_string(), known: known(tables) });
        }
    }
    wanted.sort();
    wanted.dedup();
    Ok(if references.is_empty() { tables.to_vec() } else { wanted })
}

/// `generate_series` and the like are listed among the references.
fn is_table_function(reference: &TableReference) -> bool {
    reference.schema().is_none() && matches!(reference.table(), "generate_series" | "range")
}

fn known(tables: &[TableName]) -> String {
    const SHOWN_MAX: usize = 10;
    let names: Vec<String> = tables.iter().take(SHOWN_MAX).map(|name| name.join(".")).collect();
    match (names.is_empty(), tables.len() > SHOWN_MAX) {
        (true, _) => "; it is empty".into(),
        (false, false) => format!("; it holds {}", names.join(", ")),
        (false, true) => format!("; it holds {}, ... (SHOW TABLES lists all)", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::{Int64Array, StringArray},
        datatypes::{DataType, Field, Schema},
        record_batch::RecordBatch,
    };
    use futures_util::TryStreamExt;
    use url::Url;

    use super::*;

    async fn write(folder: &std::path::Path, name: &str, ids: &[i64]) {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).expect("folder is made");
        let schema = Schema::new(vec![
            Field::new("id", DataType::Int64, true),
            Field::new("menuName", DataType::Utf8, true),
        ]);
        let names: Vec<String> = ids.iter().map(|id| format!("udon {id}")).collect();
        let batch = RecordBatch::try_new(
            Arc::new(schema),
            vec![Arc::new(Int64Array::from(ids.to_vec())), Arc::new(StringArray::from(names))],
        )
        .expect("batch");
        let url = Url::from_directory_path(&path).expect("absolute");
        let table =
            deltalake::DeltaTableBuilder::from_url(url).expect("url").build().expect("table");
        table.write(vec![batch]).await.expect("writes");
    }

    async fn rows(lake: &LakeSql, sql: &str) -> Result<String, SqlError> {
        let batches: Vec<RecordBatch> = lake.query(sql).await?.try_collect().await?;
        Ok(arrow::util::pretty::pretty_format_batches(&batches).expect("formats").to_string())
    }

    async fn lake() -> (tempfile::TempDir, LakeSql) {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path(), "udon/market/orders", &[1, 2]).await;
        write(folder.path(), "udon/market/Menu", &[7]).await;
        let lake = LakeSql::open(&format!("file://{}", folder.path().display())).expect("opens");
        (folder, lake)
    }

    #[tokio::test]
    async fn tables_have_three_part_names_and_case() {
        let (folder, lake) = lake().await;
        assert_eq!(lake.tables().await.expect("lists"), ["udon.market.Menu", "udon.market.orders"]);
        let text = rows(&lake, "SELECT COUNT(*) AS n FROM udon.market.orders").await.expect("runs");
        assert!(text.contains("| 2 |"), "{text}");
        for sql in [
            "select menuName from Menu where id = 7",
            "with m as (select * from market.Menu) select menuName from m",
        ] {
            assert!(rows(&lake, sql).await.expect("runs").contains("udon 7"), "{sql}");
        }
        write(folder.path(), "udon/market/orders", &[3]).await;
        let text = rows(&lake, "select max(id) from orders").await.expect("runs");
        assert!(text.contains("| 3 "), "{text}");
        assert!(rows(&lake, "show tables").await.expect("runs").contains("orders"));
    }

    #[tokio::test]
    async fn whatever_writes_is_refused() {
        let (folder, lake) = lake().await;
        let path = folder.path().join("x.csv");
        for sql in [
            "insert into orders values (9, 'x')".to_string(),
            "delete from orders".into(),
            "update orders set id = 1".into(),
            "drop table orders".into(),
            "create table x (id int)".into(),
            "create view v as select 1".into(),
            "create external table x stored as csv location '/etc/passwd'".into(),
            format!("copy orders to '{}'", path.display()),
            "explain analyze insert into orders values (9, 'x')".into(),
            "with x as (select 1) insert into orders select 1, 'x' from x".into(),
            "set datafusion.execution.batch_size = 1".into(),
        ] {
            let error = rows(&lake, &sql).await.expect_err(&sql);
            assert!(matches!(error, SqlError::ReadOnly | SqlError::Query(_)), "{sql}: {error}");
        }
        assert!(!path.exists());
        let text = rows(&lake, "select count(*) from orders").await.expect("runs");
        assert!(text.contains("| 2 "), "{text}");
        let error = rows(&lake, "select * from '/etc/passwd'").await.expect_err("no files");
        assert!(error.to_string().contains("there is no table"), "{error}");
    }

    #[tokio::test]
    async fn missing_table_names_those_there_are() {
        let (_folder, lake) = lake().await;
        let error = rows(&lake, "select * from market.order").await.expect_err("missing");
        assert_eq!(
            error.to_string(),
            "there is no table market.order in the lake; it holds udon.market.Menu, udon.market.orders"
        );
    }
}
