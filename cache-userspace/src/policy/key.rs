//! The primary key of a stored response (RFC 9111 §2) and the name under which unsafe requests invalidate it.
//!
//! What the partition and the destination's identity are is left to `identify` and `route`.

use sha2::{Digest, Sha256};

use super::no_vary_search::{SearchRule, path_and_query};
use crate::http1::Fields;

/// Writes the primary key: partition, destination identity, authority and target, each but the last with its length,
/// so that no two different sets of parts are one key. `out` is emptied first.
///
/// The scheme is always `http`: nothing else is ever read in the clear. The authority's letters are lower-cased and
/// its default port is dropped (RFC 9110 §4.2.3).
pub fn key(partition: &[u8], destination: &[u8], authority: &[u8], target: &[u8], out: &mut Vec<u8>) {
    out.clear();
    append(partition, out);
    append_resource(destination, authority, target, out);
}

/// Writes the same without the partition: what an unsafe request or a purge invalidates for everybody.
pub fn resource(destination: &[u8], authority: &[u8], target: &[u8], out: &mut Vec<u8>) {
    out.clear();
    append_resource(destination, authority, target, out);
}

/// What a primary key was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyParts<'a> {
    /// Whose copy it is.
    pub partition: &'a [u8],
    /// The destination's identity.
    pub destination: &'a [u8],
    /// The authority, lower-cased and without its default port.
    pub authority: &'a [u8],
    /// The target; without its query where `more` stands for that.
    pub target: &'a [u8],
    /// What follows the target, a space first: the canonical query of [`search_key`], or what [`query_key`] added.
    pub more: &'a [u8],
}

/// Takes a key apart again; `None` where [`key`] did not make it.
pub fn parts(key: &[u8]) -> Option<KeyParts<'_>> {
    let (partition, rest) = part(key)?;
    let (destination, rest) = part(rest)?;
    let (authority, rest) = part(rest)?;
    // No target contains a space.
    let end = rest.iter().position(|byte| *byte == b' ').unwrap_or(rest.len());
    let (target, more) = rest.split_at_checked(end)?;
    Some(KeyParts { partition, destination, authority, target, more })
}

impl KeyParts<'_> {
    /// Whether the key is that of a QUERY.
    pub fn is_of_query(&self) -> bool {
        self.more.starts_with(b" QUERY")
    }
}

fn part(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = key.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)
}

/// Makes the primary key of a GET that of a QUERY (RFC 10008 §2.7): it incorporates the method, the content and what
/// the request's fields say of it, `Content-*` but for its length.
///
/// Nothing is normalised: contents of one meaning are two.
pub fn query_key(key: &mut Vec<u8>, request: &Fields, content: &[u8]) {
    let mut digest = Sha256::new();
    let mut update = |part: &[u8]| {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    };
    for (name, value) in request.iter() {
        let name = name.to_ascii_lowercase();
        if name.starts_with(b"content-") && name != b"content-length" {
            update(&name);
            update(value);
        }
    }
    // No field has no name.
    update(b"");
    update(content);
    // No target contains a space.
    key.extend_from_slice(b" QUERY");
    key.extend_from_slice(&digest.finalize());
}

/// The name of a group of responses (RFC 9875 §2.1) of the origin that a resource belongs to: its destination identity
/// and authority.
pub fn group(resource: &[u8], group: &str) -> Vec<u8> {
    // No target begins with a space.
    [origin(resource), b" group ", group.as_bytes()].concat()
}

/// The name of all responses for the path of a resource that answer other queries too (No-Vary-Search): whatever
/// concerns one of its queries concerns them.
pub fn searches(resource: &[u8]) -> Vec<u8> {
    let target = resource.get(origin(resource).len()..).unwrap_or_default();
    without_query(resource, target)
}

/// The primary key of responses that answer all queries which a rule holds for equivalent to the one of the target
/// that `key` ends with.
pub fn search_key(key: &[u8], target: &[u8], rule: &SearchRule) -> Vec<u8> {
    let mut search_key = without_query(key, target);
    search_key.extend(rule.canonical(path_and_query(target).1));
    search_key
}

/// What ends with a target, without the target's query, and told from what ends there by itself.
pub(super) fn without_query(name: &[u8], target: &[u8]) -> Vec<u8> {
    let query = path_and_query(target).1;
    let path = name.len().checked_sub(query.len()).and_then(|end| name.get(..end)).unwrap_or(name);
    // No target contains a space.
    [path, b" "].concat()
}

