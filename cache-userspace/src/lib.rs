//! Sidestep.

pub mod admin;
pub mod cli;
pub mod config;
pub mod http1;
pub mod policy;
pub mod redirect;
pub mod store;
