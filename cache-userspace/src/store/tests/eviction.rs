//! Who gives way, who is let in, and that the bytes are bounded whatever happens.

use super::*;

const HEAD: Bytes = Bytes::from_static(b"HTTP/1.1 200 OK\r\n");

/// Asks for a key of an owner and stores it if it is not there: whether it was, or why it was not stored.
fn ask(store: &Store, owner: u64, key: &str, bytes: usize) -> Result<bool, Reason> {
    if store.variants(key.as_bytes()).is_some() {
        return Ok(true);
    }
    let place = Place { owner, ..place(store, key) };
    let mut recording = Recording::begin(store, place, stored("1"), Some(bytes as u64))?;
    recording.append(&vec![0; bytes])?;
    recording.finish(|_, _| HEAD).map(|_| false)
}

/// How many of these keys are in the store.
fn kept(store: &Store, keys: impl Iterator<Item = String>) -> usize {
    keys.filter(|key| store.shared.table.contains(store.shared.table.hash(key.as_bytes()), key.as_bytes()))
        .count()
}

#[test]
fn a_hot_set_survives_a_scan_of_ten_times_the_store() {
    let store = store_of(8 * MIB);
    let hot = || (0..300).map(|n| format!("hot{n}"));
    for round in 0..5 {
        for (n, key) in hot().enumerate() {
            // Zipf-like: the first ones are asked for in every round.
            if n < 300 / (round + 1) || round == 1 {
                ask(&store, 0, &key, 500 + n * 40).unwrap();
            }
        }
    }
    assert_eq!(kept(&store, hot()), 300);
    for n in 0..8000 {
        let _ = ask(&store, 0, &format!("scan{n}"), 1000 + n * 7919 % 18_000);
    }
    assert!(kept(&store, hot()) >= 295, "{}", kept(&store, hot()));
}

#[test]
fn nothing_is_refused_while_less_than_nine_tenths_are_in_use() {
    let store = store_of(8 * MIB);
    for n in 0..3000 {
        let had_room = store.bytes() < store.bytes_max() / 10 * 9;
        let size = 100 << (n % 13);
        let asked = ask(&store, 0, &n.to_string(), size);
        assert!(!had_room || asked == Ok(false), "{n}: {asked:?}");
    }
    assert!(store.bytes() > store.bytes_max() / 10 * 8, "{}", store.bytes());
}

#[test]
fn what_is_asked_for_less_than_what_would_give_way_is_refused_until_it_is_not() {
    let store = store_of(8 * MIB);
    for _ in 0..4 {
        (0..90).for_each(|n| assert!(ask(&store, 0, &n.to_string(), 100_000).is_ok() || n > 80));
    }
    assert_eq!(ask(&store, 0, "new", 100_000), Err(Reason::Quota), "its only owner has its share");
    for _ in 0..10 {
        store.variants(b"new");
    }
    assert_eq!(ask(&store, 0, "new", 100_000), Ok(false));
    assert_eq!(ask(&store, 0, "new", 100_000), Ok(true));
}

#[test]
fn fills_at_once_get_room_by_eviction_down_to_a_quarter_of_the_store() {
    let store = store_of(16 * MIB);
    (0..1000).for_each(|n| assert!(insert(&store, &n.to_string(), "1", &[0; 15_000]).is_ok()));
    assert!(store.bytes() > 15 * MIB);
    let mut fills = Vec::new();
    let refused = loop {
        match filled(&store, &[1; 1_900_000]) {
            Ok(fill) => fills.push(fill),
            Err(reason) => break reason,
        }
    };
    assert_eq!(
        (refused, fills.len()),
        (Reason::StoreFull, 6),
        "six times 1.9 MB are three quarters of 16 MiB"
    );
    assert!(store.entries() > 200, "the last quarter does not give way");
    for (n, fill) in fills.into_iter().enumerate() {
        store.insert(&place(&store, &format!("large{n}")), stored("1"), HEAD, fill).unwrap();
    }
    assert!(store.bytes() <= store.bytes_max());
}

