//! A bare relay in the client's pod, where a sidecar would be, addressed by the client itself: it reads and writes, and
//! nothing else.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::place::{Place, loopback};
use crate::cgroup::Cgroup;
use crate::locate;
use crate::node::Workload;
use crate::process::Process;

/// The port at which it listens.
const PORT: u16 = 15999;

/// A running relay.
#[derive(Debug)]
pub(super) struct Relay {
    _process: Process,
    cgroup: Cgroup,
}

impl Relay {
    /// Starts it before this client.
    pub(super) fn before(client: &Workload, origin: SocketAddr) -> Result<Self> {
        let (cgroup, pod) = (Cgroup::new()?, client.pod().context("a client without a pod")?);
        let place = Place { pod, cgroup: &cgroup };
        let addresses = [loopback(PORT), origin].map(|addr| addr.to_string().into());
        let mut process = place.start([locate::relay()?.into()].into_iter().chain(addresses).collect())?;
        place.listens(&mut process, loopback(PORT))?;
        Ok(Self { _process: process, cgroup })
    }

    pub(super) fn addr() -> SocketAddr {
        loopback(PORT)
    }

    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }
}
