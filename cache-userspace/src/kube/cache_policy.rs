//! `CachePolicy` (sidestep.dev/v1alpha1): what a team allows or forbids about caching answers of its services, as an object
//! of the cluster.
//!
//! The definition in `deploy/` is made of these types. Which policy holds for a service is left to `index`.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{After, ErrorStatus, PolicyConfig, Span};
use crate::policy::Profile;

/// Bounds the targets of one policy.
const TARGETS_MAX: usize = 16;

/// What holds for answers of services of the policy's own namespace, beyond what the answers say themselves. Whoever asks,
/// it is the service's namespace that counts. A policy for a Service goes before one for its Namespace; of two for the same
/// target the older one holds, then the one whose name comes first.
#[derive(Clone, Debug, PartialEq, Eq, CustomResource, Deserialize, Serialize, JsonSchema)]
#[kube(
    group = "sidestep.dev",
    version = "v1alpha1",
    kind = "CachePolicy",
    plural = "cachepolicies",
    namespaced,
    category = "sidestep",
    doc = "What a team allows or forbids about caching answers of its services.",
    printcolumn = r#"{"name":"Mode","type":"string","jsonPath":".spec.mode"}"#,
    printcolumn = r#"{"name":"Kind","type":"string","jsonPath":".spec.targetRefs[0].kind"}"#,
    printcolumn = r#"{"name":"Target","type":"string","jsonPath":".spec.targetRefs[0].name"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CachePolicySpec {
    /// What it holds for.
    #[schemars(length(min = 1, max = TARGETS_MAX))]
    pub target_refs: Vec<PolicyTarget>,
    /// Whether answers may be given from the cache at all.
    #[serde(default)]
    pub mode: PolicyMode,
    /// How strictly answers are judged; as the node does, where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// How long after its lifetime an answer that says nothing of it may be given while it is validated (RFC 5861 §3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_while_revalidate: Option<Span>,
    /// How long after its lifetime an answer that says nothing of it may be given instead of an error (RFC 5861 §4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_if_error: Option<Span>,
    /// After how long a late answer gives way to a stored one that may be given stale: `auto`, `never`, or a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_after: Option<After>,
    /// The lifetime of errors (4xx, 5xx, but for 401, 403 and 407) that say nothing about freshness, by status code; instead of
    /// all that the node says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<BTreeMap<String, Span>>")]
    pub negative: Option<BTreeMap<ErrorStatus, Span>>,
}

/// Something that a policy holds for, in the policy's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyTarget {
    /// The group of its kind: empty for both that there are.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 0))]
    pub group: String,
    /// Its kind.
    pub kind: TargetKind,
    /// Its name; a Namespace's is that of the policy's own.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// The kind of what a policy holds for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum TargetKind {
    /// One service.
    Service,
    /// All services of the namespace that have no policy of their own.
    Namespace,
}

/// Whether answers may be given from the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PolicyMode {
    /// As the answers, and this policy, allow.
    #[default]
    Enforce,
    /// Never: requests are only forwarded. YAML 1.1 takes the bare word for a boolean: write "off".
    Off,
}

impl CachePolicySpec {
    /// What it allows, in the words of a node's configuration.
    pub fn words(&self) -> PolicyConfig {
        PolicyConfig {
            stale_while_revalidate: self.stale_while_revalidate,
            stale_if_error: self.stale_if_error,
            stale_after: self.stale_after,
            negative: self.negative.clone().unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kube::CustomResourceExt;
    use serde_json::json;

    use super::*;

    /// Written anew by `SIDESTEP_WRITE_MANIFEST=1 cargo test -p cache-userspace cache_policy`.
    #[test]
    fn the_definition_that_is_deployed_is_that_of_the_types() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let made = serde_yaml_ng::to_string(&CachePolicy::crd()).unwrap();
        // By YAML 1.1, which kubectl reads, a bare `off` is a boolean.
        let made = made.replace("- off\n", "- 'off'\n");
        let made = format!(
            "# Made of the Rust types (cache-userspace/src/kube/cache_policy.rs): a test keeps it so.\n{made}"
        );
        // Apart from the rest: who deletes that keeps what the teams have said.
        for place in ["helm/sidestep/crds/cachepolicies.yaml", "kubernetes/cachepolicies.yaml"] {
            let path = deploy.join(place);
            if std::env::var_os("SIDESTEP_WRITE_MANIFEST").is_some() {
                std::fs::write(&path, &made).unwrap();
            }
            assert_eq!(std::fs::read_to_string(&path).unwrap(), made, "{place}");
        }
    }

    #[test]
    fn what_is_said_is_what_holds() {
        let spec: CachePolicySpec = serde_json::from_value(json!({
            "targetRefs": [{ "kind": "Service", "name": "web" }],
            "staleIfError": "5m",
            "negative": { "404": "10s" },
        }))
        .unwrap();
        assert_eq!((spec.mode, spec.profile), (PolicyMode::Enforce, None));
        let words = spec.words();
        assert_eq!(words.stale_if_error.map(|span| span.0.as_secs()), Some(300));
        assert_eq!(words.negative.len(), 1);
        let again: CachePolicySpec = serde_json::from_value(serde_json::to_value(&spec).unwrap()).unwrap();
        assert_eq!(again, spec);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let web = json!([{ "kind": "Service", "name": "web" }]);
        for spec in [
            json!({}),
            json!({ "targetRefs": web, "mode": "shadow" }),
            json!({ "targetRefs": web, "bypass": true }),
            json!({ "targetRefs": web, "negative": { "401": "1s" } }),
            json!({ "targetRefs": web, "staleAfter": "soon" }),
            json!({ "targetRefs": [{ "kind": "HTTPRoute", "name": "web" }] }),
        ] {
            assert!(serde_json::from_value::<CachePolicySpec>(spec.clone()).is_err(), "{spec}");
        }
    }
}
