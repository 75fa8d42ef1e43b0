//! One table: the source's rows against the lake's, while both go on changing.
//!
//! The lake is read first, then the source is walked by chunks. A row that differs may have changed in between: it is
//! read again at the source, and compared again once the lake has passed the place in the binlog at which the source
//! was read. A row that is really different stays so; one that merely moves on is caught standing still sooner or later.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use cdc_reader::{
    ReaderError, SourceConfig,
    snapshot::chunk_plan::KeyText,
    source_digest::{SourceRowValues, SourceTable},
};
use schemas::{position::BinlogPlace, table_id::TableId};
use sink_lake::{LakeConfig, LakeRows, Mode, SinkError, digests, rows_by_key};
use thiserror::Error;

use super::{Difference, Outcome, TableResult, caught_up::{CaughtUp, NotCaughtUp}};

/// How often the whole table is compared again when keys are in the lake that the source does not have.
const PASSES_MAX: usize = 3;
/// How often a row must be found different while the source stood still, so that a value that went and came back
/// between two readings is not taken for a difference.
const STRIKES: u8 = 2;
/// A key list is read again from the source up to this size; beyond it the whole table is compared again.
const KEYS_MAX: usize = 20_000;

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
    for pass in 0..PASSES_MAX {
        match one_pass(sides, caught_up, &mut result).await? {
            Pass::Settled => break,
            Pass::Again if pass + 1 < PASSES_MAX && Instant::now() < sides.deadline => {}
            Pass::Again => {
                if result.outcome == Outcome::Equal {
                    result.outcome = Outcome::not_proved("its rows change faster than they can be compared");
                }
                break;
            }
        }
    }
    Ok(result)
}

enum Pass {
    Settled,
    Again,
}

struct Walk {
    rows: u64,
    seen: HashSet<u128>,
    differing: HashMap<u128, Suspect>,
    high: BinlogPlace,
    gtid_set: String,
}

async fn one_pass(
    sides: &Sides<'_>,
    caught_up: &mut CaughtUp,
    result: &mut TableResult,
) -> Result<Pass, CompareError> {
    let mut source = SourceTable::open(sides.source, sides.table).await?;
    let schema = source.table().schema.clone();
    let columns: Vec<String> = schema.columns.iter().map(|column| column.name.clone()).collect();
    let key: Vec<String> = schema.key_columns().map(|column| column.name.clone()).collect();
    caught_up.with_source(sides.source, sides.lake, sides.table, sides.deadline).await?;
    let lake = digests(sides.table, sides.lake, &columns, &key).await?.unwrap_or_default();
    let mut walk = walk(&mut source, &lake).await?;
    result.rows_source = walk.rows;
    result.rows_lake = lake.len() as u64;
    result.outcome = Outcome::Equal;
    if lake.doubled > 0 {
        result.outcome = Outcome::Different(Difference::doubled(lake.doubled));
        return Ok(Pass::Settled);
    }

    let names = Names { columns: &columns, key: &key };
    if !walk.differing.is_empty() && (key.is_empty() || walk.differing.len() > KEYS_MAX) {
        let count = walk.differing.len() as u64;
        let values = first_values(sides, &names, &walk).await?;
        result.outcome = Outcome::Different(Difference::missing(count, values));
        return Ok(Pass::Again);
    }
    let mut difference: Option<Difference> = None;
    while !walk.differing.is_empty() && Instant::now() < sides.deadline {
        let found = recheck(sides, caught_up, &mut source, &names, &mut walk).await?;
        difference = match (difference, found) {
            (Some(known), Some(found)) => Some(Difference { count: known.count + found.count, ..known }),
            (known, found) => known.or(found),
        };
    }
    if let Some(difference) = difference {
        result.outcome = Outcome::Different(difference);
        return Ok(Pass::Settled);
    }
    if !walk.differing.is_empty() {
        result.outcome = Outcome::not_proved("its rows change faster than they can be compared");
        return Ok(Pass::Settled);
    }
    extra_keys(sides, caught_up, &names, &lake, &walk, result).await
}

