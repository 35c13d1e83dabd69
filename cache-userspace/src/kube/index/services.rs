//! Which addresses and ports are HTTP services, and what each of them is.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::super::objects::{EndpointSlice, Meta, ObjectKey, Service, ServicePort};
use super::mesh::Guard;
use super::policies::ServicePolicy;

/// Linkerd's annotation of ports that are not to be looked into: `4222,6379-6389`.
const OPAQUE_PORTS: &str = "config.linkerd.io/opaque-ports";

/// An HTTP service at one address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The Service.
    pub service: ObjectKey,
    /// The Service's uid: one that is made anew under the same name is another.
    pub service_uid: String,
    /// The Service's port that is meant.
    pub port: u16,
    /// The pod, where the address is a pod's own (a headless Service); addresses of pods are used again.
    pub pod_uid: Option<String>,
    /// Another one, never used before, whenever something changed that decides what is answered here (MESH.md S6).
    pub epoch: u64,
    /// The epoch since which the mesh, and who is behind it, are as they are: our own policies change nothing there.
    pub routed: u64,
    /// What the mesh wants to be kept in mind.
    pub guard: Guard,
    /// What holds by its team's policy.
    pub policy: Option<Arc<ServicePolicy>>,
    /// What it may be called; `None`: anything, for nobody goes by names.
    pub names: Option<Arc<[String; 4]>>,
}

/// What stands at one address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// As [`Destination::port`].
    pub(super) port: u16,
    /// As [`Destination::pod_uid`].
    pub(super) pod_uid: Option<String>,
}

impl Destination {
    /// Whether two Services mean the same by an address, and the same holds for both.
    pub(super) fn agrees(&self, other: &Self) -> bool {
        let is_same_pod = self.pod_uid.is_some() && self.pod_uid == other.pod_uid;
        is_same_pod && self.guard == other.guard && self.policy == other.policy
    }

    /// Whether nothing but our own policy about it is another.
    pub fn differs_by_policy_alone(&self, other: &Self) -> bool {
        let Self { epoch, policy, .. } = other.clone();
        self.routed == other.routed && Self { epoch, policy, ..self.clone() } == *other
    }
}

/// Whether a port of a Service is known to speak HTTP/1: by `appProtocol` where it is set, else by its name, as Istio
/// reads it: `http`, `http-…`.
pub fn is_http(app_protocol: Option<&str>, name: Option<&str>) -> bool {
    match (app_protocol, name) {
        (Some(protocol), _) => protocol.eq_ignore_ascii_case("http"),
        (None, Some(name)) => name == "http" || name.starts_with("http-"),
        (None, None) => false,
    }
}

/// The addresses and ports of a Service that are HTTP, sorted.
pub(super) fn destinations<'a>(
    meta: &Meta,
    service: &Service,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Vec<(SocketAddr, Place)> {
    let ports: Vec<&ServicePort> =
        service.spec.ports.iter().filter(|port| is_served(port) && !is_opaque(meta, port.port)).collect();
    if ports.is_empty() || service.spec.kind == "ExternalName" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for ip in service.spec.ips() {
        found.extend(
            ports
                .iter()
                .map(|port| (SocketAddr::new(ip, port.port), Place { port: port.port, pod_uid: None })),
        );
    }
    if service.spec.is_headless() {
        for slice in slices {
            found.extend(of_pods(slice, &ports));
        }
    }
    found.sort_by(|(one, a), (other, b)| one.cmp(other).then_with(|| a.port.cmp(&b.port)));
    found.dedup_by(|(one, _), (other, _)| one == other);
    found
}

/// The pods of a headless Service; those of endpoints that are no pods are nobody's we know.
fn of_pods(slice: &EndpointSlice, ports: &[&ServicePort]) -> Vec<(SocketAddr, Place)> {
    let mut found = Vec::new();
    for endpoint in &slice.endpoints {
        let Some(pod) = endpoint.target_ref.as_ref().filter(|it| it.kind == "Pod" && !it.uid.is_empty())
        else {
            continue;
        };
        let ips = endpoint.addresses.iter().filter_map(|text| text.parse::<IpAddr>().ok());
        for ip in ips.filter(is_a_pods) {
            for at in &slice.ports {
                let name = |name: &Option<String>| name.clone().unwrap_or_default();
                let meant = ports.iter().find(|port| name(&port.name) == name(&at.name));
                if let (Some(meant), Some(number)) = (meant, at.port) {
                    let place = Place { port: meant.port, pod_uid: Some(pod.uid.clone()) };
                    found.push((SocketAddr::new(ip, number), place));
                }
            }
        }
    }
    found
}

/// Whether a pod can have this address: who writes a slice by hand may write any.
fn is_a_pods(ip: &IpAddr) -> bool {
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(is_link_local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast())
}

fn is_served(port: &ServicePort) -> bool {
    let is_tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
    is_tcp && is_http(port.app_protocol.as_deref(), port.name.as_deref())
}

fn is_opaque(meta: &Meta, port: u16) -> bool {
    let Some(listed) = meta.annotations.get(OPAQUE_PORTS) else { return false };
    listed.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
            (Ok(from), Ok(to)) => (from..=to).contains(&port),
            // A port may be meant by its name, which is not ours to guess.
            _ => !part.trim().is_empty(),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_port_speaks_is_told_by_app_protocol_and_else_by_its_name() {
        for (app_protocol, name, expected) in [
            (Some("http"), Some("grpc"), true),
            (Some("HTTP"), None, true),
            (Some("https"), Some("http"), false),
            (Some("kubernetes.io/h2c"), Some("http"), false),
            (Some("tcp"), Some("http-web"), false),
            (None, Some("http"), true),
            (None, Some("http-web"), true),
            (None, Some("http2"), false),
            (None, Some("https"), false),
            (None, Some("httpx"), false),
            (None, Some("web"), false),
            (None, None, false),
        ] {
            assert_eq!(is_http(app_protocol, name), expected, "{app_protocol:?} {name:?}");
        }
    }

    #[test]
    fn opaque_ports_are_listed_singly_and_in_ranges() {
        let with = |listed: &str| Meta {
            annotations: [(OPAQUE_PORTS.to_owned(), listed.to_owned())].into(),
            ..Meta::default()
        };
        assert!(is_opaque(&with("80"), 80));
        assert!(is_opaque(&with("1, 70-90"), 80));
        assert!(!is_opaque(&with("81,8000-9000"), 80));
        assert!(is_opaque(&with("web"), 80));
        assert!(!is_opaque(&with(""), 80));
        assert!(!is_opaque(&Meta::default(), 80));
    }
}
