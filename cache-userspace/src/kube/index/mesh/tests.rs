//! What each kind of object makes of requests to a service: objects as their documentations show them.

use serde_json::{Value, json};

use super::*;

const DOMAIN: &str = "cluster.local";

fn mesh() -> Mesh {
    let root = ["istio-system".to_owned()].into();
    Mesh::new(Names { cluster_domain: DOMAIN.to_owned(), mesh_root_namespaces: root })
}

fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { namespace: namespace.to_owned(), name: name.to_owned() }
}

fn meta(namespace: &str, name: &str, generation: i64) -> Meta {
    let (namespace, uid) = (namespace.to_owned(), format!("{namespace}/{name}"));
    Meta { namespace, name: name.to_owned(), uid, generation, ..Meta::default() }
}

/// What is said of `shop/web`, whose pods have the label `app: web`.
fn of_web(mesh: &Mesh) -> Said {
    mesh.of(&key("shop", "web"), |labels| labels.iter().all(|(name, value)| name == "app" && value == "web"))
}

/// What one object in a namespace says of `shop/web`.
fn said_in(namespace: &str, kind: PolicyKind, spec: Value) -> Said {
    let mut mesh = mesh();
    mesh.put(kind, &meta(namespace, "one", 1), &json!({ "spec": spec }));
    of_web(&mesh)
}

fn guard(kind: PolicyKind, spec: Value) -> Guard {
    said_in("shop", kind, spec).guard
}

fn fields<const N: usize>(names: [&str; N]) -> BTreeSet<Input> {
    names.iter().map(|name| Input::Field((*name).to_owned())).collect()
}

/// A VirtualService with one HTTP route.
fn routed(route: Value) -> Guard {
    guard(PolicyKind::VirtualService, json!({ "hosts": ["web"], "http": [route] }))
}

fn to(host: &str) -> Value {
    json!({ "destination": { "host": host } })
}

#[test]
fn one_destination_is_shared_and_what_acts_after_us_changes_nothing() {
    for route in [
        json!({ "route": [to("web")] }),
        json!({ "route": [{ "destination": { "host": "web", "subset": "v1", "port": { "number": 80 } }, "weight": 100 }] }),
        json!({ "route": [{ "destination": { "host": "web" }, "weight": 0 }, to("web.shop.svc.cluster.local")] }),
        json!({ "route": [to("web")], "rewrite": { "uri": "/b" }, "timeout": "5s", "retries": { "attempts": 3 },
                "headers": { "request": { "set": { "x": "y" } } }, "name": "all" }),
        json!({ "route": [to("web")], "match": [{ "uri": { "prefix": "/a" }, "ignoreUriCase": true, "port": 80 }] }),
        json!({ "route": [to("web")], "fault": null, "mirror": null, "mirrors": [] }),
    ] {
        assert_eq!(routed(route.clone()), Guard::default(), "{route}");
    }
}

#[test]
fn routes_that_a_hit_would_bend_are_only_followed() {
    for (expected, route) in [
        (
            Reason::Split,
            json!({ "route": [{ "destination": { "host": "web", "subset": "v1" }, "weight": 90 },
                                          { "destination": { "host": "web", "subset": "v2" }, "weight": 10 }] }),
        ),
        (Reason::Split, json!({ "route": [to("web"), to("web2")] })),
        (
            Reason::Mirror,
            json!({ "route": [to("web")], "mirror": { "host": "shadow" }, "mirrorPercentage": { "value": 1 } }),
        ),
        (Reason::Mirror, json!({ "route": [to("web")], "mirrors": [to("shadow")] })),
        (
            Reason::Fault,
            json!({ "route": [to("web")], "fault": { "abort": { "httpStatus": 503, "percentage": { "value": 10 } } } }),
        ),
        (Reason::DirectResponse, json!({ "redirect": { "uri": "/b" } })),
        (Reason::DirectResponse, json!({ "directResponse": { "status": 200 } })),
        (Reason::Elsewhere, json!({ "route": [to("example.com")] })),
        (Reason::UnknownRoute, json!({ "delegate": { "name": "other" } })),
        (Reason::UnknownRoute, json!({ "route": [to("web")], "match": [{ "moonPhase": "full" }] })),
        (Reason::UnknownRoute, json!({ "route": [{ "destination": { "host": "web", "planet": "mars" } }] })),
    ] {
        assert_eq!(routed(route.clone()).bypass, Some(expected), "{route}");
    }
    let tcp = json!({ "hosts": ["web"], "tcp": [{ "route": [to("web")] }] });
    assert_eq!(guard(PolicyKind::VirtualService, tcp).bypass, Some(Reason::UnknownRoute));
}

