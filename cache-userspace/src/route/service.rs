//! A service of the cluster as requests see it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::kube::index::{Destination, Guard, ServicePolicy};
use crate::kube::objects::ObjectKey;
use crate::policy::Rules;

/// A service at one of its addresses.
#[derive(Debug)]
pub struct Service {
    /// What is known of it.
    destination: Arc<Destination>,
    /// Whose responses they are: part of every key (MESH.md S1). Its name is there for people, its uid makes it one.
    pub identity: Box<[u8]>,
    /// By which rules its answers may come from the store.
    pub rules: Arc<Rules>,
    /// What is stored of it counts only within one epoch (MESH.md S6).
    pub epoch: u64,
    /// When it became what it is, since boot.
    changed_at: Duration,
    /// Nothing is stored of it before, since boot: proxies may still work by what was before.
    pub storing_from: Duration,
}

impl Service {
    /// A service as it is from `now` on, since boot; `before` is what stood at its address.
    pub(super) fn new(
        destination: &Arc<Destination>,
        before: Option<&Self>,
        general: &Arc<Rules>,
        now: Duration,
        pause: Duration,
    ) -> Self {
        let Destination { service, service_uid, port, pod_uid, epoch, policy, .. } = &**destination;
        // Our own policies need not first come to the proxies.
        let same = before.filter(|before| before.destination.differs_by_policy_alone(destination));
        let (changed_at, storing_from) =
            same.map_or((now, now + pause), |before| (before.changed_at, before.storing_from));
        let rules = policy.as_ref().map_or_else(|| general.clone(), |policy| Arc::new(by(policy, general)));
        let ObjectKey { namespace, name } = service;
        let pod = pod_uid.as_ref().map(|uid| format!(" pod {uid}")).unwrap_or_default();
        let identity = format!("{namespace}/{name}:{port} {service_uid}{pod}");
        let (destination, identity) = (destination.clone(), identity.into_bytes().into());
        Self { destination, identity, rules, epoch: *epoch, changed_at, storing_from }
    }

    /// Since when a connection must have been made, since boot, to lead to what it is now: where routes were changed, those
    /// made while proxies might still work by what was before lead to whoever that was.
    pub fn connections_from(&self, now: Duration) -> Duration {
        if now < self.storing_from { self.changed_at } else { self.storing_from }
    }

    /// What the mesh wants to be kept in mind of requests to it.
    pub fn guard(&self) -> &Guard {
        &self.destination.guard
    }

    /// What holds by its team's policy.
    pub fn policy(&self) -> Option<&ServicePolicy> {
        self.destination.policy.as_deref()
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.destination.service.namespace
    }

    /// Whether a Host is one of its names for a client of this namespace, at its address: a mesh may go by the name.
    pub fn is_called(&self, authority: &[u8], namespace: &str, at: IpAddr) -> bool {
        let Destination { service, port, names: Some(names), pod_uid, .. } = &*self.destination else {
            return true;
        };
        let Ok(authority) = std::str::from_utf8(authority) else { return false };
        let (host, named_port) = match authority.rsplit_once(':') {
            Some((host, digits)) if !digits.contains(']') => (host, digits),
            _ => (authority, ""),
        };
        if !named_port.is_empty() && named_port.parse() != Ok(*port) {
            return false;
        }
        let host = host.strip_suffix('.').unwrap_or(host);
        let ip = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if ip.parse() == Ok(at) {
            return true;
        }
        let is_pods = |name: &str| {
            let pod = host.len().checked_sub(name.len() + 1).and_then(|end| host.split_at_checked(end));
            pod_uid.is_some()
                && pod.is_some_and(|(_, rest)| {
                    rest.strip_prefix('.').is_some_and(|rest| rest.eq_ignore_ascii_case(name))
                })
        };
        let [short, long @ ..] = &**names;
        (namespace == service.namespace && host.eq_ignore_ascii_case(short))
            || long.iter().any(|name| host.eq_ignore_ascii_case(name) || is_pods(name))
    }

    /// Whether this is what is known of it.
    pub(super) fn is_same(&self, destination: &Destination) -> bool {
        *self.destination == *destination
    }
}

/// The rules by a policy, which leaves the general ones where it says nothing.
fn by(policy: &ServicePolicy, general: &Rules) -> Rules {
    let rules = policy.words.apply(general.clone());
    Rules { profile: policy.profile.unwrap_or(rules.profile), ..rules }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(names: Option<[&str; 4]>, pod_uid: Option<&str>) -> Service {
        let destination = Destination {
            service: ObjectKey { namespace: "shop".to_owned(), name: "web".to_owned() },
            service_uid: "uid".to_owned(),
            port: 80,
            pod_uid: pod_uid.map(str::to_owned),
            epoch: 1,
            routed: 1,
            guard: Guard::default(),
            policy: None,
            names: names.map(|names| Arc::new(names.map(str::to_owned))),
        };
        Service::new(&Arc::new(destination), None, &Arc::default(), Duration::ZERO, Duration::ZERO)
    }

    const NAMES: [&str; 4] = ["web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"];

    fn is_called(service: &Service, authority: &str, namespace: &str) -> bool {
        let v6 = authority.starts_with('[');
        let at = if v6 { "fd96::1" } else { "10.96.0.1" };
        service.is_called(authority.as_bytes(), namespace, at.parse().unwrap())
    }

    #[test]
    fn a_service_is_called_by_its_names_or_its_address() {
        let web = service(Some(NAMES), None);
        for name in [
            "web",
            "WEB:80",
            "web.shop",
            "web.shop.svc",
            "web.shop.svc.cluster.local.",
            "10.96.0.1",
            "[fd96::1]:80",
        ] {
            assert!(is_called(&web, name, "shop"), "{name}");
        }
        for name in [
            "api",
            "web.other",
            "web:8080",
            "a.web.shop",
            "10.96.0.2",
            "[fd96::2]",
            "web.shop.svc.",
            "",
            "xweb.shop",
        ] {
            let expected = name == "web.shop.svc.";
            assert_eq!(is_called(&web, name, "shop"), expected, "{name}");
        }
        assert!(!is_called(&web, "web", "other"), "that is another one there");
        assert!(is_called(&web, "web.shop", "other"));
        assert!(!web.is_called(b"web\xff", "shop", "10.96.0.1".parse().unwrap()));
    }

    #[test]
    fn a_pod_of_a_service_is_called_by_its_own_name_there() {
        let pod = service(Some(NAMES), Some("pod"));
        for name in ["web-0.web.shop", "web-0.web.shop.svc.cluster.local", "web.shop"] {
            assert!(is_called(&pod, name, "other"), "{name}");
        }
        assert!(!is_called(&pod, "web-0.web", "other") && !is_called(&pod, "xweb.shop", "other"));
    }

    #[test]
    fn where_nobody_goes_by_names_any_will_do() {
        assert!(is_called(&service(None, None), "anything", "shop"));
    }
}
