//! Heads of requests and responses, parsed strictly: what two readers could understand differently is refused,
//! what is merely odd is told apart, so that it can be relayed untouched.

use bytes::{Bytes, BytesMut};

use super::body::Framing;
use super::fields::Fields;
use super::scan::{Scan, head_end};

/// The most field lines a head may have.
pub const FIELD_LINES_MAX: usize = 256;

/// HTTP/1.0 or HTTP/1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What became of the bytes of a head.
#[derive(Debug)]
pub enum Parsed<T> {
    /// A head; it was taken out of the buffer.
    Complete(T),
    /// More bytes are needed.
    Partial,
    /// Two readers could frame it differently: refuse and close (RFC 9112 §6.3, §11.2).
    Ambiguous(&'static str),
    /// Not well-formed, or not understood, but harmless on a connection of its own: relay it untouched.
    Malformed(&'static str),
}

/// The head of a request, as it stood on the wire.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// Method, case-sensitive.
    pub method: Bytes,
    /// Request target, any form (RFC 9112 §3.2).
    pub target: Bytes,
    /// The sender's version.
    pub version: Version,
    /// Field lines.
    pub fields: Fields,
    /// How the content is framed.
    pub framing: Framing,
    /// The head's own bytes, empty line included.
    pub raw: Bytes,
}

/// The head of a response, as it stood on the wire.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// Reason phrase, as it came.
    pub reason: Bytes,
    /// The sender's version.
    pub version: Version,
    /// Field lines.
    pub fields: Fields,
    /// How the content is framed.
    pub framing: Framing,
    /// The head's own bytes, empty line included.
    pub raw: Bytes,
}

/// Takes one head's bytes out of `buffer`, or says why not. `scanned` is kept between calls.
fn take_head(buffer: &mut BytesMut, scanned: &mut usize, bytes_max: usize) -> Parsed<Bytes> {
    match head_end(buffer, *scanned) {
        Scan::End(end) if end <= bytes_max => {
            *scanned = 0;
            // NUL ends a string for some readers and not for others.
            if memchr::memchr(0, buffer.get(..end).unwrap_or_default()).is_some() {
                return Parsed::Ambiguous("nul");
            }
            Parsed::Complete(buffer.split_to(end).freeze())
        }
        Scan::More(from) if buffer.len() <= bytes_max => {
            *scanned = from;
            Parsed::Partial
        }
        Scan::End(_) | Scan::More(_) => Parsed::Malformed("oversized-head"),
        Scan::BareLf => Parsed::Malformed("bare-lf"),
    }
}

/// Whether a field line has white space where none may be: before the colon (RFC 9112 §5.1: a server MUST reject
/// it with 400), or at its beginning (obs-fold, RFC 9112 §5.2).
fn white_space_fault(raw: &[u8]) -> Option<Parsed<()>> {
    for line in raw.split(|b| *b == b'\n').skip(1) {
        match line {
            [b' ' | b'\t', ..] => return Some(Parsed::Malformed("obs-fold")),
            _ => {
                let Some(colon) = memchr::memchr(b':', line) else { continue };
                if matches!(line.get(..colon), Some([.., b' ' | b'\t'])) {
                    return Some(Parsed::Ambiguous("space-before-colon"));
                }
            }
        }
    }
    None
}

impl RequestHead {
    /// Parses the request head at the front of `buffer` and takes it out when it is complete.
    ///
    /// On `Ambiguous` and `Malformed` of a head that was already taken out, the bytes are put back: a relay needs
    /// them. `scanned` must be 0 at the first call for a head and is kept by the caller between calls.
    pub fn take(buffer: &mut BytesMut, scanned: &mut usize, bytes_max: usize) -> Parsed<Self> {
        if *scanned == 0 {
            // RFC 9112 §2.2: at least one empty line before the request line is ignored.
            while buffer.starts_with(b"\r\n") {
                let _ = buffer.split_to(2);
            }
        }
        let raw = match take_head(buffer, scanned, bytes_max) {
            Parsed::Complete(raw) => raw,
            Parsed::Partial => return Parsed::Partial,
            Parsed::Ambiguous(why) => return Parsed::Ambiguous(why),
            Parsed::Malformed(why) => return Parsed::Malformed(why),
        };
        let parsed = Self::parse(&raw);
        if !matches!(parsed, Parsed::Complete(_)) {
            put_back(buffer, &raw);
        }
        parsed
    }

