//! Random messages that are well-formed, as they stand on the wire and as they are to be understood.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

/// A name and a value; text is Latin-1, as in [`crate::simulated::Message`].
pub(crate) type Pair = (String, String);

/// Shows a property on so many random values, in one runtime; `PROPTEST_CASES` asks for another number of them.
pub(crate) fn holds<S: Strategy>(cases: u32, values: S, property: impl AsyncFn(S::Value)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|number| number.parse().ok());
    let cases = asked.unwrap_or(cases);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 500, ..Config::default() };
    let shown = TestRunner::new(config).run(&values, |value| {
        runtime.block_on(property(value));
        Ok(())
    });
    if let Err(fault) = shown {
        panic!("{fault}");
    }
}

/// The bytes of Latin-1 text.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

/// The word with some of its letters in the other case.
fn recased(word: &str, mask: u32) -> String {
    let flip = |(index, letter): (usize, char)| {
        if mask >> (index % 32) & 1 == 1 { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() }
    };
    word.chars().enumerate().map(flip).collect()
}

/// One field line.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pair: Pair,
    /// White space around the value.
    around: (String, String),
    is_end_to_end: bool,
}

fn line(
    name: impl Strategy<Value = String>,
    value: impl Strategy<Value = String>,
) -> impl Strategy<Value = Line> {
    (name, any::<u32>(), value, "[ \t]{0,3}", "[ \t]{0,3}").prop_map(|(name, mask, value, before, after)| {
        Line { pair: (recased(&name, mask), value), around: (before, after), is_end_to_end: true }
    })
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[!-~\u{80}-\u{ff}]([ \t!-~\u{80}-\u{ff}]{0,30}[!-~\u{80}-\u{ff}])?",
        1 => Just(String::new()),
        1 => "[!-~]{2000}",
    ]
}

fn end_to_end(known: &'static [&'static str]) -> impl Strategy<Value = Line> {
    let known = select(known).prop_map(str::to_owned);
    line(prop_oneof!["X-[A-Za-z0-9!#$%&'*+.^_`|~-]{0,10}", known], value())
}

fn hop_by_hop() -> impl Strategy<Value = Line> {
    let pair = select(vec![
        ("Connection", "keep-alive"),
        ("Connection", "Keep-Alive, x-HOP,"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
    ]);
    pair.prop_flat_map(|(name, value)| line(Just(name.to_owned()), Just(value.to_owned())))
        .prop_map(|line| Line { is_end_to_end: false, ..line })
}

fn lines(known: &'static [&'static str]) -> impl Strategy<Value = Vec<Line>> {
    vec(prop_oneof![6 => end_to_end(known), 1 => hop_by_hop()], 0..8)
}

fn trailers() -> impl Strategy<Value = Vec<Pair>> {
    prop_oneof![2 => Just(Vec::new()), 1 => vec(("X-[A-Za-z0-9-]{1,10}", "[!-~]{1,20}"), 1..4)]
}

/// Content, and how it is framed.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// Not at all.
    None,
    /// By its length.
    Length(Vec<u8>),
    /// In chunks, with an extension on each.
    Chunks(Vec<Vec<u8>>, String, Vec<Pair>),
    /// By the end of the connection.
    UntilClose(Vec<u8>),
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 1..300),
        1 => (any::<u8>(), 10_000..200_000_usize).prop_map(|(byte, count)| vec![byte; count]),
        // Content that looks like the next message.
        1 => Just(b"GET /smuggled HTTP/1.1\r\nHost: origin.test\r\n\r\n".to_vec()),
        1 => Just(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n0\r\n\r\n".to_vec()),
    ]
}

fn content(may_be_until_close: bool) -> impl Strategy<Value = Content> {
    let until_close = u32::from(may_be_until_close);
    prop_oneof![
        2 => Just(Content::None),
        1 => Just(Content::Length(Vec::new())),
        3 => data().prop_map(Content::Length),
        4 => (vec(data(), 0..6), "(;[a-z]{1,5}(=[a-z0-9]{1,5})?)?", trailers())
            .prop_map(|(chunks, extension, trailers)| Content::Chunks(chunks, extension, trailers)),
        until_close => data().prop_map(Content::UntilClose),
    ]
}

