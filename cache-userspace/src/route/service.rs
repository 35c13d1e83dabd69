//! A service of the cluster as requests see it.

use std::sync::Arc;
use std::time::Duration;

use crate::kube::index::Destination;
use crate::kube::objects::ObjectKey;

/// A service at one of its addresses.
#[derive(Debug)]
pub struct Service {
    /// What is known of it.
    destination: Arc<Destination>,
    /// Whose responses they are: part of every key (MESH.md S1). Its name is there for people, its uid makes it one.
    pub identity: Box<[u8]>,
    /// What is stored of it counts only within one epoch (MESH.md S6).
    pub epoch: u64,
    /// Nothing is stored of it before, since boot: proxies may still work by what was before.
    pub storing_from: Duration,
}

impl Service {
    pub(super) fn new(destination: &Arc<Destination>, storing_from: Duration) -> Self {
        let Destination { service, service_uid, port, pod_uid, epoch } = &**destination;
        let ObjectKey { namespace, name } = service;
        let pod = pod_uid.as_ref().map(|uid| format!(" pod {uid}")).unwrap_or_default();
        let identity = format!("{namespace}/{name}:{port} {service_uid}{pod}");
        let (destination, identity) = (destination.clone(), identity.into_bytes().into());
        Self { destination, identity, epoch: *epoch, storing_from }
    }

    /// Whether this is what is known of it.
    pub(super) fn is_same(&self, destination: &Destination) -> bool {
        *self.destination == *destination
    }
}
