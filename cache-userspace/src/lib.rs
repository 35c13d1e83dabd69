//! Sidestep: an HTTP cache on every Kubernetes node that pods never notice.
//!
//! The path of a request, and the folder of each step:
//!
//! ```text
//! connect() ─ kernel ─▶ accept ─▶ downstream ─▶ request.rs: route ─▶ policy + store ─▶ respond
//!                         │                                            │ miss
//!                         └─ not HTTP/1: relayed                       └─▶ forward ─▶ store ─▶ respond
//! ```
//!
//! Control reaches the path through snapshots and handles: `redirect` (kernel programs), `admin`, `cli`; `app` starts
//! what runs. Invariants: a fault of ours before a request went forward becomes a pass-through; nothing from the
//! network reaches a panic; every wait, queue and buffer has a bound; `policy` and `http1` do no input or output.

pub mod accept;
pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod downstream;
pub mod forward;
pub mod http1;
pub mod identify;
pub mod kube;
pub mod policy;
pub mod redirect;
pub mod request;
pub mod respond;
pub mod route;
pub mod store;
pub mod stream;
