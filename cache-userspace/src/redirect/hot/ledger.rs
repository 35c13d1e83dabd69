//! What is resident, found by head, by the store's key and by what purges it; whose chunks are whose, and who gives way.
//!
//! Pure: it writes nowhere. What it takes out is to be retired by the caller; its chunks rest until the caller says
//! that nobody looks at them any more.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cache_common::hot::{Asker, CHUNKS_MAX, HotKey};

use super::Refusal;
use crate::store::PurgePlace;

/// How many entries are compared when one has to give way.
const COMPARED_MAX: usize = 32;
/// How many are looked at to find these: the search for the next one goes on behind them.
const VISITED_MAX: usize = 512;

/// A resident response.
#[derive(Debug)]
pub(super) struct Hot {
    /// The hash of its head.
    pub(super) head: HotKey,
    /// Whose it is.
    pub(super) asker: Asker,
    /// The key of the stored response that it is a copy of.
    pub(super) key: Arc<[u8]>,
    /// What purges that.
    pub(super) places: Box<[PurgePlace]>,
    /// Where it lies, the first one first.
    pub(super) chunks: Box<[u32]>,
    /// When it expires, nanoseconds of `CLOCK_BOOTTIME`.
    pub(super) expires_at_ns: u64,
    /// How often it was given when it was looked at last.
    pub(super) seen_hits: u64,
    /// How often it was given lately: halved at each tick.
    pub(super) worth: u64,
}

/// What was taken out and is to be retired.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone {
    /// The hash of its head.
    pub(super) head: HotKey,
    /// Its first chunk.
    pub(super) chunk: u32,
}

/// Chunks that programs may still be looking at.
#[derive(Debug)]
pub(super) struct Resting {
    workload: u64,
    chunks: Box<[u32]>,
    seen_hits: u64,
}

/// What a workload has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Chunks that hold its responses.
    pub chunks: usize,
    /// Requests of its that the kernel answered.
    pub hits: u64,
    /// Which enrolment of the workload it is.
    pub epoch: u32,
}

/// What something is worth in relation to the chunks that it takes.
fn for_memory(worth: u64, chunks: usize) -> u64 {
    worth.saturating_mul(CHUNKS_MAX as u64) / chunks.max(1) as u64
}

/// The ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    chunks: usize,
    /// Chunks of one workload above which, when all are used, it gives way before others and pushes out only its own.
    share: usize,
    free: Vec<u32>,
    limbo: Vec<Resting>,
    /// Chunks in limbo, and those that are waited for.
    resting: usize,
    slots: Vec<Option<Hot>>,
    vacant: Vec<usize>,
    /// Where the search for what gives way goes on.
    hand: usize,
    by_head: HashMap<HotKey, usize>,
    by_key: BTreeSet<(Arc<[u8]>, usize)>,
    by_place: BTreeSet<(PurgePlace, usize)>,
    workloads: BTreeMap<u64, Account>,
}

impl Ledger {
    /// A ledger of so many chunks, of which a workload's share is so many.
    pub(super) fn new(chunks: u32, share: usize) -> Self {
        Self {
            chunks: chunks as usize,
            share,
            // The first ones are taken first.
            free: (0..chunks).rev().collect(),
            limbo: Vec::new(),
            resting: 0,
            slots: Vec::new(),
            vacant: Vec::new(),
            hand: 0,
            by_head: HashMap::new(),
            by_key: BTreeSet::new(),
            by_place: BTreeSet::new(),
            workloads: BTreeMap::new(),
        }
    }

    /// Lets a workload have resident responses, on connections of this enrolment.
    pub(super) fn add_workload(&mut self, workload: u64, epoch: u32) {
        self.workloads.entry(workload).or_default().epoch = epoch;
    }

    /// Takes a workload out, after everything that it has.
    pub(super) fn remove_workload(&mut self, workload: u64) {
        self.workloads.remove(&workload);
    }

    /// Whether who asks may have resident responses.
    pub(super) fn has_workload(&self, asker: &Asker) -> bool {
        self.workloads.get(&asker.workload).is_some_and(|account| account.epoch == asker.epoch)
    }

