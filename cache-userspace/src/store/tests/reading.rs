//! Reading a content while it is being collected, and on when the store refuses the rest.

use super::*;
use crate::store::{HAND_OVER_BYTES_MAX, Read, Reader};

/// Reads what is there, at most `max` at a time, and says why it ended.
fn drain(reader: &mut Reader, max: usize, into: &mut Vec<u8>) -> Read {
    loop {
        match reader.read(max) {
            Read::Data(data) => {
                assert!(!data.is_empty() && data.len() <= max);
                into.extend_from_slice(&data);
            }
            end => return end,
        }
    }
}

#[test]
fn readers_see_all_that_was_appended_whenever_they_join() {
    let store = store_of(16 * MIB);
    let content: Vec<u8> = (0..900_000_u32).map(|n| (n * 7) as u8).collect();
    for expected in [None, Some(content.len() as u64)] {
        let mut fill = store.fill(0, expected).unwrap();
        let filled = fill.filled();
        let mut readers: Vec<(Reader, Vec<u8>)> = Vec::new();
        for (n, part) in content.chunks(70_001).enumerate() {
            readers.push((filled.reader().unwrap(), Vec::new()));
            fill.append(part).unwrap();
            for (reader, seen) in &mut readers {
                assert_eq!(drain(reader, 10_000 + n * 30_000, seen), Read::Pending);
                assert_eq!(seen.len() as u64, fill.bytes());
            }
        }
        let entry = store.insert(&place(&store, "k"), stored("1"), Bytes::new(), fill).unwrap();
        let (mut late, mut seen) = (filled.reader().unwrap(), Vec::new());
        assert_eq!(drain(&mut late, usize::MAX, &mut seen), Read::End);
        assert!(seen == content && entry.body.concat() == content);
        for (mut reader, seen) in readers {
            assert_eq!(reader.read(1), Read::End);
            assert!(seen == content);
        }
    }
}

#[test]
fn closed_segments_are_shared_and_count_once() {
    let store = store_of(16 * MIB);
    let mut fill = store.fill(0, Some(600_000)).unwrap();
    fill.append(&[1; 300_000]).unwrap();
    let used = store.bytes();
    let mut reader = fill.filled().reader().unwrap();
    let Read::Data(first) = reader.read(usize::MAX) else { panic!() };
    assert_eq!((first.len(), store.bytes()), (SEGMENT_BYTES_MAX, used));
    let Read::Data(copied) = reader.read(usize::MAX) else { panic!() };
    assert_eq!(copied.len(), 300_000 - SEGMENT_BYTES_MAX);
    fill.append(&[1; 300_000]).unwrap();
    let entry = store.insert(&place(&store, "k"), stored("1"), Bytes::new(), fill).unwrap();
    assert_eq!(entry.body[0].as_ptr(), first.as_ptr());
}

