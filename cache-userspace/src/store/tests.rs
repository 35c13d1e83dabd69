//! The store under its limits, under threads and under invalidation.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::*;
use crate::{
    http1::Fields,
    policy::{Now, RequestView, ResponseView, Rules},
};

const MIB: u64 = 1 << 20;

fn store_of(bytes_max: u64) -> Store {
    let object_bytes_max = bytes_max / 8;
    Store::new(StoreLimits {
        bytes_max,
        object_bytes_max,
        variants_max: 64,
        namespace_bytes_max: bytes_max / 2,
    })
}

/// Where a response to a forward that begins now is stored.
fn place(store: &Store, key: &str) -> Place {
    place_of(store, key, key)
}

fn place_of(store: &Store, key: &str, resource: &str) -> Place {
    Place { key: key.into(), resource: resource.into(), begun: store.begin(), owner: 0 }
}

/// What `policy` keeps of a response that was selected by this value of `x`.
fn stored(selected_by: &str) -> Stored {
    let request = Fields::from_pairs([("host", "a"), ("x", selected_by)]);
    let response = Fields::from_pairs([("cache-control", "max-age=60"), ("vary", "x")]);
    let request = RequestView { method: b"GET", target: b"/", fields: &request };
    let response = ResponseView { status: 200, fields: &response, delimited_by_close: false };
    let now = Now { boot: Duration::from_secs(1), wall: 0 };
    crate::policy::store(&request, &response, &Rules::default(), now, now).unwrap()
}

fn filled(store: &Store, content: &[u8]) -> Result<Fill, Reason> {
    let mut fill = store.fill(0, Some(content.len() as u64))?;
    fill.append(content)?;
    Ok(fill)
}

fn insert(store: &Store, key: &str, selected_by: &str, content: &[u8]) -> Result<Arc<Entry>, Reason> {
    let place = place(store, key);
    let fill = filled(store, content)?;
    let head = Bytes::from_static(b"HTTP/1.1 200 OK\r\n");
    store.insert(&place, stored(selected_by), head, fill)
}

fn live(store: &Store, key: &str) -> Vec<Arc<Entry>> {
    let variants = store.variants(key.as_bytes());
    let entries = variants.iter().flat_map(|variants| variants.iter());
    entries.filter(|entry| store.alive(entry)).cloned().collect()
}

#[test]
fn keys_are_listed_up_to_a_number_and_whether_they_are_all_is_said() {
    let store = store_of(MIB);
    for key in ["a1", "a2", "a3", "b1"] {
        insert(&store, key, "", b"x").unwrap();
    }
    let keys = |looked_at_max, max, start: &[u8]| {
        let (mut keys, is_all) = store.keys(looked_at_max, max, |key| key.starts_with(start));
        keys.sort();
        (keys.len(), is_all)
    };
    assert_eq!(store.keys(9, 9, |key| key == b"b1"), (vec![Box::from(&b"b1"[..])], true));
    assert_eq!(keys(4, 3, b"a"), (3, true));
    assert_eq!(keys(9, 2, b"a"), (2, false));
    assert!(!keys(3, 9, b"").1);
    assert_eq!(keys(9, 9, b"c"), (0, true));
}

#[test]
fn what_was_inserted_is_found_whole() {
    let store = store_of(16 * MIB);
    let content: Vec<u8> = (0..600_000_u32).map(|n| n as u8).collect();
    for expected in [Some(content.len() as u64), None] {
        let place = place_of(&store, "k", "r");
        let mut fill = store.fill(0, expected).unwrap();
        for part in content.chunks(7001) {
            fill.append(part).unwrap();
        }
        store.insert(&place, stored("1"), Bytes::from_static(b"head"), fill).unwrap();
        let found = live(&store, "k");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].body.concat(), content);
        assert_eq!((found[0].body_bytes, &found[0].head[..]), (600_000, b"head".as_slice()));
        assert!(found[0].body.iter().all(|segment| segment.len() <= SEGMENT_BYTES_MAX));
    }
    assert_eq!(store.entries(), 1);
    assert!(store.bytes() > 600_000 && store.bytes() < 610_000, "{}", store.bytes());
}

