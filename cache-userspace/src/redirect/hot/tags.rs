//! Heads that were answered by the daemon lately, in a table of fixed size: which of them is asked for again, and how
//! often. A head that another one pushes out begins anew, which only costs a promotion some time.

use std::time::Duration;

use cache_common::hot::HotKey;

use super::Refusal;

/// How many heads are remembered, 32 bytes each.
const TAGS: usize = 8192;
/// Places that a head may have, next to each other.
const WAYS: usize = 4;
/// How long a head is remembered that is not asked for again.
const REMEMBERED: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Default)]
struct Tag {
    head: u64,
    seen_s: u32,
    hits: u32,
    worth: u32,
    refused_s: u32,
    refused: Option<Refusal>,
}

/// What is known of a head that was just answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    /// How often it was, this time included, without too long a pause.
    pub(super) hits: u32,
    /// The same, halved each second: comparable to the use of what is resident.
    pub(super) worth: u64,
    /// Why it was refused within this second.
    pub(super) refused: Option<Refusal>,
}

/// The table.
pub(super) struct Tags(Box<[Tag]>);

impl Default for Tags {
    fn default() -> Self {
        Self(vec![Tag::default(); TAGS].into())
    }
}

impl Tags {
    /// Notes that a head was answered.
    pub(super) fn see(&mut self, head: &HotKey, now_ns: u64) -> Sighting {
        let now_s = seconds(now_ns);
        let age = |tag: &Tag| now_s.saturating_sub(tag.seen_s);
        let (head, ways) = self.ways(head);
        let known = ways.iter().position(|tag| tag.head == head && tag.hits > 0);
        let place = known.or_else(|| {
            // Whoever was worth least gives way.
            let worth = |tag: &Tag| faded(tag.worth, age(tag));
            ways.iter().enumerate().min_by_key(|(_, tag)| worth(tag)).map(|(index, _)| index)
        });
        let Some(tag) = place.and_then(|place| ways.get_mut(place)) else {
            return Sighting { hits: 1, worth: 1, refused: None };
        };
        let age = age(tag);
        if known.is_none() || u64::from(age) > REMEMBERED.as_secs() {
            *tag = Tag { head, ..Tag::default() };
        }
        tag.hits = tag.hits.saturating_add(1);
        tag.worth = faded(tag.worth, age).saturating_add(1);
        tag.seen_s = now_s;
        let refused = tag.refused.filter(|_| tag.refused_s == now_s);
        Sighting { hits: tag.hits, worth: tag.worth.into(), refused }
    }

    /// Notes that it was not promoted, and why: for this second it need not be tried again.
    pub(super) fn refuse(&mut self, head: &HotKey, refusal: Refusal, now_ns: u64) {
        let (head, ways) = self.ways(head);
        if let Some(tag) = ways.iter_mut().find(|tag| tag.head == head) {
            (tag.refused, tag.refused_s) = (Some(refusal), seconds(now_ns));
        }
    }

    /// What a head is known by, and the places that it may have.
    fn ways(&mut self, head: &HotKey) -> (u64, &mut [Tag]) {
        // The hash is keyed: nobody can aim at another's place.
        let [place, head] = head.lanes;
        let first = place as usize % (TAGS / WAYS) * WAYS;
        (head, self.0.get_mut(first..first + WAYS).unwrap_or_default())
    }
}

/// Seconds of `CLOCK_BOOTTIME`: a hundred years of them.
fn seconds(now_ns: u64) -> u32 {
    (now_ns / 1_000_000_000) as u32
}

fn faded(worth: u32, seconds: u32) -> u32 {
    worth.checked_shr(seconds).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn head(number: u64) -> HotKey {
        HotKey { lanes: [number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number] }
    }

    #[test]
    fn a_head_is_known_again_within_a_minute_and_its_worth_fades() {
        let mut tags = Tags::default();
        let mut see = |second| tags.see(&head(7), second * SECOND);
        assert_eq!(see(100), Sighting { hits: 1, worth: 1, refused: None });
        assert_eq!(see(100), Sighting { hits: 2, worth: 2, refused: None });
        assert_eq!(see(101), Sighting { hits: 3, worth: 2, refused: None });
        assert_eq!(see(161), Sighting { hits: 4, worth: 1, refused: None });
        assert_eq!(see(222), Sighting { hits: 1, worth: 1, refused: None });
    }

    #[test]
    fn a_refusal_holds_for_its_second() {
        let mut tags = Tags::default();
        tags.see(&head(7), SECOND);
        tags.refuse(&head(7), Refusal::Quota, SECOND + 1);
        assert_eq!(tags.see(&head(7), 2 * SECOND - 1).refused, Some(Refusal::Quota));
        assert_eq!(tags.see(&head(7), 2 * SECOND).refused, None);
    }

    #[test]
    fn a_head_that_is_asked_for_stays_among_many_that_are_not() {
        let mut tags = Tags::default();
        for _ in 0..100 {
            tags.see(&head(1), SECOND);
        }
        for other in 2..100_000 {
            tags.see(&head(other), SECOND);
        }
        assert!(tags.see(&head(1), SECOND).hits > 100);
    }
}
