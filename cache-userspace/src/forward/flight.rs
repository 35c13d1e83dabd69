//! Collapse: one forward request for a key, however many clients ask for it at once.
//!
//! The first becomes the leader and forwards; the others wait until its answer lands and are then served from it while
//! it is still coming, if policy lets it answer them. Nobody waits longer than the lock timeout, nobody joins what
//! began before a purge, and whoever cannot be served goes on alone: a flight only ever saves requests.
//!
//! What is forwarded and whom an answer may serve is decided elsewhere.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Flights of one key at a time: one for each variant that is on its way.
const FLIGHTS_PER_KEY_MAX: usize = 8;

/// The forward requests that others may join, by key. `A` says what each is about, `L` is what lands.
pub struct Flights<A, L> {
    by_key: Mutex<HashMap<Vec<u8>, OfOneKey<A, L>>>,
    waiters_max: usize,
}

/// The flights of one key, the oldest first.
type OfOneKey<A, L> = Vec<Arc<Flight<A, L>>>;

/// One forward request that others may join.
pub struct Flight<A, L> {
    about: A,
    progress: Mutex<Progress<L>>,
    changed: Notify,
    /// Those who wait or read, the leader not among them.
    followers: AtomicUsize,
}

enum Progress<L> {
    Away,
    Landed(Arc<L>),
    /// Nothing that could serve others.
    Lost,
}

/// How a request takes part.
pub enum Part<A, L> {
    /// It forwards, for all that join.
    Lead(Lead<A, L>),
    /// It waits for the answer to another's.
    Follow(Follower<A, L>),
    /// It forwards for itself: the flight has all the followers that it may have.
    Alone,
}

/// The leader's side: whatever happens to it, the followers learn of it.
pub struct Lead<A, L> {
    flights: Arc<Flights<A, L>>,
    flight: Arc<Flight<A, L>>,
    key: Vec<u8>,
}

