//! When an answer is late: longer under way than this destination's answers usually are.
//!
//! What may be given instead of a late answer is left to `policy`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::turns::Destination;
use crate::policy::StaleAfter;

/// Destinations whose times are known; further ones are never late by `Auto`.
const DESTINATIONS_MAX: usize = 1024;
/// Answers after which older ones count half.
const ANSWERS_MAX: u32 = 1024;
/// Answers without which nothing is known.
const ANSWERS_MIN: u32 = 20;
/// Four buckets to each doubling from 64 µs on: up to an hour, within a fifth.
const BUCKETS: usize = 104;
const FIRST_BUCKET_US: f64 = 64.0;

struct Times {
    counts: [u32; BUCKETS],
    total: u32,
}

/// The times that answers took, by destination.
#[derive(Default)]
pub struct Lateness {
    by_destination: Mutex<HashMap<Destination, Box<Times>>>,
}

impl Lateness {
    /// Notes how long an answer took to begin.
    pub fn note(&self, destination: Destination, took: Duration) {
        let mut by_destination = self.by_destination.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = by_destination.len() >= DESTINATIONS_MAX;
        let times = match by_destination.get_mut(&destination) {
            Some(times) => times,
            None if is_full => return,
            None => by_destination
                .entry(destination)
                .or_insert_with(|| Box::new(Times { counts: [0; BUCKETS], total: 0 })),
        };
        if let Some(count) = times.counts.get_mut(bucket(took)) {
            *count += 1;
            times.total += 1;
        }
        if times.total >= ANSWERS_MAX {
            times.counts.iter_mut().for_each(|count| *count /= 2);
            times.total = times.counts.iter().sum();
        }
    }

    /// The destinations that answered, as far as they are known.
    pub fn destinations(&self) -> Vec<Destination> {
        self.by_destination.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// How long an answer of this destination may take before it is late; `None` while too little is known.
    pub fn deadline(&self, destination: Destination, stale_after: StaleAfter) -> Option<Duration> {
        if let StaleAfter::Fixed(deadline) = stale_after {
            return Some(deadline);
        }
        let by_destination = self.by_destination.lock().unwrap_or_else(PoisonError::into_inner);
        let times = by_destination.get(&destination).filter(|times| times.total >= ANSWERS_MIN)?;
        let (p50, p99) = (times.quantile(0.5), times.quantile(0.99));
        Some((p50 * 3).max(p99 * 3 / 2).max(Duration::from_millis(50)))
    }
}

impl Times {
    /// The upper end of the bucket that holds this part of the answers.
    fn quantile(&self, part: f64) -> Duration {
        let wanted = (f64::from(self.total) * part).ceil() as u32;
        let mut seen = 0;
        let reached = self.counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        upper_end(reached.unwrap_or(BUCKETS - 1))
    }
}

fn bucket(took: Duration) -> usize {
    let ratio = (took.as_micros() as f64 / FIRST_BUCKET_US).max(1.0);
    ((ratio.log2() * 4.0) as usize).min(BUCKETS - 1)
}

fn upper_end(bucket: usize) -> Duration {
    Duration::from_micros((FIRST_BUCKET_US * 2_f64.powf((bucket as f64 + 1.0) / 4.0)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(port: u16) -> Destination {
        (1, ([127, 0, 0, 1], port).into())
    }

    #[test]
    fn late_is_measured_by_what_the_destination_usually_takes() {
        let lateness = Lateness::default();
        let auto = |port| lateness.deadline(destination(port), StaleAfter::Auto);
        assert_eq!(auto(1), None);
        for (port, took) in [(1, 1), (2, 40), (3, 200)] {
            (0..100).for_each(|_| lateness.note(destination(port), Duration::from_millis(took)));
        }
        (0..3).for_each(|_| lateness.note(destination(2), Duration::from_millis(1000)));
        assert_eq!(auto(1), Some(Duration::from_millis(50)));
        let two = auto(2).unwrap().as_millis();
        assert!((1500..1800).contains(&two), "one and a half times the 99th percentile: {two}");
        let three = auto(3).unwrap().as_millis();
        assert!((600..720).contains(&three), "three times the median: {three}");
        let fixed = StaleAfter::Fixed(Duration::from_millis(7));
        assert_eq!(lateness.deadline(destination(9), fixed), Some(Duration::from_millis(7)));
    }

    #[test]
    fn old_times_fade_and_destinations_are_bounded() {
        let lateness = Lateness::default();
        (0..1000).for_each(|_| lateness.note(destination(1), Duration::from_secs(2)));
        (0..20_000).for_each(|_| lateness.note(destination(1), Duration::from_millis(1)));
        assert_eq!(lateness.deadline(destination(1), StaleAfter::Auto), Some(Duration::from_millis(50)));
        (0..3000).for_each(|port| lateness.note(destination(port), Duration::ZERO));
        assert_eq!(lateness.by_destination.lock().unwrap().len(), DESTINATIONS_MAX);
        for extreme in [Duration::ZERO, Duration::MAX] {
            lateness.note(destination(1), extreme);
        }
    }
}
