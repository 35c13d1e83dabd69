//! The fields of a response that are kept (RFC 9111 §3.1), copied so that nothing of the wire's buffer is pinned.
//!
//! Whether the response is stored at all is left to `storing`.

use std::collections::BTreeSet;

use super::{Reason, date};
use crate::http1::{Fields, Names, head::FIELD_LINES_MAX};

/// Fields that are never stored: hop-by-hop (RFC 9110 §7.6.1), for a proxy (RFC 9111 §3.1), and Age, which
/// each answer gets anew.
const NEVER_KEPT: Names = Names::of(&[
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "http2-settings",
    "age",
]);

/// Fields that are meant for all recipients, whatever Connection says (RFC 9110 §7.6.1): without them the response
/// would be kept for longer, given to others, or read as something else.
const NEVER_NOMINATED: Names = Names::of(&[
    "cache-control",
    "sidestep-cache-control",
    "cdn-cache-control",
    "pragma",
    "expires",
    "vary",
    "etag",
    "last-modified",
    "content-type",
    "content-encoding",
    "cache-groups",
]);

/// Fields that an update leaves as they are (RFC 9111 §3.2).
const NEVER_UPDATED: Names = Names::of(&["content-length", "content-range"]);

/// Fields that describe the very bytes that are stored: who says otherwise of them speaks of other bytes.
const OF_THE_CONTENT: [&str; 5] =
    ["content-encoding", "content-md5", "content-digest", "repr-digest", "digest"];

/// Field lines of a response that was updated: those of the head that came first and of an update with other names.
const UPDATED_LINES_MAX: usize = 2 * FIELD_LINES_MAX;

/// Bytes of their names and values.
const UPDATED_BYTES_MAX: usize = 128 << 10;

/// Copies what is kept into one allocation of exactly its size; `date` (unix seconds) becomes the Date of a response
/// without one (RFC 9110 §6.6.1). Of a part, Content-Range is left out: each answer gets its own.
pub(super) fn kept(fields: &Fields, date: i64, is_part: bool) -> Fields {
    // Collected once: a head has room for 30 000 options, and each field is compared with them.
    let options: BTreeSet<Vec<u8>> = fields.tokens("connection").map(<[u8]>::to_ascii_lowercase).collect();
    let nominated = |name: &[u8]| {
        !options.is_empty() && options.contains(&name.to_ascii_lowercase()) && !NEVER_NOMINATED.has(name)
    };
    let is_kept = |name: &[u8]| {
        let is_of_part = is_part && name.eq_ignore_ascii_case(b"content-range");
        !(is_of_part || NEVER_KEPT.has(name) || nominated(name))
    };
    let date = (!fields.contains("date") || nominated(b"date")).then(|| date::format(date));
    let date = date.as_deref().map(|date| (b"Date".as_slice(), date.as_bytes()));
    let mut pairs = Vec::with_capacity(fields.len() + 1);
    pairs.extend(fields.iter().filter(|(name, _)| is_kept(name)));
    pairs.extend(date);
    Fields::copied(&pairs)
}

/// The fields of a stored response after an update (RFC 9111 §3.2): those of `updates`, which were already reduced to
/// what is kept, replace all lines of their names.
pub(super) fn updated(stored: &Fields, updates: &Fields) -> Fields {
    let is_replaced = |name: &[u8]| {
        updates.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) && !NEVER_UPDATED.has(name)
    };
    let old = stored.iter().filter(|(name, _)| !is_replaced(name));
    let new = updates.iter().filter(|(name, _)| !NEVER_UPDATED.has(name));
    Fields::from_pairs(old.chain(new))
}

/// Refuses (`too-large`) fields to which updates added more than they may: no series of them makes a head grow for ever.
pub(super) fn bounded(updated: &Fields) -> Result<(), Reason> {
    let bytes: usize = updated.iter().map(|(name, value)| name.len() + value.len()).sum();
    let is_bounded = updated.len() <= UPDATED_LINES_MAX && bytes <= UPDATED_BYTES_MAX;
    if is_bounded { Ok(()) } else { Err(Reason::TooLarge) }
}

