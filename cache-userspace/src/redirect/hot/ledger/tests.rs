//! Chunks, shares and who gives way.

use super::*;

const LATE: u64 = u64::MAX;

fn head(number: u64) -> HotKey {
    HotKey { lanes: [number, number] }
}

fn hot(number: u64, workload: u64, worth: u64, chunks: Box<[u32]>) -> Hot {
    Hot {
        head: head(number),
        asker: Asker { workload, ip: [0, 0, 0, 1], port: 80, epoch: 0 },
        key: Arc::from(format!("key {number}").as_bytes()),
        places: Box::new([PurgePlace::of(number as u32)]),
        chunks,
        expires_at_ns: LATE,
        seen_hits: 0,
        worth,
    }
}

/// Enters something of one chunk if there is room; what had to give way for it otherwise.
fn put(ledger: &mut Ledger, number: u64, workload: u64, worth: u64) -> Result<(), (Refusal, Vec<HotKey>)> {
    ledger.add_workload(workload, 0);
    let mut gone = Vec::new();
    let chunks = ledger.allocate(workload, 1, worth, 0, &mut gone);
    let chunks = chunks.map_err(|refusal| (refusal, gone.iter().map(|gone| gone.head).collect()))?;
    ledger.insert(hot(number, workload, worth, chunks));
    Ok(())
}

fn rest(ledger: &mut Ledger) {
    let resting = ledger.take_limbo();
    ledger.rested(resting, |_| 0);
}

fn full(workloads: &[u64]) -> Ledger {
    let mut ledger = Ledger::new(8, 4);
    for (number, workload) in (0..8).zip(workloads.iter().cycle()) {
        put(&mut ledger, number, *workload, 10 + number).unwrap();
    }
    ledger
}

#[test]
fn a_workload_may_have_all_while_there_is_room() {
    let ledger = full(&[1]);
    assert_eq!(ledger.workloads().collect::<Vec<_>>(), [(1, Account { chunks: 8, hits: 0, epoch: 0 })]);
    assert_eq!((ledger.entries(), ledger.chunks_used()), (8, 8));
}

#[test]
fn the_least_worth_gives_way_and_its_chunk_is_used_again_after_its_rest() {
    let mut ledger = full(&[1, 2]);
    assert_eq!(put(&mut ledger, 8, 3, 9), Err((Refusal::Worth, vec![])), "worth less than all");
    assert_eq!(put(&mut ledger, 8, 3, 10), Err((Refusal::Grace, vec![head(0)])));
    assert_eq!(put(&mut ledger, 8, 3, 10), Err((Refusal::Grace, vec![])), "there will be room");
    rest(&mut ledger);
    assert_eq!(put(&mut ledger, 8, 3, 10), Ok(()));
    assert_eq!((ledger.entries(), ledger.chunks_used()), (8, 8));
    assert!(ledger.has(&head(8), 0) && !ledger.has(&head(0), 0));
}

#[test]
fn a_workload_with_its_share_pushes_out_only_its_own() {
    let mut ledger = full(&[1, 2]);
    assert_eq!(put(&mut ledger, 8, 2, 10), Err((Refusal::Quota, vec![])), "its own are worth more");
    assert_eq!(put(&mut ledger, 8, 2, 1000), Err((Refusal::Grace, vec![head(1)])));
    rest(&mut ledger);
    for number in 8..100 {
        while let Err((refusal, gone)) = put(&mut ledger, number, 2, 1000) {
            assert_eq!(refusal, Refusal::Grace);
            assert!(gone.iter().all(|gone| gone.lanes[0] % 2 == 1 || gone.lanes[0] >= 8), "{gone:?}");
            rest(&mut ledger);
        }
    }
    let of_the_other = [0, 2, 4, 6].map(|number| ledger.has(&head(number), 0));
    assert_eq!(of_the_other, [true; 4], "whoever churns");
}

