//! The least that a program between a client and a server does: it reads from one and writes to the other. One thread,
//! one buffer, no protocol; what it costs is what any of its kind costs at least.
//!
//! It is for a benchmark whose peers read what is written to them: what a socket does not take at once ends its
//! connection.

use std::collections::HashMap;
use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};

use anyhow::{Context, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// Bytes that are read at once.
const BUFFER_BYTES: usize = 64 << 10;

fn main() -> Result<()> {
    let mut words = env::args().skip(1);
    let mut addr = || words.next().context("usage: relay LISTEN DESTINATION")?.parse().context("an address");
    let (listens, destination): (SocketAddr, SocketAddr) = (addr()?, addr()?);
    let listener = TcpListener::bind(listens)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let watch = |stream: &dyn AsRawFd| EpollEvent::new(EpollFlags::EPOLLIN, stream.as_raw_fd() as u64);
    epoll.add(&listener, watch(&listener))?;
    let mut streams: HashMap<RawFd, (TcpStream, RawFd)> = HashMap::new();
    let (mut events, mut buffer) = ([EpollEvent::empty(); 64], vec![0; BUFFER_BYTES]);
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in events.iter().take(count) {
            let fd = event.data() as RawFd;
            if fd == listener.as_raw_fd() {
                let (client, server) = (listener.accept()?.0, TcpStream::connect(destination)?);
                let (client_fd, server_fd) = (client.as_raw_fd(), server.as_raw_fd());
                for (stream, other) in [(client, server_fd), (server, client_fd)] {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    epoll.add(&stream, watch(&stream))?;
                    streams.insert(stream.as_raw_fd(), (stream, other));
                }
                continue;
            }
            // The other event of a connection that has just ended.
            let Some((stream, other)) = streams.get(&fd) else { continue };
            let (mut from, to) = (stream, streams.get(other).map(|(stream, _)| stream));
            let passed = match from.read(&mut buffer) {
                Ok(0) | Err(_) => false,
                Ok(read) => {
                    let read = buffer.get(..read).unwrap_or_default();
                    to.is_some_and(|mut to| to.write_all(read).is_ok())
                }
            };
            if !passed && let Some((_, other)) = streams.remove(&fd) {
                // What is closed is no longer watched.
                streams.remove(&other);
            }
        }
    }
}
