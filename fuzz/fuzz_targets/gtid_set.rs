//! GTID sets as MySQL writes them, a line each: read, written, combined.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schemas::gtid_set::GtidSet;

fuzz_target!(|text: &str| {
    let sets: Vec<GtidSet> = text.lines().take(3).filter_map(|line| line.parse().ok()).collect();
    let mut all = GtidSet::default();
    for set in &sets {
        let reread: GtidSet = set.to_string().parse().expect("what is written can be read");
        assert_eq!(&reread, set);
        all.union(set);
    }
    for set in &sets {
        assert!(all.contains_set(set));
        let rest = all.difference(set);
        let mut whole = rest.clone();
        whole.union(set);
        assert_eq!(whole, all);
        assert!(set.difference(&all).is_empty());
        let _ = (set.count(), rest.count());
        for (origin, intervals) in set.iter() {
            for &(first, last) in intervals {
                assert!(
                    first <= last && set.contains(origin, first) && !rest.contains(origin, last)
                );
            }
        }
    }
});
