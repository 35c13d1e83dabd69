//! The hot set on a simulated kernel. The races that it must win, each with its test:
//!
//! - a purge, a replacement or an eviction between the look-up and the promotion: `still` says so;
//! - the same between the entry's publication and the second look: it is taken back;
//! - the same after the second look: the observer is told, and takes it out;
//! - all of them at once, with a real store and threads;
//! - a program that found an entry just before it was taken out: its chunks rest until it has ended;
//! - a program that copies an entry while it is taken out: it sees another sequence at the end;
//! - a workload that ends while its connections go on: it gets nothing more.

use std::collections::{BTreeSet, HashMap};

use super::*;

mod races;

pub(super) const SECOND: u64 = 1_000_000_000;
pub(super) const SEEDS: Seeds =
    Seeds { start: [3, 5], factor: [0x9e37_79b9_7f4a_7c15, 0xff51_afd7_ed55_8ccd] };

/// What a program would find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    slot: HotSlot,
    chunks: Vec<u32>,
    pub(super) response: Vec<u8>,
    expires_at_ns: u64,
    born_at_ns: u64,
}

#[derive(Default)]
struct Maps {
    index: HashMap<HotKey, HotSlot>,
    /// By first chunk.
    entries: HashMap<u32, Found>,
    hits: HashMap<u32, u64>,
    /// Chunks that programs may be looking at.
    looked_at: BTreeSet<u32>,
    enrolled: Vec<(Asker, u64)>,
    /// When a destination is in the map that is put there next.
    shown_ns: u64,
    refuses: bool,
    is_restless: bool,
}

/// The kernel as the hot set sees it; whoever writes what may be looked at fails.
#[derive(Default)]
pub(super) struct Simulated(Mutex<Maps>);

impl Simulated {
    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap()
    }

    /// A program begins with a head.
    pub(super) fn begin(&self, asker: &Asker, head: &[u8]) -> Option<Found> {
        let key = slice::walk(head, Skipped::default().list(), SEEDS, asker, |_| ()).unwrap();
        let mut maps = self.maps();
        let slot = *maps.index.get(&key)?;
        let found = maps.entries.get(&slot.chunk)?.clone();
        maps.looked_at.extend(&found.chunks);
        (found.slot.sequence == slot.sequence).then_some(found)
    }

    /// It has copied what it found: the response, if that is still there.
    pub(super) fn end(&self, found: Found) -> Option<Vec<u8>> {
        let mut maps = self.maps();
        let is_there = maps.entries.get(&found.slot.chunk).is_some_and(|now| now.slot == found.slot);
        if is_there {
            *maps.hits.entry(found.slot.chunk).or_default() += 1;
        }
        is_there.then_some(found.response)
    }

    pub(super) fn give(&self, asker: &Asker, head: &[u8]) -> Option<Vec<u8>> {
        self.begin(asker, head).and_then(|found| self.end(found))
    }
}

impl Shelf for Simulated {
    fn write(&self, resident: &Resident<'_>, chunks: &[u32], sequence: u64) {
        let mut maps = self.maps();
        assert_eq!(Some(chunks.len()), resident.chunks());
        let is_looked_at = chunks.iter().any(|chunk| maps.looked_at.contains(chunk));
        assert!(!is_looked_at, "written while a program may look at it");
        let found = maps.index.values().any(|slot| chunks.contains(&slot.chunk));
        assert!(!found, "written while it is in the index");
        let chunk = chunks[0];
        let found = Found {
            slot: HotSlot { sequence, chunk, reserved: 0 },
            chunks: chunks.to_vec(),
            response: resident.response.to_vec(),
            expires_at_ns: resident.expires_at_ns,
            born_at_ns: resident.born_at_ns,
        };
        maps.hits.insert(chunk, 0);
        maps.entries.insert(chunk, found);
    }
    fn index(&self, head: &HotKey, slot: &HotSlot) -> bool {
        let mut maps = self.maps();
        assert_eq!(maps.entries[&slot.chunk].slot, *slot, "indexed before it is written");
        !maps.refuses && maps.index.insert(*head, *slot).is_none()
    }
    fn retire(&self, head: &HotKey, chunk: u32) {
        let mut maps = self.maps();
        assert_eq!(maps.index.remove(head).map(|slot| slot.chunk), Some(chunk));
        maps.entries.get_mut(&chunk).unwrap().slot.sequence = 0;
    }
    fn hits(&self, chunk: u32) -> u64 {
        self.maps().hits[&chunk]
    }
    fn quiesce(&self) -> bool {
        let mut maps = self.maps();
        if !maps.is_restless {
            maps.looked_at.clear();
        }
        !maps.is_restless
    }
    fn enrol_until(&self, asker: &Asker, until_ns: u64) -> u64 {
        let mut maps = self.maps();
        maps.enrolled.push((*asker, until_ns));
        maps.shown_ns
    }
    fn sweep(&self, _: u64) {}
}

pub(super) fn set(chunks: u32) -> (Arc<Simulated>, HotSet) {
    let kernel = Arc::new(Simulated::default());
    let limits = HotLimits { chunks, ..HotLimits::default() };
    let set = HotSet::new(kernel.clone(), Skipped::default(), SEEDS, limits);
    set.add_workload(1, 0);
    (kernel, set)
}

