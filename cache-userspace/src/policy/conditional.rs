//! Conditional requests that a stored response can answer: `If-None-Match` and `If-Modified-Since` (RFC 9111 §4.3.2).
//!
//! `If-Range` is left to `range`. All other preconditions are for the origin server; `eligible` lets them bypass.

use super::{
    RequestView, Stored, date,
    entity_tag::{entity_tags, only, opaque},
};
use crate::http1::{Fields, Names};

/// The fields of a 304 that a stored response must repeat if it has them (RFC 9110 §15.4.5); Last-Modified helps
/// caches without entity tags, and Set-Cookie must not get lost where a 200 would have brought it.
const NOT_MODIFIED_FIELDS: Names = Names::of(&[
    "cache-control",
    "content-location",
    "date",
    "etag",
    "expires",
    "vary",
    "last-modified",
    "set-cookie",
]);

/// Whether a field of a stored response belongs into a 304 made of it.
pub fn is_kept_in_not_modified(name: &[u8]) -> bool {
    NOT_MODIFIED_FIELDS.has(name)
}

/// Whether the precondition of a request is one that a cache may evaluate and that can be read with certainty.
pub(super) fn is_readable(name: &[u8], value: &[u8]) -> bool {
    if name.eq_ignore_ascii_case(b"if-none-match") {
        value == b"*" || entity_tags(value).is_some_and(|mut tags| tags.next().is_some())
    } else {
        name.eq_ignore_ascii_case(b"if-modified-since") || name.eq_ignore_ascii_case(b"if-range")
    }
}

/// Whether a fresh stored response answers the request with 304: the client has it already.
///
/// `wall` is now, in unix seconds. RFC 9110 §13.2.2: `If-None-Match` decides alone where it is present; §13.2.1: only
/// where the answer without the condition would be successful.
pub fn is_not_modified(request: &RequestView<'_>, stored: &Stored, wall: i64) -> bool {
    if !(200..300).contains(&stored.status) {
        return false;
    }
    if request.fields.contains("if-none-match") {
        return names_stored(request.fields, stored);
    }
    let mut lines = request.fields.values("if-modified-since");
    // RFC 9110 §13.1.3: a recipient MUST ignore the field if it is no valid date, or has more than one member.
    let (Some(line), None) = (lines.next(), lines.next()) else { return false };
    let Some(since) = date::parse(line, wall) else { return false };
    // RFC 9111 §4.3.2: without Last-Modified the Date of the stored response is compared.
    let modified = match only(&stored.fields, "last-modified") {
        Some(value) => date::parse(value, wall),
        None => Some(stored.date),
    };
    modified.is_some_and(|modified| modified <= since)
}

