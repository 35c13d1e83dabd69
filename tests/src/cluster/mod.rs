//! A cluster of one node: a real API server with etcd, and a kubelet that makes real cgroups and network namespaces but
//! runs no containers.

mod kubelet;
mod proxy;
mod server;
mod shop;

pub use kubelet::{Kubelet, PodSpec, RunningPod, TREE};
pub use server::{ApiServer, NODE};
pub use shop::{Cluster, RAW, SERVICES, SHOP, WEB, is_served};
