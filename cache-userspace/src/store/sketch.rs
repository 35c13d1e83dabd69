//! How often keys were asked for lately, stored or not, in a fixed number of bytes (a count-min sketch).
//!
//! What follows from it is left to `ranking`. It may count too much, never too little while it ages evenly; two keys
//! that share all four counters are taken for one.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

/// Counters of one key's block: a cache line, so that a count costs one miss of the processor's cache.
const BLOCK: usize = 64;

/// Counters that a key has, one in each quarter of its block.
const ROWS: usize = 4;

/// Keys that share a block when as many are known as were expected.
const KEYS_IN_BLOCK: usize = 8;

/// All counters are halved after so many counts for each key expected, so that what was popular once gives way.
const COUNTS_OF_KEY: usize = 2;

/// The counters. Counts that race may be lost, which harms nobody.
pub(super) struct Sketch {
    blocks: Box<[[AtomicU8; BLOCK]]>,
    counted: AtomicU32,
    counts_max: u32,
    /// How often the counters were halved.
    age: AtomicU32,
}

impl Sketch {
    /// A sketch for so many keys, of 8 bytes each.
    pub(super) fn new(keys: usize) -> Self {
        let blocks = keys.div_ceil(KEYS_IN_BLOCK).max(1);
        Self {
            blocks: (0..blocks).map(|_| [const { AtomicU8::new(0) }; BLOCK]).collect(),
            counted: AtomicU32::new(0),
            age: AtomicU32::new(0),
            counts_max: u32::try_from(blocks * KEYS_IN_BLOCK * COUNTS_OF_KEY).unwrap_or(u32::MAX),
        }
    }

    /// Counts a request for the key with this hash.
    pub(super) fn count(&self, hash: u64) {
        let frequency = self.frequency(hash);
        if frequency == u8::MAX {
            return;
        }
        for counter in self.counters(hash) {
            // Only the smallest ones: the others count another key as well.
            let _ = counter.compare_exchange(frequency, frequency + 1, Ordering::Relaxed, Ordering::Relaxed);
        }
        if self.counted.fetch_add(1, Ordering::Relaxed) + 1 == self.counts_max {
            self.halve();
        }
    }

    /// The logarithm (base 2) of how often the key with this hash was asked for lately, where a request counts twice as
    /// much after each halving: so a figure of earlier can be compared with one of later without being touched.
    pub(super) fn popularity(&self, hash: u64) -> f64 {
        f64::from(self.frequency(hash).max(1)).log2() + f64::from(self.age.load(Ordering::Relaxed))
    }

    fn frequency(&self, hash: u64) -> u8 {
        self.counters(hash).map(|counter| counter.load(Ordering::Relaxed)).min().unwrap_or_default()
    }

    fn counters(&self, hash: u64) -> impl Iterator<Item = &AtomicU8> {
        // The table chose the shard by bits from the middle; the lower half is free to choose the block.
        let block = self.blocks.get(hash as u32 as usize % self.blocks.len());
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        let width = BLOCK / ROWS;
        let at = (0..ROWS).map(move |row| row * width + (mixed >> (row * 8)) as usize % width);
        block.into_iter().flat_map(move |block| at.clone().filter_map(|at| block.get(at)))
    }

    fn halve(&self) {
        for counter in self.blocks.iter().flatten() {
            let value = counter.load(Ordering::Relaxed);
            counter.store(value / 2, Ordering::Relaxed);
        }
        self.age.fetch_add(1, Ordering::Relaxed);
        self.counted.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(key: u64) -> u64 {
        (key + 1).wrapping_mul(0xd6e8_feb8_6659_fd93)
            ^ (key + 1).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(32)
    }

    #[test]
    fn keys_asked_for_often_are_told_from_those_asked_for_once() {
        let sketch = Sketch::new(10_000);
        for key in 0..1000 {
            let times = if key < 100 { 20 } else { 1 };
            (0..times).for_each(|_| sketch.count(hash(key)));
        }
        assert!((0..100).all(|key| sketch.frequency(hash(key)) >= 20));
        assert!((100..1000).filter(|key| sketch.frequency(hash(*key)) < 5).count() > 850);
        assert!((2000..3000).filter(|key| sketch.frequency(hash(*key)) < 3).count() > 850);
    }

    #[test]
    fn what_was_popular_once_is_overtaken() {
        let sketch = Sketch::new(200);
        (0..100).for_each(|_| sketch.count(hash(7)));
        let before = sketch.popularity(hash(7));
        for key in 0..4000 {
            sketch.count(hash(key + 100));
        }
        assert!(sketch.frequency(hash(7)) < 20, "{}", sketch.frequency(hash(7)));
        (0..8).for_each(|_| sketch.count(hash(9)));
        assert!(sketch.popularity(hash(9)) > before, "a few requests now are worth more than many then");
    }
}
