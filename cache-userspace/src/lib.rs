//! Sidestep.

pub mod http1;
pub mod policy;
pub mod store;
