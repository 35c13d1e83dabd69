//! From objects to a snapshot: pure. What is in a snapshot follows from the objects alone, in whatever order they came;
//! only epochs count how often something changed.

mod behind;
mod pods;
mod services;

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use behind::Behind;
pub use pods::{LeftAlone, Members, PodState, WantedPod};
pub use services::{Destination, is_http};

use super::objects::{EndpointSlice, Kind, Meta, Object, ObjectKey, Pod, SERVICE_NAME, Service, ServiceSpec};

/// What is decided by how this node is set up, not by objects.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespaces whose pods are never served.
    pub excluded_namespaces: BTreeSet<String>,
    /// Names of the containers that are a mesh's proxies.
    pub proxy_containers: BTreeSet<String>,
}

/// What the cluster says at one time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The pods of this node that a label speaks of.
    pub pods: Vec<PodState>,
    /// Addresses and ports that are HTTP services.
    pub destinations: HashMap<SocketAddr, Arc<Destination>>,
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
    epoch: u64,
}

/// What decides what a Service's addresses answer: where any of it changes, nothing that was answered before counts.
#[derive(Debug, PartialEq)]
struct Facts {
    uid: String,
    spec: ServiceSpec,
    behind: Behind,
}

impl Index {
    /// Knows no object yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            services: BTreeMap::new(),
            slices: HashMap::new(),
            slices_of: HashMap::new(),
            revisions: HashMap::new(),
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
            // What cannot be read says nothing: nothing follows from it.
            Change::Unreadable(kind, key) => self.remove(kind, &key),
            Change::Replaced(kind, objects) => {
                let keys: BTreeSet<ObjectKey> = objects.iter().map(|object| object.meta().key()).collect();
                let gone: Vec<ObjectKey> =
                    self.keys(kind).into_iter().filter(|key| !keys.contains(key)).collect();
                let mut is_changed = false;
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
                    self.unsettled.insert(owner);
                }
                false
            }
            Object::Revision(meta) => {
                let key = meta.key();
                let concerned = self.settled.iter().filter(|(service, settled)| {
                    service.namespace == key.namespace && settled.facts.behind.concerns(&key.name, &meta)
                });
                self.unsettled.extend(concerned.map(|(service, _)| service.clone()));
                self.revisions.insert(key, meta);
                false
            }
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjectKey) -> bool {
        match kind {
            Kind::Pod => self.pods.remove(key).is_some(),
            Kind::Namespace => self.namespaces.remove(&key.name).is_some(),
            Kind::Service => {
                self.services.remove(key);
                self.unsettled.insert(key.clone());
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
        }
    }

    fn disown(&mut self, service: ObjectKey, slice: &ObjectKey) {
        if let Some(slices) = self.slices_of.get_mut(&service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(&service);
            }
        }
        self.unsettled.insert(service);
    }

    /// Makes anew what follows from a Service; says whether it is something else.
    fn settle(&mut self, key: &ObjectKey) -> bool {
        let Some((meta, service)) = self.services.get(key) else { return self.settled.remove(key).is_some() };
        let slices = || {
            let keys = self.slices_of.get(key).into_iter().flatten();
            keys.filter_map(|key| self.slices.get(key)).map(|(_, slice)| slice)
        };
        let found = services::destinations(meta, service, slices());
        if found.is_empty() {
            return self.settled.remove(key).is_some();
        }
        let old = self.settled.get(key);
        let revision = |pod: &str| self.revisions.get(&ObjectKey { name: pod.to_owned(), ..key.clone() });
        let behind = Behind::of(slices(), revision, old.map(|old| &old.facts.behind));
        let facts = Facts { uid: meta.uid.clone(), spec: service.spec.clone(), behind };
        let epoch = match old {
            Some(old) if old.facts == facts => old.epoch,
            _ => self.epoch + 1,
        };
        self.epoch = self.epoch.max(epoch);
        let of = |(at, place): (SocketAddr, services::Place)| {
            let services::Place { port, pod_uid } = place;
            let service = key.clone();
            (at, Arc::new(Destination { service, service_uid: meta.uid.clone(), port, pod_uid, epoch }))
        };
        let destinations: Vec<_> = found.into_iter().map(of).collect();
        let is_changed = old.is_none_or(|old| old.destinations != destinations);
        self.settled.insert(key.clone(), Settled { destinations, facts, epoch });
        is_changed
    }

    /// What the objects say now.
    pub fn snapshot(&self) -> Snapshot {
        let pods = self.pods.values().filter_map(|(meta, pod)| {
            let namespace = self.namespaces.get(&meta.namespace);
            pods::state(meta, pod, namespace, &self.settings)
        });
        Snapshot { pods: pods.collect(), destinations: self.all_destinations() }
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
mod tests;
