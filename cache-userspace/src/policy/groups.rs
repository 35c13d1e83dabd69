//! Cache groups (RFC 9875): names that stored responses of one origin share, to be invalidated together.
//!
//! Scoping a name to its origin (§2.1) and doing the invalidation are left to `store`.

use super::{is_safe, structured};
use crate::http1::Fields;

/// The most groups of one response that are remembered; RFC 9875 §2 asks for 32.
pub const GROUPS_MAX: usize = 64;
/// The longest name of a group that is remembered, bytes; RFC 9875 §2 asks for 32.
pub const GROUP_BYTES_MAX: usize = 64;

/// The groups that a response belongs to (`Cache-Groups`, RFC 9875 §2), sorted, each once.
///
/// A field that is no List of Strings is ignored. `None` where there are more groups, or longer names, than are
/// remembered: an invalidation would not reach such a response, so it is better not stored.
pub fn groups(response: &Fields) -> Option<Vec<String>> {
    let groups = named(response, "cache-groups");
    let is_kept = groups.len() <= GROUPS_MAX && groups.iter().all(|group| group.len() <= GROUP_BYTES_MAX);
    is_kept.then_some(groups)
}

/// The groups that a response to a request of this method invalidates (`Cache-Group-Invalidation`, RFC 9875 §3),
/// sorted, each once: none after a safe method, or where the field is no List of Strings.
///
/// As many as its head has room for: leaving one out would leave stored responses alive.
pub fn invalidated_groups(method: &[u8], response: &Fields) -> Vec<String> {
    if is_safe(method) {
        return Vec::new();
    }
    let mut groups = named(response, "cache-group-invalidation");
    // Nothing that is stored belongs to one with a longer name.
    groups.retain(|group| group.len() <= GROUP_BYTES_MAX);
    groups
}

fn named(response: &Fields, field: &str) -> Vec<String> {
    let mut groups = structured::strings(response, field).unwrap_or_default();
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: &str) -> Option<Vec<String>> {
        groups(&Fields::from_pairs([("Cache-Groups", value)]))
    }

    #[test]
    fn groups_are_a_list_of_strings_rfc9875_2() {
        for (value, expected) in [
            (r#""scripts""#, &["scripts"][..]),
            (r#""scripts";x, "ExampleJS""#, &["ExampleJS", "scripts"]),
            (r#""a", "A", "a""#, &["A", "a"]),
            (r#""a, b""#, &["a, b"]),
            ("", &[]),
            // Anything else is ignored as a whole.
            (r#""a", b"#, &[]),
            ("a", &[]),
            (r#"("a" "b")"#, &[]),
            (r#""a"#, &[]),
        ] {
            assert_eq!(of(value).unwrap(), expected, "{value}");
        }
        assert_eq!(groups(&Fields::default()), Some(vec![]));
        let lines = Fields::from_pairs([("cache-groups", r#""a""#), ("Cache-Groups", r#""b""#)]);
        assert_eq!(groups(&lines).unwrap(), ["a", "b"]);
    }

    #[test]
    fn more_groups_than_are_remembered_are_no_groups_to_invalidate_by() {
        let list = |count: usize, length: usize| {
            let names: Vec<String> = (0..count).map(|n| format!("\"{n:0length$}\"")).collect();
            of(&names.join(", ")).map(|groups| groups.len())
        };
        // RFC 9875 §2: 32 groups of 32 characters must be supported.
        assert_eq!(list(32, 32), Some(32));
        assert_eq!(list(GROUPS_MAX, GROUP_BYTES_MAX), Some(GROUPS_MAX));
        assert_eq!(list(GROUPS_MAX + 1, 4), None);
        assert_eq!(list(1, GROUP_BYTES_MAX + 1), None);
    }

    #[test]
    fn only_unsafe_methods_invalidate_groups_rfc9875_3() {
        let fields = Fields::from_pairs([("Cache-Group-Invalidation", r#""b", "a";x, "a""#)]);
        for method in ["POST", "PUT", "DELETE", "PATCH", "FOO", "get"] {
            assert_eq!(invalidated_groups(method.as_bytes(), &fields), ["a", "b"], "{method}");
        }
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"] {
            assert!(invalidated_groups(method.as_bytes(), &fields).is_empty(), "{method}");
        }
        for value in ["a", r#""a", 1"#, r#""a"#] {
            let fields = Fields::from_pairs([("Cache-Group-Invalidation", value)]);
            assert!(invalidated_groups(b"POST", &fields).is_empty(), "{value}");
        }
    }

    #[test]
    fn every_group_of_an_invalidation_counts() {
        let names: Vec<String> = (0..10 * GROUPS_MAX).map(|n| format!("\"{n}\"")).collect();
        let fields = Fields::from_pairs([("Cache-Group-Invalidation", names.join(", "))]);
        assert_eq!(invalidated_groups(b"POST", &fields).len(), 10 * GROUPS_MAX);
    }
}
