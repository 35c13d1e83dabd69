//! Who gives way when the store is full, and who is let in then.
//!
//! Worth is how often a key is asked for, divided by its bytes to the power of 0.7. The power stands between most hits
//! (1) and most bytes from the cache (0). When the store is nearly full, a newcomer must be worth as much as each whose
//! place it takes, so that a scan passes by. On Zipf(0.9) with and without a scan this answered more requests than the
//! least recently used, S3-FIFO, W-TinyLFU as moka makes it, and GDSF with the same admission, and more bytes than W-TinyLFU;
//! where all popularity changed every 30 000 requests, still more requests than W-TinyLFU but fewer bytes
//! (`cargo xtask cachesim` for what is still compared; 2026-11-21).
//!
//! Nothing is moved at a hit: it leaves a mark, and who bears one when its turn comes is ranked again. Where entries
//! are kept and how their bytes come back is left to the store.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use crate::policy::Reason;

/// Marked ones that are ranked again in search of one victim; then the next is taken with its mark.
const RERANKED_MAX: usize = 64;

/// The power of its bytes that the worth of a key is divided by.
const BYTES_POWER: f64 = 0.7;

/// Victims that a newcomer is compared with: one worth more than so many of the least is let in.
const COMPARED_MAX: usize = 1024;

/// A key in the ranking.
#[derive(Debug)]
pub(super) struct Rank {
    pub(super) hash: u64,
    owner: u64,
    /// Bytes of the budget that its variants hold; written under the lock of its shard.
    weight_bytes: AtomicU64,
    /// What of it is counted in its queue, and 0 outside; written under the lock of the ranking.
    counted_bytes: AtomicU64,
    /// Whether it was asked for or changed since it was ranked.
    is_marked: AtomicBool,
}

impl Rank {
    pub(super) fn new(hash: u64, owner: u64) -> Self {
        Self {
            hash,
            owner,
            weight_bytes: AtomicU64::new(0),
            counted_bytes: AtomicU64::new(0),
            is_marked: AtomicBool::new(false),
        }
    }

    pub(super) fn mark(&self) {
        // Looked at first: a line that many processors only read stays in the cache of each.
        if !self.is_marked.load(Relaxed) {
            self.is_marked.store(true, Relaxed);
        }
    }

    pub(super) fn weigh(&self, bytes: u64) {
        self.weight_bytes.store(bytes, Relaxed);
    }
}

/// Every key that may be evicted, by owner and worth.
pub(super) struct Ranking {
    queues: HashMap<u64, Queue>,
    weight_bytes: u64,
    /// Bytes above which an owner gives way before the others do.
    share_bytes_max: u64,
}

/// The keys of one owner, the least worth first.
#[derive(Default)]
struct Queue {
    keys: BinaryHeap<Reverse<Ranked>>,
    weight_bytes: u64,
}

struct Ranked {
    worth: f64,
    rank: Arc<Rank>,
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Ranked {}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.worth.total_cmp(&other.worth)
    }
}

impl Ranking {
    pub(super) fn new(share_bytes_max: u64) -> Self {
        Self { queues: HashMap::new(), weight_bytes: 0, share_bytes_max }
    }

    /// Bytes of all keys.
    pub(super) fn weight_bytes(&self) -> u64 {
        self.weight_bytes
    }

    /// Ranks a new key.
    pub(super) fn add(&mut self, rank: Arc<Rank>, popularity: f64) {
        let worth = worth(popularity, rank.weight_bytes.load(Relaxed));
        self.push(Ranked { worth, rank });
    }

    /// Takes note that the weight of a key has changed.
    pub(super) fn changed(&mut self, rank: &Rank) {
        let before = rank.counted_bytes.load(Relaxed);
        let Some(queue) = self.queues.get_mut(&rank.owner).filter(|_| before > 0) else { return };
        let now = rank.weight_bytes.load(Relaxed).max(1);
        rank.counted_bytes.store(now, Relaxed);
        queue.weight_bytes = queue.weight_bytes - before + now;
        self.weight_bytes = self.weight_bytes - before + now;
        rank.mark();
    }

    /// Takes out the key that gives way to something of `owner`: of `owner` itself where it has its share or more,
    /// else of whoever exceeds its own the most, else the least worth of all.
    pub(super) fn evict(&mut self, owner: u64, popularity: impl Fn(u64) -> f64) -> Option<Arc<Rank>> {
        self.least(owner, popularity).map(|victim| victim.rank)
    }

