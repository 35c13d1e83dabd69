//! Which answers a proxy of the mesh made itself, in place of the origin server.

use super::ResponseView;

/// How long the upstream of an Envoy took: it says so of every answer that it has from one.
const ENVOY_UPSTREAM_TIME: &str = "x-envoy-upstream-service-time";

/// Fields that only a proxy's own answers have: Envoy's rate limits and overload, Linkerd's errors.
const OF_PROXIES: [&str; 5] = [
    "x-envoy-overloaded",
    "x-envoy-local-overloaded",
    "x-envoy-ratelimited",
    "x-envoy-immediate-health-check-fail",
    "l5d-proxy-error",
];

/// Whether a proxy of the mesh made this answer itself: an error, a redirect or a limit of its own.
///
/// An Envoy names itself in `Server`, as Istio has it, and says how long its upstream took where there was one. Where it was told
/// not to, all its answers are taken for its own: they are passed on, and nothing follows from them.
pub fn is_mesh_reply(response: &ResponseView<'_>) -> bool {
    let fields = response.fields;
    let is_envoys = fields.values("server").any(|name| matches!(name, b"envoy" | b"istio-envoy"));
    (is_envoys && !fields.contains(ENVOY_UPSTREAM_TIME))
        || OF_PROXIES.iter().any(|name| fields.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Fields;

    fn is_of_mesh(pairs: &[(&str, &str)]) -> bool {
        let fields = Fields::from_pairs(pairs.iter().copied());
        is_mesh_reply(&ResponseView { status: 200, fields: &fields, delimited_by_close: false })
    }

    #[test]
    fn a_proxys_own_answers_are_told_from_those_it_passes_on() {
        assert!(!is_of_mesh(&[]));
        assert!(!is_of_mesh(&[("server", "nginx")]));
        assert!(!is_of_mesh(&[("server", "envoy"), ("x-envoy-upstream-service-time", "3")]));
        assert!(!is_of_mesh(&[("server", "nginx/envoy")]));
        assert!(is_of_mesh(&[("Server", "envoy")]));
        assert!(is_of_mesh(&[("server", "istio-envoy"), ("location", "/elsewhere")]));
        assert!(is_of_mesh(&[("l5d-proxy-error", "fail-fast")]));
        assert!(is_of_mesh(&[("x-envoy-overloaded", "true"), ("x-envoy-upstream-service-time", "3")]));
    }
}
