//! Responses that answer several queries of a path (No-Vary-Search).

use super::*;
use crate::policy::{self, Search};

fn resource(target: &str) -> Vec<u8> {
    let mut resource = Vec::new();
    policy::resource(b"d", b"o", target.as_bytes(), &mut resource);
    resource
}

/// Stored for a target, by a rule for which `u` does not count.
fn stored_for(target: &str) -> Stored {
    let fields = Fields::from_pairs([("no-vary-search", "params=(\"u\")")]);
    Stored { search: Search::of(&fields, target.as_bytes()).map(Box::new), ..stored("1") }
}

fn insert_for(store: &Store, target: &str, content: &[u8]) -> Result<Arc<Entry>, Reason> {
    let fill = filled(store, content)?;
    let place = Place { key: b"k".to_vec(), resource: resource(target), begun: store.begin(), owner: 0 };
    store.insert(&place, stored_for(target), Bytes::new(), fill)
}

#[test]
fn an_invalidation_of_one_query_kills_what_answers_several_of_its_path() {
    let store = store_of(16 * MIB);
    for (invalidated, is_killed) in [
        ("/p?a=1&u=1", true),
        ("/p?a=1", true),
        ("/p", true),
        ("/q?a=1", false),
        ("/", false),
        ("/p/", false),
    ] {
        let begun = store.begin();
        let entry = insert_for(&store, "/p?a=1&u=1", b"x").unwrap();
        let place = Place { key: b"plain".to_vec(), resource: resource("/p"), begun, owner: 0 };
        let fill = filled(&store, b"x").unwrap();
        let plain = store.insert(&place, stored("1"), Bytes::new(), fill).unwrap();
        store.invalidate(&resource(invalidated));
        assert_eq!(!store.alive(&entry), is_killed, "{invalidated}");
        let is_joined = store.is_current_as(&resource("/p?a=1&u=1"), &stored_for("/p?a=1&u=1"), begun);
        assert_eq!(!is_joined, is_killed, "{invalidated}");
        assert_eq!(
            store.alive(&plain),
            invalidated != "/p",
            "what answers its own query only: {invalidated}"
        );
        store.clear();
    }
}

#[test]
fn a_newer_response_takes_the_place_of_those_whose_query_it_answers() {
    let store = store_of(16 * MIB);
    for (target, content) in [("/p?a=1&u=1", "a"), ("/p?a=2", "b"), ("/p?u=2&a=1", "c")] {
        insert_for(&store, target, content.as_bytes()).unwrap();
    }
    let contents: Vec<_> = live(&store, "k").iter().map(|entry| entry.body.concat()).collect();
    assert_eq!(contents, [b"b", b"c"]);
}
