//! Who takes something out while somebody else puts it in, or looks at it.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;

use super::*;
use crate::http1::Fields;
use crate::policy::{Now, RequestView, ResponseView, Rules, Stored};
use crate::store::{Entry, Place, Store, StoreLimits};

fn hot(set: &HotSet, head: &[u8], places: &[PurgePlace]) {
    let image = || image("a");
    let offer = Offer { places, ..offer(asker(1), head, &image) };
    set.offer(&offer);
    assert_eq!(set.offer(&offer), Promotion::Promoted);
}

#[test]
fn what_is_gone_at_the_second_look_is_taken_back() {
    let (kernel, set) = set(8);
    let (head, image, looks) = (head("/a"), || image("a"), Cell::new(0));
    let still = || {
        looks.set(looks.get() + 1);
        // It is there to be found already, so that whoever removes it now finds it.
        let is_indexed = kernel.maps().index.len() == 1;
        assert_eq!(is_indexed, looks.get() == 2);
        if is_indexed { Err(Refusal::Gone) } else { Ok(()) }
    };
    let offer = Offer { still: &still, ..offer(asker(1), &head, &image) };
    set.offer(&offer);
    assert_eq!(set.offer(&offer), Promotion::Refused(Refusal::Gone));
    assert_eq!((looks.get(), kernel.give(&asker(1), &head), set.figures().entries), (2, None, 0));
}