/// RFC 9110 §13.1.2: weak comparison with any of the tags listed, or `*`.
fn names_stored(request: &Fields, stored: &Stored) -> bool {
    let own = only(&stored.fields, "etag").map(opaque);
    request.values("if-none-match").any(|value| {
        value == b"*"
            || own.is_some_and(|own| entity_tags(value).into_iter().flatten().any(|tag| opaque(tag) == own))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Now, ResponseView, Rules, store};

    const NOW: Now = Now { boot: std::time::Duration::from_secs(1000), wall: 784_111_777 };

    fn stored(status: u16, pairs: &[(&str, &str)]) -> Stored {
        let request = Fields::from_pairs([("host", "a")]);
        let request = RequestView { method: b"GET", target: b"/", fields: &request };
        let fields = Fields::from_pairs([("cache-control", "max-age=60")].iter().chain(pairs).copied());
        let response = ResponseView { status, fields: &fields, delimited_by_close: false };
        store(&request, &response, &Rules::default(), NOW, NOW).unwrap()
    }

    fn matches(asked: &[(&str, &str)], stored: &Stored) -> bool {
        let fields = Fields::from_pairs(asked.iter().copied());
        is_not_modified(&RequestView { method: b"GET", target: b"/", fields: &fields }, stored, NOW.wall)
    }

    #[test]
    fn entity_tags_are_compared_weakly_rfc9110_13_1_2() {
        let strong = stored(200, &[("etag", "\"a,b\"")]);
        let weak = stored(200, &[("ETag", "W/\"a,b\"")]);
        for (list, expected) in [
            ("\"a,b\"", true),
            ("W/\"a,b\"", true),
            ("\"x\", \"a,b\"", true),
            ("\"x\",W/\"a,b\" , \"y\"", true),
            (", \"a,b\"", true),
            ("*", true),
            ("\"a\"", false),
            ("\"A,B\"", false),
            ("\"x\"", false),
        ] {
            assert_eq!(matches(&[("If-None-Match", list)], &strong), expected, "{list}");
            assert_eq!(matches(&[("If-None-Match", list)], &weak), expected, "{list}");
        }
        let two = [("if-none-match", "\"x\""), ("if-none-match", "\"a,b\"")];
        assert!(matches(&two, &strong));
    }

    #[test]
    fn a_stored_response_without_one_entity_tag_matches_none() {
        for response in [stored(200, &[]), stored(200, &[("etag", "\"a\""), ("etag", "\"b\"")])] {
            assert!(!matches(&[("if-none-match", "\"a\"")], &response));
            assert!(matches(&[("if-none-match", "*")], &response));
        }
    }

    #[test]
    fn what_is_no_list_of_tags_is_left_to_the_origin() {
        for value in ["", "a", "\"a", "\"a\" \"b\"", "\"a b\"", "\"a\"x", "w/\"a\"", "*, \"a\""] {
            assert!(!is_readable(b"If-None-Match", value.as_bytes()), "{value}");
        }
        for value in ["*", "\"\"", "\"a\"", "W/\"a\", \"b\""] {
            assert!(is_readable(b"If-None-Match", value.as_bytes()), "{value}");
        }
        for name in ["If-Match", "If-Unmodified-Since", "If"] {
            assert!(!is_readable(name.as_bytes(), b"*"), "{name}");
        }
    }

    #[test]
    fn if_none_match_decides_alone_rfc9110_13_2_2() {
        let response = stored(200, &[("etag", "\"a\""), ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT")]);
        let later = ("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert!(matches(&[later], &response));
        assert!(!matches(&[later, ("if-none-match", "\"b\"")], &response));
    }

    #[test]
    fn dates_are_compared_with_last_modified_or_else_with_date_rfc9111_4_3_2() {
        let modified = stored(200, &[("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT")]);
        let dated = stored(200, &[("date", "Sun, 06 Nov 1994 08:49:30 GMT")]);
        for (since, of_modified, of_dated) in [
            ("Sun, 06 Nov 1994 07:59:59 GMT", false, false),
            ("Sun, 06 Nov 1994 08:00:00 GMT", true, false),
            ("Sun, 06 Nov 1994 08:49:30 GMT", true, true),
            ("yesterday", false, false),
            ("0", false, false),
        ] {
            assert_eq!(matches(&[("If-Modified-Since", since)], &modified), of_modified, "{since}");
            assert_eq!(matches(&[("If-Modified-Since", since)], &dated), of_dated, "{since}");
        }
        let broken = stored(200, &[("last-modified", "0")]);
        assert!(!matches(&[("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT")], &broken));
        let twice = [("if-modified-since", "Sun, 06 Nov 1994 08:49:37 GMT"); 2];
        assert!(!matches(&twice, &modified));
    }

    #[test]
    fn conditions_are_ignored_where_the_answer_is_no_success_rfc9110_13_2_1() {
        let missing = stored(404, &[("etag", "\"a\"")]);
        assert!(!matches(&[("if-none-match", "\"a\"")], &missing));
        assert!(!matches(&[("if-none-match", "*")], &missing));
    }
}
