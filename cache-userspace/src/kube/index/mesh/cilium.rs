//! Cilium's objects.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::super::objects::Meta;
use super::{About, Guard, Saying, has, is_nothing, items, referred};
use crate::policy::Reason;

/// What a (clusterwide) network policy says: where it looks into requests, a right to one says nothing of others. Which pods
/// it selects is not looked at.
pub(super) fn network_policy(meta: &Meta, rest: &Value) -> Vec<Saying> {
    let mut guard = Guard::default();
    for spec in [&rest["spec"]].into_iter().chain(items(&rest["specs"])) {
        for direction in ["ingress", "ingressDeny", "egress", "egressDeny"] {
            let ports = || items(&spec[direction]).flat_map(|rule| items(&rule["toPorts"]));
            guard.refuse_if(ports().any(|port| has(port, ["listener"])), Reason::Filter);
            for rules in ports().map(|port| &port["rules"]).filter(|rules| !is_nothing(rules)) {
                guard.leases_by_path = true;
                let is_conditional = |rule: &Value| has(rule, ["headers", "headerMatches"]);
                guard.refuse_if(items(&rules["http"]).any(is_conditional), Reason::Condition);
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
    let services = items(&spec["services"]).chain(items(&spec["backendServices"]));
    services.map(|service| Saying::of(About::Service(referred(service, meta)), guard.clone())).collect()
}
