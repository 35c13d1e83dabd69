//! The purge log: a counter and a fixed table of the numbers at which resources were last invalidated.
//!
//! A resource has two places. A response is dead if its forward began before the numbers in both of them. Nothing is
//! searched for and nothing grows; a resource whose two places were both written for others is invalidated with them,
//! which only costs a forward.
//!
//! Order. `invalidate` runs after the unsafe answer arrived: its increment of the counter is later than the change at
//! the origin server. `begin` runs before a request is sent. A forward whose `begin` reads a number below n
//! may thus carry the old state and is dead once n or more is visible in both places; one that reads n was sent after the change. No
//! forward that began before an invalidation can read its number, so an insert that races with it can be late or
//! early, but never alive: entries are not removed, they are judged at each look-up, and a look-up that happens after
//! `invalidate` returned sees the number in both places.

use std::{
    hash::{BuildHasher, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

/// Places in the table, 8 bytes each. A thousand writes while a response is fresh kill it by chance once in 17 000.
const PLACES: usize = 1 << 17;

/// A moment in the purge log: the number of invalidations when a forward began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sequence(u64);

/// Where in the table a resource stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place([u32; 2]);

#[cfg(test)]
impl Place {
    /// The place of a number, for tests of those who are told of places.
    pub fn of(number: u32) -> Self {
        Self([number; 2])
    }
}

/// The log.
pub(super) struct PurgeLog {
    last: AtomicU64,
    cleared: AtomicU64,
    table: Box<[AtomicU64]>,
    /// Keyed by a secret of this process, so that nobody can aim at another's place.
    hash: RandomState,
}

impl PurgeLog {
    /// A log in which nothing was invalidated.
    pub(super) fn new() -> Self {
        Self {
            last: AtomicU64::new(0),
            cleared: AtomicU64::new(0),
            table: (0..PLACES).map(|_| AtomicU64::new(0)).collect(),
            hash: RandomState::new(),
        }
    }

    /// The places of a resource.
    pub(super) fn place(&self, resource: &[u8]) -> Place {
        let hash = self.hash.hash_one(resource);
        Place([hash, hash >> 32].map(|part| (part % PLACES as u64) as u32))
    }

    /// The moment now.
    pub(super) fn begin(&self) -> Sequence {
        // SeqCst: sending the request, which comes later, must not be seen to happen before this read.
        Sequence(self.last.load(Ordering::SeqCst))
    }

    /// Kills whatever began before and stands in the resource's places.
    pub(super) fn invalidate(&self, resource: &[u8]) {
        let number = self.next();
        for slot in self.slots(self.place(resource)).into_iter().flatten() {
            // The greatest number stays, whoever of two writers is later.
            slot.fetch_max(number, Ordering::SeqCst);
        }
    }

    /// Kills whatever began before.
    pub(super) fn clear(&self) {
        self.cleared.fetch_max(self.next(), Ordering::SeqCst);
    }

    fn next(&self) -> u64 {
        // SeqCst: the arrival of the unsafe answer, which came earlier, must not be seen to happen after this.
        self.last.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn slots(&self, Place(places): Place) -> [Option<&AtomicU64>; 2] {
        places.map(|place| self.table.get(place as usize))
    }

    /// Whether nothing that stands in both places was invalidated since.
    pub(super) fn alive(&self, place: Place, begun: Sequence) -> bool {
        // Acquire: pairs with the writes above for whoever learned of the invalidation by other means.
        let of = |slot: Option<&AtomicU64>| slot.map_or(u64::MAX, |slot| slot.load(Ordering::Acquire));
        let [one, other] = self.slots(place).map(of);
        one.min(other).max(self.cleared.load(Ordering::Acquire)) <= begun.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_before_an_invalidation_is_dead_and_what_began_after_is_alive() {
        let log = PurgeLog::new();
        let place = log.place(b"a");
        let before = log.begin();
        assert!(log.alive(place, before));
        log.invalidate(b"a");
        assert!(!log.alive(place, before));
        let after = log.begin();
        assert!(log.alive(place, after));
        log.clear();
        assert!(!log.alive(place, after));
        assert!(log.alive(place, log.begin()));
    }

    #[test]
    fn another_resource_stays_alive() {
        let log = PurgeLog::new();
        let begun = log.begin();
        log.invalidate(b"a");
        let others = (0..100_u32).filter(|n| log.alive(log.place(&n.to_be_bytes()), begun));
        assert!(others.count() >= 99, "at most chance puts one into the same places");
    }

    #[test]
    fn thousands_of_writes_elsewhere_leave_nearly_everything_alive() {
        let log = PurgeLog::new();
        let begun = log.begin();
        (0..2000_u32).for_each(|n| log.invalidate(&n.to_be_bytes()));
        assert!((0..2000_u32).all(|n| !log.alive(log.place(&n.to_be_bytes()), begun)));
        let dead = (2000..12_000_u32).filter(|n| !log.alive(log.place(&n.to_be_bytes()), begun)).count();
        assert!(dead < 30, "{dead} of 10 000: about 2 are to be expected");
    }
}