/// Whether the fields that arrive are about other bytes than those that are stored.
pub(super) fn is_of_other_content(stored: &Fields, arrived: &Fields) -> bool {
    let is_other = |name: &str| arrived.contains(name) && !arrived.values(name).eq(stored.values(name));
    OF_THE_CONTENT.iter().any(|name| is_other(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_replaces_all_lines_of_a_name_rfc9111_3_2() {
        let stored = Fields::from_pairs([
            ("X", "1"),
            ("x", "2"),
            ("Y", "3"),
            ("Content-Length", "5"),
            ("Content-Type", "a/b"),
        ]);
        let updates = Fields::from_pairs([
            ("x", "4"),
            ("content-length", "0"),
            ("content-range", "bytes 0-1/2"),
            ("content-type", "c/d"),
            ("Z", "5"),
        ]);
        let expected = [
            (b"Y".as_slice(), b"3".as_slice()),
            (b"Content-Length", b"5"),
            (b"x", b"4"),
            (b"content-type", b"c/d"),
            (b"Z", b"5"),
        ];
        assert_eq!(updated(&stored, &updates).iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn fields_of_other_bytes_are_told_apart() {
        let stored = Fields::from_pairs([("Content-Encoding", "gzip"), ("content-length", "5")]);
        for (pair, expected) in [
            (("content-encoding", "gzip"), false),
            (("content-length", "0"), false),
            (("content-type", "a/b"), false),
            (("content-encoding", "br"), true),
            (("Content-MD5", "x"), true),
        ] {
            assert_eq!(is_of_other_content(&stored, &Fields::from_pairs([pair])), expected, "{pair:?}");
        }
        assert!(!is_of_other_content(&stored, &Fields::default()), "what is left out stays");
    }

    #[test]
    fn no_connection_option_takes_away_what_limits_reuse_rfc9110_7_6_1() {
        let fields = Fields::from_pairs([
            ("connection", "cache-control, vary, x, cdn-cache-control, pragma, content-type"),
            ("content-type", "a/b"),
            ("cache-control", "no-store"),
            ("cdn-cache-control", "no-cache"),
            ("pragma", "no-cache"),
            ("vary", "*"),
            ("x", "1"),
            ("date", "d"),
        ]);
        let kept = kept(&fields, 0, false);
        assert!(kept.contains("cache-control") && kept.contains("vary") && !kept.contains("x"));
        assert!(kept.contains("cdn-cache-control") && kept.contains("pragma"), "an update reads them again");
        assert!(kept.contains("content-type"), "as whoever asked for it gets it");
    }

    #[test]
    fn kept_are_the_end_to_end_fields_with_a_date_rfc9111_3_1() {
        let fields = Fields::from_pairs([
            ("Cache-Control", "max-age=60"),
            ("Connection", "X-Hop, close"),
            ("x-hop", "1"),
            ("Proxy-Authenticate", "a"),
            ("proxy-authentication-info", "b"),
            ("PROXY-AUTHORIZATION", "c"),
            ("Transfer-Encoding", "chunked"),
            ("Age", "3"),
            ("X-Kept", "yes"),
            ("x-kept", "twice"),
        ]);
        let kept = kept(&fields, 784_111_777, false);
        let expected = [
            (b"Cache-Control".as_slice(), b"max-age=60".as_slice()),
            (b"X-Kept", b"yes"),
            (b"x-kept", b"twice"),
            (b"Date", b"Sun, 06 Nov 1994 08:49:37 GMT"),
        ];
        assert_eq!(kept.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_date_of_the_origin_server_is_kept_as_it_is() {
        let fields = Fields::from_pairs([("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        let kept = kept(&fields, 0, false);
        assert_eq!(kept.iter().collect::<Vec<_>>(), fields.iter().collect::<Vec<_>>());
    }
}
