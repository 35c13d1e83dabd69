//! Stored responses in memory: a bounded set of variants under each key, one byte budget, and the purge log.
//!
//! Which response may be stored or reused is left to `policy`, what its head looks like to `respond`. Freshness is
//! kept in the entry: nothing expires by itself here, it is evicted or replaced.

mod body;
mod budget;
mod entry;
mod fill;
mod filled;
mod purge;
mod recording;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

pub use body::Body;
use budget::{Budget, Permit};
use bytes::Bytes;
pub use entry::{Entry, Variants};
pub use fill::{Fill, SEGMENT_BYTES_MAX};
pub use filled::{Filled, HAND_OVER_BYTES_MAX, HandOver, Read, Reader};
use moka::sync::Cache;
use purge::PurgeLog;
pub use purge::Sequence;
pub use recording::{Place, Recording};

use crate::policy::{self, Reason, Stored};

/// Weights are counted in units of so many bytes: the eviction policy's own weight has only 32 bits.
const WEIGHT_UNIT_BYTES: u64 = 256;

/// From this size on an insert has the eviction policy do its work at once, so that what it evicts is free again.
const LARGE_BYTES: u64 = 64 << 10;

/// Inserts of keys that share a lock wait for each other; look-ups take none of these.
const INSERT_LOCKS: usize = 64;

/// The bounds of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreLimits {
    /// Bytes of all that is stored, evicted but still being sent, or being filled.
    pub bytes_max: u64,
    /// Bytes of one response's content.
    pub object_bytes_max: u64,
    /// Variants under one key; the oldest gives way.
    pub variants_max: usize,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self { bytes_max: 256 << 20, object_bytes_max: 16 << 20, variants_max: 64 }
    }
}

/// The memory tier. Clones are handles of the same store.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    limits: StoreLimits,
    cache: Cache<Box<[u8]>, Arc<Slot>>,
    /// What the eviction policy may hold, in bytes: the budget less the headroom for fills and evicted entries.
    capacity_bytes: u64,
    budget: Arc<Budget>,
    purges: PurgeLog,
    entries: Arc<AtomicU64>,
    insert_locks: [Mutex<()>; INSERT_LOCKS],
    insert_lock_of: RandomState,
}

/// What the cache holds for a key. Emptied when it is evicted or replaced: the cache frees its values by epochs, at
/// some later time, and the bytes must come back to the budget at once.
struct Slot {
    variants: Mutex<Option<Arc<Variants>>>,
    weight: u32,
}