impl Content {
    /// The bytes of content.
    pub(crate) fn whole(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Length(content) | Self::UntilClose(content) => content.clone(),
            Self::Chunks(chunks, ..) => chunks.concat(),
        }
    }

    /// The trailer fields.
    pub(crate) fn trailers(&self) -> &[Pair] {
        if let Self::Chunks(_, _, trailers) = self { trailers } else { &[] }
    }

    fn field(&self) -> Option<Pair> {
        match self {
            Self::None | Self::UntilClose(_) => None,
            Self::Length(content) => Some(("Content-Length".to_owned(), content.len().to_string())),
            Self::Chunks(..) => Some(("Transfer-Encoding".to_owned(), "chunked".to_owned())),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::None => {}
            Self::Length(content) | Self::UntilClose(content) => out.extend_from_slice(content),
            Self::Chunks(chunks, extension, trailers) => {
                for chunk in chunks {
                    out.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
                    out.extend_from_slice(chunk);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
                }
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// A message of either kind.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    /// The start line.
    pub(crate) start: String,
    /// The content.
    pub(crate) content: Content,
    lines: Vec<Line>,
}

impl Random {
    /// The message on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.start);
        for Line { pair: (name, value), around: (before, after), .. } in &self.lines {
            text.push_str(&format!("{name}:{before}{value}{after}\r\n"));
        }
        let mut out = bytes(&text);
        out.extend_from_slice(b"\r\n");
        self.content.write(&mut out);
        out
    }

    /// The fields that the other end is to see.
    pub(crate) fn end_to_end(&self) -> Vec<Pair> {
        self.lines.iter().filter(|line| line.is_end_to_end).map(|line| line.pair.clone()).collect()
    }

    fn with(start: String, mut lines: Vec<Line>, content: Content, more: Vec<(Pair, Index, u32)>) -> Self {
        for ((name, value), at, mask) in more {
            let pair = (recased(&name, mask), value);
            let at = at.index(lines.len() + 1);
            lines.insert(at, Line { pair, around: (" ".into(), String::new()), is_end_to_end: true });
        }
        Self { start, content, lines }
    }
}

/// A request that is to be forwarded.
pub(crate) fn request() -> impl Strategy<Value = Random> {
    const KNOWN: &[&str] =
        &["Accept", "User-Agent", "Cookie", "Accept-Encoding", "Referer", "Origin", "Pragma"];
    let method = select(vec!["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE", "get", "M-SEARCH"]);
    let target = "/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]{0,40}";
    let places = (any::<Index>(), any::<Index>(), any::<u32>());
    (method, target, lines(KNOWN), content(false), places).prop_map(
        |(method, target, lines, content, (host_at, framing_at, mask))| {
            let mut more = vec![(("Host".to_owned(), "origin.test".to_owned()), host_at, mask)];
            more.extend(content.field().map(|field| (field, framing_at, mask)));
            Random::with(format!("{method} {target} HTTP/1.1"), lines, content, more)
        },
    )
}

/// A final response that has content, or could have.
pub(crate) fn response() -> impl Strategy<Value = Random> {
    const KNOWN: &[&str] =
        &["Server", "ETag", "Content-Type", "Link", "Warning", "Location", "Content-Language"];
    let status = select(vec![200_u16, 201, 203, 206, 299, 300, 301, 404, 410, 418, 500, 503, 599]);
    let reason = "[!-~\u{80}-\u{ff} ]{0,20}";
    let directive =
        select(vec![None, Some("no-store"), Some("max-age=60"), Some("public, max-age=60"), Some("private")]);
    let places = (any::<Index>(), any::<Index>(), any::<u32>());
    (status, reason, lines(KNOWN), content(true), directive, places).prop_map(
        |(status, reason, lines, content, directive, (control_at, framing_at, mask))| {
            let content =
                if matches!(content, Content::None) { Content::Length(Vec::new()) } else { content };
            let mut more: Vec<_> =
                content.field().map(|field| (field, framing_at, mask)).into_iter().collect();
            let control = directive.map(|value| ("Cache-Control".to_owned(), value.to_owned()));
            more.extend(control.map(|field| (field, control_at, mask)));
            Random::with(format!("HTTP/1.1 {status} {reason}"), lines, content, more)
        },
    )
}

/// An interim response.
pub(crate) fn interim() -> impl Strategy<Value = Random> {
    (select(vec!["102 Processing", "103 Early Hints", "199 x"]), vec(end_to_end(&["Link"]), 0..3)).prop_map(
        |(status, lines)| Random::with(format!("HTTP/1.1 {status}"), lines, Content::None, Vec::new()),
    )
}

/// Lengths of writes.
pub(crate) fn pieces() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        2 => Just(vec![usize::MAX]),
        2 => vec(1..100_usize, 1..10).prop_map(|mut pieces| { pieces.push(20_000); pieces }),
        1 => vec(1..5_usize, 1..30).prop_map(|mut pieces| { pieces.push(50_000); pieces }),
    ]
}
