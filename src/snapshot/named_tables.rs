//! Which tables a command means by the names and patterns that it was given.

use anyhow::{anyhow, bail};
use cdc_reader::{
    ReaderError, SourceConfig,
    mysql::{
        catalog,
        connect::{connect, place, server},
    },
    signals::ensure_filter,
    table_filter::TableFilter,
};
use schemas::{position::Position, table_id::TableId};

/// Tables by patterns; all tables without one.
pub struct Wanted(Option<TableFilter>);

impl Wanted {
    /// Whether `database.table` is among them.
    pub fn contain(&self, name: &str) -> bool {
        let Some((database, table)) = name.split_once('.') else { return false };
        self.0.as_ref().is_none_or(|filter| filter.captures(database, table))
    }
}

/// Reads patterns.
pub fn patterns(texts: &[String]) -> anyhow::Result<Wanted> {
    if texts.is_empty() {
        return Ok(Wanted(None));
    }
    if let Some(text) = texts.iter().find(|text| text.starts_with('!')) {
        bail!("'{text}': name the tables that are meant, not those that are not");
    }
    Ok(Wanted(Some(TableFilter::new(texts)?)))
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Tables whose snapshot is under way. A name that is no pattern stands for itself, whatever its table does.
pub fn under_way(position: &Position, texts: &[String]) -> anyhow::Result<Vec<String>> {
    let mut tables = Vec::new();
    for text in texts {
        let wanted = patterns(std::slice::from_ref(text))?;
        if !is_pattern(text) {
            tables.push(text.clone());
            continue;
        }
        let reading = position.snapshots.iter().filter(|(_, p)| !p.done && !p.left_out);
        let found: Vec<String> =
            reading.map(|(name, _)| name.clone()).filter(|name| wanted.contain(name)).collect();
        if found.is_empty() {
            bail!("no snapshot that is under way matches '{text}'");
        }
        tables.extend(found);
    }
    tables.sort();
    tables.dedup();
    Ok(tables)
}

/// Captured tables, as the server has them now, each of which `filter` fits.
pub async fn captured(
    source: &SourceConfig,
    texts: &[String],
    filter: Option<&str>,
) -> anyhow::Result<Vec<String>> {
    let mut connection = connect(source).await?;
    let server = server(&mut connection, &place(source)).await?;
    let capturing = TableFilter::new(&source.tables)?;
    let catalog = catalog::load(&mut connection, &server, &source.name, &capturing).await?;
    let mut ids: Vec<TableId> = Vec::new();
    for text in texts {
        let wanted = patterns(std::slice::from_ref(text))?;
        if let Some((name, reason)) =
            catalog.unsupported.iter().find(|(name, _)| wanted.contain(name) && !is_pattern(text))
        {
            bail!("{name} cannot be captured: {reason}");
        }
        let found = catalog.tables.iter().filter(|table| wanted.contain(&table.name()));
        let before = ids.len();
        ids.extend(found.map(|table| table.schema.id.clone()));
        if ids.len() > before {
            continue;
        }
        if is_pattern(text) {
            bail!("no table that source {} captures matches '{text}'", source.name);
        }
        let (database, table) = text.split_once('.').unwrap_or_default();
        let id = TableId::new(&source.name, database, table);
        let known = catalog::load_one(&mut connection, &server, &source.name, &id).await;
        bail!(match known {
            Ok(None) => format!("there is no table {text} on the server of source {}", source.name),
            _ => format!("source {} does not capture {text}; add it to its `tables`", source.name),
        });
    }
    ids.sort();
    ids.dedup();
    for id in ids.iter().filter(|_| filter.is_some()) {
        let checked =
            ensure_filter(&mut connection, &server.place, id, filter.unwrap_or_default()).await;
        match checked {
            Err(ReaderError::Query { reason, .. }) => return Err(anyhow!(reason)),
            other => other?,
        }
    }
    let _ = connection.disconnect().await;
    Ok(ids.iter().map(|id| format!("{}.{}", id.database, id.table)).collect())
}

#[cfg(test)]
mod tests {
    use schemas::position::TableSnapshot;

    use super::*;

    #[test]
    fn pattern_means_what_is_under_way_and_a_name_itself() {
        let mut position = Position::default();
        for (name, done) in [("a.x", false), ("a.y", true), ("b.x", false)] {
            let progress = TableSnapshot { done, ..TableSnapshot::default() };
            position.snapshots.insert(name.into(), progress);
        }
        let of = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).into()).collect();
            under_way(&position, &texts).map_err(|error| error.to_string())
        };
        assert_eq!(of(&["a.*"]), Ok(vec!["a.x".to_owned()]));
        assert_eq!(of(&["*.x", "a.x", "a.y"]), Ok(vec!["a.x".into(), "a.y".into(), "b.x".into()]));
        assert!(of(&["c.*"]).is_err_and(|text| text.contains("matches 'c.*'")));
        assert!(of(&["orders"]).is_err_and(|text| text.contains("database.table")));
        assert!(of(&["!a.x"]).is_err_and(|text| text.contains("'!a.x'")));
    }
}
