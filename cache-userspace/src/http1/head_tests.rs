//! Tables for `head`: what is a request, what is refused, what is relayed.

use super::*;

fn request(bytes: &[u8]) -> Parsed<RequestHead> {
    RequestHead::take(&mut BytesMut::from(bytes), &mut 0, 4096)
}

fn response(bytes: &[u8], method: &[u8]) -> Parsed<ResponseHead> {
    ResponseHead::take(&mut BytesMut::from(bytes), &mut 0, 4096, method)
}

#[test]
fn a_request_keeps_its_spelling_and_order() {
    let Parsed::Complete(head) = request(b"GET /a?b HTTP/1.1\r\nhOsT: x\r\nA: 1\r\nB:  2 \r\na: 3\r\n\r\n")
    else {
        panic!()
    };
    assert_eq!(
        (&head.method[..], &head.target[..], head.version),
        (&b"GET"[..], &b"/a?b"[..], Version::Http11)
    );
    let lines: Vec<_> = head.fields.iter().collect();
    assert_eq!(lines, [(&b"hOsT"[..], &b"x"[..]), (b"A", b"1"), (b"B", b"2"), (b"a", b"3")]);
}

#[test]
fn ambiguous_requests_are_refused() {
    for (bytes, why) in [
        (&b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"[..], "two-lengths"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            "two-lengths",
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\n", "content-length"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n", "content-length"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n", "content-length"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", "content-length"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "length-and-coding",
        ),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", "length-and-coding"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", "transfer-coding"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", "transfer-coding"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "transfer-coding",
        ),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "two-hosts"),
        (b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n", "nul"),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", "space-before-colon"),
    ] {
        assert!(
            matches!(request(bytes), Parsed::Ambiguous(w) if w == why),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn odd_requests_are_told_apart_and_keep_their_bytes() {
    for (bytes, why) in [
        (&b"GET / HTTP/1.1\nHost: a\n\n"[..], "bare-lf"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", "obs-fold"),
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", "obs-fold"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", "head"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "repeated-content-length",
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer-coding"),
    ] {
        let mut buffer = BytesMut::from(bytes);
        let parsed = RequestHead::take(&mut buffer, &mut 0, 4096);
        assert!(matches!(parsed, Parsed::Malformed(w) if w == why), "{parsed:?}");
        assert_eq!(buffer, bytes);
    }
    let mut long = b"GET / HTTP/1.1\r\nX: ".to_vec();
    long.resize(5000, b'a');
    assert!(matches!(request(&long), Parsed::Malformed("oversized-head")));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(FIELD_LINES_MAX + 1));
    assert!(matches!(request(many.as_bytes()), Parsed::Malformed("too-many-fields")));
}

#[test]
fn content_is_framed_by_rfc_9112_section_6_3() {
    let framing = |bytes: &[u8], method: &[u8]| match response(bytes, method) {
        Parsed::Complete(head) => Some(head.framing),
        _ => None,
    };
    let with = |line: &str| format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n").into_bytes();
    assert_eq!(framing(&with("Content-Length: 7"), b"GET"), Some(Framing::Length(7)));
    assert_eq!(framing(&with("Content-Length: 7"), b"HEAD"), Some(Framing::Empty));
    assert_eq!(framing(&with("Transfer-Encoding: Chunked"), b"GET"), Some(Framing::Chunked));
    assert_eq!(framing(&with("X: y"), b"GET"), Some(Framing::UntilClose));
    assert_eq!(framing(&with("Content-Length: 7\r\nTransfer-Encoding: chunked"), b"GET"), None);
    assert_eq!(framing(&with("Content-Length: 7\r\nContent-Length: 8"), b"GET"), None);
    // Rule 4: without chunks the close ends what is coded.
    assert_eq!(framing(&with("Transfer-Encoding: x"), b"GET"), Some(Framing::UntilClose));
    assert_eq!(framing(&with("Transfer-Encoding: gzip, x"), b"GET"), Some(Framing::UntilClose));
    for doubtful in
        ["gzip, chunked", "chunked, gzip", "xchunked", "x;y=\"chunked\"", "x\r\nContent-Length: 7"]
    {
        assert_eq!(framing(&with(&format!("Transfer-Encoding: {doubtful}")), b"GET"), None, "{doubtful}");
    }
    for status in [100, 103, 204, 304] {
        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 7\r\n\r\n");
        assert_eq!(framing(head.as_bytes(), b"GET"), Some(Framing::Empty), "{status}");
    }
}

#[test]
fn the_reason_phrase_passes_as_it_came() {
    let Parsed::Complete(head) = response(b"HTTP/1.1 200 Tr\xc3\xa8s bien\r\n\r\n", b"GET") else { panic!() };
    assert_eq!(&head.reason[..], b"Tr\xc3\xa8s bien");
    let Parsed::Complete(head) = response(b"HTTP/1.1 404\r\n\r\n", b"GET") else { panic!() };
    assert_eq!((head.status, &head.reason[..]), (404, &b""[..]));
}

#[test]
fn persistence_follows_version_and_options() {
    for (line, version, persists) in [
        ("X: y", "1.1", true),
        ("Connection: close", "1.1", false),
        ("Connection: x, CLOSE", "1.1", false),
        ("X: y", "1.0", false),
        ("Connection: Keep-Alive", "1.0", true),
    ] {
        let Parsed::Complete(head) = request(format!("GET / HTTP/{version}\r\n{line}\r\n\r\n").as_bytes())
        else {
            panic!()
        };
        assert_eq!(head.wants_persistence(), persists, "{line} {version}");
    }
}

/// What finds the fault is only asked where the parser refused.
#[test]
fn the_parser_takes_no_head_with_white_space_where_none_may_be() {
    let (request, response) =
        ("GET / HTTP/1.1\r\nHost: a\r\nB:c\r\n\r\n", "HTTP/1.1 200 OK\r\nDate: a\r\nB:c\r\n\r\n");
    let mut faults = 0;
    for (whole, at) in
        [request, response].iter().flat_map(|whole| (0..whole.len()).map(move |at| (whole, at)))
    {
        for space in [" ", "\t", " \t", "\u{b}", "\u{c}"] {
            let raw = Bytes::from(format!("{}{space}{}", &whole[..at], &whole[at..]));
            if white_space_fault(&raw).is_some() {
                faults += 1;
                assert!(!matches!(RequestHead::parse(&raw), Parsed::Complete(_)), "{raw:?}");
                assert!(!matches!(ResponseHead::parse(&raw, b"GET"), Parsed::Complete(_)), "{raw:?}");
            }
        }
    }
    assert!(faults > 20, "{faults}");
}
