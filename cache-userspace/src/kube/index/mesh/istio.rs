//! Istio's objects.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::super::objects::{Meta, ObjectKey};
use super::{
    About, Guard, Input, Names, Saying, has, has_others, host_of, is_nothing, items, labels, service_of, text,
};
use crate::policy::Reason;

/// What a VirtualService says of requests of pods; those of gateways only say nothing.
pub(super) fn virtual_service(meta: &Meta, spec: &Value, names: &Names) -> Vec<Saying> {
    let gateways: Vec<&str> = items(&spec["gateways"]).map(text).collect();
    if !gateways.is_empty() && !gateways.contains(&"mesh") {
        return Vec::new();
    }
    let mut guard = Guard::default();
    let mut refers = BTreeSet::new();
    let is_known = !has_others(spec, &["hosts", "gateways", "http", "exportTo"]);
    guard.refuse_if(!is_known, Reason::UnknownRoute);
    for route in items(&spec["http"]) {
        http_route(route, &mut guard, &mut refers, &|host| service_of(host, meta, names));
    }
    items(&spec["hosts"])
        .map(|host| Saying::sending_to(About::Host(host_of(text(host), meta, names)), &guard, &refers))
        .collect()
}

fn http_route(
    route: &Value,
    guard: &mut Guard,
    refers: &mut BTreeSet<ObjectKey>,
    service: &dyn Fn(&str) -> Option<ObjectKey>,
) {
    const KNOWN: [&str; 15] = [
        "name",
        "match",
        "route",
        "rewrite",
        "timeout",
        "retries",
        "headers",
        "corsPolicy",
        "mirror",
        "mirrors",
        "mirrorPercentage",
        "mirrorPercent",
        "fault",
        "redirect",
        "directResponse",
    ];
    guard.refuse_if(has_others(route, &KNOWN), Reason::UnknownRoute);
    guard.refuse_if(has(route, ["mirror", "mirrors"]), Reason::Mirror);
    guard.refuse_if(has(route, ["fault"]), Reason::Fault);
    guard.refuse_if(has(route, ["redirect", "directResponse"]), Reason::DirectResponse);
    if has(route, ["corsPolicy"]) {
        guard.inputs.insert(Input::Field("origin".to_owned()));
        guard.inputs.insert(Input::Field("access-control-request-method".to_owned()));
    }
    for one in items(&route["match"]) {
        matched(one, guard);
    }
    for to in guard.destinations(&route["route"]) {
        let is_known = !has_others(to, &["destination", "weight", "headers"])
            && !has_others(&to["destination"], &["host", "subset", "port"]);
        guard.refuse_if(!is_known, Reason::UnknownRoute);
        match service(text(&to["destination"]["host"])) {
            Some(key) => drop(refers.insert(key)),
            None => guard.refuse(Some(Reason::Elsewhere)),
        }
    }
}

fn matched(one: &Value, guard: &mut Guard) {
    const KNOWN: [&str; 14] = [
        "name",
        "uri",
        "scheme",
        "method",
        "authority",
        "headers",
        "port",
        "sourceLabels",
        "gateways",
        "queryParams",
        "ignoreUriCase",
        "withoutHeaders",
        "sourceNamespace",
        "statPrefix",
    ];
    guard.refuse_if(has_others(one, &KNOWN), Reason::UnknownRoute);
    for name in ["headers", "withoutHeaders"] {
        let names = one[name].as_object().into_iter().flatten().map(|(name, _)| name.to_ascii_lowercase());
        guard.inputs.extend(names.map(Input::Field));
    }
    guard.tell_apart(
        one,
        [("method", Input::Method), ("queryParams", Input::Query), ("sourceLabels", Input::Pod)],
    );
}

/// What a DestinationRule says: only affinity matters, which sends one client's requests to one server.
pub(super) fn destination_rule(meta: &Meta, spec: &Value, names: &Names) -> Vec<Saying> {
    const KNOWN: [&str; 5] = ["host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"];
    let mut guard = Guard::default();
    guard.refuse_if(has_others(spec, &KNOWN), Reason::UnknownRoute);
    traffic_policy(&spec["trafficPolicy"], &mut guard);
    for subset in items(&spec["subsets"]) {
        guard.refuse_if(has_others(subset, &["name", "labels", "trafficPolicy"]), Reason::UnknownRoute);
        traffic_policy(&subset["trafficPolicy"], &mut guard);
    }
    vec![Saying::of(About::Host(host_of(text(&spec["host"]), meta, names)), guard)]
}

fn traffic_policy(policy: &Value, guard: &mut Guard) {
    const KNOWN: [&str; 7] = [
        "loadBalancer",
        "connectionPool",
        "outlierDetection",
        "tls",
        "portLevelSettings",
        "retryBudget",
        "port",
    ];
    const BALANCERS: [&str; 6] =
        ["simple", "consistentHash", "localityLbSetting", "warmup", "warmupDurationSecs", "warmupDuration"];
    let balancer = &policy["loadBalancer"];
    let is_unknown = has_others(policy, &KNOWN) || has_others(balancer, &BALANCERS);
    guard.refuse_if(is_unknown, Reason::UnknownRoute);
    guard.refuse_if(has(balancer, ["consistentHash"]), Reason::Affinity);
    for port in items(&policy["portLevelSettings"]) {
        traffic_policy(port, guard);
    }
}

