//! Which pods of this node are to be served, and why others are not.

use core::net::IpAddr;
use std::collections::BTreeSet;

use serde::Deserialize;

use super::super::objects::{Meta, Pod, PodStatus};
use super::Settings;

/// The label of a namespace, and of a pod, which wins.
const LABEL: &str = "sidestep.dev/cache";

/// Kubelet's name for a static pod's cgroup, which the API server's uid of it is not.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// Istio's annotation that says which containers it has put into a pod.
const ISTIO_STATUS: &str = "sidecar.istio.io/status";

/// What runs pods whose sockets are not the node's.
const SANDBOXES: [&str; 4] = ["gvisor", "runsc", "kata", "firecracker"];

/// A pod that a label speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodState {
    /// It is to be served.
    Wanted(WantedPod),
    /// It is left alone.
    LeftAlone {
        /// The pod.
        pod: PodRef,
        /// Its service account.
        service_account: String,
        /// Why.
        why: LeftAlone,
    },
}

/// Names a pod for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Unique in time.
    pub uid: String,
}

impl PodRef {
    /// Its name in listings, unique on the node.
    pub fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// A pod that is to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPod {
    /// The pod.
    pub pod: PodRef,
    /// Its service account.
    pub service_account: String,
    /// What kubelet calls its cgroup.
    pub cgroup_uid: String,
    /// Its addresses: its network namespace has one of them.
    pub ips: Vec<IpAddr>,
    /// Which of its containers are served.
    pub members: Members,
}

/// Which of a pod's containers are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// All of them, also those that are started later.
    All,
    /// Those with these ids: beside them is a mesh's proxy, whose connections must never come here, whatever container it
    /// is in after a restart.
    These(Vec<String>),
}

/// Why a pod that a label speaks of is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeftAlone {
    /// The label has an unknown value.
    #[error("the label sidestep.dev/cache has a value that is none of enabled, observe, none")]
    UnknownLabel,
    /// Observing is asked for.
    #[error("the label asks to observe, which this version does not do")]
    Observe,
    /// The namespace is the system's or ours.
    #[error("its namespace is never served")]
    Namespace,
    /// It has no network namespace of its own.
    #[error("it shares the node's network (hostNetwork)")]
    HostNetwork,
    /// Its sockets are not the node's.
    #[error("its runtime class gives it a kernel of its own")]
    Sandbox,
    /// It has no address yet.
    #[error("it has no address yet")]
    NoAddress,
    /// A mesh says that its proxy is in it, and none of its containers is known to be that.
    #[error("a mesh's proxy is in it that is none of its known containers")]
    UnknownProxy,
    /// Its containers are not known yet.
    #[error("none of its containers but a mesh's proxy runs yet")]
    NoContainers,
}

impl LeftAlone {
    /// Whether that may change without anybody's doing.
    pub fn is_pending(self) -> bool {
        matches!(self, Self::NoAddress | Self::NoContainers)
    }
}

/// What is to become of a pod; `None` where no label speaks of it, or where it is over.
pub(super) fn state(
    meta: &Meta,
    pod: &Pod,
    namespace: Option<&Meta>,
    settings: &Settings,
) -> Option<PodState> {
    let of = |meta: &Meta| meta.labels.get(LABEL).cloned();
    // Without its namespace nobody knows what is wanted of the pod, even with a label of its own: it may be about to go.
    let namespace = namespace?;
    let label = of(meta).or_else(|| of(namespace))?;
    if label == "none" || matches!(pod.status.phase.as_str(), "Succeeded" | "Failed") {
        return None;
    }
    Some(match judge(&label, meta, pod, settings) {
        Ok(wanted) => PodState::Wanted(wanted),
        Err(why) => PodState::LeftAlone { pod: reference(meta), service_account: account(pod), why },
    })
}

fn judge(label: &str, meta: &Meta, pod: &Pod, settings: &Settings) -> Result<WantedPod, LeftAlone> {
    match label {
        "enabled" => {}
        "observe" => return Err(LeftAlone::Observe),
        _ => return Err(LeftAlone::UnknownLabel),
    }
    if settings.excluded_namespaces.contains(&meta.namespace) {
        return Err(LeftAlone::Namespace);
    }
    if pod.spec.host_network {
        return Err(LeftAlone::HostNetwork);
    }
    let class = pod.spec.runtime_class_name.as_deref().unwrap_or_default().to_ascii_lowercase();
    if SANDBOXES.iter().any(|sandbox| class.contains(sandbox)) {
        return Err(LeftAlone::Sandbox);
    }
    let ips = pod.status.ips();
    if ips.is_empty() {
        return Err(LeftAlone::NoAddress);
    }
    let proxies = proxies(meta, pod, settings)?;
    let members = match proxies.is_empty() {
        true => Members::All,
        false => Members::These(applications(pod, &proxies).ok_or(LeftAlone::NoContainers)?),
    };
    Ok(WantedPod {
        pod: reference(meta),
        service_account: account(pod),
        cgroup_uid: meta.annotations.get(CONFIG_HASH).unwrap_or(&meta.uid).clone(),
        ips,
        members,
    })
}

fn reference(meta: &Meta) -> PodRef {
    let Meta { namespace, name, uid, .. } = meta;
    PodRef { namespace: namespace.clone(), name: name.clone(), uid: uid.clone() }
}

fn account(pod: &Pod) -> String {
    match pod.spec.service_account_name.as_str() {
        "" => "default".to_owned(),
        name => name.to_owned(),
    }
}

/// What Istio says of what it has put into a pod.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Injected {
    containers: Vec<String>,
}

/// The names of the pod's containers that are a mesh's proxies.
fn proxies<'a>(meta: &Meta, pod: &'a Pod, settings: &Settings) -> Result<BTreeSet<&'a str>, LeftAlone> {
    let injected = meta.annotations.get(ISTIO_STATUS);
    let named = injected.map(|text| serde_json::from_str::<Injected>(text).unwrap_or_default().containers);
    let is_named = |name: &String| named.as_ref().is_some_and(|named| named.contains(name));
    let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers).map(|one| &one.name);
    let proxies: BTreeSet<&str> = containers
        .filter(|name| settings.proxy_containers.contains(*name) || is_named(name))
        .map(String::as_str)
        .collect();
    if injected.is_some() && proxies.is_empty() { Err(LeftAlone::UnknownProxy) } else { Ok(proxies) }
}

/// The ids of the containers that run and are no proxies; `None` where there is none. One that is over, as those that
/// prepare a pod are, has no cgroup any more.
fn applications(pod: &Pod, proxies: &BTreeSet<&str>) -> Option<Vec<String>> {
    let PodStatus { container_statuses, init_container_statuses, .. } = &pod.status;
    let containers = container_statuses.iter().chain(init_container_statuses);
    let running = containers.filter(|one| one.state.running.is_some());
    let applications = running.filter(|one| !proxies.contains(one.name.as_str()));
    let mut ids: Vec<String> = applications.filter_map(|one| one.id().map(str::to_owned)).collect();
    ids.sort_unstable();
    (!ids.is_empty()).then_some(ids)
}
