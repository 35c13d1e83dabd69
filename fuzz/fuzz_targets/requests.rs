//! Requests off a connection: heads and content are framed alike wherever reads end, and nothing of what was not
//! understood is lost.
#![no_main]

use bytes::BytesMut;
use fuzz::{Connection, HEAD_BYTES_MAX, Seen, decode};
use libfuzzer_sys::fuzz_target;
use sidestep::http1::{Decoder, Framing, Parsed, RequestHead};

fuzz_target!(|connection: Connection| {
    let whole = read(connection.bytes(), &[connection.bytes()]);
    assert_eq!(read(connection.bytes(), &connection.pieces()), whole);
});

fn read(all: &[u8], pieces: &[&[u8]]) -> Vec<Seen> {
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
            match RequestHead::take(&mut buffer, &mut scanned, HEAD_BYTES_MAX) {
                Parsed::Complete(head) => {
                    assert!(head.raw.len() <= HEAD_BYTES_MAX && head.raw.ends_with(b"\r\n\r\n"));
                    assert!(head.framing != Framing::UntilClose, "no request ends with its connection");
                    assert!(head.fields.values("host").count() <= 1);
                    let _ = (head.wants_persistence(), head.has_option("close"));
                    content = Some(Decoder::of_request(head.framing));
                    seen.push(Seen::Head(head.raw));
                }
                Parsed::Partial => break,
                Parsed::Ambiguous(_) => {
                    seen.push(Seen::Ambiguous);
                    return seen;
                }
                Parsed::Malformed(_) => {
                    // A relay needs every byte from here on.
                    assert!(all[..given].ends_with(&buffer));
                    seen.push(Seen::Malformed);
                    return seen;
                }
            }
        }
    }
    assert!(content.is_some() || buffer.len() <= HEAD_BYTES_MAX, "what waits for a head is bounded");
    seen
}