#[test]
fn what_a_route_looks_at_tells_requests_apart() {
    let matched = |one: Value| routed(json!({ "route": [to("web")], "match": [one] })).inputs;
    let exact = json!({ "exact": "b" });
    assert_eq!(matched(json!({ "headers": { "X-Canary": exact } })), fields(["x-canary"]));
    assert_eq!(matched(json!({ "withoutHeaders": { "cookie": exact } })), fields(["cookie"]));
    assert_eq!(matched(json!({ "method": exact })), [Input::Method].into());
    assert_eq!(matched(json!({ "queryParams": { "v": exact } })), [Input::Query].into());
    assert_eq!(matched(json!({ "sourceLabels": { "app": "b" } })), [Input::Pod].into());
    let cors = routed(json!({ "route": [to("web")], "corsPolicy": { "allowOrigins": [exact] } }));
    assert!(cors.inputs.contains(&Input::Field("origin".to_owned())) && cors.bypass.is_none());
}

#[test]
fn a_route_is_about_the_hosts_that_it_names_for_pods() {
    let about = |namespace: &str, host: &str, gateways: Value| {
        let route = json!({ "route": [to("web")], "fault": { "delay": {} }, "name": "x" });
        let route = json!({ "route": route["route"], "fault": { "abort": { "httpStatus": 500 } } });
        let spec = json!({ "hosts": [host], "gateways": gateways, "http": [route] });
        said_in(namespace, PolicyKind::VirtualService, spec).guard.bypass.is_some()
    };
    for host in ["web", "web.shop", "WEB.shop.svc.cluster.local", "*.shop.svc.cluster.local", "*", "*.local"]
    {
        assert!(about("shop", host, Value::Null), "{host}");
    }
    for host in ["api", "web.other", "*.other.svc.cluster.local", "web.example.com"] {
        assert!(!about("shop", host, Value::Null), "{host}");
    }
    assert!(!about("other", "web", Value::Null), "beside the rule is another one");
    assert!(!about("shop", "web", json!(["shop/ingress"])), "only from outside");
    assert!(about("shop", "web", json!(["shop/ingress", "mesh"])));
}

#[test]
fn services_that_requests_are_sent_to_instead_are_remembered() {
    let spec = json!({ "hosts": ["web"], "http": [{ "route": [to("web-next.canary.svc.cluster.local")] }] });
    let said = said_in("shop", PolicyKind::VirtualService, spec);
    assert_eq!((said.guard, said.refers), (Guard::default(), [key("canary", "web-next")].into()));
}

#[test]
fn of_a_destination_rule_only_affinity_matters() {
    let rule = |policy: Value| {
        let subsets = json!([{ "name": "v1", "labels": { "version": "v1" }, "trafficPolicy": policy }]);
        let whole = guard(PolicyKind::DestinationRule, json!({ "host": "web", "trafficPolicy": policy }));
        assert_eq!(guard(PolicyKind::DestinationRule, json!({ "host": "web", "subsets": subsets })), whole);
        whole.bypass
    };
    let harmless = json!({ "loadBalancer": { "simple": "LEAST_REQUEST" }, "connectionPool": { "tcp": { "maxConnections": 1 } },
                           "outlierDetection": { "consecutive5xxErrors": 1 }, "tls": { "mode": "ISTIO_MUTUAL" } });
    assert_eq!(rule(harmless), None);
    let affine = json!({ "loadBalancer": { "consistentHash": { "httpHeaderName": "x-user" } } });
    assert_eq!(rule(affine.clone()), Some(Reason::Affinity));
    let at_a_port = json!({ "portLevelSettings": [{ "port": { "number": 80 }, "loadBalancer": affine["loadBalancer"] }] });
    assert_eq!(rule(at_a_port), Some(Reason::Affinity));
    assert_eq!(rule(json!({ "teleport": true })), Some(Reason::UnknownRoute));
}

#[test]
fn what_may_do_anything_is_never_bent() {
    for kind in [PolicyKind::EnvoyFilter, PolicyKind::WasmPlugin] {
        for (namespace, is_said) in [("shop", true), ("istio-system", true), ("other", false)] {
            let mut mesh = mesh();
            let before = mesh.clients_changed;
            mesh.put(kind, &meta(namespace, "one", 1), &json!({ "spec": {} }));
            assert_eq!(of_web(&mesh).guard.bypass, is_said.then_some(Reason::Filter), "{kind:?} {namespace}");
            let (of, all) = mesh.clients();
            let expected = if namespace == "istio-system" { &all } else { &of[namespace] };
            assert_eq!(expected.bypass, Some(Reason::Filter), "{kind:?} {namespace}");
            assert!(mesh.clients_changed > before);
        }
    }
    let entry = json!({ "hosts": ["web.shop.svc.cluster.local"] });
    assert_eq!(guard(PolicyKind::ServiceEntry, entry).bypass, Some(Reason::ServiceEntry));
    let entry = json!({ "hosts": ["example.com"] });
    assert_eq!(guard(PolicyKind::ServiceEntry, entry), Guard::default());
}

