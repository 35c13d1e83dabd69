//! The further targets that an unsafe request invalidates: those named in Location and Content-Location
//! (RFC 9111 §4.4).
//!
//! Only of the same origin, so that nobody can kill what others have stored. Killing is left to `store`.

use super::{RequestView, ResponseView, invalidates, key::is_same_authority};

/// The most lines of one field that are followed.
const LINES_MAX: usize = 2;

/// The targets in origin-form, fragments dropped, that the response to an unsafe request names (§4.4); none if it is an
/// error, or if they are of another origin (RFC 9110 §4.3.1) than `http` at `authority`.
pub fn named_targets(
    request: &RequestView<'_>,
    authority: &[u8],
    response: &ResponseView<'_>,
) -> Vec<Vec<u8>> {
    if !invalidates(request.method, response.status) {
        return Vec::new();
    }
    ["location", "content-location"]
        .into_iter()
        .flat_map(|name| response.fields.values(name).take(LINES_MAX))
        .filter_map(|reference| resolved(reference, request.target, authority))
        .collect()
}

/// Resolves a reference (RFC 3986 §5.2) against the target at the authority; `None` where it leads elsewhere.
fn resolved(reference: &[u8], base: &[u8], authority: &[u8]) -> Option<Vec<u8>> {
    let is_text = reference.iter().all(|byte| *byte > b' ' && *byte != 127);
    if !is_text || !base.starts_with(b"/") {
        return None;
    }
    let reference = before(reference, b"#");
    let reference = match scheme(reference) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"http") && rest.starts_with(b"//") => rest,
        Some(_) => return None,
        None => reference,
    };
    let base_path = before(base, b"?#");
    let (path, rest) = match reference.strip_prefix(b"//") {
        Some(hierarchy) => {
            let named = before(hierarchy, b"/?");
            if !is_same_authority(named, authority) {
                return None;
            }
            split_query(hierarchy.get(named.len()..)?)
        }
        None => split_query(reference),
    };
    let is_absolute = reference.starts_with(b"/");
    let mut target = match path {
        [] if is_absolute => b"/".to_vec(),
        // The target itself, or the same path with another query.
        [] => base_path.to_vec(),
        _ if is_absolute => without_dot_segments(path),
        _ => {
            let directory = base_path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            without_dot_segments(&[base_path.get(..directory)?, path].concat())
        }
    };
    match rest {
        [] if reference.is_empty() => target.extend_from_slice(base.get(base_path.len()..)?),
        query => target.extend_from_slice(query),
    }
    Some(target)
}

/// A scheme and what follows its colon (RFC 3986 §3.1).
fn scheme(reference: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = reference.iter().position(|byte| matches!(byte, b':' | b'/' | b'?'))?;
    let (scheme, rest) = reference.split_at_checked(colon)?;
    let is_scheme = scheme.first()?.is_ascii_alphabetic()
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    Some((scheme, rest.strip_prefix(b":")?)).filter(|_| is_scheme)
}

/// A path, and the query with its question mark.
fn split_query(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(before(text, b"?").len())
}

fn before<'a>(text: &'a [u8], ends: &[u8]) -> &'a [u8] {
    text.split(|byte| ends.contains(byte)).next().unwrap_or_default()
}

/// RFC 3986 §5.2.4, of a path that begins with a slash.
fn without_dot_segments(path: &[u8]) -> Vec<u8> {
    let segments = path.split(|byte| *byte == b'/').skip(1);
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut ends_open = false;
    for segment in segments {
        ends_open = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => {
                kept.pop();
            }
            _ => kept.push(segment),
        }
    }
    if ends_open {
        kept.push(b"");
    }
    let mut out = Vec::with_capacity(path.len() + 1);
    for segment in kept {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() { b"/".to_vec() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Fields;

    fn named(authority: &str, target: &str, pairs: &[(&str, &str)]) -> Vec<String> {
        let fields = Fields::from_pairs(pairs.iter().copied());
        let request = RequestView { method: b"POST", target: target.as_bytes(), fields: &fields };
        let response = ResponseView { status: 201, fields: &fields, delimited_by_close: false };
        let targets = named_targets(&request, authority.as_bytes(), &response);
        targets.into_iter().map(|target| String::from_utf8(target).unwrap()).collect()
    }

    #[test]
    fn references_are_resolved_within_the_same_origin_rfc9111_4_4_rfc3986_5_2() {
        for (reference, expected) in [
            ("http://a.example/x?y", Some("/x?y")),
            ("HTTP://A.Example:80/x", Some("/x")),
            ("http://a.example", Some("/")),
            ("http://a.example?q", Some("/?q")),
            ("//a.example/x", Some("/x")),
            ("//a.example:/x", Some("/x")),
            ("/x/./y/../z", Some("/x/z")),
            ("/x#fragment", Some("/x")),
            ("x", Some("/b/c/x")),
            ("./x", Some("/b/c/x")),
            ("../x", Some("/b/x")),
            ("../../../x", Some("/x")),
            ("..", Some("/b/")),
            (".", Some("/b/c/")),
            ("x/..", Some("/b/c/")),
            ("?y=1", Some("/b/c/d?y=1")),
            ("", Some("/b/c/d?q")),
            ("#top", Some("/b/c/d?q")),
            ("x:y", None),
            ("./x:y", Some("/b/c/x:y")),
            ("/x:y", Some("/x:y")),
            ("?x:y", Some("/b/c/d?x:y")),
            ("https://a.example/x", None),
            ("http://b.example/x", None),
            ("http://a.example:81/x", None),
            ("//b.example/x", None),
            ("//user@a.example/x", None),
            ("http:/x", None),
            ("http:x", None),
            ("mailto:a@b", None),
            ("/a b", None),
            ("/a\nb", None),
        ] {
            let targets = named("a.example", "/b/c/d?q", &[("Location", reference)]);
            assert_eq!(targets.first().map(String::as_str), expected, "{reference}");
            assert_eq!(targets, named("a.example", "/b/c/d?q", &[("content-location", reference)]));
        }
        assert_eq!(named("a:8080", "/", &[("location", "http://A:8080/x")]), ["/x"]);
        assert!(named("a:8080", "/", &[("location", "http://a/x")]).is_empty());
        assert!(named("a", "*", &[("location", "x")]).is_empty());
    }

    #[test]
    fn at_most_two_lines_of_each_field_are_followed() {
        let lines = [("location", "/1"), ("location", "/2"), ("location", "/3"), ("content-location", "/4")];
        assert_eq!(named("a", "/", &lines), ["/1", "/2", "/4"]);
    }

    #[test]
    fn errors_and_safe_methods_name_nothing_rfc9111_4_4() {
        let fields = Fields::from_pairs([("location", "/x")]);
        for (method, status, expected) in
            [("POST", 303, 1), ("DELETE", 200, 1), ("M-SEARCH", 200, 1), ("POST", 404, 0), ("GET", 200, 0)]
        {
            let request = RequestView { method: method.as_bytes(), target: b"/", fields: &fields };
            let response = ResponseView { status, fields: &fields, delimited_by_close: false };
            assert_eq!(named_targets(&request, b"a", &response).len(), expected, "{method} {status}");
        }
    }
}
