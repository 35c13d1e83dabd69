//! An answer is the stored one, byte for byte, and the one of this head.

use super::bench::{Bench, head};
use super::{Seen, Wrong};

/// Sizes around the borders of blocks, chunks and windows of the copy.
const CONTENT_BYTES: [usize; 8] = [0, 1, 449, 450, 4096, 8_000, 16 << 10, 70 << 10];
/// Longer than any: what a task sends is laid into pieces of 32 KiB, whose ends some heads meet.
const LONG_HEAD: usize = 1900;
const LONG_HEADS: usize = 40;

pub(super) fn are_right(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let pair = bench.pair()?;
    for bytes in CONTENT_BYTES {
        let entry = bench.put(&format!("/{bytes}"), bytes)?;
        pair.is_answered(&entry)?;
        pair.is_answered(&entry)?;
        pair.has_nothing()?;
    }
    let long = bench.put_until(head("/long", LONG_HEAD), 100, super::bench::later())?;
    for _ in 0..LONG_HEADS {
        pair.is_answered(&long)?;
    }
    // And nothing of all that has reached the server.
    pair.passes(&head("/cold", 0))?;
    Seen::right("answers up to 70 KiB, and to heads that meet the end of a page, are right")
}

pub(super) fn heads_are_told_apart(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let (one, other) = (bench.put("/one", 300)?, bench.put("/other", 300)?);
    let pair = bench.pair()?;
    pair.is_answered(&one)?;
    pair.is_answered(&other)?;
    pair.is_answered(&one)?;
    pair.passes(&head("/onE", 0))?;
    let stranger = bench.pair_of(u64::MAX - 1)?;
    stranger.passes(&one.head)?;
    Seen::right("each head gets its own answer, another workload none")
}
