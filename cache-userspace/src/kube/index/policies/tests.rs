//! Which policy holds for which service, in whatever order they come.

use serde_json::{Value, json};

use super::super::super::objects::Kind;
use super::super::tests::{applied, index};
use super::super::{Change, Destination, Index};
use super::*;

fn service(name: &str, ip: &str) -> Change {
    let spec = json!({ "clusterIP": ip, "ports": [{ "name": "http", "port": 80 }] });
    applied(
        Kind::Service,
        json!({ "metadata": { "name": name, "namespace": "shop", "uid": name }, "spec": spec }),
    )
}

fn policy(name: &str, created: &str, spec: Value) -> Change {
    let metadata = json!({ "name": name, "namespace": "shop", "creationTimestamp": created });
    applied(Kind::CachePolicy, json!({ "metadata": metadata, "spec": spec }))
}

fn of_service(name: &str, seconds: u32) -> Value {
    json!({ "targetRefs": [{ "kind": "Service", "name": name }], "staleIfError": format!("{seconds}s") })
}

fn of_all(seconds: u32) -> Value {
    json!({ "targetRefs": [{ "kind": "Namespace", "name": "shop" }], "staleIfError": format!("{seconds}s") })
}

/// An index with the Services `web` and `api`.
fn shop() -> Index {
    let mut index = index();
    index.apply(service("web", "10.96.0.1"));
    index.apply(service("api", "10.96.0.2"));
    index
}

fn destination(index: &Index, name: &str) -> Arc<Destination> {
    let all = index.snapshot().destinations;
    all.values().find(|destination| destination.service.name == name).unwrap().clone()
}

/// The policy that holds for a Service, and what it says.
fn holds(index: &Index, name: &str) -> Option<(String, u64)> {
    let policy = destination(index, name).policy.clone()?;
    Some((policy.name.clone(), policy.words.stale_if_error.map_or(0, |span| span.0.as_secs())))
}

fn held(name: &str, seconds: u64) -> Option<(String, u64)> {
    Some((name.to_owned(), seconds))
}

#[test]
fn the_more_specific_then_the_older_then_the_first_by_name_holds() {
    let policies = [
        policy("all", "2026-01-01T00:00:00Z", of_all(1)),
        policy("young", "2026-03-01T00:00:00Z", of_service("web", 2)),
        policy("b", "2026-02-01T00:00:00Z", of_service("web", 3)),
        policy("a", "2026-02-01T00:00:00Z", of_service("web", 4)),
    ];
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
        let mut index = shop();
        for at in order {
            assert!(index.apply(policies[at].clone()));
        }
        assert_eq!((holds(&index, "web"), holds(&index, "api")), (held("a", 4), held("all", 1)), "{order:?}");
        let states = index.snapshot().policies;
        let state = |name: &str| {
            let found = states.iter().find(|state| state.policy.name == name).unwrap();
            found.targets.iter().map(|(target, state)| format!("{target}: {state}")).collect::<Vec<_>>()
        };
        assert_eq!(state("a"), ["Service web: holds"]);
        assert_eq!(state("young"), ["Service web: overruled by a"]);
        assert_eq!(state("all"), ["Namespace shop: holds"]);
        // What overruled goes.
        for name in ["a", "b"] {
            let key = ObjectKey { namespace: "shop".to_owned(), name: name.to_owned() };
            assert!(index.apply(Change::Deleted(Kind::CachePolicy, key)));
        }
        assert_eq!(holds(&index, "web"), held("young", 2), "{order:?}");
    }
}

#[test]
fn a_change_is_an_epoch_of_its_own_for_those_it_is_about_and_no_news_of_routes() {
    let mut index = shop();
    let (web, api) = (destination(&index, "web"), destination(&index, "api"));
    index.apply(policy("web", "2026-01-01T00:00:00Z", of_service("web", 1)));
    let other = destination(&index, "web");
    assert!(other.epoch > web.epoch && other.routed == web.routed);
    assert_eq!(destination(&index, "api"), api, "of others nothing is said");
    assert!(!index.apply(policy("web", "2026-01-01T00:00:00Z", of_service("web", 1))), "no news");
    index.apply(service("web", "10.96.0.9"));
    let routed = destination(&index, "web");
    assert!(routed.routed > other.routed && routed.routed == routed.epoch);
}

