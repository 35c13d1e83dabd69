//! What of a stored response that may answer a request is sent, and whether a 304 of the origin is the client's own.

use super::{
    RequestView, Stored,
    entity_tag::{entity_tags, only, opaque},
    range::{self, Plan},
};
use crate::http1::Fields;

/// Which ranges of a stored response of `content_bytes` a request is answered with, and how many bytes the whole
/// representation has (RFC 9110 §14.2, §15.3.7).
pub fn ranges(request: &RequestView<'_>, stored: &Stored, content_bytes: u64) -> (Plan, u64) {
    let complete = stored.complete_bytes(content_bytes);
    // RFC 9110 §15.3.7: a range is a part of what would have been 200.
    let has_ranges = stored.part.is_some() || (stored.status == 200 && request.fields.contains("range"));
    if !has_ranges {
        return (Plan::Whole, complete);
    }
    let part = stored.part.map(|part| part.span());
    (range::plan(request.fields, request.method, &stored.validators(), complete, part), complete)
}

/// Whether a 304 names what the client itself said it has: only then it may be passed on, where tags of ours were
/// offered beside the client's (RFC 9111 §4.3.2).
pub fn names_what_client_has(request: &Fields, not_modified: &Fields) -> bool {
    let Some(tag) = only(not_modified, "etag").map(opaque) else { return false };
    request
        .values("if-none-match")
        .any(|list| entity_tags(list).into_iter().flatten().any(|own| opaque(own) == tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_304_that_names_what_the_client_has_is_the_clients_rfc9111_4_3_2() {
        for (list, tag, expected) in [
            (Some("\"a\""), Some("\"a\""), true),
            (Some("\"x\", W/\"a\""), Some("\"a\""), true),
            (Some("\"x\""), Some("\"a\""), false),
            (Some("\"x\""), None, false),
            (None, Some("\"a\""), false),
        ] {
            let request = Fields::from_pairs(list.map(|list| ("If-None-Match", list)));
            let answer = Fields::from_pairs(tag.map(|tag| ("ETag", tag)));
            assert_eq!(names_what_client_has(&request, &answer), expected, "{list:?} {tag:?}");
        }
    }
}
