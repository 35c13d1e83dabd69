//! Envoy in the pods of a site, as Istio wires it: a user of its own, and rules of iptables that send it every other
//! connection of the pod; before each client, and before the origin where asked.

use std::net::SocketAddr;

use anyhow::{Context, Result};

use super::place::{Place, loopback};
use crate::cgroup::Cgroup;
use crate::envoy::Envoy;
use crate::netns::Pod;
use crate::node::Workload;
use crate::process::Process;
use crate::sidecar;

/// How many start at once: none of a hundred at once would be ready while one can be waited for.
const STARTING_MAX: usize = 4;

/// The running Envoys of a site.
#[derive(Debug)]
pub(super) struct Sidecars {
    running: Vec<(Process, Envoy)>,
    outer: Cgroup,
    inner: Option<Cgroup>,
}

impl Sidecars {
    /// Starts one before each client.
    pub(super) fn before(clients: &[Workload], threads: u32) -> Result<Self> {
        Self::start(clients, threads, |envoy| envoy)
    }

    /// Starts one before each client that caches what is this origin's.
    pub(super) fn caching(clients: &[Workload], origin: SocketAddr, threads: u32) -> Result<Self> {
        Self::start(clients, threads, |envoy| envoy.caching(origin))
    }

    /// Starts one before each client, and one before the origin in this pod.
    pub(super) fn before_both(clients: &[Workload], origin: &Pod, threads: u32) -> Result<Self> {
        let mut all = Self::before(clients, threads)?;
        let (cgroup, envoy) = (all.inner.insert(Cgroup::new()?), Envoy::inbound()?.threads(threads).admin());
        let place = Place { pod: origin, cgroup };
        let (mut process, port) = (launch(place, &envoy)?, envoy.port());
        place.listens(&mut process, loopback(port))?;
        sidecar::redirect_inbound(origin.enter())?;
        all.running.push((process, envoy));
        Ok(all)
    }

    fn start(clients: &[Workload], threads: u32, shape: impl Fn(Envoy) -> Envoy) -> Result<Self> {
        let mut all = Self { running: Vec::new(), outer: Cgroup::new()?, inner: None };
        let pods = clients.iter().map(|client| client.pod().context("a client without a pod"));
        let pods: Vec<&Pod> = pods.collect::<Result<_>>()?;
        let places: Vec<Place<'_>> = pods.iter().map(|pod| Place { pod, cgroup: &all.outer }).collect();
        for places in places.chunks(STARTING_MAX) {
            let mut starting = Vec::new();
            for place in places {
                let envoy = shape(Envoy::sidecar()?.threads(threads).admin());
                starting.push((launch(*place, &envoy)?, envoy));
            }
            for (place, (process, envoy)) in places.iter().zip(&mut starting) {
                place.listens(process, loopback(envoy.port()))?;
                sidecar::spare_loopback(place.pod.enter())?;
                sidecar::redirect_outbound(place.pod.enter())?;
            }
            all.running.extend(starting);
        }
        Ok(all)
    }

    /// Those of the clients' Envoys and of the origin's.
    pub(super) fn cgroups(&self) -> Vec<&Cgroup> {
        [&self.outer].into_iter().chain(&self.inner).collect()
    }
}

fn launch(place: Place<'_>, envoy: &Envoy) -> Result<Process> {
    place.start(envoy.words_as_sidecar()?.context("envoy is not installed")?)
}
