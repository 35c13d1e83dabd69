//! The load: what is asked for, by existing generators, from inside a pod.
//!
//! `keys` makes the list of targets; `closed` asks as fast as answers come (wrk), `open` at a constant rate (oha).

pub mod closed;
pub mod keys;
pub mod open;
