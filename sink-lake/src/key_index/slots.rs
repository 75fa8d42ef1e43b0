//! The slots of a table: which data file each stands for now.

use crate::delta::data_file::DataFile;

/// A slot's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// All slots.
#[derive(Debug, Default)]
pub struct Slots {
    slots: Vec<Slot>,
}

#[derive(Debug)]
enum Slot {
    File(DataFile),
    /// The rows are in another slot's file.
    Moved(SlotId),
    /// No rows are left.
    Empty,
}

impl Slots {
    /// Adds a slot for a file.
    pub fn add(&mut self, file: DataFile) -> SlotId {
        self.slots.push(Slot::File(file));
        SlotId((self.slots.len() - 1) as u32)
    }

    /// The slot that holds this slot's rows now.
    pub fn resolve(&self, mut slot: SlotId) -> SlotId {
        // Redirections point to slots that are not redirected, or were not at that time; there are no circles.
        while let Some(Slot::Moved(target)) = self.slots.get(slot.0 as usize) {
            slot = *target;
        }
        slot
    }

    /// A slot's file.
    pub fn file(&self, slot: SlotId) -> Option<&DataFile> {
        match self.slots.get(self.resolve(slot).0 as usize) {
            Some(Slot::File(file)) => Some(file),
            _ => None,
        }
    }

    /// All files with their slots, oldest slot first.
    pub fn files(&self) -> impl Iterator<Item = (SlotId, &DataFile)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| match slot {
            Slot::File(file) => Some((SlotId(i as u32), file)),
            _ => None,
        })
    }

    /// Puts a new file in the place of these slots' files; `None` when no rows are left. Returns the slot.
    pub fn replace(&mut self, inputs: &[SlotId], file: Option<DataFile>) -> Option<SlotId> {
        let Some((&target, others)) = inputs.split_first() else {
            return file.map(|file| self.add(file));
        };
        self.slots[target.0 as usize] = file.map_or(Slot::Empty, Slot::File);
        for other in others {
            self.slots[other.0 as usize] = Slot::Moved(target);
        }
        if !others.is_empty() {
            self.shorten_paths();
        }
        Some(target)
    }

    /// Empties all slots.
    pub fn clear(&mut self) {
        self.slots.clear();
    }

    fn shorten_paths(&mut self) {
        for i in 0..self.slots.len() {
            if let Slot::Moved(target) = self.slots[i] {
                self.slots[i] = Slot::Moved(self.resolve(target));
            }
        }
    }
}
