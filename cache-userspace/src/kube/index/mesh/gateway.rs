//! Routes of the Gateway API, as meshes read them: those whose parent is a Service. Linkerd's own HTTPRoute has the same form.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::super::objects::{Meta, ObjectKey};
use super::{About, Guard, Input, Saying, has_others, is_nothing, items, text};
use crate::policy::Reason;

/// What an HTTPRoute says.
pub(super) fn http_route(meta: &Meta, spec: &Value) -> Vec<Saying> {
    let mut guard = Guard::default();
    let mut refers = BTreeSet::new();
    let known = ["parentRefs", "hostnames", "rules", "useDefaultGateways"];
    guard.refuse(has_others(spec, &known).then_some(Reason::UnknownRoute));
    for rule in items(&spec["rules"]) {
        self::rule(rule, meta, &mut guard, &mut refers);
    }
    let of_parent = |parent: &Value| match text(&parent["kind"]) {
        "Service" => Some(Saying::sending_to(About::Service(service(parent, meta)), &guard, &refers)),
        // Linkerd's: what one may do there differs from path to path.
        "Server" => {
            let guard = Guard { leases_by_path: true, ..guard.clone() };
            Some(Saying::of(About::Pods(meta.namespace.clone(), Default::default()), guard))
        }
        _ => None,
    };
    items(&spec["parentRefs"]).filter_map(of_parent).collect()
}

/// What a GRPCRoute says: its Services speak gRPC.
pub(super) fn grpc_route(meta: &Meta, spec: &Value) -> Vec<Saying> {
    let parents = items(&spec["parentRefs"]).filter(|parent| text(&parent["kind"]) == "Service");
    let guard = Guard::bypass(Reason::UnknownRoute);
    parents.map(|parent| Saying::of(About::Service(service(parent, meta)), guard.clone())).collect()
}

fn service(reference: &Value, meta: &Meta) -> ObjectKey {
    let namespace = reference["namespace"].as_str().unwrap_or(&meta.namespace);
    ObjectKey { namespace: namespace.to_owned(), name: text(&reference["name"]).to_owned() }
}

fn rule(rule: &Value, meta: &Meta, guard: &mut Guard, refers: &mut BTreeSet<ObjectKey>) {
    const KNOWN: [&str; 7] =
        ["name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"];
    guard.refuse(has_others(rule, &KNOWN).then_some(Reason::UnknownRoute));
    guard.refuse((!is_nothing(&rule["sessionPersistence"])).then_some(Reason::Affinity));
    for one in items(&rule["matches"]) {
        guard.refuse(
            has_others(one, &["path", "headers", "queryParams", "method"]).then_some(Reason::UnknownRoute),
        );
        let names = items(&one["headers"]).map(|header| text(&header["name"]).to_ascii_lowercase());
        guard.inputs.extend(names.map(Input::Field));
        let inputs = [("method", Input::Method), ("queryParams", Input::Query)];
        guard
            .inputs
            .extend(inputs.into_iter().filter(|(name, _)| !is_nothing(&one[*name])).map(|(_, input)| input));
    }
    for filter in items(&rule["filters"]) {
        self::filter(filter, guard);
    }
    let listed: Vec<&Value> = items(&rule["backendRefs"]).collect();
    let backends: Vec<&Value> = match listed.len() {
        0 | 1 => listed,
        _ => listed.into_iter().filter(|backend| backend["weight"].as_i64() != Some(0)).collect(),
    };
    guard.refuse((backends.len() > 1).then_some(Reason::Split));
    for backend in backends {
        let is_service = matches!(text(&backend["kind"]), "" | "Service");
        let known = ["group", "kind", "name", "namespace", "port", "weight", "filters"];
        guard.refuse((!is_service).then_some(Reason::Elsewhere));
        guard.refuse(has_others(backend, &known).then_some(Reason::UnknownRoute));
        for filter in items(&backend["filters"]) {
            self::filter(filter, guard);
        }
        refers.insert(service(backend, meta));
    }
}

fn filter(filter: &Value, guard: &mut Guard) {
    match text(&filter["type"]) {
        // They act after us.
        "RequestHeaderModifier" | "ResponseHeaderModifier" | "URLRewrite" => {}
        "RequestMirror" => guard.refuse(Some(Reason::Mirror)),
        "RequestRedirect" => guard.refuse(Some(Reason::DirectResponse)),
        "CORS" => {
            guard.inputs.insert(Input::Field("origin".to_owned()));
        }
        _ => guard.refuse(Some(Reason::Filter)),
    }
}
