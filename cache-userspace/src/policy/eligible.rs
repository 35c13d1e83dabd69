//! Which requests are looked up at all (RFC 9111 §4; DESIGN: when in doubt, forward).
//!
//! What a look-up then finds usable is left to `decide`.

use super::{Profile, Reason, RequestView, Rules, cache_control::CacheControl, conditional};
use crate::http1::Fields;

/// Whether a request is looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    /// Stored responses may answer it and its response may be stored.
    Lookup,
    /// It is forwarded and its response is not stored.
    Bypass(Reason),
}

/// Judges a request before any stored response is known.
pub fn eligible(request: &RequestView<'_>, rules: &Rules) -> Eligibility {
    match refusal(request, rules) {
        Some(reason) => Eligibility::Bypass(reason),
        None => Eligibility::Lookup,
    }
}

fn refusal(request: &RequestView<'_>, rules: &Rules) -> Option<Reason> {
    // RFC 9111 §4: the method must allow the stored response; HEAD is answered from a stored GET (§3, RFC 9110 §9.3.2),
    // QUERY from a stored QUERY (RFC 10008 §2.7).
    if !matches!(request.method, b"GET" | b"HEAD" | b"QUERY") {
        return Some(Reason::Method);
    }
    let is_query = request.method == b"QUERY";
    let (mut hosts, mut ranges) = (0, 0);
    for (name, value) in request.fields.iter() {
        if is(name, "host") {
            hosts += 1;
            if value.is_empty() {
                return Some(Reason::Host);
            }
        } else if is_query && is_framing(name) {
            // Its content is part of the key.
        } else if is_query && is_condition(name) {
            // RFC 9110 §13.1.2: what a false condition means is another matter for each method.
            return Some(Reason::Conditional);
        } else if let Some(reason) = of_field(name, value) {
            return Some(reason);
        }
        ranges += usize::from(is(name, "range"));
    }
    // RFC 9110 §14.2: a field of one member; what two of them ask for is for the origin server to say.
    if ranges > 1 || (is_query && ranges > 0) {
        return Some(Reason::Range);
    }
    // RFC 9110 §7.2: without exactly one Host the target's authority is not known.
    if hosts != 1 {
        return Some(Reason::Host);
    }
    if CacheControl::of(request.fields).no_store {
        return Some(Reason::RequestNoStore);
    }
    if rules.profile == Profile::Safe && (is_health_path(request.target) || is_probe(request.fields)) {
        return Some(Reason::HealthPath);
    }
    None
}

fn is_framing(name: &[u8]) -> bool {
    is(name, "transfer-encoding") || is(name, "content-length")
}

fn is_condition(name: &[u8]) -> bool {
    name.get(..3).is_some_and(|start| is(start, "if-"))
}

fn of_field(name: &[u8], value: &[u8]) -> Option<Reason> {
    if is_condition(name) && !conditional::is_readable(name, value) {
        Some(Reason::Conditional)
    } else if is(name, "transfer-encoding") || (is(name, "content-length") && value != b"0") {
        Some(Reason::Content)
    } else if is(name, "expect") {
        Some(Reason::Expect)
    } else if is(name, "upgrade") && !members(value).all(|member| is(member, "h2c")) {
        Some(Reason::Upgrade)
    } else if is(name, "connection") && !members(value).all(is_known_option) {
        Some(Reason::ConnectionOption)
    } else {
        None
    }
}

/// Options that nominate nothing which could select a response.
fn is_known_option(option: &[u8]) -> bool {
    ["close", "keep-alive", "te", "upgrade", "http2-settings", "proxy-connection"]
        .iter()
        .any(|known| is(option, known))
}

fn is_health_path(target: &[u8]) -> bool {
    let path = target.split(|b| matches!(b, b'?' | b'#')).next().unwrap_or_default();
    let starts = |word: &str| path.get(..word.len()).is_some_and(|start| is(start, word));
    starts("/health") || starts("/ready") || starts("/live") || is(path, "/ping") || is(path, "/status")
}

/// The kubelet's own probes.
fn is_probe(fields: &Fields) -> bool {
    fields.values("user-agent").any(|agent| agent.get(..11).is_some_and(|start| is(start, "kube-probe/")))
}

fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty())
}

