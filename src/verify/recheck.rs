//! Rows that differed, looked at again and again until each is found equal, or different while it stood still.
//!
//! A round reads the rows at the source, waits until the lake has passed that moment, reads them in the lake, and reads
//! them at the source once more; while it waits it goes on reading the source. The lake then holds some state that the
//! source had in this round: a row that equals any of the round's readings is proved, and a lake that stayed behind
//! shows, because its row is of before the round. A row that the source did not change in the round must be equal; it
//! is only called different after several rounds, so that a value that came and went between two readings is not taken
//! for a difference.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use cdc_reader::{
    snapshot::chunk_plan::KeyText,
    source_digest::{SourceRowValues, SourceTable},
};
use schemas::row_digest::row_digest;
use sink_lake::{CanonicalRow, Mode, rows_by_key};

use super::{
    caught_up::CaughtUp,
    compare::{CompareError, Sides},
    difference::Difference,
};

/// Rounds in which a row must be found different.
pub const STRIKES: u8 = 2;
/// Rows of a round; their values are in memory.
const ROWS_MAX: usize = 5_000;
/// With more rows than this, the source is only read at both ends of a round.
const WATCHED_MAX: usize = 500;
/// A row that changes much faster than this is rarely caught.
const WATCH_INTERVAL: Duration = Duration::from_millis(40);

/// A row that differed.
pub struct Suspect {
    /// Its digest at the source when it was found.
    pub row: u128,
    /// Its key; `None` when the source cannot be asked for it.
    pub key: Option<KeyText>,
    /// Rounds in which it was different and stood still.
    pub strikes: u8,
}

/// The table's columns and key columns.
pub struct Names<'a> {
    pub columns: &'a [String],
    pub key: &'a [String],
}

/// What the source had in one round, by key: each state once, in order; `None` where there was no row.
struct States {
    by_key: HashMap<u128, Vec<Option<u128>>>,
}

impl States {
    fn new(keys: &HashSet<u128>, rows: &[SourceRowValues]) -> Self {
        let by_key = keys.iter().map(|key| (*key, Vec::new())).collect();
        let mut states = Self { by_key };
        states.add(rows);
        states
    }

    fn add(&mut self, rows: &[SourceRowValues]) {
        let now: HashMap<u128, u128> = rows.iter().map(|row| (row.key, row.row)).collect();
        for (key, states) in &mut self.by_key {
            let state = now.get(key).copied();
            if states.last() != Some(&state) {
                states.push(state);
            }
        }
    }

    fn had(&self, key: u128, state: Option<u128>) -> bool {
        self.by_key.get(&key).is_some_and(|states| states.contains(&state))
    }

    fn stood_still(&self, key: u128) -> bool {
        self.by_key.get(&key).is_some_and(|states| states.len() == 1)
    }
}

/// One round. Rows that are proved are taken out; a difference is answered once a row has its strikes.
pub async fn recheck(
    sides: &Sides<'_>,
    caught_up: &mut CaughtUp,
    source: &mut SourceTable,
    names: &Names<'_>,
    differing: &mut HashMap<u128, Suspect>,
) -> Result<Option<Difference>, CompareError> {
    let chosen = choose(differing);
    let texts: Vec<KeyText> = chosen
        .iter()
        .filter_map(|key| differing.get(key).and_then(|suspect| suspect.key.clone()))
        .collect();
    let before = source.rows_by_key(&texts).await?;
    let mut states = States::new(&chosen, &before.rows);
    {
        let mut passed = std::pin::pin!(caught_up.past(sides, &before.high, &before.gtid_set));
        loop {
            tokio::select! {
                passed = &mut passed => break passed?,
                () = tokio::time::sleep(WATCH_INTERVAL), if texts.len() <= WATCHED_MAX => {}
            }
            states.add(&source.rows_by_key(&texts).await?.rows);
        }
    }
    let lake =
        rows_by_key(sides.table, sides.lake, names.columns, names.key, chosen.clone()).await?;
    states.add(&source.rows_by_key(&texts).await?.rows);

    let different = judge(differing, &states, &lake, sides.mode);
    let Some(first) = different.iter().min() else { return Ok(None) };
    let source_row = before.rows.iter().find(|row| row.key == *first).map(|row| &row.values);
    let difference = Difference::between(names.columns, names.key, source_row, lake.get(first));
    Ok(Some(Difference { count: different.len() as u64, ..difference }))
}