impl Slot {
    fn variants(&self) -> Option<Arc<Variants>> {
        self.variants.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn empty(&self) {
        let taken = self.variants.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Dropped outside the lock: it may free megabytes.
        drop(taken);
    }
}

impl Store {
    /// Makes an empty store.
    pub fn new(limits: StoreLimits) -> Self {
        // An eighth stays free for fills and for what was evicted and is still being sent; more, up to a quarter,
        // where the largest object would not fit into an eighth.
        let headroom = (limits.bytes_max / 8).max(limits.object_bytes_max.min(limits.bytes_max / 4));
        let capacity_bytes = limits.bytes_max - headroom;
        let cache = Cache::builder()
            .max_capacity(capacity_bytes / WEIGHT_UNIT_BYTES)
            .weigher(|_, slot: &Arc<Slot>| slot.weight)
            .eviction_listener(|_, slot: Arc<Slot>, _| slot.empty())
            .build();
        let shared = Shared {
            limits,
            cache,
            capacity_bytes,
            budget: Arc::new(Budget::new(limits.bytes_max)),
            purges: PurgeLog::new(),
            entries: Arc::default(),
            insert_locks: [const { Mutex::new(()) }; INSERT_LOCKS],
            insert_lock_of: RandomState::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The variants stored under a key, dead ones included: ask [`Store::alive`]. Allocates nothing for a hit.
    pub fn variants(&self, key: &[u8]) -> Option<Arc<Variants>> {
        let slot = self.shared.cache.get(key)?;
        // Empty: replaced since it was looked up; then its successor is there by now.
        slot.variants().or_else(|| self.shared.cache.get(key)?.variants())
    }

    /// Whether no purge or unsafe request concerned an entry since its forward began.
    pub fn alive(&self, entry: &Entry) -> bool {
        self.are_alive(&entry.places, entry.begun)
    }

    /// The moment in the purge log at which a forward begins: to be taken before the request is sent.
    pub fn begin(&self) -> Sequence {
        self.shared.purges.begin()
    }

    /// Begins to collect a content of `expected_bytes`, if that is known.
    ///
    /// Refuses with `too-large` or `store-full`.
    pub fn fill(&self, expected_bytes: Option<u64>) -> Result<Fill, Reason> {
        let expected = expected_bytes.unwrap_or(0);
        if expected > self.shared.limits.object_bytes_max {
            return Err(Reason::TooLarge);
        }
        if expected > self.shared.limits.bytes_max {
            return Err(Reason::StoreFull);
        }
        // Asks without taking: saves the copying where the room is missing from the start.
        drop(self.reserve(expected)?);
        Ok(Fill::new(self.clone(), expected_bytes))
    }

    /// Stores a response under its key, in place of the one with the same selection.
    ///
    /// `resource` is what [`Store::invalidate`] will name, `begun` comes from [`Store::begin`], `head` is the
    /// caller's prebuilt head (copied). Refuses with `purged` if the resource was invalidated since, with
    /// `store-full`, or with `incomplete` if the content is shorter than expected. Who reads the fill along gets all
    /// of it unless it is `incomplete`.
    pub fn insert(
        &self,
        key: &[u8],
        resource: &[u8],
        begun: Sequence,
        stored: Stored,
        head: Bytes,
        fill: Fill,
    ) -> Result<Arc<Entry>, Reason> {
        self.insert_body(key, resource, begun, stored, head, fill.finish()?)
    }

    /// Stores a response whose content was put together from a fill and from parts of entries (RFC 9111 §3.4), like
    /// [`Store::insert`].
    ///
    /// What concerned one of its sources since that source's forward began concerns the whole (`purged`).
    pub fn insert_segments(
        &self,
        key: &[u8],
        resource: &[u8],
        begun: Sequence,
        stored: Stored,
        head: Bytes,
        mut body: Body,
    ) -> Result<Arc<Entry>, Reason> {
        body.compact(|bytes| self.reserve(bytes));
        self.insert_body(key, resource, begun, stored, head, body)
    }

    fn insert_body(
        &self,
        key: &[u8],
        resource: &[u8],
        begun: Sequence,
        stored: Stored,
        head: Bytes,
        body: Body,
    ) -> Result<Arc<Entry>, Reason> {
        let places = self.places(resource, &stored);
        let entry = self.entry(key, places, body.begun(begun), stored, &head, body)?;
        self.put(key, &entry, None)?;
        if entry.body_bytes >= LARGE_BYTES {
            self.shared.cache.run_pending_tasks();
        }
        if self.alive(&entry) { Ok(entry) } else { Err(Reason::Purged) }
    }

    /// Gives a stored response new metadata and a new head after a validation (RFC 9111 §4.3.4), sharing its content;
    /// it then is the newest under its key and replaces whatever has its selection.
    ///
    /// It stays as old as its content: what was purged since that was forwarded stays dead. Refuses with `purged`, with
    /// `store-full`, or with `superseded` if `old` was replaced or evicted meanwhile: what is stored now stays.
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
        let entry = self.entry(key, places, old.begun, stored, &head, old.whole())?;
        self.put(key, &entry, Some(old))?;
        if self.alive(&entry) { Ok(entry) } else { Err(Reason::Purged) }
    }

    fn entry(
        &self,
        key: &[u8],
        places: Box<[purge::Place]>,
        begun: Sequence,
        stored: Stored,
        head: &Bytes,
        body: Body,
    ) -> Result<Arc<Entry>, Reason> {
        // Only saves work: whatever is inserted is asked again at each look-up.
        if !self.are_alive(&places, begun) {
            return Err(Reason::Purged);
        }
        let permit = self.reserve(Entry::overhead(&stored, head, &body, key))?;
        let entry = Entry::new(stored, head, body, places, begun, permit, &self.shared.entries);
        if entry.weight_bytes() > self.shared.capacity_bytes {
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
        self.shared.purges.invalidate(&policy::group(resource, group));
    }

    /// Kills every partition's copies of a resource, whatever else of its path answers several queries
    /// (No-Vary-Search), and every fill for them that began before.
    ///
    /// To be called after the answer to the unsafe request arrived and before it is passed on.
    pub fn invalidate(&self, resource: &[u8]) {
        self.shared.purges.invalidate(resource);
        self.shared.purges.invalidate(&policy::searches(resource));
    }

    /// Kills everything stored and every fill that began before, and frees what nobody is sending.
    pub fn clear(&self) {
        self.shared.purges.clear();
        let cache = &self.shared.cache;
        cache.invalidate_all();
        cache.run_pending_tasks();
        // One round removes a batch. It ends when nothing is left, or when inserts outrun it.
        let mut left = u64::MAX;
        while (1..left).contains(&cache.entry_count()) {
            left = cache.entry_count();
            cache.run_pending_tasks();
        }
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

    /// Takes bytes out of the budget, if need be after the evictions that are due.
    fn reserve(&self, bytes: u64) -> Result<Permit, Reason> {
        if let Some(permit) = self.shared.budget.reserve(bytes) {
            return Ok(permit);
        }
        self.shared.cache.run_pending_tasks();
        self.shared.budget.reserve(bytes).ok_or(Reason::StoreFull)
    }

    /// Reads, extends and writes the variants of a key, one insert of a key at a time, so that none is lost.
    ///
    /// Refuses with `superseded` if the entry is to come in the place of one that is no longer there.
    fn put(&self, key: &[u8], entry: &Arc<Entry>, instead_of: Option<&Arc<Entry>>) -> Result<(), Reason> {
        let shared = &self.shared;
        let index = shared.insert_lock_of.hash_one(key) as usize % INSERT_LOCKS;
        let _guard =
            shared.insert_locks.get(index).map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner));
        let old = self.variants(key);
        let mut old: Vec<&Arc<Entry>> = old.iter().flat_map(|variants| variants.iter()).collect();
        if let Some(replaced) = instead_of {
            let index = old.iter().position(|old| Arc::ptr_eq(old, replaced)).ok_or(Reason::Superseded)?;
            old.remove(index);
        }
        let kept = old.into_iter().filter(|old| self.alive(old));
        let variants = Variants::with(kept, entry, shared.limits.variants_max, shared.capacity_bytes);
        let weight = variants.iter().map(|entry| entry.weight_bytes()).sum::<u64>();
        let weight = u32::try_from(weight.div_ceil(WEIGHT_UNIT_BYTES)).unwrap_or(u32::MAX);
        let slot = Slot { variants: Mutex::new(Some(Arc::new(variants))), weight };
        shared.cache.insert(Box::from(key), Arc::new(slot));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
