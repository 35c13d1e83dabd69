//! Sends an answer to the client: a stored one at once, a forwarded one as it comes, never more of it in memory than
//! the client's pace leaves waiting.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{
    Forwarded, Own, Part, Persistence, Reused, Role, SharedResponse, StoredResponse, client_framing,
    forwarded_head, not_modified_head, own_answer, reuse_fields, shared_head,
};
use crate::admin::Counters;
use crate::forward::{ForwardError, RequestBody, Upstream};
use crate::http1::{Framing, RequestHead, encode};
use crate::policy::Reason;
use crate::request::{Body, Follow, Path, is_reset};
use crate::stream::WriteQueue;

/// How many bytes may wait for the client before upstream is read on.
const WAITING_BYTES_MAX: usize = 256 * 1024;
/// How long a client may take nothing while others wait for it.
const STRAGGLER_PATIENCE: Duration = Duration::from_secs(60);

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

/// A stored response, or a part of it, to be sent.
pub fn stored(response: &StoredResponse, persistence: Persistence, counters: &Counters) -> WriteQueue {
    let StoredResponse { entry, age, part, reused, .. } = response;
    let mut queue = WriteQueue::default();
    queue.push(match part {
        Part::NotModified => not_modified_head(&entry.stored),
        Part::Ranges(partial) => partial.head.clone(),
        Part::Whole | Part::Head => entry.head.clone(),
    });
    queue.push(reuse_fields(&entry.stored, *age, *reused, persistence).freeze());
    let head_bytes = queue.len();
    match part {
        Part::Whole => entry.body.iter().for_each(|segment| queue.push(segment.clone())),
        Part::Ranges(partial) => {
            let first = entry.stored.part.map_or(0, |part| part.first);
            partial.content(&entry.body, first).for_each(|piece| queue.push(piece));
        }
        Part::Head | Part::NotModified => {}
    }
    counters.bytes_from_cache.add((queue.len() - head_bytes) as u64);
    queue
}

/// Sends an answer that is being recorded, as it comes, and moves it where this client caused it. Without this client
/// it goes on in the background.
///
/// Returns whether the client's connection may stay open.
///
/// # Errors
/// `SendError`; the client's connection is of no further use then.
pub async fn shared(
    response: SharedResponse<'_>,
    request: &RequestHead,
    persistence: Persistence,
    path: &Path,
) -> Result<bool, SendError> {
    let SharedResponse { follow, role, is_not_modified, mut body, pump } = response;
    let follow = follow.ok_or(SendError::Client)?;
    let Some(pump) = pump else {
        return read_along(follow, role, is_not_modified, &mut body, request, persistence, &path.counters)
            .await;
    };
    let shared = pump.shared();
    let mut moved = Some(Box::pin(pump.run()));
    let reading = read_along(follow, role, is_not_modified, &mut body, request, persistence, &path.counters);
    tokio::pin!(reading);
    loop {
        tokio::select! {
            // The store first: the client's next request finds the answer there.
            biased;
            () = async { if let Some(moving) = &mut moved { moving.await } }, if moved.is_some() => moved = None,
            sent = &mut reading => {
                if let Some(moving) = moved {
                    shared.detach();
                    // Where there is no room in the background: here, while anybody reads along.
                    if let Some(moving) = path.background.run(moving) && shared.has_readers() {
                        moving.await;
                    }
                }
                return sent;
            }
        }
    }
}

async fn read_along(
    mut follow: Follow,
    role: Role,
    is_not_modified: bool,
    body: &mut RequestBody<'_>,
    request: &RequestHead,
    persistence: Persistence,
    counters: &Counters,
) -> Result<bool, SendError> {
    let client = body.stream().ok_or(SendError::Client)?;
    let answer = follow.shared().clone();
    let mut queue = WriteQueue::default();
    if let (true, Role::Follower(miss, age)) = (is_not_modified, role) {
        queue.push(not_modified_head(&answer.stored));
        let reused = Reused::Collapsed { miss, status: answer.head.status };
        queue.push(reuse_fields(&answer.stored, age, reused, persistence).freeze());
        // It reads nothing: nobody is to wait for it.
        drop(follow);
        queue.flush(client).await.map_err(|_| SendError::Client)?;
        return Ok(persistence != Persistence::Closes);
    }
    let framing = client_framing(&answer.head, request);
    let persistence = if framing == Framing::UntilClose { Persistence::Closes } else { persistence };
    let mut head = BytesMut::with_capacity(answer.head.raw.len() + 128);
    shared_head(&answer, role, framing, persistence, &mut head);
    queue.push(head.freeze());
    loop {
        let piece = match follow.ready(WAITING_BYTES_MAX) {
            Some(piece) => piece,
            None => {
                flush(&mut queue, client, &follow, counters).await?;
                tokio::select! {
                    piece = follow.next(WAITING_BYTES_MAX) => piece,
                    () = body.gone() => return Err(SendError::Client),
                }
            }
        };
        match piece {
            Body::Data(data) => {
                if matches!(role, Role::Follower(..)) {
                    counters.bytes_from_cache.add(data.len() as u64);
                }
                push(&mut queue, data, framing);
                if queue.len() >= WAITING_BYTES_MAX {
                    flush(&mut queue, client, &follow, counters).await?;
                }
            }
            Body::End => break,
            Body::Failed { needs_reset } => {
                // What came before the fault is the client's all the same.
                flush(&mut queue, client, &follow, counters).await?;
                let needs_reset = needs_reset || framing == Framing::UntilClose;
                return Err(SendError::Upstream { error: ForwardError::Closed, needs_reset });
            }
        }
    }
    if framing == Framing::Chunked {
        let trailers = answer.trailers().filter(|_| encode::accepts_trailers(request));
        queue.push(encode::chunked_end(trailers));
    }
    queue.flush(client).await.map_err(|_| SendError::Client)?;
    Ok(persistence != Persistence::Closes)
}

/// Writes what waits for the client. One that takes nothing while others have to wait for it is given up after a time
/// that usual servers grant as well.
async fn flush(
    queue: &mut WriteQueue,
    client: &TcpStream,
    follow: &Follow,
    counters: &Counters,
) -> Result<(), SendError> {
    while !queue.is_empty() {
        match timeout(STRAGGLER_PATIENCE, queue.write_some(client)).await {
            Ok(written) => written.map_err(|_| SendError::Client)?,
            Err(_) if follow.holds_others_up() => {
                counters.stragglers_dropped.incr();
                return Err(SendError::Client);
            }
            Err(_) => {}
        }
    }
    Ok(())
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

/// Sends the origin's answer to the only client that gets it.
///
/// # Errors
/// `SendError`; the client's connection is of no further use then.
pub async fn forwarded(
    response: Forwarded<'_>,
    request: &RequestHead,
    persistence: Persistence,
    counters: &Counters,
) -> Result<Sent, SendError> {
    let Forwarded { head, mut exchange, status } = response;
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
    if framing == Framing::Chunked {
        let trailers = exchange.trailers().filter(|_| encode::accepts_trailers(request));
        queue.push(encode::chunked_end(trailers));
    }
    exchange.deliver(&mut queue).await.map_err(broken)?;
    let may_stay = exchange.finish_upload(persistence == Persistence::Closes).await;
    Ok(Sent { upstream: exchange.into_reusable(), may_stay })
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

/// Counts a response that was to be stored and was not.
pub fn not_stored(reason: Reason, counters: &Counters) {
    counters.not_stored.incr();
    counters.reasons.not_stored(reason);
    if reason == Reason::StoreFull {
        counters.store_full.incr();
    }
    tracing::debug!(reason = reason.as_str(), "not stored");
}
