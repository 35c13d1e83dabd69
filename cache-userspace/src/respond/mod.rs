//! Answers as bytes: heads of stored, forwarded and own responses, each with its `Cache-Status` (RFC 9211).
//!
//! Which answer it is, is decided before; sending it is left to `write`.

pub mod image;
pub mod parts;
pub mod write;

use std::fmt::Write;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};

use crate::forward::{Exchange, RequestBody};
use crate::http1::{Framing, RequestHead, ResponseHead, Version, encode};
use crate::policy::range::Plan;
use crate::policy::{self, Cause, Miss, Now, RequestView, Stored, is_kept_in_not_modified};
use crate::request::{Follow, Pump, Shared};
use crate::store::Entry;
use parts::{Boundary, Partial};

/// What a client gets.
pub enum Response<'a> {
    /// A stored response (RFC 9111 §4).
    Stored(StoredResponse),
    /// The origin's answer, while it is being recorded.
    Shared(Box<SharedResponse<'a>>),
    /// An answer of ours, without content from elsewhere.
    Own(Own),
    /// The origin's answer, still coming, for this client only.
    Forwarded(Box<Forwarded<'a>>),
    /// Upstream speaks something else: both sides are relayed from here on.
    Opaque(Box<Exchange<'a>>),
}

/// A stored response as an answer.
pub struct StoredResponse {
    /// The stored response.
    pub entry: Arc<Entry>,
    /// Its current age (RFC 9111 §4.2.3).
    pub age: Duration,
    /// What of it is sent.
    pub part: Part,
    /// How it came to be the answer.
    pub reused: Reused,
    /// The key under which it was found, where the kernel might give it the next time.
    pub key: Option<Vec<u8>>,
}

/// What of a stored response is sent.
pub enum Part {
    /// All of it.
    Whole,
    /// Its head, to a HEAD request.
    Head,
    /// A 304: the client has it already (RFC 9111 §4.3.2).
    NotModified,
    /// The ranges that were asked for (RFC 9110 §15.3.7).
    Ranges(Box<Partial>),
}

/// How a stored response came to be the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reused {
    /// It is fresh.
    Hit,
    /// It is stale and being validated (RFC 5861 §3).
    StaleWhileRevalidate,
    /// The origin confirmed it for this request (RFC 9111 §4.3.3).
    Revalidated {
        /// Why the origin was asked.
        miss: Miss,
    },
    /// The origin confirmed or made it for another request.
    Collapsed {
        /// Why the origin was asked.
        miss: Miss,
        /// The status of its answer.
        status: u16,
    },
    /// It is stale and stands in for an answer that did not come (RFC 9111 §4.2.4, RFC 5861 §4).
    StaleInstead {
        /// Why the origin was asked.
        miss: Miss,
        /// What was wrong with its answer.
        cause: Cause,
    },
}

/// An answer that is being recorded, for one of those who read along.
pub struct SharedResponse<'a> {
    /// The place in it; none if it was gone before anybody could read.
    pub follow: Option<Follow>,
    /// Whether it is the answer to this client's request or to another's.
    pub role: Role,
    /// Whether the client has it already: then the answer is 304 (RFC 9111 §4.3.2).
    pub is_not_modified: bool,
    /// The client's side.
    pub body: RequestBody<'a>,
    /// What records the answer, where this client caused it.
    pub pump: Option<Box<Pump>>,
}

impl SharedResponse<'_> {
    /// How many bytes it has at most, where that is known before it has come.
    pub fn bytes(&self) -> Option<u64> {
        let head = &self.follow.as_ref()?.shared().head;
        bytes_of(head.raw.len(), head.framing)
    }
}

impl Forwarded<'_> {
    /// How many bytes it has at most, where that is known before it has come.
    pub fn bytes(&self, request: &RequestHead) -> Option<u64> {
        bytes_of(self.head.raw.len(), client_framing(&self.head, request))
    }
}

/// An answer's bytes, with what is added to its head.
fn bytes_of(head: usize, framing: Framing) -> Option<u64> {
    const ADDED_MAX: u64 = 256;
    let content = match framing {
        Framing::Empty => 0,
        Framing::Length(bytes) => bytes,
        Framing::Chunked | Framing::UntilClose => return None,
    };
    content.checked_add(head as u64 + ADDED_MAX)
}

