//! What the cluster says: which pods of this node are to be served, and which addresses are HTTP services.
//!
//! `watch` gets objects from the API server, `index` makes a snapshot of them (pure), `place` finds a pod's cgroup and
//! network namespace on this node, `report` tells the cluster what became of pods, `check` whether all that can work. Enrolling is left to `cli::node`, deciding about requests to `route`.

pub mod cache_policy;
pub mod check;
pub mod index;
pub mod objects;
pub mod place;
pub mod report;
pub mod watch;
