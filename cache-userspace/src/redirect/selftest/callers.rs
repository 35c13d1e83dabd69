//! Which system call sends a request. The registers of one are at the end of the task's stack; how large stacks are no
//! kernel tells, so that it is tried out.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, send};
use nix::unistd::write;

use super::bench::{Bench, Entry, Pair};
use super::{Seen, Wrong};

/// Sizes of kernel stacks (THREAD_SIZE), bytes, the most frequent one first.
const STACKS: [u64; 4] = [16 << 10, 32 << 10, 64 << 10, 8 << 10];
/// What kernels leave free behind the registers, bytes: nothing, or with FRED (x86-64) these.
const PADDINGS: [u64; 2] = [0, 16];

pub(super) fn are_told_apart(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 500)?;
    for stack in STACKS {
        for padding in PADDINGS {
            bench.maps().set_syscall_at(stack - padding - u64::from(bench.offsets.syscall))?;
            if is_right(bench, &entry)? {
                return Seen::right("requests that are sent with splice(2) pass, others are answered");
            }
        }
    }
    bench.maps().set_syscall_at(0)?;
    Err(Wrong("which system call sends a request cannot be told".to_owned()))
}

/// Whether exactly those get answers of the kernel that shall.
fn is_right(bench: &Bench<'_>, entry: &Entry) -> Result<bool, Wrong> {
    let head = &entry.head[..];
    let pair = bench.pair()?;
    pair.client.set_nonblocking(true)?;
    let ways: [&dyn Fn() -> io::Result<usize>; 3] = [
        &|| write(&pair.client, head).map_err(Into::into),
        &|| (&pair.client).write_vectored(&[IoSlice::new(head)]),
        &|| send(pair.client.as_raw_fd(), head, MsgFlags::empty()).map_err(Into::into),
    ];
    for way in ways {
        if way()? != head.len() || !is_answered(&pair, entry)? {
            return Ok(false);
        }
    }
    pair.sends_spliced(head)?;
    if is_answered(&pair, entry)? {
        return Ok(false);
    }
    pair.arrives(head)?;
    Ok(true)
}

/// Whether an answer of this size is there already: the kernel gives it within the send.
fn is_answered(pair: &Pair<'_>, entry: &Entry) -> Result<bool, Wrong> {
    let mut answer = vec![0; entry.response.len() + 1];
    match (&pair.client).read(&mut answer) {
        Ok(count) => Ok(count == entry.response.len()),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}