fn is(text: &[u8], word: &str) -> bool {
    text.eq_ignore_ascii_case(word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(method: &str, target: &str, pairs: &[(&str, &str)], profile: Profile) -> Eligibility {
        let pairs = [("Host", "a")].iter().chain(pairs).copied();
        let fields = Fields::from_pairs(pairs);
        let request = RequestView { method: method.as_bytes(), target: target.as_bytes(), fields: &fields };
        eligible(&request, &Rules { profile, ..Rules::default() })
    }

    #[test]
    fn ordinary_gets_and_heads_are_looked_up() {
        for pairs in [
            &[][..],
            &[("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "x")],
            &[("connection", "Keep-Alive, TE"), ("te", "trailers"), ("content-length", "0")],
            &[("cache-control", "no-cache, max-age=0"), ("authorization", "x"), ("cookie", "a=b")],
            &[("Range", "bytes=0-1"), ("If-Range", "\"a\"")],
            &[("Range", "lines=1"), ("If-Range", "x")],
        ] {
            for method in ["GET", "HEAD"] {
                assert_eq!(judge(method, "/", pairs, Profile::Safe), Eligibility::Lookup, "{pairs:?}");
            }
        }
    }

    #[test]
    fn requests_that_a_stored_response_cannot_answer_are_forwarded() {
        for (pair, reason) in [
            (("If-None-Match", "a"), Reason::Conditional),
            (("if-unmodified-since", "x"), Reason::Conditional),
            (("if-match", "*"), Reason::Conditional),
            (("Cache-Control", "NO-STORE"), Reason::RequestNoStore),
            (("Connection", "close, X-Secret"), Reason::ConnectionOption),
            (("Upgrade", "websocket"), Reason::Upgrade),
            (("Expect", "100-continue"), Reason::Expect),
            (("Content-Length", "1"), Reason::Content),
            (("Transfer-Encoding", "chunked"), Reason::Content),
            (("Host", "b"), Reason::Host),
        ] {
            assert_eq!(judge("GET", "/", &[pair], Profile::Rfc9111), Eligibility::Bypass(reason), "{pair:?}");
        }
        for method in ["POST", "get", "OPTIONS", "query", ""] {
            let judged = judge(method, "/", &[], Profile::Safe);
            assert_eq!(judged, Eligibility::Bypass(Reason::Method), "{method}");
        }
    }

    #[test]
    fn a_query_is_looked_up_with_its_content_but_without_conditions_and_ranges_rfc10008_2_7() {
        let bypass = Eligibility::Bypass;
        for (pair, expected) in [
            (("Content-Length", "7"), Eligibility::Lookup),
            (("Transfer-Encoding", "chunked"), Eligibility::Lookup),
            (("Content-Type", "application/sql"), Eligibility::Lookup),
            (("Cache-Control", "no-cache"), Eligibility::Lookup),
            (("Cache-Control", "no-store"), bypass(Reason::RequestNoStore)),
            (("Expect", "100-continue"), bypass(Reason::Expect)),
            (("If-None-Match", "\"a\""), bypass(Reason::Conditional)),
            (("If-Modified-Since", "Sun, 06 Nov 1994 08:49:37 GMT"), bypass(Reason::Conditional)),
            (("Range", "bytes=0-1"), bypass(Reason::Range)),
            (("Upgrade", "websocket"), bypass(Reason::Upgrade)),
        ] {
            for profile in [Profile::Safe, Profile::Rfc9111] {
                assert_eq!(judge("QUERY", "/", &[pair], profile), expected, "{pair:?}");
            }
        }
        assert_eq!(judge("QUERY", "/healthz", &[], Profile::Safe), bypass(Reason::HealthPath));
    }

    #[test]
    fn two_ranges_fields_are_left_to_the_origin_rfc9110_14_2() {
        let judged = judge("GET", "/", &[("Range", "bytes=0-1"), ("range", "bytes=2-3")], Profile::Rfc9111);
        assert_eq!(judged, Eligibility::Bypass(Reason::Range));
    }

    #[test]
    fn a_missing_or_empty_host_is_forwarded_rfc9110_7_2() {
        for pairs in [vec![], vec![("Host", "")]] {
            let fields = Fields::from_pairs(pairs);
            let request = RequestView { method: b"GET", target: b"/", fields: &fields };
            assert_eq!(eligible(&request, &Rules::default()), Eligibility::Bypass(Reason::Host));
        }
    }

    #[test]
    fn health_paths_are_never_answered_from_the_cache_in_safe() {
        for target in ["/health", "/healthz?x=1", "/ready", "/readyz", "/livez", "/live/", "/ping", "/status"]
        {
            let judged = judge("GET", target, &[], Profile::Safe);
            assert_eq!(judged, Eligibility::Bypass(Reason::HealthPath), "{target}");
            assert_eq!(judge("GET", target, &[], Profile::Rfc9111), Eligibility::Lookup);
        }
        let probe = judge("GET", "/", &[("user-agent", "kube-probe/1.30")], Profile::Safe);
        assert_eq!(probe, Eligibility::Bypass(Reason::HealthPath));
        for target in ["/", "/pingpong", "/statuses", "/a/health"] {
            assert_eq!(judge("GET", target, &[], Profile::Safe), Eligibility::Lookup, "{target}");
        }
    }
}