#[test]
fn who_may_ask_is_told_by_path_where_requests_are_looked_into() {
    let policy =
        |rule: Value| guard(PolicyKind::AuthorizationPolicy, json!({ "action": "ALLOW", "rules": [rule] }));
    let principals =
        json!([{ "source": { "principals": ["cluster.local/ns/shop/sa/web"], "ipBlocks": ["10.0.0.0/8"] } }]);
    assert_eq!(policy(json!({ "from": principals })), Guard::default());
    assert_eq!(policy(json!({ "to": [{ "operation": { "ports": ["80"] } }] })), Guard::default());
    assert_eq!(
        policy(json!({ "from": principals, "to": [{ "operation": { "paths": ["/a*"] } }] })),
        Guard::by_path()
    );
    assert_eq!(policy(json!({ "to": [{ "operation": { "notMethods": ["GET"] } }] })), Guard::by_path());
    let when = |key: &str| policy(json!({ "when": [{ "key": key, "values": ["a"] }] }));
    let by_field = when("request.headers[X-Version]");
    assert_eq!(
        (by_field.leases_by_path, by_field.inputs, by_field.bypass),
        (true, fields(["x-version"]), None)
    );
    assert_eq!(when("source.namespace"), Guard::default());
    assert_eq!(when("request.auth.claims[iss]").bypass, Some(Reason::Claims));
    assert_eq!(when("experimental.envoy.filters.a").bypass, Some(Reason::Condition));
    let claims = json!([{ "source": { "requestPrincipals": ["*"] } }]);
    assert_eq!(policy(json!({ "from": claims })).bypass, Some(Reason::Claims));
    assert_eq!(
        policy(json!({ "from": [{ "source": { "remoteIpBlocks": ["1.2.3.4"] } }] })).bypass,
        Some(Reason::Condition)
    );
    let custom = json!({ "action": "CUSTOM", "provider": { "name": "opa" }, "rules": [{}] });
    assert_eq!(guard(PolicyKind::AuthorizationPolicy, custom).bypass, Some(Reason::ExternalAuthorization));
    let audit = json!({ "action": "AUDIT", "rules": [{ "to": [{ "operation": { "paths": ["/a"] } }] }] });
    assert_eq!(guard(PolicyKind::AuthorizationPolicy, audit), Guard::default());
    assert_eq!(
        guard(PolicyKind::RequestAuthentication, json!({ "jwtRules": [] })).bypass,
        Some(Reason::Claims)
    );
}