pub(super) fn asker(workload: u64) -> Asker {
    Asker { workload, ip: [0, 0, 0xffff, 7], port: 80, epoch: 0 }
}

pub(super) fn head(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: example.test\r\n\r\n").into_bytes()
}

pub(super) fn image(content: &str) -> Option<Image> {
    let head = "HTTP/1.1 200 OK\r\nAge: ";
    let bytes = format!("{head}00000000\r\n\r\n{content}").into_bytes();
    Some(Image { bytes, age_at: head.len(), content_bytes: content.len() })
}

/// An offer that is as good as it can be.
fn offer<'a>(asker: Asker, head: &'a [u8], image: &'a dyn Fn() -> Option<Image>) -> Offer<'a> {
    Offer {
        asker,
        head,
        key: b"key",
        places: &[],
        now_ns: 100 * SECOND,
        age: Duration::from_secs(5),
        fresh_for: Duration::from_secs(10),
        image,
        still: &|| Ok(()),
    }
}

#[test]
fn nothing_is_promoted_while_the_kernel_gives_nothing() {
    let (_, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    let offer = offer(asker(1), &head, &image);
    set.switch(false);
    assert!((0..5).all(|_| set.offer(&offer) == Promotion::Seen));
    set.switch(true);
    set.offer(&offer);
    assert_eq!(set.offer(&offer), Promotion::Promoted);
    set.switch(false);
    assert_eq!(set.offer(&offer), Promotion::Seen, "it is there, and not given");
}

#[test]
fn the_second_answer_in_a_while_is_promoted_and_counts_its_age_from_its_birth() {
    let (kernel, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    let offer = offer(asker(1), &head, &image);
    assert_eq!(set.offer(&offer), Promotion::Seen);
    assert_eq!(kernel.give(&asker(1), &head), None);
    assert_eq!(set.offer(&offer), Promotion::Promoted);
    assert_eq!(set.offer(&offer), Promotion::Resident);
    let found = kernel.begin(&asker(1), &head).unwrap();
    assert_eq!((found.born_at_ns, found.expires_at_ns), (95 * SECOND, 110 * SECOND));
    assert_eq!(kernel.begin(&asker(2), &head), None, "another's");
    assert_eq!(kernel.maps().enrolled, [(asker(1), 160 * SECOND)]);
}

#[test]
fn a_head_that_the_kernel_cannot_know_is_refused() {
    let (_, set) = set(8);
    let image = || image("a");
    for head in ["GET / HTTP/1.1\r\n", &format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(2048))] {
        assert_eq!(set.offer(&offer(asker(1), head.as_bytes(), &image)), Promotion::Refused(Refusal::Head));
    }
}

#[test]
fn what_cannot_be_promoted_says_why() {
    let head = head("/a");
    let (small, large) = (|| image("a"), || image(&"a".repeat(100_000)));
    let good = || offer(asker(1), &head, &small);
    for (offer, expected) in [
        (Offer { fresh_for: Duration::ZERO, ..good() }, Refusal::Stale),
        (Offer { age: Duration::from_secs(AGE_MAX_S), ..good() }, Refusal::Age),
        (Offer { image: &|| None, ..good() }, Refusal::TooLarge),
        (Offer { image: &large, ..good() }, Refusal::TooLarge),
        (Offer { asker: asker(2), ..good() }, Refusal::Workload),
        (Offer { still: &|| Err(Refusal::Gone), ..good() }, Refusal::Gone),
    ] {
        let (kernel, set) = set(64);
        assert_eq!(set.offer(&offer), Promotion::Seen);
        assert_eq!(set.offer(&offer), Promotion::Refused(expected));
        assert!(kernel.maps().index.is_empty());
    }
    let (kernel, set) = set(8);
    kernel.maps().refuses = true;
    set.offer(&good());
    assert_eq!(set.offer(&good()), Promotion::Refused(Refusal::Kernel));
    kernel.maps().refuses = false;
    assert_eq!(set.offer(&good()), Promotion::Refused(Refusal::Kernel), "not tried twice in a second");
    let later = Offer { now_ns: good().now_ns + SECOND, ..good() };
    assert_eq!(set.offer(&later), Promotion::Promoted, "its chunks were free again");
}

#[test]
fn a_lifetime_shorter_than_a_second_ends_when_it_ends() {
    let (kernel, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    let offer = Offer { fresh_for: Duration::from_millis(300), ..offer(asker(1), &head, &image) };
    set.offer(&offer);
    set.offer(&offer);
    let expires = 100 * SECOND + 300_000_000;
    assert_eq!(kernel.begin(&asker(1), &head).map(|found| found.expires_at_ns), Some(expires));
    let again = Offer { now_ns: expires, ..offer };
    assert_eq!(set.offer(&again), Promotion::Promoted, "fresh again");
}

#[test]
fn what_has_expired_is_taken_out_and_its_destination_stays_enrolled_for_a_while() {
    let (kernel, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    set.offer(&offer(asker(1), &head, &image));
    set.offer(&offer(asker(1), &head, &image));
    set.tick(109 * SECOND);
    assert_eq!(set.figures().entries, 1);
    set.tick(110 * SECOND);
    assert_eq!((set.figures().entries, kernel.maps().index.len()), (0, 0));
    set.tick(200 * SECOND);
    assert_eq!(kernel.maps().enrolled, [(asker(1), 160 * SECOND)], "not longer than needed");
}

/// Such a connection is not enrolled for a reason that does not stay: it is renewed.
#[test]
fn what_began_before_the_kernel_knew_of_its_destination_did_not_find_it() {
    let (kernel, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    let offered = |now_ns| Offer { now_ns, ..offer(asker(1), &head, &image) };
    kernel.maps().shown_ns = 102 * SECOND;
    set.offer(&offered(100 * SECOND));
    set.offer(&offered(100 * SECOND));
    assert!(!set.enrolled_at(&asker(1), 101 * SECOND), "begun while it was promoted");
    assert!(set.enrolled_at(&asker(1), 103 * SECOND));
    // Known until 160, and again from 302 on.
    kernel.maps().shown_ns = 302 * SECOND;
    set.offer(&offered(300 * SECOND));
    set.offer(&offered(300 * SECOND));
    assert!(!set.enrolled_at(&asker(1), 200 * SECOND), "begun after it had lapsed");
    assert!(set.enrolled_at(&asker(1), 303 * SECOND));
}

#[test]
fn a_destination_stays_enrolled_while_it_has_responses() {
    let (kernel, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    let long = Offer { fresh_for: Duration::from_secs(1000), ..offer(asker(1), &head, &image) };
    set.offer(&long);
    set.offer(&long);
    (101..=200).for_each(|second| drop(set.tick(second * SECOND)));
    let enrolled = &kernel.maps().enrolled;
    assert!(enrolled.len() <= 5, "{enrolled:?}");
    assert!(enrolled.last().is_some_and(|(_, until)| *until >= 230 * SECOND), "{enrolled:?}");
}

#[test]
fn what_the_kernel_gave_is_counted_and_named_once_a_tick() {
    let (kernel, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    set.offer(&offer(asker(1), &head, &image));
    set.offer(&offer(asker(1), &head, &image));
    (0..3).for_each(|_| drop(kernel.give(&asker(1), &head).unwrap()));
    assert_eq!(set.tick(101 * SECOND), [Arc::from(&b"key"[..])]);
    assert!(set.tick(102 * SECOND).is_empty());
    assert_eq!(set.figures().workloads, [(1, Account { chunks: 1, hits: 3, epoch: 0 })]);
}

#[test]
fn more_than_there_is_room_for_gives_way_by_use() {
    let (kernel, set) = set(4);
    let image = || image("a");
    let heads: Vec<_> = (0..5).map(|number| head(&format!("/{number}"))).collect();
    let at = |second: u64, head: &[u8]| {
        set.offer(&Offer { now_ns: second * SECOND, ..offer(asker(1), head, &image) })
    };
    let again = |head: &[u8]| at(100, head);
    for head in &heads[..4] {
        again(head);
        assert_eq!(again(head), Promotion::Promoted);
        (0..10).for_each(|_| drop(kernel.give(&asker(1), head)));
    }
    (0..90).for_each(|_| drop(kernel.give(&asker(1), &heads[2])));
    set.tick(100 * SECOND);
    again(&heads[4]);
    assert_eq!(again(&heads[4]), Promotion::Refused(Refusal::Quota), "asked for twice");
    for _ in 0..20 {
        again(&heads[4]);
    }
    assert_eq!(set.figures().entries, 4, "what was refused is not tried again within a second");
    assert_eq!(at(101, &heads[4]), Promotion::Refused(Refusal::Grace));
    assert_eq!(set.figures().entries, 3);
    set.settle();
    assert_eq!(at(101, &heads[4]), Promotion::Promoted);
    assert!(kernel.give(&asker(1), &heads[2]).is_some(), "the one that is used most");
}

#[test]
fn what_one_enrolment_of_a_cgroup_was_given_is_not_the_next_ones() {
    let (kernel, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    let before = asker(1);
    let after = Asker { epoch: 1, ..before };
    let offers: Vec<_> = (0..2).map(|_| set.offer(&offer(before, &head, &image))).collect();
    assert_eq!(offers, [Promotion::Seen, Promotion::Promoted]);
    assert!(kernel.give(&before, &head).is_some());

    set.remove_workload(1);
    set.add_workload(1, after.epoch);

    assert_eq!(kernel.give(&before, &head), None);
    // A connection of before that is still open promotes nothing, and what comes now is not given on it.
    assert!((0..3).all(|_| set.offer(&offer(before, &head, &image)) != Promotion::Promoted));
    let offers: Vec<_> = (0..2).map(|_| set.offer(&offer(after, &head, &image))).collect();
    assert_eq!(offers, [Promotion::Seen, Promotion::Promoted]);
    assert!(kernel.give(&after, &head).is_some() && kernel.give(&before, &head).is_none());
}
