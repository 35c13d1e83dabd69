//! Remembers which requests got an answer that serves nobody else, so that the next ones do not wait for each other.
//!
//! A table of fixed size: no objects, nothing that grows. Two keys in one place forget each other, which costs one
//! round of waiting; a wrong memory costs a forward request, never a wrong answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Places in the table, 8 bytes each.
const PLACES: usize = 1 << 16;
/// How long an answer is remembered as uncacheable.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The table.
pub struct Uncacheable {
    /// High half: part of the key's hash; low half: until when, in seconds since boot.
    places: Box<[AtomicU64]>,
    hash: RandomState,
}

impl Default for Uncacheable {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), hash: RandomState::new() }
    }
}

impl Uncacheable {
    /// Whether the last answer for this key was uncacheable, a short while ago.
    pub fn knows(&self, key: &[u8], boot: Duration) -> bool {
        let (place, tag) = self.place(key);
        // Relaxed: one word that guards nothing else.
        place.is_some_and(|place| {
            let value = place.load(Ordering::Relaxed);
            value >> 32 == tag && value & u64::from(u32::MAX) > boot.as_secs()
        })
    }

    /// Notes what the answer for this key was.
    pub fn note(&self, key: &[u8], is_uncacheable: bool, boot: Duration) {
        let (Some(place), tag) = self.place(key) else { return };
        if is_uncacheable {
            let until = (boot + REMEMBERED).as_secs().min(u64::from(u32::MAX));
            place.store(tag << 32 | until, Ordering::Relaxed);
        } else if place.load(Ordering::Relaxed) >> 32 == tag {
            place.store(0, Ordering::Relaxed);
        }
    }

    fn place(&self, key: &[u8]) -> (Option<&AtomicU64>, u64) {
        let hash = self.hash.hash_one(key);
        (self.places.get(hash as usize % PLACES), hash >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn an_uncacheable_key_is_known_for_a_minute_or_until_it_is_cacheable() {
        let table = Uncacheable::default();
        table.note(b"a", true, NOW);
        assert!(table.knows(b"a", NOW) && !table.knows(b"b", NOW));
        assert!(table.knows(b"a", NOW + Duration::from_secs(59)));
        assert!(!table.knows(b"a", NOW + Duration::from_secs(60)));
        table.note(b"a", false, NOW);
        assert!(!table.knows(b"a", NOW));
    }

    #[test]
    fn a_hundred_thousand_keys_take_no_more_room_than_one() {
        let table = Uncacheable::default();
        (0..100_000_u32).for_each(|n| table.note(&n.to_be_bytes(), true, NOW));
        let known = (0..100_000_u32).filter(|n| table.knows(&n.to_be_bytes(), NOW)).count();
        assert!(known <= PLACES && known > PLACES / 2, "{known}");
    }
}
