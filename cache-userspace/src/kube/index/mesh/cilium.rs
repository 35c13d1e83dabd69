//! Cilium's objects.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::super::objects::{Meta, ObjectKey};
use super::{About, Guard, Saying, is_nothing, items, text};
use crate::policy::Reason;

/// What a (clusterwide) network policy says: where it looks into requests, a right to one says nothing of others. Which pods
/// it selects is not looked at.
pub(super) fn network_policy(meta: &Meta, rest: &Value) -> Vec<Saying> {
    let mut guard = Guard::default();
    for spec in [&rest["spec"]].into_iter().chain(items(&rest["specs"])) {
        for direction in ["ingress", "ingressDeny", "egress", "egressDeny"] {
            let ports = || items(&spec[direction]).flat_map(|rule| items(&rule["toPorts"]));
            guard.refuse(ports().any(|port| !is_nothing(&port["listener"])).then_some(Reason::Filter));
            for rules in ports().map(|port| &port["rules"]).filter(|rules| !is_nothing(rules)) {
                guard.leases_by_path = true;
                let is_conditional =
                    |rule: &Value| ["headers", "headerMatches"].iter().any(|name| !is_nothing(&rule[*name]));
                guard.refuse(items(&rules["http"]).any(is_conditional).then_some(Reason::Condition));
            }
        }
    }
    if guard == Guard::default() {
        return Vec::new();
    }
    let [server, client] = match meta.namespace.as_str() {
        "" => [About::AllPods(BTreeMap::new()), About::AllClients],
        namespace => {
            [About::Pods(namespace.to_owned(), BTreeMap::new()), About::Clients(namespace.to_owned())]
        }
    };
    vec![Saying::of(server, guard.clone()), Saying::of(client, guard)]
}

/// What a (clusterwide) Envoy configuration says: it may do anything with requests to its Services.
pub(super) fn envoy_config(meta: &Meta, spec: &Value) -> Vec<Saying> {
    let guard = Guard::bypass(Reason::Filter);
    let about = |service: &Value| {
        let namespace = service["namespace"].as_str().unwrap_or(&meta.namespace);
        About::Service(ObjectKey { namespace: namespace.to_owned(), name: text(&service["name"]).to_owned() })
    };
    let services = items(&spec["services"]).chain(items(&spec["backendServices"]));
    services.map(|service| Saying::of(about(service), guard.clone())).collect()
}