#[test]
fn whoever_has_more_than_its_share_gives_way_first() {
    let mut ledger = full(&[1, 1, 1, 2]);
    let Err((Refusal::Grace, gone)) = put(&mut ledger, 8, 3, 1000) else { panic!("there is no room") };
    assert_eq!(gone, [head(0)]);
    // Of the same worth as what the other one has.
    assert_eq!(put(&mut ledger, 9, 2, 13).map_err(|(refusal, _)| refusal), Err(Refusal::Grace));
}

#[test]
fn what_has_expired_is_worth_nothing() {
    let mut ledger = full(&[1]);
    let slot = ledger.of_head(&head(5)).unwrap();
    ledger.slots[slot].as_mut().unwrap().expires_at_ns = 7;
    ledger.add_workload(2, 0);
    let mut gone = Vec::new();
    assert_eq!(ledger.allocate(2, 1, 0, 7, &mut gone), Err(Refusal::Grace));
    assert_eq!(gone.first().map(|gone| gone.head), Some(head(5)));
    assert!(!ledger.has(&head(5), 0));
}

#[test]
fn what_needs_more_than_there_is_evicts_nothing() {
    let mut ledger = full(&[1]);
    let mut gone = Vec::new();
    assert_eq!(ledger.allocate(1, 9, LATE, 0, &mut gone), Err(Refusal::TooLarge));
    assert!(gone.is_empty());
    assert_eq!(ledger.allocate(1, 8, LATE, 0, &mut gone), Err(Refusal::Grace));
    assert_eq!(gone.len(), 8);
    rest(&mut ledger);
    assert_eq!(ledger.allocate(1, 8, LATE, 0, &mut gone).map(|chunks| chunks.len()), Ok(8));
}

#[test]
fn entries_are_found_by_key_path_and_place_as_long_as_they_are_there() {
    let mut ledger = Ledger::new(8, 8);
    for (number, key) in ["a/p", "a/p", "a/p?x=1", "a/pq", "a/p?y", "a/q"].into_iter().enumerate() {
        let places = [PurgePlace::of(number as u32 / 2), PurgePlace::of(9)];
        let chunks = ledger.allocate(1, 1, 1, 0, &mut Vec::new()).unwrap();
        let hot = hot(number as u64, 1, 1, chunks);
        ledger.insert(Hot { key: Arc::from(key.as_bytes()), places: Box::new(places), ..hot });
    }
    assert_eq!(ledger.of_key(b"a/p"), [0, 1]);
    assert_eq!(ledger.of_key(b"a/"), [0_usize; 0]);
    assert_eq!(ledger.of_path(b"a/p"), [0, 1, 2, 4]);
    assert_eq!(ledger.of_place(PurgePlace::of(1)), [2, 3]);
    assert_eq!(ledger.of_place(PurgePlace::of(9)).len(), 6);

    assert_eq!(ledger.remove(0), Some(Gone { head: head(0), chunk: 0 }));
    assert_eq!(ledger.remove(0), None);
    ledger.remove(2);

    assert_eq!(ledger.of_key(b"a/p"), [1]);
    assert_eq!(ledger.of_path(b"a/p"), [1, 4]);
    assert_eq!(ledger.of_place(PurgePlace::of(1)), [3]);
    assert_eq!(ledger.of_place(PurgePlace::of(9)).len(), 4);
    assert_eq!(ledger.chunks_used(), 4);
}

#[test]
fn use_is_counted_for_the_workload_to_the_end_and_fades() {
    let mut ledger = full(&[1, 2]);
    let given = |chunk: u32| if chunk == 3 { 100 } else { 0 };
    assert_eq!(ledger.tick(given), [Arc::from(&b"key 3"[..])]);
    let worth = |ledger: &Ledger| ledger.at(3).unwrap().worth;
    assert_eq!(worth(&ledger), 13 / 2 + 100);
    assert!(ledger.tick(given).is_empty());
    assert_eq!(worth(&ledger), 53);
    // Given once more while it was taken out.
    ledger.remove(3);
    let resting = ledger.take_limbo();
    ledger.rested(resting, |_| 101);
    assert_eq!(ledger.workloads().map(|(_, account)| account.hits).collect::<Vec<_>>(), [0, 101]);
}
