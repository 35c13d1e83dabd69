//! From objects to a snapshot: pure. What is in a snapshot follows from the objects alone, in whatever order they came;
//! only epochs count how often something changed.

mod behind;
mod mesh;
mod pods;
mod policies;
mod services;

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use behind::Behind;
pub use mesh::{Guard, Input, Names, is_foreign};
use mesh::{Mesh, News, Said};
pub use pods::{LeftAlone, Members, PodRef, PodState, WantedPod};
use policies::Policies;
pub use policies::{PolicyState, ServicePolicy, TargetState};
pub use services::{Destination, is_http};

use super::objects::{
    Endpoint, EndpointSlice, Kind, Meta, Object, ObjectKey, Pod, SERVICE_NAME, Service, ServiceSpec,
};
use crate::policy::Reason;

/// What is decided by how this node is set up, not by objects.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespaces whose pods are never served.
    pub excluded_namespaces: BTreeSet<String>,
    /// Names of the containers that are a mesh's proxies.
    pub proxy_containers: BTreeSet<String>,
    /// What things of the mesh are called.
    pub names: Names,
}

/// What the cluster says at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The pods of this node that a label speaks of.
    pub pods: Vec<PodState>,
    /// Addresses and ports that are HTTP services.
    pub destinations: HashMap<SocketAddr, Arc<Destination>>,
    /// What has to be kept in mind of pods as clients.
    pub clients: Clients,
    /// What has become of each policy.
    pub policies: Vec<PolicyState>,
}

/// What has to be kept in mind of pods as clients, whatever they ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clients {
    namespaces: HashMap<String, Guard>,
    all: Guard,
}

impl Clients {
    /// Of those of a namespace.
    pub fn of(&self, namespace: &str) -> impl Iterator<Item = &Guard> {
        [Some(&self.all), self.namespaces.get(namespace)].into_iter().flatten()
    }
}

/// A change of the objects of one kind.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object is there, or is another now.
    Applied(Object),
    /// An object is gone.
    Deleted(Kind, ObjectKey),
    /// An object is there that cannot be read.
    Unreadable(Kind, ObjectKey),
    /// There is no such kind.
    Absent(Kind),
    /// No object of a kind can be read, though there may be some.
    Blind(Kind),
    /// All objects of a kind that there are: others are gone.
    Replaced(Kind, Vec<Object>),
}

/// The objects, as far as they decide something.
#[derive(Debug)]
pub struct Index {
    settings: Settings,
    pods: BTreeMap<ObjectKey, (Meta, Box<Pod>)>,
    namespaces: BTreeMap<String, Meta>,
    services: BTreeMap<ObjectKey, (Meta, Box<Service>)>,
    slices: HashMap<ObjectKey, (Meta, EndpointSlice)>,
    /// The slices of each Service.
    slices_of: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    revisions: HashMap<ObjectKey, Meta>,
    mesh: Mesh,
    policies: Policies,
    /// What follows from each Service; made anew where one of its objects changed.
    settled: HashMap<ObjectKey, Settled>,
    /// Services of which an object has changed since.
    unsettled: BTreeSet<ObjectKey>,
    /// The epoch that was given out last.
    epoch: u64,
}

/// What follows from a Service that is HTTP.
#[derive(Debug)]
struct Settled {
    destinations: Vec<(SocketAddr, Arc<Destination>)>,
    facts: Facts,
    policy: Option<Arc<ServicePolicy>>,
    epoch: u64,
    /// The epoch since which the facts are these.
    routed: u64,
}

/// What decides what a Service's addresses answer: where any of it changes, nothing that was answered before counts.
#[derive(Debug, PartialEq)]
struct Facts {
    uid: String,
    spec: ServiceSpec,
    behind: Behind,
    said: Said,
    /// Who is behind the services that requests may be sent to instead.
    elsewhere: BTreeMap<ObjectKey, Behind>,
    clients_changed: u64,
}

