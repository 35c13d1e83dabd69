//! What the targets share: bytes that arrive in pieces, and what a reader makes of them.
//!
//! What must hold of it is left to each target.

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use sidestep::http1::{Decoder, Piece};

/// The largest head that the targets take, bytes: small, so that inputs pass it.
pub const HEAD_BYTES_MAX: usize = 512;

/// Bytes of a connection, and after how many of them each read returns.
#[derive(Arbitrary, Debug)]
pub struct Connection<'a> {
    reads: Vec<u8>,
    bytes: &'a [u8],
}

impl<'a> Connection<'a> {
    /// All bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of each read, none of them empty.
    pub fn pieces(&self) -> Vec<&'a [u8]> {
        let (mut pieces, mut rest) = (Vec::new(), self.bytes);
        let mut reads = self.reads.iter().map(|read| usize::from(*read) + 1);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(reads.next().unwrap_or(rest.len()).min(rest.len()));
            pieces.push(piece);
            rest = after;
        }
        pieces
    }
}

/// What a reader saw, in order; where reads end must not change it.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// A head, as it stood.
    Head(Bytes),
    /// The content of a message, as far as it came.
    Content(Vec<u8>),
    /// The content ended, with so many trailer fields.
    End(usize),
    /// The head is ambiguous.
    Ambiguous,
    /// The head is malformed.
    Malformed,
    /// The content cannot be framed.
    Fault,
}

/// Decodes what `buffer` has of the content; whether its end was seen, or a fault.
pub fn decode(decoder: &mut Decoder, buffer: &mut BytesMut, seen: &mut Vec<Seen>) -> Result<bool, ()> {
    loop {
        match decoder.decode(buffer) {
            Ok(Some(Piece::Data(data))) => {
                assert!(!data.is_empty(), "data is never empty");
                match seen.last_mut() {
                    Some(Seen::Content(content)) => content.extend_from_slice(&data),
                    _ => seen.push(Seen::Content(data.to_vec())),
                }
            }
            Ok(Some(Piece::End(trailers))) => {
                assert!(decoder.is_done());
                seen.push(Seen::End(trailers.len()));
                return Ok(true);
            }
            Ok(None) => return Ok(decoder.is_done()),
            Err(_) => {
                seen.push(Seen::Fault);
                return Err(());
            }
        }
    }
}
