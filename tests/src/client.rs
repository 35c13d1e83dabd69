//! One TCP connection of a client that sends exact bytes and reports exactly what comes back.
//!
//! It runs inside the probe, that is, in the cgroup whose connections are cached.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};

use crate::pattern::{self, Verifier};
use crate::response::Response;
use crate::wire::{End, Head, Reader};

/// Bytes of content that are handed to the test; the rest is only compared with the pattern.
const BODY_KEPT: usize = 64 * 1024;

/// An open connection.
///
/// It polls before it reads, as most programs do, unless it is made [`Connection::blocking`].
#[derive(Debug)]
pub struct Connection {
    reader: Reader<Patient>,
}

/// A socket whose reads and writes wait, in poll(2) where it is not blocking.
#[derive(Debug)]
struct Patient {
    stream: TcpStream,
    read_timeout: Cell<Duration>,
    blocks: bool,
}

/// How long a write may wait.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

impl Patient {
    /// Waits until the socket is ready for this, and says WouldBlock where that takes too long.
    fn waits(&self, flags: PollFlags, timeout: Duration) -> io::Result<()> {
        let mut fds = [PollFd::new(self.stream.as_fd(), flags)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(0) => Err(ErrorKind::WouldBlock.into()),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.read_timeout.set(timeout);
        if self.blocks { self.stream.set_read_timeout(Some(timeout)) } else { Ok(()) }
    }

    fn tries<T>(
        &self,
        flags: PollFlags,
        timeout: Duration,
        mut act: impl FnMut() -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            match act() {
                Err(error) if error.kind() == ErrorKind::WouldBlock && !self.blocks => {
                    self.waits(flags, timeout)?;
                }
                done => return done,
            }
        }
    }
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tries(PollFlags::POLLIN, self.read_timeout.get(), || (&self.stream).read(buffer))
    }
}

