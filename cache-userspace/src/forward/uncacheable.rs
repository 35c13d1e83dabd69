//! Remembers which requests got an answer that serves nobody else and why, so that the next ones do not wait for each
//! other, and `explain` can tell.
//!
//! A table of fixed size: no objects, nothing that grows. Two keys in one place forget each other, which costs one
//! round of waiting; a wrong memory costs a forward request, never a wrong answer.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::policy::Reason;

/// Places in the table, 8 bytes each.
const PLACES: usize = 1 << 16;
/// How long an answer is remembered as uncacheable.
const REMEMBERED: Duration = Duration::from_secs(60);

/// Seconds since boot in a place: 68 years of them.
const UNTIL_BITS: u32 = 31;
/// Above them, whether the answer had already landed for those who waited for it.
const LANDED_BIT: u64 = 1 << UNTIL_BITS;
const REASON_SHIFT: u32 = UNTIL_BITS + 1;
const TAG_SHIFT: u32 = REASON_SHIFT + Reason::CODE_BITS;

/// The table.
pub struct Uncacheable {
    /// From the top: 26 bits of the key's hash, 6 of the reason, 1 whether it landed, 31 until when in seconds since
    /// boot. Zero: nothing.
    places: Box<[AtomicU64]>,
    hash: RandomState,
}

/// What is remembered of the last answer for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why it was not stored.
    pub reason: Reason,
    /// How long ago that was, to the second.
    pub ago: Duration,
    /// Whether others could read along nevertheless: it was refused after its head had landed for them.
    pub landed: bool,
}

impl Default for Uncacheable {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), hash: RandomState::new() }
    }
}

impl Uncacheable {
    /// Whether the last answer for this key served nobody else, a short while ago.
    pub fn knows(&self, key: &[u8], boot: Duration) -> bool {
        self.recall(key, boot).is_some_and(|refusal| !refusal.landed)
    }

    /// Why the last answer for this key was not stored, if that was a short while ago.
    pub fn recall(&self, key: &[u8], boot: Duration) -> Option<Refusal> {
        let (place, tag) = self.place(key);
        // Relaxed: one word that guards nothing else.
        let value = place?.load(Ordering::Relaxed);
        let until = Duration::from_secs(value & (LANDED_BIT - 1));
        if value >> TAG_SHIFT != tag || until <= boot {
            return None;
        }
        let code = value >> REASON_SHIFT & ((1 << Reason::CODE_BITS) - 1);
        Some(Refusal {
            reason: Reason::of_code(u8::try_from(code).ok()?)?,
            ago: (boot + REMEMBERED).saturating_sub(until),
            landed: value & LANDED_BIT != 0,
        })
    }

    /// Notes what the answer for this key was: `None` where it may be stored.
    pub fn note(&self, key: &[u8], refused: Option<Reason>, boot: Duration) {
        match refused {
            Some(reason) => self.write(key, reason, 0, boot),
            None => {
                let (Some(place), tag) = self.place(key) else { return };
                if place.load(Ordering::Relaxed) >> TAG_SHIFT == tag {
                    place.store(0, Ordering::Relaxed);
                }
            }
        }
    }

    /// Notes that an answer was refused that others read along: the next requests may wait for each other still.
    pub fn note_landed(&self, key: &[u8], reason: Reason, boot: Duration) {
        self.write(key, reason, LANDED_BIT, boot);
    }

    fn write(&self, key: &[u8], reason: Reason, landed: u64, boot: Duration) {
        let (Some(place), tag) = self.place(key) else { return };
        let until = (boot + REMEMBERED).as_secs().min(LANDED_BIT - 1);
        let reason = u64::from(reason.code()) << REASON_SHIFT;
        place.store(tag << TAG_SHIFT | reason | landed | until, Ordering::Relaxed);
    }

    fn place(&self, key: &[u8]) -> (Option<&AtomicU64>, u64) {
        let hash = self.hash.hash_one(key);
        (self.places.get(hash as usize % PLACES), hash >> TAG_SHIFT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn an_uncacheable_key_is_known_for_a_minute_or_until_it_is_cacheable() {
        let table = Uncacheable::default();
        table.note(b"a", Some(Reason::Private), NOW);
        assert!(table.knows(b"a", NOW) && !table.knows(b"b", NOW));
        assert!(table.knows(b"a", NOW + Duration::from_secs(59)));
        assert!(!table.knows(b"a", NOW + Duration::from_secs(60)));
        table.note(b"a", None, NOW);
        assert!(!table.knows(b"a", NOW));
    }

    #[test]
    fn the_reason_of_each_is_remembered_and_how_long_ago_it_was() {
        for reason in Reason::ALL {
            let table = Uncacheable::default();
            let ago = Duration::from_secs(7);
            table.note(b"a", Some(*reason), NOW);
            assert_eq!(table.recall(b"a", NOW + ago), Some(Refusal { reason: *reason, ago, landed: false }));
            table.note_landed(b"a", *reason, NOW);
            assert_eq!(table.recall(b"a", NOW + ago), Some(Refusal { reason: *reason, ago, landed: true }));
            assert!(!table.knows(b"a", NOW), "who reads along is worth waiting with");
            table.note(b"a", None, NOW);
            assert_eq!(table.recall(b"a", NOW), None);
        }
    }

    #[test]
    fn a_hundred_thousand_keys_take_no_more_room_than_one() {
        let table = Uncacheable::default();
        (0..100_000_u32).for_each(|n| table.note(&n.to_be_bytes(), Some(Reason::Private), NOW));
        let known = (0..100_000_u32).filter(|n| table.knows(&n.to_be_bytes(), NOW)).count();
        assert!(known <= PLACES && known > PLACES / 2, "{known}");
    }
}
