//! HTTP/1 as bytes: heads, and bodies framed by length, by chunks or by the end of the connection.
//!
//! Used by the origins for requests and by the clients for responses. It accepts what is well formed and
//! keeps everything raw; to judge what is right is left to the tests.

use std::fmt;
use std::io::{self, ErrorKind, Read};

const CHUNK: usize = 256 * 1024;
const HEAD_MAX: usize = 1024 * 1024;

/// Why no more bytes came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed its side.
    Eof,
    /// The connection was reset.
    Reset,
    /// Nothing came within the read timeout.
    Timeout,
    /// The bytes are no HTTP/1 message, or reading failed in another way.
    Broken(String),
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => out.write_str("eof"),
            Self::Reset => out.write_str("reset"),
            Self::Timeout => out.write_str("timeout"),
            Self::Broken(why) => write!(out, "broken: {why}"),
        }
    }
}

impl std::error::Error for End {}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => Self::Reset,
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Broken(error.to_string()),
        }
    }
}

/// The head of a message: its raw bytes, start line and field lines in order.
#[derive(Clone, Default)]
pub struct Head {
    raw: Vec<u8>,
    start: String,
    fields: Vec<(String, String)>,
}

impl Head {
    /// Takes apart a head that ends in an empty line.
    pub fn parse(raw: &[u8]) -> Self {
        let text = String::from_utf8_lossy(raw).into_owned();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Self { raw: raw.to_owned(), start, fields }
    }

    /// The bytes as they came, with the empty line.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// The bytes as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.raw).into_owned()
    }

    /// The request line or status line.
    pub fn start(&self) -> &str {
        &self.start
    }

    /// The n-th word of the start line, or nothing.
    pub fn word(&self, n: usize) -> &str {
        self.start.split(' ').nth(n).unwrap_or_default()
    }

    /// Names and values in order, names spelled as they came.
    pub fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The first value of a field, by name in any case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Every value of a field, by name in any case.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    fn chunked(&self) -> bool {
        self.field("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().contains("chunked"))
    }

    fn length(&self) -> Option<u64> {
        self.field("content-length")?.parse().ok()
    }

    /// How the content of a request is framed (RFC 9112 §6.3).
    pub fn request_framing(&self) -> Framing {
        if self.chunked() { Framing::Chunked } else { Framing::Length(self.length().unwrap_or(0)) }
    }

    /// How the content of a response to `method` is framed (RFC 9112 §6.3).
    pub fn response_framing(&self, method: &str) -> Framing {
        let status = self.word(1);
        if method == "HEAD" || status.starts_with('1') || status == "204" || status == "304" {
            return Framing::Length(0);
        }
        match self.length() {
            _ if self.chunked() => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        }
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:?}", self.text())
    }
}

/// How the end of a message's content is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// By a number of bytes.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection.
    UntilClose,
}

impl Framing {
    /// One word for it: `length`, `chunked` or `close`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Length(_) => "length",
            Self::Chunked => "chunked",
            Self::UntilClose => "close",
        }
    }
}

/// Reads messages off a stream, holding what came too early.
#[derive(Debug)]
pub struct Reader<R> {
    inner: R,
    buffer: Vec<u8>,
    /// Where in the buffer the bytes begin that nobody has taken yet.
    at: usize,
    chunk: Vec<u8>,
}

