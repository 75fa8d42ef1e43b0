//! Sets of GTIDs as MySQL writes them: `uuid[:tag]:first-last[:...]`, several separated by commas (manual 19.1.3.1;
//! tags since 8.3). Intervals are kept sorted, disjoint and merged.

use std::{collections::BTreeMap, fmt, str::FromStr};

use thiserror::Error;

/// Who made a transaction: the server's UUID in lower case, and the tag or "".
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// 36 characters, lower case.
    pub uuid: String,
    /// The tag in lower case; empty for an untagged GTID.
    pub tag: String,
}

/// A set of GTIDs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtidSet {
    // Inclusive intervals, sorted, disjoint, not touching.
    intervals: BTreeMap<Origin, Vec<(u64, u64)>>,
}

/// A text that is not a GTID set.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("'{text}' is not a GTID set: {reason}")]
pub struct InvalidGtidSet {
    /// The text.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl GtidSet {
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// Adds one transaction.
    pub fn insert(&mut self, origin: &Origin, number: u64) {
        match self.intervals.get_mut(origin) {
            // The usual case, without an allocation: the next number of a known origin.
            Some(list) => match list.last_mut() {
                Some(last) if last.1.checked_add(1) == Some(number) => last.1 = number,
                _ => insert_interval(list, number, number),
            },
            None => {
                self.intervals.insert(origin.clone(), vec![(number, number)]);
            }
        }
    }

    /// Adds all transactions of another set.
    pub fn union(&mut self, other: &GtidSet) {
        for (origin, list) in &other.intervals {
            let mine = self.intervals.entry(origin.clone()).or_default();
            for &(first, last) in list {
                insert_interval(mine, first, last);
            }
        }
    }

    /// Whether the transaction is in the set.
    pub fn contains(&self, origin: &Origin, number: u64) -> bool {
        self.intervals.get(origin).is_some_and(|list| covers(list, number, number))
    }

    /// Whether every transaction of `other` is in this set.
    pub fn contains_set(&self, other: &GtidSet) -> bool {
        other.intervals.iter().all(|(origin, list)| {
            let mine = self.intervals.get(origin).map_or(&[][..], Vec::as_slice);
            list.iter().all(|&(first, last)| covers(mine, first, last))
        })
    }

    /// What is in this set and not in `other`.
    pub fn difference(&self, other: &GtidSet) -> GtidSet {
        let mut result = GtidSet::default();
        for (origin, list) in &self.intervals {
            let theirs = other.intervals.get(origin).map_or(&[][..], Vec::as_slice);
            let mut left = Vec::new();
            for &(mut first, last) in list {
                for &(from, to) in theirs {
                    if to < first || from > last {
                        continue;
                    }
                    if from > first {
                        left.push((first, from - 1));
                    }
                    first = to.saturating_add(1);
                }
                if first <= last {
                    left.push((first, last));
                }
            }
            if !left.is_empty() {
                result.intervals.insert(origin.clone(), left);
            }
        }
        result
    }

    /// Origins with their inclusive intervals, for the dump command.
    pub fn iter(&self) -> impl Iterator<Item = (&Origin, &[(u64, u64)])> {
        self.intervals.iter().map(|(origin, list)| (origin, list.as_slice()))
    }

    /// How many transactions are in the set.
    pub fn count(&self) -> u64 {
        self.intervals.values().flatten().map(|(first, last)| last - first + 1).sum()
    }
}

fn covers(list: &[(u64, u64)], first: u64, last: u64) -> bool {
    list.iter().any(|&(from, to)| from <= first && last <= to)
}

fn insert_interval(list: &mut Vec<(u64, u64)>, first: u64, last: u64) {
    let (mut first, mut last) = (first, last);
    // Everything that overlaps or touches the new interval is replaced by one.
    list.retain(|&(from, to)| {
        let apart = to.saturating_add(1) < first || from > last.saturating_add(1);
        if !apart {
            first = first.min(from);
            last = last.max(to);
        }
        apart
    });
    let at = list.partition_point(|&(from, _)| from < first);
    list.insert(at, (first, last));
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (origin, list)) in self.intervals.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(&origin.uuid)?;
            if !origin.tag.is_empty() {
                write!(f, ":{}", origin.tag)?;
            }
            for (first, last) in list {
                if first == last {
                    write!(f, ":{first}")?;
                } else {
                    write!(f, ":{first}-{last}")?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for GtidSet {
    type Err = InvalidGtidSet;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidGtidSet { text: text.chars().take(200).collect(), reason };
        let mut set = GtidSet::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut fields = part.split(':').map(str::trim);
            let uuid = fields.next().unwrap_or_default().to_ascii_lowercase();
            if uuid.len() != 36 || !uuid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
                return Err(invalid("each part starts with a UUID"));
            }
            let mut origin = Origin { uuid, tag: String::new() };
            for field in fields {
                if field.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
                    origin.tag = field.to_ascii_lowercase();
                    continue;
                }
                let (first, last) = field.split_once('-').unwrap_or((field, field));
                let number = |s: &str| s.trim().parse::<u64>().ok().filter(|&n| n > 0);
                match (number(first), number(last)) {
                    (Some(first), Some(last)) if first <= last && last < u64::MAX => {
                        insert_interval(
                            set.intervals.entry(origin.clone()).or_default(),
                            first,
                            last,
                        );
                    }
                    _ => return Err(invalid("an interval is first-last with 1 <= first <= last")),
                }
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(text: &str) -> GtidSet {
        text.parse().expect("valid")
    }

    #[test]
    fn text_is_merged_sorted_and_reads_back() {
        let parsed = set(&format!("{}:5-7:1-2:3, {A}:mine:4", A.to_uppercase()));
        assert_eq!(parsed.to_string(), format!("{A}:1-3:5-7,{A}:mine:4"));
        assert_eq!(set(&parsed.to_string()), parsed);
    }

    #[test]
    fn tag_makes_another_origin() {
        assert!(!set(&format!("{A}:1-9")).contains_set(&set(&format!("{A}:mine:4"))));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["x", &format!("{A}:0"), &format!("{A}:5-4"), &format!("{A}:1-"), "1:2:3"] {
            assert!(text.parse::<GtidSet>().is_err(), "{text}");
        }
    }

    fn model() -> impl Strategy<Value = BTreeSet<u64>> {
        proptest::collection::btree_set(1u64..40, 0..30)
    }

    fn from_model(numbers: &BTreeSet<u64>) -> GtidSet {
        let origin = Origin { uuid: A.into(), tag: String::new() };
        let mut set = GtidSet::default();
        for &number in numbers.iter().rev() {
            set.insert(&origin, number);
        }
        set
    }

    proptest! {
        #[test]
        fn set_algebra_is_that_of_sets(a in model(), b in model()) {
            let (x, y) = (from_model(&a), from_model(&b));
            let mut union = x.clone();
            union.union(&y);
            prop_assert_eq!(&union, &from_model(&(&a | &b)));
            prop_assert_eq!(x.difference(&y), from_model(&(&a - &b)));
            prop_assert_eq!(x.contains_set(&y), b.is_subset(&a));
            prop_assert_eq!(x.count(), a.len() as u64);
            prop_assert_eq!(set(&x.to_string()), x);
        }

        #[test]
        fn foreign_text_never_panics(text: String) {
            let _ = text.parse::<GtidSet>();
        }
    }
}