    /// Whether something of `owner`, of such popularity, may take the place of the least worth until there is room
    /// for `needed_bytes`.
    ///
    /// Refuses with `admission`, or with `quota` if `owner` has its share already.
    pub(super) fn admit(
        &mut self,
        owner: u64,
        own_popularity: f64,
        bytes: u64,
        needed_bytes: u64,
        popularity: impl Fn(u64) -> f64,
    ) -> Result<(), Reason> {
        let worth = worth(own_popularity, bytes);
        let mut victims = Vec::new();
        let mut freed_bytes = 0;
        let mut admitted = Ok(());
        while freed_bytes < needed_bytes && victims.len() < COMPARED_MAX {
            let exceeds_share = self.share_of(owner) >= self.share_bytes_max;
            let Some(victim) = self.least(owner, &popularity) else { break };
            freed_bytes += victim.rank.weight_bytes.load(Relaxed);
            // Whoever exceeds its share gives way to the others whatever it is worth.
            let is_owed = victim.rank.owner != owner
                && self.share_of(victim.rank.owner) + victim.rank.weight_bytes.load(Relaxed)
                    > self.share_bytes_max;
            if worth < victim.worth && !is_owed {
                admitted = Err(if exceeds_share { Reason::Quota } else { Reason::Admission });
            }
            victims.push(victim);
            if admitted.is_err() {
                break;
            }
        }
        victims.into_iter().for_each(|victim| self.push(victim));
        admitted
    }

    /// Empties it; the keys are the caller's to drop outside its lock.
    pub(super) fn take(&mut self) -> impl Sized + use<> {
        self.weight_bytes = 0;
        for Reverse(ranked) in self.queues.values().flat_map(|queue| queue.keys.iter()) {
            ranked.rank.counted_bytes.store(0, Relaxed);
        }
        std::mem::take(&mut self.queues)
    }

    fn share_of(&self, owner: u64) -> u64 {
        self.queues.get(&owner).map_or(0, |queue| queue.weight_bytes)
    }

    fn push(&mut self, ranked: Ranked) {
        // At least 1: 0 says that it is in no queue.
        let bytes = ranked.rank.weight_bytes.load(Relaxed).max(1);
        ranked.rank.counted_bytes.store(bytes, Relaxed);
        let queue = self.queues.entry(ranked.rank.owner).or_default();
        queue.weight_bytes += bytes;
        self.weight_bytes += bytes;
        queue.keys.push(Reverse(ranked));
    }

    fn pop(&mut self, owner: u64) -> Option<Ranked> {
        let queue = self.queues.get_mut(&owner)?;
        let Reverse(ranked) = queue.keys.pop()?;
        let bytes = ranked.rank.counted_bytes.swap(0, Relaxed);
        queue.weight_bytes -= bytes;
        self.weight_bytes -= bytes;
        if queue.keys.is_empty() {
            self.queues.remove(&owner);
        }
        Some(ranked)
    }

    fn least(&mut self, owner: u64, popularity: impl Fn(u64) -> f64) -> Option<Ranked> {
        for _ in 0..RERANKED_MAX {
            let mut ranked = self.pop(self.giving_way_to(owner)?)?;
            if !ranked.rank.is_marked.swap(false, Relaxed) {
                return Some(ranked);
            }
            let worth = worth(popularity(ranked.rank.hash), ranked.rank.weight_bytes.load(Relaxed));
            ranked.worth = worth;
            self.push(ranked);
        }
        self.pop(self.giving_way_to(owner)?)
    }

    fn giving_way_to(&self, owner: u64) -> Option<u64> {
        let share = self.share_bytes_max;
        if self.queues.get(&owner).is_some_and(|queue| queue.weight_bytes >= share) {
            return Some(owner);
        }
        let exceeding = self.queues.iter().filter(|(_, queue)| queue.weight_bytes > share);
        let most = exceeding.max_by_key(|(_, queue)| queue.weight_bytes);
        let least = || {
            let tops = self.queues.iter().filter_map(|(owner, queue)| Some((owner, &queue.keys.peek()?.0)));
            tops.min_by(|(_, left), (_, right)| left.cmp(right)).map(|(owner, _)| owner)
        };
        most.map(|(owner, _)| owner).or_else(least).copied()
    }
}

/// The logarithm of a key's worth; the popularity is one itself.
fn worth(popularity: f64, bytes: u64) -> f64 {
    popularity - BYTES_POWER * (bytes.max(1) as f64).log2()
}
