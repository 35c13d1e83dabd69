//! What an answer takes is given back. Some kernels keep a page for each message whose bytes were popped.

use super::bench::{Bench, head, later};
use super::{Seen, Wrong};

/// Rounds, of which the first without growth is enough: others allocate memory on this machine, too.
const ROUNDS: usize = 4;
/// Connections of a round, and answers on each: fewer than after which a request passes.
const CONNECTIONS: usize = 20;
const ANSWERS: usize = 250;
/// Nearly the longest head. If each kept its page, a round would take 9 MB.
const HEAD_BYTES: usize = 1900;
/// Growth of a round that is none.
const GROWTH_MAX_KB: u64 = 4 << 10;

pub(super) fn is_given_back(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put_until(head("/memory", HEAD_BYTES), 1800, later())?;
    let mut growth = 0;
    for _ in 0..ROUNDS {
        let Some(before) = available_kb() else {
            return Ok(Seen::Untested("this machine does not tell how much memory is available".to_owned()));
        };
        for _ in 0..CONNECTIONS {
            let pair = bench.pair()?;
            for _ in 0..ANSWERS {
                pair.is_answered(&entry)?;
            }
        }
        growth = before.saturating_sub(available_kb().unwrap_or(before));
        if growth < GROWTH_MAX_KB {
            return Seen::right("the memory of answers is given back");
        }
    }
    Err(Wrong(format!("{growth} kB are lost with every {} answers", CONNECTIONS * ANSWERS)))
}

/// Memory that could be had without swapping; what other processes read into the page cache does not change it.
fn available_kb() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}