    /// What each workload has.
    pub(super) fn workloads(&self) -> impl Iterator<Item = (u64, Account)> + '_ {
        self.workloads.iter().map(|(workload, account)| (*workload, *account))
    }

    /// How many responses are resident.
    pub(super) fn entries(&self) -> usize {
        self.by_head.len()
    }

    /// Chunks that hold them, those at rest not counted.
    pub(super) fn chunks_used(&self) -> usize {
        self.chunks - self.free.len() - self.resting
    }

    /// Whether this head's response is resident at this time.
    pub(super) fn has(&self, head: &HotKey, now_ns: u64) -> bool {
        self.of_head(head).and_then(|slot| self.at(slot)).is_some_and(|hot| hot.expires_at_ns > now_ns)
    }

    pub(super) fn of_head(&self, head: &HotKey) -> Option<usize> {
        self.by_head.get(head).copied()
    }

    /// Takes chunks for something that was asked for `worth` times lately.
    ///
    /// Where there are too few, entries are taken out until there will be enough after their rest, and it refuses with
    /// `grace`; with `quota` or `worth` where none may be taken out.
    pub(super) fn allocate(
        &mut self,
        workload: u64,
        needed: usize,
        worth: u64,
        now_ns: u64,
        gone: &mut Vec<Gone>,
    ) -> Result<Box<[u32]>, Refusal> {
        if needed > self.chunks {
            return Err(Refusal::TooLarge);
        }
        if let Some(kept) = self.free.len().checked_sub(needed) {
            let mut chunks = self.free.split_off(kept);
            chunks.reverse();
            return Ok(chunks.into());
        }
        while self.free.len() + self.resting < needed {
            let slot = self.victim(workload, needed, worth, now_ns)?;
            gone.extend(self.remove(slot));
        }
        Err(Refusal::Grace)
    }

    /// Who gives way to something of `workload`: its own where it has its share, else of whoever has more than that,
    /// else of anybody; the least worth of some, for the memory that it takes.
    fn victim(&mut self, workload: u64, needed: usize, worth: u64, now_ns: u64) -> Result<usize, Refusal> {
        let has = |workload: u64| self.workloads.get(&workload).map_or(0, |account| account.chunks);
        let is_own = |hot: &Hot| hot.asker.workload == workload;
        let gives_more = |hot: &Hot| has(hot.asker.workload) > self.share;
        let exceeds = has(workload) + needed > self.share;
        let does_any_give_more = self.workloads.values().any(|account| account.chunks > self.share);
        let (victim, end) = if exceeds {
            self.least(is_own, now_ns)
        } else if does_any_give_more {
            self.least(gives_more, now_ns)
        } else {
            self.least(|_| true, now_ns)
        };
        self.hand = end;
        let refusal = if exceeds { Refusal::Quota } else { Refusal::Worth };
        let (slot, its_worth) = victim.ok_or(refusal)?;
        if its_worth <= for_memory(worth, needed) { Ok(slot) } else { Err(refusal) }
    }

    /// The least worth of the next ones after the hand, with its worth for its memory, and where the hand is afterwards.
    fn least(&self, may_go: impl Fn(&Hot) -> bool, now_ns: u64) -> (Option<(usize, u64)>, usize) {
        let count = self.slots.len();
        let hand = self.hand.min(count);
        let mut end = hand;
        let around = (hand..count).chain(0..hand).take(VISITED_MAX).inspect(|slot| end = slot + 1);
        let candidates = around.filter_map(|slot| Some((slot, self.at(slot).filter(|hot| may_go(hot))?)));
        let worth = |hot: &Hot| match hot.expires_at_ns <= now_ns {
            true => 0,
            false => for_memory(hot.worth, hot.chunks.len()),
        };
        let least = candidates.take(COMPARED_MAX).map(|(slot, hot)| (worth(hot), slot)).min();
        (least.map(|(worth, slot)| (slot, worth)), if end < count { end } else { 0 })
    }

    /// Gives chunks back that nobody ever could find.
    pub(super) fn give_back(&mut self, chunks: Box<[u32]>) {
        self.free.extend(chunks);
    }

    /// Enters what is written; nothing else may have its head.
    pub(super) fn insert(&mut self, hot: Hot) -> usize {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.by_head.insert(hot.head, slot);
        self.by_key.insert((hot.key.clone(), slot));
        self.by_place.extend(hot.places.iter().map(|place| (*place, slot)));
        self.workloads.entry(hot.asker.workload).or_default().chunks += hot.chunks.len();
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(hot);
        }
        slot
    }

    /// Takes an entry out; its chunks rest from now on.
    pub(super) fn remove(&mut self, slot: usize) -> Option<Gone> {
        let hot = self.slots.get_mut(slot)?.take()?;
        self.vacant.push(slot);
        self.by_head.remove(&hot.head);
        self.by_key.remove(&(hot.key, slot));
        for place in hot.places {
            self.by_place.remove(&(place, slot));
        }
        let workload = hot.asker.workload;
        if let Some(account) = self.workloads.get_mut(&workload) {
            account.chunks -= hot.chunks.len();
        }
        self.resting += hot.chunks.len();
        let chunk = hot.chunks.first().copied()?;
        self.limbo.push(Resting { workload, chunks: hot.chunks, seen_hits: hot.seen_hits });
        Some(Gone { head: hot.head, chunk })
    }

    /// The entries that are copies of what is stored under a key.
    pub(super) fn of_key(&self, key: &[u8]) -> Vec<usize> {
        self.keys_from(key).take_while(|(found, _)| **found == *key).map(|(_, slot)| *slot).collect()
    }

    /// The entries for a path, whatever their query; `path` is the key without one.
    pub(super) fn of_path(&self, path: &[u8]) -> Vec<usize> {
        let with_query = [path, b"?"].concat();
        let queries = self.keys_from(&with_query).take_while(|(key, _)| key.starts_with(&with_query));
        self.of_key(path).into_iter().chain(queries.map(|(_, slot)| *slot)).collect()
    }

    fn keys_from(&self, key: &[u8]) -> impl Iterator<Item = &(Arc<[u8]>, usize)> {
        self.by_key.range((Arc::from(key), 0)..)
    }

    /// The entries that a purge of this place concerns.
    pub(super) fn of_place(&self, place: PurgePlace) -> Vec<usize> {
        self.by_place.range((place, 0)..=(place, usize::MAX)).map(|(_, slot)| *slot).collect()
    }

    /// The entries that are wanted.
    pub(super) fn all(&self, is_wanted: impl Fn(&Hot) -> bool) -> Vec<usize> {
        (0..self.slots.len()).filter(|slot| self.at(*slot).is_some_and(&is_wanted)).collect()
    }

    /// Everybody who has an entry, with each destination that there is one for.
    pub(super) fn askers(&self) -> HashSet<Asker> {
        self.slots.iter().flatten().map(|hot| hot.asker).collect()
    }

    /// An entry.
    pub(super) fn at(&self, slot: usize) -> Option<&Hot> {
        self.slots.get(slot)?.as_ref()
    }

    /// Takes note of how often each entry was given by now; returns the keys of those that were since the last time.
    pub(super) fn tick(&mut self, hits: impl Fn(u32) -> u64) -> Vec<Arc<[u8]>> {
        let mut used = Vec::new();
        for hot in self.slots.iter_mut().flatten() {
            let Some(first) = hot.chunks.first() else { continue };
            let now = hits(*first);
            let since = now.saturating_sub(hot.seen_hits);
            hot.seen_hits = now;
            hot.worth = hot.worth / 2 + since;
            if since > 0 {
                used.push(hot.key.clone());
                if let Some(account) = self.workloads.get_mut(&hot.asker.workload) {
                    account.hits += since;
                }
            }
        }
        used.sort_unstable();
        used.dedup();
        used
    }

    /// Whether chunks are at rest that nobody waits for.
    pub(super) fn has_limbo(&self) -> bool {
        !self.limbo.is_empty()
    }

    /// Takes the chunks at rest, to be waited for; `rested` gives them back.
    pub(super) fn take_limbo(&mut self) -> Vec<Resting> {
        std::mem::take(&mut self.limbo)
    }

    /// Puts chunks back that were waited for in vain.
    pub(super) fn put_back(&mut self, resting: Vec<Resting>) {
        self.limbo.extend(resting);
    }

    /// Frees chunks that nobody looks at any more, and counts what was given of them to the end.
    pub(super) fn rested(&mut self, resting: Vec<Resting>, hits: impl Fn(u32) -> u64) {
        for one in resting {
            let since = one.chunks.first().map_or(0, |first| hits(*first)).saturating_sub(one.seen_hits);
            if let Some(account) = self.workloads.get_mut(&one.workload) {
                account.hits += since;
            }
            self.resting -= one.chunks.len();
            self.free.extend(one.chunks);
        }
    }
}

#[cfg(test)]
mod tests;
