//! What Sidestep reads of each kind of object: the fields that decide something, and no others.
//!
//! Getting them from the API server is left to `watch`, what follows from them to `index`.

use core::net::IpAddr;
use std::collections::BTreeMap;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::cache_policy::CachePolicySpec;

/// A kind of object that is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Pods of this node.
    Pod,
    /// Namespaces.
    Namespace,
    /// Services.
    Service,
    /// EndpointSlices.
    EndpointSlice,
    /// Pods of every node, of which only the metadata are read.
    Revision,
    /// What kinds of objects there are beside those that every cluster has.
    Definition,
    /// Our own: what the teams say about caching.
    CachePolicy,
    /// Objects by which a mesh decides about requests.
    Policy(PolicyKind),
}

/// Makes the kinds of objects that only some clusters have: name, group, kind, plural, versions that are understood, the best
/// first.
macro_rules! policy_kinds {
    ($($(#[$doc:meta])+ $name:ident $group:literal $kind:literal $plural:literal [$($version:literal),+])*) => {
        /// A kind of object by which a mesh decides about requests.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum PolicyKind {
            $($(#[$doc])+ $name,)*
        }

        impl PolicyKind {
            /// Every one of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            fn names(self) -> (&'static str, &'static str, &'static str) {
                match self { $(Self::$name => ($group, $kind, $plural),)* }
            }

            fn versions(self) -> &'static [&'static str] {
                match self { $(Self::$name => &[$($version),+],)* }
            }
        }
    };
}

policy_kinds! {
    /// Istio's routes.
    VirtualService "networking.istio.io" "VirtualService" "virtualservices" ["v1", "v1beta1", "v1alpha3"]
    /// What Istio does with connections to a host.
    DestinationRule "networking.istio.io" "DestinationRule" "destinationrules" ["v1", "v1beta1", "v1alpha3"]
    /// Hosts that Istio is told of.
    ServiceEntry "networking.istio.io" "ServiceEntry" "serviceentries" ["v1", "v1beta1", "v1alpha3"]
    /// Anything, in Istio's proxies.
    EnvoyFilter "networking.istio.io" "EnvoyFilter" "envoyfilters" ["v1alpha3"]
    /// Programs in Istio's proxies.
    WasmPlugin "extensions.istio.io" "WasmPlugin" "wasmplugins" ["v1alpha1"]
    /// Who may ask what, in Istio.
    AuthorizationPolicy "security.istio.io" "AuthorizationPolicy" "authorizationpolicies" ["v1", "v1beta1"]
    /// Tokens, in Istio.
    RequestAuthentication "security.istio.io" "RequestAuthentication" "requestauthentications" ["v1", "v1beta1"]
    /// Routes of the Gateway API.
    HttpRoute "gateway.networking.k8s.io" "HTTPRoute" "httproutes" ["v1", "v1beta1"]
    /// The same for gRPC.
    GrpcRoute "gateway.networking.k8s.io" "GRPCRoute" "grpcroutes" ["v1", "v1alpha2"]
    /// Linkerd's own form of them.
    LinkerdHttpRoute "policy.linkerd.io" "HTTPRoute" "httproutes" ["v1beta3", "v1beta2", "v1beta1", "v1alpha1"]
    /// Ports of Linkerd's pods.
    LinkerdServer "policy.linkerd.io" "Server" "servers" ["v1beta3", "v1beta2", "v1beta1", "v1alpha1"]
    /// Who may ask what, in Linkerd.
    LinkerdAuthorizationPolicy "policy.linkerd.io" "AuthorizationPolicy" "authorizationpolicies" ["v1alpha1"]
    /// How often one may ask, in Linkerd.
    LinkerdRateLimit "policy.linkerd.io" "HTTPLocalRateLimitPolicy" "httplocalratelimitpolicies" ["v1alpha1"]
    /// Linkerd's former routes.
    ServiceProfile "linkerd.io" "ServiceProfile" "serviceprofiles" ["v1alpha2"]
    /// Who may ask what, in Cilium.
    CiliumNetworkPolicy "cilium.io" "CiliumNetworkPolicy" "ciliumnetworkpolicies" ["v2"]
    /// The same for all namespaces.
    CiliumClusterwideNetworkPolicy
        "cilium.io" "CiliumClusterwideNetworkPolicy" "ciliumclusterwidenetworkpolicies" ["v2"]
    /// Anything, in Cilium's proxies.
    CiliumEnvoyConfig "cilium.io" "CiliumEnvoyConfig" "ciliumenvoyconfigs" ["v2"]
    /// The same for all namespaces.
    CiliumClusterwideEnvoyConfig
        "cilium.io" "CiliumClusterwideEnvoyConfig" "ciliumclusterwideenvoyconfigs" ["v2"]
}

impl Kind {
    /// Every kind.
    pub fn all() -> impl Iterator<Item = Self> {
        use Kind::{CachePolicy, Definition, EndpointSlice, Namespace, Pod, Revision, Service};
        let common = [Namespace, Service, EndpointSlice, Pod, Revision, Definition, CachePolicy];
        common.into_iter().chain(PolicyKind::ALL.iter().copied().map(Self::Policy))
    }

    /// Its name in listings.
    pub fn title(self) -> &'static str {
        match self {
            Self::Revision => "PodMetadata",
            _ => self.names().1,
        }
    }

    /// Whether nothing but the metadata of its objects is asked for.
    pub fn is_metadata(self) -> bool {
        matches!(self, Self::Revision | Self::Definition)
    }

    /// The name of its definition, where it is a kind that only some clusters have.
    pub fn definition(self) -> Option<String> {
        let (Self::Policy(_) | Self::CachePolicy) = self else { return None };
        let (group, _, plural) = self.names();
        Some(format!("{plural}.{group}"))
    }

    /// Its group, its kind and its plural, as the API server calls them.
    pub fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Pod | Self::Revision => ("", "Pod", "pods"),
            Self::Namespace => ("", "Namespace", "namespaces"),
            Self::Service => ("", "Service", "services"),
            Self::EndpointSlice => ("discovery.k8s.io", "EndpointSlice", "endpointslices"),
            Self::Definition => {
                ("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions")
            }
            Self::CachePolicy => ("sidestep.dev", "CachePolicy", "cachepolicies"),
            Self::Policy(kind) => kind.names(),
        }
    }

    /// The versions of its group that are understood, the best first.
    pub fn versions(self) -> &'static [&'static str] {
        match self {
            // v1 came with 1.21; what is read of it was the same before.
            Self::EndpointSlice => &["v1", "v1beta1"],
            Self::CachePolicy => &["v1alpha1"],
            Self::Policy(kind) => kind.versions(),
            _ => &["v1"],
        }
    }
}

