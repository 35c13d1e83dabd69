//! One request and its answer on one upstream connection: content goes up while the answer comes down, and either
//! side's backpressure is the other's.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::ForwardError;
use super::pool::Upstream;
use super::upload::{RequestBody, Upload, UploadFault};
use crate::http1::head::put_back;
use crate::http1::{Decoder, Fields, Framing, Parsed, Piece, RequestHead, ResponseHead, encode};
use crate::stream::{READ_BYTES, WriteQueue, read_message, shutdown_write};

/// How long a client may be silent within content that it still sends after the answer that ends its connection.
const ENDING_PATIENCE: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug)]
pub enum Answer {
    /// A final response; its content is still to be read from the exchange.
    Head(Box<ResponseHead>),
    /// Bytes that are not a well-formed response, or a switch of protocols: to be relayed untouched.
    Opaque,
}

/// An exchange in progress.
#[derive(Debug)]
pub struct Exchange<'a> {
    upstream: Upstream,
    upload: Upload<'a>,
    decoder: Decoder,
    trailers: Option<Fields>,
    scanned: usize,
    head_bytes_max: usize,
    is_half_closed: bool,
    persists: bool,
    /// What was read of the answer, bytes.
    read_bytes: usize,
}

impl<'a> Exchange<'a> {
    /// An exchange that has not sent anything yet.
    pub fn new(upstream: Upstream, upload: Upload<'a>, head_bytes_max: usize) -> Self {
        let decoder = Decoder::of_response(Framing::Empty);
        let persists = true;
        Self {
            upstream,
            upload,
            decoder,
            trailers: None,
            scanned: 0,
            head_bytes_max,
            is_half_closed: false,
            persists,
            read_bytes: 0,
        }
    }

