//! Where content ends: decodes what `head` framed, without a socket. Chunks are read strictly; where the bytes
//! cannot be framed with certainty, decoding stops with an error.

use bytes::{Buf, Bytes, BytesMut};

use super::fields::Fields;
use super::scan::{Scan, head_end};

/// The longest line of a chunk: its size and extensions.
const CHUNK_LINE_BYTES_MAX: usize = 4096;
/// The largest trailer section.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// The most trailer field lines.
const TRAILER_LINES_MAX: usize = 64;

/// How a message's content is framed (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    /// By Content-Length, bytes.
    Length(u64),
    /// By the chunked transfer coding.
    Chunked,
    /// By the end of the connection (responses only).
    UntilClose,
}

/// A part of a message's content.
#[derive(Debug)]
pub enum Piece {
    /// Bytes of content, never empty.
    Data(Bytes),
    /// The end, with the trailer fields (none outside the chunked coding).
    End(Fields),
}

/// Content that cannot be framed, or that ended early.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// A chunk's size, its line or the bytes after it are not as RFC 9112 §7.1 says.
    #[error("invalid chunk")]
    Chunk,
    /// The trailer section is not well-formed or too large.
    #[error("invalid trailers")]
    Trailers,
    /// The connection ended before the content did (RFC 9112 §8).
    #[error("content ended early")]
    Truncated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

/// Decodes the content of one message.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    scanned: usize,
    /// Blanks after a chunk's size, which old servers send; never taken from a client.
    is_lenient: bool,
}

impl Decoder {
    /// A decoder of a request's content.
    pub fn of_request(framing: Framing) -> Self {
        Self::new(framing, false)
    }

    /// A decoder of a response's content.
    pub fn of_response(framing: Framing) -> Self {
        Self::new(framing, true)
    }

    fn new(framing: Framing, is_lenient: bool) -> Self {
        let state = match framing {
            Framing::Empty | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, scanned: 0, is_lenient }
    }

    /// Whether all content was decoded.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes the next piece out of `buffer`; `None` when more bytes are needed, or after the end.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, BodyFault> {
        loop {
            match self.state {
                State::Done => return Ok(None),
                State::UntilClose => return Ok(take(buffer, u64::MAX).map(|(data, _)| Piece::Data(data))),
                State::Length(left) => {
                    let Some((data, left)) = take(buffer, left) else { return Ok(None) };
                    self.state = if left == 0 { State::Done } else { State::Length(left) };
                    return Ok(Some(Piece::Data(data)));
                }
                State::ChunkData(left) => {
                    let Some((data, left)) = take(buffer, left) else { return Ok(None) };
                    self.state = if left == 0 { State::ChunkEnd } else { State::ChunkData(left) };
                    return Ok(Some(Piece::Data(data)));
                }
                State::ChunkEnd => match buffer.get(..2) {
                    Some(b"\r\n") => {
                        buffer.advance(2);
                        self.state = State::ChunkSize;
                    }
                    Some(_) => return Err(BodyFault::Chunk),
                    None if buffer.first().is_some_and(|b| *b != b'\r') => return Err(BodyFault::Chunk),
                    None => return Ok(None),
                },
                State::ChunkSize => {
                    let Some(size) = self.chunk_size(buffer)? else { return Ok(None) };
                    self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
                }
                State::Trailers => return self.trailers(buffer),
            }
        }
    }

    /// Tells the decoder that the connection ended.
    pub fn end(&mut self) -> Result<(), BodyFault> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(BodyFault::Truncated),
        }
    }

    fn chunk_size(&self, buffer: &mut BytesMut) -> Result<Option<u64>, BodyFault> {
        let lf = memchr::memchr(b'\n', buffer);
        // The same in whatever pieces the line comes.
        if lf.unwrap_or(buffer.len()) > CHUNK_LINE_BYTES_MAX {
            return Err(BodyFault::Chunk);
        }
        let Some(lf) = lf else { return Ok(None) };
        let line = buffer.get(..lf).and_then(|line| line.strip_suffix(b"\r")).ok_or(BodyFault::Chunk)?;
        let size = parse_chunk_line(line, self.is_lenient)?;
        buffer.advance(lf + 1);
        Ok(Some(size))
    }

    fn trailers(&mut self, buffer: &mut BytesMut) -> Result<Option<Piece>, BodyFault> {
        let end = match head_end(buffer, self.scanned) {
            Scan::End(end) if end <= TRAILER_BYTES_MAX => end,
            Scan::More(from) if buffer.len() <= TRAILER_BYTES_MAX => {
                self.scanned = from;
                return Ok(None);
            }
            _ => return Err(BodyFault::Trailers),
        };
        let raw = buffer.split_to(end).freeze();
        let mut lines = [httparse::EMPTY_HEADER; TRAILER_LINES_MAX];
        let Ok(httparse::Status::Complete((_, lines))) = httparse::parse_headers(&raw, &mut lines) else {
            return Err(BodyFault::Trailers);
        };
        self.state = State::Done;
        Ok(Some(Piece::End(Fields::from_parsed(&raw, lines.iter().map(|h| (h.name.as_bytes(), h.value))))))
    }
}

fn take(buffer: &mut BytesMut, left: u64) -> Option<(Bytes, u64)> {
    let count = left.min(buffer.len() as u64) as usize;
    (count > 0).then(|| (buffer.split_to(count).freeze(), left - count as u64))
}

