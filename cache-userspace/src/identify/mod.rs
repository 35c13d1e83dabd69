//! Who is asking: the workload that a connection came from. Which cgroup and which namespace that is, is found out
//! when the workload is enrolled; a connection knows it by the listener that accepted it.

pub mod lease;
pub mod sidecar;
mod sock_diag;

use std::sync::atomic::{AtomicBool, Ordering};

use self::lease::Leases;
use self::sidecar::Unproven;
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
    /// Which of this cgroup's enrolments this is.
    pub epoch: u32,
    /// Set where a proxy that nobody told us of might be in it.
    pub unproven: Option<Unproven>,
    /// Set for a pod of a cluster: what it was seen to be let through to.
    pub leases: Option<Leases>,
    has_ended: AtomicBool,
}

impl Workload {
    /// A workload that is being enrolled under this name: namespace and service account of its partition, cgroup id,
    /// network namespace and its cookie, and which enrolment of that cgroup it is.
    pub fn new(
        name: String,
        [namespace, service_account]: [String; 2],
        id: u64,
        (netns, netns_cookie): (Netns, u64),
        epoch: u32,
    ) -> Self {
        let has_ended = AtomicBool::new(false);
        let (unproven, leases) = (None, None);
        Self { name, namespace, service_account, id, netns, netns_cookie, epoch, unproven, leases, has_ended }
    }

    /// Ends it: its connections end with their next answer.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// The partition of the cache that the workload reads and fills (MESH.md S2): namespace and service account, the mesh's
    /// identity, whatever else tells its requests apart, and within which scope they count. That is the epoch of a service, or else the network namespace: the
    /// same address may be another server in another one, and nothing here proves that it is not.
    pub fn partition(&self, scope: u64, inputs: &[u8]) -> Vec<u8> {
        let names = self.namespace.len() + self.service_account.len();
        let mut partition = Vec::with_capacity(names + inputs.len() + 10);
        partition.extend_from_slice(self.namespace.as_bytes());
        partition.push(0);
        partition.extend_from_slice(self.service_account.as_bytes());
        partition.push(0);
        partition.extend_from_slice(inputs);
        partition.extend_from_slice(&scope.to_be_bytes());
        partition
    }

    /// Namespace, service account and scope that a partition was made of.
    pub fn identity_of(partition: &[u8]) -> Option<(String, String, u64)> {
        let (names, scope) = partition.split_last_chunk()?;
        let mut names = names.split(|byte| *byte == 0);
        let mut name = || Some(String::from_utf8_lossy(names.next()?).into_owned());
        Some((name()?, name()?, u64::from_be_bytes(*scope)))
    }

    /// Whether a partition is of this namespace and service account.
    pub fn shares(&self, partition: &[u8]) -> bool {
        let of = Self::identity_of(partition);
        of.is_some_and(|(namespace, account, _)| {
            namespace == self.namespace && account == self.service_account
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_tells_whose_it_is() {
        let identity = ["shop", "web"].map(str::to_owned);
        let workload = Workload::new("a".to_owned(), identity, 1, (Netns::Own, 7), 1);
        let expected = Some(("shop".to_owned(), "web".to_owned(), 7));
        assert_eq!(Workload::identity_of(&workload.partition(7, b"")), expected);
        assert_eq!(Workload::identity_of(&workload.partition(7, b"a\0b")), expected);
        assert_eq!(Workload::identity_of(b"short"), None);
        assert!(workload.shares(&workload.partition(8, b"")));
        let other = ["shop", "api"].map(str::to_owned);
        let other = Workload::new("b".to_owned(), other, 2, (Netns::Own, 7), 2);
        assert!(!other.shares(&workload.partition(7, b"")) && !other.shares(b"short"));
    }
}
