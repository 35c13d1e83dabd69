//! Groups of responses (RFC 9875) that are invalidated together.

use super::*;
use crate::policy;

/// A resource of an origin.
fn resource(origin: &str, target: &str) -> Vec<u8> {
    let mut resource = Vec::new();
    policy::resource(b"d", origin.as_bytes(), target.as_bytes(), &mut resource);
    resource
}

fn stored_in(groups: &[&str]) -> Stored {
    Stored { groups: groups.iter().map(|group| Box::from(*group)).collect(), ..stored("1") }
}

fn insert_in(store: &Store, resource: &[u8], groups: &[&str], begun: Sequence) -> Result<Arc<Entry>, Reason> {
    let place = Place { key: resource.into(), resource: resource.into(), begun, owner: 0 };
    store.insert(&place, stored_in(groups), Bytes::new(), filled(store, b"x")?)
}

#[test]
fn an_invalidated_group_takes_its_members_of_the_same_origin_with_it_rfc9875_3() {
    let store = store_of(16 * MIB);
    let [a, b, c, other] = [("o", "/a"), ("o", "/b"), ("o", "/c"), ("p", "/a")].map(|(o, t)| resource(o, t));
    let begun = store.begin();
    let entries = [
        (insert_in(&store, &a, &["x"], begun).unwrap(), false),
        (insert_in(&store, &b, &["w", "x", "y"], begun).unwrap(), false),
        (insert_in(&store, &c, &["X"], begun).unwrap(), true),
        (insert_in(&store, &other, &["x"], begun).unwrap(), true),
    ];
    store.invalidate_group(&resource("o", "/elsewhere"), "x");
    for (index, (entry, is_alive)) in entries.iter().enumerate() {
        assert_eq!(store.alive(entry), *is_alive, "{index}");
    }
    assert_eq!(insert_in(&store, &a, &["x"], begun).err(), Some(Reason::Purged), "a fill that began before");
    assert!(insert_in(&store, &a, &["y"], begun).is_ok(), "one that is no member");
    assert!(insert_in(&store, &a, &["x"], store.begin()).is_ok());
}

#[test]
fn nobody_joins_the_fill_of_a_group_that_was_invalidated_since() {
    let store = store_of(16 * MIB);
    let a = resource("o", "/a");
    let begun = store.begin();
    store.invalidate_group(&a, "x");
    assert!(store.is_current(&a, begun) && store.is_current_as(&a, &stored_in(&["y"]), begun));
    assert!(!store.is_current_as(&a, &stored_in(&["x", "y"]), begun));
}

#[test]
fn a_validation_takes_a_response_from_one_group_to_another_but_not_past_a_purge() {
    let store = store_of(16 * MIB);
    let a = resource("o", "/a");
    let old = insert_in(&store, &a, &["x"], store.begin()).unwrap();
    let new = store.freshen(&a, &a, &old, stored_in(&["y"]), Bytes::new()).unwrap();
    store.invalidate_group(&a, "x");
    assert!(store.alive(&new));
    store.invalidate_group(&a, "y");
    assert!(!store.alive(&new));
    let old = insert_in(&store, &a, &["x"], store.begin()).unwrap();
    store.invalidate_group(&a, "x");
    assert_eq!(store.freshen(&a, &a, &old, stored_in(&["z"]), Bytes::new()).err(), Some(Reason::Purged));
    let old = insert_in(&store, &a, &["x"], store.begin()).unwrap();
    store.invalidate_group(&a, "v");
    let into_purged = store.freshen(&a, &a, &old, stored_in(&["v"]), Bytes::new());
    assert_eq!(into_purged.err(), Some(Reason::Purged), "its content is older than that");
}

#[test]
fn an_insert_racing_an_invalidation_of_its_group_never_leaves_a_live_old_entry() {
    let store = store_of(16 * MIB);
    for round in 0..1000 {
        let a = resource("o", &format!("/{}", round % 7));
        let begun = store.begin();
        let barrier = Barrier::new(2);
        let live = || {
            let variants = store.variants(&a);
            variants.iter().flat_map(|v| v.iter()).filter(|entry| store.alive(entry)).count()
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                let _ = insert_in(&store, &a, &["x", "y"], begun);
            });
            barrier.wait();
            store.invalidate_group(&a, "y");
            assert_eq!(live(), 0, "right after the invalidation");
        });
        assert_eq!(live(), 0, "after both");
    }
}