/// What the names of all resources of one origin begin with.
fn origin(resource: &[u8]) -> &[u8] {
    let after_part = |name: &[u8]| {
        let (length, rest) = name.split_first_chunk::<8>()?;
        let after = rest.len().checked_sub(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
        Some(after)
    };
    let rest = after_part(resource)
        .and_then(|after| resource.get(resource.len() - after..))
        .and_then(after_part)
        .unwrap_or_default();
    resource.get(..resource.len() - rest).unwrap_or(resource)
}

/// Whether two authorities of the scheme `http` are one (RFC 9110 §4.2.3, §4.3.1).
pub(super) fn is_same_authority(a: &[u8], b: &[u8]) -> bool {
    without_default_port(a).eq_ignore_ascii_case(without_default_port(b))
}

fn append_resource(destination: &[u8], authority: &[u8], target: &[u8], out: &mut Vec<u8>) {
    let authority = without_default_port(authority);
    out.reserve(2 * size_of::<u64>() + destination.len() + authority.len() + target.len());
    append(destination, out);
    append_length(authority, out);
    out.extend(authority.iter().map(u8::to_ascii_lowercase));
    out.extend_from_slice(target);
}

fn append(part: &[u8], out: &mut Vec<u8>) {
    append_length(part, out);
    out.extend_from_slice(part);
}

fn append_length(part: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(part.len() as u64).to_be_bytes());
}

