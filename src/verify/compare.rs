//! One table with a key: the source's rows against the lake's, while both go on changing.
//!
//! The lake is read first, then the source is walked by chunks. A row that differs may have changed in between. So the
//! lake is read again once it has passed the place in the binlog at which the walk ended, and what still differs is
//! looked at more closely (`recheck`).

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use cdc_reader::{ReaderError, SourceConfig, mysql::CatalogTable, source_digest::SourceTable};
use schemas::{
    avro_schema::{AvroOptions, column_field},
    position::BinlogPlace,
    table_id::TableId,
};
use sink_lake::{LakeConfig, LakeRows, Mode, SinkError, digests, rows_by_key};
use thiserror::Error;

use super::{
    Outcome, TableResult,
    caught_up::{CaughtUp, NotCaughtUp},
    difference::Difference,
    lake_key::key_text,
    recheck::{Names, Suspect, recheck},
};

/// How often the whole table is compared when keys are in the lake that the source cannot be asked for.
const PASSES_MAX: usize = 4;

/// Why a table could not be compared.
#[derive(Debug, Error)]
pub enum CompareError {
    #[error(transparent)]
    Source(#[from] ReaderError),
    #[error(transparent)]
    Lake(#[from] SinkError),
    #[error(transparent)]
    Wait(#[from] NotCaughtUp),
}

/// Where the rows are.
pub struct Sides<'a> {
    pub source: &'a SourceConfig,
    pub lake: &'a LakeConfig,
    pub table: &'a TableId,
    pub mode: Mode,
    pub deadline: Instant,
}

/// Compares one table.
pub async fn compare(
    sides: &Sides<'_>,
    caught_up: &mut CaughtUp,
) -> Result<TableResult, CompareError> {
    let mut result = TableResult::new(sides.table, sides.mode);
    let mut before = HashSet::new();
    for _ in 0..PASSES_MAX {
        let unsettled = one_pass(sides, caught_up, &mut result).await?;
        let again: HashSet<u128> = unsettled.intersection(&before).copied().collect();
        if unsettled.is_empty() || !again.is_empty() {
            if !again.is_empty() {
                result.outcome = Outcome::Different(Difference::extra(again.len() as u64));
            }
            return Ok(result);
        }
        result.outcome = Outcome::not_proved("its rows change faster than they can be compared");
        before = unsettled;
        if Instant::now() >= sides.deadline {
            break;
        }
    }
    Ok(result)
}

struct Walk {
    rows: u64,
    seen: HashSet<u128>,
    differing: HashMap<u128, Suspect>,
    high: BinlogPlace,
    gtid_set: String,
}

/// Fills in the result. Answers the keys that only another pass can settle: they are in the lake, the walk did not
/// meet them, and the source cannot be asked for them.
async fn one_pass(
    sides: &Sides<'_>,
    caught_up: &mut CaughtUp,
    result: &mut TableResult,
) -> Result<HashSet<u128>, CompareError> {
    let mut source = SourceTable::open(sides.source, sides.table).await?;
    let schema = source.table().schema.clone();
    let options = AvroOptions { debezium_compat: sides.source.debezium_compat };
    let name = |column| column_field(column, options).into_owned();
    let columns: Vec<String> = schema.columns.iter().map(name).collect();
    let key: Vec<String> = schema.key_columns().map(name).collect();
    let names = Names { columns: &columns, key: &key };
    caught_up.with_source(sides).await?;
    let mut lake = digests(sides.table, sides.lake, &columns, &key).await?.unwrap_or_default();
    let mut walk = walk(&mut source, &lake).await?;
    let mut extra: HashSet<u128> =
        lake.iter().map(|(key, _)| key).filter(|key| !walk.seen.contains(key)).collect();
    walk.seen = HashSet::new();
    result.rows_source = walk.rows;
    if sides.mode == Mode::History {
        // What the source purged stays in a history table.
        result.purged = extra.len() as u64;
        extra.clear();
    }
    if !walk.differing.is_empty() || !extra.is_empty() {
        caught_up.past(sides, &walk.high, &walk.gtid_set).await?;
        lake = digests(sides.table, sides.lake, &columns, &key).await?.unwrap_or_default();
        walk.differing.retain(|key, suspect| lake.get(*key) != Some(suspect.row));
        extra.retain(|key| lake.get(*key).is_some());
    }
    result.rows_lake = lake.len() as u64;
    result.outcome = match lake.doubled {
        0 => Outcome::Equal,
        // Read anew after changes were missed, a history has versions that equal others.
        _ if sides.mode == Mode::History && caught_up.has_gap(sides).await? => Outcome::Equal,
        doubled => Outcome::Different(Difference::doubled(doubled)),
    };
    drop(lake);
    if result.outcome == Outcome::Equal {
        suspect_extra(sides, source.table(), &names, &mut extra, &mut walk).await?;
        result.outcome = settle_differing(sides, caught_up, &mut source, &names, &mut walk).await?;
    }
    Ok(if result.outcome == Outcome::Equal { extra } else { HashSet::new() })
}

/// Keys that are in the lake and were not met at the source may have been away for a moment: they become suspects, as
/// far as the source can be asked for them.
async fn suspect_extra(
    sides: &Sides<'_>,
    table: &CatalogTable,
    names: &Names<'_>,
    extra: &mut HashSet<u128>,
    walk: &mut Walk,
) -> Result<(), CompareError> {
    if extra.is_empty() {
        return Ok(());
    }
    let keys = rows_by_key(sides.table, sides.lake, names.key, names.key, extra.clone()).await?;
    for (digest, values) in keys {
        if let Some(key) = key_text(table, &values) {
            extra.remove(&digest);
            walk.differing.insert(digest, Suspect { row: 0, key: Some(key), strikes: 0 });
        }
    }
    Ok(())
}

async fn walk(source: &mut SourceTable, lake: &LakeRows) -> Result<Walk, CompareError> {
    let mut walk = Walk {
        rows: 0,
        seen: HashSet::with_capacity(lake.len()),
        differing: HashMap::new(),
        high: BinlogPlace::default(),
        gtid_set: String::new(),
    };
    while let Some(chunk) = source.next_chunk().await? {
        for row in &chunk.rows {
            walk.rows += 1;
            walk.seen.insert(row.key);
            if lake.get(row.key) != Some(row.row) {
                let suspect = Suspect { row: row.row, key: source.key_text(row), strikes: 0 };
                walk.differing.insert(row.key, suspect);
            }
        }
        walk.high = chunk.high;
        walk.gtid_set = chunk.gtid_set;
    }
    Ok(walk)
}

/// Rechecks until every differing row was found equal, or one of them different, or the time is up.
async fn settle_differing(
    sides: &Sides<'_>,
    caught_up: &mut CaughtUp,
    source: &mut SourceTable,
    names: &Names<'_>,
    walk: &mut Walk,
) -> Result<Outcome, CompareError> {
    while !walk.differing.is_empty() {
        if Instant::now() >= sides.deadline {
            let count = walk.differing.len();
            let reason = format!("{count} rows change faster than they can be compared");
            return Ok(Outcome::not_proved(reason));
        }
        if let Some(difference) =
            recheck(sides, caught_up, source, names, &mut walk.differing).await?
        {
            return Ok(Outcome::Different(difference));
        }
    }
    Ok(Outcome::Equal)
}