/// Whose request an answer is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// This client's, which was forwarded for this reason.
    Leader(Miss),
    /// Another's; the answer has this age for a client who did not ask for it.
    Follower(Miss, Duration),
}

/// The origin's answer, for this client only.
pub struct Forwarded<'a> {
    /// Its head.
    pub head: ResponseHead,
    /// Where its content comes from.
    pub exchange: Exchange<'a>,
    /// Why it was forwarded.
    pub status: CacheStatus,
}

/// The few answers that we give ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// 400: the request's framing is ambiguous (RFC 9112 §6.3), or strictness was asked for.
    BadRequest(&'static str),
    /// 504: `only-if-cached` and nothing usable is stored (RFC 9111 §5.2.1.7), or the origin cannot be reached and
    /// what is stored must be validated (RFC 9111 §5.2.2.2).
    GatewayTimeout(&'static str),
}

/// Why a request was forwarded, and what became of the answer (RFC 9211 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// The `fwd` parameter.
    pub fwd: &'static str,
    /// The `fwd-status` parameter, where the client sees another one.
    pub fwd_status: Option<u16>,
    /// Whether the answer is being stored.
    pub stored: bool,
    /// Whether it is the answer to another's request.
    pub collapsed: bool,
    /// The remaining freshness lifetime, in seconds, where it is negative.
    pub ttl: Option<i64>,
    /// Why not, or why it was not looked up.
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    /// A request that was looked up and forwarded.
    pub fn of(miss: Miss) -> Self {
        Self { fwd: miss.as_str(), detail: miss.detail(), ..Self::default() }
    }

    fn append(self, out: &mut BytesMut) {
        out.put_slice(b"Cache-Status: sidestep; ");
        if self.fwd.is_empty() {
            out.put_slice(b"hit");
        } else {
            out.put_slice(b"fwd=");
            out.put_slice(self.fwd.as_bytes());
        }
        // Writing into memory does not fail.
        if let Some(status) = self.fwd_status {
            let _ = write!(out, "; fwd-status={status}");
        }
        if let Some(ttl) = self.ttl {
            let _ = write!(out, "; ttl={ttl}");
        }
        if self.stored {
            out.put_slice(b"; stored");
        }
        if self.collapsed {
            out.put_slice(b"; collapsed");
        }
        if let Some(detail) = self.detail {
            out.put_slice(b"; detail=");
            out.put_slice(detail.as_bytes());
        }
        out.put_slice(b"\r\n");
    }
}

impl<'a> Response<'a> {
    /// What of a stored response answers a request that policy lets it answer.
    pub fn stored(
        request: &RequestView<'_>,
        entry: Arc<Entry>,
        age: Duration,
        now: Now,
        reused: Reused,
    ) -> Self {
        let part = match request.method {
            _ if policy::is_not_modified(request, &entry.stored, now.wall) => Part::NotModified,
            b"HEAD" => Part::Head,
            _ => Part::of_ranges(request, &entry),
        };
        Self::Stored(StoredResponse { entry, age, part, reused, key: None })
    }

    /// The same, with the key under which it was found.
    pub fn found_under(self, key: Option<Vec<u8>>) -> Self {
        match self {
            Self::Stored(stored) => Self::Stored(StoredResponse { key, ..stored }),
            other => other,
        }
    }
}

/// What separates the parts of this process's multipart answers.
static BOUNDARY: LazyLock<Boundary> = LazyLock::new(|| {
    let random = || u128::from(RandomState::new().hash_one(0));
    Boundary::of(random() << 64 | random())
});

impl StoredResponse {
    /// How the connection goes on after it, where `persistence` is what the client asks for.
    pub fn persistence(&self, persistence: Persistence) -> Persistence {
        match self.part {
            // Only the close ends it.
            Part::Whole if self.entry.stored.is_coded => Persistence::Closes,
            _ => persistence,
        }
    }
}

impl Part {
    fn of_ranges(request: &RequestView<'_>, entry: &Entry) -> Self {
        let (plan, complete) = policy::ranges(request, &entry.stored, entry.body_bytes);
        let fields = &entry.stored.fields;
        match plan {
            Plan::One(span) => Self::Ranges(Box::new(Partial::single(fields, span, complete))),
            Plan::Many(spans) => {
                Self::Ranges(Box::new(Partial::multiple(fields, &spans, complete, &BOUNDARY)))
            }
            // Policy has the rest answered by the origin.
            Plan::Whole | Plan::Forward => Self::Whole,
        }
    }
}

