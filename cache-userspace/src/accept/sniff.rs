//! The first bytes of a redirected connection decide what it is: HTTP/1, which is served, or something else, which is
//! relayed untouched and from then on left alone by the kernel. Silence decides nothing.

use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::netns::reset;
use crate::downstream::{Downstream, relay::relay};
use crate::forward::Upstream;
use crate::http1::scan::{Protocol, protocol};
use crate::request::{Connection, Path};
use crate::stream::{READ_BYTES, read_more, shutdown_write};

/// The longest request line that is waited for: as long as a head may be.
const FIRST_READ_BYTES: usize = 8 * 1024;

enum First {
    Http,
    Opaque,
    /// Bytes that could become a request line, and then nothing for a while.
    Stalled,
    /// Nothing at all for a while.
    Silent,
    /// The client ended its side before it said anything.
    End,
    /// The client's connection broke.
    Broken,
}

/// Serves one redirected connection from its first byte on.
pub async fn serve(stream: TcpStream, path: Arc<Path>, connection: Connection) {
    let mut buffer = BytesMut::new();
    let accepted = Instant::now();
    let first = match listen(&stream, &mut buffer, &path, accepted + path.limits.sniff_silence).await {
        First::Silent => return silent(stream, buffer, path, connection).await,
        first => first,
    };
    match first {
        First::Http => Downstream::new(stream, buffer, path, connection).serve().await,
        First::Opaque => {
            teach(&path, &connection);
            pass(stream, buffer, &path, &connection).await;
        }
        First::Stalled => {
            path.counters.passthrough_opaque.incr();
            pass(stream, buffer, &path, &connection).await;
        }
        First::Broken => {}
        // The kernel has answered all that it said.
        First::End if has_had_hits(&connection) => {}
        // It said nothing and has nothing more to say: the other side sees that too, and may answer.
        First::Silent | First::End => pass(stream, buffer, &path, &connection).await,
    }
}

/// Reads until the first bytes say what they are, for as long as `silence` where nothing comes.
async fn listen(stream: &TcpStream, buffer: &mut BytesMut, path: &Path, silence: Instant) -> First {
    let stall = Instant::now() + path.limits.sniff_timeout;
    loop {
        match protocol(buffer, path.limits.head_bytes_max) {
            Protocol::Http1 => return First::Http,
            Protocol::Opaque => return First::Opaque,
            Protocol::Undecided => {}
        }
        let until = if buffer.is_empty() { silence } else { stall };
        match timeout_at(until, read_more(stream, buffer, FIRST_READ_BYTES)).await {
            Ok(Ok(0)) if buffer.is_empty() => return First::End,
            Ok(Ok(0)) => return First::Stalled,
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return First::Broken,
            Err(_) if buffer.is_empty() => return First::Silent,
            // A long request line on a slow path is still a request; only what is no request at all stalls.
            Err(_) if buffer.contains(&b' ') => return First::Http,
            Err(_) => return First::Stalled,
        }
    }
}

/// A client that says nothing may be waiting for the other side: ask there, as the connection would have without us,
/// and let whoever speaks first decide.
async fn silent(stream: TcpStream, mut buffer: BytesMut, path: Arc<Path>, connection: Connection) {
    if has_had_hits(&connection) {
        return Downstream::new(stream, buffer, path, connection).serve().await;
    }
    let mut upstream = match path.dial(&connection).await {
        Ok(upstream) => upstream,
        Err(_) => return reset(stream),
    };
    tokio::select! {
        biased;
        from_client = read_more(&stream, &mut buffer, FIRST_READ_BYTES) => match from_client {
            Ok(0) => {
                // Mirrors the client's end; what the origin still says is the client's.
                shutdown_write(&upstream.stream);
                relay(stream, buffer, upstream).await;
            }
            Ok(_) => spoke(stream, buffer, path, connection, upstream).await,
            Err(_) => {}
        },
        from_server = read_more(&upstream.stream, &mut upstream.buffer, READ_BYTES) => match from_server {
            // Meant for a silent client, which this one is not.
            _ if ends_with_hits(&connection) => {
                Downstream::new(stream, buffer, path, connection).serve().await;
            }
            // An origin that closes idle connections does it to us instead of the client: pass it on.
            Ok(0) => relay(stream, buffer, upstream).await,
            Ok(_) => {
                // A server of HTTP that gives up on a silent client may say so (408) before it closes.
                if !upstream.buffer.starts_with(b"HTTP/1.") {
                    teach(&path, &connection);
                }
                relay(stream, buffer, upstream).await;
            }
            Err(_) => reset(stream),
        },
    }
}

/// Whether the client did speak, and the kernel answered: it speaks HTTP then.
fn has_had_hits(connection: &Connection) -> bool {
    connection.enrolled.as_ref().is_some_and(|enrolled| enrolled.last_hit().is_some())
}

/// The same; if not, there will be none: whatever the server said is passed on.
fn ends_with_hits(connection: &Connection) -> bool {
    let Some(enrolled) = &connection.enrolled else { return false };
    // Said first: an answer that comes in between is seen.
    enrolled.forbid();
    let has_had = enrolled.last_hit().is_some();
    if has_had {
        enrolled.permit();
    }
    has_had
}

/// The client spoke after all, and an untouched upstream connection is at hand.
async fn spoke(
    stream: TcpStream,
    mut buffer: BytesMut,
    path: Arc<Path>,
    connection: Connection,
    upstream: Upstream,
) {
    match listen(&stream, &mut buffer, &path, Instant::now() + path.limits.sniff_timeout).await {
        First::Http => {
            path.pool.put(connection.pool_key(), connection.id, upstream);
            Downstream::new(stream, buffer, path, connection).serve().await;
        }
        First::Opaque => {
            teach(&path, &connection);
            relay(stream, buffer, upstream).await;
        }
        First::Broken => {}
        First::Stalled | First::Silent | First::End => {
            path.counters.passthrough_opaque.incr();
            relay(stream, buffer, upstream).await;
        }
    }
}

fn teach(path: &Path, connection: &Connection) {
    path.counters.passthrough_opaque.incr();
    path.counters.bypass_taught.incr();
    let lasts = path.bypass.opaque(connection.workload.id, connection.destination);
    tracing::debug!(destination = %connection.destination, ?lasts, "opaque destination is left alone");
}

async fn pass(stream: TcpStream, buffer: BytesMut, path: &Path, connection: &Connection) {
    match path.dial(connection).await {
        Ok(upstream) => relay(stream, buffer, upstream).await,
        Err(_) => reset(stream),
    }
}