#[test]
fn the_same_selection_is_replaced_and_another_is_added() {
    let store = store_of(16 * MIB);
    for (selected_by, content) in [("1", "a"), ("2", "b"), ("1", "c")] {
        insert(&store, "k", selected_by, content.as_bytes()).unwrap();
    }
    let contents: Vec<_> = live(&store, "k").iter().map(|entry| entry.body.concat()).collect();
    assert_eq!(contents, [b"b", b"c"]);
    assert_eq!(store.entries(), 2);
}

#[test]
fn the_oldest_of_more_than_64_variants_gives_way() {
    let store = store_of(16 * MIB);
    for n in 0..70 {
        insert(&store, "k", &n.to_string(), n.to_string().as_bytes()).unwrap();
    }
    let found = live(&store, "k");
    assert_eq!(found.len(), 64);
    assert_eq!((found[0].body.concat(), found[63].body.concat()), (b"6".to_vec(), b"69".to_vec()));
    assert_eq!(store.entries(), 64);
}

#[test]
fn variants_inserted_at_once_do_not_lose_each_other() {
    let store = store_of(16 * MIB);
    let barrier = Barrier::new(8);
    thread::scope(|scope| {
        for thread in 0..8 {
            let (store, barrier) = (&store, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for n in 0..8 {
                    insert(store, "k", &format!("{thread}/{n}"), b"x").unwrap();
                }
            });
        }
    });
    assert_eq!(live(&store, "k").len(), 64);
}

#[test]
fn an_invalidation_kills_what_is_stored_and_what_began_before() {
    let store = store_of(16 * MIB);
    let held = insert(&store, "k", "1", b"old").unwrap();
    let place = place(&store, "k");
    let fill = filled(&store, b"old").unwrap();
    store.invalidate(b"k");
    assert!(!store.alive(&held) && live(&store, "k").is_empty());
    let late = store.insert(&place, stored("2"), Bytes::new(), fill);
    assert_eq!(late.err(), Some(Reason::Purged));
    assert!(live(&store, "k").is_empty());
    insert(&store, "k", "1", b"new").unwrap();
    assert_eq!(live(&store, "k").len(), 1);
}

#[test]
fn an_invalidation_concerns_every_partition() {
    let store = store_of(16 * MIB);
    for key in ["a/r", "b/r"] {
        let fill = filled(&store, b"x").unwrap();
        store.insert(&place_of(&store, key, "r"), stored("1"), Bytes::new(), fill).unwrap();
    }
    store.invalidate(b"r");
    assert!(live(&store, "a/r").is_empty() && live(&store, "b/r").is_empty());
}

#[test]
fn an_insert_racing_an_invalidation_never_leaves_a_live_old_entry() {
    let store = store_of(16 * MIB);
    for round in 0..2000 {
        let key = format!("k{}", round % 7);
        let place = place(&store, &key);
        let fill = filled(&store, b"old").unwrap();
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                let _ = store.insert(&place, stored("1"), Bytes::new(), fill);
            });
            barrier.wait();
            store.invalidate(key.as_bytes());
            assert!(live(&store, &key).is_empty(), "right after the invalidation");
        });
        assert!(live(&store, &key).is_empty(), "after both");
    }
}

#[test]
fn clear_kills_everything_and_frees_it() {
    let store = store_of(64 * MIB);
    for n in 0..15_000 {
        insert(&store, &n.to_string(), "1", b"x").unwrap();
    }
    let place = place(&store, "k");
    let fill = filled(&store, b"x").unwrap();
    store.clear();
    assert_eq!((store.entries(), store.variants(b"1").is_none()), (0, true));
    let late = store.insert(&place, stored("1"), Bytes::new(), fill);
    assert_eq!(late.err(), Some(Reason::Purged));
    assert_eq!(store.bytes(), 0);
}