impl Reused {
    /// The words for it (RFC 9211 §2).
    fn status(self, ttl: i64) -> CacheStatus {
        match self {
            Self::Hit => CacheStatus::default(),
            Self::StaleWhileRevalidate => CacheStatus {
                ttl: Some(ttl),
                detail: Some("stale-while-revalidate"),
                ..CacheStatus::default()
            },
            Self::Revalidated { miss: why } => CacheStatus { fwd_status: Some(304), ..CacheStatus::of(why) },
            Self::Collapsed { miss: why, status } => {
                CacheStatus { fwd_status: Some(status), collapsed: true, ..CacheStatus::of(why) }
            }
            Self::StaleInstead { miss: why, cause } => {
                let (fwd_status, detail) = match cause {
                    Cause::Error(status) => (Some(status), "stale-if-error"),
                    Cause::Disconnected => (None, "stale-on-disconnect"),
                    Cause::Late => (None, "stale-after"),
                };
                CacheStatus { fwd_status, ttl: Some(ttl), detail: Some(detail), ..CacheStatus::of(why) }
            }
        }
    }
}

/// How the connection to the client goes on after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// It stays; HTTP/1.1's default needs no word.
    Stays,
    /// It stays, and an HTTP/1.0 client must be told.
    StaysExplicitly,
    /// It is closed after this response.
    Closes,
}

impl Persistence {
    /// What the request asks for, where we are free to grant it.
    pub fn of(request: &RequestHead, may_stay: bool) -> Self {
        match (may_stay && request.wants_persistence(), request.version) {
            (false, _) => Self::Closes,
            (true, Version::Http10) => Self::StaysExplicitly,
            (true, Version::Http11) => Self::Stays,
        }
    }

    fn append(self, out: &mut BytesMut) {
        match self {
            Self::Stays => {}
            Self::StaysExplicitly => out.put_slice(b"Connection: keep-alive\r\n"),
            Self::Closes => out.put_slice(b"Connection: close\r\n"),
        }
    }
}

/// The part of a stored response's head that does not change from answer to answer: no `Age`, no empty line.
pub fn stored_head(stored: &Stored, reason: &[u8], content_bytes: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(512);
    encode::status_line(&mut out, stored.status, reason);
    for (name, value) in stored.fields.iter() {
        encode::field(&mut out, name, value);
    }
    // RFC 9110 §8.6: no Content-Length in a 204, nor (RFC 9112 §6.2) beside a transfer coding.
    if stored.status != 204 && !stored.is_coded && !stored.fields.contains("content-length") {
        // Writing into memory does not fail.
        let _ = write!(out, "Content-Length: {content_bytes}\r\n");
    }
    out.freeze()
}

/// The unchanging part of a 304 made of a stored response (RFC 9110 §15.4.5).
pub fn not_modified_head(stored: &Stored) -> Bytes {
    let mut out = BytesMut::with_capacity(256);
    encode::status_line(&mut out, 304, b"Not Modified");
    for (name, value) in stored.fields.iter().filter(|(name, _)| is_kept_in_not_modified(name)) {
        encode::field(&mut out, name, value);
    }
    out.freeze()
}

/// The reason phrase in a head that [`stored_head`] built.
pub fn reason_phrase(head: &Bytes) -> &[u8] {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    line.get("HTTP/1.1 200 ".len()..).unwrap_or_default()
}

/// The changing part of a stored response's head (RFC 9111 §5.1: `Age` is required on reuse).
pub fn reuse_fields(stored: &Stored, age: Duration, reused: Reused, persistence: Persistence) -> BytesMut {
    let ttl = stored.lifetime.as_secs() as i64 - age.as_secs() as i64;
    let mut out = BytesMut::with_capacity(128);
    // Writing into memory does not fail.
    let _ = write!(out, "{AGE}{}\r\n", age.as_secs());
    end_reuse_fields(&mut out, reused.status(ttl), persistence);
    out
}

/// What stands before the digits of an age.
const AGE: &str = "Age: ";

/// What stands behind the `Age` line.
fn end_reuse_fields(out: &mut BytesMut, status: CacheStatus, persistence: Persistence) {
    status.append(out);
    persistence.append(out);
    out.put_slice(b"\r\n");
}

