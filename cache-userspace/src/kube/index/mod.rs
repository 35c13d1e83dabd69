//! From objects to a snapshot: pure. What is in a snapshot follows from the objects alone, in whatever order they came.

mod pods;
mod services;

use core::net::SocketAddr;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use pods::{LeftAlone, Members, PodState, WantedPod};
pub use services::{Destination, is_http};

use super::objects::{EndpointSlice, Kind, Meta, Object, ObjectKey, Pod, SERVICE_NAME, Service};

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
    services: BTreeMap<ObjectKey, (Meta, Service)>,
    slices: HashMap<ObjectKey, (Meta, EndpointSlice)>,
    /// The slices of each Service.
    slices_of: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// What follows from each Service; made anew where one of its objects changed.
    destinations: HashMap<ObjectKey, Vec<(SocketAddr, Arc<Destination>)>>,
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
            destinations: HashMap::new(),
        }
    }

    /// Takes up a change; says whether it may change the snapshot.
    pub fn apply(&mut self, change: Change) -> bool {
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
                let key = meta.key();
                if self.services.get(&key).is_some_and(|old| {
                    old.0.uid == meta.uid && old.1 == service && old.0.annotations == meta.annotations
                }) {
                    return false;
                }
                self.services.insert(key.clone(), (meta, service));
                self.settle(&key)
            }
            Object::EndpointSlice(meta, slice) => {
                let key = meta.key();
                let owner = owner(&meta);
                let old = self.slices.insert(key.clone(), (meta, slice));
                let old_owner = old.as_ref().and_then(|(meta, _)| self::owner(meta));
                let mut is_changed = false;
                if let Some(old_owner) = old_owner.filter(|old| Some(old) != owner.as_ref()) {
                    is_changed = self.disown(&old_owner, &key);
                }
                let Some(owner) = owner else { return is_changed };
                self.slices_of.entry(owner.clone()).or_default().insert(key);
                self.settle(&owner) || is_changed
            }
        }
    }

    fn remove(&mut self, kind: Kind, key: &ObjectKey) -> bool {
        match kind {
            Kind::Pod => self.pods.remove(key).is_some(),
            Kind::Namespace => self.namespaces.remove(&key.name).is_some(),
            Kind::Service => self.services.remove(key).is_some() && self.settle(key),
            Kind::EndpointSlice => {
                let gone = self.slices.remove(key);
                let owner = gone.and_then(|(meta, _)| owner(&meta));
                owner.is_some_and(|owner| self.disown(&owner, key))
            }
        }
    }

    fn disown(&mut self, service: &ObjectKey, slice: &ObjectKey) -> bool {
        if let Some(slices) = self.slices_of.get_mut(service) {
            slices.remove(slice);
            if slices.is_empty() {
                self.slices_of.remove(service);
            }
        }
        self.settle(service)
    }

    /// Makes anew what follows from a Service; says whether it is something else.
    fn settle(&mut self, key: &ObjectKey) -> bool {
        let new = match self.services.get(key) {
            None => Vec::new(),
            Some((meta, service)) => {
                let slices = self.slices_of.get(key).into_iter().flatten();
                let slices = slices.filter_map(|key| self.slices.get(key)).map(|(_, slice)| slice);
                services::destinations(meta, service, slices)
            }
        };
        if self.destinations.get(key).map_or(&[][..], Vec::as_slice) == new {
            return false;
        }
        match new.is_empty() {
            true => self.destinations.remove(key),
            false => self.destinations.insert(key.clone(), new),
        };
        true
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
        for (at, destination) in self.destinations.values().flatten() {
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
