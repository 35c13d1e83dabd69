//! What ends an answer of the kernel ends it at once.

use std::time::Duration;

use cache_common::hot::NO_HITS;

use super::bench::{Bench, head};
use super::{Seen, Wrong};
use crate::clock;

/// A sign of life that is older than the programs take.
const STALE: Duration = Duration::from_secs(1);

pub(super) fn expiry(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let expired = bench.put_until(head("/expired", 0), 100, clock::boot())?;
    let fresh = bench.put("/fresh", 100)?;
    let pair = bench.pair()?;
    pair.is_answered(&fresh)?;
    pair.passes(&expired.head)?;
    Seen::right("an expired response is not given")
}

pub(super) fn heartbeat(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 100)?;
    let pair = bench.pair()?;
    pair.is_answered(&entry)?;
    for beat in [clock::boot().saturating_sub(STALE), Duration::ZERO] {
        bench.kernel.beat_for_hits(beat.as_nanos() as u64)?;
        pair.passes(&entry.head)?;
        pair.all_answered()?;
    }
    bench.begin()?;
    pair.is_answered(&entry)?;
    Seen::right("nothing is given while the sign of life is old or missing")
}

pub(super) fn no_hits(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 100)?;
    let pair = bench.pair()?;
    pair.is_answered(&entry)?;
    pair.publish(NO_HITS)?;
    pair.passes(&entry.head)?;
    pair.all_answered()?;
    pair.is_answered(&entry)?;
    Seen::right("nothing is given on a connection that is to have no hits")
}

pub(super) fn retired(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let (one, other) = (bench.put("/one", 100)?, bench.put("/other", 100)?);
    let pair = bench.pair()?;
    pair.is_answered(&one)?;
    pair.is_answered(&other)?;
    bench.maps().memory().set(one.first_chunk, 0, 0);
    bench.maps().unindex(&other.key);
    bench.maps().quiesce()?;
    for entry in [one, other] {
        pair.passes(&entry.head)?;
        pair.all_answered()?;
    }
    Seen::right("a response that is taken back is not given")
}
