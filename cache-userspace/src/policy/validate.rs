//! The conditional request that validates stored responses (RFC 9111 §4.3.1, §4.3.2).
//!
//! Sending it is left to `forward`, what its answer changes to `freshen`.

use super::{
    RequestView, Stored,
    entity_tag::{entity_tags, only},
    storing::is_authorized,
};
use crate::http1::Fields;

/// The most bytes of our own entity tags that are offered in one request.
const TAGS_BYTES_MAX: usize = 2048;

/// The fields of the request that validates the variant at `selected` and, by their entity tags, the others that the
/// request could be answered with (§4.3.1, §4.3.2). `None`: it has no validator that could be sent.
///
/// They are the client's, with If-None-Match as the union of its own tags and those of the variants, or with the
/// selected one's Last-Modified in If-Modified-Since. Tags of variants that the request does not select are not
/// offered: a 304 about these would not say what to answer (§4.3.4). Neither are those of other parts (§4.3.2).
pub fn validation_fields<'a>(
    request: &RequestView<'_>,
    variants: impl Iterator<Item = &'a Stored> + Clone,
    selected: usize,
) -> Option<Fields> {
    let stored = variants.clone().nth(selected)?;
    // §3.5: what comes back to an authorized request may only renew what such requests may share.
    if is_authorized(request) && !stored.shared_with_authorization {
        return None;
    }
    let mut asked: Vec<&[u8]> = request.fields.values("if-none-match").collect();
    // RFC 9110 §13.1.2: `*` names what is stored as well as everything else; nothing could be told from a 304.
    if asked.iter().any(|value| value.trim_ascii() == b"*") {
        return None;
    }
    // RFC 9110 §13.1.3: with other methods than GET and HEAD If-Modified-Since MUST be ignored.
    let modified = stored.last_modified.filter(|_| request.method != b"QUERY");
    let modified = modified.and(only(&stored.fields, "last-modified"));
    let is_for_range = request.fields.contains("range");
    let mut conditions: Vec<(&[u8], Vec<u8>)> = Vec::new();
    if let Some(tag) = stored.entity_tag() {
        let is_asked = !asked.is_empty();
        let others = variants
            .enumerate()
            .filter(|(index, other)| {
                *index != selected && other.part.is_none() && is_selected_by(other, request)
            })
            .filter_map(|(_, other)| other.entity_tag());
        let mut bytes = 0;
        let own_from = asked.len();
        for tag in [tag].into_iter().chain(others) {
            if !names(&asked, tag) && (bytes == 0 || bytes + tag.len() <= TAGS_BYTES_MAX) {
                bytes += tag.len() + 2;
                asked.push(tag);
            }
        }
        // §4.3.1: beside the tag where one response is validated; a client's own list is about others.
        let is_single = !is_asked && asked.len() - own_from == 1;
        conditions.push((b"If-None-Match", asked.join(b", ".as_slice())));
        if let Some(modified) = modified.filter(|_| is_single && !is_for_range) {
            conditions.push((b"If-Modified-Since", modified.to_vec()));
        }
    } else {
        // §4.3.1: not for a subrange. RFC 9110 §13.1.3: beside If-None-Match it is ignored.
        let modified = modified.filter(|_| asked.is_empty() && !is_for_range)?;
        conditions.push((b"If-Modified-Since", modified.to_vec()));
    }
    let is_kept = |name: &[u8]| {
        !name.eq_ignore_ascii_case(b"if-none-match") && !name.eq_ignore_ascii_case(b"if-modified-since")
    };
    let kept = request.fields.iter().filter(|(name, _)| is_kept(name));
    let conditions = conditions.iter().map(|(name, value)| (*name, value.as_slice()));
    Some(Fields::from_pairs(kept.chain(conditions)))
}

/// Whether the stored response could answer the request, were it fresh (§4.3.4).
pub(super) fn is_selected_by(stored: &Stored, request: &RequestView<'_>) -> bool {
    stored.refused.is_none() && stored.is_of(request.target) && stored.selection.matches(request.fields)
}

