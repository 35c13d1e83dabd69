//! Sidestep.

pub mod http1;
pub mod policy;
pub mod redirect;
pub mod store;
