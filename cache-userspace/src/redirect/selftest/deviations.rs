//! What differs from plain TCP and can be lived with.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cache_common::hot::SPLICES;

use super::bench::{Bench, WAIT_MAX, head};
use super::{Counted, Seen, Wrong, ensure};

/// How long a read that waits lasts where nothing disturbs it.
const READ_MAX: Duration = Duration::from_millis(40);
/// Whether MPTCP sockets can be made.
const MPTCP: &str = "/proc/sys/net/mptcp/enabled";

pub(super) fn fionread(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 500)?;
    let pair = bench.pair()?;
    pair.sends(&entry.head)?;
    let (of_kernel, total) = (unread(&pair.client)?, entry.response.len());
    pair.reads_answer(&entry)?;
    let after = unread(&pair.client)?;
    pair.writes(b"by TCP")?;
    let by_tcp = unread(&pair.client)?;
    let is_known = (of_kernel == 0 || of_kernel == total) && after == 0 && (by_tcp == 0 || by_tcp == 6);
    ensure(is_known, || {
        format!("FIONREAD says {of_kernel} of {total} bytes, {after} of none, {by_tcp} of 6 that came by TCP")
    })?;
    let counted = Counted { hits: of_kernel != 0, tcp: by_tcp != 0 };
    bench.counted.set(counted);
    let deviation = match (counted.hits, counted.tcp) {
        (true, true) => return Seen::right("FIONREAD counts what is unread"),
        (false, true) => "answers of the kernel: they have 2 KB at most",
        (true, false) => "what comes by TCP: answers over 2 KB by TCP take it back to plain TCP",
        (false, false) => "anything: answers have 2 KB at most, larger ones by TCP take it back to plain TCP",
    };
    Ok(Seen::Deviates(format!("FIONREAD of an enrolled connection does not count {deviation}")))
}

pub(super) fn splice(bench: &Bench<'_>) -> Result<Seen, Wrong> {
    let entry = bench.put("/hot", 500)?;
    let pair = bench.pair()?;
    pair.sends(&entry.head)?;
    pair.client.set_nonblocking(true)?;
    let spliced = splice_some(&pair.client);
    pair.client.set_nonblocking(false)?;
    match spliced {
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
        return Ok(Seen::Deviates(format!(
            "{deviation}, and who reads with it is noticed only if it sends with it too: {}",
            explained(why)
        )));
    }
    let is_noticed = bench.maps().connection(pair.cookie).is_some_and(|record| record.flags & SPLICES != 0);
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
    let reader = pair.client.try_clone()?;
    let (tell, told) = mpsc::channel();
    let reading = std::thread::Builder::new().name("self-test".into()).spawn(move || {
        // Nobody waits for it if that thread has given up.
        let _ = tell.send(nix::unistd::gettid());
        let read = (&reader).read(&mut [0]);
        (read, Instant::now())
    })?;
    let asleep = told.recv_timeout(WAIT_MAX).is_ok_and(|thread| falls_asleep(thread.as_raw()));
    pair.client.shutdown(Shutdown::Write)?;
    let half_closed_at = Instant::now();
    let Ok((read, ended_at)) = reading.join() else {
        return Err(Wrong("a thread failed".to_owned()));
    };
    let is_blocked = read.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    ensure(is_blocked, || format!("after a half-close a read gave {read:?} where nothing had come"))?;
    if !asleep {
        return Ok(Seen::Untested("the reader did not begin in time".to_owned()));
    }
    if ended_at.saturating_duration_since(half_closed_at) < READ_MAX / 2 {
        return Ok(Seen::Deviates(
            "a read that waits gets EAGAIN when another thread half-closes the connection".to_owned(),
        ));
    }
    Seen::right("a read waits on after a half-close")
}

/// Waits until a thread of this process waits for something itself.
fn falls_asleep(thread: i32) -> bool {
    let end = Instant::now() + READ_MAX / 4;
    let stat = format!("/proc/self/task/{thread}/stat");
    while Instant::now() < end {
        let text = std::fs::read_to_string(&stat).unwrap_or_default();
        // The state follows the name, which is in parentheses.
        if text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')) {
            return true;
        }
        std::thread::yield_now();
    }
    false
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

/// Moves what there is in a non-blocking socket into a pipe, and returns how many bytes that were.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_explained_and_any_other_reason_kept() {
        assert_eq!(explained("no such function"), "no such function");
        let says = explained("Operation not permitted (os error 1)");
        assert!(says.ends_with("(Operation not permitted (os error 1))"), "{says}");
    }

    #[test]
    fn a_thread_that_waits_is_seen_to_wait() {
        let (tell, told) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let waiting = std::thread::spawn(move || {
            tell.send(nix::unistd::gettid()).unwrap();
            released.recv().unwrap_err();
        });
        let thread = told.recv().unwrap().as_raw();
        assert!((0..100).any(|_| falls_asleep(thread)));
        drop(release);
        waiting.join().unwrap();
        assert!(!falls_asleep(i32::MAX));
    }
}
