//! Origin servers with scripted behaviour and a log of everything that reached them.
//!
//! One thread a connection. [`Origin::http`] frames requests and sends an [`Answer`] to each;
//! [`Origin::raw`] hands over the bare connection, for what is no HTTP.

mod answer;
mod gate;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Result;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::answer::{After, Answer};
pub use self::gate::Gate;
use crate::pattern::Verifier;
use crate::wait;
use crate::wire::{End, Framing, Head, Reader};

const BODY_KEPT: usize = 1024 * 1024;

/// A request as it reached the origin.
#[derive(Clone)]
pub struct Request {
    connection: u64,
    peer: SocketAddr,
    head: Head,
    framing: Framing,
    body: Vec<u8>,
    length: u64,
    pattern: bool,
    trailers: String,
    end: Option<End>,
}

impl fmt::Debug for Request {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<u8> = self.body.iter().copied().take(200).collect();
        write!(out, "{:?} from {} {} bytes ", self.head, self.peer, self.length)?;
        write!(out, "\"{}\" {:?} {:?}", shown.escape_ascii(), self.trailers, self.end)
    }
}

impl Request {
    /// Number of the connection on which it came, from 1 on.
    pub fn connection(&self) -> u64 {
        self.connection
    }

    /// The address it came from.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The head, raw and taken apart.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The method.
    pub fn method(&self) -> &str {
        self.head.word(0)
    }

    /// The request target.
    pub fn target(&self) -> &str {
        self.head.word(1)
    }

    /// The first value of a field, by name in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The content, up to 1 MiB of it.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// How the content was framed.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the content is the first `length` bytes of [`crate::pattern`].
    pub fn is_pattern(&self, length: u64) -> bool {
        self.length == length && self.pattern
    }

    /// The trailer section, raw.
    pub fn trailers(&self) -> &str {
        &self.trailers
    }

    /// Why the content broke off, if it did.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }
}

type Handler = dyn Fn(TcpStream, SocketAddr, u64, &Shared) -> io::Result<()> + Send + Sync;

#[derive(Debug, Default)]
struct Shared {
    stop: AtomicBool,
    connections: AtomicU64,
    sent: AtomicU64,
    requests: Mutex<Vec<Request>>,
    received: Mutex<Vec<Vec<u8>>>,
    open: Mutex<HashMap<u64, TcpStream>>,
}

