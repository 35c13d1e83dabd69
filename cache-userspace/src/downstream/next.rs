//! The next message of a client: a request to serve, one to refuse, or something to relay untouched.

use bytes::BytesMut;
use tokio::time::{Instant, timeout_at};

use super::Downstream;
use crate::http1::head::put_back;
use crate::http1::{Parsed, RequestHead, Version};
use crate::stream::{READ_BYTES, read_message};

/// How much one read for a head brings, bytes: small, since most connections are idle most of the time.
const HEAD_READ_BYTES: usize = 8 * 1024;

/// What comes next.
pub(super) enum Next {
    /// A request.
    Request(RequestHead),
    /// A request that two readers could understand differently.
    Reject(&'static str),
    /// Something to relay.
    Relay(Relay),
    /// Nothing more.
    End,
}

/// Until when is waited: for the end of a head that has begun, for the beginning of one.
struct Waits {
    head: Option<Instant>,
    idle: Instant,
}

/// Why a connection is relayed from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relay {
    /// The client speaks to a proxy: absolute-form, `OPTIONS *` (RFC 9112 §3.2). Its destination is left alone.
    ProxyForm,
    /// CONNECT, WebSocket, any other Upgrade but h2c: this connection only.
    Tunnel,
    /// Not well-formed, or not understood: this connection only.
    Malformed(&'static str),
}

impl Downstream {
    /// Waits for the next message.
    pub(super) async fn next(&mut self) -> Next {
        let mut waits = Waits { head: None, idle: Instant::now() + self.path.limits.downstream_idle };
        loop {
            match self.parse() {
                Parsed::Complete(request) => return self.classify(request),
                Parsed::Ambiguous(why) => return Next::Reject(why),
                Parsed::Malformed(why) => return self.malformed(why),
                Parsed::Partial => {
                    if let Some(end) = self.read(&mut waits).await {
                        return end;
                    }
                }
            }
        }
    }

    fn malformed(&self, why: &'static str) -> Next {
        if self.path.is_strict { Next::Reject(why) } else { Next::Relay(Relay::Malformed(why)) }
    }

    fn parse(&mut self) -> Parsed<RequestHead> {
        if self.buffer.is_empty() {
            return Parsed::Partial;
        }
        RequestHead::take(&mut self.buffer, &mut self.scanned, self.path.limits.head_bytes_max)
    }

    /// Reads more; says what it means when there is no more.
    async fn read(&mut self, waits: &mut Waits) -> Option<Next> {
        let limits = &self.path.limits;
        let is_idle = self.buffer.is_empty();
        let (until, bytes) = if is_idle {
            (waits.idle, HEAD_READ_BYTES)
        } else {
            (*waits.head.get_or_insert_with(|| Instant::now() + limits.head_read_timeout), READ_BYTES)
        };
        if is_idle {
            // An idle connection keeps no buffer.
            self.buffer = BytesMut::new();
        }
        match timeout_at(until, read_message(&self.stream, &mut self.buffer, bytes)).await {
            Ok(Ok(count)) if count > 0 => None,
            Ok(Err(_)) => Some(Next::End),
            Err(_) if is_idle => match self.busy_until() {
                Some(later) => {
                    waits.idle = later;
                    None
                }
                None => Some(Next::End),
            },
            _ if is_idle => Some(Next::End),
            // A head that does not end: the origin may make of it what it likes.
            Ok(Ok(_)) => Some(self.malformed("truncated-head")),
            Err(_) => Some(self.malformed("slow-head")),
        }
    }

    /// Until when a connection is not idle on which the kernel has answered lately; where it has not, it will not any
    /// more.
    fn busy_until(&self) -> Option<Instant> {
        let idle = self.path.limits.downstream_idle;
        let enrolled = self.connection.enrolled.as_ref()?;
        // Said first: an answer that comes in between is seen.
        enrolled.forbid();
        let left = idle.checked_sub(enrolled.since_last_hit()?).filter(|left| !left.is_zero())?;
        enrolled.permit();
        Some(Instant::now() + left)
    }

    fn classify(&mut self, request: RequestHead) -> Next {
        match relay_of(&request) {
            None => Next::Request(request),
            Some(Relay::Malformed(why)) if self.path.is_strict => Next::Reject(why),
            Some(relay) => {
                put_back(&mut self.buffer, &request.raw);
                Next::Relay(relay)
            }
        }
    }
}

fn relay_of(request: &RequestHead) -> Option<Relay> {
    if &request.method[..] == b"CONNECT" {
        return Some(Relay::Tunnel);
    }
    if request.target.first() != Some(&b'/') {
        return Some(Relay::ProxyForm);
    }
    // Java's HttpClient asks for h2c on every request: that is dropped like any hop-by-hop field.
    let wants_other = request.fields.tokens("upgrade").any(|protocol| !protocol.eq_ignore_ascii_case(b"h2c"));
    if wants_other && request.has_option("upgrade") && request.version == Version::Http11 {
        return Some(Relay::Tunnel);
    }
    // Forwarded as HTTP/1.1 it would lack what RFC 9112 §3.2 demands; untouched it is the origin's to judge.
    if !request.fields.contains("host") {
        return Some(Relay::Malformed("no-host"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_for_us_is_told_from_requests() {
        for (bytes, relay) in [
            (&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], None),
            (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Some(Relay::Tunnel)),
            (b"GET http://b/ HTTP/1.1\r\nHost: b\r\n\r\n", Some(Relay::ProxyForm)),
            (b"OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n", Some(Relay::ProxyForm)),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
                Some(Relay::Tunnel),
            ),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n",
                None,
            ),
            (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", None),
            (b"GET / HTTP/1.0\r\n\r\n", Some(Relay::Malformed("no-host"))),
        ] {
            let Parsed::Complete(request) = RequestHead::take(&mut BytesMut::from(bytes), &mut 0, 4096)
            else {
                panic!()
            };
            assert_eq!(relay_of(&request), relay, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
