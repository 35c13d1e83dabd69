//! The hot set: which stored responses lie in kernel memory, and for how long.
//!
//! What the daemon answered twice in a while, and may be answered without it, is copied there; it goes as soon as what
//! it is a copy of is purged, replaced or expires, or when it has to give way. What may be promoted is left to
//! `request`, how an entry lies in memory to `resident`.
//!
//! Order. An entry is written first, then put into the index, then looked at once more: what is stored now? Whoever
//! changes the store does it first and then tells here. So one of the two sees the other, whichever is first, and
//! nothing stays that is not stored. A chunk is written again only after everybody who could have found it has ended.

mod ledger;
mod refusal;
mod shelf;
mod skipped;
mod tags;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cache_common::connection::IpWords;
use cache_common::hot::{AGE_MAX_S, Asker, HotKey, HotSlot, Seeds, slice};
use tokio::sync::{Notify, watch};

pub use self::ledger::Account;
use self::ledger::{Gone, Hot, Ledger};
pub use self::refusal::Refusal;
pub use self::shelf::Shelf;
pub use self::skipped::{DEFAULT_NAMES, Skipped};
use self::tags::Tags;
use super::resident::Resident;
use crate::policy;
use crate::respond::image::Image;
use crate::store::{Observer, PurgePlace};

/// After so many answers of the daemon in a while a response is promoted.
const HITS_BEFORE_PROMOTION: u32 = 2;

/// The bounds of a hot set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotLimits {
    /// Chunks of kernel memory.
    pub chunks: u32,
    /// Hundredths of them that a workload may keep when all are used. While there is room it may have all.
    pub workload_percent: u8,
    /// The largest response, bytes, its head included.
    pub response_bytes_max: usize,
    /// How long connections to a destination are enrolled after its last response left.
    pub destination_linger: Duration,
}

impl Default for HotLimits {
    fn default() -> Self {
        Self {
            chunks: 4096,
            workload_percent: 50,
            response_bytes_max: usize::MAX,
            destination_linger: Duration::from_secs(60),
        }
    }
}

/// A response that the daemon has just given.
pub struct Offer<'a> {
    /// To whom, and what for.
    pub asker: Asker,
    /// The request's head.
    pub head: &'a [u8],
    /// The key under which it is stored.
    pub key: &'a [u8],
    /// What purges it.
    pub places: &'a [PurgePlace],
    /// Now, nanoseconds of `CLOCK_BOOTTIME`.
    pub now_ns: u64,
    /// Its current age (RFC 9111 §4.2.3).
    pub age: Duration,
    /// How much longer it may be reused.
    pub fresh_for: Duration,
    /// Makes its bytes, if they are not too many.
    pub image: &'a dyn Fn() -> Option<Image>,
    /// Whether the daemon would give it now.
    pub still: &'a dyn Fn() -> Result<(), Refusal>,
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// It was resident already.
    Resident,
    /// It is resident from now on.
    Promoted,
    /// It is not asked for often enough yet.
    Seen,
    /// It is not to be, or not now.
    Refused(Refusal),
}

/// The hot set at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HotFigures {
    /// Resident responses.
    pub entries: usize,
    /// Chunks that they lie in.
    pub chunks_used: usize,
    /// What each workload has, by its id.
    pub workloads: Vec<(u64, Account)>,
}

/// The hot set.
pub struct HotSet {
    shelf: Arc<dyn Shelf>,
    skipped: Skipped,
    seeds: Seeds,
    linger_ns: u64,
    response_bytes_max: usize,
    /// Whether the kernel gives anything at all.
    is_on: AtomicBool,
    state: Mutex<State>,
    /// Something is at rest.
    retired: Notify,
    /// One wait at a time: its end is not another's.
    settling: Mutex<()>,
    settled: watch::Sender<u64>,
}

/// Since when connections to a destination are enrolled, and until when, nanoseconds of `CLOCK_BOOTTIME`.
#[derive(Clone, Copy)]
struct Enrolling {
    since_ns: u64,
    until_ns: u64,
}