/// A running origin; it and its connections end when dropped.
#[derive(Debug)]
pub struct Origin {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Origin {
    /// An HTTP origin on a free port of 127.0.0.1.
    pub fn http(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Result<Self> {
        Self::http_on(TcpListener::bind(("127.0.0.1", 0))?, answer)
    }

    /// An HTTP origin on a listener, which may be in another network namespace.
    pub fn http_on(
        listener: TcpListener,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::start(listener, Arc::new(move |stream, peer, id, log| serve(&stream, peer, id, log, &answer)))
    }

    /// An origin on a free port of 127.0.0.1 that does with each connection whatever the function does.
    pub fn raw(talk: impl Fn(&mut Talk<'_>) -> io::Result<()> + Send + Sync + 'static) -> Result<Self> {
        let handler = move |mut stream: TcpStream, _, _, log: &Shared| {
            lock(&log.received).push(Vec::new());
            let slot = lock(&log.received).len() - 1;
            talk(&mut Talk { stream: &mut stream, slot, shared: log })
        };
        Self::start(TcpListener::bind(("127.0.0.1", 0))?, Arc::new(handler))
    }

    /// An origin that sends back every byte it gets.
    pub fn echo() -> Result<Self> {
        Self::raw(|talk| talk.echo())
    }

    fn start(listener: TcpListener, handler: Arc<Handler>) -> Result<Self> {
        let addr = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        let accepting = Some(thread::spawn(move || accept(&listener, &seen, &handler)));
        Ok(Self { addr, shared, accepting })
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// `http://` and its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Every request so far, in the order in which their content was complete.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }

    /// How many requests there have been.
    pub fn count(&self) -> u64 {
        lock(&self.shared.requests).len() as u64
    }

    /// How many requests for this target there have been.
    pub fn count_of(&self, target: &str) -> usize {
        lock(&self.shared.requests).iter().filter(|request| request.target() == target).count()
    }

    /// How many connections there have been.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Bytes of content that have been written to sockets.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// The bytes that came on each connection of a raw origin.
    pub fn received(&self) -> Vec<Vec<u8>> {
        lock(&self.shared.received).clone()
    }

    /// Waits until this many requests have come in all.
    pub fn reached(&self, count: u64) -> Result<()> {
        wait::wait_until(wait::PATIENCE, &format!("{count} requests at the origin"), || self.count() >= count)
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in lock(&self.shared.open).values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A connection of a raw origin.
#[derive(Debug)]
pub struct Talk<'a> {
    stream: &'a mut TcpStream,
    slot: usize,
    shared: &'a Shared,
}

impl Talk<'_> {
    /// The same connection once more, for another thread or with other timeouts.
    pub fn stream(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Receives some bytes, none at the end, and notes them in the log.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = vec![0; 64 * 1024];
        let n = self.stream.read(&mut chunk)?;
        chunk.truncate(n);
        if let Some(all) = lock(&self.shared.received).get_mut(self.slot) {
            all.extend_from_slice(&chunk);
        }
        Ok(chunk)
    }

    /// Sends back everything, until the client closes its side.
    pub fn echo(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.receive()?;
            if bytes.is_empty() {
                return Ok(());
            }
            self.send(bytes)?;
        }
    }

    /// Receives and drops everything, until the client closes its side.
    pub fn drain(&mut self) -> io::Result<()> {
        while !self.receive()?.is_empty() {}
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>, handler: &Arc<Handler>) {
    while !shared.stop.load(Ordering::SeqCst) {
        let mut ready = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ready, PollTimeout::from(50u8));
        while let Ok((stream, peer)) = listener.accept() {
            let id = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
            let _ = stream.set_nonblocking(false);
            let _ = stream.set_nodelay(true);
            let _ = stream.set_write_timeout(Some(Duration::from_secs(60)));
            if let Ok(copy) = stream.try_clone() {
                lock(&shared.open).insert(id, copy);
            }
            let (shared, handler) = (Arc::clone(shared), Arc::clone(handler));
            thread::spawn(move || {
                // What a broken connection means is for the test to judge, from the log.
                let _ = handler(stream, peer, id, &shared);
                lock(&shared.open).remove(&id);
            });
        }
    }
}

fn serve(
    stream: &TcpStream,
    peer: SocketAddr,
    connection: u64,
    log: &Shared,
    answer: &(impl Fn(&Request) -> Answer + ?Sized),
) -> io::Result<()> {
    let mut reader = Reader::new(stream);
    let mut out = stream;
    loop {
        let Ok(head) = reader.head() else { return Ok(()) };
        if head.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
            out.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let request = receive(&mut reader, connection, peer, head);
        let answer = answer(&request);
        let (method, broken) = (request.method().to_owned(), request.end.is_some());
        let close = !keeps_alive(&request);
        lock(&log.requests).push(request);
        if broken {
            return Ok(());
        }
        answer.send(&mut out, &method, |bytes| {
            log.sent.fetch_add(bytes, Ordering::SeqCst);
        })?;
        match answer.after() {
            After::KeepAlive if !close => {}
            After::KeepAlive | After::Close => return Ok(()),
            After::Echo => return echo(&mut reader, out),
        }
    }
}

/// Whether the client awaits a further answer on the connection (RFC 9112 §9.3).
fn keeps_alive(request: &Request) -> bool {
    let option = request.field("connection").unwrap_or_default().to_ascii_lowercase();
    option != "close" && (request.head.word(2) != "HTTP/1.0" || option == "keep-alive")
}

fn receive(reader: &mut Reader<&TcpStream>, connection: u64, peer: SocketAddr, head: Head) -> Request {
    let framing = head.request_framing();
    let mut verifier = Verifier::default();
    let mut body: Vec<u8> = Vec::new();
    let outcome = reader.body(framing, &mut |bytes| {
        verifier.feed(bytes);
        let room = BODY_KEPT.saturating_sub(body.len());
        body.extend_from_slice(&bytes[..bytes.len().min(room)]);
    });
    let (trailers, end) = match outcome {
        Ok(trailers) => (String::from_utf8_lossy(&trailers).into_owned(), None),
        Err(end) => (String::new(), Some(end)),
    };
    let (length, pattern) = (verifier.length(), verifier.first_wrong().is_none());
    Request { connection, peer, head, framing, body, length, pattern, trailers, end }
}

fn echo(reader: &mut Reader<&TcpStream>, mut out: &TcpStream) -> io::Result<()> {
    while let Ok(byte) = reader.exact(1) {
        out.write_all(&byte)?;
    }
    Ok(())
}
