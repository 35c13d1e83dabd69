//! Partial answers made of a stored response (RFC 9110 §15.3.7): heads and part headers are written, content is only
//! sliced, never copied.
//!
//! Which ranges are answered is left to `policy::range`; the changing fields of the head (`hit_fields`) and sending
//! it all to `write`.

use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};

use crate::http1::{Fields, Names, encode};
use crate::policy::range::Span;

/// Fields of a stored response that say something else of a part: their own are written instead, or none.
///
/// Content-Digest and Content-MD5 are of the content as it is sent (RFC 9530 §2); Repr-Digest stays.
const NOT_OF_A_PART: Names = Names::of(&["content-length", "content-range", "content-digest", "content-md5"]);

/// What stands between the parts of a multipart content (RFC 2046 §5.1.1).
#[derive(Clone, Debug)]
pub struct Boundary(String);

impl Boundary {
    /// Makes one of a random number: one that whoever wrote the content cannot have known.
    pub fn of(random: u128) -> Self {
        Self(format!("{random:032x}"))
    }
}

/// A 206 made of a stored response.
pub struct Partial {
    /// Its head, without the changing fields and the empty line.
    pub head: Bytes,
    /// What stands before each range, and the range.
    parts: Vec<(Bytes, Span)>,
    /// What stands after the last one.
    end: Bytes,
}

impl Partial {
    /// A 206 with one range of a representation of `complete` bytes (RFC 9110 §15.3.7.1).
    pub fn single(stored: &Fields, span: Span, complete: u64) -> Self {
        let mut head = head_of(stored, |_| true);
        content_range(&mut head, span, complete);
        content_length(&mut head, span.bytes());
        Self { head: head.freeze(), parts: vec![(Bytes::new(), span)], end: Bytes::new() }
    }

    /// A 206 with several ranges (RFC 9110 §15.3.7.2, §14.6): each part with the stored Content-Type, no
    /// Content-Range in the head.
    pub fn multiple(stored: &Fields, spans: &[Span], complete: u64, Boundary(boundary): &Boundary) -> Self {
        let part_head = |(index, span): (usize, &Span)| {
            let mut out = BytesMut::with_capacity(192);
            // RFC 2046 §5.1.1: the CRLF before a delimiter belongs to it; none is needed at the beginning.
            let _ = write!(out, "{}--{boundary}\r\n", if index == 0 { "" } else { "\r\n" });
            for content_type in stored.values("content-type") {
                encode::field(&mut out, b"Content-Type", content_type);
            }
            content_range(&mut out, *span, complete);
            out.put_slice(b"\r\n");
            (out.freeze(), *span)
        };
        let parts: Vec<(Bytes, Span)> = spans.iter().enumerate().map(part_head).collect();
        let end = Bytes::from(format!("\r\n--{boundary}--\r\n"));
        let bytes = parts.iter().fold(end.len() as u64, |sum, (before, span)| {
            sum.saturating_add(before.len() as u64).saturating_add(span.bytes())
        });
        let mut head = head_of(stored, |name| !name.eq_ignore_ascii_case(b"content-type"));
        let _ = write!(head, "Content-Type: multipart/byteranges; boundary={boundary}\r\n");
        content_length(&mut head, bytes);
        Self { head: head.freeze(), parts, end }
    }

    /// The content, as many bytes as Content-Length says, where `segments` hold all ranges; the first byte of
    /// `segments` is the one at `stored_first` of the complete representation.
    pub fn content<'a>(
        &'a self,
        segments: &'a [Bytes],
        stored_first: u64,
    ) -> impl Iterator<Item = Bytes> + 'a {
        let parts = self.parts.iter().flat_map(move |(before, span)| {
            let (first, last) = (span.first.checked_sub(stored_first), span.last.checked_sub(stored_first));
            let slices = first.zip(last).map(|(first, last)| slice(segments, first, last));
            std::iter::once(before.clone()).chain(slices.into_iter().flatten())
        });
        parts.chain(std::iter::once(self.end.clone())).filter(|piece| !piece.is_empty())
    }
}

/// The bytes from offset `first` to offset `last`, both included, as slices of the segments; shorter where the
/// segments end before.
pub fn slice(segments: &[Bytes], first: u64, last: u64) -> impl Iterator<Item = Bytes> {
    let end = last.saturating_add(1);
    let mut offset = 0_u64;
    segments
        .iter()
        .map(move |segment| {
            let start = offset;
            offset = offset.saturating_add(segment.len() as u64);
            (start, segment)
        })
        .take_while(move |(start, _)| *start < end)
        .filter_map(move |(start, segment)| {
            // Both are at most the segment's length.
            let within = |offset: u64| offset.saturating_sub(start).min(segment.len() as u64) as usize;
            let (from, to) = (within(first), within(end));
            (from < to).then(|| segment.slice(from..to))
        })
}

/// RFC 9110 §15.3.7: the fields that a 200 would have had.
fn head_of(stored: &Fields, is_kept: impl Fn(&[u8]) -> bool) -> BytesMut {
    let mut out = BytesMut::with_capacity(512);
    encode::status_line(&mut out, 206, b"Partial Content");
    for (name, value) in stored.iter() {
        if is_kept(name) && !NOT_OF_A_PART.has(name) {
            encode::field(&mut out, name, value);
        }
    }
    out
}