#[test]
fn readers_of_what_the_store_refuses_at_the_end_get_all_of_it() {
    let store = store_of(16 * MIB);
    let place = place(&store, "k");
    let fill = filled(&store, &[3; 400_000]).unwrap();
    let (mut reader, mut seen) = (fill.filled().reader().unwrap(), Vec::new());
    store.invalidate(b"k");
    let refused = store.insert(&place, stored("1"), Bytes::new(), fill);
    assert_eq!(refused.err(), Some(Reason::Purged));
    assert_eq!(drain(&mut reader, usize::MAX, &mut seen), Read::End);
    assert_eq!(seen, [3; 400_000]);
    drop(reader);
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_content_that_breaks_off_fails_for_its_readers_after_what_came() {
    let store = store_of(16 * MIB);
    for expected in [None, Some(9)] {
        let mut fill = store.fill(0, expected).unwrap();
        let (filled, mut seen) = (fill.filled(), Vec::new());
        let mut reader = filled.reader().unwrap();
        fill.append(b"so far").unwrap();
        match expected {
            None => drop(fill),
            Some(_) => assert_eq!(fill.finish().err(), Some(Reason::Incomplete)),
        }
        assert_eq!(drain(&mut reader, 4, &mut seen), Read::Failed);
        assert_eq!(seen, b"so far");
        assert!(filled.reader().is_none());
    }
    assert_eq!(store.bytes(), 0);
}

#[test]
fn a_refused_append_takes_nothing() {
    let store = store_of(MIB);
    let mut fill = store.fill(0, None).unwrap();
    let mut reader = fill.filled().reader().unwrap();
    fill.append(&[0; 5000]).unwrap();
    let others: Vec<Fill> = (0..).map_while(|_| filled(&store, &[0; 50_000]).ok()).collect();
    let used = store.bytes();
    assert_eq!(fill.append(&[0; 100_000]), Err(Reason::StoreFull));
    assert_eq!((fill.bytes(), store.bytes()), (5000, used));
    let mut seen = Vec::new();
    assert_eq!(drain(&mut reader, usize::MAX, &mut seen), Read::Pending);
    assert_eq!(seen.len(), 5000);
    drop(others);
}

#[test]
fn a_refused_content_reaches_its_readers_within_256_kib_outside_the_budget() {
    let store = store_of(8 * MIB);
    let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
    let mut fill = store.fill(0, None).unwrap();
    let filled = fill.filled();
    let (mut fast, mut slow) = (filled.reader().unwrap(), filled.reader().unwrap());
    let mut sent = 0;
    for part in content.chunks(50_000) {
        match fill.append(part) {
            Ok(()) => sent += part.len(),
            Err(reason) => {
                assert_eq!(reason, Reason::TooLarge);
                break;
            }
        }
    }
    let in_budget = store.bytes();
    let mut over = fill.hand_over();
    assert!(filled.reader().is_none(), "nobody new joins");
    let (mut seen_fast, mut seen_slow) = (Vec::new(), Vec::new());
    while sent < content.len() {
        match over.append(&content[sent..(sent + 60_000).min(content.len())]) {
            0 => {
                let waiting = sent as u64 - seen_slow.len() as u64;
                assert!(waiting <= in_budget + HAND_OVER_BYTES_MAX as u64);
                assert_eq!(drain(&mut fast, 65_536, &mut seen_fast), Read::Pending);
                let Read::Data(data) = slow.read(100_000) else { panic!() };
                seen_slow.extend_from_slice(&data);
            }
            taken => sent += taken,
        }
    }
    over.finish().unwrap();
    assert_eq!(drain(&mut fast, 65_536, &mut seen_fast), Read::End);
    assert_eq!(drain(&mut slow, 65_536, &mut seen_slow), Read::End);
    assert!(seen_fast == content && seen_slow == content);
    assert_eq!(store.bytes(), 0, "what was read is dropped, although the readers are still there");
}

#[test]
fn small_appends_after_a_refusal_are_counted_with_their_cost() {
    let store = store_of(8 * MIB);
    let fill = store.fill(0, None).unwrap();
    let reader = fill.filled().reader().unwrap();
    let mut over = fill.hand_over();
    let taken = (0..).map_while(|_| (over.append(b"x") == 1).then_some(())).count();
    assert!((1500..2100).contains(&taken), "{taken}");
    drop(reader);
    assert!(over.is_abandoned());
    assert_eq!(over.append(&[0; 1_000_000]), 1_000_000, "nobody reads: nothing is kept");
}

#[test]
fn a_reader_that_leaves_lets_the_others_go_on() {
    let store = store_of(8 * MIB);
    let fill = store.fill(0, None).unwrap();
    let filled = fill.filled();
    let (mut fast, stalled) = (filled.reader().unwrap(), filled.reader().unwrap());
    let mut over = fill.hand_over();
    while over.append(&[0; 60_000]) > 0 {
        while let Read::Data(_) = fast.read(usize::MAX) {}
    }
    drop(stalled);
    assert_eq!(over.append(b"more"), 4);
    assert_eq!(fast.read(9), Read::Data(Bytes::from_static(b"more")));
    drop(over);
    assert_eq!(fast.read(9), Read::Failed);
}

#[test]
fn readers_on_other_threads_see_the_same_bytes() {
    let store = store_of(8 * MIB);
    let content: Vec<u8> = (0..800_000_u32).map(|n| (n / 3) as u8).collect();
    let mut fill = store.fill(0, None).unwrap();
    let readers: Vec<Reader> = (0..4).map(|_| fill.filled().reader().unwrap()).collect();
    thread::scope(|scope| {
        for mut reader in readers {
            let content = &content;
            scope.spawn(move || {
                let mut seen = Vec::new();
                while drain(&mut reader, 50_000, &mut seen) == Read::Pending {
                    thread::yield_now();
                }
                assert!(seen == *content);
            });
        }
        for part in content.chunks(3001) {
            fill.append(part).unwrap();
        }
        store.insert(&place(&store, "k"), stored("1"), Bytes::new(), fill).unwrap();
    });
}
