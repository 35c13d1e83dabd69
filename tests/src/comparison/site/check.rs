//! Whether a site is the mode that it says it is, by what its responses, its proxies and its origin show.

use anyhow::{Context, Result, ensure};

use super::Site;
use crate::agent::Agent;
use crate::comparison::plan::Mode;
use crate::netns::Pod;
use crate::node::Workload;
use crate::response::Response;
use crate::sidecar;
use crate::wait::{self, PATIENCE};

impl Site {
    /// Asks from every client and checks that requests went the way of the mode.
    pub fn check(&self) -> Result<()> {
        for (n, client) in self.clients().iter().enumerate() {
            let checked = Probe::new(self, client, n).and_then(|probe| probe.check());
            checked.with_context(|| format!("{}, client {n}", self.mode().word()))?;
        }
        Ok(())
    }

    /// Asks once, and checks that there is a right answer, from wherever.
    pub fn answers(&self) -> Result<()> {
        let client = self.clients().first().context("a site without clients")?;
        Probe::new(self, client, 0)?.get().map(drop)
    }
}

/// A client of a site, and the target that it alone asks for.
struct Probe<'a> {
    site: &'a Site,
    agent: Agent,
    pod: &'a Pod,
    target: String,
    bytes: u64,
}

impl<'a> Probe<'a> {
    fn new(site: &'a Site, client: &'a Workload, n: usize) -> Result<Self> {
        let smallest = site.sizes.iter().min_by_key(|(_, bytes)| *bytes);
        let (name, bytes) = smallest.context("an origin without files")?;
        Ok(Self {
            site,
            agent: client.agent()?,
            pod: client.pod().context("a client without a pod")?,
            target: format!("{}/{name}?check={n}", site.prefix()),
            bytes: *bytes as u64,
        })
    }

    fn check(&self) -> Result<()> {
        match self.site.mode() {
            Mode::Direct | Mode::Relay => self.direct(),
            Mode::Sidecar | Mode::SidecarBoth | Mode::EnvoyCache => self.sidecar(),
            Mode::Nginx => self.stored(|_| true),
            Mode::Varnish => self.stored(|response| response.field("x-varnish").is_some()),
            Mode::SidestepMiss => self.never_stored(),
            Mode::SidestepOff => self.stored(|response| response.is_hit() && !response.is_by_kernel()),
            Mode::Sidestep => self.by_kernel(),
        }
    }

    /// One GET on a connection of its own.
    fn get(&self) -> Result<Response> {
        let response = self.agent.get(self.site.addr(), &self.target)?.expect(200)?;
        ensure!(response.length() == self.bytes, "{response:?}");
        Ok(response)
    }

    /// One GET, and how many requests the origin had because of it.
    fn forwarded(&self) -> Result<(Response, u64)> {
        let before = self.site.origin_requests()?;
        let response = self.get()?;
        Ok((response, self.site.origin_requests()? - before))
    }

    /// Two GETs both reach the origin; returns the second response.
    fn reaches_origin(&self) -> Result<Response> {
        let ((_, first), (response, second)) = (self.forwarded()?, self.forwarded()?);
        ensure!((first, second) == (1, 1), "{first}, {second} requests reached the origin: {response:?}");
        Ok(response)
    }

    /// Once a GET has reached the origin, the next ones do not; every such response is as it should be.
    fn stored(&self, is_right: impl Fn(&Response) -> bool) -> Result<()> {
        let (response, first) = self.forwarded()?;
        ensure!(first == 1, "{first} requests reached the origin at first: {response:?}");
        // A cache may say that it has stored something after it has answered.
        let hit = wait::poll(PATIENCE, "an answer from the store", || match self.forwarded() {
            Ok((_, 1)) => None,
            other => Some(other),
        })??;
        ensure!(hit.1 == 0 && is_right(&hit.0), "{} requests for {:?}", hit.1, hit.0);
        let (again, forwarded) = self.forwarded()?;
        ensure!(forwarded == 0 && is_right(&again), "{forwarded} requests for {again:?}");
        Ok(())
    }

    fn direct(&self) -> Result<()> {
        let response = self.reaches_origin()?;
        let is_nginx = response.field("server").is_some_and(|server| server.starts_with("nginx"));
        let touched = ["via", "age", "cache-status"].iter().any(|name| response.field(name).is_some());
        ensure!(is_nginx && !touched, "not from the origin itself: {response:?}");
        Ok(())
    }

    /// Every response goes through the Envoy of the client, and each that is forwarded through that of the origin.
    fn sidecar(&self) -> Result<()> {
        let is_envoy = |response: &Response| response.field("server") == Some("envoy");
        let before = sidecar::answered(self.pod)?;
        let mode = self.site.mode();
        if mode == Mode::EnvoyCache {
            self.stored(is_envoy)?;
            ensure!(sidecar::answered(self.pod)? >= before + 3, "not every answer went through Envoy");
            return Ok(());
        }
        let inner = (mode == Mode::SidecarBoth).then(|| self.site.origin.pod());
        let inner_before = inner.map(sidecar::answered).transpose()?;
        let response = self.reaches_origin()?;
        let counted = sidecar::answered(self.pod)? - before;
        ensure!(is_envoy(&response) && counted == 2, "{counted} of 2 through Envoy: {response:?}");
        if let (Some(pod), Some(inner_before)) = (inner, inner_before) {
            let counted = sidecar::answered(pod)? - inner_before;
            ensure!(counted == 2, "{counted} of 2 through the origin's Envoy: {response:?}");
        }
        Ok(())
    }

    fn never_stored(&self) -> Result<()> {
        let response = self.reaches_origin()?;
        ensure!(response.passed_through_cache() && !response.is_hit(), "{response:?}");
        Ok(())
    }

    /// Once it is hot, the kernel answers.
    fn by_kernel(&self) -> Result<()> {
        let (response, first) = self.forwarded()?;
        ensure!(first == 1 && response.passed_through_cache(), "{first} requests at first: {response:?}");
        let answer = wait::poll(PATIENCE, "an answer of the kernel", || match self.get() {
            Ok(response) if !response.is_by_kernel() => None,
            other => Some(other),
        });
        answer.with_context(|| self.says())??;
        let before = self.site.origin_requests()?;
        let again = self.get()?;
        ensure!(again.is_by_kernel() && self.site.origin_requests()? == before, "{again:?}");
        Ok(())
    }

    /// What the daemon says about kernel hits.
    fn says(&self) -> String {
        let status = self.site.node().map(|node| node.status().map(|all| all["acceleration"].clone()));
        format!("{status:?}")
    }
}