impl<R: Read> Reader<R> {
    /// Reads from the start of `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, buffer: Vec::new(), at: 0, chunk: vec![0; CHUNK] }
    }

    /// The stream below.
    pub fn inner(&self) -> &R {
        &self.inner
    }

    fn ahead(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    fn fill(&mut self) -> Result<(), End> {
        self.buffer.drain(..self.at);
        self.at = 0;
        match self.inner.read(&mut self.chunk)? {
            0 => Err(End::Eof),
            n => {
                self.buffer.extend_from_slice(&self.chunk[..n]);
                Ok(())
            }
        }
    }

    fn take(&mut self, n: usize) -> Vec<u8> {
        let taken = self.buffer[self.at..self.at + n].to_vec();
        self.at += n;
        taken
    }

    /// Reads up to and with `marker`.
    pub fn until(&mut self, marker: &[u8]) -> Result<Vec<u8>, End> {
        let mut from = 0;
        loop {
            let found = self.ahead()[from..].windows(marker.len()).position(|window| window == marker);
            if let Some(at) = found {
                return Ok(self.take(from + at + marker.len()));
            }
            from = self.ahead().len().saturating_sub(marker.len());
            if self.ahead().len() > HEAD_MAX {
                return Err(End::Broken("no end of the head".to_owned()));
            }
            self.fill()?;
        }
    }

    /// Reads a head with its empty line; `Eof` also where it is cut short.
    pub fn head(&mut self) -> Result<Head, End> {
        self.until(b"\r\n\r\n").map(|raw| Head::parse(&raw))
    }

    /// Reads until at least `n` bytes are held.
    pub fn hold(&mut self, n: usize) -> Result<(), End> {
        while self.ahead().len() < n {
            self.fill()?;
        }
        Ok(())
    }

    /// Reads exactly `n` bytes.
    pub fn exact(&mut self, n: usize) -> Result<Vec<u8>, End> {
        self.hold(n)?;
        Ok(self.take(n))
    }

    /// Everything until nothing more comes, and why nothing more came.
    pub fn rest(&mut self) -> (Vec<u8>, End) {
        loop {
            if let Err(end) = self.fill() {
                return (self.take(self.ahead().len()), end);
            }
        }
    }

    /// Reads the content into `sink`; returns the trailer section, raw, without its empty line.
    pub fn body(&mut self, framing: Framing, sink: &mut dyn FnMut(&[u8])) -> Result<Vec<u8>, End> {
        match framing {
            Framing::Length(length) => self.pass(length, sink).map(|()| Vec::new()),
            Framing::UntilClose => match self.pass(u64::MAX, sink) {
                Ok(()) | Err(End::Eof) => Ok(Vec::new()),
                Err(end) => Err(end),
            },
            Framing::Chunked => self.chunks(sink),
        }
    }

    fn pass(&mut self, mut left: u64, sink: &mut dyn FnMut(&[u8])) -> Result<(), End> {
        while left > 0 {
            if self.ahead().is_empty() {
                self.fill()?;
            }
            let n = self.ahead().len().min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&self.ahead()[..n]);
            self.at += n;
            left -= n as u64;
        }
        Ok(())
    }

    fn chunks(&mut self, sink: &mut dyn FnMut(&[u8])) -> Result<Vec<u8>, End> {
        loop {
            let line = self.until(b"\r\n")?;
            let text = String::from_utf8_lossy(&line).into_owned();
            let digits = text.split([';', '\r']).next().unwrap_or_default().trim();
            let size =
                u64::from_str_radix(digits, 16).map_err(|_| End::Broken(format!("chunk size {text:?}")))?;
            if size == 0 {
                return self.trailers();
            }
            self.pass(size, sink)?;
            let end = self.exact(2)?;
            if end != b"\r\n" {
                return Err(End::Broken("no line end after a chunk".to_owned()));
            }
        }
    }

    fn trailers(&mut self) -> Result<Vec<u8>, End> {
        let mut all = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            if line == b"\r\n" {
                return Ok(all);
            }
            all.extend_from_slice(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunked_message_and_the_next_one_are_told_apart() {
        let raw = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        let mut reader = Reader::new(&raw[..]);
        let head = reader.head().unwrap();
        let mut body = Vec::new();
        let trailers = reader.body(head.response_framing("GET"), &mut |b| body.extend_from_slice(b)).unwrap();
        assert_eq!((body.as_slice(), trailers.as_slice()), (&b"abc"[..], &b"T: 1\r\n"[..]));
        assert_eq!(reader.head().unwrap().word(1), "204");
        assert_eq!(reader.head().unwrap_err(), End::Eof);
    }
}