struct Suspect {
    /// `None` in a table without a key.
    key: Option<KeyText>,
    strikes: u8,
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
                let suspect = Suspect { key: source.key_text(row), strikes: 0 };
                walk.differing.insert(row.key, suspect);
            }
        }
        walk.high = chunk.high;
        walk.gtid_set = chunk.gtid_set;
    }
    Ok(walk)
}

struct Names<'a> {
    columns: &'a [String],
    key: &'a [String],
}

/// Compares the differing keys again: at the source now, and in the lake once it has passed that moment. Keys that are
/// equal, or gone from both, are taken out; a difference that stood still for two readings is answered.
async fn recheck(
    sides: &Sides<'_>,
    caught_up: &mut CaughtUp,
    source: &mut SourceTable,
    names: &Names<'_>,
    walk: &mut Walk,
) -> Result<Option<Difference>, CompareError> {
    let texts: Vec<KeyText> = walk.differing.values().filter_map(|suspect| suspect.key.clone()).collect();
    let before = source.rows_by_key(&texts).await?;
    caught_up.past(sides, &before.high, &before.gtid_set).await?;
    let keys: HashSet<u128> = walk.differing.keys().copied().collect();
    let lake = rows_by_key(sides.table, sides.lake, names.columns, names.key, keys).await?;
    // A row that the source has changed meanwhile proves nothing; one that it has not must be in the lake.
    let after = source.rows_by_key(&texts).await?;
    let before: HashMap<u128, SourceRowValues> =
        before.rows.into_iter().map(|row| (row.key, row)).collect();
    let after: HashMap<u128, u128> = after.rows.iter().map(|row| (row.key, row.row)).collect();
    let mut different = None;
    let mut count = 0;
    walk.differing.retain(|key, suspect| {
        let source_row = before.get(key);
        if source_row.map(|row| &row.values) == lake.get(key) {
            return false;
        }
        let stood_still = source_row.map(|row| row.row) == after.get(key).copied();
        if !stood_still {
            suspect.strikes = 0;
            return true;
        }
        // A history table keeps what the source purged.
        if sides.mode == Mode::History && source_row.is_none() {
            return false;
        }
        suspect.strikes += 1;
        if suspect.strikes < STRIKES {
            return true;
        }
        count += 1;
        different.get_or_insert_with(|| {
            Difference::between(names.columns, names.key, source_row.map(|r| &r.values), lake.get(key))
        });
        false
    });
    Ok(different.map(|difference| Difference { count, ..difference }))
}

/// Keys that the lake has and the source's walk did not show. In a history table they are purged rows. In a state table
/// they must vanish once the lake has passed the walk.
async fn extra_keys(
    sides: &Sides<'_>,
    caught_up: &mut CaughtUp,
    names: &Names<'_>,
    lake: &LakeRows,
    walk: &Walk,
    result: &mut TableResult,
) -> Result<Pass, CompareError> {
    let extra: HashSet<u128> =
        lake.iter().map(|(key, _)| key).filter(|key| !walk.seen.contains(key)).collect();
    if sides.mode == Mode::History {
        result.purged = extra.len() as u64;
        return Ok(Pass::Settled);
    }
    if extra.is_empty() {
        return Ok(Pass::Settled);
    }
    caught_up.past(sides, &walk.high, &walk.gtid_set).await?;
    let left = rows_by_key(sides.table, sides.lake, names.columns, names.key, extra).await?;
    if left.is_empty() {
        return Ok(Pass::Settled);
    }
    let row = left.values().min();
    let difference = Difference::between(names.columns, names.key, None, row);
    result.outcome = Outcome::Different(Difference { count: left.len() as u64, ..difference });
    // The rows may have been inserted since the walk: the next pass sees them at the source.
    Ok(Pass::Again)
}

async fn first_values(
    sides: &Sides<'_>,
    names: &Names<'_>,
    walk: &Walk,
) -> Result<String, CompareError> {
    let Some((key, suspect)) = walk.differing.iter().next() else { return Ok(String::new()) };
    let lake = rows_by_key(sides.table, sides.lake, names.columns, names.key, HashSet::from([*key])).await?;
    let what = if lake.contains_key(key) { "differs in the lake" } else { "is not in the lake" };
    Ok(match &suspect.key {
        Some(text) => format!("the row with key {} {what}", text.join(", ")),
        None => format!("a row {what}"),
    })
}
