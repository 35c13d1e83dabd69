//! A client whose requests the kernel may answer, as the daemon sees it: what the kernel counts of it, and what the
//! daemon says of it. When to say what is left to `downstream`.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use cache_common::hot::{BLOCKS, ConnectionRecord, LEFT, NO_HITS, PIPELINES, Published, SMALL_BYTES_MAX};

use super::kernel::Kernel;
use crate::clock;

/// Where the records of connections are.
pub trait Records: Send + Sync {
    /// What the kernel counts of a connection; `None` where it is not enrolled.
    fn record(&self, cookie: u64) -> Option<ConnectionRecord>;
    /// Says what of it is answered; returns whether the kernel knows.
    fn publish(&self, cookie: u64, published: &Published) -> bool;
    /// Takes its socket out, where that is not to get a large answer by TCP; returns whether it is out.
    fn leave(&self, cookie: u64) -> bool;
    /// Takes both out.
    fn forget(&self, cookie: u64);
}

impl Records for Kernel {
    fn record(&self, cookie: u64) -> Option<ConnectionRecord> {
        self.hits().connection(cookie)
    }

    fn publish(&self, cookie: u64, published: &Published) -> bool {
        self.hits()
            .publish(cookie, published)
            .inspect_err(|error| tracing::debug!(%error, "not published"))
            .is_ok()
    }

    fn leave(&self, cookie: u64) -> bool {
        self.hits().leave(cookie)
    }

    fn forget(&self, cookie: u64) {
        self.hits().forget(cookie);
    }
}

/// An enrolled client.
pub struct Enrolled {
    records: Arc<dyn Records>,
    cookie: u64,
    answered: AtomicU64,
    written: AtomicU64,
    /// The record's flags as they were seen last; `LEFT` also where the daemon has taken the socket out.
    flags: AtomicU32,
}

impl Enrolled {
    /// The client's socket with this cookie, if it is enrolled.
    pub fn find(records: Arc<dyn Records>, cookie: u64) -> Option<Self> {
        records.record(cookie)?;
        let (answered, written, flags) = Default::default();
        Some(Self { records, cookie, answered, written, flags })
    }

    /// When the kernel answered last, on `CLOCK_BOOTTIME`; `None` where it never did.
    pub fn last_hit(&self) -> Option<Duration> {
        let at_ns = self.records.record(self.cookie)?.last_hit_ns;
        (at_ns != 0).then(|| Duration::from_nanos(at_ns))
    }

    /// How long ago the kernel answered last.
    pub fn since_last_hit(&self) -> Option<Duration> {
        Some(clock::boot().saturating_sub(self.last_hit()?))
    }

    /// Whether the client was seen, for the first time, to send a request while an answer of the kernel was unread.
    pub fn has_begun_to_pipeline(&self) -> bool {
        if self.is(PIPELINES) {
            return false;
        }
        let Some(record) = self.records.record(self.cookie) else { return false };
        let has_left = self.flags.load(Ordering::Relaxed) & LEFT;
        self.flags.store(record.flags | has_left, Ordering::Relaxed);
        self.is(PIPELINES)
    }

    fn is(&self, flag: u32) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    /// Whether it gets no more answers of the kernel, as far as `has_begun_to_pipeline` has seen: a later connection of
    /// its client may.
    pub fn has_left(&self) -> bool {
        self.is(LEFT)
    }

    /// Says that an answer of so many bytes, where that is known, is about to be written.
    ///
    /// A kernel that does not count what comes by TCP (FIONREAD) has clients wait for nothing that count the rest of a
    /// large answer so, as nginx does: such an answer is for plain TCP. One whose reads block does not wait in that way, and
    /// goes by itself where the kernel could not answer. A client that pipelines may have an answer of
    /// the kernel unread, which would be lost, and is left as it is.
    pub fn writes(&self, bytes: Option<u64>) {
        let is_small = bytes.is_some_and(|bytes| bytes <= u64::from(SMALL_BYTES_MAX));
        let keeps = is_small || self.is(LEFT | BLOCKS | PIPELINES);
        if !keeps && self.records.leave(self.cookie) {
            self.flags.fetch_or(LEFT, Ordering::Relaxed);
        }
    }

