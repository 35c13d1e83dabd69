//! The fields of a response that are kept (RFC 9111 §3.1), copied so that nothing of the wire's buffer is pinned.
//!
//! Whether the response is stored at all is left to `storing`.

use bytes::Bytes;

use super::date;
use crate::http1::Fields;

/// Fields that are never stored: hop-by-hop (RFC 9110 §7.6.1), for a proxy (RFC 9111 §3.1), and Age.
const NEVER_KEPT: [&str; 12] = [
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
];

/// Copies what is kept into one allocation of exactly its size; `date` (unix seconds) becomes the Date of a response
/// without one (RFC 9110 §6.6.1).
pub(super) fn kept(fields: &Fields, date: i64) -> Fields {
    let nominated = |name: &[u8]| fields.tokens("connection").any(|option| option.eq_ignore_ascii_case(name));
    let is_kept = |name: &[u8]| {
        !NEVER_KEPT.iter().any(|never| name.eq_ignore_ascii_case(never.as_bytes())) && !nominated(name)
    };
    let date = (!fields.contains("date") || nominated(b"date")).then(|| date::format(date));
    let date = date.as_deref().map(|date| (b"Date".as_slice(), date.as_bytes()));
    let pairs = fields.iter().filter(|(name, _)| is_kept(name)).chain(date);
    let mut raw = Vec::with_capacity(pairs.clone().map(|(name, value)| name.len() + value.len()).sum());
    let mut ends = Vec::with_capacity(pairs.clone().count());
    for (name, value) in pairs {
        let start = raw.len();
        raw.extend_from_slice(name);
        let middle = raw.len();
        raw.extend_from_slice(value);
        ends.push((start, middle, raw.len()));
    }
    let raw = Bytes::from(raw);
    let part = |start, end| raw.get(start..end).unwrap_or_default();
    Fields::from_parsed(
        &raw,
        ends.iter().map(|&(start, middle, end)| (part(start, middle), part(middle, end))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let kept = kept(&fields, 784_111_777);
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
        let kept = kept(&fields, 0);
        assert_eq!(kept.iter().collect::<Vec<_>>(), fields.iter().collect::<Vec<_>>());
    }
}