    fn parse(raw: &Bytes) -> Parsed<Self> {
        let mut lines = [const { std::mem::MaybeUninit::uninit() }; FIELD_LINES_MAX];
        let mut request = httparse::Request::new(&mut []);
        match httparse::ParserConfig::default().parse_request_with_uninit_headers(
            &mut request,
            raw,
            &mut lines,
        ) {
            Ok(httparse::Status::Complete(_)) => {}
            // It takes no white space where none may be; which of its reasons it was makes a difference.
            not => {
                return match (white_space_fault(raw), not) {
                    (Some(Parsed::Ambiguous(why)), _) => Parsed::Ambiguous(why),
                    (Some(Parsed::Malformed(why)), _) => Parsed::Malformed(why),
                    (_, Err(httparse::Error::TooManyHeaders)) => Parsed::Malformed("too-many-fields"),
                    _ => Parsed::Malformed("head"),
                };
            }
        }
        let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version)
        else {
            return Parsed::Malformed("request-line");
        };
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        let fields = Fields::from_parsed(raw, request.headers.iter().map(|h| (h.name.as_bytes(), h.value)));
        // RFC 9112 §3.2: a server MUST respond with 400 to more than one Host line.
        if fields.values("host").count() > 1 {
            return Parsed::Ambiguous("two-hosts");
        }
        let framing = match request_framing(&fields, version) {
            Parsed::Complete(framing) => framing,
            Parsed::Ambiguous(why) => return Parsed::Ambiguous(why),
            Parsed::Malformed(why) => return Parsed::Malformed(why),
            Parsed::Partial => return Parsed::Malformed("framing"),
        };
        let (method, target) = (raw.slice_ref(method.as_bytes()), raw.slice_ref(target.as_bytes()));
        Parsed::Complete(Self { method, target, version, fields, framing, raw: raw.clone() })
    }

    /// Whether the sender wants the connection to persist after this request (RFC 9112 §9.3).
    pub fn wants_persistence(&self) -> bool {
        persists(&self.fields, self.version)
    }

    /// Whether a connection option is named, without case (RFC 9110 §7.6.1).
    pub fn has_option(&self, option: &str) -> bool {
        self.fields.tokens("connection").any(|t| t.eq_ignore_ascii_case(option.as_bytes()))
    }
}

impl ResponseHead {
    /// Parses the response head at the front of `buffer` and takes it out when it is complete.
    ///
    /// `request_method` decides whether there is content (RFC 9112 §6.3). Faults as for `RequestHead::take`.
    pub fn take(
        buffer: &mut BytesMut,
        scanned: &mut usize,
        bytes_max: usize,
        request_method: &[u8],
    ) -> Parsed<Self> {
        let raw = match take_head(buffer, scanned, bytes_max) {
            Parsed::Complete(raw) => raw,
            Parsed::Partial => return Parsed::Partial,
            Parsed::Ambiguous(why) => return Parsed::Ambiguous(why),
            Parsed::Malformed(why) => return Parsed::Malformed(why),
        };
        let parsed = Self::parse(&raw, request_method);
        if !matches!(parsed, Parsed::Complete(_)) {
            put_back(buffer, &raw);
        }
        parsed
    }

    fn parse(raw: &Bytes, request_method: &[u8]) -> Parsed<Self> {
        let mut lines = [const { std::mem::MaybeUninit::uninit() }; FIELD_LINES_MAX];
        let mut response = httparse::Response::new(&mut []);
        match httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            raw,
            &mut lines,
        ) {
            Ok(httparse::Status::Complete(_)) => {}
            _ if white_space_fault(raw).is_some() => return Parsed::Malformed("white-space"),
            _ => return Parsed::Malformed("head"),
        }
        let (Some(status), Some(version)) = (response.code, response.version) else {
            return Parsed::Malformed("status-line");
        };
        if status < 100 {
            return Parsed::Malformed("status");
        }
        let version = if version == 0 { Version::Http10 } else { Version::Http11 };
        let reason = raw.slice_ref(reason_phrase(raw));
        let fields = Fields::from_parsed(raw, response.headers.iter().map(|h| (h.name.as_bytes(), h.value)));
        let framing = match response_framing(&fields, version, status, request_method) {
            Parsed::Complete(framing) => framing,
            Parsed::Ambiguous(why) | Parsed::Malformed(why) => return Parsed::Malformed(why),
            Parsed::Partial => return Parsed::Malformed("framing"),
        };
        Parsed::Complete(Self { status, reason, version, fields, framing, raw: raw.clone() })
    }

    /// Whether the sender lets the connection persist after this response (RFC 9112 §9.3).
    pub fn persists(&self) -> bool {
        self.framing != Framing::UntilClose && persists(&self.fields, self.version)
    }
}

/// The bytes after the status code: httparse drops a phrase that is not ASCII.
fn reason_phrase(raw: &[u8]) -> &[u8] {
    let line = raw.split(|b| *b == b'\r').next().unwrap_or_default();
    line.splitn(3, |b| *b == b' ').nth(2).unwrap_or_default()
}