/// What a ServiceEntry says: whoever is behind its hosts is not known.
pub(super) fn service_entry(meta: &Meta, spec: &Value, names: &Names) -> Vec<Saying> {
    let guard = Guard::bypass(Reason::ServiceEntry);
    items(&spec["hosts"])
        .map(|host| Saying::of(About::Host(host_of(text(host), meta, names)), guard.clone()))
        .collect()
}

/// What an EnvoyFilter or a WasmPlugin says: it may do anything, on both sides.
pub(super) fn extension(meta: &Meta, spec: &Value, names: &Names) -> Vec<Saying> {
    let guard = Guard::bypass(Reason::Filter);
    if has(spec, ["targetRefs", "targetRef"]) {
        return selected(meta, spec, names, &guard);
    }
    let client = match names.mesh_root_namespaces.contains(&meta.namespace) {
        true => About::AllClients,
        false => About::Clients(meta.namespace.clone()),
    };
    vec![Saying::of(client, guard.clone()), Saying::of(pods(meta, &Value::Null, names), guard)]
}

/// What a RequestAuthentication says: who asks is told by a token, which is looked into.
pub(super) fn request_authentication(meta: &Meta, spec: &Value, names: &Names) -> Vec<Saying> {
    selected(meta, spec, names, &Guard::bypass(Reason::Claims))
}

/// What an AuthorizationPolicy says.
pub(super) fn authorization_policy(meta: &Meta, spec: &Value, names: &Names) -> Vec<Saying> {
    let mut guard = Guard::default();
    let action = text(&spec["action"]);
    match action {
        "" | "ALLOW" | "DENY" => {}
        "AUDIT" => return selected(meta, spec, names, &guard),
        "CUSTOM" => guard.refuse(Some(Reason::ExternalAuthorization)),
        _ => guard.refuse(Some(Reason::UnknownRoute)),
    }
    let known = ["selector", "targetRef", "targetRefs", "action", "rules", "provider"];
    guard.refuse_if(has_others(spec, &known), Reason::UnknownRoute);
    for rule in items(&spec["rules"]) {
        guard.refuse_if(has_others(rule, &["from", "to", "when"]), Reason::UnknownRoute);
        // Ports alone are no matter of requests.
        let operations = items(&rule["to"]).map(|to| &to["operation"]);
        guard.leases_by_path |=
            operations.into_iter().any(|operation| has_others(operation, &["ports", "notPorts"]));
        for source in items(&rule["from"]).map(|from| &from["source"]) {
            source_of(source, &mut guard);
        }
        for condition in items(&rule["when"]) {
            when(text(&condition["key"]), &mut guard);
        }
    }
    selected(meta, spec, names, &guard)
}

fn source_of(source: &Value, guard: &mut Guard) {
    const OF_CONNECTIONS: [&str; 8] = [
        "principals",
        "notPrincipals",
        "namespaces",
        "notNamespaces",
        "ipBlocks",
        "notIpBlocks",
        "serviceAccounts",
        "notServiceAccounts",
    ];
    let (claims, remote) =
        (["requestPrincipals", "notRequestPrincipals"], ["remoteIpBlocks", "notRemoteIpBlocks"]);
    guard.refuse_if(has(source, claims), Reason::Claims);
    guard.refuse_if(has(source, remote), Reason::Condition);
    let known: Vec<&str> = OF_CONNECTIONS.into_iter().chain(claims).chain(remote).collect();
    guard.refuse_if(has_others(source, &known), Reason::Condition);
}

fn when(key: &str, guard: &mut Guard) {
    if let Some(name) = key.strip_prefix("request.headers[").and_then(|rest| rest.strip_suffix(']')) {
        guard.leases_by_path = true;
        guard.inputs.insert(Input::Field(name.to_ascii_lowercase()));
    } else if key.starts_with("request.auth.") {
        guard.refuse(Some(Reason::Claims));
    } else if !(key.starts_with("source.") || key.starts_with("destination.") || key == "connection.sni") {
        guard.refuse(Some(Reason::Condition));
    }
}

/// Says it of the pods that an object selects, by labels, by the Services that it names, or by what stands before all of
/// its namespace.
fn selected(meta: &Meta, spec: &Value, names: &Names, guard: &Guard) -> Vec<Saying> {
    let targets: Vec<&Value> = items(&spec["targetRefs"])
        .chain([&spec["targetRef"]].into_iter().filter(|one| !is_nothing(one)))
        .collect();
    if targets.is_empty() {
        return vec![Saying::of(pods(meta, &spec["selector"]["matchLabels"], names), guard.clone())];
    }
    let about = |target: &Value| match text(&target["kind"]) {
        "Service" => About::Service(ObjectKey {
            namespace: meta.namespace.clone(),
            name: text(&target["name"]).to_owned(),
        }),
        // A waypoint may stand before Services of other namespaces.
        _ => About::AllPods(BTreeMap::new()),
    };
    targets.into_iter().map(|target| Saying::of(about(target), guard.clone())).collect()
}

fn pods(meta: &Meta, selector: &Value, names: &Names) -> About {
    match names.mesh_root_namespaces.contains(&meta.namespace) {
        true => About::AllPods(labels(selector)),
        false => About::Pods(meta.namespace.clone(), labels(selector)),
    }
}
