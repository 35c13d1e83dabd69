//! Stored responses in memory: a bounded set of variants under each key, one byte budget, who gives way when it is used
//! up, and the purge log.
//!
//! Which response may be stored or reused is left to `policy`, what its head looks like to `respond`. Freshness is
//! kept in the entry: nothing expires by itself here, it is evicted or replaced.

mod body;
mod budget;
mod entry;
mod fill;
mod filled;
mod observer;
mod purge;
mod ranking;
mod recording;
mod sketch;
mod table;

use std::ops::ControlFlow;
use std::sync::{
    Arc, Mutex, MutexGuard, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};

pub use body::Body;
use budget::{Budget, Permit};
use bytes::Bytes;
pub use entry::{Entry, Variants};
pub use fill::{Fill, SEGMENT_BYTES_MAX};
pub use filled::{Filled, HAND_OVER_BYTES_MAX, HandOver, Read, Reader};
pub use observer::Observer;
use purge::PurgeLog;
pub use purge::{Place as PurgePlace, Sequence};
use ranking::Ranking;
pub use recording::{Place, Recording};
use table::Table;

use crate::policy::{self, Reason, Stored};

/// Up to so many hundredths of the budget everything is let in; above, a newcomer must be worth what gives way to it.
const ADMITS_ALL_BELOW_PERCENT: u64 = 90;

/// What is stored does not give way to fills, and to evicted contents that are still being sent, below this part of the
/// budget.
const STORED_PART_MIN: u64 = 4;

/// Bytes that a response is thought to have when it is admitted before its length is known.
const UNKNOWN_LENGTH_BYTES: u64 = 64 << 10;

/// The frequencies of one key for so many bytes of the budget are remembered (8 bytes each, outside the budget) …
const BYTES_OF_KEY: u64 = 1 << 10;

/// … and of no more keys than this: 8 MiB.
const KEYS_MAX: u64 = 1 << 20;

/// The bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bytes of all that is stored, evicted but still being sent, or being filled.
    pub bytes_max: u64,
    /// Bytes of one response's content.
    pub object_bytes_max: u64,
    /// Variants under one key; the oldest gives way.
    pub variants_max: usize,
    /// Bytes of one namespace above which, when the store is full, it gives way before others and refuses its own
    /// (`quota`). While there is room it may have all.
    pub namespace_bytes_max: u64,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            bytes_max: 256 << 20,
            object_bytes_max: 16 << 20,
            variants_max: 64,
            namespace_bytes_max: 128 << 20,
        }
    }
}

/// The memory tier. Clones are handles of the same store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    limits: StoreLimits,
    table: Table,
    /// Locked after no shard of the table: whoever holds a shard lets go of it first.
    ranking: Mutex<Ranking>,
    budget: Arc<Budget>,
    purges: PurgeLog,
    entries: Arc<AtomicU64>,
    observer: OnceLock<Arc<dyn Observer>>,
}

