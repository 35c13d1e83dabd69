//! Linkerd's objects; its HTTPRoute is read by `gateway`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::super::objects::Meta;
use super::{About, Guard, Saying, has, has_others};
use crate::policy::Reason;

/// What a Server says: which connections come in, which each pod's own requests tell.
pub(super) fn server(meta: &Meta) -> Vec<Saying> {
    in_namespace(meta, Guard::default())
}

/// What an AuthorizationPolicy says: it may be about one path.
pub(super) fn authorization_policy(meta: &Meta) -> Vec<Saying> {
    in_namespace(meta, Guard::by_path())
}

/// What an HTTPLocalRateLimitPolicy says: hits would not be counted.
pub(super) fn rate_limit(meta: &Meta) -> Vec<Saying> {
    in_namespace(meta, Guard::bypass(Reason::RateLimit))
}

/// What a ServiceProfile says of the service that it is named after.
pub(super) fn service_profile(meta: &Meta, spec: &Value) -> Vec<Saying> {
    let mut guard = Guard::default();
    guard.refuse_if(has(spec, ["dstOverrides"]), Reason::Split);
    let known = ["routes", "retryBudget", "dstOverrides", "opaquePorts"];
    guard.refuse_if(has_others(spec, &known), Reason::UnknownRoute);
    vec![Saying::of(About::Host(meta.name.clone()), guard)]
}

fn in_namespace(meta: &Meta, guard: Guard) -> Vec<Saying> {
    vec![Saying::of(About::Pods(meta.namespace.clone(), BTreeMap::new()), guard)]
}
