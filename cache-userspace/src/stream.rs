//! Reads and writes on a TCP stream that is shared between the two directions. Every wait here can be given up
//! without losing a byte: that is what `select!` needs.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

use bytes::{Buf, Bytes, BytesMut};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// How much one read may bring, bytes; also what a connection buffers at the most beyond a head.
pub const READ_BYTES: usize = 64 * 1024;
/// How many parts one write takes.
const WRITE_PARTS: usize = 16;
/// How long a peer that ended its side is silent before it is asked whether it is still there, and how often, seconds.
const PROBE_AFTER_S: u32 = 30;
const PROBE_EVERY_S: u32 = 15;
const PROBES: u32 = 4;

/// Reads what is there into `buffer`; 0 is the end of the stream.
///
/// # Errors
/// Those of recv(2).
pub async fn read_more(stream: &TcpStream, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        if buffer.capacity() - buffer.len() < bytes_max.min(2048) {
            buffer.reserve(bytes_max);
        }
        match stream.try_read_buf(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Bytes on their way out, in order.
#[derive(Debug, Default)]
pub struct WriteQueue {
    parts: VecDeque<Bytes>,
    bytes: usize,
}

impl WriteQueue {
    /// Appends bytes.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.bytes += part.len();
            self.parts.push_back(part);
        }
    }

    /// Whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Writes some of the bytes, at least one.
    ///
    /// # Errors
    /// Those of send(2).
    pub async fn write_some(&mut self, stream: &TcpStream) -> io::Result<()> {
        while !self.parts.is_empty() {
            let mut slices = [IoSlice::new(&[]); WRITE_PARTS];
            let count = self.parts.len().min(WRITE_PARTS);
            for (slice, part) in slices.iter_mut().zip(&self.parts) {
                *slice = IoSlice::new(part);
            }
            match stream.try_write_vectored(slices.get(..count).unwrap_or_default()) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.advance(written);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes everything.
    ///
    /// # Errors
    /// Those of send(2).
    pub async fn flush(&mut self, stream: &TcpStream) -> io::Result<()> {
        while !self.is_empty() {
            self.write_some(stream).await?;
        }
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(part) = self.parts.front_mut() {
            if part.len() > written {
                part.advance(written);
                return;
            }
            written -= part.len();
            self.parts.pop_front();
        }
    }
}

/// Waits until a peer that has ended its side is gone altogether, which may be never.
///
/// Its end alone does not tell whether it still listens. If it does not, its kernel forgets the connection after a
/// while (net.ipv4.tcp_fin_timeout) and answers the next probe with a reset.
pub async fn gone(stream: &TcpStream) {
    // Without probes the peer is found gone when something is sent to it.
    let _ = setsockopt(stream, sockopt::KeepAlive, &true)
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepIdle, &PROBE_AFTER_S))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepInterval, &PROBE_EVERY_S))
        .and_then(|()| setsockopt(stream, sockopt::TcpKeepCount, &PROBES));
    // The only way for this to fail is the end of the runtime.
    let _ = stream.ready(Interest::ERROR).await;
}

/// Shuts down the sending side, as a peer that has nothing more to say would.
pub fn shutdown_write(stream: &TcpStream) {
    // An error means that there is no connection any more: nothing to shut down.
    let _ = nix::sys::socket::shutdown(
        std::os::fd::AsRawFd::as_raw_fd(stream),
        nix::sys::socket::Shutdown::Write,
    );
}