fn without_default_port(authority: &[u8]) -> &[u8] {
    let host = authority.strip_suffix(b":80").or_else(|| authority.strip_suffix(b":")).unwrap_or(authority);
    // A colon left over is an IPv6 address without its brackets: then the end was no port.
    if host.is_empty() || (host.contains(&b':') && !host.ends_with(b"]")) { authority } else { host }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_taken_apart_into_what_it_was_made_of(
            partition in any::<Vec<u8>>(),
            destination in any::<Vec<u8>>(),
            authority in "[a-z0-9.]{0,20}(:[1-9]{4})?",
            target in "/[!-~]{0,20}",
        ) {
            let authority = authority.as_bytes();
            let mut made = Vec::new();
            let target = target.as_bytes();
            key(&partition, &destination, authority, target, &mut made);
            let plain = KeyParts { partition: &partition, destination: &destination, authority, target, more: b"" };
            prop_assert_eq!(parts(&made), Some(plain));
            for end in 0..made.len() - target.len() {
                prop_assert_eq!(parts(made.get(..end).unwrap()), None);
            }
            query_key(&mut made, &Fields::default(), b"content");
            let query = parts(&made).unwrap();
            prop_assert!(query.is_of_query());
            prop_assert_eq!(KeyParts { more: b"", ..query }, plain);
        }

        #[test]
        fn whatever_is_taken_for_a_key_is_no_panic(bytes in any::<Vec<u8>>()) {
            let _ = parts(&bytes);
        }
    }

    fn of(parts: [&str; 4]) -> Vec<u8> {
        let [partition, destination, authority, target] = parts.map(str::as_bytes);
        let mut out = b"left over".to_vec();
        key(partition, destination, authority, target, &mut out);
        out
    }

    #[test]
    fn moving_a_byte_between_parts_makes_another_key() {
        assert_ne!(of(["ab", "c", "d", "/"]), of(["a", "bc", "d", "/"]));
        assert_ne!(of(["a", "c", "d/", "x"]), of(["a", "c", "d", "/x"]));
        assert_ne!(of(["", "a", "d", "/"]), of(["a", "", "d", "/"]));
    }

    #[test]
    fn authorities_are_one_without_case_and_default_port_rfc9110_4_2_3() {
        let plain = of(["p", "d", "example.com", "/A"]);
        for same in ["EXAMPLE.com", "example.com:80", "Example.COM:"] {
            assert_eq!(of(["p", "d", same, "/A"]), plain, "{same}");
        }
        for other in ["example.com:8080", "example.com:180", "xexample.com"] {
            assert_ne!(of(["p", "d", other, "/A"]), plain, "{other}");
        }
        assert_ne!(of(["p", "d", "example.com", "/a"]), plain, "targets keep their case");
        assert_eq!(of(["p", "d", "[::1]:80", "/"]), of(["p", "d", "[::1]", "/"]));
        assert_ne!(of(["p", "d", "fe::80", "/"]), of(["p", "d", "fe:", "/"]));
    }

    #[test]
    fn the_key_of_a_query_incorporates_its_content_and_what_is_said_of_it_rfc10008_2_7() {
        let of = |target: &str, pairs: &[(&str, &str)], content: &str| {
            let mut key = of(["p", "d", "h", target]);
            query_key(&mut key, &Fields::from_pairs(pairs.iter().copied()), content.as_bytes());
            key
        };
        let (json, sql) = (("content-type", "application/json"), ("content-type", "application/sql"));
        let expected = of("/", &[json], "{}");
        let same = [json, ("Content-Length", "2"), ("Transfer-Encoding", "chunked"), ("Accept", "a")];
        assert_eq!(of("/", &same, "{}"), expected);
        assert_eq!(of("/", &[("Content-Type", "application/json")], "{}"), expected);
        for (target, pairs, content) in [
            ("/a", &[json][..], "{}"),
            ("/", &[json], "{ }"),
            ("/", &[json], ""),
            ("/", &[sql], "{}"),
            ("/", &[], "{}"),
            ("/", &[json, json], "{}"),
            ("/", &[json, ("content-encoding", "gzip")], "{}"),
            ("/", &[json, ("content-language", "de")], "{}"),
            ("/", &[("content-typea", "pplication/json")], "{}"),
            ("/", &[("content-type", "application/jso")], "n{}"),
        ] {
            assert_ne!(of(target, pairs, content), expected, "{target} {pairs:?} {content}");
        }
        assert_ne!(of("/", &[json], "{}"), super::tests::of(["p", "d", "h", "/"]), "a GET is none");
    }

    #[test]
    fn groups_of_one_name_are_one_group_within_an_origin_only_rfc9875_2_1() {
        let of = |destination: &str, authority: &str, target: &str, name: &str| {
            let mut out = Vec::new();
            resource(destination.as_bytes(), authority.as_bytes(), target.as_bytes(), &mut out);
            group(&out, name)
        };
        let expected = of("d", "h", "/a", "g");
        assert_eq!(of("d", "H:80", "/b?c", "g"), expected);
        for (destination, authority, name) in
            [("e", "h", "g"), ("d", "i", "g"), ("d", "h:8080", "g"), ("d", "h", "G")]
        {
            assert_ne!(of(destination, authority, "/a", name), expected, "{destination} {authority} {name}");
        }
        let mut page = Vec::new();
        resource(b"d", b"h", b"/g", &mut page);
        assert_ne!(of("d", "h", "/a", "/g"), page, "a group is no resource");
        for cut in 0..page.len() {
            group(&page[..cut], "g");
        }
    }

    #[test]
    fn equivalent_queries_of_a_path_have_one_search_key() {
        let rule = SearchRule::of(&Fields::from_pairs([("no-vary-search", "params=(\"u\"), key-order")]));
        let of = |path: &str, target: &str| {
            let key = of(["p", "d", path, target]);
            search_key(&key, target.as_bytes(), &rule)
        };
        let expected = of("h", "/p?b=1&a=2&u=x");
        assert_eq!(of("h", "/p?a=2&b=1"), expected);
        for (host, target) in [("h", "/p?a=2"), ("h", "/q?a=2&b=1"), ("i", "/p?a=2&b=1"), ("h", "/p")] {
            assert_ne!(of(host, target), expected, "{host} {target}");
        }
    }

    #[test]
    fn all_queries_of_a_path_share_one_name_of_its_searches() {
        let of = |target: &str| {
            let mut out = Vec::new();
            resource(b"d?", b"h", target.as_bytes(), &mut out);
            (searches(&out), out)
        };
        let (expected, plain) = of("/p");
        for same in ["/p?", "/p?a=1", "/p?a?b"] {
            assert_eq!(of(same).0, expected, "{same}");
        }
        for other in ["/", "/p/", "/q?a=1"] {
            assert_ne!(of(other).0, expected, "{other}");
        }
        assert_ne!(expected, plain, "a plain response for the path is not concerned");
    }

    #[test]
    fn a_resource_is_the_same_for_every_partition() {
        let mut out = Vec::new();
        resource(b"d", b"H:80", b"/", &mut out);
        for partition in ["", "a", "b"] {
            assert!(of([partition, "d", "h", "/"]).ends_with(&out));
        }
    }
}