    /// Says that everything up to here is answered, but for `ahead` bytes that are read already, once the client has
    /// read `unwritten` bytes more than were written to it: the kernel may then answer what comes next.
    ///
    /// The figures are the socket's own. Those of the answer are taken at one moment, and of the request first what has
    /// arrived, then what of it is unread: what comes in between counts as unanswered, never the other way round.
    pub fn all_answered(&self, socket: &impl AsRawFd, ahead: usize, unwritten: usize) {
        if self.has_left() {
            return;
        }
        let Ok((info, unread)) = TcpInfo::of(socket).and_then(|info| Ok((info, unread(socket)?))) else {
            return;
        };
        let answered = info.bytes_received.saturating_sub(unread).saturating_sub(ahead as u64);
        let written = info.bytes_written + unwritten as u64;
        self.answered.store(answered, Ordering::Relaxed);
        self.written.store(written, Ordering::Relaxed);
        self.records.publish(self.cookie, &Published { cookie: self.cookie, answered, written, flags: 0 });
    }

    /// Ends hits on this connection until `permit`.
    pub fn forbid(&self) {
        self.say(NO_HITS);
    }

    /// Takes a `forbid` back.
    pub fn permit(&self) {
        self.say(0);
    }

    fn say(&self, flags: u64) {
        let (answered, written) =
            (self.answered.load(Ordering::Relaxed), self.written.load(Ordering::Relaxed));
        self.records.publish(self.cookie, &Published { cookie: self.cookie, answered, written, flags });
    }
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        self.records.forget(self.cookie);
    }
}

/// What the kernel counts of a TCP socket (TCP_INFO), at one moment.
struct TcpInfo {
    bytes_received: u64,
    /// Bytes that the application wrote, those not yet sent included.
    bytes_written: u64,
}

impl TcpInfo {
    fn of(socket: &impl AsRawFd) -> io::Result<Self> {
        let [.., received, _, unsent, _, _, _, _, _, _, sent, sent_again] = words(socket)?;
        if sent_again != 0 {
            return Self::by_acknowledgements(socket);
        }
        let unsent = unsent & u64::from(u32::MAX);
        Ok(Self { bytes_received: received, bytes_written: sent + unsent })
    }

    /// The same where bytes were sent more than once: they are counted as such though there was no memory to send them.
    /// What was acknowledged and what was not has the same sum, if nothing was between the two looks.
    fn by_acknowledgements(socket: &impl AsRawFd) -> io::Result<Self> {
        for _ in 0..LOOKS_MAX {
            let (acked, received) = acked_and_received(socket)?;
            let unacked = ioctl(socket, libc::TIOCOUTQ)?;
            if acked_and_received(socket)?.0 == acked {
                return Ok(Self { bytes_received: received, bytes_written: acked + unacked });
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn acked_and_received(socket: &impl AsRawFd) -> io::Result<(u64, u64)> {
    let [.., acked, received, _, _, _, _, _, _, _, _, _, _] = words(socket)?;
    Ok((acked, received))
}

/// How often the figures of a socket that something happens to are looked at.
const LOOKS_MAX: usize = 4;

/// `struct tcp_info` as 64-bit words, up to tcpi_bytes_retrans (Linux 4.19).
fn words(socket: &impl AsRawFd) -> io::Result<[u64; 27]> {
    let mut words = [0_u64; 27];
    let mut size = size_of_val(&words) as libc::socklen_t;
    // SAFETY: the pointers are to the words and to their size in bytes.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            words.as_mut_ptr().cast(),
            &raw mut size,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if size as usize != size_of_val(&words) {
        return Err(io::Error::other("this kernel counts too little of a connection"));
    }
    Ok(words)
}

/// Bytes that have arrived and were not read (FIONREAD).
fn unread(socket: &impl AsRawFd) -> io::Result<u64> {
    ioctl(socket, libc::FIONREAD)
}

/// A figure of a socket.
fn ioctl(socket: &impl AsRawFd, request: libc::Ioctl) -> io::Result<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: the pointer is to an int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut count) };
    if result == 0 { Ok(u64::try_from(count).unwrap_or_default()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_tells_what_was_received_and_written_before_it_is_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(&[1; 1000]).unwrap();
        server.read_exact(&mut [0; 600]).unwrap();
        server.set_nonblocking(true).unwrap();
        // More than the other side takes: a part of it waits here.
        let mut written = 0;
        while let Ok(count) = server.write(&[2; 65536]) {
            written += count as u64;
        }

        let info = TcpInfo::of(&server).unwrap();

        assert_eq!((info.bytes_received, unread(&server).unwrap()), (1000, 400));
        assert_eq!(info.bytes_written, written);
        let info = TcpInfo::by_acknowledgements(&server).unwrap();
        assert_eq!((info.bytes_received, info.bytes_written), (1000, written));
        client.read_exact(&mut vec![0; written as usize]).unwrap();
        for info in [TcpInfo::of(&server), TcpInfo::by_acknowledgements(&server)] {
            assert_eq!(info.unwrap().bytes_written, written);
        }
    }
}
