//! Responses off a connection, interim ones included: heads and content are framed alike wherever reads end.
#![no_main]

use bytes::BytesMut;
use fuzz::{Connection, HEAD_BYTES_MAX, Seen, decode};
use libfuzzer_sys::fuzz_target;
use sidestep::http1::{Decoder, Framing, Parsed, ResponseHead};

fuzz_target!(|input: (bool, Connection)| {
    let (is_head, connection) = input;
    let method: &[u8] = if is_head { b"HEAD" } else { b"GET" };
    let whole = read(method, connection.bytes(), &[connection.bytes()]);
    assert_eq!(read(method, connection.bytes(), &connection.pieces()), whole);
});

fn read(method: &[u8], all: &[u8], pieces: &[&[u8]]) -> Vec<Seen> {
    let (mut buffer, mut scanned, mut seen) = (BytesMut::new(), 0, Vec::new());
    let mut content: Option<Decoder> = None;
    let mut given = 0;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        given += piece.len();
        loop {
            if let Some(decoder) = &mut content {
                match decode(decoder, &mut buffer, &mut seen) {
                    Ok(true) => content = None,
                    Ok(false) => break,
                    Err(()) => return seen,
                }
            }
            match ResponseHead::take(&mut buffer, &mut scanned, HEAD_BYTES_MAX, method) {
                Parsed::Complete(head) => {
                    assert!(head.raw.len() <= HEAD_BYTES_MAX && head.raw.ends_with(b"\r\n\r\n"));
                    assert!((100..1000).contains(&head.status));
                    if method == b"HEAD" || head.status < 200 || matches!(head.status, 204 | 304) {
                        assert_eq!(head.framing, Framing::Empty);
                    }
                    let _ = head.persists();
                    content = Some(Decoder::of_response(head.framing));
                    seen.push(Seen::Head(head.raw));
                }
                Parsed::Partial => break,
                Parsed::Ambiguous(_) => {
                    seen.push(Seen::Ambiguous);
                    return seen;
                }
                Parsed::Malformed(_) => {
                    assert!(all[..given].ends_with(&buffer));
                    seen.push(Seen::Malformed);
                    return seen;
                }
            }
        }
    }
    assert!(content.is_some() || buffer.len() <= HEAD_BYTES_MAX, "what waits for a head is bounded");
    if let Some(decoder) = &mut content {
        // What the end of the connection makes of it does not depend on where reads ended either.
        seen.push(if decoder.end().is_ok() { Seen::End(0) } else { Seen::Fault });
    }
    seen
}