#[test]
fn eviction_frees_and_what_a_client_still_reads_counts() {
    let store = store_of(4 * MIB);
    let held: Vec<Bytes> = insert(&store, "held", "1", &[1; 400_000]).unwrap().body.clone();
    for n in 0..200 {
        insert(&store, &n.to_string(), "1", &[0; 100_000]).unwrap();
        assert!(store.bytes() <= 4 * MIB);
    }
    store.clear();
    assert_eq!(store.entries(), 0);
    assert!(store.bytes() >= 400_000 && store.bytes() < 401_000, "{}", store.bytes());
    drop(held);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn small_objects_beyond_the_limit_evict_each_other() {
    let store = store_of(MIB);
    for n in 0..20_000 {
        insert(&store, &n.to_string(), "1", &[0; 700]).unwrap();
    }
    assert!(store.bytes() <= MIB && store.entries() > 300, "{} {}", store.bytes(), store.entries());
}

#[test]
fn the_budget_holds_under_threads_that_write_and_read_slowly() {
    let store = store_of(8 * MIB);
    let (barrier, done) = (Barrier::new(9), AtomicBool::new(false));
    thread::scope(|scope| {
        let writers: Vec<_> = (0..8_usize)
            .map(|thread| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    let mut reading = Vec::new();
                    let (mut kept, mut refused) = (0, 0);
                    barrier.wait();
                    for n in 0..150_usize {
                        let content = vec![thread as u8; (n * 7919 + thread * 104_729) % (MIB as usize)];
                        match insert(store, &format!("{}", n % 40), &thread.to_string(), &content) {
                            Ok(entry) => {
                                kept += 1;
                                assert_eq!(entry.body.concat(), content);
                                reading.push(entry);
                            }
                            Err(reason) => {
                                refused += 1;
                                assert_eq!(reason, Reason::StoreFull);
                            }
                        }
                        assert!(store.bytes() <= store.bytes_max());
                        if reading.len() > 1 {
                            reading.remove(0);
                        }
                    }
                    (kept, refused)
                })
            })
            .collect();
        let watcher = scope.spawn(|| {
            barrier.wait();
            while !done.load(Ordering::Relaxed) {
                assert!(store.bytes() <= store.bytes_max());
                thread::yield_now();
            }
        });
        let kept: usize = writers.into_iter().map(|writer| writer.join().unwrap().0).sum();
        done.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
        assert!(kept > 0);
    });
    store.clear();
    assert_eq!((store.bytes(), store.entries()), (0, 0));
}

#[test]
fn an_answer_that_took_long_does_not_replace_one_that_began_to_arrive_later() {
    let store = store_of(8 * MIB);
    let at = |seconds| Stored { received: Duration::from_secs(seconds), ..stored("1") };
    let put = |store: &Store, at: Stored, content: &[u8]| {
        store.insert(&place(store, "k"), at, Bytes::new(), filled(store, content)?)
    };
    put(&store, at(5), b"newer").unwrap();
    assert_eq!(put(&store, at(4), b"older").err(), Some(Reason::Superseded));
    assert_eq!(live(&store, "k")[0].body.concat(), b"newer");
    put(&store, at(5), b"same").unwrap();
    store.invalidate(b"k");
    put(&store, at(4), b"alive").unwrap();
    assert_eq!(live(&store, "k")[0].body.concat(), b"alive", "what is dead keeps nobody out");
    // Parts of it that arrive while the whole does are the same representation.
    let tag = Fields::from_pairs([("etag", "\"a\"")]);
    let part = crate::policy::Part { first: 0, last: 3, complete: 9 };
    put(&store, Stored { part: Some(part), fields: tag.clone(), ..at(6) }, b"part").unwrap();
    put(&store, Stored { fields: tag, ..at(5) }, b"the whole").unwrap();
}

#[test]
fn whatever_happens_in_any_order_leaves_no_byte_behind() {
    let store = store_of(4 * MIB);
    let barrier = Barrier::new(6);
    thread::scope(|scope| {
        for thread in 0..6_u64 {
            let (store, barrier) = (&store, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let (mut random, mut kept) = (thread + 1, Vec::new());
                for _ in 0..3000 {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    at_random(store, random >> 20, &mut kept);
                    assert!(store.bytes() <= store.bytes_max());
                }
            });
        }
    });
    let ranked = store.ranking().weight_bytes();
    assert!(ranked >= store.bytes(), "what is stored can be evicted: {ranked} of {}", store.bytes());
    store.clear();
    assert_eq!((store.bytes(), store.entries(), store.ranking().weight_bytes()), (0, 0, 0));
}

