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
        make_room(buffer, bytes_max);
        match stream.try_read_buf(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

/// Reads what is there of an HTTP message into `buffer`; 0 is the end of the stream.
///
/// A read that does not fill the room it has is taken to have emptied the socket, which saves asking once more. Urgent
/// data, which also end a read, belong to other protocols: those that are relayed are read by [`read_more`].
///
/// # Errors
/// Those of recv(2).
pub async fn read_message(stream: &TcpStream, buffer: &mut BytesMut, bytes_max: usize) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        make_room(buffer, bytes_max);
        let mut short = None;
        let read = stream.try_io(Interest::READABLE, || {
            let read = stream.try_read_buf(buffer)?;
            if read == 0 || buffer.len() == buffer.capacity() {
                return Ok(read);
            }
            // The only way to say so to the runtime; what comes from here on is an event of its own.
            short = Some(read);
            Err(ErrorKind::WouldBlock.into())
        });
        match (read, short) {
            (_, Some(read)) => return Ok(read),
            (Err(error), None) if error.kind() == ErrorKind::WouldBlock => {}
            (result, None) => return result,
        }
    }
}

fn make_room(buffer: &mut BytesMut, bytes_max: usize) {
    if buffer.capacity() - buffer.len() < bytes_max.min(2048) {
        buffer.reserve(bytes_max);
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

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream as Blocking};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn pair() -> (Blocking, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = Blocking::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        client.set_nodelay(true).unwrap();
        (client, TcpStream::from_std(server).unwrap())
    }

    async fn all(stream: &TcpStream) -> usize {
        let (mut total, mut buffer) = (0, BytesMut::new());
        loop {
            let read = tokio::time::timeout(Duration::from_secs(20), read_message(stream, &mut buffer, 4096));
            match read.await.expect("an event was lost").unwrap() {
                0 => return total,
                read => total += read,
            }
            buffer.clear();
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_event_is_lost_between_a_short_read_and_the_next_wait() {
        const MESSAGES: usize = 100_000;
        let (mut client, stream) = pair();
        let writer = thread::spawn(move || {
            // Sizes below, at and above the room of a read.
            let message = [b'x'; 5000];
            (0..MESSAGES)
                .map(|n| [1, 700, 4096, 5000][n % 4])
                .inspect(|size| client.write_all(&message[..*size]).unwrap())
                .sum::<usize>()
        });
        let read = tokio::spawn(async move { all(&stream).await }).await.unwrap();
        assert_eq!(read, writer.join().unwrap());
    }

    #[tokio::test]
    async fn an_end_behind_a_short_read_is_seen() {
        let (mut client, stream) = pair();
        client.write_all(b"last words").unwrap();
        drop(client);
        // Both are there before the first read.
        thread::sleep(Duration::from_millis(20));
        assert_eq!(all(&stream).await, 10);
    }
}
