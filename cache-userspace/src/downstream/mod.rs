//! The client's connection: our own HTTP/1, since a cache that answers in the kernel has to know where each message
//! ends. Takes requests off it in order, serves them by the path, and relays what is not for us to understand.

mod next;
pub mod relay;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use next::Next;
use tokio::net::TcpStream;

use crate::accept::netns::reset;
use crate::admin::Outcome;
use crate::forward::{ForwardError, RequestBody, Upstream};
use crate::http1::RequestHead;
use crate::redirect::enrolled::Enrolled;
use crate::request::{Connection, Path};
use crate::respond::{Own, Persistence, Response, write};

/// A redirected connection whose first bytes are HTTP/1.
pub struct Downstream {
    stream: TcpStream,
    buffer: BytesMut,
    scanned: usize,
    path: Arc<Path>,
    connection: Arc<Connection>,
    /// Answers that the kernel could have given, had the client's socket been enrolled.
    resident_hits: u32,
}

/// After so many answers that the kernel could have given, a connection that was made too early for that ends: the
/// client's next one is enrolled.
const RESIDENT_HITS_MAX: u32 = 100;
/// How long a client has to read an answer of the kernel before the next one, by TCP, follows: longer than a container
/// at its CPU limit stands still (a period of 100 ms). Once a connection, and only of a client that pipelines.
const UNREAD_HIT_PATIENCE: Duration = Duration::from_millis(200);

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
        Self { stream, buffer, scanned: 0, path, connection, resident_hits: 0 }
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
                    let_read(&self.connection).await;
                    self.path.counters.rejected_malformed.incr();
                    self.path.counters.record(Outcome::Error);
                    tracing::debug!(why, "rejected");
                    // A client that is gone needs no answer.
                    let _ = write::own(Own::BadRequest(why), Persistence::Closes, &self.stream).await;
                    return self.close().await;
                }
                Next::Relay(kind) => {
                    let_read(&self.connection).await;
                    writes(&self.connection, None);
                    return self.relay(kind).await;
                }
                Next::End => return,
            }
        }
    }

    /// Everything up to here is answered, once the client has read so many bytes more than were written to it: the
    /// kernel may answer what comes next.
    fn publish(&self, unwritten: usize) {
        if let Some(enrolled) = &self.connection.enrolled {
            enrolled.all_answered(&self.stream, self.buffer.len(), unwritten);
        }
    }

    /// How the connection goes on where it could stay.
    fn renewed(&self, persistence: Persistence) -> Persistence {
        let has_left = self.connection.enrolled.as_ref().is_some_and(Enrolled::has_left);
        let is_due = self.resident_hits >= RESIDENT_HITS_MAX && (self.connection.may_be_enrolled || has_left);
        // What the client has sent already would be lost.
        if !is_due || !self.buffer.is_empty() {
            return persistence;
        }
        self.path.counters.connections_renewed.incr();
        Persistence::Closes
    }

    fn stay(&self) -> After {
        self.publish(0);
        After::Stay
    }

    async fn serve_one(&mut self, request: &RequestHead) -> After {
        let (path, connection) = (self.path.clone(), self.connection.clone());
        let persistence =
            Persistence::of(request, path.routes.lets_stay() && !self.connection.workload.has_ended());
        let body = RequestBody::new(&self.stream, &mut self.buffer, request.framing);
        let served = path.serve(request, body, &self.connection).await;
        let_read(&self.connection).await;
        let response = match served {
            Ok(response) => response,
            Err(error) => return failed(&path, &error, &self.stream).await,
        };
        path.counters.record(Path::outcome(&response));
        match response {
            Response::Stored(stored) => {
                let persistence = stored.persistence(persistence);
                let persistence = self.renewed(persistence);
                let mut answer = write::stored(&stored, persistence, &path.counters);
                writes(&connection, Some(answer.len() as u64));
                // Before it is written: a client may have read it, and ask again, before the write is over.
                if persistence != Persistence::Closes {
                    self.publish(answer.len());
                }
                let sent = answer.flush(&self.stream).await;
                if sent.is_ok() && path.promote(request, &self.connection, &stored, persistence) {
                    self.resident_hits += 1;
                }
                After::answered(sent, persistence)
            }
            Response::Shared(shared) => {
                writes(&connection, shared.bytes());
                match write::shared(*shared, request, persistence, &path).await {
                    Ok(true) => self.stay(),
                    Ok(false) => After::Close,
                    Err(error) => broken_off(&path, &error),
                }
            }
            Response::Own(answer) => {
                match After::answered(write::own(answer, persistence, &self.stream).await, persistence) {
                    After::Stay => self.stay(),
                    after => after,
                }
            }
            Response::Opaque(exchange) => {
                writes(&connection, None);
                exchange.into_upstream().map_or(After::Reset, After::Relay)
            }
            Response::Forwarded(forwarded) => {
                writes(&connection, forwarded.bytes(request));
                match write::forwarded(*forwarded, request, persistence, &path.counters).await {
                    Ok(sent) => {
                        if let Some(upstream) = sent.upstream {
                            path.pool.put(self.connection.pool_key(), self.connection.id, upstream);
                        }
                        if sent.may_stay { self.stay() } else { After::Close }
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

/// Waits once where the client sent a request while an answer of the kernel was unread. A reader that waits for edges
/// reads that answer and, finding fewer bytes than it asked for, waits for the next edge: it must come later.
async fn let_read(connection: &Connection) {
    if connection.enrolled.as_ref().is_some_and(Enrolled::has_begun_to_pipeline) {
        tokio::time::sleep(UNREAD_HIT_PATIENCE).await;
    }
}

/// An answer of so many bytes, where that is known, is about to be written.
fn writes(connection: &Connection, bytes: Option<u64>) {
    if let Some(enrolled) = &connection.enrolled {
        enrolled.writes(bytes);
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
