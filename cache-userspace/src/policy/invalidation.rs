//! Which exchanges make stored responses of their target unusable (RFC 9111 §4.4).
//!
//! Finding and killing those responses is left to `store`.

/// Whether a request of this method, answered with this status, invalidates what is stored for its target.
///
/// RFC 9111 §4.4: a non-error answer (2xx, 3xx) to an unsafe method, or to one whose safety is unknown. Safe are the
/// four of RFC 9110 §9.2.1 and QUERY (RFC 10008); methods are case-sensitive.
pub fn invalidates(method: &[u8], status: u16) -> bool {
    !is_safe(method) && (200..400).contains(&status)
}

/// Whether a request of this method changes nothing (RFC 9110 §9.2.1, RFC 10008); an unknown one may.
pub fn is_safe(method: &[u8]) -> bool {
    matches!(method, b"GET" | b"HEAD" | b"OPTIONS" | b"TRACE" | b"QUERY")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_successful_unsafe_or_unknown_method_invalidates_rfc9111_4_4() {
        for (method, status, expected) in [
            ("POST", 200, true),
            ("PUT", 204, true),
            ("DELETE", 302, true),
            ("PATCH", 399, true),
            ("FOO", 200, true),
            ("get", 200, true),
            ("POST", 404, false),
            ("POST", 500, false),
            ("POST", 100, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 200, false),
        ] {
            assert_eq!(invalidates(method.as_bytes(), status), expected, "{method} {status}");
        }
    }
}
