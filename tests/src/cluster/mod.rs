//! A cluster of one node: a real API server with etcd, and a kubelet that makes real cgroups and network namespaces but
//! runs no containers.

mod backend;
mod caller;
mod controllers;
mod kubelet;
pub mod manifest;
mod mesh;
mod proxy;
mod rollout;
mod server;
mod shop;

pub use backend::{Backend, Refusal};
pub use caller::Caller;
pub use kubelet::{Kubelet, PodSpec, RunningPod, TREE};
pub use mesh::PolicyKind;
pub use rollout::{FRONT, Front};
pub use server::{ApiServer, NODE};
pub use shop::{API, AT_ONCE, Cluster, PROMISED, RAW, SERVICES, SHOP, WEB, http, is_served};
