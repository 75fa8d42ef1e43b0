//! Where each key's row is: key hash (128 bits) -> slot (32 bits) -> data file.
//!
//! A *slot* stands for a data file and outlives it: when a file is rewritten, its slot points to the new one, so rows
//! that only moved along need no update here. When files are folded together, their slots are redirected to one.
//!
//! The index is kept in memory, 20 bytes per key in a hash table filled to between 44 and 88 per cent: 24 to 48 bytes
//! per key, 350 MB for 10 million keys. It is rebuilt at start, and after another program's commit, from the key
//! columns of the data files alone.

mod rebuild;
mod slots;

use hashbrown::HashTable;

pub use rebuild::rebuild;
pub use slots::{SlotId, Slots};

use crate::key_hash::KeyHash;

/// Key hash to slot.
#[derive(Debug, Default)]
pub struct KeyIndex {
    table: HashTable<Entry>,
}

/// Without padding, which `(u128, u32)` would need.
#[derive(Clone, Copy, Debug)]
struct Entry {
    key: [u32; 4],
    slot: u32,
}

impl Entry {
    fn new(key: KeyHash, slot: SlotId) -> Self {
        let part = |i: u32| (key >> (32 * i)) as u32;
        Self { key: [part(0), part(1), part(2), part(3)], slot: slot.0 }
    }

    fn hash(&self) -> u64 {
        u64::from(self.key[1]) << 32 | u64::from(self.key[0])
    }
}

impl KeyIndex {
    /// Makes room for so many more keys.
    pub fn reserve(&mut self, keys: usize) {
        self.table.reserve(keys, Entry::hash);
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// The slot of a key's row.
    pub fn get(&self, key: KeyHash) -> Option<SlotId> {
        let wanted = Entry::new(key, SlotId(0));
        let found = self.table.find(wanted.hash(), |entry| entry.key == wanted.key);
        found.map(|entry| SlotId(entry.slot))
    }

    /// Sets a key's slot; returns the one before.
    pub fn insert(&mut self, key: KeyHash, slot: SlotId) -> Option<SlotId> {
        let new = Entry::new(key, slot);
        match self.table.find_mut(new.hash(), |entry| entry.key == new.key) {
            Some(entry) => Some(SlotId(std::mem::replace(&mut entry.slot, slot.0))),
            None => {
                self.table.insert_unique(new.hash(), new, Entry::hash);
                None
            }
        }
    }

    /// Forgets a key.
    pub fn remove(&mut self, key: KeyHash) {
        let wanted = Entry::new(key, SlotId(0));
        if let Ok(entry) = self.table.find_entry(wanted.hash(), |entry| entry.key == wanted.key) {
            entry.remove();
        }
    }

    /// Forgets all keys and gives their memory back.
    pub fn clear(&mut self) {
        self.table = HashTable::new();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_entry_has_no_padding() {
        assert_eq!(size_of::<Entry>(), 20);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((0u128..40, prop::option::of(0u32..5)), 0..200)) {
            let mut index = KeyIndex::default();
            let mut model = HashMap::new();
            for (key, slot) in steps {
                // Keys that share their low half must not be taken for each other.
                let key = key << 64;
                match slot {
                    Some(slot) => prop_assert_eq!(index.insert(key, SlotId(slot)), model.insert(key, SlotId(slot))),
                    None => {
                        index.remove(key);
                        model.remove(&key);
                    }
                }
                prop_assert_eq!(index.get(key), model.get(&key).copied());
            }
            prop_assert_eq!(index.len(), model.len());
        }
    }
}
