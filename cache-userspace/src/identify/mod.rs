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
        let workload = Workload {
            name: "a".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "web".to_owned(),
            id: 1,
            netns: Netns::Own,
            netns_cookie: 7,
        };
        let expected = Some(("shop".to_owned(), "web".to_owned(), 7));
        assert_eq!(Workload::identity_of(&workload.partition()), expected);
        assert_eq!(Workload::identity_of(b"short"), None);
    }
}
