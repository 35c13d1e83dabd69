//! Where a program of a site runs: a pod, and the cgroup to which its work is counted.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;
use crate::netns::Pod;
use crate::process::Process;
use crate::wait;

/// A pod and a cgroup.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Whose network it is.
    pub(super) pod: &'a Pod,
    /// Whose work it is.
    pub(super) cgroup: &'a Cgroup,
}

impl Place<'_> {
    /// Starts a program here.
    pub(super) fn start(self, words: Vec<OsString>) -> Result<Process> {
        Process::of_words(self.cgroup.enter().into_iter().chain(self.pod.enter()).chain(words))
    }

    /// Waits until a program that was started here accepts connections.
    pub(super) fn listens(self, process: &mut Process, addr: SocketAddr) -> Result<()> {
        let accepts = || match self.pod.connect(addr).is_ok() {
            true => Some(true),
            false => (!process.running()).then_some(false),
        };
        let listens = wait::poll(wait::PATIENCE, &format!("a listener at {addr}"), accepts);
        let listens = listens.with_context(|| process.errors_so_far())?;
        listens.then_some(()).with_context(|| format!("it ended: {}", process.errors_so_far()))
    }
}

/// This port of 127.0.0.1.
pub(super) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
