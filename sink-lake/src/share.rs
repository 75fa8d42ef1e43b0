//! Which of the tables a sink takes when several share the work: each table has one sink, by its name alone, so that no
//! two have to agree on anything.

use xxhash_rust::xxh3::xxh3_64;

/// One of several sinks. The default is the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    replica: u32,
    replicas: u32,
}

impl Default for Share {
    fn default() -> Self {
        Self { replica: 0, replicas: 1 }
    }
}

impl Share {
    /// The share of sink number `replica`, counted from 0, of `replicas`; `None` when there is no such number.
    pub fn new(replica: u32, replicas: u32) -> Option<Self> {
        (replica < replicas).then_some(Self { replica, replicas })
    }

    /// Whether this sink keeps the table of a topic: XXH3 (64 bits, seed 0) of the topic's name, modulo the number of
    /// sinks. This must never change: two releases side by side have to agree.
    pub fn takes(self, topic: &str) -> bool {
        xxh3_64(topic.as_bytes()) % u64::from(self.replicas) == u64::from(self.replica)
    }

    /// Whether this sink does what only one of them may do.
    pub fn is_first(self) -> bool {
        self.replica == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_has_one_sink_and_keeps_it() {
        let topics: Vec<String> = (0..1000).map(|i| format!("udon.market.table{i}")).collect();
        for replicas in 1..6 {
            let shares: Vec<Share> =
                (0..replicas).filter_map(|replica| Share::new(replica, replicas)).collect();
            for topic in &topics {
                assert_eq!(shares.iter().filter(|share| share.takes(topic)).count(), 1);
            }
            for share in shares {
                let own = topics.iter().filter(|topic| share.takes(topic)).count();
                assert!(own > 600 / replicas as usize, "{share:?} takes {own}");
            }
        }
        // Of this and of every later release; the number is the C library's, by its Python binding.
        assert_eq!(xxh3_64(b"udon.market.orders"), 0xd6d5_b77b_61fd_ec9b);
        assert_eq!(Share::new(3, 3), None);
    }
}