/// What every object has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// Its name, unique in its namespace.
    pub name: String,
    /// Its namespace; empty for what has none.
    pub namespace: String,
    /// Unique in time.
    pub uid: String,
    /// Counts changes of what is wanted of it.
    pub generation: i64,
    /// Labels.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// When it was made (RFC 3339).
    pub creation_timestamp: Option<String>,
    /// Set where it is about to go.
    pub deletion_timestamp: Option<String>,
}

impl Meta {
    /// Names it within its kind.
    pub fn key(&self) -> ObjectKey {
        ObjectKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// Names an object within its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its namespace; empty for what has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// An object as far as it is read.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A pod.
    Pod(Meta, Box<Pod>),
    /// A namespace.
    Namespace(Meta),
    /// A Service.
    Service(Meta, Box<Service>),
    /// An EndpointSlice.
    EndpointSlice(Meta, EndpointSlice),
    /// A pod of any node, without its annotations.
    Revision(Meta),
    /// A kind of object that there is.
    Definition(Meta),
    /// What a team says about caching, or why that cannot be read.
    CachePolicy(Meta, Box<Result<CachePolicySpec, String>>),
    /// By what a mesh decides: all of it but its metadata.
    Policy(PolicyKind, Meta, Value),
}

/// The labels that tell which revision of a template a pod was made from: those of Deployments; of StatefulSets and
/// DaemonSets; of Argo Rollouts.
pub const REVISION_LABELS: [&str; 3] =
    ["pod-template-hash", "controller-revision-hash", "rollouts-pod-template-hash"];

impl Object {
    /// Reads what the API server sent, its metadata apart.
    ///
    /// # Errors
    /// The field that is not what it should be, in the parser's words.
    pub fn parse(kind: Kind, meta: Meta, rest: Value) -> Result<Self, serde_json::Error> {
        Ok(match kind {
            Kind::Pod => Self::Pod(meta, read(rest)?),
            Kind::Namespace => Self::Namespace(meta),
            Kind::Service => Self::Service(meta, read(rest)?),
            Kind::EndpointSlice => Self::EndpointSlice(meta, read(rest)?),
            Kind::Revision => Self::Revision(Meta { annotations: BTreeMap::new(), ..meta }),
            Kind::Definition => {
                Self::Definition(Meta { annotations: BTreeMap::new(), labels: BTreeMap::new(), ..meta })
            }
            // What cannot be read must be known to be there.
            Kind::CachePolicy => Self::CachePolicy(meta, Box::new(cache_policy(rest))),
            // What it says is read by `index`.
            Kind::Policy(kind) => Self::Policy(kind, meta, rest),
        })
    }