struct State {
    ledger: Ledger,
    tags: Tags,
    /// Where connections are being enrolled.
    destinations: HashMap<Asker, Enrolling>,
    sequence: u64,
    /// How many entries were taken out, ever.
    retired: u64,
}

impl HotSet {
    /// An empty set on this shelf, which has chunks that nobody uses, this skip list and these secrets.
    pub fn new(shelf: Arc<dyn Shelf>, skipped: Skipped, seeds: Seeds, limits: HotLimits) -> Self {
        let share = limits.chunks as usize * usize::from(limits.workload_percent) / 100;
        let state = State {
            ledger: Ledger::new(limits.chunks, share),
            tags: Tags::default(),
            destinations: HashMap::new(),
            sequence: 0,
            retired: 0,
        };
        Self {
            shelf,
            skipped,
            seeds,
            linger_ns: limits.destination_linger.as_nanos() as u64,
            response_bytes_max: limits.response_bytes_max,
            is_on: AtomicBool::new(true),
            state: Mutex::new(state),
            retired: Notify::new(),
            settling: Mutex::new(()),
            settled: watch::Sender::new(0),
        }
    }

    /// The fields that do not tell requests apart.
    pub fn skipped(&self) -> &Skipped {
        &self.skipped
    }

    /// Says whether the kernel gives anything at all: nothing is promoted while it does not.
    pub fn switch(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// Takes note of an answer that was given, and promotes it where that is worth it.
    pub fn offer(&self, offer: &Offer<'_>) -> Promotion {
        if !self.is_on.load(Ordering::Relaxed) {
            return Promotion::Seen;
        }
        let Some(head) = slice::walk(offer.head, self.skipped.list(), self.seeds, &offer.asker, |_| ())
        else {
            return Promotion::Refused(Refusal::Head);
        };
        let mut state = self.state();
        if state.ledger.has(&head, offer.now_ns) {
            return Promotion::Resident;
        }
        let sighting = state.tags.see(&head, offer.now_ns);
        if sighting.hits < HITS_BEFORE_PROMOTION {
            return Promotion::Seen;
        }
        if let Some(refusal) = sighting.refused {
            return Promotion::Refused(refusal);
        }
        match self.promote(&mut state, offer, head, sighting.worth) {
            Ok(()) => Promotion::Promoted,
            Err(refusal) => {
                // What took a search or a copy to find out is not tried again at each request.
                use Refusal::{Kernel, Quota, TooLarge, Worth};
                if matches!(refusal, Kernel | Quota | TooLarge | Worth) {
                    state.tags.refuse(&head, refusal, offer.now_ns);
                }
                Promotion::Refused(refusal)
            }
        }
    }

    fn promote(&self, state: &mut State, offer: &Offer<'_>, head: HotKey, worth: u64) -> Result<(), Refusal> {
        let (expires_at_ns, born_at_ns) = lifetime(offer)?;
        // Only saves work: what is to go at once is not written.
        (offer.still)()?;
        if !state.ledger.has_workload(&offer.asker) {
            return Err(Refusal::Workload);
        }
        // Expired, or another head of the same hash.
        let former = state.ledger.of_head(&head);
        self.remove(state, former);
        let mut cells = Vec::new();
        slice::walk(offer.head, self.skipped.list(), self.seeds, &offer.asker, |cell| cells.push(cell));
        let Image { bytes, age_at, content_bytes } = (offer.image)().ok_or(Refusal::TooLarge)?;
        if bytes.len() > self.response_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let resident = Resident {
            asker: offer.asker,
            cells: &cells,
            response: &bytes,
            age_at,
            content_bytes,
            expires_at_ns,
            born_at_ns,
        };
        let needed = resident.chunks().ok_or(Refusal::TooLarge)?;
        let mut gone = Vec::new();
        let chunks = state.ledger.allocate(offer.asker.workload, needed, worth, offer.now_ns, &mut gone);
        self.retire(state, &gone);
        let chunks = chunks?;
        state.sequence += 1;
        self.shelf.write(&resident, &chunks, state.sequence);
        let Some(chunk) = chunks.first().copied() else { return Err(Refusal::TooLarge) };
        if !self.shelf.index(&head, &HotSlot { sequence: state.sequence, chunk, reserved: 0 }) {
            state.ledger.give_back(chunks);
            return Err(Refusal::Kernel);
        }
        let slot = state.ledger.insert(Hot {
            head,
            asker: offer.asker,
            key: Arc::from(offer.key),
            places: Box::from(offer.places),
            chunks,
            expires_at_ns,
            seen_hits: 0,
            worth,
        });
        if let Err(refusal) = (offer.still)() {
            self.remove(state, [slot]);
            return Err(refusal);
        }
        self.enrol(state, &offer.asker, offer.now_ns);
        Ok(())
    }

    /// Has connections to a destination enrolled while it has resident responses, and for a while afterwards.
    fn enrol(&self, state: &mut State, asker: &Asker, now_ns: u64) {
        let new = Enrolling { since_ns: u64::MAX, until_ns: 0 };
        let enrolling = state.destinations.entry(*asker).or_insert(new);
        if enrolling.until_ns < now_ns + self.linger_ns / 2 {
            let has_lapsed = enrolling.until_ns <= now_ns;
            enrolling.until_ns = now_ns + self.linger_ns;
            let shown_ns = self.shelf.enrol_until(asker, enrolling.until_ns);
            // Not `now_ns`: what began between the two did not find it.
            if has_lapsed {
                enrolling.since_ns = shown_ns;
            }
        }
    }

    /// Takes entries out: nobody finds them from now on.
    fn remove(&self, state: &mut State, slots: impl IntoIterator<Item = usize>) {
        let gone: Vec<Gone> = slots.into_iter().filter_map(|slot| state.ledger.remove(slot)).collect();
        self.retire(state, &gone);
    }

    fn retire(&self, state: &mut State, gone: &[Gone]) {
        for Gone { head, chunk } in gone {
            self.shelf.retire(head, *chunk);
        }
        if !gone.is_empty() {
            state.retired += gone.len() as u64;
            self.retired.notify_one();
        }
    }

    /// Lets a workload have resident responses, on connections of this enrolment.
    pub fn add_workload(&self, workload: u64, epoch: u32) {
        self.state().ledger.add_workload(workload, epoch);
    }

    /// Whether a connection that was begun then, nanoseconds of `CLOCK_BOOTTIME`, found its destination enrolled.
    pub fn enrolled_at(&self, asker: &Asker, begun_at_ns: u64) -> bool {
        self.state().destinations.get(asker).is_some_and(|enrolling| enrolling.since_ns < begun_at_ns)
    }

    /// Takes out what a workload has; it gets nothing more.
    pub fn remove_workload(&self, workload: u64) {
        let mut state = self.state();
        let slots = state.ledger.all(|hot| hot.asker.workload == workload);
        self.remove(&mut state, slots);
        state.ledger.remove_workload(workload);
        state.destinations.retain(|asker, _| asker.workload != workload);
    }

    /// Takes out what a workload has, which may get it again.
    pub fn remove_hits_of(&self, workload: u64) {
        let mut state = self.state();
        let slots = state.ledger.all(|hot| hot.asker.workload == workload);
        self.remove(&mut state, slots);
    }

    /// Takes out what these destinations gave, for whomever; `port` in host order.
    pub fn remove_destinations(&self, are_outdated: impl Fn(&IpWords, u32) -> bool) {
        let mut state = self.state();
        let slots = state.ledger.all(|hot| are_outdated(&hot.asker.ip, hot.asker.port));
        self.remove(&mut state, slots);
    }

    /// Takes out what has expired, counts what was given, and keeps destinations enrolled; to be called each second.
    ///
    /// Returns the keys of the stored responses whose copies were given since the last time.
    pub fn tick(&self, now_ns: u64) -> Vec<Arc<[u8]>> {
        let mut state = self.state();
        let used = state.ledger.tick(|chunk| self.shelf.hits(chunk));
        let expired = state.ledger.all(|hot| hot.expires_at_ns <= now_ns);
        self.remove(&mut state, expired);
        for asker in state.ledger.askers() {
            self.enrol(&mut state, &asker, now_ns);
        }
        state.destinations.retain(|_, enrolling| enrolling.until_ns > now_ns);
        if state.ledger.has_limbo() {
            // Where a wait was in vain.
            self.retired.notify_one();
        }
        used
    }

    /// Forgets connections that were closed before the daemon saw them, made before a time of `CLOCK_BOOTTIME`,
    /// nanoseconds.
    pub fn sweep(&self, before_ns: u64) {
        self.shelf.sweep(before_ns);
    }

    /// Waits until no program looks any more at what was taken out so far, and frees its memory; blocks for some
    /// milliseconds where there is any.
    pub fn settle(&self) {
        let _alone = self.settling.lock().unwrap_or_else(PoisonError::into_inner);
        let (resting, retired) = {
            let mut state = self.state();
            (state.ledger.take_limbo(), state.retired)
        };
        let is_quiet = resting.is_empty() || self.shelf.quiesce();
        let mut state = self.state();
        if is_quiet {
            state.ledger.rested(resting, |chunk| self.shelf.hits(chunk));
            self.settled.send_replace(retired);
        } else {
            state.ledger.put_back(resting);
        }
    }

    /// Frees the memory of what was taken out, for ever.
    pub async fn keep_settling(self: Arc<Self>) {
        loop {
            self.retired.notified().await;
            let set = self.clone();
            // Where it failed, `tick` has it tried again.
            let _ = tokio::task::spawn_blocking(move || set.settle()).await;
        }
    }

    /// Waits until no program gives any more what was taken out so far: what a purge waits for before it is
    /// acknowledged.
    pub async fn purged(&self) {
        let retired = self.state().retired;
        // The sender is `self`'s: it is there.
        let _ = self.settled.subscribe().wait_for(|settled| *settled >= retired).await;
    }

    /// The set as it is.
    pub fn figures(&self) -> HotFigures {
        let ledger = &self.state().ledger;
        HotFigures {
            entries: ledger.entries(),
            chunks_used: ledger.chunks_used(),
            workloads: ledger.workloads().collect(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves at most chunks that nobody uses.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for HotSet {
    fn changed(&self, key: &[u8]) {
        let mut state = self.state();
        let slots = match path_of_searches(key) {
            // What is stored for all queries of a path may be newer than what is for one.
            Some(path) => state.ledger.of_path(path),
            None => state.ledger.of_key(key),
        };
        self.remove(&mut state, slots);
    }

    fn invalidated(&self, place: PurgePlace) {
        let mut state = self.state();
        let slots = state.ledger.of_place(place);
        self.remove(&mut state, slots);
    }

    fn cleared(&self) {
        let mut state = self.state();
        let slots = state.ledger.all(|_| true);
        self.remove(&mut state, slots);
    }
}

/// The key of the path itself, where `key` is one for several of its queries (`policy::search_key`).
fn path_of_searches(key: &[u8]) -> Option<&[u8]> {
    let parts = policy::key_parts(key)?;
    let is_search = !parts.more.is_empty() && !parts.is_of_query();
    is_search.then(|| key.get(..key.len() - parts.more.len())).flatten()
}

/// When a response expires and when its age was zero, nanoseconds of `CLOCK_BOOTTIME`.
fn lifetime(offer: &Offer<'_>) -> Result<(u64, u64), Refusal> {
    if offer.fresh_for.is_zero() {
        return Err(Refusal::Stale);
    }
    if offer.age.saturating_add(offer.fresh_for).as_secs() > AGE_MAX_S {
        return Err(Refusal::Age);
    }
    let expires_at_ns = offer.now_ns.saturating_add(offer.fresh_for.as_nanos() as u64);
    Ok((expires_at_ns, offer.now_ns.wrapping_sub(offer.age.as_nanos() as u64)))
}
