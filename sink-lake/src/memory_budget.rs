//! Counts the bytes that wait in the sink, over all tables and per table, and says who has to wait.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The bytes of all tables.
#[derive(Debug)]
pub struct MemoryBudget {
    bytes_max: usize,
    bytes: AtomicUsize,
    tables: AtomicUsize,
}

/// The bytes of one table, queued or buffered. Dropping it gives them back.
#[derive(Debug)]
pub struct TableMemory {
    budget: Arc<MemoryBudget>,
    bytes: AtomicUsize,
}

impl MemoryBudget {
    /// A budget of `bytes_max` for all tables.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, bytes: AtomicUsize::new(0), tables: AtomicUsize::new(0) })
    }

    /// Adds a table.
    pub fn table(self: &Arc<Self>) -> Arc<TableMemory> {
        self.tables.fetch_add(1, Ordering::Relaxed);
        Arc::new(TableMemory { budget: Arc::clone(self), bytes: AtomicUsize::new(0) })
    }

    fn even_share(&self) -> usize {
        self.bytes_max / self.tables.load(Ordering::Relaxed).max(1)
    }
}

impl TableMemory {
    /// Counts bytes that came in.
    pub fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.budget.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that are gone.
    pub fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.budget.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// What the table holds.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether reading the table has to wait: it holds half of all memory, or all memory is used and it holds its share.
    pub fn must_wait(&self) -> bool {
        let (mine, all) = (self.bytes(), self.budget.bytes.load(Ordering::Relaxed));
        mine >= self.budget.bytes_max / 2
            || (all >= self.budget.bytes_max && mine >= self.budget.even_share() / 2)
    }

    /// Whether the table should commit early to give memory back.
    pub fn is_short(&self) -> bool {
        let (mine, all) = (self.bytes(), self.budget.bytes.load(Ordering::Relaxed));
        mine >= self.budget.bytes_max / 4
            || (all >= self.budget.bytes_max / 4 * 3 && mine >= self.budget.even_share() / 2)
    }
}

impl Drop for TableMemory {
    fn drop(&mut self) {
        self.budget.bytes.fetch_sub(self.bytes(), Ordering::Relaxed);
        self.budget.tables.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_table_waits_and_a_small_one_goes_on() {
        let budget = MemoryBudget::new(1000);
        let (large, small) = (budget.table(), budget.table());
        large.add(499);
        small.add(10);
        assert!(!large.must_wait() && large.is_short());
        large.add(600);
        assert!(large.must_wait() && !small.must_wait() && !small.is_short());
        large.remove(1099);
        assert!(!large.must_wait());
        drop(large);
        assert_eq!(budget.bytes.load(Ordering::Relaxed), 10);
    }
}
