//! The origin server of the demo: one answer for every target, after a delay that a person notices, counted.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Result;

/// How long the origin takes for an answer: long enough to see the difference in the table.
pub(super) const DELAY: Duration = Duration::from_millis(20);

/// Bytes of an answer's content.
const CONTENT_BYTES: usize = 1024;

/// Bytes of a request's head, at most.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A running origin; it ends with this process.
#[derive(Debug)]
pub(super) struct Origin {
    port: u16,
    requests: Arc<AtomicU64>,
}

impl Origin {
    /// Listens on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port can be had.
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let requests = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // A client that goes away ends its thread, nothing else.
                thread::spawn(move || serve(stream, &counter).ok());
            }
        });
        Ok(Self { port, requests })
    }

    /// The port it listens on.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// How many requests have reached it.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

/// The content of the answer for a target: of its own, so that answers that were mixed up are noticed.
pub(super) fn content(target: &str) -> Vec<u8> {
    format!("This is the answer for {target}.\n")
        .into_bytes()
        .into_iter()
        .cycle()
        .take(CONTENT_BYTES)
        .collect()
}

fn serve(mut stream: TcpStream, requests: &AtomicU64) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Vec::new();
    while let Some(head) = read_head(&mut stream, &mut received)? {
        requests.fetch_add(1, Ordering::SeqCst);
        thread::sleep(DELAY);
        let content = content(head.split(' ').nth(1).unwrap_or_default());
        let mut answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nCache-Control: max-age=60\r\n\r\n",
            content.len()
        )
        .into_bytes();
        answer.extend(content);
        stream.write_all(&answer)?;
    }
    Ok(())
}

/// Reads one request's head; `None` at the end of the connection. The clients of the demo send no content.
fn read_head(stream: &mut TcpStream, received: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
            let head: Vec<u8> = received.drain(..at + 4).collect();
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk)?;
        if length == 0 || received.len() > HEAD_BYTES_MAX {
            return Ok(None);
        }
        received.extend(chunk.iter().take(length));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_counted_and_answered_with_the_content_of_its_target() {
        let origin = Origin::start().unwrap();
        let mut stream = TcpStream::connect(("127.0.0.1", origin.port())).unwrap();
        for target in ["/a", "/b"] {
            stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
            let mut received = Vec::new();
            while !received.ends_with(&content(target)) {
                let mut chunk = [0; 4096];
                let length = stream.read(&mut chunk).unwrap();
                assert_ne!(length, 0);
                received.extend(&chunk[..length]);
            }
        }
        assert_eq!(origin.requests(), 2);
    }

    #[test]
    fn content_differs_by_target() {
        assert_ne!(content("/a"), content("/b"));
        assert_eq!(content("/a").len(), CONTENT_BYTES);
    }
}