#[test]
fn a_policy_is_about_the_pods_that_it_selects() {
    let of = |namespace: &str, more: Value| {
        let mut spec = json!({ "jwtRules": [{ "issuer": "a" }] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        said_in(namespace, PolicyKind::RequestAuthentication, spec).guard.bypass.is_some()
    };
    let selector = |app: &str| json!({ "selector": { "matchLabels": { "app": app } } });
    assert!(of("shop", json!({})) && of("shop", selector("web")) && !of("shop", selector("gateway")));
    assert!(of("istio-system", json!({})) && of("istio-system", selector("web")));
    assert!(!of("istio-system", selector("gateway")), "that of the gateway in the mesh's own namespace");
    assert!(!of("other", json!({})));
    let service = |name: &str| json!({ "targetRefs": [{ "kind": "Service", "name": name }] });
    assert!(of("shop", service("web")) && !of("shop", service("api")));
    assert!(
        of("shop", json!({ "targetRef": { "kind": "Gateway", "name": "waypoint" } })),
        "before all of them"
    );
}

#[test]
fn routes_of_the_gateway_api_are_about_the_services_that_are_their_parents() {
    let route = |parent: Value, rule: Value| {
        guard(PolicyKind::HttpRoute, json!({ "parentRefs": [parent], "rules": [rule] }))
    };
    let web = json!({ "group": "", "kind": "Service", "name": "web", "port": 80 });
    let backend = |name: &str, weight: i64| json!({ "name": name, "port": 80, "weight": weight });
    let rule = |more: Value| {
        let mut rule = json!({ "backendRefs": [backend("web", 1)] });
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        route(web.clone(), rule)
    };
    assert_eq!(rule(json!({ "timeouts": { "request": "1s" } })), Guard::default());
    assert_eq!(rule(json!({ "filters": [{ "type": "URLRewrite" }] })), Guard::default());
    let split = json!({ "backendRefs": [backend("web", 90), backend("web2", 10)] });
    assert_eq!(rule(split.clone()).bypass, Some(Reason::Split));
    assert_eq!(rule(json!({ "backendRefs": [backend("web", 1), backend("web2", 0)] })), Guard::default());
    for (filter, expected) in [
        ("RequestMirror", Reason::Mirror),
        ("RequestRedirect", Reason::DirectResponse),
        ("ExtensionRef", Reason::Filter),
        ("Invented", Reason::Filter),
    ] {
        assert_eq!(rule(json!({ "filters": [{ "type": filter }] })).bypass, Some(expected), "{filter}");
    }
    assert_eq!(rule(json!({ "filters": [{ "type": "CORS" }] })).inputs, fields(["origin"]));
    assert_eq!(rule(json!({ "sessionPersistence": { "type": "Cookie" } })).bypass, Some(Reason::Affinity));
    let matches = json!([{ "headers": [{ "name": "X-A", "value": "1" }], "queryParams": [{ "name": "q" }], "method": "GET" }]);
    let expected = fields(["x-a"]).into_iter().chain([Input::Query, Input::Method]).collect();
    assert_eq!(rule(json!({ "matches": matches })).inputs, expected);
    assert_eq!(
        rule(json!({ "backendRefs": [{ "kind": "Bucket", "name": "b" }] })).bypass,
        Some(Reason::Elsewhere)
    );
    // A gateway's route is none of ours, nor is that of a Service of the same name elsewhere.
    assert_eq!(route(json!({ "kind": "Gateway", "name": "web" }), split.clone()), Guard::default());
    let elsewhere = json!({ "kind": "Service", "name": "web", "namespace": "other" });
    assert_eq!(route(elsewhere, split), Guard::default());
    let grpc = guard(PolicyKind::GrpcRoute, json!({ "parentRefs": [web], "rules": [] }));
    assert_eq!(grpc.bypass, Some(Reason::UnknownRoute));
}

#[test]
fn linkerds_policies_are_heeded() {
    assert_eq!(guard(PolicyKind::LinkerdAuthorizationPolicy, json!({})), Guard::by_path());
    assert_eq!(guard(PolicyKind::LinkerdRateLimit, json!({})).bypass, Some(Reason::RateLimit));
    assert_eq!(guard(PolicyKind::LinkerdServer, json!({})), Guard::default());
    let of_server =
        json!({ "parentRefs": [{ "group": "policy.linkerd.io", "kind": "Server", "name": "a" }] });
    assert_eq!(guard(PolicyKind::LinkerdHttpRoute, of_server.clone()), Guard::by_path());
    let mut looking = of_server;
    looking["rules"] = json!([{ "matches": [{ "headers": [{ "name": "X-Admin", "value": "1" }] }] }]);
    assert_eq!(guard(PolicyKind::LinkerdHttpRoute, looking).inputs, fields(["x-admin"]));
    let profile = |spec: Value| {
        let mut mesh = mesh();
        let meta = meta("shop", "web.shop.svc.cluster.local", 1);
        mesh.put(PolicyKind::ServiceProfile, &meta, &json!({ "spec": spec }));
        of_web(&mesh).guard.bypass
    };
    assert_eq!(profile(json!({ "routes": [{ "name": "a", "timeout": "1s" }] })), None);
    assert_eq!(profile(json!({ "dstOverrides": [{ "authority": "a", "weight": 1 }] })), Some(Reason::Split));
}

#[test]
fn ciliums_policies_are_heeded_on_both_sides() {
    let policy = |rules: Value| json!({ "ingress": [{ "toPorts": [{ "ports": [{ "port": "80" }], "rules": rules }] }] });
    assert_eq!(guard(PolicyKind::CiliumNetworkPolicy, policy(Value::Null)), Guard::default());
    assert_eq!(
        guard(PolicyKind::CiliumNetworkPolicy, policy(json!({ "http": [{ "path": "/a" }] }))),
        Guard::by_path()
    );
    let conditional = policy(json!({ "http": [{ "headers": ["X-Token: a"] }] }));
    assert_eq!(guard(PolicyKind::CiliumNetworkPolicy, conditional.clone()).bypass, Some(Reason::Condition));
    let listener = json!({ "ingress": [{ "toPorts": [{ "listener": { "name": "a" } }] }] });
    assert_eq!(guard(PolicyKind::CiliumNetworkPolicy, listener).bypass, Some(Reason::Filter));
    let mut mesh = mesh();
    let specs = json!({ "specs": [policy(json!({ "http": [{}] }))] });
    mesh.put(PolicyKind::CiliumClusterwideNetworkPolicy, &meta("", "one", 1), &specs);
    assert!(of_web(&mesh).guard.leases_by_path && mesh.clients().1.leases_by_path);
    let services = json!({ "services": [{ "name": "web", "namespace": "shop" }] });
    assert_eq!(guard(PolicyKind::CiliumEnvoyConfig, services.clone()).bypass, Some(Reason::Filter));
    assert_eq!(
        said_in("", PolicyKind::CiliumClusterwideEnvoyConfig, services).guard.bypass,
        Some(Reason::Filter)
    );
}

#[test]
fn what_cannot_be_read_may_say_anything() {
    let mut mesh = mesh();
    mesh.put_unreadable(PolicyKind::VirtualService, key("other", "one"));
    assert_eq!(of_web(&mesh).guard.bypass, Some(Reason::Unreadable));
    mesh.remove(PolicyKind::VirtualService, key("other", "one"));
    assert_eq!(of_web(&mesh), Said::default());
    assert!(mesh.blind(PolicyKind::HttpRoute, true) && !mesh.blind(PolicyKind::HttpRoute, true));
    assert_eq!(of_web(&mesh).guard.bypass, Some(Reason::Unreadable));
    assert!(mesh.blind(PolicyKind::HttpRoute, false));
    assert_eq!(of_web(&mesh), Said::default());
}

#[test]
fn each_change_of_an_object_is_another_saying_of_whom_it_concerns() {
    let mut mesh = mesh();
    let spec = json!({ "spec": { "hosts": ["web"], "http": [] } });
    let news = mesh.put(PolicyKind::VirtualService, &meta("shop", "one", 1), &spec);
    assert!(news.is_for_all, "the first one: names matter from here on");
    let first = of_web(&mesh);
    assert!(!mesh.put(PolicyKind::VirtualService, &meta("shop", "one", 1), &spec).is_for_all);
    let news = mesh.put(PolicyKind::VirtualService, &meta("shop", "one", 2), &spec);
    let concerns = |news: &News, name: &str| mesh.concerns(news, &key("shop", name), |_| true);
    assert!(concerns(&news, "web") && !concerns(&news, "api") && !news.is_for_all);
    assert_ne!(of_web(&mesh), first, "by its generation");
}

#[test]
fn the_kinds_of_a_mesh_that_is_not_understood_stop_hits() {
    let mut mesh = mesh();
    assert!(!mesh.defined("crontabs.stable.example.com", true), "none of a mesh's");
    for name in
        ["meshhttproutes.kuma.io", "servicesplitters.consul.hashicorp.com", "trafficsplits.split.smi-spec.io"]
    {
        assert!(mesh.defined(name, true) && !mesh.defined(name, true), "{name}");
        assert_eq!(of_web(&mesh).guard.bypass, Some(Reason::Unreadable), "{name}");
        assert!(mesh.defined(name, false), "{name}");
    }
    assert_eq!(of_web(&mesh), Said::default());
    assert_eq!(mesh.names_of(&key("shop", "web")), None);
    assert!(mesh.defined("virtualservices.networking.istio.io", true));
    assert!(mesh.names_of(&key("shop", "web")).is_some(), "a mesh may go by names without any object");
    assert_eq!(of_web(&mesh), Said::default());
}

#[test]
fn where_requests_are_sent_to_several_services_a_right_to_one_says_nothing_of_another() {
    let to_both = json!({ "hosts": ["web"], "http": [
        { "match": [{ "uri": { "prefix": "/admin" } }], "route": [to("web-admin")] },
        { "route": [to("web")] },
    ] });
    assert_eq!(guard(PolicyKind::VirtualService, to_both), Guard::by_path());
    let rule = |path: &str, name: &str| {
        json!({
            "matches": [{ "path": { "type": "PathPrefix", "value": path } }], "backendRefs": [{ "name": name, "port": 80 }],
        })
    };
    let parent = json!({ "kind": "Service", "group": "", "name": "web" });
    let to_both = json!({ "parentRefs": [parent], "rules": [rule("/admin", "web-admin"), rule("/", "web")] });
    assert_eq!(guard(PolicyKind::HttpRoute, to_both), Guard::by_path());
}
