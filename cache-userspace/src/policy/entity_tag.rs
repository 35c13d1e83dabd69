//! Entity tags and lists of them (RFC 9110 §8.8.3).
//!
//! What a comparison leads to is left to `conditional`, `validate` and `freshen`.

use crate::http1::Fields;

/// The value of a field that has exactly one line.
pub(super) fn only<'a>(fields: &'a Fields, name: &'a str) -> Option<&'a [u8]> {
    let mut lines = fields.values(name);
    let first = lines.next()?;
    lines.next().is_none().then_some(first)
}

/// The one entity tag of a response: its ETag, if that is one line with one tag on it.
pub(super) fn entity_tag(fields: &Fields) -> Option<&[u8]> {
    only(fields, "etag").filter(|value| {
        take_tag(value)
            .is_some_and(|(tag, rest)| !tag.is_empty() && tag.len() == value.len() && rest.is_empty())
    })
}

/// The opaque part of an entity tag: RFC 9110 §8.8.3.2, weak comparison ignores `W/`.
pub(super) fn opaque(tag: &[u8]) -> &[u8] {
    tag.strip_prefix(b"W/").unwrap_or(tag)
}

/// Whether the tag says of itself that it is no strong validator (RFC 9110 §8.8.3).
pub(super) fn is_weak(tag: &[u8]) -> bool {
    tag.starts_with(b"W/")
}

/// The members of a list of entity tags, which may hold commas themselves (RFC 9110 §8.8.3); `None` where it is none.
pub(super) fn entity_tags(list: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let mut rest = list;
    while !rest.is_empty() {
        rest = take_tag(rest)?.1;
    }
    let mut rest = list;
    Some(std::iter::from_fn(move || {
        let (tag, after) = take_tag(rest)?;
        rest = after;
        (!tag.is_empty()).then_some(tag)
    }))
}

/// The first tag and what comes after its comma; an empty tag at the end of the list.
fn take_tag(list: &[u8]) -> Option<(&[u8], &[u8])> {
    let list = list.trim_ascii_start();
    let list = list.strip_prefix(b",").map_or(list, |rest| rest.trim_ascii_start());
    if list.is_empty() {
        return Some((list, list));
    }
    let quoted = list.strip_prefix(b"W/").unwrap_or(list).strip_prefix(b"\"")?;
    let inner = quoted.iter().position(|byte| *byte == b'"')?;
    // RFC 9110 §8.8.3: no control characters, no blanks, no quotes inside.
    if !quoted.iter().take(inner).all(|byte| *byte > b' ' && *byte != 127) {
        return None;
    }
    let end = list.len() - quoted.len() + inner + 1;
    let (tag, after) = list.split_at_checked(end)?;
    let after = after.trim_ascii_start();
    (after.is_empty() || after.starts_with(b",")).then_some((tag, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_has_one_entity_tag_or_none_rfc9110_8_8_3() {
        for (lines, expected) in [
            (&["\"a\""][..], Some("\"a\"")),
            (&["W/\"a,b\""], Some("W/\"a,b\"")),
            (&["\"\""], Some("\"\"")),
            (&["\"a\"", "\"a\""], None),
            (&["\"a\", \"b\""], None),
            (&["\"a\","], None),
            (&["a"], None),
            (&["w/\"a\""], None),
            (&[""], None),
            (&[], None),
        ] {
            let fields = Fields::from_pairs(lines.iter().map(|line| ("ETag", line)));
            assert_eq!(entity_tag(&fields), expected.map(str::as_bytes), "{lines:?}");
        }
        assert!(is_weak(b"W/\"a\"") && !is_weak(b"\"W/\""));
    }
}