/// The rows of the next round: those that were found different already come first.
fn choose(differing: &HashMap<u128, Suspect>) -> HashSet<u128> {
    let readable = || differing.iter().filter(|(_, suspect)| suspect.key.is_some());
    let struck = readable().filter(|(_, suspect)| suspect.strikes > 0);
    let fresh = readable().filter(|(_, suspect)| suspect.strikes == 0);
    struck.chain(fresh).map(|(key, _)| *key).take(ROWS_MAX).collect()
}

/// Takes out what is proved, counts strikes, and answers the keys that have enough of them.
fn judge(
    differing: &mut HashMap<u128, Suspect>,
    states: &States,
    lake: &HashMap<u128, CanonicalRow>,
    mode: Mode,
) -> Vec<u128> {
    let mut different = Vec::new();
    differing.retain(|key, suspect| {
        if !states.by_key.contains_key(key) {
            return true;
        }
        let in_lake = lake.get(key).map(|row| row_digest(row.iter().map(|v| v.as_deref())));
        // A history table keeps what the source purged.
        let purged = mode == Mode::History && states.had(*key, None);
        if purged || states.had(*key, in_lake) {
            return false;
        }
        suspect.strikes = if states.stood_still(*key) { suspect.strikes + 1 } else { 0 };
        if suspect.strikes >= STRIKES {
            different.push(*key);
        }
        true
    });
    different
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspect(strikes: u8) -> Suspect {
        Suspect { row: 0, key: Some(vec!["1".into()]), strikes }
    }

    fn lake_row(text: &str) -> CanonicalRow {
        vec![Some(text.as_bytes().to_vec())]
    }

    fn source_row(key: u128, text: &str) -> SourceRowValues {
        let values = lake_row(text);
        let row = row_digest(values.iter().map(|v| v.as_deref()));
        SourceRowValues { key, row, values }
    }

    /// One round over key 1: what the source had, what the lake has; whether it is proved, different, or neither.
    fn round(source: &[Option<&str>], lake: Option<&str>, mode: Mode, strikes: u8) -> &'static str {
        let rows = |state: &Option<&str>| -> Vec<_> {
            state.iter().map(|text| source_row(1, text)).collect()
        };
        let mut states = States::new(&HashSet::from([1]), &rows(&source[0]));
        source[1..].iter().for_each(|state| states.add(&rows(state)));
        let lake = lake.iter().map(|text| (1, lake_row(text))).collect();
        let mut differing = HashMap::from([(1, suspect(strikes))]);
        let different = judge(&mut differing, &states, &lake, mode);
        match (differing.get(&1).map(|s| s.strikes), different.is_empty()) {
            (None, _) => "proved",
            (Some(_), false) => "different",
            (Some(0), true) => "moving",
            (Some(_), true) => "struck",
        }
    }

    #[test]
    fn rounds() {
        let (a, b, c) = (Some("a"), Some("b"), Some("c"));
        use Mode::{History, State};
        for (source, lake, mode, strikes, expected) in [
            (&[a, a][..], a, State, 0, "proved"),
            (&[a, b, c], b, State, 0, "proved"),
            (&[a, b, c], Some("old"), State, 1, "moving"),
            (&[a, a], b, State, 0, "struck"),
            (&[a, a], b, State, 1, "different"),
            (&[a, a], None, State, 1, "different"),
            (&[None, None], None, State, 0, "proved"),
            (&[None, None], a, State, 1, "different"),
            (&[a, None], None, State, 0, "proved"),
            (&[None, None], a, History, 1, "proved"),
            (&[a, a], None, History, 1, "different"),
        ] {
            assert_eq!(
                round(source, lake, mode, strikes),
                expected,
                "{source:?} {lake:?} {mode:?}"
            );
        }
    }

    #[test]
    fn rows_that_were_found_different_are_read_again_first() {
        let mut differing: HashMap<u128, Suspect> =
            (0..ROWS_MAX as u128 * 2).map(|key| (key, suspect(0))).collect();
        differing.insert(u128::MAX, suspect(1));
        differing.insert(u128::MAX - 1, Suspect { row: 0, key: None, strikes: 1 });
        let chosen = choose(&differing);
        assert_eq!(chosen.len(), ROWS_MAX);
        assert!(chosen.contains(&u128::MAX) && !chosen.contains(&(u128::MAX - 1)));
    }
}
