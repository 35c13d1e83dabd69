//! Byte ranges (RFC 9110 §14): which part of a stored response a request asks for, and where a stored part stands.
//!
//! Whether the stored response may be used at all is left to `decide`, the 206 itself to `respond::parts`. The answer
//! without `Range` must be a 200 (§14.2): the caller sees to that.

use super::{date, freshness::is_strong};
use crate::http1::Fields;

/// The most ranges that are answered in one response; more are forwarded (RFC 9110 §17.15).
pub const RANGES_MAX: usize = 16;

/// What of a stored response answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// All of it.
    Whole,
    /// One range: a 206 with Content-Range (RFC 9110 §15.3.7.1).
    One(Span),
    /// Two to [`RANGES_MAX`] ranges that do not overlap, in the order asked for: a multipart 206 (RFC 9110 §15.3.7.2).
    Many(Vec<Span>),
    /// None of it: the ranges cannot be satisfied, are too many, overlap, leave doubt, or are not all stored.
    Forward,
}

/// A range of bytes of a complete representation, both ends included; `first` is not after `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub first: u64,
    /// Offset of the last byte.
    pub last: u64,
}

impl Span {
    /// How many bytes it covers.
    pub fn bytes(self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Whether all bytes of `other` are among these.
    pub fn holds(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// What `If-Range` is compared with: the validators of the stored response.
#[derive(Clone, Copy, Debug, Default)]
pub struct Validators<'a> {
    /// Its ETag, where there is exactly one line.
    pub etag: Option<&'a [u8]>,
    /// Its Last-Modified, where there is exactly one line.
    pub last_modified: Option<&'a [u8]>,
    /// Its Date, unix seconds.
    pub date: i64,
}

impl<'a> Validators<'a> {
    /// Reads them off a stored response's fields; `date` is its Date in unix seconds.
    pub fn of(stored: &'a Fields, date: i64) -> Self {
        Self { etag: only(stored, "etag"), last_modified: only(stored, "last-modified"), date }
    }

    /// Whether the condition is true (RFC 9110 §13.1.5): the strong comparison, or exactly the same strong date.
    fn are_named_by(&self, if_range: &[u8]) -> bool {
        if is_strong_tag(if_range) {
            return self.etag == Some(if_range);
        }
        let modified = || date::parse(if_range, self.date);
        self.last_modified == Some(if_range)
            && modified().is_some_and(|modified| is_strong(modified, self.date))
    }
}

/// Says what of a stored response answers a request of this method (RFC 9110 §14.2, §13.1.5).
///
/// `complete` is the length of the complete representation in bytes, `part` what of it is stored where that is not all.
pub fn plan(
    request: &Fields,
    method: &[u8],
    stored: &Validators<'_>,
    complete: u64,
    part: Option<Span>,
) -> Plan {
    let plan = asked(request, method, stored, complete);
    let Some(part) = part else { return plan };
    let is_stored = match &plan {
        Plan::Whole => part.first == 0 && part.last.checked_add(1) == Some(complete),
        Plan::One(span) => part.holds(*span),
        Plan::Many(spans) => spans.iter().all(|span| part.holds(*span)),
        Plan::Forward => false,
    };
    if is_stored { plan } else { Plan::Forward }
}

/// The same, were all of it stored.
fn asked(request: &Fields, method: &[u8], stored: &Validators<'_>, complete: u64) -> Plan {
    // RFC 9110 §14.2: Range MUST be ignored with methods for which it is not defined; GET is the only one.
    if method != b"GET" {
        return Plan::Whole;
    }
    let mut lines = request.values("range");
    let Some(value) = lines.next() else { return Plan::Whole };
    // RFC 9110 §13.1.5: if the condition is false, Range MUST be ignored.
    let mut conditions = request.values("if-range");
    match (conditions.next(), conditions.next()) {
        (None, _) => {}
        (Some(condition), None) if stored.are_named_by(condition) => {}
        _ => return Plan::Whole,
    }
    if lines.next().is_some() {
        return Plan::Forward;
    }
    // RFC 9110 §14.2: Range MAY be ignored where there is no content.
    if complete == 0 {
        return Plan::Whole;
    }
    // RFC 9110 §14.2: a unit that is not understood is ignored, an invalid ranges-specifier MAY be.
    let Some(mut specs) = specs(value) else { return Plan::Whole };
    let mut spans: Vec<Span> = Vec::new();
    for asked_for in 0.. {
        let Some(spec) = specs.next() else { break };
        let Some(spec) = Spec::read(spec) else { return Plan::Whole };
        if asked_for == RANGES_MAX {
            return Plan::Forward;
        }
        // RFC 9110 §15.3.7.2: those that cannot be satisfied are left out.
        let Some(span) = spec.within(complete) else { continue };
        // RFC 9110 §17.15: overlapping ranges ask for more than there is.
        if spans.iter().any(|other| other.overlaps(span)) {
            return Plan::Forward;
        }
        spans.push(span);
    }
    match spans.as_slice() {
        // RFC 9110 §15.5.17: whether that is a 416 is for the origin to say.
        [] => Plan::Forward,
        [span] => Plan::One(*span),
        _ => Plan::Many(spans),
    }
}

/// One range-spec of the unit `bytes` (RFC 9110 §14.1.2).
enum Spec {
    From(u64, Option<u64>),
    Suffix(u64),
}

impl Spec {
    fn read(spec: &[u8]) -> Option<Self> {
        let dash = spec.iter().position(|b| *b == b'-')?;
        let (first, last) = (spec.get(..dash)?, spec.get(dash + 1..)?);
        match (first.is_empty(), last.is_empty()) {
            (true, _) => Some(Self::Suffix(number(last)?)),
            (false, true) => Some(Self::From(number(first)?, None)),
            (false, false) => {
                let (first, last) = (number(first)?, number(last)?);
                // RFC 9110 §14.1.1: invalid if the last position is before the first.
                (first <= last).then_some(Self::From(first, Some(last)))
            }
        }
    }

    /// The bytes it means; `None` where it cannot be satisfied. `complete` is not zero.
    fn within(self, complete: u64) -> Option<Span> {
        let end = complete.checked_sub(1)?;
        match self {
            Self::From(first, last) => {
                (first <= end).then(|| Span { first, last: last.map_or(end, |last| last.min(end)) })
            }
            Self::Suffix(length) => {
                (length > 0).then(|| Span { first: complete.saturating_sub(length), last: end })
            }
        }
    }
}

/// The members of a Range of the unit `bytes` (without case, RFC 9110 §14.1); `None` for other units and for no list.
fn specs(value: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let equals = value.iter().position(|b| *b == b'=')?;
    let (unit, set) = (value.get(..equals)?, value.get(equals + 1..)?);
    let mut members = set.split(|b| *b == b',').map(trim_ows).filter(|m| !m.is_empty());
    // RFC 9110 §5.6.1: white space stands around commas only.
    let begins_blank = set.first().is_some_and(|b| is_ows(*b)) && !set.trim_ascii_start().starts_with(b",");
    let first = members.next().filter(|_| unit.eq_ignore_ascii_case(b"bytes") && !begins_blank)?;
    Some(std::iter::once(first).chain(members))
}

/// Where content stands in its complete representation (RFC 9110 §14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes that are there.
    pub span: Span,
    /// The complete length in bytes, where it is known; greater than `span.last`.
    pub complete: Option<u64>,
}

/// Reads a Content-Range (RFC 9110 §14.4); `None` for other units than `bytes`, for `bytes */N`, and for invalid ones.
pub fn content_range(value: &[u8]) -> Option<ContentRange> {
    let (unit, rest) = value.split_at_checked(b"bytes ".len())?;
    unit.eq_ignore_ascii_case(b"bytes ").then_some(())?;
    let (slash, dash) = (rest.iter().position(|b| *b == b'/')?, rest.iter().position(|b| *b == b'-')?);
    let (first, last) = (exact_number(rest.get(..dash)?)?, exact_number(rest.get(dash + 1..slash)?)?);
    let complete = match rest.get(slash + 1..)? {
        b"*" => None,
        digits => Some(exact_number(digits)?),
    };
    let is_valid = first <= last && complete.is_none_or(|complete| complete > last);
    is_valid.then_some(ContentRange { span: Span { first, last }, complete })
}

/// The bytes of two parts together, where they touch or overlap.
///
/// RFC 9110 §15.3.7.3: only parts with the same strong validator may be combined; the caller sees to that.
pub fn joined(a: Span, b: Span) -> Option<Span> {
    let touch = a.first <= b.last.saturating_add(1) && b.first <= a.last.saturating_add(1);
    touch.then(|| Span { first: a.first.min(b.first), last: a.last.max(b.last) })
}

/// Reads digits; more than fits counts as the greatest number there is (RFC 9110 §14.1.2: no overflow).
fn number(digits: &[u8]) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    is_number.then(|| {
        digits.iter().fold(0_u64, |sum, b| sum.saturating_mul(10).saturating_add(u64::from(b - b'0')))
    })
}

/// The same, where a number that does not fit is none.
fn exact_number(digits: &[u8]) -> Option<u64> {
    number(digits).filter(|number| *number < u64::MAX)
}

/// Whether a value is one entity tag that is not weak (RFC 9110 §8.8.3).
fn is_strong_tag(value: &[u8]) -> bool {
    let inner = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    inner.is_some_and(|inner| inner.iter().all(|b| *b > b' ' && *b != b'"' && *b != 127))
}

fn only<'a>(fields: &'a Fields, name: &'static str) -> Option<&'a [u8]> {
    let mut lines = fields.values(name);
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

fn trim_ows(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_ows(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_ows(*last)
    {
        text = rest;
    }
    text
}

fn is_ows(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
#[path = "range_tests.rs"]
mod tests;