/// The head of an answer that is being recorded, as one of its readers gets it; whoever did not ask for it himself
/// gets it as a stored response, with its age.
pub fn shared_head(
    shared: &Shared,
    role: Role,
    framing: Framing,
    persistence: Persistence,
    out: &mut BytesMut,
) {
    let (Role::Leader(miss) | Role::Follower(miss, _)) = role;
    let status = CacheStatus::of(miss);
    match role {
        Role::Leader(_) => {
            let status = CacheStatus { stored: true, ..status };
            forwarded_head(&shared.head, framing, status, persistence, out);
        }
        Role::Follower(_, age) => {
            encode::status_line(out, shared.stored.status, &shared.head.reason);
            for (name, value) in shared.stored.fields.iter() {
                encode::field(out, name, value);
            }
            if let Framing::Length(bytes) = framing
                && !shared.stored.fields.contains("content-length")
            {
                // Writing into memory does not fail.
                let _ = write!(out, "Content-Length: {bytes}\r\n");
            }
            let _ = write!(out, "Age: {}\r\n", age.as_secs());
            if framing == Framing::Chunked {
                out.put_slice(b"Transfer-Encoding: chunked\r\n");
            }
            CacheStatus { collapsed: true, ..status }.append(out);
            persistence.append(out);
            out.put_slice(b"\r\n");
        }
    }
}

/// How a forwarded response's content is framed for the client: an HTTP/1.0 client knows no chunks (RFC 9112 §6.1).
pub fn client_framing(head: &ResponseHead, request: &RequestHead) -> Framing {
    match head.framing {
        Framing::Chunked if request.version == Version::Http10 => Framing::UntilClose,
        framing => framing,
    }
}

/// The head of a forwarded response as the client gets it.
pub fn forwarded_head(
    head: &ResponseHead,
    framing: Framing,
    status: CacheStatus,
    persistence: Persistence,
    out: &mut BytesMut,
) {
    // What is added: Date, Transfer-Encoding, Cache-Status, Connection.
    out.reserve(head.raw.len() + 256);
    encode::status_line(out, head.status, &head.reason);
    encode::response_fields(head, out, SystemTime::now());
    if framing == Framing::Chunked {
        out.put_slice(b"Transfer-Encoding: chunked\r\n");
    }
    status.append(out);
    persistence.append(out);
    out.put_slice(b"\r\n");
}

/// A whole answer of ours.
pub fn own_answer(answer: Own, persistence: Persistence) -> Bytes {
    let (status, reason, detail) = match answer {
        Own::BadRequest(why) => (400, "Bad Request", why),
        Own::GatewayTimeout(why) => (504, "Gateway Timeout", why),
    };
    let mut out = BytesMut::with_capacity(192);
    encode::status_line(&mut out, status, reason.as_bytes());
    let date = httpdate::fmt_http_date(SystemTime::now());
    let _ = write!(out, "Date: {date}\r\nContent-Length: 0\r\nCache-Status: sidestep; detail={detail}\r\n");
    persistence.append(&mut out);
    out.put_slice(b"\r\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_answer_says_why_and_closes() {
        let bytes = own_answer(Own::BadRequest("two-hosts"), Persistence::Closes);
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"));
        assert!(text.contains("\r\nCache-Status: sidestep; detail=two-hosts\r\n"));
        assert!(text.ends_with("\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn a_status_names_the_reason() {
        let mut out = BytesMut::new();
        let status = CacheStatus { fwd: "uri-miss", stored: true, ..CacheStatus::default() };
        status.append(&mut out);
        CacheStatus { fwd: "bypass", detail: Some("off"), ..CacheStatus::default() }.append(&mut out);
        let failed = Reused::StaleInstead { miss: Miss::Stale, cause: Cause::Error(503) };
        failed.status(-7).append(&mut out);
        Reused::Collapsed { miss: Miss::Stale, status: 304 }.status(9).append(&mut out);
        assert_eq!(
            out,
            "Cache-Status: sidestep; fwd=uri-miss; stored\r\n\
             Cache-Status: sidestep; fwd=bypass; detail=off\r\n\
             Cache-Status: sidestep; fwd=stale; fwd-status=503; ttl=-7; detail=stale-if-error\r\n\
             Cache-Status: sidestep; fwd=stale; fwd-status=304; collapsed\r\n"
        );
    }
}
