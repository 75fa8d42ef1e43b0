//! The memory that events travel in: chunks that go to the encode thread and come back, so that none is allocated
//! per event, and so that large ones do not pile up between the two.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::{
    flow::{Input, InputSender, SpentSender},
    mysql::wire::failure::WireFailure,
};

/// A chunk is handed on when it is this large, or when the socket is empty.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;
/// While more than this is on its way, no event above a chunk's size is read.
const LARGE_IN_FLIGHT_MAX: usize = 16 * 1024 * 1024;

/// The reader's end.
pub(super) struct Chunks {
    inbox: InputSender,
    spent: mpsc::Receiver<Vec<u8>>,
    /// What is filled now.
    current: Vec<u8>,
    spare: Vec<Vec<u8>>,
    /// The sizes of the chunks that are on their way; they come back in this order.
    sent: VecDeque<usize>,
    sent_bytes: usize,
}

/// Gives a chunk back after its events were taken. The memory of a large one is freed at once.
pub fn give_back(spent: &SpentSender, mut chunk: Vec<u8>) {
    chunk.clear();
    if chunk.capacity() > CHUNK_BYTES {
        chunk = Vec::new();
    }
    // The reader may be gone; and it has room for all that it sent.
    let _ = spent.try_send(chunk);
}

impl Chunks {
    pub(super) fn new(inbox: InputSender, spent: mpsc::Receiver<Vec<u8>>) -> Self {
        Self {
            inbox,
            spent,
            current: Vec::with_capacity(CHUNK_BYTES),
            spare: Vec::new(),
            sent: VecDeque::new(),
            sent_bytes: 0,
        }
    }

    /// The chunk to append an event of `bytes` to. Never more than a chunk's size, so it never grows.
    pub(super) fn room_for(&mut self, bytes: usize) -> Result<&mut Vec<u8>, WireFailure> {
        if self.current.len() + bytes > CHUNK_BYTES {
            self.flush()?;
        }
        Ok(&mut self.current)
    }

    /// Whether events wait to be handed on.
    pub(super) fn is_filling(&self) -> bool {
        !self.current.is_empty()
    }

    /// Hands on what is there.
    pub(super) fn flush(&mut self) -> Result<(), WireFailure> {
        if self.current.is_empty() {
            return Ok(());
        }
        let next = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES));
        let full = std::mem::replace(&mut self.current, next);
        self.send(full)
    }

    /// Memory for one large event, once there is not too much on its way already.
    pub(super) fn large(&mut self, bytes: usize) -> Result<Vec<u8>, WireFailure> {
        self.flush()?;
        self.collect();
        while self.sent_bytes > LARGE_IN_FLIGHT_MAX {
            let chunk = self.spent.blocking_recv().ok_or(WireFailure::Stopped)?;
            self.take_back(chunk);
        }
        let mut chunk = Vec::new();
        chunk.try_reserve_exact(bytes).map_err(|_| {
            WireFailure::Transient(format!("there is no memory for an event of {bytes} bytes"))
        })?;
        Ok(chunk)
    }

    /// Hands on a chunk of [`Self::large`].
    pub(super) fn send(&mut self, chunk: Vec<u8>) -> Result<(), WireFailure> {
        // Before each, so that the way back never holds more than has room there.
        self.collect();
        self.sent.push_back(chunk.len());
        self.sent_bytes += chunk.len();
        self.inbox.blocking_send(Input::Events(chunk)).map_err(|_| WireFailure::Stopped)
    }

    fn collect(&mut self) {
        while let Ok(chunk) = self.spent.try_recv() {
            self.take_back(chunk);
        }
    }

    fn take_back(&mut self, chunk: Vec<u8>) {
        self.sent_bytes -= self.sent.pop_front().unwrap_or_default();
        if chunk.capacity() > 0 {
            self.spare.push(chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const INBOX: usize = 4;

    /// Takes every chunk and gives it back; the answer is how many came.
    fn take_all(mut inbox: mpsc::Receiver<Input>, spent: SpentSender) -> usize {
        let mut taken = 0;
        while let Some(Input::Events(chunk)) = inbox.blocking_recv() {
            taken += 1;
            give_back(&spent, chunk);
        }
        taken
    }

    #[test]
    fn chunks_of_every_size_come_back_and_none_is_lost_on_the_way() {
        let (inbox, received) = mpsc::channel(INBOX);
        let (spent, back) = mpsc::channel(INBOX + 2);
        let taker = std::thread::spawn(move || take_all(received, spent));
        let mut chunks = Chunks::new(inbox, back);
        for round in 0..200 {
            let bytes = if round % 3 == 0 { LARGE_IN_FLIGHT_MAX / 4 } else { CHUNK_BYTES + 1 };
            let mut chunk = chunks.large(bytes).expect("memory");
            chunk.resize(bytes, 0);
            chunks.send(chunk).expect("is taken");
            if round % 2 == 0 {
                chunks.room_for(100).expect("room").extend_from_slice(&[0; 100]);
                chunks.flush().expect("is taken");
            }
        }
        while !chunks.sent.is_empty() {
            let chunk = chunks.spent.blocking_recv().expect("comes back");
            chunks.take_back(chunk);
        }
        assert_eq!(chunks.sent_bytes, 0);
        drop(chunks);
        assert_eq!(taker.join().expect("no panic"), 300);
    }

    #[test]
    fn chunks_are_used_again_and_giants_are_not_kept() {
        let (inbox, mut received) = mpsc::channel(INBOX);
        let (spent, back) = mpsc::channel(INBOX + 2);
        let mut chunks = Chunks::new(inbox, back);
        let mut memory = HashSet::new();
        for _ in 0..10 {
            let chunk = chunks.room_for(10).expect("room");
            memory.insert(chunk.as_ptr());
            chunk.extend_from_slice(&[0; 10]);
            chunks.flush().expect("is taken");
            let Some(Input::Events(chunk)) = received.blocking_recv() else { panic!("a chunk") };
            give_back(&spent, chunk);
        }
        assert!(memory.len() <= 3, "{}", memory.len());
        let giant = chunks.large(4 * CHUNK_BYTES).expect("memory");
        chunks.send([giant, vec![0; 4 * CHUNK_BYTES]].concat()).expect("is taken");
        let Some(Input::Events(giant)) = received.blocking_recv() else { panic!("a chunk") };
        give_back(&spent, giant);
        chunks.collect();
        assert!(chunks.spare.iter().all(|chunk| chunk.capacity() <= CHUNK_BYTES));
        // Whoever took the chunks is gone.
        drop(received);
        chunks.room_for(1).expect("room").push(0);
        assert!(matches!(chunks.flush(), Err(WireFailure::Stopped)));
    }
}
