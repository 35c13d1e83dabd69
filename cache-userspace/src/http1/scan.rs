//! Finds where a head ends, strictly: lines end with CRLF and nothing else.
//!
//! What the lines say is left to `head`.

/// What the bytes so far are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// The head ends before this offset, empty line included.
    End(usize),
    /// More bytes are needed; the next scan may begin here.
    More(usize),
    /// A line ends with a bare LF.
    BareLf,
}

/// Scans `bytes` for the empty line, from `from`: what an earlier scan returned in `More`, or 0.
pub fn head_end(bytes: &[u8], from: usize) -> Scan {
    let mut line_start = from;
    for lf in memchr::memchr_iter(b'\n', bytes.get(from..).unwrap_or_default()) {
        let lf = from + lf;
        let Some(line) = bytes.get(line_start..lf) else { return Scan::More(line_start) };
        match line {
            [] | [.., 0..=12 | 14..] => return Scan::BareLf,
            [13] => return Scan::End(lf + 1),
            _ => line_start = lf + 1,
        }
    }
    Scan::More(line_start)
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// A request line of HTTP/1.0 or HTTP/1.1.
    Http1,
    /// Anything else: TLS, HTTP/2 with prior knowledge, a protocol of its own.
    Opaque,
    /// Not enough bytes to tell.
    Undecided,
}

/// The longest method that is looked for; IANA's longest is 17 (`UPDATEREDIRECTREF`).
const METHOD_BYTES_MAX: usize = 32;

/// Tells HTTP/1 from everything else by the first line (RFC 9112 §3); `line_max` bounds the line.
pub fn protocol(bytes: &[u8], line_max: usize) -> Protocol {
    // RFC 9112 §2.2: an empty line before the request line is to be ignored.
    let Some(start) = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n')) else {
        return if bytes.len() > 4 { Protocol::Opaque } else { Protocol::Undecided };
    };
    if start > 4 {
        return Protocol::Opaque;
    }
    let bytes = bytes.get(start..).unwrap_or_default();
    let method = bytes.iter().take_while(|b| is_token(**b)).count();
    if method > METHOD_BYTES_MAX {
        return Protocol::Opaque;
    }
    match bytes.get(method) {
        None => return Protocol::Undecided,
        Some(b' ') if method > 0 => {}
        Some(_) => return Protocol::Opaque,
    }
    match memchr::memchr(b'\n', bytes) {
        Some(lf) => {
            let line = bytes.get(..lf).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let http1 = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
            if http1 { Protocol::Http1 } else { Protocol::Opaque }
        }
        // Bytes that no request target may hold (RFC 9112 §3.2): not worth waiting for the end of the line.
        None if bytes.iter().any(|b| *b == 0 || *b == 127) => Protocol::Opaque,
        None if bytes.len() > line_max => Protocol::Opaque,
        None => Protocol::Undecided,
    }
}

/// Whether the byte may stand in a token (RFC 9110 §5.6.2).
pub fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_with_an_empty_line_however_it_is_cut() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest";
        assert_eq!(head_end(head, 0), Scan::End(head.len() - 4));
        let mut from = 0;
        for cut in 0..head.len() - 4 {
            let Scan::More(next) = head_end(&head[..cut], from) else { panic!("at {cut}") };
            from = next;
        }
        assert_eq!(head_end(head, from), Scan::End(head.len() - 4));
    }

    #[test]
    fn a_bare_lf_is_seen_in_any_line() {
        assert_eq!(head_end(b"GET / HTTP/1.1\nHost: a\r\n\r\n", 0), Scan::BareLf);
        assert_eq!(head_end(b"GET / HTTP/1.1\r\nHost: a\n\r\n", 0), Scan::BareLf);
        assert_eq!(head_end(b"GET / HTTP/1.1\r\nHost: a\r\n\n", 0), Scan::BareLf);
    }

    #[test]
    fn first_bytes_tell_the_protocol() {
        let cases: &[(&[u8], Protocol)] = &[
            (b"", Protocol::Undecided),
            (b"GE", Protocol::Undecided),
            (b"GET / HTTP/1", Protocol::Undecided),
            (b"\r\nGET / HTTP/1.1\r\n", Protocol::Http1),
            (b"GET / HTTP/1.1\r\n", Protocol::Http1),
            (b"PURGE * HTTP/1.0\n", Protocol::Http1),
            (b"\x16\x03\x01\x02\x00\x01", Protocol::Opaque),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Protocol::Opaque),
            (b"GET /\r\n", Protocol::Opaque),
            (b"EHLO example\r\n", Protocol::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Protocol::Opaque),
            (b"\0\0\0\x08", Protocol::Opaque),
            (b"GET /\0", Protocol::Opaque),
            (b"\r\n\r\n\r\n", Protocol::Opaque),
        ];
        for (bytes, expected) in cases {
            assert_eq!(protocol(bytes, 8192), *expected, "{:?}", String::from_utf8_lossy(bytes));
        }
    }
}