/// A follower's side.
pub struct Follower<A, L> {
    flight: Arc<Flight<A, L>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is replaced as a whole; a panic leaves nothing half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<A, L> Flights<A, L> {
    /// No flights; at most `waiters_max` followers may join one.
    pub fn new(waiters_max: usize) -> Self {
        Self { by_key: Mutex::default(), waiters_max }
    }

    /// Joins a flight under `key`, or begins one that is about `about`.
    ///
    /// `may_join` is asked about each flight and, where it landed already, what landed.
    pub fn enter(
        self: &Arc<Self>,
        key: &[u8],
        about: impl FnOnce() -> A,
        may_join: impl Fn(&A, Option<&L>) -> bool,
    ) -> Part<A, L> {
        let mut by_key = lock(&self.by_key);
        let flights = by_key.entry(key.to_vec()).or_default();
        for flight in flights.iter() {
            let landed = match &*lock(&flight.progress) {
                Progress::Away => None,
                Progress::Landed(landed) => Some(landed.clone()),
                Progress::Lost => continue,
            };
            if may_join(&flight.about, landed.as_deref()) {
                return match Follower::of(flight, self.waiters_max) {
                    Some(follower) => Part::Follow(follower),
                    None => Part::Alone,
                };
            }
        }
        if flights.len() >= FLIGHTS_PER_KEY_MAX {
            return Part::Alone;
        }
        let flight = Arc::new(Flight {
            about: about(),
            progress: Mutex::new(Progress::Away),
            changed: Notify::new(),
            followers: AtomicUsize::new(0),
        });
        flights.push(flight.clone());
        Part::Lead(Lead { flights: self.clone(), flight, key: key.to_vec() })
    }

    /// How many flights there are.
    pub fn len(&self) -> usize {
        lock(&self.by_key).values().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn leave(&self, key: &[u8], flight: &Arc<Flight<A, L>>) {
        let mut by_key = lock(&self.by_key);
        if let Some(flights) = by_key.get_mut(key) {
            flights.retain(|other| !Arc::ptr_eq(other, flight));
            if flights.is_empty() {
                by_key.remove(key);
            }
        }
    }
}

impl<A, L> Lead<A, L> {
    /// Shows everybody what landed; who comes later is served from it as well, until the flight ends.
    pub fn land(&self, landed: Arc<L>) {
        *lock(&self.flight.progress) = Progress::Landed(landed);
        self.flight.changed.notify_waiters();
    }

    /// Whether anybody waits for it or reads along.
    pub fn has_followers(&self) -> bool {
        self.flight.followers.load(Ordering::Acquire) > 0
    }

    /// A follower more, bounds or not: for one who leaves the lead to another task.
    pub fn follower(&self) -> Follower<A, L> {
        self.flight.followers.fetch_add(1, Ordering::AcqRel);
        Follower { flight: self.flight.clone() }
    }

    /// Lets nobody join any more; those who joined go on.
    pub fn close(&self) {
        self.flights.leave(&self.key, &self.flight);
    }
}

impl<A, L> Drop for Lead<A, L> {
    fn drop(&mut self) {
        self.close();
        let mut progress = lock(&self.flight.progress);
        if matches!(*progress, Progress::Away) {
            *progress = Progress::Lost;
        }
        drop(progress);
        self.flight.changed.notify_waiters();
    }
}

impl<A, L> Follower<A, L> {
    fn of(flight: &Arc<Flight<A, L>>, followers_max: usize) -> Option<Self> {
        // Counted under the lock of all flights; only leaving is not.
        if flight.followers.load(Ordering::Acquire) >= followers_max {
            return None;
        }
        flight.followers.fetch_add(1, Ordering::AcqRel);
        Some(Self { flight: flight.clone() })
    }

    /// What the flight is about.
    pub fn about(&self) -> &A {
        &self.flight.about
    }

    /// Waits for the answer to land; `None` where it serves nobody else.
    pub async fn landed(&self) -> Option<Arc<L>> {
        loop {
            // Before the look, so that no change between the two is missed.
            let changed = self.flight.changed.notified();
            match &*lock(&self.flight.progress) {
                Progress::Away => {}
                Progress::Landed(landed) => return Some(landed.clone()),
                Progress::Lost => return None,
            }
            changed.await;
        }
    }
}

impl<A, L> Drop for Follower<A, L> {
    fn drop(&mut self) {
        self.flight.followers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead<L>(part: Part<(), L>) -> Lead<(), L> {
        let Part::Lead(lead) = part else { panic!("not the leader") };
        lead
    }

    fn follow<L>(part: Part<(), L>) -> Follower<(), L> {
        let Part::Follow(follower) = part else { panic!("not a follower") };
        follower
    }

    fn enter(flights: &Arc<Flights<(), u32>>) -> Part<(), u32> {
        flights.enter(b"k", || (), |(), _| true)
    }

    #[tokio::test]
    async fn the_first_leads_and_the_others_get_what_lands() {
        let flights = Arc::new(Flights::new(10));
        let leader = lead(enter(&flights));
        let early = follow(enter(&flights));
        assert!(leader.has_followers());
        leader.land(Arc::new(7));
        let late = follow(enter(&flights));
        assert_eq!((early.landed().await.as_deref(), late.landed().await.as_deref()), (Some(&7), Some(&7)));
        drop((early, late));
        assert!(!leader.has_followers());
        drop(leader);
        assert!(flights.is_empty());
        lead(enter(&flights));
    }

    #[tokio::test]
    async fn a_leader_that_goes_down_leaves_nobody_waiting() {
        let flights = Arc::new(Flights::new(10));
        let leader = lead(enter(&flights));
        let follower = follow(enter(&flights));
        let waiting = tokio::spawn(async move { follower.landed().await });
        tokio::task::yield_now().await;
        drop(leader);
        assert_eq!(waiting.await.unwrap(), None);
        assert!(flights.is_empty());
    }

    #[test]
    fn followers_and_flights_of_a_key_are_bounded() {
        let flights = Arc::new(Flights::new(1));
        let _leader = lead(enter(&flights));
        let follower = follow(enter(&flights));
        assert!(matches!(enter(&flights), Part::Alone));
        drop(follower);
        let _follower = follow(enter(&flights));
        let nobody = || flights.enter(b"k", || (), |(), _| false);
        let leaders: Vec<_> = (1..FLIGHTS_PER_KEY_MAX).map(|_| lead(nobody())).collect();
        assert!(matches!(nobody(), Part::Alone));
        drop(leaders);
        assert_eq!(flights.len(), 1);
    }

    #[test]
    fn a_closed_flight_is_not_joined() {
        let flights = Arc::new(Flights::new(10));
        let leader = lead(enter(&flights));
        leader.close();
        lead(enter(&flights));
    }
}
