//! What differs from plain TCP and can be lived with.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use cache_common::hot::SPLICES;

use super::bench::{Bench, head};
use super::{Seen, Wrong, ensure};

/// How long a blocking read of a half-closed connection lasts where it is right.
const READ_MAX: Duration = Duration::from_millis(30);
/// Whether MPTCP sockets can be made.
const MPTCP: &str = "/proc/sys/net/mptcp/enabled";

pub(super) fn fionread(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 500)?;
    let pair = bench.pair()?;
    pair.sends(&entry.head)?;
    let (count, total) = (unread(&pair.client)?, entry.response.len());
    pair.reads_answer(&entry)?;
    let after = unread(&pair.client)?;
    ensure(after == 0, || format!("FIONREAD says {after} where all is read"))?;
    pair.writes(b"by TCP")?;
    let by_tcp = unread(&pair.client)?;
    ensure(by_tcp == 6, || format!("FIONREAD says {by_tcp} of 6 bytes that came by TCP"))?;
    match count {
        0 => Ok(Seen::Deviates("FIONREAD does not count an answer of the kernel".to_owned())),
        count if count == total => Seen::right("FIONREAD counts an answer of the kernel"),
        count => Err(Wrong(format!("FIONREAD says {count} of an answer of {total} bytes"))),
    }
}

pub(super) fn splice(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 500)?;
    let pair = bench.pair()?;
    pair.sends(&entry.head)?;
    match splice_some(&pair.client) {
        Ok(count) => {
            let total = entry.response.len();
            ensure(count == total, || format!("splice took {count} of {total} bytes"))?;
            return Seen::right("splice sees an answer of the kernel");
        }
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        Err(error) => return Err(error.into()),
    }
    pair.reads_answer(&entry)?;
    let deviation = "splice(2) does not see an answer of the kernel";
    if let Err(why) = &bench.watch {
        return Ok(Seen::Deviates(format!("{deviation}, and who splices is not noticed: {}", explained(why))));
    }
    let is_noticed =
        bench.maps().connection(pair.cookie).is_some_and(|record| record.flags & SPLICES != 0);
    ensure(is_noticed, || format!("{deviation}, and the program that watches for it was not called"))?;
    pair.passes(&entry.head)?;
    Ok(Seen::Deviates(format!("{deviation}: who splices is noticed, and gets none from then on")))
}

/// The kernel says EPERM before it has looked at the program.
fn explained(why: &str) -> String {
    if !why.contains("os error 1)") {
        return why.to_owned();
    }
    let missing = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        let capabilities = u64::from_str_radix(line.trim(), 16).ok()?;
        // CAP_SYS_ADMIN, CAP_PERFMON.
        Some(capabilities & (1 << 21 | 1 << 38) == 0)
    });
    match missing {
        Some(true) => format!("CAP_PERFMON is missing ({why})"),
        _ => format!(
            "this machine forbids fentry programs to root too, by a security module or its sandbox ({why})"
        ),
    }
}

pub(super) fn half_close(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let pair = bench.pair()?;
    pair.passes(&head("/cold", 0))?;
    pair.client.set_read_timeout(Some(READ_MAX))?;
    pair.client.shutdown(Shutdown::Write)?;
    let started = Instant::now();
    let read = (&pair.client).read(&mut [0]);
    let is_blocked = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    ensure(is_blocked, || format!("after a half-close a read gave {read:?} where nothing had come"))?;
    if started.elapsed() < READ_MAX / 2 {
        return Ok(Seen::Deviates(
            "a read that waits gets EAGAIN when another thread half-closes the connection".to_owned(),
        ));
    }
    Seen::right("a read waits on after a half-close")
}

pub(super) fn mptcp(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    match std::fs::read_to_string(MPTCP) {
        Ok(text) if text.trim() == "0" => Seen::right("MPTCP is switched off"),
        Ok(_) => {
            let (_, mask) = bench.offsets.is_mptcp;
            ensure(mask != 0, || "this kernel has MPTCP, and its sockets cannot be told apart".to_owned())?;
            Ok(Seen::Deviates("MPTCP connections get no answers of the kernel".to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Seen::right("this kernel has no MPTCP"),
        Err(error) => Ok(Seen::Untested(format!("{MPTCP}: {error}"))),
    }
}

fn unread(socket: &impl AsRawFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: the pointer is to an int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result == 0 { Ok(usize::try_from(count).unwrap_or_default()) } else { Err(io::Error::last_os_error()) }
}

/// Moves what there is into a pipe without waiting, and returns how many bytes that were.
fn splice_some(socket: &impl AsRawFd) -> io::Result<usize> {
    let (_reader, writer) = io::pipe()?;
    // SAFETY: two open descriptors; no offsets.
    let count = unsafe {
        libc::splice(
            socket.as_raw_fd(),
            std::ptr::null_mut(),
            writer.as_raw_fd(),
            std::ptr::null_mut(),
            64 << 10,
            libc::SPLICE_F_NONBLOCK,
        )
    };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}