#[test]
fn a_namespace_has_all_while_it_is_alone_and_then_gives_way_to_others_down_to_its_share() {
    let store = store_of(8 * MIB);
    for _ in 0..5 {
        for n in 0..160 {
            let _ = ask(&store, 1, &format!("a{n}"), 50_000);
        }
    }
    assert!(kept(&store, (0..160).map(|n| format!("a{n}"))) >= 155);
    // Asked for once only, and let in all the same.
    (0..70).for_each(|n| assert_eq!(ask(&store, 2, &format!("b{n}"), 50_000), Ok(false)));
    for n in 160..2000 {
        for _ in 0..20 {
            store.variants(format!("a{n}").as_bytes());
        }
        let _ = ask(&store, 1, &format!("a{n}"), 50_000);
    }
    assert_eq!(
        kept(&store, (0..70).map(|n| format!("b{n}"))),
        70,
        "however often the other's keys are asked for"
    );
}

#[test]
fn the_variants_of_a_key_are_evicted_and_purged_together() {
    let store = store_of(4 * MIB);
    for n in 0..10 {
        insert(&store, "k", &n.to_string(), &[0; 20_000]).unwrap();
    }
    assert_eq!(live(&store, "k").len(), 10);
    for n in 0..1000 {
        insert(&store, &format!("other{n}"), "1", &[0; 5000]).unwrap();
    }
    assert!(store.variants(b"k").is_none());
    for n in 0..10 {
        insert(&store, "k", &n.to_string(), b"x").unwrap();
    }
    store.invalidate(b"k");
    assert!(live(&store, "k").is_empty());
}

#[test]
fn what_the_ranking_counts_is_what_the_table_holds() {
    let store = store_of(4 * MIB);
    let barrier = Barrier::new(4);
    thread::scope(|scope| {
        for thread in 0..4_usize {
            let (store, barrier) = (&store, &barrier);
            scope.spawn(move || {
                barrier.wait();
                for n in 0..2000_usize {
                    let _ = insert(
                        store,
                        &format!("{}", n * 7 % 90),
                        &(n % 3).to_string(),
                        &vec![0; n * 31 % 40_000],
                    );
                    if thread == 0 && n % 500 == 0 {
                        store.clear();
                    }
                }
            });
        }
    });
    assert_eq!(store.ranking().weight_bytes(), store.bytes());
    store.clear();
    assert_eq!((store.ranking().weight_bytes(), store.bytes(), store.entries()), (0, 0, 0));
}

#[test]
fn sixty_four_mib_hold_against_32_threads_of_large_objects_and_slow_readers() {
    let store = Store::new(StoreLimits {
        bytes_max: 64 * MIB,
        object_bytes_max: 32 * MIB,
        variants_max: 64,
        namespace_bytes_max: 32 * MIB,
    });
    let barrier = Barrier::new(32);
    let outcomes: Vec<(usize, usize)> = thread::scope(|scope| {
        let threads: Vec<_> = (0..32_usize)
            .map(|thread| {
                let (store, barrier) = (&store, &barrier);
                scope.spawn(move || {
                    let mut unread: Option<Bytes> = None;
                    let (mut stored_count, mut refused) = (0, 0);
                    barrier.wait();
                    for n in 0..12_usize {
                        let size = (n * 7_919_777 + thread * 1_299_709) % (10 * MIB as usize);
                        let place = place(store, &format!("{}", (n * 5 + thread) % 40));
                        let recorded = Recording::begin(store, place, stored("1"), Some(size as u64))
                            .and_then(|mut recording| {
                                for part in vec![thread as u8; size].chunks(64 << 10) {
                                    recording.append(part)?;
                                    assert!(store.bytes() <= store.bytes_max());
                                }
                                recording.finish(|_, _| HEAD)
                            });
                        match recorded {
                            Ok(entry) => {
                                stored_count += 1;
                                // A client that has not read the last segment yet.
                                unread = entry.body.last().cloned().or(unread);
                            }
                            Err(Reason::StoreFull | Reason::Admission | Reason::Quota) => refused += 1,
                            Err(reason) => panic!("{reason}"),
                        }
                        assert!(store.bytes() <= store.bytes_max());
                    }
                    drop(unread);
                    (stored_count, refused)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(outcomes.iter().map(|(stored, _)| stored).sum::<usize>() > 20, "{outcomes:?}");
    store.clear();
    assert_eq!((store.bytes(), store.entries()), (0, 0));
}
