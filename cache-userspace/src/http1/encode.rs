//! Writes heads and chunks: end-to-end fields as they came, hop-by-hop ones left out (RFC 9110 §7.6.1).

use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};

use super::body::Framing;
use super::fields::{Fields, Names};
use super::head::{RequestHead, ResponseHead};

/// Fields that describe one connection only, whatever `Connection` says (RFC 9110 §7.6.1).
const HOP_BY_HOP: Names =
    Names::of(&["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"]);

/// Fields that no connection option can take away: without them the message would be another one, or be kept by the
/// next cache for longer or for others (RFC 9110 §7.6.1: they are intended for all recipients).
const NEVER_REMOVED: Names = Names::of(&[
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "content-range",
    "cache-control",
    "pragma",
    "expires",
    "age",
    "date",
    "vary",
]);

/// Fields that a trailer section may not have (RFC 9110 §6.5.1): they frame or direct the message.
const NOT_IN_TRAILERS: Names = Names::of(&["transfer-encoding", "content-length", "host", "connection"]);

/// Tells which field lines of a message belong to this hop only.
struct Hop<'a> {
    /// Connection options that are not known to be of the hop by themselves.
    options: Vec<&'a [u8]>,
}

impl<'a> Hop<'a> {
    fn of(fields: &'a Fields) -> Self {
        Self { options: fields.tokens("connection").filter(|option| !HOP_BY_HOP.has(option)).collect() }
    }

    fn has(&self, name: &[u8]) -> bool {
        HOP_BY_HOP.has(name)
            || self.options.iter().any(|option| option.eq_ignore_ascii_case(name)) && !NEVER_REMOVED.has(name)
    }
}

/// Appends one field line.
pub fn field(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// Writes the head of a request to be forwarded: the same request, with this hop's framing and persistence.
///
/// Trailers are announced as acceptable where the client announced it (`TE: trailers`, RFC 9110 §10.1.4).
pub fn request_head(head: &RequestHead, out: &mut BytesMut) {
    out.reserve(head.raw.len() + 64);
    out.put_slice(&head.method);
    out.put_u8(b' ');
    out.put_slice(&head.target);
    // RFC 9110 §2.5: an intermediary sends its own version.
    out.put_slice(b" HTTP/1.1\r\n");
    let (mut has_te, hop) = (false, Hop::of(&head.fields));
    for (name, value) in head.fields.iter() {
        if name.eq_ignore_ascii_case(b"te") && accepts_trailers(head) {
            if !std::mem::replace(&mut has_te, true) {
                field(out, name, b"trailers");
                field(out, b"Connection", b"TE");
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") && head.framing == Framing::Chunked {
            field(out, name, b"chunked");
        } else if !hop.has(name) {
            field(out, name, value);
        }
    }
    out.put_slice(b"\r\n");
}

/// Whether the client takes trailer fields.
pub fn accepts_trailers(head: &RequestHead) -> bool {
    head.fields.tokens("te").any(|coding| coding.eq_ignore_ascii_case(b"trailers"))
}

/// Appends a status line of ours with the origin's code and phrase.
pub fn status_line(out: &mut BytesMut, status: u16, reason: &[u8]) {
    // Writing into memory does not fail.
    let _ = write!(out, "HTTP/1.1 {status} ");
    out.put_slice(reason);
    out.put_slice(b"\r\n");
}

/// Appends a response's end-to-end fields; its framing, the persistence and the empty line are the caller's.
///
/// RFC 9110 §6.6.1: a recipient with a clock MUST append a Date to a response that has none when it forwards it.
pub fn response_fields(head: &ResponseHead, out: &mut BytesMut, now: std::time::SystemTime) {
    let hop = Hop::of(&head.fields);
    for (name, value) in head.fields.iter() {
        // RFC 9110 §15.5.22: a 426 says what to upgrade to.
        let is_upgrade = head.status == 426 && name.eq_ignore_ascii_case(b"upgrade");
        if is_upgrade {
            field(out, b"Connection", b"upgrade");
        }
        // RFC 9112 §6.1: what is passed on in its coding says so.
        let is_coding =
            head.framing == Framing::UntilClose && name.eq_ignore_ascii_case(b"transfer-encoding");
        if is_upgrade || is_coding || !hop.has(name) {
            field(out, name, value);
        }
    }
    if head.status >= 200 && !head.fields.contains("date") {
        field(out, b"Date", httpdate::fmt_http_date(now).as_bytes());
    }
}

/// Appends an interim response (1xx) as it is to be passed on.
pub fn interim(head: &ResponseHead, out: &mut BytesMut) {
    status_line(out, head.status, &head.reason);
    let hop = Hop::of(&head.fields);
    for (name, value) in head.fields.iter() {
        if !hop.has(name) {
            field(out, name, value);
        }
    }
    out.put_slice(b"\r\n");
}

/// The line before a chunk of `size` bytes (RFC 9112 §7.1).
pub fn chunk_start(size: usize) -> Bytes {
    Bytes::from(format!("{size:x}\r\n").into_bytes())
}

/// What ends a chunked message, trailer fields included.
pub fn chunked_end(trailers: Option<&Fields>) -> Bytes {
    let mut out = BytesMut::from(&b"0\r\n"[..]);
    for (name, value) in trailers.iter().flat_map(|fields| fields.iter()) {
        if !NOT_IN_TRAILERS.has(name) {
            field(&mut out, name, value);
        }
    }
    out.put_slice(b"\r\n");
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::Parsed;

    fn forwarded(bytes: &[u8]) -> String {
        let Parsed::Complete(head) = RequestHead::take(&mut BytesMut::from(bytes), &mut 0, 4096) else {
            panic!()
        };
        let mut out = BytesMut::new();
        request_head(&head, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn end_to_end_fields_pass_and_hop_by_hop_ones_do_not() {
        let sent = forwarded(
            b"GET /x HTTP/1.1\r\nHost: a\r\nX-CuSTom: 1\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 2\r\nKeep-Alive: 5\r\nTE: gzip\r\nAccept: */*\r\n\r\n",
        );
        assert_eq!(sent, "GET /x HTTP/1.1\r\nHost: a\r\nX-CuSTom: 1\r\nAccept: */*\r\n\r\n");
    }

    #[test]
    fn a_connection_option_cannot_take_the_host_away() {
        let sent = forwarded(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: host, content-length\r\n\r\n",
        );
        assert_eq!(sent, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n");
    }

    #[test]
    fn a_connection_option_cannot_make_an_answer_younger_rfc9110_6_6_1() {
        let bytes = b"HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nAge: 50\r\nConnection: age, date\r\n\r\n";
        let Parsed::Complete(head) =
            ResponseHead::take(&mut BytesMut::from(&bytes[..]), &mut 0, 4096, b"GET")
        else {
            panic!()
        };
        let mut out = BytesMut::new();
        response_fields(&head, &mut out, std::time::SystemTime::UNIX_EPOCH);
        assert_eq!(&out[..], b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nAge: 50\r\n");
    }

    #[test]
    fn an_upgrade_to_h2c_is_dropped_with_its_settings() {
        let sent = forwarded(
            b"GET / HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nHost: a\r\nHTTP2-Settings: AAE\r\nUpgrade: h2c\r\nUser-Agent: j\r\n\r\n",
        );
        assert_eq!(sent, "GET / HTTP/1.1\r\nHost: a\r\nUser-Agent: j\r\n\r\n");
    }

    #[test]
    fn trailers_are_asked_for_where_the_client_asked() {
        let sent =
            forwarded(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, gzip;q=0.5\r\nConnection: TE\r\n\r\n");
        assert_eq!(sent, "GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    }
}
