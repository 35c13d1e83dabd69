//! Who is asking: the workload that a connection came from. Which cgroup and which namespace that is, is found out
//! when the workload is enrolled; a connection knows it by the listener that accepted it.

use crate::accept::netns::Netns;

/// One workload: a pod, or a cgroup where there is no cluster.
#[derive(Debug)]
pub struct Workload {
    /// Its name in listings, unique on the node.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
    /// Cgroup id: what the kernel programs call it.
    pub id: u64,
    /// Its network namespace.
    pub netns: Netns,
    /// The cookie of that namespace.
    pub netns_cookie: u64,
}

impl Workload {
    /// The partition of the cache that the workload reads and fills (MESH.md S2).
    ///
    /// Namespace and service account, and the network namespace: the same address may be another server in another
    /// one, and nothing here proves that it is not.
    pub fn partition(&self) -> Vec<u8> {
        let mut partition = Vec::with_capacity(self.namespace.len() + self.service_account.len() + 10);
        partition.extend_from_slice(self.namespace.as_bytes());
        partition.push(0);
        partition.extend_from_slice(self.service_account.as_bytes());
        partition.push(0);
        partition.extend_from_slice(&self.netns_cookie.to_be_bytes());
        partition
    }
}
