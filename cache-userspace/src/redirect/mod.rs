//! The user side of the kernel programs: loading and attaching them, writing their maps, where they may be attached,
//! and what is wrong where not.

pub mod acceleration;
pub mod btf;
pub mod bypass;
pub mod cgroup;
pub mod enrolled;
pub mod faults;
pub mod heartbeat;
pub mod hit_maps;
pub mod hot;
pub mod kernel;
pub mod preflight;
pub mod prog_query;
pub mod reconcile;
pub mod resident;
pub mod selftest;
