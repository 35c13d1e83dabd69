//! What a status code alone says about storing (RFC 9111 §3, RFC 9110 §15).

/// Status codes whose responses are never stored, whatever they say.
///
/// 206 and 304 describe another response; 226 is a difference to one that its client named (RFC 3229); 412 and 416 answer a precondition or a range, 407, 408 and 421 a connection;
/// 428, 429, 431 and 511 MUST NOT be stored (RFC 6585 §3–§6).
const NEVER: [u16; 12] = [206, 226, 304, 407, 408, 412, 416, 421, 428, 429, 431, 511];

/// Whether a whole response with this status may be stored: a final one (RFC 9111 §3), and none of the exceptions.
pub(super) fn is_storable(status: u16) -> bool {
    (200..600).contains(&status) && !NEVER.contains(&status)
}

/// Whether the status may be given a heuristic lifetime (RFC 9110 §15.1).
pub(super) fn is_heuristically_cacheable(status: u16) -> bool {
    matches!(status, 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Whether all that RFC 9110 specifies about caching for the status is done here (RFC 9111 §3, §5.2.2.3).
pub(super) fn is_understood(status: u16) -> bool {
    matches!(
        status,
        200 | 203
            | 204
            | 206
            | 300
            | 301
            | 302
            | 303
            | 307
            | 308
            | 400
            | 403
            | 404
            | 405
            | 406
            | 409
            | 410
            | 414
            | 500
            | 501
            | 502
            | 503
            | 504
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn final_status_codes_are_storable_but_for_the_exceptions_rfc9111_3() {
        for status in [200, 203, 204, 299, 303, 400, 401, 404, 499, 500, 503, 599] {
            assert!(is_storable(status), "{status}");
        }
        for status in [0, 100, 103, 199, 206, 226, 304, 407, 412, 416, 428, 429, 431, 511, 600, 999] {
            assert!(!is_storable(status), "{status}");
        }
    }

    #[test]
    fn unknown_status_codes_are_not_understood_rfc9111_5_2_2_3() {
        for status in [299, 499, 599] {
            assert!(!is_understood(status) && !is_heuristically_cacheable(status), "{status}");
        }
        assert!(is_understood(200) && is_heuristically_cacheable(404) && !is_heuristically_cacheable(302));
    }
}