    /// Reads an object from its whole JSON.
    ///
    /// # Errors
    /// As [`Object::parse`].
    pub fn from_json(kind: Kind, mut json: Value) -> Result<Self, serde_json::Error> {
        let meta = json.get_mut("metadata").map(Value::take).unwrap_or_default();
        Self::parse(kind, read(meta)?, json)
    }

    /// What every object has.
    pub fn meta(&self) -> &Meta {
        let (Self::Pod(meta, _)
        | Self::Namespace(meta)
        | Self::Service(meta, _)
        | Self::EndpointSlice(meta, _)
        | Self::Revision(meta)
        | Self::Definition(meta)
        | Self::CachePolicy(meta, _)
        | Self::Policy(_, meta, _)) = self;
        meta
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Pod(..) => Kind::Pod,
            Self::Namespace(_) => Kind::Namespace,
            Self::Service(..) => Kind::Service,
            Self::EndpointSlice(..) => Kind::EndpointSlice,
            Self::Revision(_) => Kind::Revision,
            Self::Definition(_) => Kind::Definition,
            Self::CachePolicy(..) => Kind::CachePolicy,
            Self::Policy(kind, ..) => Kind::Policy(*kind),
        }
    }
}

fn cache_policy(mut rest: Value) -> Result<CachePolicySpec, String> {
    let spec = rest.get_mut("spec").map(Value::take).unwrap_or_default();
    // What is said of a value is shown to people: it repeats the value.
    serde_json::from_value(spec).map_err(|error| error.to_string().escape_debug().to_string())
}

fn read<T: DeserializeOwned + Default>(value: Value) -> Result<T, serde_json::Error> {
    if value.is_null() { Ok(T::default()) } else { serde_json::from_value(value) }
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// What is wanted.
    #[serde(deserialize_with = "or_default")]
    pub spec: PodSpec,
    /// What is.
    #[serde(deserialize_with = "or_default")]
    pub status: PodStatus,
}

/// What is wanted of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Whose credentials it has.
    pub service_account_name: String,
    /// Whether it shares the node's network namespace.
    pub host_network: bool,
    /// What runs it, where that is not what usually does.
    pub runtime_class_name: Option<String>,
    /// Its containers.
    #[serde(deserialize_with = "or_default")]
    pub containers: Vec<Container>,
    /// Those that run before, or, as native sidecars, beside the others.
    #[serde(deserialize_with = "or_default")]
    pub init_containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Its name, unique in the pod.
    pub name: String,
}

/// What has become of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub phase: String,
    /// Its addresses.
    #[serde(rename = "podIPs", deserialize_with = "or_default")]
    pub pod_ips: Vec<PodIp>,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: Option<String>,
    /// What has become of its containers.
    #[serde(deserialize_with = "or_default")]
    pub container_statuses: Vec<ContainerStatus>,
    /// The same of those that run before, or beside the others.
    #[serde(deserialize_with = "or_default")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// The same of those that somebody added to look into it.
    #[serde(deserialize_with = "or_default")]
    pub ephemeral_container_statuses: Vec<ContainerStatus>,
}

