//! The `Cache-Control` field (RFC 9111 §5.2), read over all its lines, the conservative way.
//!
//! What the directives lead to is left to `storing`, `freshness` and `decide`.

use crate::http1::{Fields, scan::is_token};

/// Largest number of seconds that is told apart: 2^31 (RFC 9111 §1.2.2).
pub const DELTA_SECONDS_MAX: u32 = 1 << 31;

/// The argument of a directive that counts seconds (RFC 9111 §1.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delta {
    /// The directive is not there.
    #[default]
    Absent,
    /// The directive is there, without one certain number: not 1*DIGIT, or two that differ (RFC 9111 §4.2.1).
    Invalid,
    /// So many seconds, at most [`DELTA_SECONDS_MAX`].
    Seconds(u32),
}

impl Delta {
    fn add(&mut self, next: Option<u32>) {
        *self = match (*self, next) {
            (Self::Absent, Some(seconds)) => Self::Seconds(seconds),
            (Self::Seconds(old), Some(seconds)) if old == seconds => Self::Seconds(seconds),
            _ => Self::Invalid,
        };
    }
}

/// Reads delta-seconds: digits only, clamped to [`DELTA_SECONDS_MAX`] (RFC 9111 §1.2.2).
pub fn delta_seconds(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let clamped = digits.iter().fold(0_u32, |sum, digit| {
        sum.saturating_mul(10).saturating_add(u32::from(digit - b'0')).min(DELTA_SECONDS_MAX)
    });
    Some(clamped)
}

/// The directives of a request or a response that this cache acts on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheControl {
    /// `no-store` (§5.2.1.5, §5.2.2.5).
    pub no_store: bool,
    /// `no-cache` (§5.2.1.4, §5.2.2.4); with field names it counts as without.
    pub no_cache: bool,
    /// `private` (§5.2.2.7); with field names it counts as without.
    pub private: bool,
    /// `public` (§5.2.2.9).
    pub public: bool,
    /// `must-revalidate` (§5.2.2.2).
    pub must_revalidate: bool,
    /// `proxy-revalidate` (§5.2.2.8).
    pub proxy_revalidate: bool,
    /// `must-understand` (§5.2.2.3).
    pub must_understand: bool,
    /// `immutable` (RFC 8246 §2).
    pub immutable: bool,
    /// `only-if-cached` (§5.2.1.7).
    pub only_if_cached: bool,
    /// `max-age` (§5.2.1.1, §5.2.2.1).
    pub max_age: Delta,
    /// `s-maxage` (§5.2.2.10).
    pub s_maxage: Delta,
    /// `min-fresh` (§5.2.1.3).
    pub min_fresh: Delta,
    /// `stale-while-revalidate` (RFC 5861 §3).
    pub stale_while_revalidate: Delta,
    /// `stale-if-error` (RFC 5861 §4).
    pub stale_if_error: Delta,
    /// Whether quoting or structure leave doubt about which directives were meant.
    pub malformed: bool,
}

impl CacheControl {
    /// Reads all lines of `Cache-Control`.
    pub fn of(fields: &Fields) -> Self {
        let mut directives = Self::default();
        for value in fields.values("cache-control") {
            directives.read(value);
        }
        directives
    }

    fn read(&mut self, value: &[u8]) {
        let mut rest = value;
        loop {
            rest = trim_start(rest, |b| is_ows(b) || b == b',');
            if rest.is_empty() {
                return;
            }
            let (name, after) = split_while(rest, is_token);
            let (argument, after) = Argument::read(after);
            let (junk, after) = split_while(after, |b| b != b',');
            rest = after;
            // A quote out of place may hide a directive or show one that was never meant.
            self.malformed |=
                name.is_empty() || matches!(argument, Argument::Unterminated) || junk.contains(&b'"');
            let argument = if junk.trim_ascii().is_empty() { argument } else { Argument::Unreadable };
            self.take(name, argument);
            self.take_forbidding(junk);
        }
    }

    /// Where a comma was forgotten (`immutable private`, `max-age=9; no-store`), what forbids was still meant.
    fn take_forbidding(&mut self, junk: &[u8]) {
        for word in junk.split(|b| !is_token(*b)) {
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            self.no_store |= is("no-store");
            self.no_cache |= is("no-cache");
            self.private |= is("private");
            // Not `must-revalidate`: it permits as well (§3.5).
            self.proxy_revalidate |= is("must-revalidate") || is("proxy-revalidate");
        }
    }

    /// Directives that forbid count however they are spelled; those that permit must be exact.
    fn take(&mut self, name: &[u8], argument: Argument<'_>) {
        let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
        if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.no_cache = true;
        } else if is("private") {
            self.private = true;
        } else if is("only-if-cached") {
            self.only_if_cached = true;
        } else if is("public") {
            self.public = true;
            self.malformed |= argument != Argument::None;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
            self.malformed |= argument != Argument::None;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("must-understand") {
            self.must_understand = true;
            // It lifts no-store (§5.2.2.3).
            self.malformed |= argument != Argument::None;
        } else if is("immutable") {
            self.immutable |= argument == Argument::None;
        } else if is("max-age") {
            self.max_age.add(argument.seconds());
        } else if is("s-maxage") {
            self.s_maxage.add(argument.seconds());
        } else if is("min-fresh") {
            self.min_fresh.add(argument.seconds());
        } else if is("stale-while-revalidate") {
            self.stale_while_revalidate.add(argument.seconds());
        } else if is("stale-if-error") {
            self.stale_if_error.add(argument.seconds());
        }
    }
}