#[test]
fn by_mode_off_requests_are_only_forwarded() {
    let mut index = shop();
    let targets = json!([{ "kind": "Service", "name": "web" }, { "kind": "Service", "name": "gone" }]);
    index.apply(policy("web", "", json!({ "targetRefs": targets, "mode": "off" })));
    assert_eq!(destination(&index, "web").policy.as_ref().unwrap().bypass, Some(Reason::PolicyOff));
    let states = index.snapshot().policies;
    assert_eq!(states[0].targets[1], ("Service gone".to_owned(), TargetState::Missing));
}

#[test]
fn what_cannot_be_read_may_be_about_any_service_of_its_namespace() {
    let mut index = shop();
    index.apply(policy("web", "", of_service("web", 1)));
    index.apply(policy("new", "", json!({ "targetRefs": [], "mode": "shadow" })));
    for name in ["web", "api"] {
        let bypass = destination(&index, name).policy.as_ref().unwrap().bypass;
        assert_eq!(bypass, Some(Reason::Unreadable), "{name}");
    }
    let states = index.snapshot().policies;
    assert!(states[0].trouble.as_ref().unwrap().contains("shadow"));
    assert_eq!(
        states[1].targets[0].1,
        TargetState::Suspended("new cannot be read".to_owned()),
        "the other one does not hold"
    );
    // All are read anew, without it.
    let one = match policy("web", "", of_service("web", 1)) {
        Change::Applied(object) => object,
        _ => unreachable!(),
    };
    index.apply(Change::Replaced(Kind::CachePolicy, vec![one]));
    assert_eq!((holds(&index, "web"), holds(&index, "api")), (held("web", 1), None));
}

#[test]
fn where_policies_may_not_be_read_nothing_is_given_from_the_store() {
    let mut index = shop();
    assert!(index.apply(Change::Blind(Kind::CachePolicy)));
    assert_eq!(destination(&index, "api").policy.as_ref().unwrap().bypass, Some(Reason::Unreadable));
    index.apply(Change::Replaced(Kind::CachePolicy, Vec::new()));
    assert_eq!(destination(&index, "api").policy, None);
}

#[test]
fn a_policy_holds_in_its_own_namespace_only() {
    let mut index = shop();
    let targets = json!([{ "kind": "Namespace", "name": "other" }]);
    index.apply(policy("odd", "", json!({ "targetRefs": targets })));
    assert_eq!(holds(&index, "web"), None);
    assert_eq!(index.snapshot().policies[0].targets[0].1, TargetState::Foreign);
}

#[test]
fn a_namespace_with_too_many_policies_is_only_forwarded_to_and_others_are_as_they_were() {
    let mut index = shop();
    for n in 0..=POLICIES_MAX {
        index.apply(policy(&format!("p{n:03}"), "", of_service("web", 1)));
        let is_bypassed = destination(&index, "api").policy.is_some();
        assert_eq!(is_bypassed, n == POLICIES_MAX, "{n}");
    }
    let metadata = json!({ "name": "a", "namespace": "other" });
    index.apply(applied(Kind::CachePolicy, json!({ "metadata": metadata, "spec": of_all(1) })));
    let states = index.snapshot().policies;
    assert_eq!(states.len(), POLICIES_MAX + 2);
    assert_eq!(states[0].targets[0].1, TargetState::Foreign);
    assert!(matches!(states[1].targets[0].1, TargetState::Suspended(_)));
}

#[test]
fn pods_behind_two_services_of_which_one_is_only_forwarded_to_go_direct() {
    let headless = |name: &str| {
        let spec = json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }] });
        applied(
            Kind::Service,
            json!({ "metadata": { "name": name, "namespace": "shop", "uid": name }, "spec": spec }),
        )
    };
    let slice = |of: &str| {
        applied(
            Kind::EndpointSlice,
            json!({
                "metadata": { "name": of, "namespace": "shop", "labels": { "kubernetes.io/service-name": of } },
                "endpoints": [{ "addresses": ["10.0.0.9"], "targetRef": { "kind": "Pod", "name": "p", "uid": "u" } }],
                "ports": [{ "name": "http", "port": 80 }],
            }),
        )
    };
    let mut index = index();
    for name in ["a-web", "b-web"] {
        index.apply(headless(name));
        index.apply(slice(name));
    }
    assert_eq!(index.snapshot().destinations.len(), 1);
    index.apply(policy(
        "off",
        "",
        json!({ "targetRefs": [{ "kind": "Service", "name": "b-web" }], "mode": "off" }),
    ));
    assert_eq!(index.snapshot().destinations.len(), 0);
}