impl Index {
    /// Knows no object yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            mesh: Mesh::new(settings.names.clone()),
            settings,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            revisions: HashMap::new(),
            policies: Policies::default(),
            settled: HashMap::new(),
            unsettled: BTreeSet::new(),
            epoch: 0,
        }
    }

    /// Takes up a change; says whether it may change the snapshot.
    pub fn apply(&mut self, change: Change) -> bool {
        let is_changed = self.take_up(change);
        let mut unsettled = std::mem::take(&mut self.unsettled);
        unsettled.retain(|key| self.settle(key));
        is_changed || !unsettled.is_empty()
    }

    fn take_up(&mut self, change: Change) -> bool {
        match change {
            Change::Applied(object) => self.put(object),
            Change::Deleted(kind, key) => self.remove(kind, &key),
            Change::Unreadable(Kind::Policy(kind), key) => {
                let news = self.mesh.put_unreadable(kind, key);
                self.unsettle_for(&news)
            }
            // What cannot be read says nothing: nothing follows from it.
            Change::Unreadable(kind, key) => self.remove(kind, &key),
            Change::Absent(kind) => self.take_up(Change::Replaced(kind, Vec::new())),
            Change::Blind(kind) => self.blind(kind, true),
            Change::Replaced(kind, objects) => {
                let keys: BTreeSet<ObjectKey> = objects.iter().map(|object| object.meta().key()).collect();
                let gone: Vec<ObjectKey> =
                    self.keys(kind).into_iter().filter(|key| !keys.contains(key)).collect();
                let mut is_changed = self.blind(kind, false);
                for key in gone {
                    is_changed |= self.remove(kind, &key);
                }
                for object in objects {
                    is_changed |= self.put(object);
                }
                is_changed
            }
        }
    }

    fn keys(&self, kind: Kind) -> Vec<ObjectKey> {
        match kind {
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.values().map(Meta::key).collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.keys().cloned().collect(),
            Kind::Revision => self.revisions.keys().cloned().collect(),
            Kind::Definition => self.mesh.definitions().collect(),
            Kind::CachePolicy => self.policies.keys(),
            Kind::Policy(kind) => self.mesh.keys(kind),
        }
    }

    fn put(&mut self, object: Object) -> bool {
        match object {
            Object::Pod(meta, pod) => {
                let new = (meta, pod);
                self.pods.get(&new.0.key()) != Some(&new) && {
                    self.pods.insert(new.0.key(), new);
                    true
                }
            }
            Object::Namespace(meta) => {
                let old = self.namespaces.get(&meta.name);
                let is_changed =
                    old.is_none_or(|old| old.labels != meta.labels || old.annotations != meta.annotations);
                self.namespaces.insert(meta.name.clone(), meta);
                is_changed
            }
            Object::Service(meta, service) => {
                let new = (meta, service);
                let is_known = self.services.get(&new.0.key()).is_some_and(|old| {
                    old.0.uid == new.0.uid && old.1 == new.1 && old.0.annotations == new.0.annotations
                });
                if !is_known {
                    self.unsettled.insert(new.0.key());
                    self.services.insert(new.0.key(), new);
                }
                false
            }
            Object::EndpointSlice(meta, slice) => {
                let key = meta.key();
                let owner = owner(&meta);
                let old = self.slices.insert(key.clone(), (meta, slice));
                let old_owner = old.as_ref().and_then(|(meta, _)| self::owner(meta));
                if let Some(old_owner) = old_owner.filter(|old| Some(old) != owner.as_ref()) {
                    self.disown(old_owner, &key);
                }
                if let Some(owner) = owner {
                    self.slices_of.entry(owner.clone()).or_default().insert(key);
                    self.unsettle(owner);
                }
                false
            }
            Object::Revision(meta) => {
                let key = meta.key();
                // Policies select pods by their labels.
                let is_labelled_anew =
                    self.revisions.get(&key).is_some_and(|before| before.labels != meta.labels);
                let is_news = |service: &ObjectKey, behind: &Behind| {
                    service.namespace == key.namespace && behind.concerns(&key.name, &meta, is_labelled_anew)
                };
                let concerned = self.settled.iter().filter(|(service, Settled { facts, .. })| {
                    let mut elsewhere = facts.elsewhere.iter();
                    is_news(service, &facts.behind)
                        || elsewhere.any(|(service, behind)| is_news(service, behind))
                });
                self.unsettled.extend(concerned.map(|(service, _)| service.clone()));
                self.revisions.insert(key, meta);
                false
            }
            Object::Definition(meta) => self.defined(&meta.name, true),
            Object::CachePolicy(meta, spec) => {
                let is_news = self.policies.put(&meta, *spec);
                self.unsettle_namespace(is_news, &meta.namespace)
            }
            Object::Policy(kind, meta, rest) => {
                let news = self.mesh.put(kind, &meta, &rest);
                self.unsettle_for(&news)
            }
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjectKey) -> bool {
        match kind {
            Kind::Pod => self.pods.remove(key).is_some(),
            Kind::Namespace => self.namespaces.remove(&key.name).is_some(),
            Kind::Service => {
                self.services.remove(key);
                self.unsettle(key.clone());
                false
            }
            Kind::EndpointSlice => {
                let gone = self.slices.remove(key);
                if let Some(owner) = gone.and_then(|(meta, _)| owner(&meta)) {
                    self.disown(owner, key);
                }
                false
            }
            // Its endpoints go by themselves; until then it is what it was.
            Kind::Revision => {
                self.revisions.remove(key);
                false
            }
            Kind::Definition => self.defined(&key.name, false),
            Kind::CachePolicy => {
                let is_news = self.policies.remove(key);
                self.unsettle_namespace(is_news, &key.namespace)
            }
            Kind::Policy(kind) => {
                let news = self.mesh.remove(kind, key.clone());
                self.unsettle_for(&news)
            }
        }
    }

    fn disown(&mut self, service: ObjectKey, slice: &ObjectKey) {
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        self.unsettle(service);
    }

    /// Has made anew what follows from a Service, and from those that may send requests there.
    fn unsettle(&mut self, service: ObjectKey) {
        let refers = |settled: &Settled| settled.facts.elsewhere.contains_key(&service);
        let referring =
            self.settled.iter().filter(|(_, settled)| refers(settled)).map(|(key, _)| key.clone());
        self.unsettled.extend(referring);
        self.unsettled.insert(service);
    }

    /// Has made anew what follows from the Services that an object of the mesh speaks of, or spoke of; says that clients
    /// may have to be treated differently.
    fn unsettle_for(&mut self, news: &News) -> bool {
        if news.is_empty() {
            return false;
        }
        let is_about =
            |service: &ObjectKey| self.mesh.concerns(news, service, |labels| self.has_pods(service, labels));
        let is_concerned = |(service, settled): &(&ObjectKey, &Settled)| {
            is_about(service) || settled.facts.elsewhere.keys().any(is_about)
        };
        let concerned: Vec<ObjectKey> =
            self.settled.iter().filter(is_concerned).map(|(service, _)| service.clone()).collect();
        self.unsettled.extend(concerned);
        news.is_for_all
    }

    /// Has made anew what follows from the Services of a namespace, where there is news of its policies.
    fn unsettle_namespace(&mut self, is_news: bool, namespace: &str) -> bool {
        if is_news {
            let of = self.settled.keys().filter(|service| service.namespace == namespace);
            self.unsettled.extend(of.cloned());
        }
        is_news
    }

    fn defined(&mut self, name: &str, is_there: bool) -> bool {
        let is_news = self.mesh.defined(name, is_there);
        if is_news {
            self.unsettled.extend(self.settled.keys().cloned());
        }
        is_news
    }

    fn blind(&mut self, kind: Kind, is_blind: bool) -> bool {
        let is_news = match kind {
            Kind::Policy(kind) => self.mesh.blind(kind, is_blind),
            Kind::CachePolicy => std::mem::replace(&mut self.policies.is_blind, is_blind) != is_blind,
            _ => false,
        };
        if is_news {
            self.unsettled.extend(self.settled.keys().cloned());
        }
        is_news
    }

    /// Who is behind a Service.
    fn endpoints(&self, service: &ObjectKey) -> impl Iterator<Item = &Endpoint> {
        self.slices_of(service).flat_map(|slice| &slice.endpoints)
    }

    fn slices_of(&self, service: &ObjectKey) -> impl Iterator<Item = &EndpointSlice> {
        let keys = self.slices_of.get(service).into_iter().flatten();
        keys.filter_map(|key| self.slices.get(key)).map(|(_, slice)| slice)
    }

    /// Whether a pod behind a Service may have all these labels: unless it is known that none has.
    fn has_pods(&self, service: &ObjectKey, labels: &BTreeMap<String, String>) -> bool {
        if labels.is_empty() {
            return true;
        }
        let mut pods = self.endpoints(service).filter_map(|endpoint| endpoint.target_ref.as_ref()).peekable();
        let may_have = |uid: &str, name: &str| {
            let key = ObjectKey { namespace: service.namespace.clone(), name: name.to_owned() };
            self.revisions
                .get(&key)
                .filter(|meta| meta.uid == uid)
                .is_none_or(|meta| labels.iter().all(|(name, value)| meta.labels.get(name) == Some(value)))
        };
        pods.peek().is_none() || pods.any(|pod| may_have(&pod.uid, &pod.name))
    }

    fn behind(&self, service: &ObjectKey, before: Option<&Behind>) -> Behind {
        let named = |pod: &str| ObjectKey { namespace: service.namespace.clone(), name: pod.to_owned() };
        Behind::of(self.endpoints(service), |pod| self.revisions.get(&named(pod)), before)
    }

    /// Makes anew what follows from a Service; says whether it is something else.
    fn settle(&mut self, key: &ObjectKey) -> bool {
        let Some((meta, service)) = self.services.get(key) else { return self.settled.remove(key).is_some() };
        let found = services::destinations(meta, service, self.slices_of(key));
        if found.is_empty() {
            return self.settled.remove(key).is_some();
        }
        let old = self.settled.get(key);
        let mut said = self.mesh.of(key, |labels| self.has_pods(key, labels));
        for other in said.refers.clone() {
            // What holds for whom requests are sent to instead holds for them.
            said.join(self.mesh.of(&other, |labels| self.has_pods(&other, labels)));
        }
        if service.spec.session_affinity.as_deref() == Some("ClientIP") {
            said.guard.refuse(Some(Reason::Affinity));
        }
        let before = |other: &ObjectKey| old.and_then(|old| old.facts.elsewhere.get(other));
        let elsewhere = |other: &ObjectKey| (other.clone(), self.behind(other, before(other)));
        let facts = Facts {
            uid: meta.uid.clone(),
            spec: service.spec.clone(),
            behind: self.behind(key, old.map(|old| &old.facts.behind)),
            elsewhere: said.refers.iter().map(elsewhere).collect(),
            said,
            clients_changed: self.mesh.clients_changed,
        };
        let policy = self.policies.of(key);
        let (epoch, routed) = match old {
            Some(old) if old.facts == facts && old.policy == policy => (old.epoch, old.routed),
            Some(old) if old.facts == facts => (self.epoch + 1, old.routed),
            _ => (self.epoch + 1, self.epoch + 1),
        };
        self.epoch = self.epoch.max(epoch);
        let of = |(at, place): (SocketAddr, services::Place)| {
            let services::Place { port, pod_uid } = place;
            let service = key.clone();
            let (guard, names) = (facts.said.guard.clone(), self.mesh.names_of(key));
            let (service_uid, policy) = (meta.uid.clone(), policy.clone());
            let destination =
                Destination { service, service_uid, port, pod_uid, epoch, routed, guard, policy, names };
            (at, Arc::new(destination))
        };
        let destinations: Vec<_> = found.into_iter().map(of).collect();
        let is_changed = old.is_none_or(|old| old.destinations != destinations);
        self.settled.insert(key.clone(), Settled { destinations, facts, policy, epoch, routed });
        is_changed
    }

    /// What the objects say now.
    pub fn snapshot(&self) -> Snapshot {
        let pods = self.pods.values().filter_map(|(meta, pod)| {
            let namespace = self.namespaces.get(&meta.namespace);
            pods::state(meta, pod, namespace, &self.settings)
        });
        let (namespaces, all) = self.mesh.clients();
        let clients = Clients { namespaces, all };
        let policies = self.policies.states(|service| self.settled.contains_key(service));
        Snapshot { pods: pods.collect(), destinations: self.all_destinations(), clients, policies }
    }

    /// Where two Services claim an address and port (a pod behind two headless ones), they must agree on what it is; it is
    /// left alone where they do not. A Service's own address is given by the API server, and nobody's claim counts there.
    fn all_destinations(&self) -> HashMap<SocketAddr, Arc<Destination>> {
        let mut all: HashMap<SocketAddr, Arc<Destination>> = HashMap::new();
        let mut doubtful = BTreeSet::new();
        for (at, destination) in self.settled.values().flat_map(|settled| &settled.destinations) {
            match all.get(at) {
                Some(other) if other.pod_uid.is_none() != destination.pod_uid.is_none() => {
                    if destination.pod_uid.is_none() {
                        all.insert(*at, destination.clone());
                        doubtful.remove(at);
                    }
                }
                Some(other) if other.pod_uid.is_some() && !other.agrees(destination) => {
                    doubtful.insert(*at);
                }
                // The order in which they are looked at must not decide.
                Some(other) if other.service <= destination.service => {}
                _ => {
                    all.insert(*at, destination.clone());
                }
            }
        }
        for at in doubtful {
            all.remove(&at);
        }
        all
    }
}

/// The Service that a slice belongs to.
fn owner(meta: &Meta) -> Option<ObjectKey> {
    let name = meta.labels.get(SERVICE_NAME)?.clone();
    Some(ObjectKey { namespace: meta.namespace.clone(), name })
}

#[cfg(test)]
mod newer_tests;
#[cfg(test)]
mod tests;
