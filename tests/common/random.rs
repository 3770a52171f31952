//! Numbers that look random, and come again with their seed.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers of their own for one of many.
    pub fn of(seed: u64, which: u64) -> Self {
        let mut random = Self(seed ^ which.wrapping_mul(0xD134_2543_DE82_EF95));
        random.next();
        random
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap()
    }

    /// Milliseconds below this many.
    pub fn millis(&mut self, bound: u64) -> std::time::Duration {
        std::time::Duration::from_micros(self.next() % (bound * 1_000))
    }

    /// One of a range.
    pub fn within(&mut self, range: std::ops::Range<usize>) -> usize {
        range.start + self.below(range.end - range.start)
    }

    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

/// A new seed, or the one of a run that is to be repeated; printed either way.
pub fn seed() -> u64 {
    let seed = match std::env::var("SESSION_MEMORY_SEED") {
        Ok(seed) => seed.parse().expect("SESSION_MEMORY_SEED is a number"),
        // A new `RandomState` has new keys.
        Err(_) => RandomState::new().hash_one(0) >> 16,
    };
    println!("SESSION_MEMORY_SEED={seed}");
    seed
}
