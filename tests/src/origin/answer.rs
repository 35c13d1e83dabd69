//! What an origin sends back: an ordinary response, a badly behaved one, or exact bytes.

use std::io::{self, Write};

use crate::date;
use crate::origin::gate::Gate;
use crate::pattern;

/// Chunk size of generated chunked content; its last chunk differs.
const CHUNK: usize = 16_000;

/// What happens to the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// The next request is awaited.
    KeepAlive,
    /// The connection is closed in order.
    Close,
    /// Everything that comes is sent back, until the client closes its side.
    Echo,
}

#[derive(Clone, Debug)]
enum Content {
    None,
    Sized(Vec<u8>),
    Chunked { chunks: Vec<Vec<u8>>, trailers: String },
    UntilClose(Vec<u8>),
    Pattern { length: u64, chunked: bool },
    CutShort { declared: u64, sent: Vec<u8> },
    CutChunk(Vec<u8>),
    Raw(Vec<u8>),
}

/// One answer of an origin.
#[derive(Clone, Debug)]
pub struct Answer {
    status: String,
    interim: Vec<String>,
    fields: Vec<(String, String)>,
    content: Content,
    gates: (Option<Gate>, Option<Gate>),
    after: After,
}

impl Answer {
    fn with(status: &str, content: Content) -> Self {
        let fields = vec![("Date".to_owned(), date::now())];
        let after = match content {
            Content::UntilClose(_) | Content::CutShort { .. } | Content::CutChunk(_) => After::Close,
            _ => After::KeepAlive,
        };
        Self { status: status.to_owned(), interim: Vec::new(), fields, content, gates: (None, None), after }
    }

