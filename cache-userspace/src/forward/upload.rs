//! The client's content on its way upstream, a piece at a time, while the answer may already be coming back.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::http1::body::BodyFault;
use crate::http1::{Decoder, Framing, Piece, encode};
use crate::stream::{READ_BYTES, WriteQueue, gone, read_message};

/// A request's content, still on the client's connection.
#[derive(Debug)]
pub struct RequestBody<'a> {
    client: Option<ClientSide<'a>>,
    decoder: Decoder,
    is_chunked: bool,
    /// The client has shut down its sending side.
    pub is_at_end: bool,
}

/// A client's connection, and what was read of it: content, and whatever the client sent after it.
#[derive(Debug)]
struct ClientSide<'a> {
    stream: &'a TcpStream,
    buffer: &'a mut BytesMut,
}

/// Why the upload stopped.
#[derive(Debug, thiserror::Error)]
pub enum UploadFault {
    /// The content cannot be framed.
    #[error(transparent)]
    Content(#[from] BodyFault),
    /// The client's connection broke.
    #[error("the client went away")]
    ClientGone,
    /// The client ended its side within its content; it may still wait for the answer to that.
    #[error("the client's content ended early")]
    ClientEnded,
    /// Upstream does not take more; its answer may still come.
    #[error("upstream takes no more: {0}")]
    Upstream(io::Error),
}

impl<'a> RequestBody<'a> {
    /// The content of a request that was framed as `framing`.
    pub fn new(stream: &'a TcpStream, buffer: &'a mut BytesMut, framing: Framing) -> Self {
        let decoder = Decoder::of_request(framing);
        let client = Some(ClientSide { stream, buffer });
        Self { client, decoder, is_chunked: framing == Framing::Chunked, is_at_end: false }
    }

    /// No content and nobody who could send any: the request goes on without its client.
    pub fn of_nobody() -> RequestBody<'static> {
        let decoder = Decoder::of_request(Framing::Empty);
        RequestBody { client: None, decoder, is_chunked: false, is_at_end: false }
    }

    /// The client's connection.
    pub fn stream(&self) -> Option<&'a TcpStream> {
        self.client.as_ref().map(|client| client.stream)
    }

    /// Whether the client has sent nothing beyond this request.
    pub fn has_nothing_ahead(&self) -> bool {
        self.client.as_ref().is_none_or(|client| client.buffer.is_empty())
    }

    /// Whether all of it was read.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Takes the next piece of it that is here already.
    ///
    /// # Errors
    /// Content that cannot be framed.
    pub fn decode(&mut self) -> Result<Option<Piece>, BodyFault> {
        self.client.as_mut().map_or(Ok(None), |client| self.decoder.decode(client.buffer))
    }

    /// Reads more of it; false at the client's end.
    ///
    /// # Errors
    /// Those of recv(2).
    pub async fn more(&mut self) -> io::Result<bool> {
        let Some(client) = &mut self.client else { return Err(io::ErrorKind::NotConnected.into()) };
        let count = read_message(client.stream, client.buffer, READ_BYTES).await?;
        self.is_at_end |= count == 0;
        Ok(count > 0)
    }

    /// Waits until the client is gone; its end alone is not its departure.
    pub async fn gone(&mut self) {
        while self.watch().await.is_ok() {}
    }

    /// Waits until the client sends beyond this request or ends; at most one buffer is read ahead.
    ///
    /// # Errors
    /// Where the client's connection broke, also after the client's end.
    pub async fn watch(&mut self) -> io::Result<()> {
        let Some(client) = &mut self.client else { return std::future::pending().await };
        if self.is_at_end {
            gone(client.stream).await;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if client.buffer.len() >= READ_BYTES {
            return std::future::pending().await;
        }
        if read_message(client.stream, client.buffer, READ_BYTES).await? == 0 {
            self.is_at_end = true;
        }
        Ok(())
    }
}

/// Sends a head and the content after it.
#[derive(Debug)]
pub struct Upload<'a> {
    /// What is being sent.
    pub body: RequestBody<'a>,
    queue: WriteQueue,
    is_over: bool,
    /// Whether upstream stopped taking it: its connection cannot serve another request.
    pub is_abandoned: bool,
    /// Whether content was taken from the client: then the request cannot be sent again.
    pub has_taken_content: bool,
    /// Whether upstream was sent anything at all.
    pub has_begun: bool,
}

impl<'a> Upload<'a> {
    /// An upload that begins with `head`.
    pub fn new(body: RequestBody<'a>, head: Bytes) -> Self {
        let mut upload = Self {
            body,
            queue: WriteQueue::default(),
            is_over: false,
            is_abandoned: false,
            has_taken_content: false,
            has_begun: false,
        };
        upload.queue.push(head);
        upload
    }

    /// The same upload with another body in place of this one, which has nothing left to send.
    pub fn with_body<'b>(self, body: RequestBody<'b>) -> (Upload<'b>, RequestBody<'a>) {
        let Self { body: old, queue, is_over, is_abandoned, has_taken_content, has_begun } = self;
        (Upload { body, queue, is_over, is_abandoned, has_taken_content, has_begun }, old)
    }

    /// Begins again on another connection; only where no content was sent.
    pub fn restart(&mut self, head: Bytes) {
        if self.has_begun {
            self.queue = WriteQueue::default();
            self.queue.push(head);
        }
        self.has_begun = false;
        self.is_over = false;
        self.is_abandoned = false;
    }

    /// Whether nothing is left to send.
    pub fn is_over(&self) -> bool {
        self.is_over || (self.queue.is_empty() && self.body.is_done())
    }

    /// Gives up sending; what the client still sends is not read.
    pub fn abandon(&mut self) {
        self.is_over = true;
        self.is_abandoned = true;
        // What has not begun may begin again on another connection.
        if self.has_begun {
            self.queue = WriteQueue::default();
        }
    }

    /// Makes some progress: reads from the client or writes upstream.
    ///
    /// # Errors
    /// `UploadFault`; after `Upstream` the answer may still be read.
    pub async fn step(&mut self, upstream: &TcpStream) -> Result<(), UploadFault> {
        while self.queue.len() < READ_BYTES {
            let Some(piece) = self.body.decode()? else { break };
            self.has_taken_content = true;
            self.encode(piece);
        }
        if !self.queue.is_empty() {
            self.queue.write_some(upstream).await.map_err(UploadFault::Upstream)?;
            self.has_begun = true;
            return Ok(());
        }
        if self.body.is_done() {
            self.is_over = true;
            return Ok(());
        }
        match self.body.more().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(UploadFault::ClientEnded),
            Err(_) => Err(UploadFault::ClientGone),
        }
    }

    fn encode(&mut self, piece: Piece) {
        match piece {
            Piece::Data(data) if self.body.is_chunked => {
                self.queue.push(encode::chunk_start(data.len()));
                self.queue.push(data);
                self.queue.push(Bytes::from_static(b"\r\n"));
            }
            Piece::Data(data) => self.queue.push(data),
            Piece::End(trailers) => self.queue.push(encode::chunked_end(Some(&trailers))),
        }
    }
}
