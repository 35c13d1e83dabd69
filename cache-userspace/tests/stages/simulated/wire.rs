//! One end of a connection that speaks HTTP/1, with a reader of its own: it shares no line with the code under test.
//!
//! It understands what is well-formed and says where a message broke off; to judge is left to the tests.

use std::fmt;
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::sys::socket::{Shutdown, shutdown};
use tokio::net::TcpStream;

use super::within;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The peer said that it has nothing more to say.
    Closed,
    /// The peer died.
    Reset,
    /// It goes on, but what came is no message.
    Nonsense,
}

/// A message as it came. Text is Latin-1, so that every byte is one character.
#[derive(Clone, Default)]
pub(crate) struct Message {
    /// The start line.
    pub(crate) start: String,
    /// Field lines: names as they were spelled, values without the white space around them.
    pub(crate) fields: Vec<(String, String)>,
    /// The content, chunks put together.
    pub(crate) content: Vec<u8>,
    /// Trailer fields.
    pub(crate) trailers: Vec<(String, String)>,
    /// Interim responses that came before.
    pub(crate) interim: Vec<Message>,
    /// How the connection ended where the message did not.
    pub(crate) cut: Option<End>,
}

impl Message {
    /// The method of a request.
    pub(crate) fn method(&self) -> &str {
        self.word(0)
    }

    /// The target of a request.
    pub(crate) fn target(&self) -> &str {
        self.word(1)
    }

    /// The status of a response; 0 where there is none.
    pub(crate) fn status(&self) -> u16 {
        self.word(1).parse().unwrap_or(0)
    }

    /// The first value of a field, by name in any case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The content as text.
    pub(crate) fn text(&self) -> String {
        latin1(&self.content)
    }

    /// What the node says it did (RFC 9211), without its name.
    pub(crate) fn cache_status(&self) -> &str {
        self.field("cache-status").and_then(|value| value.strip_prefix("sidestep; ")).unwrap_or_default()
    }

    /// Whether the node answered from its store.
    pub(crate) fn is_hit(&self) -> bool {
        self.cache_status() == "hit"
    }

    fn word(&self, index: usize) -> &str {
        self.start.split(' ').nth(index).unwrap_or_default()
    }

    fn content_length(&self) -> Result<Option<usize>, End> {
        let length = self.field("content-length").map(|value| value.parse::<u32>());
        length.transpose().map(|length| length.map(|length| length as usize)).map_err(|_| End::Nonsense)
    }

    fn is_chunked(&self) -> bool {
        self.field("transfer-encoding").is_some()
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (length, shown) = (self.content.len(), self.content.get(..200).unwrap_or(&self.content));
        write!(f, "{:?} {:?} {length} bytes ", self.start, self.fields)?;
        write!(f, "\"{}\" {:?} {:?} {:?}", shown.escape_ascii(), self.trailers, self.interim, self.cut)
    }
}

/// The bytes as text, each byte one character.
pub(crate) fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// One end of a connection, and what was read of it ahead.
pub(crate) struct Wire {
    stream: Arc<TcpStream>,
    ahead: Vec<u8>,
}

/// Sends on a connection that is read meanwhile.
pub(crate) struct Sender(Arc<TcpStream>);

impl Sender {
    /// Ends the sending side.
    pub(crate) fn finish(&self) {
        // A connection that is gone has no side to end.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Write);
    }

    /// Sends bytes; a peer that takes no more is for the test to see by what it reads.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) {
        let mut bytes = bytes.as_ref();
        within("bytes to be taken", async {
            while !bytes.is_empty() && self.0.writable().await.is_ok() {
                match self.0.try_write(bytes) {
                    Ok(count) => bytes = &bytes[count..],
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        })
        .await;
    }

    /// Sends bytes in pieces of these lengths, over and over, each in a write of its own.
    pub(crate) async fn send_in_pieces(&self, mut bytes: &[u8], lengths: &[usize]) {
        let mut lengths = lengths.iter().cycle();
        while !bytes.is_empty() {
            let length = lengths.next().copied().unwrap_or(bytes.len()).clamp(1, bytes.len());
            let (piece, rest) = bytes.split_at(length);
            self.send(piece).await;
            // The reader gets to see the piece alone.
            tokio::task::yield_now().await;
            bytes = rest;
        }
    }
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self { stream: Arc::new(stream), ahead: Vec::new() }
    }

    /// The sending side, for a task that reads at the same time.
    pub(crate) fn sender(&self) -> Sender {
        Sender(self.stream.clone())
    }