    /// A 200 with Content-Length.
    pub fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::with("200 OK", Content::Sized(body.as_ref().to_owned()))
    }

    /// Another status, with its reason phrase, and content with Content-Length.
    pub fn status(status: &str, body: impl AsRef<[u8]>) -> Self {
        Self::with(status, Content::Sized(body.as_ref().to_owned()))
    }

    /// A status that has no content, such as `204 No Content`, `304 Not Modified` or `101 …`.
    pub fn bare(status: &str) -> Self {
        Self::with(status, Content::None)
    }

    /// A 200 in these chunks, with trailer lines (each ending in CRLF).
    pub fn chunked(chunks: &[&str], trailers: &str) -> Self {
        let chunks = chunks.iter().map(|chunk| chunk.as_bytes().to_owned()).collect();
        Self::with("200 OK", Content::Chunked { chunks, trailers: trailers.to_owned() })
    }

    /// A 200 whose content ends with the connection.
    pub fn until_close(body: impl AsRef<[u8]>) -> Self {
        Self::with("200 OK", Content::UntilClose(body.as_ref().to_owned()))
    }

    /// A 200 with this much of [`crate::pattern`], generated as it is sent.
    pub fn pattern(length: u64) -> Self {
        Self::with("200 OK", Content::Pattern { length, chunked: false })
    }

    /// The same, chunked.
    pub fn pattern_chunked(length: u64) -> Self {
        Self::with("200 OK", Content::Pattern { length, chunked: true })
    }

    /// A 200 that declares `declared` bytes, sends fewer and closes.
    pub fn cut_short(declared: u64, sent: impl AsRef<[u8]>) -> Self {
        Self::with("200 OK", Content::CutShort { declared, sent: sent.as_ref().to_owned() })
    }

    /// A chunked 200 that closes without the last chunk.
    pub fn cut_chunk(sent: impl AsRef<[u8]>) -> Self {
        Self::with("200 OK", Content::CutChunk(sent.as_ref().to_owned()))
    }

    /// Exact bytes and nothing else.
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::with("", Content::Raw(bytes.as_ref().to_owned()))
    }

    /// Adds a field.
    pub fn field(mut self, name: &str, value: impl AsRef<str>) -> Self {
        self.fields.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Adds `Cache-Control: max-age=N`.
    pub fn max_age(self, seconds: u64) -> Self {
        self.field("Cache-Control", format!("max-age={seconds}"))
    }

    /// Removes the fields so far, `Date` included.
    pub fn without_fields(mut self) -> Self {
        self.fields.clear();
        self
    }

    /// Sends an interim response first: its status line's end, and field lines each ending in CRLF.
    pub fn after_interim(mut self, status: &str, fields: &str) -> Self {
        self.interim.push(format!("HTTP/1.1 {status}\r\n{fields}\r\n"));
        self
    }

    /// Holds the whole answer back until the gate opens.
    pub fn held(mut self, gate: &Gate) -> Self {
        self.gates.0 = Some(gate.clone());
        self
    }

    /// Sends the head and holds the content back until the gate opens.
    pub fn content_held(mut self, gate: &Gate) -> Self {
        self.gates.1 = Some(gate.clone());
        self
    }

    /// Sets what happens to the connection afterwards.
    pub fn then(mut self, after: After) -> Self {
        self.after = after;
        self
    }

    pub(super) fn after(&self) -> After {
        self.after
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in &self.fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match &self.content {
            Content::Sized(body) => head.push_str(&format!("Content-Length: {}\r\n", body.len())),
            Content::Pattern { length, chunked: false } => {
                head.push_str(&format!("Content-Length: {length}\r\n"));
            }
            Content::CutShort { declared, .. } => head.push_str(&format!("Content-Length: {declared}\r\n")),
            Content::Chunked { .. } | Content::CutChunk(_) | Content::Pattern { chunked: true, .. } => {
                head.push_str("Transfer-Encoding: chunked\r\n");
            }
            Content::UntilClose(_) => head.push_str("Connection: close\r\n"),
            Content::None | Content::Raw(_) => {}
        }
        head.push_str("\r\n");
        head
    }

    /// Sends it; `written` is told how many bytes of content have left.
    pub(super) fn send(
        &self,
        out: &mut impl Write,
        method: &str,
        mut written: impl FnMut(u64),
    ) -> io::Result<()> {
        for interim in &self.interim {
            out.write_all(interim.as_bytes())?;
        }
        if let Some(gate) = &self.gates.0 {
            gate.pass();
        }
        if let Content::Raw(bytes) = &self.content {
            return out.write_all(bytes);
        }
        let mut first = self.head().into_bytes();
        // A short answer leaves in one segment, as a real server's does.
        if let (Content::Sized(body), None) = (&self.content, &self.gates.1)
            && method != "HEAD"
        {
            first.extend_from_slice(body);
            out.write_all(&first)?;
            written(body.len() as u64);
            return Ok(());
        }
        out.write_all(&first)?;
        if method == "HEAD" {
            return Ok(());
        }
        if let Some(gate) = &self.gates.1 {
            gate.pass();
        }
        match &self.content {
            Content::None | Content::Raw(_) => Ok(()),
            Content::Sized(bytes) | Content::UntilClose(bytes) | Content::CutShort { sent: bytes, .. } => {
                out.write_all(bytes)?;
                written(bytes.len() as u64);
                Ok(())
            }
            Content::CutChunk(bytes) => {
                write!(out, "{:x}\r\n", bytes.len())?;
                out.write_all(bytes)?;
                out.write_all(b"\r\n")
            }
            Content::Chunked { chunks, trailers } => {
                for chunk in chunks {
                    write!(out, "{:x}\r\n", chunk.len())?;
                    out.write_all(chunk)?;
                    out.write_all(b"\r\n")?;
                    written(chunk.len() as u64);
                }
                write!(out, "0\r\n{trailers}\r\n")
            }
            Content::Pattern { length, chunked } => {
                pattern::write_to(out, *length, chunked.then_some(CHUNK), written)?;
                if *chunked { out.write_all(b"0\r\n\r\n") } else { Ok(()) }
            }
        }
    }
}
