//! The hash table of the memory tier: keys, their variants and their rank, in shards with a lock each.
//!
//! A look-up takes the lock of its shard for reading, leaves a mark and counts; it allocates nothing. Who is evicted is
//! left to `ranking`.

use std::{
    hash::{BuildHasher, RandomState},
    ops::ControlFlow,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use hashbrown::{HashTable, hash_table::Entry};

use super::{entry::Variants, ranking::Rank, sketch::Sketch};

/// Shards; keys of one wait for each other while something is stored in it.
const SHARDS: usize = 64;

pub(super) struct Table {
    shards: Box<[Shard]>,
    /// Keyed by a secret of this process, so that nobody can aim at a shard or at another's counters.
    hash: RandomState,
}

struct Shard {
    slots: RwLock<HashTable<Slot>>,
    sketch: Sketch,
}

struct Slot {
    key: Box<[u8]>,
    variants: Arc<Variants>,
    rank: Arc<Rank>,
}

/// What a change of a key left behind.
pub(super) struct Changed {
    pub(super) rank: Arc<Rank>,
    /// Whether the key is new to the table.
    pub(super) is_new: bool,
    /// To be dropped outside every lock: it may free megabytes.
    _old: Option<Arc<Variants>>,
}

impl Shard {
    fn read(&self) -> RwLockReadGuard<'_, HashTable<Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashTable<Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// An empty table whose memory of frequencies is made for so many keys.
    pub(super) fn new(keys: usize) -> Self {
        let shard = || Shard { slots: RwLock::default(), sketch: Sketch::new(keys / SHARDS) };
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), hash: RandomState::new() }
    }

    pub(super) fn hash(&self, key: &[u8]) -> u64 {
        self.hash.hash_one(key)
    }

    fn shard(&self, hash: u64) -> Option<&Shard> {
        // By bits from the middle: the hash tables go by the lowest and the uppermost.
        self.shards.get((hash >> 40) as usize % SHARDS)
    }

    /// The variants of a key that is asked for.
    pub(super) fn look_up(&self, key: &[u8]) -> Option<Arc<Variants>> {
        let hash = self.hash(key);
        let shard = self.shard(hash)?;
        shard.sketch.count(hash);
        let slots = shard.read();
        let slot = slots.find(hash, |slot| *slot.key == *key)?;
        slot.rank.mark();
        Some(slot.variants.clone())
    }

    /// The variants of a key that nobody asks for.
    pub(super) fn peek(&self, key: &[u8]) -> Option<Arc<Variants>> {
        let hash = self.hash(key);
        Some(self.shard(hash)?.read().find(hash, |slot| *slot.key == *key)?.variants.clone())
    }

    /// Shows every key, a shard at a time, until told to stop.
    pub(super) fn visit(&self, mut see: impl FnMut(&[u8]) -> ControlFlow<()>) -> ControlFlow<()> {
        self.shards.iter().try_for_each(|shard| shard.read().iter().try_for_each(|slot| see(&slot.key)))
    }

    pub(super) fn contains(&self, hash: u64, key: &[u8]) -> bool {
        self.shard(hash).is_some_and(|shard| shard.read().find(hash, |slot| *slot.key == *key).is_some())
    }

    /// How often the key with this hash was asked for lately: see [`Sketch::popularity`].
    pub(super) fn popularity(&self, hash: u64) -> f64 {
        self.shard(hash).map_or(0.0, |shard| shard.sketch.popularity(hash))
    }

    /// Replaces the variants of a key by what `change` makes of them, one change of a key at a time, so that none is
    /// lost. The caller then tells the ranking.
    pub(super) fn change<E>(
        &self,
        key: &[u8],
        owner: u64,
        change: impl FnOnce(Option<&Variants>) -> Result<Variants, E>,
    ) -> Result<Option<Changed>, E> {
        let hash = self.hash(key);
        let Some(shard) = self.shard(hash) else { return Ok(None) };
        let mut slots = shard.write();
        match slots.entry(hash, |slot| *slot.key == *key, |slot| slot.rank.hash) {
            Entry::Occupied(mut slot) => {
                let slot = slot.get_mut();
                let variants = Arc::new(change(Some(&slot.variants))?);
                slot.rank.weigh(variants.weight_bytes());
                let old = std::mem::replace(&mut slot.variants, variants);
                Ok(Some(Changed { rank: slot.rank.clone(), is_new: false, _old: Some(old) }))
            }
            Entry::Vacant(slot) => {
                let variants = Arc::new(change(None)?);
                let rank = Arc::new(Rank::new(hash, owner));
                rank.weigh(variants.weight_bytes());
                slot.insert(Slot { key: Box::from(key), variants, rank: rank.clone() });
                Ok(Some(Changed { rank, is_new: true, _old: None }))
            }
        }
    }

    /// Takes out the key of a rank; what it held is freed outside the lock.
    /// Takes a key out, and returns it where it was still there.
    pub(super) fn remove(&self, rank: &Arc<Rank>) -> Option<Box<[u8]>> {
        let shard = self.shard(rank.hash)?;
        let is_it = |slot: &Slot| Arc::ptr_eq(&slot.rank, rank);
        let removed = shard.write().find_entry(rank.hash, is_it).ok().map(|found| found.remove().0);
        removed.map(|slot| slot.key)
    }

    pub(super) fn clear(&self) {
        for shard in &self.shards {
            let slots = std::mem::take(&mut *shard.write());
            drop(slots);
        }
    }
}
