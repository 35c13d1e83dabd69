//! The load: what is asked for, by existing generators, from inside a pod.
//!
//! `keys` makes the list of targets; `closed` asks as fast as answers come (wrk), `open` at a constant rate (oha).

pub mod closed;
pub mod keys;
pub mod open;

use std::ffi::OsStr;
use std::process::Command;

use super::site::Site;

/// A command in one of a site's client pods.
fn within<S: AsRef<OsStr>>(site: &Site, pod: u8, words: impl IntoIterator<Item = S>) -> Command {
    site.client(pod, words)
}