impl Write for &Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.tries(PollFlags::POLLOUT, WRITE_TIMEOUT, || (&self.stream).write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Connection {
    /// Connects, through a network device by name where one is given.
    pub fn open(addr: SocketAddr, device: Option<&str>, timeout: Duration) -> io::Result<Self> {
        let stream = match device {
            None => TcpStream::connect_timeout(&addr, timeout)?,
            Some(device) => connect_bound(addr, device, timeout)?,
        };
        Self::over(stream)
    }

    /// Takes over a connected socket.
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        Self::of(stream, false)
    }

    /// Connects; reads and writes wait in the kernel.
    pub fn blocking(addr: SocketAddr, timeout: Duration) -> io::Result<Self> {
        Self::of(TcpStream::connect_timeout(&addr, timeout)?, true)
    }

    fn of(stream: TcpStream, blocks: bool) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(!blocks)?;
        stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let read_timeout = Cell::new(WRITE_TIMEOUT);
        Ok(Self { reader: Reader::new(Patient { stream, read_timeout, blocks }) })
    }

    fn patient(&self) -> &Patient {
        self.reader.inner()
    }

    fn stream(&self) -> &TcpStream {
        &self.patient().stream
    }

    /// The same socket once more, for another thread.
    pub fn socket(&self) -> io::Result<TcpStream> {
        self.stream().try_clone()
    }

    /// What getpeername and getsockname say.
    pub fn names(&self) -> io::Result<(SocketAddr, SocketAddr)> {
        Ok((self.stream().peer_addr()?, self.stream().local_addr()?))
    }

    /// Sends the bytes, in pieces of `piece` bytes each in a segment of its own where given.
    pub fn send(&self, bytes: &[u8], piece: Option<usize>) -> io::Result<()> {
        let mut stream = self.patient();
        match piece {
            None => stream.write_all(bytes),
            Some(piece) => bytes.chunks(piece.max(1)).try_for_each(|part| stream.write_all(part)),
        }
    }

    /// Sends `length` bytes of [`crate::pattern`], as chunks of `chunk` bytes and the last chunk where given.
    pub fn send_pattern(&self, length: u64, chunk: Option<usize>) -> io::Result<()> {
        let mut stream = self.patient();
        pattern::write_to(&mut stream, length, chunk, |_| {})?;
        if chunk.is_some() { stream.write_all(b"0\r\n\r\n") } else { Ok(()) }
    }

    /// Reads the response to a request of `method`, with the interim ones before it.
    pub fn response(&mut self, method: &str, timeout: Duration) -> Response {
        let mut response = Response::default();
        let _ = self.patient().set_read_timeout(timeout);
        response.end = match self.read_into(&mut response, method) {
            Ok(()) => "complete".to_owned(),
            Err(end) => end.to_string(),
        };
        response
    }

    fn read_into(&mut self, response: &mut Response, method: &str) -> Result<(), End> {
        loop {
            let head = self.reader.head()?;
            if head.word(1).starts_with('1') && head.word(1) != "101" {
                response.interim.push(head.text());
                continue;
            }
            let framing = head.response_framing(method);
            framing.word().clone_into(&mut response.framing);
            response.head = head;
            let mut verifier = Verifier::default();
            let body = &mut response.body;
            let trailers = self.reader.body(framing, &mut |bytes| {
                verifier.feed(bytes);
                let room = BODY_KEPT.saturating_sub(body.len());
                body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            });
            response.length = verifier.length();
            response.first_wrong = verifier.first_wrong();
            response.trailers = String::from_utf8_lossy(&trailers?).into_owned();
            return Ok(());
        }
    }

    /// Reads one head, interim or not, and nothing of what follows it.
    pub fn head(&mut self, timeout: Duration) -> Result<Head, End> {
        self.patient().set_read_timeout(timeout)?;
        self.reader.head()
    }

    /// Reads exactly `n` bytes; where fewer come, those are lost and the reason is the error.
    pub fn exact(&mut self, n: usize, timeout: Duration) -> Result<Vec<u8>, End> {
        self.patient().set_read_timeout(timeout)?;
        self.reader.exact(n)
    }

    /// How many bytes, up to `most`, have come and were not read from the socket; an error where it is none.
    ///
    /// FIONREAD does not tell on Linux 6.18: on an enrolled socket it counts the answers of the kernel alone.
    pub fn unread(&self, most: usize) -> io::Result<usize> {
        let mut bytes = vec![0; most];
        self.stream().set_nonblocking(true)?;
        let count = self.stream().peek(&mut bytes);
        self.stream().set_nonblocking(!self.patient().blocks)?;
        count
    }

    /// Reads until at least `n` bytes are held that nobody has taken; they stay for whoever takes them.
    pub fn hold(&mut self, n: usize, timeout: Duration) -> Result<(), End> {
        self.patient().set_read_timeout(timeout)?;
        self.reader.hold(n)
    }

    /// Reads what is there now, and holds it for whoever takes it.
    pub fn hold_all(&mut self) -> Result<(), End> {
        // poll(2) takes no time then.
        self.patient().set_read_timeout(Duration::ZERO)?;
        let end = self.reader.hold(usize::MAX);
        match end {
            Err(End::Timeout) | Ok(()) => Ok(()),
            Err(end) => Err(end),
        }
    }

    /// Everything until the peer closes, resets or is silent for `timeout`, and which of these it was.
    pub fn rest(&mut self, timeout: Duration) -> (Vec<u8>, End) {
        match self.patient().set_read_timeout(timeout) {
            Ok(()) => self.reader.rest(),
            Err(error) => (Vec::new(), error.into()),
        }
    }

    /// Closes the sending side only.
    pub fn finish_sending(&self) -> io::Result<()> {
        self.stream().shutdown(Shutdown::Write)
    }

    /// Closes with a reset instead of an orderly end.
    pub fn reset(self) -> io::Result<()> {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        Ok(socket::setsockopt(self.stream(), sockopt::Linger, &linger)?)
    }
}

fn connect_bound(addr: SocketAddr, device: &str, timeout: Duration) -> io::Result<TcpStream> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd: OwnedFd = socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    socket::setsockopt(&fd, sockopt::BindToDevice, &device.into())?;
    // The send timeout also bounds a blocking connect.
    let limit = nix::sys::time::TimeVal::new(timeout.as_secs().try_into().unwrap_or(60), 0);
    socket::setsockopt(&fd, sockopt::SendTimeout, &limit)?;
    socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    Ok(TcpStream::from(fd))
}