/// What follows a directive's name (RFC 9111 §5.2: token and quoted-string are both to be understood).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Argument<'a> {
    None,
    Given(&'a [u8]),
    Unreadable,
    Unterminated,
}

impl<'a> Argument<'a> {
    fn read(text: &'a [u8]) -> (Self, &'a [u8]) {
        match text {
            [b'=', b'"', rest @ ..] => match quoted_end(rest) {
                Some(end) => {
                    let (content, after) = rest.split_at_checked(end).unwrap_or((rest, &[]));
                    (Self::Given(content), after.get(1..).unwrap_or_default())
                }
                None => (Self::Unterminated, &[]),
            },
            [b'=', rest @ ..] => {
                let (token, after) = split_while(rest, is_token);
                (Self::Given(token), after)
            }
            _ => (Self::None, text),
        }
    }

    fn seconds(self) -> Option<u32> {
        match self {
            Self::Given(digits) => delta_seconds(digits),
            _ => None,
        }
    }
}

/// Where the closing quote stands (RFC 9110 §5.6.4).
fn quoted_end(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}

fn split_while(text: &[u8], take: impl Fn(u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| !take(*b)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, &[]))
}

fn trim_start(text: &[u8], drop: impl Fn(u8) -> bool) -> &[u8] {
    split_while(text, drop).1
}

fn is_ows(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> CacheControl {
        CacheControl::of(&Fields::from_pairs(lines.iter().map(|line| ("Cache-Control", line))))
    }

    #[test]
    fn directive_names_are_read_without_case_over_several_lines_rfc9111_5_2() {
        let read = read(&["MAX-AGE=60", " , NO-Store ,, pUBLIC", "S-MaxAge=\"7\""]);
        assert!(read.no_store && read.public && !read.malformed);
        assert_eq!((read.max_age, read.s_maxage), (Delta::Seconds(60), Delta::Seconds(7)));
    }

    #[test]
    fn commas_and_escapes_inside_a_quoted_argument_are_part_of_it_rfc9110_5_6_4() {
        let read = read(&[r#"ext="no-store, \", private", max-age=5"#]);
        assert!(!read.no_store && !read.private && !read.malformed);
        assert_eq!(read.max_age, Delta::Seconds(5));
    }

    #[test]
    fn field_names_as_arguments_do_not_narrow_a_prohibition() {
        let read = read(&[r#"private="set-cookie, x", no-cache=foo"#]);
        assert!(read.private && read.no_cache && !read.malformed);
    }

    #[test]
    fn what_forbids_is_found_behind_a_forgotten_comma() {
        for line in
            ["immutable no-store, max-age=60", "a;No-Store, max-age=60", "x=y z no-store;a, max-age=60"]
        {
            assert!(read(&[line]).no_store, "{line}");
        }
        assert!(read(&["max-age=60, immutable Private"]).private);
        assert!(read(&["max-age=60, stale-if-error=5 no-cache=\"x\""]).no_cache);
        assert!(!read(&["a no-storey, max-age=60"]).no_store);
    }

    #[test]
    fn doubtful_quoting_is_malformed() {
        for line in
            [r#"ext="open, no-store"#, r#"a"b, no-store, c""#, r#""no-store""#, "=1", "public=1", r#"x=a"b"#]
        {
            assert!(read(&[line]).malformed, "{line}");
        }
        assert!(!read(&["a=b c, d e, max-age=1"]).malformed);
    }

    #[test]
    fn numbers_that_are_not_one_certain_number_are_invalid_rfc9111_4_2_1() {
        for line in [
            "max-age",
            "max-age=",
            "max-age=-1",
            "max-age=1.5",
            "max-age=1 s",
            "max-age =1",
            "max-age= 1",
            "max-age='1'",
            "max-age=\"\"",
            "max-age=1, max-age=2",
            "max-age=x, max-age=2",
            "max-age=0x10",
            "max-age=1;no-store",
        ] {
            assert_eq!(read(&[line]).max_age, Delta::Invalid, "{line}");
        }
    }

    #[test]
    fn numbers_are_clamped_and_equal_duplicates_agree_rfc9111_1_2_2() {
        assert_eq!(read(&["max-age=99999999999999999999999"]).max_age, Delta::Seconds(DELTA_SECONDS_MAX));
        assert_eq!(read(&["max-age=2147483649"]).max_age, Delta::Seconds(DELTA_SECONDS_MAX));
        assert_eq!(read(&["max-age=010", "max-age=10"]).max_age, Delta::Seconds(10));
    }
}