/// One of the things that may happen to a store; `kept` is what a slow client still reads.
fn at_random(store: &Store, random: u64, kept: &mut Vec<Arc<Entry>>) {
    let key = format!("k{}", random % 7);
    let selected_by = (random / 7 % 3).to_string();
    let content = vec![7; (random / 64 % 300_000) as usize];
    match random / 1000 % 100 {
        0 => store.clear(),
        1..6 => store.invalidate(key.as_bytes()),
        6..30 => {
            for old in live(store, &key) {
                let _ = store.freshen(
                    key.as_bytes(),
                    key.as_bytes(),
                    &old,
                    stored(&selected_by),
                    Bytes::from(content.clone()),
                );
            }
        }
        30..50 => {
            for old in live(store, &key) {
                let mut body = old.part(random % 1000..random % 200_000);
                if let Ok(fill) = filled(store, &content) {
                    body.append(fill.finish().unwrap());
                    body.append(old.part(0..9));
                }
                let _ = store.insert_segments(&place(store, &key), stored(&selected_by), Bytes::new(), body);
            }
        }
        50..60 => {
            let mut recording = match Recording::begin(store, place(store, &key), stored(&selected_by), None)
            {
                Ok(recording) => recording,
                Err(_) => return,
            };
            let _reader = recording.filled().reader();
            if recording.append(&content).is_ok() && random.is_multiple_of(2) {
                recording.hand_over().append(&content);
            }
        }
        60..65 => kept.extend(live(store, &key)),
        65..70 => kept.clear(),
        _ => {
            let place = Place { owner: random % 3, ..place(store, &key) };
            let _ = filled(store, &content)
                .and_then(|fill| store.insert(&place, stored(&selected_by), Bytes::new(), fill));
        }
    }
}

#[test]
fn objects_beyond_their_limit_are_refused() {
    let store = store_of(8 * MIB);
    assert_eq!(store.fill(0, Some(MIB + 1)).err(), Some(Reason::TooLarge));
    let mut fill = store.fill(0, None).unwrap();
    fill.append(&vec![0; MIB as usize]).unwrap();
    assert_eq!(fill.append(b"x"), Err(Reason::TooLarge));
    drop(fill);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_content_of_another_length_than_announced_is_incomplete_rfc9111_3_3() {
    let store = store_of(8 * MIB);
    for content in ["ab", "abcd"] {
        let mut fill = store.fill(0, Some(3)).unwrap();
        fill.append(content.as_bytes()).unwrap();
        let inserted = store.insert(&place(&store, "k"), stored("1"), Bytes::new(), fill);
        assert_eq!(inserted.err(), Some(Reason::Incomplete));
    }
    assert_eq!(store.bytes(), 0);
}

#[test]
fn fills_in_flight_count_and_a_full_store_says_so() {
    let store = store_of(MIB);
    let mut fills = Vec::new();
    let refused = loop {
        match filled(&store, &[0; 100_000]) {
            Ok(fill) => fills.push(fill),
            Err(reason) => break reason,
        }
    };
    assert_eq!((refused, fills.len()), (Reason::StoreFull, 10));
    drop(fills);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_segment_never_pins_the_buffer_that_it_was_copied_from() {
    let store = store_of(8 * MIB);
    let buffer = Bytes::from(vec![7; 4096]);
    let mut fill = store.fill(0, None).unwrap();
    fill.append(&buffer).unwrap();
    let entry = store.insert(&place(&store, "k"), stored("1"), buffer.slice(..9), fill).unwrap();
    assert!(buffer.is_unique());
    assert_eq!(entry.body.concat(), buffer);
}

#[test]
fn handles_and_fills_may_cross_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    shared::<Store>();
    shared::<Entry>();
    shared::<Variants>();
    sent::<Fill>();
}

mod eviction;
mod freshening;
mod groups;
mod observing;
mod parts;
mod reading;
mod searches;