#[test]
fn whatever_concerns_an_entry_takes_it_out_at_once_and_nothing_else() {
    let [one, other] = [PurgePlace::of(1), PurgePlace::of(2)];
    let path = path_key();
    let search = [&path[..], b" x=1"].concat();
    let exact = [&path[..], b"?x=2"].concat();
    type Act<'a> = &'a dyn Fn(&HotSet);
    let acts: [(Act<'_>, bool); 9] = [
        (&|set| set.changed(b"key"), true),
        (&|set| set.changed(b"ke"), false),
        (&|set| set.invalidated(one), true),
        (&|set| set.invalidated(other), false),
        (&|set| set.cleared(), true),
        (&|set| set.remove_workload(1), true),
        (&|set| set.remove_workload(2), false),
        (&|set| drop(set.tick(110 * SECOND)), true),
        (&|set| set.changed(&search), false),
    ];
    for (number, (act, is_out)) in acts.iter().enumerate() {
        let (kernel, set) = set(8);
        let head = head("/a");
        hot(&set, &head, &[one]);
        act(&set);
        assert_eq!(kernel.give(&asker(1), &head).is_none(), *is_out, "{number}");
    }
    let (kernel, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    let offer = Offer { key: &exact, ..offer(asker(1), &head, &image) };
    set.offer(&offer);
    set.offer(&offer);
    assert!(kernel.give(&asker(1), &head).is_some());
    set.changed(&search);
    assert_eq!(kernel.give(&asker(1), &head), None, "what is stored for all queries may be newer");
}

/// The key of a path.
fn path_key() -> Vec<u8> {
    let mut key = Vec::new();
    policy::key(b"partition", b"destination", b"authority", b"/p", &mut key);
    key
}

#[test]
fn a_program_that_looks_at_an_entry_keeps_its_chunks_from_being_written() {
    let (kernel, set) = set(1);
    let (a, b, image) = (head("/a"), head("/b"), || image("b"));
    hot(&set, &a, &[]);
    let found = kernel.begin(&asker(1), &a).unwrap();
    set.changed(b"key");
    let again = || set.offer(&offer(asker(1), &b, &image));
    again();
    // The simulated kernel fails where it is written all the same.
    assert_eq!(again(), Promotion::Refused(Refusal::Grace));
    kernel.maps().is_restless = true;
    set.settle();
    assert_eq!(again(), Promotion::Refused(Refusal::Grace), "a wait in vain frees nothing");
    assert_eq!(kernel.end(found), None, "taken out while it was copied");
    kernel.maps().is_restless = false;
    set.settle();
    assert_eq!(again(), Promotion::Promoted);
}

#[test]
fn a_workload_that_has_ended_gets_nothing_more() {
    let (kernel, set) = set(8);
    let (head, image) = (head("/a"), || image("a"));
    hot(&set, &head, &[]);
    set.remove_workload(1);
    let again = || set.offer(&offer(asker(1), &head, &image));
    assert_eq!(again(), Promotion::Refused(Refusal::Workload));
    assert_eq!((kernel.give(&asker(1), &head), set.figures().workloads.len()), (None, 0));
}

#[tokio::test]
async fn a_purge_is_acknowledged_when_nobody_gives_what_it_took_out() {
    let (_, set) = set(8);
    set.purged().await;
    let (set, head) = (Arc::new(set), head("/a"));
    hot(&set, &head, &[]);
    set.cleared();
    let acknowledged = {
        let set = set.clone();
        tokio::spawn(async move { set.purged().await })
    };
    tokio::task::yield_now().await;
    assert!(!acknowledged.is_finished());
    let settling = tokio::spawn(set.clone().keep_settling());
    acknowledged.await.unwrap();
    settling.abort();
}

fn stored() -> Stored {
    let request = Fields::from_pairs([("host", "a")]);
    let response = Fields::from_pairs([("cache-control", "max-age=60")]);
    let request = RequestView { method: b"GET", target: b"/", fields: &request };
    let response = ResponseView { status: 200, fields: &response, delimited_by_close: false };
    let now = Now { boot: Duration::from_secs(1), wall: 0 };
    policy::store(&request, &response, &Rules::default(), now, now).unwrap()
}

fn put(store: &Store, version: u64) {
    let place = Place { key: b"key".into(), resource: b"r".into(), begun: store.begin(), owner: 0 };
    let mut fill = store.fill(0, Some(8)).unwrap();
    fill.append(&version.to_be_bytes()).unwrap();
    store.insert(&place, stored(), Bytes::new(), fill).unwrap();
}

/// What the path does with a hit.
fn promote(set: &HotSet, store: &Store, head: &[u8]) {
    let Some(variants) = store.variants(b"key") else { return };
    let Some(entry) = variants.iter().find(|entry| store.alive(entry)).cloned() else { return };
    let still = || {
        let is_it = |one: &Arc<Entry>| Arc::ptr_eq(one, &entry);
        let is_there = store.peek(b"key").is_some_and(|now| now.iter().any(is_it));
        if is_there && store.alive(&entry) { Ok(()) } else { Err(Refusal::Gone) }
    };
    let image = || {
        let bytes = [&[b'0'; 8][..], &entry.body.concat()].concat();
        Some(Image { bytes, age_at: 0, content_bytes: 8 })
    };
    let places = entry.purge_places();
    set.offer(&Offer { places, still: &still, ..offer(asker(1), head, &image) });
}

/// Ends the other threads, also where a check fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn nothing_old_is_given_after_a_change_was_answered_whoever_promotes_meanwhile() {
    const VERSIONS: u64 = 3000;
    let (kernel, set) = set(16);
    let set = Arc::new(set);
    let store = Store::new(StoreLimits { bytes_max: 1 << 20, ..StoreLimits::default() });
    store.observe(set.clone());
    let heads: Vec<_> = (0..3).map(|number| head(&format!("/{number}"))).collect();
    // Whatever is older than this was replaced or purged, and whoever did it was answered.
    let (oldest, is_over, given) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
    let until_over = |act: &dyn Fn()| {
        while !is_over.load(Ordering::SeqCst) {
            act();
            thread::yield_now();
        }
    };
    thread::scope(|scope| {
        let _end = End(&is_over);
        for _ in 0..2 {
            scope.spawn(|| until_over(&|| heads.iter().for_each(|head| promote(&set, &store, head))));
        }
        scope.spawn(|| until_over(&|| set.settle()));
        for head in &heads {
            let (kernel, oldest, given, until_over) = (&kernel, &oldest, &given, &until_over);
            scope.spawn(move || {
                until_over(&|| {
                    let oldest = oldest.load(Ordering::SeqCst);
                    let Some(response) = kernel.give(&asker(1), head) else { return };
                    let version = u64::from_be_bytes(response[8..].try_into().unwrap());
                    assert!(version >= oldest, "{version} after {oldest}");
                    given.fetch_add(1, Ordering::SeqCst);
                });
            });
        }
        for version in 0..VERSIONS {
            put(&store, version);
            oldest.store(version, Ordering::SeqCst);
            // It lives until it is given, or for a moment.
            let before = given.load(Ordering::SeqCst);
            for _ in 0..50 {
                if given.load(Ordering::SeqCst) > before {
                    break;
                }
                thread::yield_now();
            }
            match version % 4 {
                1 => store.invalidate(b"r"),
                3 => store.clear(),
                _ => continue,
            }
            oldest.store(version + 1, Ordering::SeqCst);
            assert!(heads.iter().all(|head| kernel.give(&asker(1), head).is_none()), "{version} was purged");
        }
    });
    assert!(given.load(Ordering::SeqCst) > VERSIONS / 10, "{given:?} were given");
    store.clear();
    set.settle();
    assert_eq!((set.figures().entries, set.figures().chunks_used), (0, 0));
}
