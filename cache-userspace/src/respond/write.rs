//! Sends an answer to the client: a stored one at once, a forwarded one as it comes, never more of it in memory than
//! the client's pace leaves waiting.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use super::{
    Forwarded, Own, Persistence, client_framing, forwarded_head, hit_fields, not_modified_head, own_answer,
    stored_head,
};
use crate::admin::Counters;
use crate::forward::{ForwardError, Upstream};
use crate::http1::body::BodyFault;
use crate::http1::{Framing, RequestHead, encode};
use crate::policy::Reason;
use crate::store::{Entry, Recording};
use crate::stream::WriteQueue;

/// How many bytes may wait for the client before upstream is read on.
const WAITING_BYTES_MAX: usize = 256 * 1024;

/// What a forwarded answer left behind.
pub struct Sent {
    /// The upstream connection, where it may serve another request.
    pub upstream: Option<Upstream>,
    /// Whether the client's connection may stay open.
    pub may_stay: bool,
}

/// Why an answer was not sent whole.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The client went away.
    #[error("the client went away")]
    Client,
    /// Upstream broke off.
    #[error("the answer broke off: {error}")]
    Upstream {
        /// How.
        #[source]
        error: ForwardError,
        /// Whether the client can only learn it from a reset.
        needs_reset: bool,
    },
}

/// What of a stored response is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredPart {
    /// All of it.
    Whole,
    /// Its head, to a HEAD request.
    Head,
    /// A 304, to a client that has it already.
    NotModified,
}

/// Sends a stored response, or a part of it.
///
/// # Errors
/// Those of send(2).
pub async fn stored(
    entry: &Entry,
    age: std::time::Duration,
    persistence: Persistence,
    part: StoredPart,
    client: &TcpStream,
) -> io::Result<()> {
    let mut queue = WriteQueue::default();
    queue.push(match part {
        StoredPart::NotModified => not_modified_head(&entry.stored),
        StoredPart::Whole | StoredPart::Head => entry.head.clone(),
    });
    queue.push(hit_fields(age, persistence).freeze());
    if part == StoredPart::Whole {
        for segment in &entry.body {
            queue.push(segment.clone());
        }
    }
    queue.flush(client).await
}

/// Sends an answer of ours.
///
/// # Errors
/// Those of send(2).
pub async fn own(answer: Own, persistence: Persistence, client: &TcpStream) -> io::Result<()> {
    let mut queue = WriteQueue::default();
    queue.push(own_answer(answer, persistence));
    queue.flush(client).await
}

/// Sends the origin's answer, recording it on the way where it is to be stored.
///
/// # Errors
/// `SendError`; the client's connection is of no further use then.
pub async fn forwarded(
    response: Forwarded<'_>,
    request: &RequestHead,
    persistence: Persistence,
    counters: &Counters,
) -> Result<Sent, SendError> {
    let Forwarded { head, mut exchange, status, mut recording } = response;
    let framing = client_framing(&head, request);
    let persistence = if framing == Framing::UntilClose { Persistence::Closes } else { persistence };
    let mut out = BytesMut::with_capacity(head.raw.len() + 128);
    forwarded_head(&head, framing, status, persistence, &mut out);
    let mut queue = WriteQueue::default();
    queue.push(out.freeze());
    let broken = |error: ForwardError| match error {
        ForwardError::ClientGone => SendError::Client,
        error => SendError::Upstream {
            // An ordinary close would make a whole answer of this part of one.
            needs_reset: is_reset(&error) || framing == Framing::UntilClose,
            error,
        },
    };
    loop {
        loop {
            let data = match exchange.buffered() {
                Ok(Some(data)) => data,
                Ok(None) => break,
                Err(error) => {
                    // What came before the fault is the client's all the same.
                    let _ = exchange.deliver(&mut queue).await;
                    return Err(broken(error));
                }
            };
            counters.bytes_from_origin.add(data.len() as u64);
            record(&mut recording, &data, counters);
            push(&mut queue, data, framing);
            if queue.len() >= WAITING_BYTES_MAX {
                exchange.deliver(&mut queue).await.map_err(broken)?;
            }
        }
        if exchange.is_done() {
            break;
        }
        exchange.deliver(&mut queue).await.map_err(broken)?;
        exchange.more().await.map_err(broken)?;
    }
    // Stored before the last bytes leave: the client's next request finds it.
    match (recording, exchange.trailers()) {
        (Some(recording), None) => finish(recording, &head.reason, counters),
        (Some(_), Some(_)) => not_stored(Reason::Trailers, counters),
        (None, _) => {}
    }
    if framing == Framing::Chunked {
        let trailers = exchange.trailers().filter(|_| encode::accepts_trailers(request));
        queue.push(encode::chunked_end(trailers));
    }
    exchange.deliver(&mut queue).await.map_err(broken)?;
    let may_stay = exchange.finish_upload(persistence == Persistence::Closes).await;
    Ok(Sent { upstream: exchange.into_reusable(), may_stay })
}

fn is_reset(error: &ForwardError) -> bool {
    let ForwardError::Broken(error) = error else { return false };
    error.get_ref().is_none_or(|inner| !inner.is::<BodyFault>())
}

fn push(queue: &mut WriteQueue, data: Bytes, framing: Framing) {
    if framing == Framing::Chunked {
        queue.push(encode::chunk_start(data.len()));
        queue.push(data);
        queue.push(Bytes::from_static(b"\r\n"));
    } else {
        queue.push(data);
    }
}

fn record(recording: &mut Option<Recording>, data: &[u8], counters: &Counters) {
    if let Some(Err(reason)) = recording.as_mut().map(|recording| recording.append(data)) {
        *recording = None;
        not_stored(reason, counters);
    }
}

fn finish(recording: Recording, reason: &[u8], counters: &Counters) {
    match recording.finish(|stored, bytes| stored_head(stored, reason, bytes)) {
        Ok(_) => counters.stored.incr(),
        Err(reason) => not_stored(reason, counters),
    }
}

/// Counts a response that was to be stored and was not.
pub fn not_stored(reason: Reason, counters: &Counters) {
    counters.not_stored.incr();
    if reason == Reason::StoreFull {
        counters.store_full.incr();
    }
    tracing::debug!(reason = reason.as_str(), "not stored");
}
