//! The harness of the tests that go through real kernel hooks.
//!
//! A test starts an [`origin::Origin`], puts a client behind the cache with [`exec::Exec`] or
//! [`node::Node`], and speaks through an [`agent::Agent`]: a process inside the cached cgroup that makes
//! each connection the test asks for and reports exactly what came back. What is right or wrong is left to
//! the files in `tests/`; nothing here knows HTTP caching.

pub mod acceleration;
pub mod admin;
pub mod agent;
pub mod bpf;
pub mod cgroup;
pub mod client;
pub mod cluster;
pub mod comparison;
pub mod date;
pub mod envoy;
pub mod exclusive;
pub mod exec;
pub mod forward_proxy;
pub mod hammer;
pub mod hex;
pub mod leaks;
pub mod load;
pub mod locate;
pub mod manners;
pub mod netns;
pub mod nginx;
pub mod node;
pub mod order;
pub mod origin;
pub mod pattern;
pub mod port;
pub mod process;
pub mod replay;
pub mod response;
pub mod scratch;
pub mod shell;
pub mod sidecar;
pub mod steady;
pub mod summary;
pub mod toolchain;
pub mod wait;
pub mod wire;
mod words;
