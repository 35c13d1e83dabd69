//! Targets: some keys again and again, popular after Zipf's law, and among them keys that nobody has asked for before.
//!
//! All keys of a size are the same file of the origin, told apart by their query.

use std::fmt::Write as _;

use anyhow::Result;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::comparison::plan::Load;

/// Bytes of all keys together, at most: every cache has room for more.
const KEY_BYTES_MAX: usize = 64 << 20;

/// The exponent of their popularity, as traces of web caches show it (0.6 to 1).
const EXPONENT: f64 = 0.9;

/// The targets of a load.
#[derive(Clone, Debug)]
pub struct Keys {
    load: Load,
    file: &'static str,
    prefix: String,
}

impl Keys {
    /// The targets of a load, below a prefix of the origin's.
    pub fn of(load: Load, prefix: &str) -> Self {
        Self { load, file: file(load.bytes), prefix: prefix.to_owned() }
    }

    /// How many keys are asked for again and again.
    pub fn count(&self) -> usize {
        (KEY_BYTES_MAX / self.load.bytes).min(self.load.keys)
    }

    /// One of them, from 0.
    pub fn target(&self, key: usize) -> String {
        format!("{}/{}?k={key}", self.prefix, self.file)
    }

    /// What the target of a key that nobody has asked for begins with; a number that never recurs belongs behind it.
    pub fn unique(&self) -> String {
        format!("{}/{}?u=", self.prefix, self.file)
    }

    /// Targets, one a line, in the order in which they are asked for; a line that ends with `?u=` stands for a target
    /// that nobody has asked for. The same for every mode.
    ///
    /// # Errors
    /// If there are no keys.
    pub fn lines(&self, count: usize, seed: u64) -> Result<String> {
        let mut random = SmallRng::seed_from_u64(seed);
        let popularity = Zipf::new(self.count() as f64, EXPONENT)?;
        let mut lines = String::new();
        for _ in 0..count {
            if random.random_range(0..100) < self.load.hits {
                let rank = popularity.sample(&mut random) as usize;
                writeln!(lines, "{}", self.target(rank.saturating_sub(1)))?;
            } else {
                writeln!(lines, "{}", self.unique())?;
            }
        }
        Ok(lines)
    }
}

/// The file of this size: `1k`, `16k`, `1m`.
pub fn file(bytes: usize) -> &'static str {
    FILES.iter().find(|(_, size)| *size == bytes).map_or("1k", |(name, _)| name)
}

/// The origin's files.
pub const FILES: [(&str, usize); 4] =
    [("1k", 1 << 10), ("16k", 16 << 10), ("256k", 256 << 10), ("1m", 1 << 20)];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::plan::BASE;

    #[test]
    fn hits_are_as_many_as_asked_for_and_the_first_key_is_the_most_popular() -> Result<()> {
        let keys = Keys::of(BASE, "");
        let lines = keys.lines(10_000, 1)?;
        let unique = lines.lines().filter(|line| line.ends_with("?u=")).count();
        assert!((800..1200).contains(&unique), "{unique}");
        let count = |key| lines.lines().filter(|line| *line == keys.target(key)).count();
        assert!(count(0) > 5 * count(20) && count(0) > 300, "{} {}", count(0), count(20));
        assert_eq!(lines, keys.lines(10_000, 1)?);
        Ok(())
    }

    #[test]
    fn all_hits_ask_for_no_unique_target_and_none_for_nothing_else() -> Result<()> {
        let of = |hits| Keys::of(Load { hits, ..BASE }, "/n").lines(1000, 1);
        assert!(of(100)?.lines().all(|line| line.starts_with("/n/1k?k=")));
        assert!(of(0)?.lines().all(|line| line == "/n/1k?u="));
        Ok(())
    }

    #[test]
    fn large_objects_have_fewer_keys() {
        assert_eq!(Keys::of(Load { bytes: 1 << 20, ..BASE }, "").count(), 64);
        assert_eq!(Keys::of(BASE, "").count(), 1000);
    }
}