    /// Sends the request and waits for the head of the final response; interim responses are passed to the client.
    ///
    /// # Errors
    /// `ForwardError`; nothing of a final response has been read then.
    pub async fn answer(&mut self, request: &RequestHead) -> Result<Answer, ForwardError> {
        loop {
            let parsed = if self.upstream.buffer.is_empty() {
                Parsed::Partial
            } else {
                ResponseHead::take(
                    &mut self.upstream.buffer,
                    &mut self.scanned,
                    self.head_bytes_max,
                    &request.method,
                )
            };
            match parsed {
                Parsed::Complete(head) if head.status == 101 => {
                    put_back(&mut self.upstream.buffer, &head.raw);
                    return Ok(Answer::Opaque);
                }
                Parsed::Complete(head) if head.status < 200 => self.pass_interim(request, &head).await?,
                Parsed::Complete(head) => {
                    self.decoder = Decoder::of_response(head.framing);
                    self.persists = head.persists();
                    return Ok(Answer::Head(Box::new(head)));
                }
                Parsed::Ambiguous(_) | Parsed::Malformed(_) => return Ok(Answer::Opaque),
                Parsed::Partial => {
                    let is_begun = !self.upstream.buffer.is_empty();
                    match self.read().await {
                        Ok(0) if is_begun => return Ok(Answer::Opaque),
                        Ok(0) => return Err(ForwardError::Closed),
                        Ok(_) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }

    /// Whether the connection was used before, so that the request may be sent again on another one: nothing of the
    /// client's content was taken yet, nor any sign of an answer seen.
    pub fn may_restart(&self) -> bool {
        self.upstream.is_reused && !self.upload.has_taken_content
    }

    /// Whether the connection was used before and this request is still unsent, so that another one may take it.
    pub fn is_unsent(&self) -> bool {
        self.upstream.is_reused && !self.upload.has_begun
    }

    /// Begins again on a new connection.
    pub fn restart(&mut self, upstream: Upstream, head: Bytes) {
        self.upstream = upstream;
        self.upload.restart(head);
        self.decoder = Decoder::of_response(Framing::Empty);
        self.scanned = 0;
    }

    /// Takes content that is already here; `None` when reading is needed, or after the end.
    ///
    /// # Errors
    /// Content that cannot be framed.
    pub fn buffered(&mut self) -> Result<Option<Bytes>, ForwardError> {
        while let Some(piece) = self.decoder.decode(&mut self.upstream.buffer).map_err(invalid)? {
            match piece {
                Piece::Data(data) => return Ok(Some(data)),
                Piece::End(trailers) => self.trailers = Some(trailers),
            }
        }
        Ok(None)
    }

    /// Reads more of the answer, sending the client's content meanwhile.
    ///
    /// # Errors
    /// `ForwardError::Broken` also where the answer ended early (RFC 9112 §8).
    pub async fn more(&mut self) -> Result<(), ForwardError> {
        if self.read().await? == 0 {
            self.decoder.end().map_err(invalid)?;
        }
        Ok(())
    }

    /// Whether the answer is complete.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// The answer's trailer fields, once it is complete.
    pub fn trailers(&self) -> Option<&Fields> {
        self.trailers.as_ref().filter(|fields| !fields.is_empty())
    }

    /// Whether there is no client who waits for the answer.
    pub fn is_unattended(&self) -> bool {
        self.upload.body.stream().is_none()
    }

    /// Whether the client's request was read to its end.
    pub fn is_request_read(&self) -> bool {
        self.upload.body.is_done()
    }

    /// The connection, if it may serve another request; the exchange is over.
    pub fn into_reusable(self) -> Option<Upstream> {
        if self.read_bytes > READ_BYTES {
            acknowledge(&self.upstream.stream);
        }
        let is_sent = self.upload.is_over() && self.upload.body.is_done() && !self.upload.is_abandoned;
        let clean = self.is_done() && self.persists && is_sent;
        (clean && !self.is_half_closed && self.upstream.buffer.is_empty()).then_some(self.upstream)
    }

    /// The exchange with another client's side in place of the present one, which is returned: only where the
    /// client has nothing left to send.
    pub fn with_body<'b>(self, body: RequestBody<'b>) -> (Exchange<'b>, RequestBody<'a>) {
        let (upload, old) = self.upload.with_body(body);
        (Exchange { upload, ..self }, old)
    }

    /// Binds the connection to this client: a login was negotiated on it.
    pub fn pin(&mut self) {
        self.upstream.is_pinned = true;
    }

    /// Notes whether the origin might send content after this answer that has none.
    pub fn doubt(&mut self, is_doubtful: bool) {
        self.upstream.is_doubtful = is_doubtful;
    }

    /// Whether what comes on this connection is certainly what anybody would get for this request.
    pub fn is_impersonal(&self) -> bool {
        !self.upstream.is_pinned && !self.upstream.is_doubtful
    }

    /// The connection with the bytes that were read of it, for a relay; `None` where the client's content is not
    /// sent yet, since a relay could not go on with it.
    pub fn into_upstream(self) -> Option<Upstream> {
        (self.upload.is_over() && self.upload.body.is_done()).then_some(self.upstream)
    }

    /// Writes to the client what waits for it, sending its content meanwhile: a client may send all of it before it
    /// reads.
    ///
    /// # Errors
    /// `ForwardError::ClientGone`, `ForwardError::BadContent`.
    pub async fn deliver(&mut self, queue: &mut WriteQueue) -> Result<(), ForwardError> {
        let Some(client) = self.upload.body.stream() else { return Err(ForwardError::ClientGone) };
        while !queue.is_empty() {
            if self.upload.is_over() {
                return queue.flush(client).await.map_err(|_| ForwardError::ClientGone);
            }
            tokio::select! {
                biased;
                written = queue.write_some(client) => written.map_err(|_| ForwardError::ClientGone)?,
                step = self.upload.step(&self.upstream.stream) => self.stepped(step)?,
            }
        }
        Ok(())
    }

    /// Goes on sending the client's content after the whole answer: whether it takes what is left is the origin's
    /// decision, and a client may not look at the answer before it has sent everything.
    ///
    /// `is_closing`: the client's connection ends with this answer. Returns whether it may stay.
    pub async fn finish_upload(&mut self, is_closing: bool) -> bool {
        let Some(client) = self.upload.body.stream() else { return false };
        let (mut is_ending, mut is_upstream_open) = (is_closing, true);
        if is_closing && !self.upload.is_over() {
            shutdown_write(client);
        }
        while !self.upload.is_over() {
            let Self { upstream, upload, .. } = self;
            let step = tokio::select! {
                biased;
                read = read_message(&upstream.stream, &mut upstream.buffer, READ_BYTES), if is_upstream_open => {
                    match read {
                        // An origin that ends its side may still take what comes, so that its answer is not lost.
                        Ok(0) => {
                            self.persists = false;
                            (is_ending, is_upstream_open) = (true, false);
                            shutdown_write(client);
                        }
                        // More than one answer: nothing can be made of the connection any more.
                        Ok(_) | Err(_) => upload.abandon(),
                    }
                    continue;
                }
                step = upload.step(&upstream.stream) => step,
                () = sleep(ENDING_PATIENCE), if is_ending => return false,
            };
            if self.stepped(step).is_err() {
                return false;
            }
        }
        !is_ending && self.is_request_read()
    }

    /// Takes up what a step of the upload led to.
    fn stepped(&mut self, step: Result<(), UploadFault>) -> Result<(), ForwardError> {
        match step {
            Ok(()) => Ok(()),
            Err(UploadFault::Upstream(_)) => {
                self.upload.abandon();
                Ok(())
            }
            Err(UploadFault::ClientEnded) => {
                self.half_close();
                self.upload.abandon();
                Ok(())
            }
            Err(UploadFault::ClientGone) => Err(ForwardError::ClientGone),
            Err(UploadFault::Content(fault)) => Err(ForwardError::BadContent(fault)),
        }
    }

    /// Mirrors the client's half-close: the origin sees what it would have seen.
    fn half_close(&mut self) {
        shutdown_write(&self.upstream.stream);
        self.is_half_closed = true;
    }

    async fn read(&mut self) -> Result<usize, ForwardError> {
        loop {
            let Self { upstream, upload, .. } = self;
            let read = if upload.is_over() {
                let was_at_end = upload.body.is_at_end;
                tokio::select! {
                    read = read_message(&upstream.stream, &mut upstream.buffer, READ_BYTES) => read,
                    watched = upload.body.watch(), if upload.body.is_done() || was_at_end => {
                        watched.map_err(|_| ForwardError::ClientGone)?;
                        // Not while further requests wait: the origin would see an end where there is none yet.
                        if upload.body.is_at_end && !was_at_end && upload.body.has_nothing_ahead() {
                            self.half_close();
                        }
                        continue;
                    }
                }
            } else {
                tokio::select! {
                    biased;
                    read = read_message(&upstream.stream, &mut upstream.buffer, READ_BYTES) => read,
                    step = upload.step(&upstream.stream) => {
                        self.stepped(step)?;
                        continue;
                    }
                }
            };
            let count = read.map_err(ForwardError::Broken)?;
            if count > 0 && upstream.is_reused && !upload.has_begun {
                // An answer to nothing: what is left of an earlier one, or the origin's farewell.
                upstream.buffer.clear();
                return Err(ForwardError::Closed);
            }
            self.read_bytes += count;
            return Ok(count);
        }
    }

    async fn pass_interim(&mut self, request: &RequestHead, head: &ResponseHead) -> Result<(), ForwardError> {
        // The origin has begun to work on the request: it must not get it twice.
        self.upstream.is_reused = false;
        // RFC 9110 §15.2: a server MUST NOT send a 1xx response to an HTTP/1.0 client.
        if request.version == crate::http1::Version::Http10 {
            return Ok(());
        }
        if self.upload.body.stream().is_none() {
            return Ok(());
        }
        let mut out = BytesMut::new();
        encode::interim(head, &mut out);
        let mut queue = WriteQueue::default();
        queue.push(out.freeze());
        self.deliver(&mut queue).await
    }
}

/// Acknowledges what came at once. On a connection that is used often the kernel would wait for the next request to do
/// it, for up to 40 ms; a sender that paces itself (BBR) takes that for a slow path, and the next answer waits.
fn acknowledge(stream: &TcpStream) {
    let _ = stream.set_quickack(true);
}

fn invalid(fault: crate::http1::body::BodyFault) -> ForwardError {
    ForwardError::Broken(io::Error::new(io::ErrorKind::InvalidData, fault))
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
