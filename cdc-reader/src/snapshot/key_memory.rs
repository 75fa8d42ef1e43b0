//! The keys that the stream changed while tables are read: a set that may hold far more than fits into memory. Pure but
//! for temporary files.
//!
//! New keys go into a hash set. When it is full, it is sorted and written as a *run*: a file without a name, which is
//! gone when this process is. Four runs of one level are merged into one of the next, so that there are few, however
//! many keys there are, and each key is written anew only a few times. Of each run a few keys are in memory, so that a
//! question reads one page of it; questions are asked in the keys' order, many at once.
//!
//! One set serves all tables: neither memory nor the number of open files grows with the number of tables. A key is 128
//! bits: 32 of the table's number, so that a table's keys lie together in each run and can be left out of the next
//! merge once nobody asks for them, and 96 of the key's digest.

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    hash::{BuildHasherDefault, Hasher},
    io::{self, BufReader, BufWriter, Read, Seek, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// Keys in the hash set: just what 2^18 of its places hold, 4.5 MB.
const KEYS_IN_MEMORY: usize = (1 << 18) / 8 * 7;
/// Runs that are merged into one.
const RUNS_PER_LEVEL: usize = 4;
const KEY_BYTES: usize = 16;
const PAGE_KEYS: u64 = 256;
/// Keys in memory of each run at most: 512 KB.
const FENCES_MAX: usize = 1 << 15;

/// What the memory may take.
#[derive(Clone, Copy, Debug)]
struct Limits {
    keys: usize,
    fences: usize,
}

/// The set of the changed keys of all tables.
#[derive(Debug)]
pub struct KeyMemory {
    folder: PathBuf,
    limits: Limits,
    recent: HashSet<u128, BuildHasherDefault<KeyHasher>>,
    /// The older and larger first.
    runs: Vec<Run>,
    /// Tables nobody asks for any more, whose keys may still be in runs.
    forgotten: BTreeSet<u32>,
}

impl KeyMemory {
    /// An empty set, whose files will be in `folder`.
    pub fn new(folder: &Path) -> Self {
        Self::with_limits(folder, Limits { keys: KEYS_IN_MEMORY, fences: FENCES_MAX })
    }

    fn with_limits(folder: &Path, limits: Limits) -> Self {
        Self {
            folder: folder.to_owned(),
            limits,
            recent: HashSet::default(),
            runs: Vec::new(),
            forgotten: BTreeSet::new(),
        }
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Adds a key of a table by its digest.
    pub fn insert(&mut self, table: u32, digest: u128) -> io::Result<()> {
        self.recent.insert(key_of(table, digest));
        if self.recent.len() >= self.limits.keys { self.spill() } else { Ok(()) }
    }

    /// Whether a key is in the set.
    pub fn contains(&self, table: u32, digest: u128) -> io::Result<bool> {
        Ok(self.contained(table, &[digest])?[0])
    }

    /// For each of a table's keys whether it is in the set.
    pub fn contained(&self, table: u32, digests: &[u128]) -> io::Result<Vec<bool>> {
        let mut found = vec![false; digests.len()];
        let mut wanted = Vec::new();
        for (i, &digest) in digests.iter().enumerate() {
            let key = key_of(table, digest);
            found[i] = self.recent.contains(&key);
            if !found[i] && !self.runs.is_empty() {
                wanted.push((key, i));
            }
        }
        wanted.sort_unstable();
        for run in &self.runs {
            let mut page = Page::default();
            for &(key, i) in &wanted {
                if !found[i] {
                    found[i] = run.contains(key, &mut page)?;
                }
            }
        }
        Ok(found)
    }

    /// Forgets a table's keys. Its number must not be used again.
    pub fn forget(&mut self, table: u32) {
        self.recent.retain(|&key| table_of(key) != table);
        if !self.runs.is_empty() {
            self.forgotten.insert(table);
        }
    }

    /// Forgets all keys.
    pub fn clear(&mut self) {
        *self = Self::with_limits(&self.folder, self.limits);
    }

    /// How many keys there are; one that was added again after it went into a run may count twice.
    pub fn len(&self) -> u64 {
        self.recent.len() as u64 + self.runs.iter().map(|run| run.keys).sum::<u64>()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes what is in memory into a run, and merges runs while there are enough of one level.
    fn spill(&mut self) -> io::Result<()> {
        let mut keys: Vec<u128> = self.recent.iter().copied().collect();
        keys.sort_unstable();
        let mut writer = RunWriter::new(&self.folder, self.limits.fences)?;
        for key in keys {
            writer.push(key)?;
        }
        self.runs.push(writer.finish(0)?);
        self.recent.clear();
        while let Some(first) = self.runs.len().checked_sub(RUNS_PER_LEVEL) {
            let level = self.runs[first].level;
            if self.runs.last().is_none_or(|last| last.level != level) {
                break;
            }
            let merged = self.merged(first)?;
            self.runs.truncate(first);
            self.runs.push(merged);
        }
        Ok(())
    }

    /// The runs from `first` on as one.
    fn merged(&self, first: usize) -> io::Result<Run> {
        let runs = &self.runs[first..];
        let mut cursors = runs.iter().map(Cursor::new).collect::<io::Result<Vec<_>>>()?;
        let mut writer = RunWriter::new(&self.folder, self.limits.fences)?;
        while let Some(key) = cursors.iter().filter_map(|cursor| cursor.key).min() {
            for cursor in cursors.iter_mut().filter(|cursor| cursor.key == Some(key)) {
                cursor.advance()?;
            }
            if !self.forgotten.contains(&table_of(key)) {
                writer.push(key)?;
            }
        }
        let level = runs.iter().map(|run| run.level + 1).max().unwrap_or_default();
        writer.finish(level)
    }
}

fn key_of(table: u32, digest: u128) -> u128 {
    u128::from(table) << 96 | digest >> 32
}

fn table_of(key: u128) -> u32 {
    (key >> 96) as u32
}

/// A digest is as good as a hash. The same key in two tables has the same digest.
#[derive(Debug, Default)]
struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u128(u128::from(byte)));
    }

    fn write_u128(&mut self, key: u128) {
        self.0 ^= key as u64 ^ u64::from(table_of(key)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Sorted keys in a file, each once.
#[derive(Debug)]
struct Run {
    level: u32,
    file: File,
    keys: u64,
    /// The first key of every `stride` pages.
    fences: Vec<u128>,
    stride: u64,
}

/// The page that was read last.
#[derive(Debug, Default)]
struct Page {
    number: Option<u64>,
    bytes: Vec<u8>,
}

impl Run {
    fn contains(&self, key: u128, page: &mut Page) -> io::Result<bool> {
        let after = self.fences.partition_point(|&fence| fence <= key) as u64;
        let Some(group) = after.checked_sub(1) else { return Ok(false) };
        // The last page whose first key is not above `key`.
        let pages = self.keys.div_ceil(PAGE_KEYS);
        let (mut low, mut high) = (group * self.stride, (after * self.stride).min(pages));
        while high - low > 1 {
            let middle = low.midpoint(high);
            let mut first = [0; KEY_BYTES];
            self.file.read_exact_at(&mut first, middle * PAGE_KEYS * KEY_BYTES as u64)?;
            if u128::from_le_bytes(first) <= key {
                low = middle;
            } else {
                high = middle;
            }
        }
        if page.number != Some(low) {
            let keys = PAGE_KEYS.min(self.keys - low * PAGE_KEYS);
            page.number = None;
            page.bytes.resize(keys as usize * KEY_BYTES, 0);
            self.file.read_exact_at(&mut page.bytes, low * PAGE_KEYS * KEY_BYTES as u64)?;
            page.number = Some(low);
        }
        let (keys, _) = page.bytes.as_chunks::<KEY_BYTES>();
        Ok(keys.binary_search_by_key(&key, |bytes| u128::from_le_bytes(*bytes)).is_ok())
    }
}

struct RunWriter {
    file: BufWriter<File>,
    keys: u64,
    fences: Vec<u128>,
    fences_max: usize,
    stride: u64,
}

impl RunWriter {
    fn new(folder: &Path, fences_max: usize) -> io::Result<Self> {
        let file = BufWriter::with_capacity(1 << 18, tempfile::tempfile_in(folder)?);
        Ok(Self { file, keys: 0, fences: Vec::new(), fences_max, stride: 1 })
    }

    fn push(&mut self, key: u128) -> io::Result<()> {
        if self.keys.is_multiple_of(self.stride * PAGE_KEYS) {
            if self.fences.len() == self.fences_max {
                let mut number = 0;
                self.fences.retain(|_| {
                    number += 1;
                    number % 2 == 1
                });
                self.stride *= 2;
            }
            if self.keys.is_multiple_of(self.stride * PAGE_KEYS) {
                self.fences.push(key);
            }
        }
        self.keys += 1;
        self.file.write_all(&key.to_le_bytes())
    }

    fn finish(self, level: u32) -> io::Result<Run> {
        let file = self.file.into_inner()?;
        Ok(Run { level, file, keys: self.keys, fences: self.fences, stride: self.stride })
    }
}

/// A run that is read from its beginning.
struct Cursor<'a> {
    file: BufReader<&'a File>,
    left: u64,
    key: Option<u128>,
}

impl<'a> Cursor<'a> {
    fn new(run: &'a Run) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(1 << 16, &run.file);
        file.rewind()?;
        let mut cursor = Self { file, left: run.keys, key: None };
        cursor.advance()?;
        Ok(cursor)
    }

    fn advance(&mut self) -> io::Result<()> {
        self.key = None;
        if self.left > 0 {
            let mut bytes = [0; KEY_BYTES];
            self.file.read_exact(&mut bytes)?;
            self.key = Some(u128::from_le_bytes(bytes));
            self.left -= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schemas::row_digest::row_digest;

    use super::*;

    fn digest(number: u64) -> u128 {
        row_digest([Some(&number.to_le_bytes()[..])])
    }

    /// With limits so small that every part of it is used by few keys.
    fn small(keys: usize, fences: usize) -> KeyMemory {
        KeyMemory::with_limits(&std::env::temp_dir(), Limits { keys, fences })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn it_holds_what_a_hash_set_holds(
            keys in 1usize..900,
            fences in 2usize..6,
            steps in prop::collection::vec((0u32..3, 0u64..4000, 1u64..1500), 1..40),
        ) {
            let mut memory = small(keys, fences);
            let mut oracle = HashSet::new();
            for &(table, from, count) in &steps {
                for number in from..from + count {
                    memory.insert(table, digest(number)).expect("written");
                    oracle.insert((table, number));
                }
            }
            let asked: Vec<u64> = (0..6000).rev().collect();
            let digests: Vec<u128> = asked.iter().map(|&number| digest(number)).collect();
            for table in 0..4 {
                let found = memory.contained(table, &digests).expect("read");
                for (number, found) in asked.iter().zip(found) {
                    prop_assert_eq!(found, oracle.contains(&(table, *number)));
                }
            }
            prop_assert!(memory.len() >= oracle.len() as u64);
            prop_assert!(memory.recent.len() < keys);
            prop_assert!(memory.runs.iter().all(|run| run.fences.len() <= fences));
        }
    }

    #[test]
    fn digests_that_are_not_spread_are_found_all_the_same() {
        let mut memory = small(100, 2);
        for number in 0..5000u128 {
            memory.insert(0, number << 33).expect("written");
        }
        let digests: Vec<u128> = (0..10_002).map(|number| number << 32).collect();
        let found = memory.contained(0, &digests).expect("read");
        for (number, found) in found.into_iter().enumerate() {
            assert_eq!(found, number % 2 == 0 && number < 10_000, "{number}");
        }
    }

    #[test]
    fn forgotten_table_leaves_its_keys_out_of_the_next_merge() {
        let mut memory = small(1000, 8);
        for number in 0..3500 {
            memory.insert(1, digest(number)).expect("written");
        }
        memory.forget(1);
        for number in 0..4000 {
            memory.insert(2, digest(number)).expect("written");
        }
        assert!(memory.contained(2, &[digest(0), digest(3999)]).expect("read").iter().all(|f| *f));
        assert!(memory.len() < 7000, "{}", memory.len());
        assert!(!memory.contains(1, digest(3400)).expect("read"), "it was in memory");
        memory.clear();
        assert!(memory.is_empty() && !memory.contains(2, digest(1)).expect("read"));
    }

    #[test]
    fn a_folder_that_is_not_there_is_told() {
        let mut memory =
            KeyMemory::with_limits(Path::new("/nowhere/at/all"), Limits { keys: 2, fences: 2 });
        memory.insert(0, digest(0)).expect("in memory");
        memory.insert(0, digest(1)).expect_err("no folder");
        assert!(memory.contains(0, digest(0)).expect("still in memory"));
    }

    #[test]
    fn five_million_keys_take_little_memory_and_few_files() {
        const KEYS: u64 = 5_000_000;
        let mut memory = KeyMemory::new(&std::env::temp_dir());
        for number in 0..KEYS {
            memory.insert(7, digest(number)).expect("written");
            // Changed again and again: it counts once per run.
            if number % 8 == 0 {
                memory.insert(7, digest(number % 16)).expect("written");
            }
        }
        let in_memory = memory.recent.capacity() * 17
            + memory.runs.iter().map(|run| run.fences.capacity() * KEY_BYTES).sum::<usize>();
        assert!(in_memory < 6 << 20, "{in_memory} bytes");
        assert!(memory.runs.len() <= 9, "{} runs", memory.runs.len());
        assert!(memory.len() < KEYS + 16 * 32, "{}", memory.len());
        // A chunk's keys, of which every second was changed.
        let digests: Vec<u128> = (KEYS - 5000..KEYS + 5000).map(digest).collect();
        let found = memory.contained(7, &digests).expect("read");
        assert!(found[..5000].iter().all(|found| *found));
        assert!(!found[5000..].iter().any(|found| *found));
    }
}
