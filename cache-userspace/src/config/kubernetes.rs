//! What a node that belongs to a cluster is told about it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::{Span, fields};
use crate::kube::index::Names;

/// The environment variable that names the node, as the downward API sets it.
const NODE_NAME_ENV: &str = "NODE_NAME";
/// The environment variable that names our own namespace.
const POD_NAMESPACE_ENV: &str = "POD_NAMESPACE";
/// What is set in every pod of a cluster.
const SERVICE_HOST_ENV: &str = "KUBERNETES_SERVICE_HOST";

/// The cluster that a node belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KubernetesConfig {
    /// The name of this node; by default what the environment's NODE_NAME says.
    #[serde(deserialize_with = "fields::optional_non_empty")]
    pub node_name: Option<String>,
    /// Absolute path of a kubeconfig; by default the credentials of our own pod.
    #[serde(deserialize_with = "fields::optional_absolute")]
    pub kubeconfig: Option<PathBuf>,
    /// Absolute path of the cgroup below which kubelet's tree is looked for; by default the cgroup v2 mount.
    #[serde(deserialize_with = "fields::optional_absolute")]
    pub cgroup_root: Option<PathBuf>,
    /// Namespaces whose pods are never served, beside our own.
    pub excluded_namespaces: BTreeSet<String>,
    /// Names of the containers that are a mesh's proxies: their connections are never redirected.
    pub proxy_containers: BTreeSet<String>,
    /// The domain of the names of Services.
    #[serde(deserialize_with = "fields::non_empty")]
    pub cluster_domain: String,
    /// Namespaces whose Istio policies are those of all.
    pub mesh_root_namespaces: BTreeSet<String>,
    /// Whether pods get an annotation that says what has become of them; it needs a right of its own (`pods/status`).
    pub annotate_pods: bool,
    /// How long a pod may be given what is stored of a service after one of its own requests to it was let through
    /// (MESH.md S3): at most an hour.
    #[serde(deserialize_with = "fields::lease")]
    pub authorization_lease: Span,
    /// How long nothing is stored of a service after it, who is behind it, or its routes have changed (MESH.md S6): as
    /// long as proxies may take to learn of it.
    pub storing_pause: Span,
}

impl Default for KubernetesConfig {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            node_name: None,
            kubeconfig: None,
            cgroup_root: None,
            excluded_namespaces: names(&[
                "kube-system",
                "kube-public",
                "kube-node-lease",
                "istio-system",
                "linkerd",
            ]),
            proxy_containers: names(&[
                "istio-proxy",
                "linkerd-proxy",
                "kuma-sidecar",
                "consul-dataplane",
                "envoy-sidecar",
            ]),
            cluster_domain: "cluster.local".to_owned(),
            mesh_root_namespaces: names(&["istio-system"]),
            annotate_pods: false,
            authorization_lease: Span(Duration::from_secs(30)),
            storing_pause: Span(Duration::from_secs(10)),
        }
    }
}

impl KubernetesConfig {
    /// The default where this process runs in a pod of a cluster that was told its node.
    pub fn inferred() -> Option<Self> {
        let has = |name| std::env::var_os(name).is_some();
        (has(SERVICE_HOST_ENV) && has(NODE_NAME_ENV)).then(Self::default)
    }

    /// The name of this node.
    ///
    /// # Errors
    /// Where neither the configuration nor the environment names it.
    pub fn node(&self) -> anyhow::Result<String> {
        let named = self.node_name.clone().or_else(|| std::env::var(NODE_NAME_ENV).ok());
        named.filter(|name| !name.is_empty()).ok_or_else(|| {
            anyhow::anyhow!("which node this is, is not known: set kubernetes.nodeName, or {NODE_NAME_ENV} in the environment")
        })
    }

    /// What things of the mesh are called.
    pub fn names(&self) -> Names {
        Names {
            cluster_domain: self.cluster_domain.to_ascii_lowercase(),
            mesh_root_namespaces: self.mesh_root_namespaces.clone(),
        }
    }

    /// Namespaces whose pods are never served, our own among them.
    pub fn never_served(&self) -> BTreeSet<String> {
        self.excluded_namespaces.iter().cloned().chain(std::env::var(POD_NAMESPACE_ENV).ok()).collect()
    }
}
