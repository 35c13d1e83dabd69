//! Contents put together from parts (RFC 9111 §3.4).

use super::*;
use crate::{policy::Part, store::body::Body};

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 31 % 251) as u8).collect()
}

fn put(store: &Store, begun: Sequence, body: Body) -> Result<Arc<Entry>, Reason> {
    store.insert_segments(&Place { begun, ..place(store, "k") }, stored("1"), Bytes::new(), body)
}

#[test]
fn a_part_and_what_follows_it_become_one_without_copying_rfc9111_3_4() {
    let store = store_of(16 * MIB);
    let whole = content(900_000);
    let first = insert(&store, "k", "1", &whole[..500_000]).unwrap();
    let mut body = first.part(0..400_000);
    body.append(filled(&store, &whole[400_000..]).unwrap().finish().unwrap());
    let both = put(&store, store.begin(), body).unwrap();
    assert_eq!((both.body.concat(), both.body_bytes), (whole, 900_000));
    assert_eq!(both.body[0].as_ptr(), first.body[0].as_ptr());
    drop(first);
    // What the cut left out is still kept by its segment.
    assert!(store.bytes() > 1_000_000 && store.bytes() < 1_010_000, "{}", store.bytes());
    assert!(store.bytes() - both.weight_bytes() < 10, "{} {}", store.bytes(), both.weight_bytes());
}

#[test]
fn every_range_of_a_content_is_found_in_its_parts() {
    let store = store_of(16 * MIB);
    let whole = content(700_000);
    let entry = insert(&store, "k", "1", &whole).unwrap();
    for (from, to) in
        [(0, 0), (0, 1), (262_143, 262_145), (262_144, 524_288), (5, 699_999), (699_999, 800_000), (9, 3)]
    {
        let part = entry.part(from..to);
        let expected = whole.get(from as usize..(to as usize).min(whole.len())).unwrap_or_default();
        let found: Vec<u8> = part.pieces.iter().flat_map(|piece| piece.data.to_vec()).collect();
        assert_eq!((found.as_slice(), part.bytes()), (expected, expected.len() as u64), "{from}..{to}");
    }
}

#[test]
fn crumbs_become_segments_of_their_own() {
    let store = store_of(16 * MIB);
    let whole = content(3000);
    let mut so_far = Body::default();
    for byte in whole.chunks(1) {
        so_far.append(filled(&store, byte).unwrap().finish().unwrap());
        let entry = put(&store, store.begin(), so_far).unwrap();
        so_far = entry.part(0..u64::MAX);
        assert_eq!(entry.body.len(), 1);
    }
    let entry = put(&store, store.begin(), so_far).unwrap();
    assert_eq!(entry.body.concat(), whole);
    let few = entry.part(0..10);
    let few = put(&store, store.begin(), few).unwrap();
    assert!(few.weight_bytes() < entry.weight_bytes() - 2800);
    drop(entry);
    assert_eq!(store.bytes(), few.weight_bytes());
}

#[test]
fn a_purge_of_one_source_concerns_the_whole() {
    let store = store_of(16 * MIB);
    let first = insert(&store, "k", "1", b"old").unwrap();
    store.invalidate(b"k");
    let begun = store.begin();
    let mut body = filled(&store, b"new").unwrap().finish().unwrap();
    body.append(first.part(0..3));
    assert_eq!(put(&store, begun, body).err(), Some(Reason::Purged));
}

/// Records a part of a representation of `complete` bytes that begins at `first`.
fn record(store: &Store, first: u64, content: &[u8], complete: u64) -> Result<Arc<Entry>, Reason> {
    record_in(store, &[], first, content, complete)
}

/// The same of one in these groups.
fn record_in(
    store: &Store,
    groups: &[&str],
    first: u64,
    content: &[u8],
    complete: u64,
) -> Result<Arc<Entry>, Reason> {
    let groups = groups.iter().map(|group| Box::from(*group)).collect();
    let part = Part { first, last: first + content.len() as u64 - 1, complete };
    let fields = Fields::from_pairs([("etag", "\"a\"")]);
    let stored = Stored { status: 206, part: Some(part), fields, groups, ..stored("1") };
    let mut recording = Recording::begin(store, place(store, "k"), stored, None)?;
    recording.append(content)?;
    recording.finish(|stored, _| Bytes::from(stored.status.to_string()))
}

#[test]
fn parts_are_not_joined_beyond_the_limit_of_an_object() {
    let store = store_of(8 * MIB);
    let (half, whole) = (MIB as usize / 2, content(2 * MIB as usize));
    let one = record(&store, 0, &whole[..half], 2 * MIB).unwrap();
    let two = record(&store, half as u64, &whole[half..2 * half], 2 * MIB).unwrap();
    assert_eq!((one.body_bytes, two.body_bytes), (MIB / 2, MIB));
    let next = record(&store, MIB, &whole[2 * half..3 * half], 2 * MIB).unwrap();
    assert_eq!((next.body_bytes, next.stored.part.unwrap().first), (MIB / 2, MIB), "the newer one alone");
    assert_eq!(live(&store, "k").len(), 1);
}

#[test]
fn a_part_that_is_everything_is_the_whole_rfc9110_15_3_7_3() {
    let store = store_of(8 * MIB);
    let entry = record(&store, 0, b"0123456789", 10).unwrap();
    assert_eq!((entry.stored.status, entry.stored.part, &entry.head[..]), (200, None, &b"200"[..]));
    let part = record(&store, 0, b"01234", 10);
    assert_eq!(part.err(), Some(Reason::Superseded));
}

#[test]
fn a_part_in_a_group_stays_without_one_that_is_older_than_the_group_s_invalidation() {
    let store = store_of(8 * MIB);
    record(&store, 0, b"01234", 10).unwrap();
    store.invalidate_group(b"k", "x");
    let new = record_in(&store, &["x"], 5, b"56789", 10).unwrap();
    assert_eq!((new.body.concat(), new.stored.part.unwrap().first), (b"56789".to_vec(), 5));
    assert_eq!(live(&store, "k").len(), 1);
}
