//! The stages of the path together, from the accepted connection to the origin and back, without root and without
//! kernel hooks: [`sidestep::accept::sniff::serve`] between a simulated client and a simulated origin.
//!
//! One binary, one file a subject. What needs real hooks is left to the package `tests`, single rules of caching and
//! framing to the unit tests beside them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test states what it expects by unwrapping it")]

mod bounds;
mod collapse;
mod enrolled;
mod explain;
mod followers;
mod full_duplex;
mod garbage;
mod groups;
mod login;
mod no_vary_search;
mod path;
mod pool;
mod properties;
mod query;
mod random;
mod ranges;
mod refusals;
mod simulated;
mod sniff;
mod stale;
mod truncation;
mod validation;
