//! For which destinations a pod was seen to be let through by the mesh, and until when that counts (MESH.md S3).
//!
//! Which answers grant or end a lease is left to `request::lease`.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};

/// Leases of one pod. Beyond them none is granted: then each request goes forward.
const LEASES_MAX: usize = 4096;

/// What a lease is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseKey([u8; 32]);

impl LeaseKey {
    /// The lease for these parts together, in this order.
    pub fn of<const N: usize>(parts: [&[u8]; N]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

/// The leases of one pod. Times are since boot.
#[derive(Debug)]
pub struct Leases {
    lasts: Duration,
    known: Mutex<HashMap<LeaseKey, Lease>>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// When it ends, or ended.
    until: Duration,
    /// What was requested up to then grants nothing: a later answer was a refusal.
    refused_at: Option<Duration>,
}

impl Leases {
    /// None yet; each lasts so long.
    pub fn new(lasts: Duration) -> Self {
        Self { lasts, known: Mutex::default() }
    }

    /// How long each lasts.
    pub fn lasts(&self) -> Duration {
        self.lasts
    }

    /// How much longer a lease lasts; `None` where there is none.
    pub fn left(&self, key: &LeaseKey, now: Duration) -> Option<Duration> {
        let left = self.known().get(key)?.until.checked_sub(now)?;
        (!left.is_zero()).then_some(left)
    }

    /// Grants a lease for an answer to what was requested then.
    pub fn grant(&self, key: LeaseKey, requested_at: Duration, now: Duration) {
        let until = requested_at + self.lasts;
        let mut known = self.known();
        if let Some(lease) = known.get_mut(&key) {
            if lease.refused_at.is_none_or(|refused_at| refused_at < requested_at) {
                *lease = Lease { until: lease.until.max(until), refused_at: None };
            }
            return;
        }
        if self.has_room(&mut known, now) {
            known.insert(key, Lease { until, refused_at: None });
        }
    }

    /// Ends a lease for a refusal that came now; says whether there was one.
    pub fn revoke(&self, key: LeaseKey, now: Duration) -> bool {
        let mut known = self.known();
        let had = known.get(&key).is_some_and(|lease| lease.until > now);
        // Answers that are still under way were given before.
        if known.contains_key(&key) || self.has_room(&mut known, now) {
            known.insert(key, Lease { until: now, refused_at: Some(now) });
        }
        had
    }

    /// Whether one more may be known: what ended so long ago that nothing older can come is forgotten for it.
    fn has_room(&self, known: &mut HashMap<LeaseKey, Lease>, now: Duration) -> bool {
        if known.len() >= LEASES_MAX {
            known.retain(|_, lease| lease.until + self.lasts > now);
        }
        known.len() < LEASES_MAX
    }

    fn known(&self) -> MutexGuard<'_, HashMap<LeaseKey, Lease>> {
        // Nothing is half done in it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LASTS: Duration = Duration::from_secs(30);
    const NOW: Duration = Duration::from_secs(1000);

    fn key(name: &str) -> LeaseKey {
        LeaseKey::of([name.as_bytes()])
    }

    #[test]
    fn a_lease_counts_from_the_request_that_was_answered() {
        let leases = Leases::new(LASTS);
        assert_eq!(leases.left(&key("a"), NOW), None);
        leases.grant(key("a"), NOW, NOW + Duration::from_secs(20));
        assert_eq!(leases.left(&key("a"), NOW + Duration::from_secs(20)), Some(Duration::from_secs(10)));
        assert_eq!(leases.left(&key("a"), NOW + LASTS), None);
        assert_eq!(leases.left(&key("b"), NOW), None);
        // An answer to what was asked earlier takes nothing away.
        leases.grant(key("a"), NOW - LASTS, NOW);
        assert_eq!(leases.left(&key("a"), NOW), Some(LASTS));
    }

    #[test]
    fn a_refusal_ends_it_and_what_was_asked_before_grants_nothing() {
        let leases = Leases::new(LASTS);
        leases.grant(key("a"), NOW, NOW);
        let refused = NOW + Duration::from_secs(2);
        assert!(leases.revoke(key("a"), refused));
        assert!(!leases.revoke(key("b"), refused), "there was none");
        assert_eq!(leases.left(&key("a"), refused), None);
        leases.grant(key("a"), refused - Duration::from_secs(1), refused);
        leases.grant(key("b"), refused, refused);
        assert_eq!((leases.left(&key("a"), refused), leases.left(&key("b"), refused)), (None, None));
        let later = refused + Duration::from_millis(1);
        leases.grant(key("a"), later, later);
        assert_eq!(leases.left(&key("a"), later), Some(LASTS));
    }

    #[test]
    fn there_are_only_so_many() {
        let leases = Leases::new(LASTS);
        for n in 0..LEASES_MAX {
            leases.grant(key(&n.to_string()), NOW, NOW);
        }
        leases.grant(key("more"), NOW, NOW);
        assert_eq!(leases.left(&key("more"), NOW), None);
        assert_eq!(leases.left(&key("0"), NOW), Some(LASTS), "and those there are stay");
        let later = NOW + 2 * LASTS;
        leases.grant(key("more"), later, later);
        assert_eq!(leases.left(&key("more"), later), Some(LASTS), "old ones make room");
    }

    #[test]
    fn no_two_sets_of_parts_are_one_key() {
        assert_ne!(LeaseKey::of([b"ab", b"c"]), LeaseKey::of([b"a", b"bc"]));
        assert_ne!(LeaseKey::of([b"a"]), LeaseKey::of([b"a", b""]));
    }
}
