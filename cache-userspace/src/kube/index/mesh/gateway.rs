//! Routes of the Gateway API, as meshes read them: those whose parent is a Service. Linkerd's own HTTPRoute has the same form.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::super::objects::{Meta, ObjectKey};
use super::{About, Guard, Input, Saying, has, has_others, items, referred, text};
use crate::policy::Reason;

/// What an HTTPRoute says.
pub(super) fn http_route(meta: &Meta, spec: &Value) -> Vec<Saying> {
    let mut guard = Guard::default();
    let mut refers = BTreeSet::new();
    let known = ["parentRefs", "hostnames", "rules", "useDefaultGateways"];
    guard.refuse_if(has_others(spec, &known), Reason::UnknownRoute);
    for rule in items(&spec["rules"]) {
        self::rule(rule, meta, &mut guard, &mut refers);
    }
    let of_parent = |parent: &Value| match text(&parent["kind"]) {
        "Service" => Some(Saying::sending_to(About::Service(referred(parent, meta)), &guard, &refers)),
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
    parents.map(|parent| Saying::of(About::Service(referred(parent, meta)), guard.clone())).collect()
}

fn rule(rule: &Value, meta: &Meta, guard: &mut Guard, refers: &mut BTreeSet<ObjectKey>) {
    const KNOWN: [&str; 7] =
        ["name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"];
    guard.refuse_if(has_others(rule, &KNOWN), Reason::UnknownRoute);
    guard.refuse_if(has(rule, ["sessionPersistence"]), Reason::Affinity);
    for one in items(&rule["matches"]) {
        guard.refuse_if(has_others(one, &["path", "headers", "queryParams", "method"]), Reason::UnknownRoute);
        let names = items(&one["headers"]).map(|header| text(&header["name"]).to_ascii_lowercase());
        guard.inputs.extend(names.map(Input::Field));
        guard.tell_apart(one, [("method", Input::Method), ("queryParams", Input::Query)]);
    }
    for filter in items(&rule["filters"]) {
        self::filter(filter, guard);
    }
    for backend in guard.destinations(&rule["backendRefs"]) {
        let is_service = matches!(text(&backend["kind"]), "" | "Service");
        let known = ["group", "kind", "name", "namespace", "port", "weight", "filters"];
        guard.refuse_if(!is_service, Reason::Elsewhere);
        guard.refuse_if(has_others(backend, &known), Reason::UnknownRoute);
        for filter in items(&backend["filters"]) {
            self::filter(filter, guard);
        }
        refers.insert(referred(backend, meta));
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
