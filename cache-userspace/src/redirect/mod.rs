//! The user side of the kernel programs: where they may be attached, to which cgroups, and what is wrong where not.

pub mod cgroup;
pub mod preflight;
pub mod prog_query;
pub mod reconcile;