    /// Sends bytes; a peer that takes no more is for the test to see by what it reads.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.sender().send(bytes).await;
    }

    /// Sends bytes in pieces of these lengths, over and over, each in a write of its own.
    pub(crate) async fn send_in_pieces(&mut self, bytes: &[u8], lengths: &[usize]) {
        self.sender().send_in_pieces(bytes, lengths).await;
    }

    /// Sends so many bytes, or as many as are taken without anybody reading them; says how many.
    pub(crate) async fn flood(&mut self, count: usize) -> usize {
        self.push(&vec![b'x'; count]).await
    }

    /// Sends as many of these bytes as are taken without anybody reading them; says how many.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> usize {
        let (mut sent, mut refused) = (0, 0);
        while sent < bytes.len() && refused < 10 {
            match self.stream.try_write(&bytes[sent..]) {
                Ok(count) => (sent, refused) = (sent + count, 0),
                Err(_) => refused += 1,
            }
            super::settled().await;
        }
        sent
    }

    /// Ends the sending side.
    pub(crate) fn finish(&mut self) {
        self.sender().finish();
    }

    /// Ends the connection as a peer that died would.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().unwrap();
    }

    /// Reads a request, which must come whole.
    pub(crate) async fn request(&mut self) -> Message {
        let request = self.any_request().await;
        assert_eq!(request.cut, None, "the request broke off: {request:?}");
        request
    }

    /// Reads a request, or what comes of it.
    pub(crate) async fn any_request(&mut self) -> Message {
        within("a request", async {
            let mut request = Message::default();
            let read = async {
                self.head(&mut request).await?;
                match (request.is_chunked(), request.content_length()?) {
                    (true, _) => self.chunks(&mut request).await,
                    (false, length) => self.exactly(length.unwrap_or(0), &mut request.content).await,
                }
            };
            let cut = read.await.err();
            Message { cut, ..request }
        })
        .await
    }

    /// Reads the answer to a request of this method, which must come whole.
    pub(crate) async fn response(&mut self, method: &str) -> Message {
        let response = self.any_response(method).await;
        assert_eq!(response.cut, None, "the answer broke off: {response:?}");
        response
    }

    /// Reads the answer to a request of this method, or what comes of it.
    pub(crate) async fn any_response(&mut self, method: &str) -> Message {
        within("a response", async {
            let mut interim = Vec::new();
            loop {
                let mut response = Message::default();
                let cut = self.one_response(method, &mut response).await.err();
                if cut.is_none() && (100..200).contains(&response.status()) && response.status() != 101 {
                    interim.push(response);
                } else {
                    return Message { cut, interim, ..response };
                }
            }
        })
        .await
    }

    async fn one_response(&mut self, method: &str, response: &mut Message) -> Result<(), End> {
        self.head(response).await?;
        if method == "HEAD" || response.status() < 200 || matches!(response.status(), 204 | 304) {
            return Ok(());
        }
        match (response.is_chunked(), response.content_length()?) {
            (true, _) => self.chunks(response).await,
            (false, Some(length)) => self.exactly(length, &mut response.content).await,
            (false, None) => match self.until_the_end(&mut response.content).await {
                End::Closed => Ok(()),
                end => Err(end),
            },
        }
    }

    /// Reads a head only; the content is left for later.
    pub(crate) async fn head_only(&mut self) -> Message {
        let mut message = Message::default();
        within("a head", self.head(&mut message)).await.unwrap();
        message
    }

    /// Reads exactly so many bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        within("bytes", self.exactly(count, &mut bytes)).await.unwrap();
        bytes
    }

    /// Reads to the end of the connection; says what came and how it ended.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, End) {
        let mut bytes = Vec::new();
        let end = within("the end of the connection", self.until_the_end(&mut bytes)).await;
        (bytes, end)
    }

    /// Whether the peer has ended the connection by now.
    pub(crate) async fn is_at_end(&mut self) -> bool {
        super::settled().await;
        matches!(self.stream.try_read(&mut [0]), Ok(0))
    }

    /// Waits for the end of the connection, before which nothing may come.
    pub(crate) async fn end(&mut self) -> End {
        let (bytes, end) = self.rest().await;
        assert_eq!(latin1(&bytes), "", "something came before the end");
        end
    }

    async fn head(&mut self, message: &mut Message) -> Result<(), End> {
        let mut line = self.line().await?;
        while line.is_empty() {
            line = self.line().await?;
        }
        message.start = line;
        self.fields(&mut message.fields).await
    }

    async fn fields(&mut self, fields: &mut Vec<(String, String)>) -> Result<(), End> {
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(());
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    async fn chunks(&mut self, message: &mut Message) -> Result<(), End> {
        loop {
            let line = self.line().await?;
            let digits = line.split(';').next().unwrap_or_default();
            let length = u32::from_str_radix(digits, 16).map_err(|_| End::Nonsense)?;
            if length == 0 {
                return self.fields(&mut message.trailers).await;
            }
            self.exactly(length as usize, &mut message.content).await?;
            if !self.line().await?.is_empty() {
                return Err(End::Nonsense);
            }
        }
    }

    async fn line(&mut self) -> Result<String, End> {
        loop {
            if let Some(at) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line = latin1(&self.ahead[..at]);
                self.ahead.drain(..at + 2);
                return Ok(line);
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, count: usize, into: &mut Vec<u8>) -> Result<(), End> {
        let end = into.len() + count;
        loop {
            let taken = (end - into.len()).min(self.ahead.len());
            into.extend(self.ahead.drain(..taken));
            if into.len() == end {
                return Ok(());
            }
            self.more().await?;
        }
    }

    async fn until_the_end(&mut self, into: &mut Vec<u8>) -> End {
        loop {
            into.append(&mut self.ahead);
            if let Err(end) = self.more().await {
                return end;
            }
        }
    }

    async fn more(&mut self) -> Result<(), End> {
        loop {
            self.stream.readable().await.unwrap();
            self.ahead.reserve(64 * 1024);
            match self.stream.try_read_buf(&mut self.ahead) {
                Ok(0) => return Err(End::Closed),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(End::Reset),
                Err(error) => panic!("{error}"),
            }
        }
    }
}
