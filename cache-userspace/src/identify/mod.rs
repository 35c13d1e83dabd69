//! Who is asking: the workload that a connection came from. Which cgroup and which namespace that is, is found out
//! when the workload is enrolled; a connection knows it by the listener that accepted it.

pub mod sidecar;

use std::sync::atomic::{AtomicBool, Ordering};

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
        let unproven = None;
        Self { name, namespace, service_account, id, netns, netns_cookie, epoch, unproven, has_ended }
    }

    /// Ends it: its connections end with their next answer.
    pub fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

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

    /// Namespace, service account and cookie of the network namespace that a partition was made of.
    pub fn identity_of(partition: &[u8]) -> Option<(String, String, u64)> {
        let (names, cookie) = partition.split_last_chunk()?;
        let mut names = names.split(|byte| *byte == 0);
        let mut name = || Some(String::from_utf8_lossy(names.next()?).into_owned());
        Some((name()?, name()?, u64::from_be_bytes(*cookie)))
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
        assert_eq!(Workload::identity_of(&workload.partition()), expected);
        assert_eq!(Workload::identity_of(b"short"), None);
    }
}