impl PodStatus {
    /// Its addresses.
    pub fn ips(&self) -> Vec<IpAddr> {
        let all = self.pod_ips.iter().map(|one| one.ip.as_str()).chain(self.pod_ip.as_deref());
        addresses(all)
    }
}

/// An address of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// The address.
    pub ip: String,
}

/// What has become of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Its name.
    pub name: String,
    /// `<runtime>://<id>`, once it was made.
    #[serde(rename = "containerID")]
    pub container_id: Option<String>,
    /// What it is doing.
    #[serde(deserialize_with = "or_default")]
    pub state: ContainerState,
}

/// What a container is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// Set while it runs.
    pub running: Option<Running>,
}

/// A container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Running {}

impl ContainerStatus {
    /// Its id, without the runtime.
    pub fn id(&self) -> Option<&str> {
        let (_, id) = self.container_id.as_deref()?.split_once("://")?;
        (!id.is_empty()).then_some(id)
    }
}

/// A Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Service {
    /// What is wanted.
    #[serde(deserialize_with = "or_default")]
    pub spec: ServiceSpec,
}

/// What is wanted of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its virtual addresses; `None` where it has none.
    #[serde(rename = "clusterIPs", deserialize_with = "or_default")]
    pub cluster_ips: Vec<String>,
    /// The first of them.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// Its ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<ServicePort>,
    /// `ClientIP` where one client's connections lead to one pod.
    pub session_affinity: Option<String>,
    /// The labels of the pods behind it.
    #[serde(deserialize_with = "or_default")]
    pub selector: BTreeMap<String, String>,
}

impl ServiceSpec {
    /// Its virtual addresses; none of a headless Service.
    pub fn ips(&self) -> Vec<IpAddr> {
        let all = self.cluster_ips.iter().map(String::as_str).chain(self.cluster_ip.as_deref());
        addresses(all)
    }

    /// Whether its name stands for its pods' own addresses.
    pub fn is_headless(&self) -> bool {
        self.cluster_ip.as_deref() == Some("None")
    }
}

/// A port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Its name; may be missing where it is the only one.
    pub name: Option<String>,
    /// `TCP`, `UDP`, `SCTP`; TCP where nothing is said.
    pub protocol: Option<String>,
    /// What it speaks, such as `http`.
    pub app_protocol: Option<String>,
    /// Its number.
    pub port: u16,
    /// The number or name of the pods' port.
    pub target_port: Value,
}

/// A part of what is behind a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointSlice {
    /// Who answers.
    #[serde(deserialize_with = "or_default")]
    pub endpoints: Vec<Endpoint>,
    /// At which ports.
    #[serde(deserialize_with = "or_default")]
    pub ports: Vec<EndpointPort>,
}

/// The label that tells which Service a slice belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// One who answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Its addresses, all of them the same one's.
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<String>,
    /// Which object it is.
    pub target_ref: Option<TargetRef>,
    /// Whether it answers now.
    #[serde(deserialize_with = "or_default")]
    pub conditions: EndpointConditions,
}

impl Endpoint {
    /// Whether requests are sent to it.
    pub fn is_ready(&self) -> bool {
        self.conditions.ready != Some(false)
    }
}

/// How one who answers is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Missing: not known, to be taken for ready.
    pub ready: Option<bool>,
}

/// Which object an endpoint is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Such as `Pod`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Unique in time.
    pub uid: String,
}

/// A port of an EndpointSlice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// The name of the Service's port.
    pub name: Option<String>,
    /// The number; missing: every port.
    pub port: Option<u16>,
    /// `TCP`, `UDP`, `SCTP`; TCP where nothing is said.
    pub protocol: Option<String>,
    /// What it speaks.
    pub app_protocol: Option<String>,
}

/// What of these are addresses, each once: the first is told twice.
fn addresses<'a>(all: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    let mut ips: Vec<IpAddr> = all.filter_map(|text| text.parse().ok()).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

/// The API writes `null` for what is empty.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(value: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(value).map_err(D::Error::custom)?.unwrap_or_default())
}
