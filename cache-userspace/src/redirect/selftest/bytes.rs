//! An answer is the stored one, byte for byte, and the one of this head.

use super::bench::{Bench, Pair, head, head_with, later};
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
    let long = bench.put_until(head("/long", LONG_HEAD), 100, later())?;
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
    skipped_fields_are_found(bench, &bench.pair()?)?;
    Seen::right("each head gets its own answer, another workload none")
}

/// A field that is skipped makes no difference, and what looks like one within a line does.
fn skipped_fields_are_found(bench: &Bench<'_>, pair: &Pair<'_>) -> Result<(), Wrong> {
    let Some(field) = bench.skipped_field() else { return Ok(()) };
    let traced = |value: &str| head_with("/traced", &format!("{field} {value}\r\n"));
    let entry = bench.put_until(traced("longer than one cell"), 300, later())?;
    pair.is_answered(&entry)?;
    pair.sends(&traced("another value, and longer than that"))?;
    pair.reads_answer(&entry)?;
    // The walk takes eight bytes at a time, and `GET /abc` is eight: whoever took the next eight for the beginning of a
    // line would leave them out.
    let within = format!("{field}00000000");
    let (_, rest) = within.split_at_checked(8).unwrap_or_default();
    let entry = bench.put(&format!("/abc{rest}"), 300)?;
    pair.is_answered(&entry)?;
    pair.passes(&head(&format!("/abc{within}"), 0))
}
