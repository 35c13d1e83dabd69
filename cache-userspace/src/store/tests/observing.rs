//! What an observer is told, and when.

use std::sync::Weak;

use super::*;

/// Notes what it is told, and what it then finds in the store.
struct Notes {
    store: Mutex<Weak<Shared>>,
    told: Mutex<Vec<String>>,
}

impl Notes {
    fn of(store: &Store) -> Arc<Self> {
        let notes =
            Arc::new(Self { store: Mutex::new(Arc::downgrade(&store.shared)), told: Mutex::default() });
        store.observe(notes.clone());
        notes
    }

    fn note(&self, what: &str) {
        let store = Store { shared: self.store.lock().unwrap().upgrade().unwrap() };
        self.told.lock().unwrap().push(format!("{what}: {} alive", live(&store, "k").len()));
    }

    fn told(&self) -> Vec<String> {
        std::mem::take(&mut self.told.lock().unwrap())
    }
}

impl Observer for Notes {
    fn changed(&self, key: &[u8]) {
        self.note(std::str::from_utf8(key).unwrap());
    }
    fn invalidated(&self, _: PurgePlace) {
        self.note("place");
    }
    fn cleared(&self) {
        self.note("all");
    }
}

#[test]
fn a_change_is_told_when_it_has_happened() {
    let store = store_of(16 * MIB);
    let notes = Notes::of(&store);

    let old = insert(&store, "k", "1", b"a").unwrap();
    insert(&store, "k", "2", b"b").unwrap();
    store.freshen(b"k", b"k", &old, stored("1"), Bytes::new()).unwrap();
    assert_eq!(notes.told(), ["k: 1 alive", "k: 2 alive", "k: 2 alive"]);

    // What is refused changes nothing.
    assert!(store.freshen(b"k", b"k", &old, stored("1"), Bytes::new()).is_ok());
    assert!(notes.told().is_empty(), "superseded");

    store.invalidate(b"k");
    assert_eq!(notes.told(), ["place: 0 alive", "place: 0 alive"], "the resource and its searches");
    insert(&store, "k", "1", b"c").unwrap();
    store.invalidate_group(b"k", "g");
    store.clear();
    assert_eq!(notes.told(), ["k: 1 alive", "place: 1 alive", "all: 0 alive"]);
}

#[test]
fn an_entry_tells_the_places_by_which_it_is_invalidated() {
    struct Places(Mutex<Vec<PurgePlace>>);
    impl Observer for Places {
        fn changed(&self, _: &[u8]) {}
        fn invalidated(&self, place: PurgePlace) {
            self.0.lock().unwrap().push(place);
        }
        fn cleared(&self) {}
    }
    let store = store_of(16 * MIB);
    let places = Arc::new(Places(Mutex::default()));
    store.observe(places.clone());
    let stored = Stored { groups: Box::new([Box::from("g")]), ..stored("1") };
    let place = place_of(&store, "k", "r");
    let entry = store.insert(&place, stored, Bytes::new(), filled(&store, b"x").unwrap()).unwrap();

    store.invalidate(b"r");
    store.invalidate_group(b"r", "g");

    let told = places.0.lock().unwrap();
    assert_eq!(entry.purge_places(), [told[0], told[2]]);
}

#[test]
fn a_peek_is_no_request() {
    let store = store_of(16 * MIB);
    insert(&store, "k", "1", b"a").unwrap();
    let hash = store.shared.table.hash(b"k");
    let popularity = || store.shared.table.popularity(hash);
    let before = popularity();
    for _ in 0..10 {
        assert_eq!(store.peek(b"k").map(|variants| variants.iter().count()), Some(1));
    }
    assert!(store.peek(b"l").is_none());
    assert_eq!(popularity(), before);
    (0..10).for_each(|_| drop(store.variants(b"k")));
    assert!(popularity() > before);
}
