//! The kinds of objects that a mesh brings into a cluster: their names and that they exist, with whatever content.

use anyhow::Result;
use serde_json::{Value, json};

use super::server::ApiServer;
use super::shop::Cluster;

/// A kind of object of a mesh.
#[derive(Clone, Copy, Debug)]
pub struct PolicyKind {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
}

impl PolicyKind {
    /// Istio's routes.
    pub const VIRTUAL_SERVICE: Self = Self {
        group: "networking.istio.io",
        version: "v1",
        kind: "VirtualService",
        plural: "virtualservices",
    };
    /// Who may ask what, in Istio.
    pub const AUTHORIZATION_POLICY: Self = Self {
        group: "security.istio.io",
        version: "v1",
        kind: "AuthorizationPolicy",
        plural: "authorizationpolicies",
    };
    /// Routes of the Gateway API.
    pub const HTTP_ROUTE: Self =
        Self { group: "gateway.networking.k8s.io", version: "v1", kind: "HTTPRoute", plural: "httproutes" };

    fn definition(self) -> Value {
        let Self { group, version, kind, plural } = self;
        let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {
                "name": format!("{plural}.{group}"),
                // That group is protected; whoever writes there says why.
                "annotations": { "api-approved.kubernetes.io": "unapproved, only for a test" },
            },
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": { "openAPIV3Schema": { "type": "object", "properties": { "spec": anything } } },
                }],
            },
        })
    }

    fn path(self) -> String {
        let Self { group, version, plural, .. } = self;
        format!("/apis/{group}/{version}/namespaces/shop/{plural}")
    }
}

impl ApiServer {
    /// Makes a kind of object exist.
    pub fn define(&self, kind: PolicyKind) -> Result<()> {
        self.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &kind.definition())?;
        let name = format!("{}.{}", kind.plural, kind.group);
        self.kubectl(&["wait", "--for=condition=established", "--timeout=30s", &format!("crd/{name}")])
            .map(drop)
    }
}

impl Cluster {
    /// Makes an object of a mesh, or makes it another.
    pub fn decide(&self, kind: PolicyKind, name: &str, spec: &Value) -> Result<()> {
        let object = json!({
            "apiVersion": format!("{}/{}", kind.group, kind.version),
            "kind": kind.kind,
            "metadata": { "name": name },
            "spec": spec,
        });
        let path = format!("{}/{name}", kind.path());
        match self.api.send("GET", &path, None) {
            Ok(before) => {
                let mut object = object;
                object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
                self.api.send("PUT", &path, Some(&object)).map(drop)
            }
            Err(_) => self.api.create(&kind.path(), &object).map(drop),
        }
    }

    /// Takes an object of a mesh away.
    pub fn undecide(&self, kind: PolicyKind, name: &str) -> Result<()> {
        self.api.send("DELETE", &format!("{}/{name}", kind.path()), None).map(drop)
    }
}
