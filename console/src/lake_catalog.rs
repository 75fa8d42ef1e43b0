//! Which tables the lake holds, and each one opened at its latest version. Folders are listed anew for every query,
//! so a table is there as soon as its first commit is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use deltalake::{DeltaTable, DeltaTableBuilder, ObjectStore, Path, logstore::LogStoreRef};
use futures_util::future::try_join_all;
use url::Url;

use crate::sql::SqlError;

/// `source`, `database`, `table`.
pub type TableName = [String; 3];

/// The lake's tables.
pub struct LakeCatalog {
    url: Url,
    root: LogStoreRef,
    // Opened tables are kept: the next query reads newer commits only.
    opened: Mutex<HashMap<TableName, DeltaTable>>,
}

impl LakeCatalog {
    /// Looks at the lake below `url`, which may still be empty.
    pub fn new(url: &str) -> Result<Self, SqlError> {
        let unusable = |reason: String| SqlError::Lake { url: url.into(), reason };
        let parsed = match url.strip_prefix("file:") {
            // As the sink reads it: a path as it stands, nothing in it is percent-encoded.
            Some(path) => Url::from_directory_path(path.strip_prefix("//").unwrap_or(path))
                .map_err(|()| unusable("it is not an absolute path".into()))?,
            None => Url::parse(url).map_err(|e| unusable(e.to_string()))?,
        };
        let root = DeltaTableBuilder::from_url(parsed.clone())
            .and_then(|builder| builder.build_storage())
            .map_err(|e| unusable(e.to_string()))?;
        Ok(Self { url: parsed, root, opened: Mutex::default() })
    }

    /// All tables, sorted.
    pub async fn tables(&self) -> Result<Vec<TableName>, SqlError> {
        let mut level = vec![Path::default()];
        for _ in 0..3 {
            let listed = try_join_all(level.iter().map(|path| self.folders(path))).await?;
            level = listed.into_iter().flatten().collect();
        }
        let logs = try_join_all(level.iter().map(|path| self.folders(path))).await?;
        let mut tables: Vec<TableName> = level
            .iter()
            .zip(logs)
            .filter(|(_, below)| below.iter().any(|p| p.filename() == Some("_delta_log")))
            .filter_map(|(path, _)| {
                let parts: Vec<String> = path.parts().map(|p| p.as_ref().to_string()).collect();
                parts.try_into().ok()
            })
            .collect();
        tables.sort();
        Ok(tables)
    }

    /// The table at its latest version.
    pub async fn open(&self, name: &TableName) -> Result<DeltaTable, SqlError> {
        let known = self.opened.lock().ok().and_then(|opened| opened.get(name).cloned());
        let fresh = match known {
            Some(mut table) => table.update_state().await.is_ok().then_some(table),
            None => None,
        };
        let table = match fresh {
            Some(table) => table,
            // Not known yet, or made anew since.
            None => {
                let url = self.table_url(name)?;
                deltalake::open_table(url)
                    .await
                    .map_err(|e| SqlError::Table { name: name.join("."), reason: e.to_string() })?
            }
        };
        if let Ok(mut opened) = self.opened.lock() {
            opened.insert(name.clone(), table.clone());
        }
        Ok(table)
    }

    fn table_url(&self, name: &TableName) -> Result<Url, SqlError> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(name);
        }
        Ok(url)
    }

    async fn folders(&self, path: &Path) -> Result<Vec<Path>, SqlError> {
        let store = self.root.object_store(None);
        let prefix = (!path.as_ref().is_empty()).then_some(path);
        let listed = store
            .list_with_delimiter(prefix)
            .await
            .map_err(|e| SqlError::Lake { url: self.url.to_string(), reason: e.to_string() })?;
        Ok(listed.common_prefixes)
    }
}

/// Tables by source, then database.
pub fn by_source(tables: &[TableName]) -> BTreeMap<&str, BTreeMap<&str, Vec<&TableName>>> {
    let mut sources: BTreeMap<&str, BTreeMap<&str, Vec<&TableName>>> = BTreeMap::new();
    for name in tables {
        let [source, database, _] = name;
        sources.entry(source).or_default().entry(database).or_default().push(name);
    }
    sources
}
