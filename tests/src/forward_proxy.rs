//! A small real forward proxy: absolute-form requests and CONNECT, one request a connection.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::Result;

use crate::wire::{Head, Reader};

/// A running proxy; it accepts nothing more once dropped.
#[derive(Debug)]
pub struct ForwardProxy {
    addr: SocketAddr,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl ForwardProxy {
    /// Listens on a free port of 127.0.0.1.
    pub fn new() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let addr = listener.local_addr()?;
        let (requests, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (Arc::clone(&requests), Arc::clone(&stop));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let count = Arc::clone(&count);
                // A client that breaks off sees it itself.
                thread::spawn(move || drop(serve(&stream, &count)));
            }
        });
        Ok(Self { addr, requests, stop })
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many requests it took.
    pub fn count(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for ForwardProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(mut client: &TcpStream, count: &AtomicU64) -> io::Result<()> {
    let mut reader = Reader::new(client);
    let Ok(head) = reader.head() else { return Ok(()) };
    count.fetch_add(1, Ordering::SeqCst);
    if head.word(0) == "CONNECT" {
        let target = TcpStream::connect(head.word(1))?;
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
        return relay(client, &target);
    }
    let Some((authority, path)) = absolute_form(&head) else {
        return client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    };
    let mut target = TcpStream::connect(authority)?;
    let mut request = format!("{} {path} HTTP/1.1\r\n", head.word(0));
    let kept = head.fields().iter().filter(|(name, _)| !name.eq_ignore_ascii_case("proxy-connection"));
    for (name, value) in kept {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    write!(target, "{request}Connection: close\r\n\r\n")?;
    io::copy(&mut target, &mut client)?;
    client.shutdown(Shutdown::Both)
}

fn absolute_form(head: &Head) -> Option<(String, String)> {
    let rest = head.word(1).strip_prefix("http://")?;
    let (authority, path) = rest.split_once('/')?;
    Some((authority.to_owned(), format!("/{path}")))
}

fn relay(client: &TcpStream, target: &TcpStream) -> io::Result<()> {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &*client, &mut &*target);
            let _ = target.shutdown(Shutdown::Write);
        });
        let copied = io::copy(&mut &*target, &mut &*client);
        let _ = client.shutdown(Shutdown::Write);
        copied.map(drop)
    })
}