/// Puts a head's bytes back in front of what was read after it: a relay needs them as they came.
pub fn put_back(buffer: &mut BytesMut, raw: &[u8]) {
    let mut whole = BytesMut::with_capacity(raw.len() + buffer.len());
    whole.extend_from_slice(raw);
    whole.extend_from_slice(buffer);
    *buffer = whole;
}

fn persists(fields: &Fields, version: Version) -> bool {
    let has = |option: &[u8]| fields.tokens("connection").any(|t| t.eq_ignore_ascii_case(option));
    !has(b"close") && (version == Version::Http11 || has(b"keep-alive"))
}

/// The length that all Content-Length lines agree on.
fn content_length(fields: &Fields) -> Parsed<Option<u64>> {
    let mut lines = fields.values("content-length");
    let Some(first) = lines.next() else { return Parsed::Complete(None) };
    // RFC 9112 §6.3: a length that is not valid, a list or several lines: an unrecoverable error. Lines that
    // agree could be joined, but a sender of two is one to leave alone.
    if first.is_empty() || first.len() > 19 || !first.iter().all(u8::is_ascii_digit) {
        return Parsed::Ambiguous("content-length");
    }
    match lines.map(|other| other == first).reduce(|all, same| all && same) {
        None => {}
        Some(true) => return Parsed::Malformed("repeated-content-length"),
        Some(false) => return Parsed::Ambiguous("two-lengths"),
    }
    let length = first.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Parsed::Complete(Some(length))
}

fn request_framing(fields: &Fields, version: Version) -> Parsed<Framing> {
    let length = match content_length(fields) {
        Parsed::Complete(length) => length,
        Parsed::Ambiguous(why) => return Parsed::Ambiguous(why),
        _ if fields.contains("transfer-encoding") => return Parsed::Ambiguous("length-and-coding"),
        _ => return Parsed::Malformed("repeated-content-length"),
    };
    if !fields.contains("transfer-encoding") {
        return Parsed::Complete(length.map_or(Framing::Empty, Framing::Length));
    }
    // RFC 9112 §6.1: both, or a coding in an HTTP/1.0 message: faulty framing.
    if length.is_some() || version == Version::Http10 {
        return Parsed::Ambiguous("length-and-coding");
    }
    let mut codings = fields.tokens("transfer-encoding");
    let last = codings.next();
    match (last, codings.next()) {
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Parsed::Complete(Framing::Chunked),
        // RFC 9112 §6.3: chunked is not the final coding: a server MUST respond with 400.
        _ if ends_in_one_chunked(fields) => Parsed::Malformed("transfer-coding"),
        _ => Parsed::Ambiguous("transfer-coding"),
    }
}

/// Whether chunked stands last in the list of codings, and only there.
fn ends_in_one_chunked(fields: &Fields) -> bool {
    let chunked = |t: &[u8]| t.eq_ignore_ascii_case(b"chunked");
    fields.tokens("transfer-encoding").filter(|t| chunked(t)).count() == 1
        && fields.tokens("transfer-encoding").last().is_some_and(chunked)
}

fn response_framing(
    fields: &Fields,
    version: Version,
    status: u16,
    request_method: &[u8],
) -> Parsed<Framing> {
    // RFC 9112 §6.3, rule 1: never content, whatever the fields say.
    if request_method == b"HEAD" || status < 200 || status == 204 || status == 304 {
        return Parsed::Complete(Framing::Empty);
    }
    let length = match content_length(fields) {
        Parsed::Complete(length) => length,
        Parsed::Ambiguous(why) | Parsed::Malformed(why) => return Parsed::Malformed(why),
        Parsed::Partial => return Parsed::Malformed("framing"),
    };
    if !fields.contains("transfer-encoding") {
        return Parsed::Complete(length.map_or(Framing::UntilClose, Framing::Length));
    }
    let mut codings = fields.tokens("transfer-encoding");
    match (codings.next(), codings.next(), length, version) {
        (Some(coding), None, None, Version::Http11) if coding.eq_ignore_ascii_case(b"chunked") => {
            Parsed::Complete(Framing::Chunked)
        }
        // RFC 9112 §6.3, rule 4: where chunked is not the final coding, the close ends the content. It is passed on as
        // it is, with its coding; beside chunks, which only the last hop can count, it stays opaque.
        (Some(_), _, None, Version::Http11) if !has_token(fields, "transfer-encoding", b"chunked") => {
            Parsed::Complete(Framing::UntilClose)
        }
        _ => Parsed::Malformed("transfer-coding"),
    }
}

fn has_token(fields: &Fields, name: &str, token: &[u8]) -> bool {
    let mut lines = fields.values(name);
    // Anywhere at all: in a quoted parameter it is no coding, and doubtful all the same.
    lines.any(|line| line.to_ascii_lowercase().windows(token.len()).any(|part| part == token))
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
