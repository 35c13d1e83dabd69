//! The client's connection: our own HTTP/1, since a cache that answers in the kernel has to know where each message
//! ends. Takes requests off it in order, serves them by the path, and relays what is not for us to understand.

mod next;
pub mod relay;

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use next::Next;
use tokio::net::TcpStream;

use crate::accept::netns::reset;
use crate::admin::Outcome;
use crate::forward::{ForwardError, RequestBody, Upstream};
use crate::http1::RequestHead;
use crate::request::{Connection, Path};
use crate::respond::{Own, Persistence, Response, write};
use crate::route::Route;

/// A redirected connection whose first bytes are HTTP/1.
pub struct Downstream {
    stream: TcpStream,
    buffer: BytesMut,
    scanned: usize,
    path: Arc<Path>,
    connection: Arc<Connection>,
}

/// What follows a served request.
enum After {
    /// The next one.
    Stay,
    /// The end, in good order.
    Close,
    /// The end, as of a peer that died.
    Reset,
    /// A relay to this upstream.
    Relay(Upstream),
}

impl After {
    /// What follows an answer that was ours to give.
    fn answered(sent: io::Result<()>, persistence: Persistence) -> Self {
        if sent.is_ok() && persistence != Persistence::Closes { Self::Stay } else { Self::Close }
    }
}

impl Downstream {
    /// A connection with what was read of it so far.
    pub fn new(stream: TcpStream, buffer: BytesMut, path: Arc<Path>, connection: Connection) -> Self {
        let connection = Arc::new(connection);
        Self { stream, buffer, scanned: 0, path, connection }
    }

    /// Serves requests until the connection ends.
    pub async fn serve(mut self) {
        loop {
            match self.next().await {
                Next::Request(request) => match self.serve_one(&request).await {
                    After::Stay => {}
                    After::Close => return self.close().await,
                    After::Reset => return reset(self.stream),
                    After::Relay(upstream) => return self.relay_to(upstream).await,
                },
                Next::Reject(why) => {
                    self.path.counters.rejected_malformed.incr();
                    self.path.counters.record(Outcome::Error);
                    tracing::debug!(why, "rejected");
                    // A client that is gone needs no answer.
                    let _ = write::own(Own::BadRequest(why), Persistence::Closes, &self.stream).await;
                    return self.close().await;
                }
                Next::Relay(kind) => return self.relay(kind).await,
                Next::End => return,
            }
        }
    }

    async fn serve_one(&mut self, request: &RequestHead) -> After {
        let path = self.path.clone();
        let may_stay = matches!(path.routes.find(), Route::Cache(_));
        let persistence = Persistence::of(request, may_stay);
        let body = RequestBody::new(&self.stream, &mut self.buffer, request.framing);
        let response = match path.serve(request, body, &self.connection).await {
            Ok(response) => response,
            Err(error) => return failed(&path, &error, &self.stream).await,
        };
        path.counters.record(Path::outcome(&response));
        match response {
            Response::Stored(stored) => {
                let persistence = stored.persistence(persistence);
                let sent = write::stored(&stored, persistence, &path.counters, &self.stream).await;
                let _is_hot = sent.is_ok() && path.promote(request, &self.connection, &stored, persistence);
                After::answered(sent, persistence)
            }
            Response::Shared(shared) => match write::shared(*shared, request, persistence, &path).await {
                Ok(true) => After::Stay,
                Ok(false) => After::Close,
                Err(error) => broken_off(&path, &error),
            },
            Response::Own(answer) => {
                After::answered(write::own(answer, persistence, &self.stream).await, persistence)
            }
            Response::Opaque(exchange) => exchange.into_upstream().map_or(After::Reset, After::Relay),
            Response::Forwarded(forwarded) => {
                match write::forwarded(*forwarded, request, persistence, &path.counters).await {
                    Ok(sent) => {
                        if let Some(upstream) = sent.upstream {
                            path.pool.put(self.connection.pool_key(), self.connection.id, upstream);
                        }
                        if sent.may_stay { After::Stay } else { After::Close }
                    }
                    Err(error) => broken_off(&path, &error),
                }
            }
        }
    }

    /// Closes in good order: what the client still sends is read and thrown away for a moment, since closing with
    /// unread bytes would reset the connection and could take the answer with it (RFC 9112 §9.6).
    async fn close(mut self) {
        relay::linger(&self.stream, &mut self.buffer).await;
    }
}

/// What an answer that was not sent whole means for its connection.
fn broken_off(path: &Path, error: &write::SendError) -> After {
    match error {
        write::SendError::Client => After::Reset,
        write::SendError::Upstream { error, needs_reset } => {
            tracing::debug!(%error, "answer broke off");
            path.counters.answers_broken_off.incr();
            if *needs_reset { After::Reset } else { After::Close }
        }
    }
}

/// What a request without an answer means for its connection: what the client would have seen without us.
async fn failed(path: &Path, error: &ForwardError, client: &TcpStream) -> After {
    tracing::debug!(%error, "no answer");
    match error {
        ForwardError::BadContent(_) => {
            path.counters.rejected_malformed.incr();
            path.counters.record(Outcome::Error);
            // A client that is gone needs no answer.
            let _ = write::own(Own::BadRequest("chunk"), Persistence::Closes, client).await;
            After::Close
        }
        ForwardError::ClientGone => {
            path.counters.record(Outcome::Uncacheable);
            After::Reset
        }
        ForwardError::Closed => {
            path.counters.record(Outcome::Error);
            After::Close
        }
        ForwardError::Dial(_) | ForwardError::Broken(_) => {
            path.counters.record(Outcome::Error);
            After::Reset
        }
    }
}
