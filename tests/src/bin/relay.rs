//! The least that a program between a client and a server does: it reads from one and writes to the other. One thread,
//! one buffer, no protocol; what it costs is what any of its kind costs at least.
//!
//! It is for a benchmark whose peers read what is written to them: what a socket does not take at once ends its
//! connection.

use std::env;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

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
    // By its descriptor: each stream, and the descriptor of the other.
    let mut streams: Vec<Option<(TcpStream, usize)>> = Vec::new();
    let (mut events, mut buffer) = ([EpollEvent::empty(); 64], vec![0; BUFFER_BYTES]);
    loop {
        let count = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in events.iter().take(count) {
            let fd = event.data() as usize;
            if fd == listener.as_raw_fd() as usize {
                let (client, server) = (listener.accept()?.0, TcpStream::connect(destination)?);
                let [client_fd, server_fd] = [&client, &server].map(|stream| stream.as_raw_fd() as usize);
                streams.resize_with(streams.len().max(1 + client_fd.max(server_fd)), || None);
                for (fd, stream, other) in [(client_fd, client, server_fd), (server_fd, server, client_fd)] {
                    stream.set_nodelay(true)?;
                    stream.set_nonblocking(true)?;
                    epoll.add(&stream, watch(&stream))?;
                    if let Some(place) = streams.get_mut(fd) {
                        *place = Some((stream, other));
                    }
                }
                continue;
            }
            // The other event of a connection that has just ended.
            let Some(Some((stream, other))) = streams.get(fd) else { continue };
            let (mut from, other) = (stream, *other);
            let to = streams.get(other).and_then(Option::as_ref).map(|(stream, _)| stream);
            let passed = match from.read(&mut buffer) {
                Ok(0) | Err(_) => false,
                Ok(read) => {
                    let read = buffer.get(..read).unwrap_or_default();
                    to.is_some_and(|mut to| to.write_all(read).is_ok())
                }
            };
            if !passed {
                // What is closed is no longer watched.
                for fd in [fd, other] {
                    if let Some(place) = streams.get_mut(fd) {
                        *place = None;
                    }
                }
            }
        }
    }
}
