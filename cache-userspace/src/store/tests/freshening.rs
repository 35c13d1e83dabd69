//! New metadata for a stored response (RFC 9111 §4.3.4), and what may happen meanwhile.

use super::*;

const HEAD: Bytes = Bytes::from_static(b"HTTP/1.1 200 Fresh\r\n");

#[test]
fn a_freshened_response_shares_its_content_which_counts_once_rfc9111_4_3_4() {
    let store = store_of(16 * MIB);
    let old = insert(&store, "k", "1", &[7; 500_000]).unwrap();
    insert(&store, "k", "2", b"other").unwrap();
    let before = store.bytes();
    let new = store.freshen(b"k", b"k", &old, stored("1"), HEAD).unwrap();
    assert_eq!((new.body.concat(), new.body_bytes), (old.body.concat(), 500_000));
    assert_eq!(new.body[0].as_ptr(), old.body[0].as_ptr());
    assert_eq!(new.head, HEAD);
    let heads: Vec<_> = live(&store, "k").iter().map(|entry| entry.head.clone()).collect();
    assert_eq!(heads.len(), 2);
    assert_eq!(heads[1], HEAD, "the one just validated is the newest");
    assert!(store.bytes() - before < 2000, "{}", store.bytes() - before);
    assert_eq!(new.weight_bytes(), old.weight_bytes() + 3, "the head is longer by three bytes");
    drop((old, new));
    store.clear();
    assert_eq!((store.bytes(), store.entries()), (0, 0));
}

#[test]
fn two_responses_never_have_one_selection() {
    let store = store_of(16 * MIB);
    let old = insert(&store, "k", "1", b"a").unwrap();
    insert(&store, "k", "2", b"b").unwrap();
    store.freshen(b"k", b"k", &old, stored("2"), HEAD).unwrap();
    let found = live(&store, "k");
    assert_eq!((found.len(), found[0].body.concat()), (1, b"a".to_vec()));
}

#[test]
fn what_was_replaced_or_evicted_meanwhile_is_freshened_for_the_caller_alone() {
    let store = store_of(16 * MIB);
    let old = insert(&store, "k", "1", b"old").unwrap();
    insert(&store, "k", "1", b"new").unwrap();
    assert_eq!(store.freshen(b"k", b"k", &old, stored("1"), HEAD).unwrap().body.concat(), b"old");
    assert_eq!(live(&store, "k")[0].body.concat(), b"new");
    assert_eq!(store.freshen(b"other", b"other", &old, stored("1"), HEAD).unwrap().body.concat(), b"old");
    assert!(store.variants(b"other").is_none());
}

#[test]
fn a_validation_revives_nothing_that_was_purged_before_or_after_it_began() {
    let store = store_of(16 * MIB);
    let old = insert(&store, "k", "1", b"old").unwrap();
    store.invalidate(b"k");
    assert_eq!(store.freshen(b"k", b"k", &old, stored("1"), HEAD).err(), Some(Reason::Purged));
    let old = insert(&store, "k", "1", b"old").unwrap();
    let new = store.freshen(b"k", b"k", &old, stored("1"), HEAD).unwrap();
    store.invalidate(b"k");
    assert!(!store.alive(&new));
    let old = insert(&store, "k", "1", b"old").unwrap();
    store.clear();
    assert_eq!(store.freshen(b"k", b"k", &old, stored("1"), HEAD).err(), Some(Reason::Purged));
}

#[test]
fn freshening_racing_inserts_purges_and_evictions_leaves_one_live_response_at_most() {
    let store = store_of(4 * MIB);
    for round in 0..500_u32 {
        let key = format!("k{}", round % 5);
        let old = insert(&store, &key, "1", &[b'o'; 30_000]).unwrap();
        let barrier = Barrier::new(4);
        thread::scope(|scope| {
            let freshened = scope.spawn(|| {
                barrier.wait();
                store.freshen(key.as_bytes(), key.as_bytes(), &old, stored("1"), HEAD)
            });
            let inserted = scope.spawn(|| {
                barrier.wait();
                insert(&store, &key, "1", &[b'n'; 30_000])
            });
            scope.spawn(|| {
                barrier.wait();
                for n in 0..20 {
                    let _ = insert(&store, &format!("{round}/{n}"), "1", &[0; 30_000]);
                }
            });
            barrier.wait();
            if round % 2 == 0 {
                store.invalidate(key.as_bytes());
                assert!(live(&store, &key).iter().all(|entry| entry.body[0][0] == b'n'), "after a purge");
            }
            let inserted = inserted.join().unwrap();
            let freshened = freshened.join().unwrap();
            assert!(matches!(freshened, Ok(_) | Err(Reason::Purged)));
            let found = live(&store, &key);
            assert!(found.len() <= 1);
            // The insert wins whoever came first; eviction may have taken either.
            if let (Ok(inserted), [found]) = (inserted, &found[..]) {
                assert!(Arc::ptr_eq(&inserted, found));
            }
        });
        assert!(store.bytes() <= store.bytes_max());
    }
    store.clear();
    assert_eq!(store.entries(), 0);
}
