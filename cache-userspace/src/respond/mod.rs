//! Answers as bytes: heads of stored, forwarded and own responses, each with its `Cache-Status` (RFC 9211).
//!
//! Which answer it is, is decided before; sending it is left to `write`.

pub mod parts;
pub mod write;

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};

use crate::forward::Exchange;
use crate::http1::{Framing, RequestHead, ResponseHead, Version, encode};
use crate::policy::{Stored, is_kept_in_not_modified};
use crate::store::{Entry, Recording};

/// What a client gets.
pub enum Response<'a> {
    /// A stored response (RFC 9111 §4).
    Stored {
        /// The stored response.
        entry: Arc<Entry>,
        /// Its current age (RFC 9111 §4.2.3).
        age: Duration,
        /// Whether the client has it already: then the answer is 304 (RFC 9111 §4.3.2).
        is_not_modified: bool,
    },
    /// An answer of ours, without content from elsewhere.
    Own(Own),
    /// The origin's answer, still coming.
    Forwarded(Box<Forwarded<'a>>),
    /// Upstream speaks something else: both sides are relayed from here on.
    Opaque(Box<Exchange<'a>>),
}

/// The origin's answer.
pub struct Forwarded<'a> {
    /// Its head.
    pub head: ResponseHead,
    /// Where its content comes from.
    pub exchange: Exchange<'a>,
    /// Why it was forwarded.
    pub status: CacheStatus,
    /// Where its content also goes.
    pub recording: Option<Recording>,
}

/// The few answers that we give ourselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// 400: the request's framing is ambiguous (RFC 9112 §6.3), or strictness was asked for.
    BadRequest(&'static str),
    /// 504: `only-if-cached` and nothing usable is stored (RFC 9111 §5.2.1.7).
    GatewayTimeout,
}

/// Why a request was forwarded, and what became of the answer (RFC 9211 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheStatus {
    /// The `fwd` parameter.
    pub fwd: &'static str,
    /// Whether the answer is being stored.
    pub stored: bool,
    /// Why not, or why it was not looked up.
    pub detail: Option<&'static str>,
}

impl CacheStatus {
    fn append(self, out: &mut BytesMut) {
        out.put_slice(b"Cache-Status: sidestep; fwd=");
        out.put_slice(self.fwd.as_bytes());
        if self.stored {
            out.put_slice(b"; stored");
        }
        if let Some(detail) = self.detail {
            out.put_slice(b"; detail=");
            out.put_slice(detail.as_bytes());
        }
        out.put_slice(b"\r\n");
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
    // RFC 9110 §8.6: no Content-Length in a 204.
    if stored.status != 204 && !stored.fields.contains("content-length") {
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

/// The changing part of a stored response's head (RFC 9111 §5.1: `Age` is required on reuse).
pub fn hit_fields(age: Duration, persistence: Persistence) -> BytesMut {
    let mut out = BytesMut::with_capacity(96);
    let _ = write!(out, "Age: {}\r\nCache-Status: sidestep; hit\r\n", age.as_secs());
    persistence.append(&mut out);
    out.put_slice(b"\r\n");
    out
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
        Own::GatewayTimeout => (504, "Gateway Timeout", "only-if-cached"),
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
        CacheStatus { fwd: "uri-miss", stored: true, detail: None }.append(&mut out);
        CacheStatus { fwd: "bypass", stored: false, detail: Some("off") }.append(&mut out);
        assert_eq!(
            out,
            "Cache-Status: sidestep; fwd=uri-miss; stored\r\nCache-Status: sidestep; fwd=bypass; detail=off\r\n"
        );
    }
}
