//! One table without a key: every row of the source must be in the lake, as often as the source has it. The lake only
//! grows, so that it may hold more: rows that were changed or purged since.

use std::{collections::HashMap, time::Instant};

use cdc_reader::source_digest::SourceTable;
use schemas::avro_schema::{AvroOptions, column_field};
use sink_lake::{LakeRows, digests};

use super::{
    Outcome, TableResult,
    caught_up::CaughtUp,
    compare::{CompareError, Sides},
    difference::Difference,
    recheck::STRIKES,
};

/// Compares one table. The walk comes first here: whatever it saw is in a lake that has passed its end.
pub async fn compare_keyless(
    sides: &Sides<'_>,
    caught_up: &mut CaughtUp,
) -> Result<TableResult, CompareError> {
    let mut result = TableResult::new(sides.table, sides.mode);
    for strike in 1..=STRIKES {
        let mut source = SourceTable::open(sides.source, sides.table).await?;
        let schema = source.table().schema.clone();
        let options = AvroOptions { debezium_compat: sides.source.debezium_compat };
        let name = |column| column_field(column, options).into_owned();
        let columns: Vec<String> = schema.columns.iter().map(name).collect();
        caught_up.with_source(sides).await?;
        let mut wanted: HashMap<u128, u64> = HashMap::new();
        result.rows_source = 0;
        while let Some(chunk) = source.next_chunk().await? {
            for row in &chunk.rows {
                *wanted.entry(row.row).or_default() += 1;
            }
            result.rows_source += chunk.rows.len() as u64;
            caught_up.past(sides, &chunk.high, &chunk.gtid_set).await?;
        }
        let lake = digests(sides.table, sides.lake, &columns, &[]).await?.unwrap_or_default();
        result.rows_lake = lake.len() as u64;
        let missing = missing(wanted, &lake);
        result.outcome = match (lake.doubled, missing) {
            (0, 0) => Outcome::Equal,
            (0, count) => Outcome::Different(Difference::missing(count)),
            (doubled, _) => Outcome::Different(Difference::doubled(doubled)),
        };
        if missing == 0 || strike == STRIKES || Instant::now() >= sides.deadline {
            break;
        }
    }
    let kept = result.rows_lake.saturating_sub(result.rows_source);
    result.purged = if result.is_equal() { kept } else { 0 };
    Ok(result)
}

/// How many rows of the source the lake does not have.
fn missing(mut wanted: HashMap<u128, u64>, lake: &LakeRows) -> u64 {
    for (row, _) in lake.iter() {
        if let Some(count) = wanted.get_mut(&row) {
            *count = count.saturating_sub(1);
        }
    }
    wanted.values().sum()
}
