//! How many bytes of records wait in the producer, so that they can be bounded.
//!
//! librdkafka's own bound (`queue.buffering.max.kbytes`) refuses a record that is larger than the bound for ever, so it
//! has to be above the largest record; the memory of ordinary records is bounded here.

use std::collections::VecDeque;

/// What was handed to the producer, newest last.
#[derive(Debug, Default)]
pub struct InFlight {
    appends: VecDeque<Append>,
    records: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Append {
    records: usize,
    bytes: usize,
}

impl InFlight {
    /// Records were handed over.
    pub fn add(&mut self, records: usize, bytes: usize) {
        self.appends.push_back(Append { records, bytes });
        self.records += records;
        self.bytes += bytes;
    }

    /// The bytes of what waits, at most, when `waiting` records do: those of the newest appends that hold as many.
    pub fn bytes(&mut self, waiting: usize) -> usize {
        while let Some(oldest) = self.appends.front().copied()
            && self.records - oldest.records >= waiting
        {
            self.appends.pop_front();
            self.records -= oldest.records;
            self.bytes -= oldest.bytes;
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_appends_that_hold_the_waiting_records_count() {
        let mut in_flight = InFlight::default();
        in_flight.add(10, 1000);
        in_flight.add(5, 50);
        in_flight.add(1, 7);
        assert_eq!(in_flight.bytes(16), 1057);
        assert_eq!(in_flight.bytes(7), 1057);
        assert_eq!(in_flight.bytes(6), 57);
        assert_eq!(in_flight.bytes(1), 7);
        assert_eq!(in_flight.bytes(0), 0);
        in_flight.add(2, 20);
        assert_eq!(in_flight.bytes(3), 20);
    }
}