fn content_range(out: &mut BytesMut, span: Span, complete: u64) {
    // Writing into memory does not fail.
    let _ = write!(out, "Content-Range: bytes {}-{}/{complete}\r\n", span.first, span.last);
}

fn content_length(out: &mut BytesMut, bytes: u64) {
    let _ = write!(out, "Content-Length: {bytes}\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stored() -> Fields {
        Fields::from_pairs([
            ("Date", "Sun, 06 Nov 1994 08:49:37 GMT"),
            ("content-type", "text/plain"),
            ("ETag", "\"a\""),
            ("Content-Length", "10"),
            ("Content-Range", "bytes 0-9/10"),
            ("Content-Digest", "sha-256=:AAAA:"),
            ("Repr-Digest", "sha-256=:AAAA:"),
        ])
    }

    fn segments(sizes: &[usize]) -> Vec<Bytes> {
        let mut bytes = (0..=u8::MAX).cycle();
        sizes.iter().map(|size| bytes.by_ref().take(*size).collect()).collect()
    }

    fn text(pieces: impl Iterator<Item = Bytes>) -> String {
        pieces.map(|piece| String::from_utf8(piece.to_vec()).unwrap()).collect()
    }

    #[test]
    fn one_range_is_told_in_the_head_rfc9110_15_3_7_1() {
        let partial = Partial::single(&stored(), Span { first: 2, last: 5 }, 10);
        let expected = "HTTP/1.1 206 Partial Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            content-type: text/plain\r\nETag: \"a\"\r\nRepr-Digest: sha-256=:AAAA:\r\n\
            Content-Range: bytes 2-5/10\r\nContent-Length: 4\r\n";
        assert_eq!(partial.head, expected);
        let segments = [Bytes::from("012"), Bytes::from("3456789")];
        assert_eq!(text(partial.content(&segments, 0)), "2345");
    }

    #[test]
    fn several_ranges_are_parts_with_their_own_heads_rfc9110_15_3_7_2() {
        let spans = [Span { first: 8, last: 9 }, Span { first: 0, last: 3 }];
        let partial = Partial::multiple(&stored(), &spans, 10, &Boundary::of(0xab));
        let boundary = "000000000000000000000000000000ab";
        let expected = format!(
            "--{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 8-9/10\r\n\r\n89\r\n\
             --{boundary}\r\nContent-Type: text/plain\r\nContent-Range: bytes 0-3/10\r\n\r\n0123\r\n\
             --{boundary}--\r\n"
        );
        let segments = [Bytes::from("01"), Bytes::from("23456789")];
        assert_eq!(text(partial.content(&segments, 0)), expected);
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nETag: \"a\"\r\n\
             Repr-Digest: sha-256=:AAAA:\r\nContent-Type: multipart/byteranges; boundary={boundary}\r\n\
             Content-Length: {}\r\n",
            expected.len()
        );
        assert_eq!(partial.head, head);
    }

    #[test]
    fn a_range_of_a_stored_part_is_counted_from_where_the_part_begins() {
        let segments = [Bytes::from("45"), Bytes::from("6789")];
        let partial = Partial::single(&stored(), Span { first: 5, last: 8 }, 10);
        assert_eq!(text(partial.content(&segments, 4)), "5678");
    }

    #[test]
    fn content_is_shared_and_not_copied() {
        let segments = segments(&[8, 8, 8]);
        for piece in slice(&segments, 4, 19) {
            assert!(segments.iter().any(|segment| segment.as_ptr_range().contains(&piece.as_ptr())));
        }
        assert_eq!(slice(&segments, 8, 15).count(), 1);
    }

    proptest! {
        #[test]
        fn slices_are_the_bytes_from_first_to_last(
            sizes in prop::collection::vec(0..20_usize, 0..6), first in 0..120_u64, length in 0..120_u64,
        ) {
            let segments = segments(&sizes);
            let whole = segments.concat();
            let last = first + length;
            let expected: Vec<u8> =
                whole.iter().copied().skip(first as usize).take(length as usize + 1).collect();
            let pieces: Vec<Bytes> = slice(&segments, first, last).collect();
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            prop_assert_eq!(pieces.concat(), expected);
        }

        #[test]
        fn a_content_is_as_long_as_its_content_length(
            sizes in prop::collection::vec(1..20_usize, 1..6), starts in prop::collection::vec((0..90_u64, 0..9_u64), 2..9),
            random in any::<u128>(),
        ) {
            let segments = segments(&sizes);
            let complete = sizes.iter().sum::<usize>() as u64;
            let end = complete - 1;
            let spans: Vec<Span> =
                starts.iter().map(|(first, length)| Span { first: end.min(*first), last: end.min(first + length) }).collect();
            let partial = Partial::multiple(&stored(), &spans, complete, &Boundary::of(random));
            let length: usize = partial.content(&segments, 0).map(|piece| piece.len()).sum();
            let told = format!("Content-Length: {length}\r\n");
            prop_assert!(partial.head.ends_with(told.as_bytes()));
        }

        #[test]
        fn slicing_out_of_bounds_never_panics(first in any::<u64>(), last in any::<u64>(), stored_first in any::<u64>()) {
            let segments = segments(&[3, 0, 5]);
            let bytes: usize = slice(&segments, first, last).map(|piece| piece.len()).sum();
            prop_assert!(bytes <= 8);
            let partial = Partial::single(&stored(), Span { first, last }, u64::MAX);
            prop_assert!(partial.content(&segments, stored_first).count() <= 2);
        }
    }
}
