//! Memory of written chunks for the next ones: new memory of that size costs the system a page fault for each 4 KB.

use std::sync::{Arc, Mutex, PoisonError};

/// So many are kept; a reader fills one while another is written.
const KEPT_MAX: usize = 2;
/// Larger ones are given back to the system.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Shared by the readers of a source, who take, and its encode thread, which gives.
#[derive(Clone, Debug, Default)]
pub struct ChunkBuffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl ChunkBuffers {
    /// Empty, with memory if there is any.
    pub fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    /// Takes memory back.
    pub fn give(&self, mut buffer: Vec<u8>) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < KEPT_MAX && buffer.capacity() <= KEPT_BYTES_MAX {
            buffer.clear();
            kept.push(buffer);
        }
    }

    /// Nothing is to be read for now.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_buffers_of_usual_size_are_kept() {
        let buffers = ChunkBuffers::default();
        assert_eq!(buffers.take().capacity(), 0);
        for size in [KEPT_BYTES_MAX + 1, 100, 200, 300] {
            let mut buffer = Vec::with_capacity(size);
            buffer.push(1);
            buffers.give(buffer);
        }
        let kept: Vec<_> = (0..3).map(|_| buffers.take()).collect();
        assert!(kept.iter().all(Vec::is_empty));
        let large = kept.iter().filter(|buffer| (100..300).contains(&buffer.capacity())).count();
        assert_eq!((large, kept[2].capacity()), (2, 0));
        buffers.give(Vec::with_capacity(10));
        buffers.clear();
        assert_eq!(buffers.take().capacity(), 0);
    }
}
