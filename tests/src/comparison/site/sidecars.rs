//! Envoy in the pods of a site, as Istio wires it: a user of its own, and rules of iptables that send it every other
//! connection of the pod; before each client, and before the origin where asked.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};

use super::place::{Place, loopback};
use crate::cgroup::Cgroup;
use crate::envoy::{ADMIN_PORT, ANSWERED, Envoy};
use crate::netns::Pod;
use crate::node::Workload;
use crate::process::Process;
use crate::{admin, sidecar};

/// The running Envoys of a site.
#[derive(Debug)]
pub(super) struct Sidecars {
    running: Vec<(Process, Envoy)>,
}

impl Sidecars {
    /// Starts one for each client in `outer`, which caches what is of an origin where one is given, and one for the
    /// pod of `origin`, in its cgroup.
    pub(super) fn start(
        clients: &[Workload],
        outer: &Cgroup,
        origin: Option<(&Pod, &Cgroup)>,
        caching: Option<SocketAddr>,
        threads: u32,
    ) -> Result<Self> {
        let mut places = Vec::new();
        for client in clients {
            let pod = client.pod().context("a client without a pod")?;
            let envoy = Envoy::sidecar()?.threads(threads).admin();
            let envoy = match caching {
                Some(origin) => envoy.caching(origin),
                None => envoy,
            };
            places.push((Place { pod, cgroup: outer }, envoy));
        }
        if let Some((pod, cgroup)) = origin {
            places.push((Place { pod, cgroup }, Envoy::inbound()?.threads(threads).admin()));
        }
        let mut all = Self { running: Vec::new() };
        let mut started = Vec::new();
        // All of them first: they take half a second each to be ready.
        for (place, envoy) in places {
            let words = envoy.words_as_sidecar()?.context("envoy is not installed")?;
            all.running.push((place.start(words)?, envoy));
            started.push(place);
        }
        for (n, ((process, envoy), place)) in all.running.iter_mut().zip(started).enumerate() {
            place.listens(process, loopback(envoy.port()))?;
            if n < clients.len() {
                sidecar::spare_loopback(place.pod.enter())?;
                sidecar::redirect_outbound(place.pod.enter())?;
            } else {
                sidecar::redirect_inbound(place.pod.enter())?;
            }
        }
        Ok(all)
    }
}

/// How many requests the Envoy of a pod has answered with success.
pub(super) fn answered(pod: &Pod) -> Result<u64> {
    let text = admin::text(pod.connect(loopback(ADMIN_PORT))?, &format!("/stats?filter={ANSWERED}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(ANSWERED)?.strip_prefix(": "));
    ensure!(value.is_some(), "no {ANSWERED}: {text}");
    Ok(value.unwrap_or_default().trim().parse()?)
}
