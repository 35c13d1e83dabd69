//! What an answer takes is given back. Some kernels keep a page for each message whose bytes were popped.

use super::bench::{Bench, head, later};
use super::{Seen, Wrong};

/// Rounds, of which the first without growth is enough: others take memory on this machine, too.
const ROUNDS: usize = 8;
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
        let Some(before) = kept_kb() else {
            return Ok(Seen::Untested("this machine does not tell what its memory is used for".to_owned()));
        };
        for _ in 0..CONNECTIONS {
            let pair = bench.pair()?;
            for _ in 0..ANSWERS {
                pair.is_answered(&entry)?;
            }
        }
        growth = kept_kb().unwrap_or(before).saturating_sub(before);
        if growth < GROWTH_MAX_KB {
            return Seen::right("the memory of answers is given back");
        }
    }
    Err(Wrong(format!("{growth} kB are lost with every {} answers", CONNECTIONS * ANSWERS)))
}

/// What `/proc/meminfo` has a line of its own for. Shmem and Mapped are part of Cached.
const KNOWN: [&str; 11] = [
    "MemFree",
    "Buffers",
    "Cached",
    "SwapCached",
    "AnonPages",
    "Slab",
    "KernelStack",
    "PageTables",
    "SecPageTables",
    "VmallocUsed",
    "Percpu",
];

/// Memory that the kernel keeps for none of the purposes that it tells of, such as the pages of messages: programs that
/// start, and files that are read, do not change it.
fn kept_kb() -> Option<u64> {
    kept_of(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

fn kept_of(meminfo: &str) -> Option<u64> {
    let value = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    // Lines that older kernels do not have are nothing.
    let known: u64 = KNOWN.iter().filter_map(|name| value(name)).sum();
    value("MemFree")?;
    Some(value("MemTotal")?.saturating_sub(known))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// Whether the act makes it grow by this much, kB, in one of several tries: others use memory meanwhile.
    fn grows<T>(by: u64, mut act: impl FnMut() -> T) -> bool {
        (0..ROUNDS).any(|_| {
            let before = kept_kb().unwrap();
            let held = act();
            let growth = kept_kb().unwrap().saturating_sub(before);
            drop(held);
            growth >= by
        })
    }

    #[test]
    fn what_lies_in_sockets_is_kept() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let unread = || {
            let pairs = (0..32).map(|_| {
                let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                client.set_nonblocking(true).unwrap();
                while client.write(&[0; 1 << 16]).is_ok() {}
                (client, listener.accept().unwrap())
            });
            pairs.collect::<Vec<_>>()
        };
        assert!(grows(GROWTH_MAX_KB, unread));
    }

    #[test]
    fn what_a_program_takes_is_not() {
        // Touched, page by page.
        let taken = || (0..64 << 20).step_by(1 << 20).map(|_| vec![1_u8; 1 << 20]).collect::<Vec<_>>();
        let before = kept_kb().unwrap();
        let is_quiet = (0..ROUNDS).any(|_| {
            let before = kept_kb().unwrap();
            let held = taken();
            let growth = kept_kb().unwrap().saturating_sub(before);
            held.len() == 64 && growth < GROWTH_MAX_KB
        });
        assert!(is_quiet, "{before} kB before");
    }

    #[test]
    fn what_has_a_line_of_its_own_is_left_out() {
        let text = "MemTotal: 1000 kB\nMemFree: 300 kB\nMemAvailable: 600 kB\nCached: 200 kB\nShmem: 50 kB\nSlab: 100 kB\n";
        assert_eq!(kept_of(text), Some(400));
        assert_eq!(kept_of("MemTotal: 1000 kB\n"), None);
    }
}
