//! What is done with a request: cached by the rules of its destination, or only passed on.
//!
//! Without policies there is one rule set for everything, and the switch. In a cluster a destination is the service that its
//! address stands for at the moment.

mod service;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use service::Service;

use crate::admin::{Position, Switch};
use crate::kube::index::{Clients, Destination, Snapshot};
use crate::policy::{Reason, Rules};

/// How long a response of a service stays usable, whatever its freshness lifetime: whose it is stays known.
const SERVICE_RESIDENT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a request goes.
#[derive(Clone, Debug)]
pub struct Route {
    /// By which rules its answer may come from the store.
    pub rules: Arc<Rules>,
    /// The service that its destination is, for pods of a cluster.
    pub service: Option<Arc<Service>>,
    /// Set where it is only forwarded.
    pub bypass: Option<Reason>,
    /// Whether a right to one path or method says nothing of others.
    pub leases_by_path: bool,
}

impl Route {
    /// Whether a mesh may send requests for the same target elsewhere, by something else in them.
    pub fn has_inputs(&self) -> bool {
        self.service.as_ref().is_some_and(|service| !service.guard().inputs.is_empty())
    }
}

/// Finds the route of a request.
pub struct Routes {
    rules: Arc<Rules>,
    service_rules: Arc<Rules>,
    services: RwLock<Arc<Services>>,
    switch: Arc<Switch>,
    is_ending: AtomicBool,
}

/// The services of a cluster at one moment.
#[derive(Debug, Default)]
pub struct Services {
    /// By their addresses.
    pub by_address: HashMap<SocketAddr, Arc<Service>>,
    clients: Clients,
}

impl Routes {
    /// The same rules for every destination, while the switch is on.
    pub fn new(rules: Rules, switch: Arc<Switch>) -> Self {
        let service_rules = Rules { resident_max: SERVICE_RESIDENT_MAX, ..rules.clone() };
        Self {
            rules: Arc::new(rules),
            service_rules: Arc::new(service_rules),
            services: RwLock::default(),
            switch,
            is_ending: AtomicBool::new(false),
        }
    }

    /// Ends each connection with its next answer from now on, so that the client's next one goes direct.
    pub fn end(&self) {
        self.is_ending.store(true, Ordering::Relaxed);
    }

    /// Whether a connection may go on after its next answer.
    pub fn lets_stay(&self) -> bool {
        !self.is_ending() && self.is_on()
    }

    fn is_on(&self) -> bool {
        self.switch.in_effect() == Position::On
    }

    fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// The route of the next request to an address that means the same whoever asks.
    pub fn find(&self) -> Route {
        let bypass = (!self.is_on()).then_some(Reason::Off);
        Route { rules: self.rules.clone(), service: None, bypass, leases_by_path: false }
    }

    /// The route of the next request of a pod of this namespace to the address of a service.
    pub fn find_service(&self, at: &SocketAddr, namespace: &str) -> Route {
        let services = self.services();
        let service = services.by_address.get(at).cloned();
        let rules = service.as_ref().map_or(&self.service_rules, |service| &service.rules).clone();
        let mut route = Route { rules, service: None, bypass: None, leases_by_path: false };
        if let Some(service) = &service {
            route.bypass = service.policy().and_then(|policy| policy.bypass);
            for guard in std::iter::once(service.guard()).chain(services.clients.of(namespace)) {
                route.bypass = route.bypass.or(guard.bypass);
                route.leases_by_path |= guard.leases_by_path;
            }
        } else {
            // The connection is older than that.
            route.bypass = Some(Reason::NoService);
        }
        // At its end nobody tells the daemon any more what changes.
        if !self.is_on() || self.is_ending() {
            route.bypass = Some(Reason::Off);
        }
        Route { service, ..route }
    }

    /// Since when a connection to an address must have been made, since boot.
    pub fn connections_from(&self, at: &SocketAddr, now: Duration) -> Duration {
        self.services().by_address.get(at).map_or(Duration::ZERO, |service| service.connections_from(now))
    }

    /// Whether the address still stands for the service as it was then.
    pub fn is_current(&self, at: &SocketAddr, service: &Service) -> bool {
        self.services().by_address.get(at).is_some_and(|now| now.epoch == service.epoch)
    }

