//! An answer of the kernel never overtakes another one, and only whole heads are answered.

use super::bench::{Bench, head};
use super::{Seen, Wrong};

pub(super) fn is_kept(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 500)?;
    let pair = bench.pair()?;
    // Something is unanswered.
    pair.passes(&head("/cold", 0))?;
    pair.passes(&entry.head)?;
    // Answered, but the kernel does not know of all that was written: more may be on its way.
    pair.all_answered()?;
    pair.writes(b"an answer by TCP")?;
    pair.reads(b"an answer by TCP")?;
    pair.passes(&entry.head)?;
    // Answered and unread.
    pair.writes(b"and another")?;
    pair.all_answered()?;
    pair.passes(&entry.head)?;
    pair.reads(b"and another")?;
    pair.has_nothing()?;
    // All is answered and read.
    pair.all_answered()?;
    pair.is_answered(&entry)?;
    pair.is_answered(&entry)?;
    // An answer of the kernel is unread.
    pair.sends(&entry.head)?;
    pair.passes(&entry.head)?;
    pair.writes(b"the last one")?;
    pair.reads_answer(&entry)?;
    pair.reads(b"the last one")?;
    Seen::right("requests pass while anything is unanswered, on its way or unread")
}

pub(super) fn fragments_pass(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 500)?;
    let pair = bench.pair()?;
    let (begin, end) = entry.head.split_at(entry.head.len() / 2);
    pair.passes(begin)?;
    pair.passes(end)?;
    pair.all_answered()?;
    pair.is_answered(&entry)?;
    pair.passes(&[&entry.head[..], &entry.head[..]].concat())?;
    pair.has_nothing()?;
    Seen::right("halves of heads, and two at once, pass")
}