/// `chunk-size [ chunk-ext ]` (RFC 9112 §7.1), strictly: no sign, no prefix, no overflow.
fn parse_chunk_line(line: &[u8], is_lenient: bool) -> Result<u64, BodyFault> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 16 {
        return Err(BodyFault::Chunk);
    }
    let mut size = 0_u64;
    for digit in line.iter().take(digits) {
        let value = (*digit as char).to_digit(16).ok_or(BodyFault::Chunk)?;
        size = size.checked_mul(16).and_then(|s| s.checked_add(u64::from(value))).ok_or(BodyFault::Chunk)?;
    }
    let rest = line.get(digits..).unwrap_or_default();
    let extension = rest.trim_ascii_start();
    match extension {
        [] if rest.is_empty() || is_lenient => {}
        [b';', ..] => {}
        _ => return Err(BodyFault::Chunk),
    }
    // A control character in an extension is where readers begin to differ.
    if extension.iter().any(|b| (*b < b' ' && *b != b'\t') || *b == 127) {
        Err(BodyFault::Chunk)
    } else {
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode_all(
        decoder: &mut Decoder,
        bytes: &[u8],
        cut: usize,
    ) -> Result<(Vec<u8>, Option<Fields>), BodyFault> {
        let (mut buffer, mut data, mut trailers) = (BytesMut::new(), Vec::new(), None);
        for part in bytes.chunks(cut) {
            buffer.extend_from_slice(part);
            while let Some(piece) = decoder.decode(&mut buffer)? {
                match piece {
                    Piece::Data(bytes) => data.extend_from_slice(&bytes),
                    Piece::End(fields) => trailers = Some(fields),
                }
            }
        }
        Ok((data, trailers))
    }

    #[test]
    fn chunks_and_trailers_are_read_however_they_are_cut() {
        let bytes = b"5\r\nhello\r\n6;x=\"y\"\r\n world\r\n0\r\nX-Sum: 1\r\n\r\nnext";
        for cut in 1..bytes.len() {
            let mut decoder = Decoder::of_request(Framing::Chunked);
            let (data, trailers) = decode_all(&mut decoder, bytes, cut).unwrap();
            assert_eq!(data, b"hello world");
            assert_eq!(trailers.unwrap().first("x-sum"), Some(b"1".as_slice()));
            assert!(decoder.is_done());
        }
    }

    #[test]
    fn invalid_chunks_are_refused() {
        for bytes in [
            &b"+5\r\nhello\r\n0\r\n\r\n"[..],
            b"0x5\r\nhello\r\n",
            b"-1\r\n",
            b"\r\n",
            b"5\nhello\r\n",
            b"5\r\nhelloXX",
            b"5 \r\nhello\r\n",
            b"5\r\nhello\n0\r\n",
            b"g\r\n",
            b"10000000000000000\r\n",
            b"5;\x01\r\nhello\r\n",
            b"0\r\nbad trailer\r\n\r\n",
            b"0\r\nA: b\n\r\n",
        ] {
            let mut decoder = Decoder::of_request(Framing::Chunked);
            assert!(decode_all(&mut decoder, bytes, 64).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn the_longest_chunk_line_is_the_same_in_whatever_pieces_it_comes() {
        for (length, is_ok) in [(CHUNK_LINE_BYTES_MAX, true), (CHUNK_LINE_BYTES_MAX + 1, false)] {
            let line = format!("0;{}\r", "x".repeat(length - 3));
            let bytes = format!("{line}\n\r\n");
            for cut in [1, 100, bytes.len()] {
                let mut decoder = Decoder::of_request(Framing::Chunked);
                assert_eq!(decode_all(&mut decoder, bytes.as_bytes(), cut).is_ok(), is_ok, "{length} {cut}");
            }
        }
    }

    #[test]
    fn an_origin_may_pad_a_chunk_size() {
        let mut decoder = Decoder::of_response(Framing::Chunked);
        assert_eq!(decode_all(&mut decoder, b"5  \r\nhello\r\n0\r\n\r\n", 64).unwrap().0, b"hello");
    }

    #[test]
    fn an_early_end_is_told_from_a_late_one() {
        for (framing, bytes, ok) in [
            (Framing::Length(5), &b"hell"[..], false),
            (Framing::Length(5), b"hello", true),
            (Framing::Chunked, b"5\r\nhello\r\n", false),
            (Framing::Chunked, b"0\r\n\r\n", true),
            (Framing::UntilClose, b"hello", true),
            (Framing::Empty, b"", true),
        ] {
            let mut decoder = Decoder::of_response(framing);
            decode_all(&mut decoder, bytes, 64).unwrap();
            assert_eq!(decoder.end().is_ok(), ok, "{framing:?}");
        }
    }

    #[test]
    fn bytes_after_the_content_stay_in_the_buffer() {
        let mut buffer = BytesMut::from(&b"helloGET /"[..]);
        let mut decoder = Decoder::of_request(Framing::Length(5));
        assert!(matches!(decoder.decode(&mut buffer), Ok(Some(Piece::Data(data))) if data == "hello"));
        assert!(decoder.is_done());
        assert_eq!(buffer, "GET /");
    }
}