    /// All services.
    pub fn services(&self) -> Arc<Services> {
        self.services.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes these the services; nothing is stored of those that are new or have changed until `pause` from `now`, since
    /// boot. Returns the addresses whose stored responses no longer count.
    pub fn publish(&self, snapshot: &Snapshot, now: Duration, pause: Duration) -> Vec<SocketAddr> {
        let before = self.services();
        // An address of a service that has several is not new for having been changed at the others.
        let of = |(at, destination): (&SocketAddr, &Arc<Destination>)| {
            let was = before.by_address.get(at);
            let same = was.filter(|service| service.is_same(destination)).cloned();
            let other = || Service::new(destination, was.map(|was| &**was), &self.service_rules, now, pause);
            (*at, same.unwrap_or_else(|| Arc::new(other())))
        };
        let services: HashMap<_, _> = snapshot.destinations.iter().map(of).collect();
        let is_outdated = |(at, service): &(&SocketAddr, &Arc<Service>)| {
            services.get(*at).is_none_or(|now| !Arc::ptr_eq(now, service))
        };
        let outdated = before.by_address.iter().filter(is_outdated).map(|(at, _)| *at).collect();
        let services = Services { by_address: services, clients: snapshot.clients.clone() };
        *self.services.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(services);
        outdated
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::admin::Switches;
    use crate::config::{PolicyConfig, Span};
    use crate::kube::index::{Guard, ServicePolicy};
    use crate::kube::objects::ObjectKey;
    use crate::policy::Profile;

    const NOW: Duration = Duration::from_secs(1000);
    const PAUSE: Duration = Duration::from_secs(10);
    const AT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)), 80);

    fn routes() -> Routes {
        let switches = Switches::new(Path::new("/nowhere"), Path::new("/nowhere/admin.sock"));
        switches.redirection.took_effect(true);
        Routes::new(Rules::default(), switches.redirection)
    }

    fn web(epoch: u64) -> Snapshot {
        let destination = Destination {
            service: ObjectKey { namespace: "shop".to_owned(), name: "web".to_owned() },
            service_uid: "uid".to_owned(),
            port: 80,
            pod_uid: None,
            epoch,
            routed: epoch,
            guard: Guard::default(),
            policy: None,
            names: None,
        };
        Snapshot { destinations: [(AT, Arc::new(destination))].into(), ..Snapshot::default() }
    }

    #[test]
    fn an_address_of_no_service_is_not_looked_up_for_pods() {
        let routes = routes();
        assert_eq!(routes.find_service(&AT, "shop").bypass, Some(Reason::NoService));
        routes.publish(&web(1), NOW, PAUSE);
        let route = routes.find_service(&AT, "shop");
        assert_eq!(route.bypass, None);
        assert!(route.rules.resident_max > routes.find().rules.resident_max);
        routes.publish(&Snapshot::default(), NOW, PAUSE);
        assert_eq!(routes.find_service(&AT, "shop").bypass, Some(Reason::NoService));
    }

    #[test]
    fn a_policy_decides_at_once_and_without_a_pause_and_leaves_the_rest_as_it_is() {
        let routes = routes();
        routes.publish(&web(1), NOW, PAUSE);
        let (general, before) = (routes.find_service(&AT, "shop"), routes.services().by_address[&AT].clone());
        let policy = ServicePolicy {
            name: "web".to_owned(),
            bypass: None,
            profile: Some(Profile::Rfc9111),
            words: PolicyConfig { stale_if_error: Some(Span(PAUSE)), ..PolicyConfig::default() },
        };
        let with = |policy: ServicePolicy, epoch: u64| {
            let mut snapshot = web(epoch);
            let destination = snapshot.destinations.get_mut(&AT).unwrap();
            let new = Destination { routed: 1, policy: Some(policy.into()), ..(**destination).clone() };
            *destination = new.into();
            snapshot
        };
        let later = NOW + 3 * PAUSE;
        assert_eq!(routes.publish(&with(policy.clone(), 2), later, PAUSE), [AT]);
        let route = routes.find_service(&AT, "shop");
        let expected =
            Rules { profile: Profile::Rfc9111, stale_if_error: Some(PAUSE), ..(*general.rules).clone() };
        assert_eq!(*route.rules, expected);
        let service = route.service.unwrap();
        assert_eq!((service.epoch, service.storing_from), (2, before.storing_from), "stored at once");
        assert_eq!(
            service.connections_from(later),
            before.connections_from(later),
            "and on open connections"
        );

        // Another pod at the address is no news of policies alone.
        let mut moved = with(policy.clone(), 3);
        let destination = moved.destinations.get_mut(&AT).unwrap();
        *destination = Destination { pod_uid: Some("new".to_owned()), ..(**destination).clone() }.into();
        routes.publish(&moved, later, PAUSE);
        assert_eq!(routes.find_service(&AT, "shop").service.unwrap().storing_from, later + PAUSE);

        let off = ServicePolicy { bypass: Some(Reason::PolicyOff), ..policy };
        assert_eq!(routes.publish(&with(off, 4), later, PAUSE), [AT]);
        assert_eq!(routes.find_service(&AT, "shop").bypass, Some(Reason::PolicyOff));
    }

    #[test]
    fn at_the_end_pods_are_given_nothing_more_for_nobody_tells_what_changes() {
        let routes = routes();
        routes.publish(&web(1), NOW, PAUSE);
        routes.end();
        assert_eq!(routes.find_service(&AT, "shop").bypass, Some(Reason::Off));
        assert_eq!(routes.find().bypass, None, "what is not told by a cluster is as it was");
        assert!(!routes.lets_stay());
    }

    #[test]
    fn nothing_is_stored_for_a_while_after_a_change_and_only_then() {
        let routes = routes();
        let storing_from = || routes.find_service(&AT, "shop").service.map(|service| service.storing_from);
        assert_eq!(routes.publish(&web(1), NOW, PAUSE), []);
        assert_eq!(storing_from(), Some(NOW + PAUSE));
        let later = NOW + 2 * PAUSE;
        assert_eq!(routes.publish(&web(1), later, PAUSE), [], "nothing new");
        assert_eq!(storing_from(), Some(NOW + PAUSE));
        let before = routes.find_service(&AT, "shop").service.unwrap();
        assert!(routes.is_current(&AT, &before));
        assert_eq!(routes.publish(&web(2), later, PAUSE), [AT]);
        assert_eq!(storing_from(), Some(later + PAUSE));
        assert!(!routes.is_current(&AT, &before));
        assert_eq!(routes.publish(&Snapshot::default(), later, PAUSE), [AT]);
        assert!(!routes.is_current(&AT, &before));
    }
}
