//! An answer of the kernel wakes whoever waits for one.

use std::io::{ErrorKind, Read};
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::bench::{Bench, Pair, WAIT_MAX};
use super::{Seen, Wrong, ensure};

pub(super) fn poll(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 3000)?;
    let pair = bench.pair()?;
    for _ in 0..2 {
        ensure(!is_readable(&pair, Duration::ZERO)?, || "readable before anything was sent".to_owned())?;
        pair.sends(&entry.head)?;
        ensure(is_readable(&pair, WAIT_MAX)?, || "an answer is there, and poll does not say so".to_owned())?;
        pair.reads_answer(&entry)?;
    }
    pair.has_nothing()?;
    Seen::right("poll tells of an answer, and of none")
}

fn is_readable(pair: &Pair<'_>, patience: Duration) -> Result<bool, Wrong> {
    let mut polled = [PollFd::new(pair.client.as_fd(), PollFlags::POLLIN)];
    Ok(nix::poll::poll(&mut polled, PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO))? > 0)
}

pub(super) fn edge_triggered(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 3000)?;
    let pair = bench.pair()?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&pair.client, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0))?;
    let has_edge = |patience: Duration| -> Result<bool, Wrong> {
        let patience = EpollTimeout::try_from(patience).unwrap_or(EpollTimeout::ZERO);
        Ok(epoll.wait(&mut [EpollEvent::empty()], patience)? > 0)
    };
    ensure(!has_edge(Duration::ZERO)?, || "an edge before anything was sent".to_owned())?;
    // A reader that stops at the end of the answer, and one that goes on until there is no more.
    for goes_on in [false, true, false, true] {
        pair.sends(&entry.head)?;
        ensure(has_edge(WAIT_MAX)?, || "an answer is there, and edge-triggered epoll is silent".to_owned())?;
        pair.reads_answer(&entry)?;
        if goes_on {
            pair.has_nothing()?;
        }
    }
    // One that read a part of it sees the rest.
    pair.sends(&entry.head)?;
    let mut begin = [0; 10];
    (&pair.client).read_exact(&mut begin)?;
    ensure(is_readable(&pair, WAIT_MAX)?, || "the rest of an answer is not seen".to_owned())?;
    pair.client.set_nonblocking(true)?;
    let mut rest = Vec::new();
    let read = (&pair.client).read_to_end(&mut rest);
    pair.client.set_nonblocking(false)?;
    ensure(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), || "an end too early".to_owned())?;
    let total = begin.len() + rest.len();
    ensure(total == entry.response.len(), || format!("{total} bytes of {}", entry.response.len()))?;
    Seen::right("edge-triggered epoll tells of each answer")
}