fn names(lists: &[&[u8]], tag: &[u8]) -> bool {
    lists.iter().any(|list| entity_tags(list).into_iter().flatten().any(|other| other == tag))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            Part,
            sample::{Pairs, STORED_AT, fields, get, stored},
        },
        *,
    };

    const FRESH: (&str, &str) = ("cache-control", "max-age=60");
    const MODIFIED: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 08:00:00 GMT");

    fn response(pairs: Pairs<'_>) -> Stored {
        let pairs: Vec<(&str, &str)> = [FRESH].iter().chain(pairs).copied().collect();
        stored(&[], &pairs, STORED_AT)
    }

    /// The conditions of the request that validates the first variant.
    fn conditions(asked: Pairs<'_>, variants: &[Stored]) -> Option<Vec<(String, String)>> {
        let fields = fields(asked);
        let sent = validation_fields(&get(&fields), variants.iter(), 0)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).to_lowercase();
        let pairs = sent.iter().map(|(name, value)| (text(name), text(value)));
        Some(pairs.filter(|(name, _)| name.starts_with("if-")).collect())
    }

    #[test]
    fn validators_of_the_stored_response_are_sent_rfc9111_4_3_1() {
        let modified = MODIFIED.1.to_lowercase();
        let since = ("if-modified-since", modified.as_str());
        let client = ("if-modified-since", "sat, 05 nov 1994 08:00:00 gmt");
        let other = ("if-none-match", "\"x\", w/\"y\"");
        let range = ("range", "bytes=0-1");
        type Row<'a> = (Pairs<'a>, Pairs<'a>, Option<Pairs<'a>>);
        let rows: &[Row<'_>] = &[
            (&[], &[("etag", "\"a\"")], Some(&[("if-none-match", "\"a\"")])),
            (&[], &[("etag", "w/\"a\"")], None),
            (&[], &[MODIFIED], Some(&[since])),
            (&[], &[("etag", "\"a\""), MODIFIED], Some(&[("if-none-match", "\"a\""), since])),
            (&[], &[], None),
            (&[], &[("last-modified", "x")], None),
            // the client's own date makes way, its own tags join
            (&[client], &[MODIFIED], Some(&[since])),
            (&[client], &[("etag", "\"a\"")], Some(&[("if-none-match", "\"a\"")])),
            (
                &[("if-none-match", "\"x\", W/\"y\"")],
                &[("etag", "\"a\""), MODIFIED],
                Some(&[("if-none-match", "\"x\", w/\"y\", \"a\"")]),
            ),
            (&[("if-none-match", "\"a\"")], &[("etag", "\"a\"")], Some(&[("if-none-match", "\"a\"")])),
            (&[other], &[MODIFIED], None),
            (&[("if-none-match", "*")], &[("etag", "\"a\"")], None),
            // no date for a subrange
            (&[range], &[("etag", "\"a\""), MODIFIED], Some(&[("if-none-match", "\"a\"")])),
            (&[range], &[MODIFIED], None),
            // §3.5
            (&[("authorization", "x")], &[MODIFIED], None),
            (&[("authorization", "x")], &[("cache-control", "public"), MODIFIED], Some(&[since])),
        ];
        for (asked, pairs, expected) in rows {
            let sent = conditions(asked, &[response(pairs)]);
            let sent: Option<Vec<(&str, &str)>> =
                sent.as_ref().map(|sent| sent.iter().map(|(name, value)| (&name[..], &value[..])).collect());
            assert_eq!(sent.as_deref(), *expected, "{asked:?} {pairs:?}");
        }
    }

    #[test]
    fn a_query_is_validated_by_its_tag_only_rfc9110_13_1_3() {
        let asked = fields(&[("content-type", "a/b"), ("content-length", "3")]);
        let query = RequestView { method: b"QUERY", ..get(&asked) };
        let sent = |pairs: Pairs<'_>| {
            let sent = validation_fields(&query, [response(pairs)].iter(), 0)?;
            Some(["if-none-match", "if-modified-since"].map(|name| sent.contains(name)))
        };
        assert_eq!(sent(&[("etag", "\"a\""), MODIFIED]), Some([true, false]));
        assert_eq!(sent(&[MODIFIED]), None);
    }

    #[test]
    fn the_rest_of_the_request_stays_as_it_is() {
        let asked = fields(&[("X-A", "1"), ("if-modified-since", "x"), ("Range", "bytes=0-1"), ("x-a", "2")]);
        let variants = [response(&[("etag", "\"a\"")])];
        let sent = validation_fields(&get(&asked), variants.iter(), 0).unwrap();
        let names: Vec<&[u8]> = sent.iter().map(|(name, _)| name).collect();
        assert_eq!(names, [b"host".as_slice(), b"X-A", b"Range", b"x-a", b"If-None-Match"]);
    }

    #[test]
    fn tags_of_all_variants_that_could_answer_are_sent_rfc9111_4_3_2() {
        let part = Some(Part { first: 0, last: 1, complete: 10 });
        let of = |tag, pairs: Pairs<'_>| response(&[&[("etag", tag)], pairs].concat());
        let variants = [
            of("\"a\"", &[MODIFIED]),
            of("\"a\"", &[]),
            of("\"b\"", &[]),
            Stored { part, ..of("\"part\"", &[]) },
            stored(&[("x", "other")], &[FRESH, ("vary", "x"), ("etag", "\"c\"")], STORED_AT),
            Stored { refused: Some(crate::policy::Reason::Private), ..of("\"d\"", &[]) },
        ];
        let expected = [("if-none-match".to_owned(), "\"a\", \"b\"".to_owned())];
        assert_eq!(conditions(&[], &variants).unwrap(), expected);
        assert_eq!(conditions(&[], &variants[3..4]).unwrap()[0].1, "\"part\"", "the selected part itself");
    }

    #[test]
    fn the_tags_that_are_offered_are_bounded() {
        let variants: Vec<Stored> =
            (0..64).map(|n| response(&[("etag", &format!("\"{n:0>100}\""))])).collect();
        let sent = conditions(&[], &variants).unwrap();
        assert!((1000..=TAGS_BYTES_MAX).contains(&sent[0].1.len()), "{}", sent[0].1.len());
        let long = response(&[("etag", &format!("\"{:0>9000}\"", 1))]);
        assert!(conditions(&[], &[long]).is_some(), "the selected one is always sent");
    }
}
