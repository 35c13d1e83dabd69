//! The primary key of a stored response (RFC 9111 §2) and the name under which unsafe requests invalidate it.
//!
//! What the partition and the destination's identity are is left to `identify` and `route`.

/// Writes the primary key: partition, destination identity, authority and target, each with its length, so that no
/// two different sets of parts are one key. `out` is emptied first.
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
    /// The target.
    pub target: &'a [u8],
}

/// Takes a key apart again; `None` where [`key`] did not make it.
pub fn parts(key: &[u8]) -> Option<KeyParts<'_>> {
    let (partition, rest) = part(key)?;
    let (destination, rest) = part(rest)?;
    let (authority, rest) = part(rest)?;
    let (target, rest) = part(rest)?;
    rest.is_empty().then_some(KeyParts { partition, destination, authority, target })
}

fn part(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = key.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)
}

/// Whether two authorities of the scheme `http` are one (RFC 9110 §4.2.3, §4.3.1).
pub(super) fn is_same_authority(a: &[u8], b: &[u8]) -> bool {
    without_default_port(a).eq_ignore_ascii_case(without_default_port(b))
}

fn append_resource(destination: &[u8], authority: &[u8], target: &[u8], out: &mut Vec<u8>) {
    append(destination, out);
    let authority = without_default_port(authority);
    append_length(authority, out);
    out.extend(authority.iter().map(u8::to_ascii_lowercase));
    append(target, out);
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
            target in any::<Vec<u8>>(),
        ) {
            let authority = authority.as_bytes();
            let mut made = Vec::new();
            key(&partition, &destination, authority, &target, &mut made);
            let expected =
                KeyParts { partition: &partition, destination: &destination, authority, target: &target };
            prop_assert_eq!(parts(&made), Some(expected));
            for end in 0..made.len() {
                prop_assert_eq!(parts(made.get(..end).unwrap()), None);
            }
            made.push(0);
            prop_assert_eq!(parts(&made), None);
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
    fn a_resource_is_the_same_for_every_partition() {
        let mut out = Vec::new();
        resource(b"d", b"H:80", b"/", &mut out);
        for partition in ["", "a", "b"] {
            assert!(of([partition, "d", "h", "/"]).ends_with(&out));
        }
    }
}