impl Store {
    /// Makes an empty store.
    pub fn new(limits: StoreLimits) -> Self {
        let keys = (limits.bytes_max / BYTES_OF_KEY).min(KEYS_MAX);
        let shared = Shared {
            limits,
            table: Table::new(usize::try_from(keys).unwrap_or_default()),
            ranking: Mutex::new(Ranking::new(limits.namespace_bytes_max)),
            budget: Arc::new(Budget::new(limits.bytes_max)),
            purges: PurgeLog::new(),
            entries: Arc::default(),
            observer: OnceLock::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The variants stored under a key, dead ones included: ask [`Store::alive`]. Counts as a request for the key;
    /// allocates nothing.
    pub fn variants(&self, key: &[u8]) -> Option<Arc<Variants>> {
        self.shared.table.look_up(key)
    }

    /// The same for who only wants to see: counts as no request.
    pub fn peek(&self, key: &[u8]) -> Option<Arc<Variants>> {
        self.shared.table.peek(key)
    }

    /// Tells `observer` of every change from now on; the first one stays.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        // Only `app` says it, once.
        let _ = self.shared.observer.set(observer);
    }

    fn tell(&self, change: impl FnOnce(&dyn Observer)) {
        if let Some(observer) = self.shared.observer.get() {
            change(&**observer);
        }
    }

    /// The keys that are wanted, at most `max` of them, and whether these are all: at most `looked_at_max` keys are
    /// looked at. Takes its time, which look-ups do not feel.
    pub fn keys(
        &self,
        looked_at_max: usize,
        max: usize,
        is_wanted: impl Fn(&[u8]) -> bool,
    ) -> (Vec<Box<[u8]>>, bool) {
        let (mut found, mut looked_at) = (Vec::new(), 0);
        let all = self.shared.table.visit(|key| {
            looked_at += 1;
            if looked_at > looked_at_max {
                return ControlFlow::Break(());
            }
            if is_wanted(key) {
                if found.len() >= max {
                    return ControlFlow::Break(());
                }
                found.push(Box::from(key));
            }
            ControlFlow::Continue(())
        });
        (found, all.is_continue())
    }

    /// Whether no purge or unsafe request concerned an entry since its forward began.
    pub fn alive(&self, entry: &Entry) -> bool {
        self.are_alive(&entry.identity.places, entry.identity.begun)
    }

    /// The moment in the purge log at which a forward begins: to be taken before the request is sent.
    pub fn begin(&self) -> Sequence {
        self.shared.purges.begin()
    }

    /// What stands for a namespace in a [`Place`].
    pub fn owner(&self, namespace: &[u8]) -> u64 {
        self.shared.table.hash(namespace)
    }

    /// Whether a response of `expected_bytes`, if that is known, may have a place in a store that is nearly full.
    ///
    /// Refuses with `admission` if what would have to give way is asked for more often, with `quota` if that is of the
    /// same namespace, which has its share already.
    pub fn admit(&self, place: &Place, expected_bytes: Option<u64>) -> Result<(), Reason> {
        let shared = &self.shared;
        let (used, max) = (shared.budget.used(), shared.limits.bytes_max);
        let bytes = expected_bytes.unwrap_or(UNKNOWN_LENGTH_BYTES).saturating_add(Entry::OVERHEAD_BYTES_MIN);
        let needed_bytes = used.saturating_add(bytes).saturating_sub(max);
        let hash = shared.table.hash(&place.key);
        if used <= max / 100 * ADMITS_ALL_BELOW_PERCENT
            || needed_bytes == 0
            // What is stored already has earned its place.
            || shared.table.contains(hash, &place.key)
        {
            return Ok(());
        }
        let popularity = shared.table.popularity(hash);
        self.ranking()
            .admit(place.owner, popularity, bytes, needed_bytes, |hash| shared.table.popularity(hash))
    }

    /// Begins to collect a content of `expected_bytes`, if that is known, for an owner (see [`Place`]).
    ///
    /// Refuses with `too-large`, or with `store-full` if eviction could not make room for it.
    pub fn fill(&self, owner: u64, expected_bytes: Option<u64>) -> Result<Fill, Reason> {
        let limits = &self.shared.limits;
        let expected = expected_bytes.unwrap_or(0);
        if expected > limits.object_bytes_max {
            return Err(Reason::TooLarge);
        }
        let used = self.bytes();
        if used.saturating_add(expected) > limits.bytes_max {
            // Asked before a byte is copied: the head of the answer says whether it is stored.
            let in_flight = used.saturating_sub(self.ranking().weight_bytes());
            if in_flight.saturating_add(expected) > self.room_bytes_max() {
                return Err(Reason::StoreFull);
            }
        }
        Ok(Fill::new(self.clone(), owner, expected_bytes))
    }

    /// Stores a response in its place, instead of the one with the same selection.
    ///
    /// `head` is the caller's prebuilt head (copied). Refuses with `purged` if the resource was invalidated since the
    /// forward began, with `store-full`, with `incomplete` if the content is shorter than expected, or with `superseded`
    /// if what is stored began to arrive later. Who reads the fill along gets all of it unless it is `incomplete`.
    pub fn insert(
        &self,
        place: &Place,
        stored: Stored,
        head: Bytes,
        fill: Fill,
    ) -> Result<Arc<Entry>, Reason> {
        self.insert_body(place, stored, &head, fill.finish()?)
    }

    /// Stores a response whose content was put together from a fill and from parts of entries (RFC 9111 §3.4), like
    /// [`Store::insert`].
    ///
    /// What concerned one of its sources since that source's forward began concerns the whole (`purged`).
    pub fn insert_segments(
        &self,
        place: &Place,
        stored: Stored,
        head: Bytes,
        mut body: Body,
    ) -> Result<Arc<Entry>, Reason> {
        body.compact(|bytes| self.reserve(place.owner, bytes));
        self.insert_body(place, stored, &head, body)
    }

    fn insert_body(
        &self,
        place: &Place,
        stored: Stored,
        head: &Bytes,
        body: Body,
    ) -> Result<Arc<Entry>, Reason> {
        let places = self.places(&place.resource, &stored);
        let identity = Identity { places, begun: body.begun(place.begun), owner: place.owner };
        let entry = self.entry(&place.key, identity, stored, head, body)?;
        self.put(&place.key, &entry, None)?;
        if self.alive(&entry) { Ok(entry) } else { Err(Reason::Purged) }
    }

    /// Gives a stored response new metadata and a new head after a validation (RFC 9111 §4.3.4), sharing its content;
    /// it then is the newest under its key and replaces whatever has its selection.
    ///
    /// It stays as old as its content: what was purged since that was forwarded stays dead. If `old` was replaced or
    /// evicted meanwhile, what is stored now stays, and the new form is the caller's alone. Refuses with `purged` or
    /// with `store-full`.
    pub fn freshen(
        &self,
        key: &[u8],
        resource: &[u8],
        old: &Arc<Entry>,
        stored: Stored,
        head: Bytes,
    ) -> Result<Arc<Entry>, Reason> {
        // The groups that it was in count as well as those that it is in by now.
        if !self.alive(old) {
            return Err(Reason::Purged);
        }
        let places = self.places(resource, &stored);
        let identity = Identity { places, ..old.identity.clone() };
        let entry = self.entry(key, identity, stored, &head, old.whole())?;
        // Superseded: two validations at a time are both right.
        let _ = self.put(key, &entry, Some(old));
        if self.alive(&entry) { Ok(entry) } else { Err(Reason::Purged) }
    }

    fn entry(
        &self,
        key: &[u8],
        identity: Identity,
        stored: Stored,
        head: &Bytes,
        body: Body,
    ) -> Result<Arc<Entry>, Reason> {
        // Only saves work: whatever is inserted is asked again at each look-up.
        if !self.are_alive(&identity.places, identity.begun) {
            return Err(Reason::Purged);
        }
        let permit = self.reserve(identity.owner, Entry::overhead(&stored, head, &body, key))?;
        let entry = Entry::new(stored, head, body, identity, permit, &self.shared.entries);
        if entry.weight_bytes() > self.room_bytes_max() {
            return Err(Reason::TooLarge);
        }
        Ok(Arc::new(entry))
    }

    /// Whether nothing concerned a resource since a forward for it began: whoever joins that forward may have its
    /// answer.
    pub fn is_current(&self, resource: &[u8], begun: Sequence) -> bool {
        self.shared.purges.alive(self.shared.purges.place(resource), begun)
    }

    /// The same for whoever is to get this answer of the forward: nothing concerned the other queries that it answers,
    /// or its groups, either.
    pub fn is_current_as(&self, resource: &[u8], stored: &Stored, begun: Sequence) -> bool {
        self.are_alive(&self.places(resource, stored), begun)
    }

    /// Where a response stands in the purge log.
    fn places(&self, resource: &[u8], stored: &Stored) -> Box<[purge::Place]> {
        let purges = &self.shared.purges;
        let searches = stored.search.iter().map(|_| purges.place(&policy::searches(resource)));
        let groups = stored.groups.iter().map(|group| purges.place(&policy::group(resource, group)));
        std::iter::once(purges.place(resource)).chain(searches).chain(groups).collect()
    }

    fn are_alive(&self, places: &[purge::Place], begun: Sequence) -> bool {
        places.iter().all(|place| self.shared.purges.alive(*place, begun))
    }

    /// Kills what was stored with a group of a resource's origin and every fill of such that began before (RFC 9875 §3).
    ///
    /// To be called when [`Store::invalidate`] is.
    pub fn invalidate_group(&self, resource: &[u8], group: &str) {
        self.purge(&policy::group(resource, group));
    }

    /// Kills every partition's copies of a resource, whatever else of its path answers several queries
    /// (No-Vary-Search), and every fill for them that began before.
    ///
    /// To be called after the answer to the unsafe request arrived and before it is passed on.
    pub fn invalidate(&self, resource: &[u8]) {
        self.purge(resource);
        self.purge(&policy::searches(resource));
    }

    /// The log first: a copy that is made in between is seen to be dead by whoever made it.
    fn purge(&self, name: &[u8]) {
        self.shared.purges.invalidate(name);
        self.tell(|observer| observer.invalidated(self.shared.purges.place(name)));
    }

    /// Kills everything stored and every fill that began before, and frees what nobody is sending.
    pub fn clear(&self) {
        self.shared.purges.clear();
        // The ranking first: a key that is stored between the two is in the table no more when it is ranked, never the
        // other way round, and an eviction that does not find its key does no harm.
        let ranked = self.ranking().take();
        self.shared.table.clear();
        drop(ranked);
        self.tell(|observer| observer.cleared());
    }

    /// Bytes in use: stored, evicted but still being sent, being filled.
    pub fn bytes(&self) -> u64 {
        self.shared.budget.used()
    }

    /// The bound of [`Store::bytes`].
    pub fn bytes_max(&self) -> u64 {
        self.shared.limits.bytes_max
    }

    /// How many responses are in memory, those evicted but still being sent included.
    pub fn entries(&self) -> u64 {
        self.shared.entries.load(Ordering::Relaxed)
    }

    fn ranking(&self) -> MutexGuard<'_, Ranking> {
        self.shared.ranking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that fills, and evicted contents that are still being sent, may have.
    fn room_bytes_max(&self) -> u64 {
        self.shared.limits.bytes_max - self.stored_bytes_min()
    }

    fn stored_bytes_min(&self) -> u64 {
        self.shared.limits.bytes_max / STORED_PART_MIN
    }

    /// Takes bytes out of the budget, where need be after evictions.
    fn reserve(&self, owner: u64, bytes: u64) -> Result<Permit, Reason> {
        loop {
            if let Some(permit) = self.shared.budget.reserve(bytes) {
                return Ok(permit);
            }
            // Each round takes a key out of the ranking: it ends, whatever the evicted ones still hold.
            if !self.evict(owner) {
                return Err(Reason::StoreFull);
            }
        }
    }

    /// Evicts one key, if more is stored than what never gives way.
    fn evict(&self, owner: u64) -> bool {
        let table = &self.shared.table;
        let mut ranking = self.ranking();
        if ranking.weight_bytes() <= self.stored_bytes_min() {
            return false;
        }
        let victim = ranking.evict(owner, |hash| table.popularity(hash));
        drop(ranking);
        if let Some(key) = victim.as_ref().and_then(|victim| table.remove(victim)) {
            self.tell(|observer| observer.changed(&key));
        }
        victim.is_some()
    }

    /// Reads, extends and writes the variants of a key.
    ///
    /// Refuses with `superseded` if the entry is to come in the place of one that is no longer there, or if what is
    /// there began to arrive later.
    fn put(&self, key: &[u8], entry: &Arc<Entry>, instead_of: Option<&Arc<Entry>>) -> Result<(), Reason> {
        let shared = &self.shared;
        let changed = shared.table.change(key, entry.identity.owner, |old| {
            let mut old: Vec<&Arc<Entry>> = old.into_iter().flat_map(Variants::iter).collect();
            if let Some(replaced) = instead_of {
                let at = old.iter().position(|old| Arc::ptr_eq(old, replaced)).ok_or(Reason::Superseded)?;
                old.remove(at);
            }
            let kept = old.into_iter().filter(|old| self.alive(old));
            if instead_of.is_none() && kept.clone().any(|old| old.stored.supersedes(&entry.stored)) {
                return Err(Reason::Superseded);
            }
            Ok(Variants::with(kept, entry, shared.limits.variants_max, self.room_bytes_max()))
        })?;
        match changed {
            Some(new) if new.is_new => {
                let popularity = shared.table.popularity(new.rank.hash);
                self.ranking().add(new.rank.clone(), popularity);
            }
            Some(old) => self.ranking().changed(&old.rank),
            None => {}
        }
        self.tell(|observer| observer.changed(key));
        Ok(())
    }
}

/// Whose an entry is and what kills it.
#[derive(Clone, Debug)]
struct Identity {
    /// Where it stands in the purge log: by its resource, its path where it answers other queries, and its groups.
    places: Box<[purge::Place]>,
    begun: Sequence,
    owner: u64,
}

#[cfg(test)]
mod tests;
