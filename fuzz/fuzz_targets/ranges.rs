//! Ranges: what is planned is stored, disjoint and sliced exactly; a Content-Range that is read is valid.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use sidestep::http1::Fields;
use sidestep::policy::range::{
    ContentRange, Plan, RANGES_MAX, Span, Validators, content_range, joined, plan,
};
use sidestep::respond::parts::{Boundary, Partial, slice};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    length: u64,
    date: i64,
    /// The stored part: its offset, and what is missing after it.
    part: Option<(u8, u8)>,
    segments: [u8; 5],
    /// Whether `bytes=` stands before the first line.
    is_of_bytes: bool,
    /// Lines: Range, If-Range, ETag, Last-Modified; an empty one is absent.
    text: &'a [u8],
}

fuzz_target!(|input: Input| {
    let mut lines = input.text.split(|b| *b == b'\n').map(Some).chain(std::iter::repeat(None));
    let mut line = || lines.next().flatten().filter(|line| !line.is_empty());
    let (range, condition, etag, last_modified) = (line(), line(), line(), line());
    content_ranges(range.unwrap_or_default());
    let unit: &[u8] = if input.is_of_bytes { b"bytes=" } else { b"" };
    let range = range.map(|range| [unit, range].concat());
    let request = Fields::from_pairs(
        range.map(|v| ("Range", v)).into_iter().chain(condition.map(|v| ("If-Range", v.to_vec()))),
    );
    let stored = Validators { etag, last_modified, date: input.date };
    // Lengths that no memory holds must not overflow anything.
    let _ = plan(&request, b"GET", &stored, input.length, None);

    let segments: Vec<Bytes> = input
        .segments
        .iter()
        .enumerate()
        .map(|(at, size)| Bytes::from(vec![at as u8; usize::from(*size)]))
        .collect();
    let content = segments.concat();
    let (before, after) = input.part.map_or((0, 0), |(before, after)| (u64::from(before), u64::from(after)));
    let complete = before + content.len() as u64 + after;
    let part = match (input.part, content.len() as u64) {
        (None, _) => None,
        (Some(_), 0) => return,
        (Some(_), length) => Some(Span { first: before, last: before + length - 1 }),
    };
    let spans = match plan(&request, b"GET", &stored, complete, part) {
        Plan::Whole => return assert!(part.is_none_or(|part| part.bytes() == complete)),
        Plan::Forward => return,
        Plan::One(span) => vec![span],
        Plan::Many(spans) => spans,
    };
    assert!((1..=RANGES_MAX).contains(&spans.len()));
    let mut wanted = 0;
    for (index, span) in spans.iter().enumerate() {
        assert!(span.first <= span.last && span.last < complete);
        assert!(part.is_none_or(|part| part.holds(*span)));
        assert!(spans[index + 1..].iter().all(|other| other.last < span.first || span.last < other.first));
        let (first, last) = (span.first - before, span.last - before);
        let sliced: Vec<Bytes> = slice(&segments, first, last).collect();
        assert_eq!(sliced.concat(), content[first as usize..=last as usize]);
        wanted += span.bytes();
    }
    assert!(wanted <= content.len() as u64);
    let fields = Fields::from_pairs([("Content-Type", "text/plain"), ("Content-Length", "1")]);
    let partial = match spans.as_slice() {
        [span] => Partial::single(&fields, *span, complete),
        _ => Partial::multiple(&fields, &spans, complete, &Boundary::of(u128::from(input.length))),
    };
    let sent: usize = partial.content(&segments, before).map(|piece| piece.len()).sum();
    assert!(partial.head.ends_with(format!("\r\nContent-Length: {sent}\r\n").as_bytes()));
});

fn content_ranges(value: &[u8]) {
    for value in [value.to_vec(), [b"bytes ", value].concat()] {
        let Some(ContentRange { span, complete }) = content_range(&value) else { continue };
        assert!(span.first <= span.last && complete.is_none_or(|complete| span.last < complete));
        let length = complete.map_or("*".to_owned(), |complete| complete.to_string());
        let written = format!("bytes {}-{}/{length}", span.first, span.last);
        assert_eq!(content_range(written.as_bytes()), Some(ContentRange { span, complete }));
        assert_eq!(joined(span, span), Some(span));
    }
}
