//! One way of reaching the origin, whole: a node of its own with the origin's pod, a cache's pod and the clients' pods.
//!
//! Origin, proxies and each client run in cgroups of their own, so that what each of them takes can be read apart.
//! What is asked, and what that costs, is left to the caller.

mod caches;
mod check;
mod components;
mod daemon;
mod memory;
mod origin;
mod place;
mod sidecars;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::plan::Mode;
use crate::cgroup::Cgroup;
use crate::locate;
use crate::netns::{NodeNet, Pod};
use crate::node::{Node, Workload};

pub use components::components;
pub use memory::Memory;

use caches::Cache;
use origin::Origin;
use sidecars::Sidecars;

/// The prefix of what nobody may store.
const NOT_STORABLE: &str = "/n";

/// A running mode; all of it is gone once it is dropped.
#[derive(Debug)]
pub struct Site {
    mode: Mode,
    // What runs ends before what it runs in.
    between: Between,
    proxies: Vec<Cgroup>,
    clients: Vec<Workload>,
    origin: Origin,
    _cache_pod: Option<Pod>,
    _net: NodeNet,
    sizes: Vec<(String, usize)>,
}

/// What stands between the clients and the origin.
#[derive(Debug)]
enum Between {
    Nothing,
    Sidecars {
        _running: Sidecars,
    },
    Cache(Cache),
    /// The daemon, which holds the clients as its workloads.
    Daemon(Box<Node>),
}

impl Site {
    /// Starts a mode with an origin of these files (name, bytes), so many clients, 1 to 100 of them, and so many worker
    /// threads of each proxy; the inner error says which program is not there, and the mode is to be skipped.
    pub fn new(
        mode: Mode,
        clients: u8,
        sizes: &[(&str, usize)],
        threads: u32,
    ) -> Result<Result<Self, String>> {
        if let Some(program) = missing(mode) {
            return Ok(Err(format!("{program} is not installed")));
        }
        let net = NodeNet::new()?;
        net.forward()?;
        let mut pods = net.pods(clients + 2)?.into_iter();
        let mut pod = || pods.next().context("too few pods");
        let origin = Origin::start(pod()?, sizes)?;
        let cache_pod = pod()?;
        let named = pods.enumerate().map(|(n, pod)| {
            let workload = Workload::of_pod(&format!("client-{n}"), pod, &[origin::PORT]);
            workload.with_context(|| format!("client {n}"))
        });
        let mut clients: Vec<Workload> = named.collect::<Result<_>>()?;
        let mut proxies = Vec::new();
        if mode != Mode::Direct {
            proxies.push(Cgroup::new()?);
        }
        if mode == Mode::SidecarBoth {
            proxies.push(Cgroup::new()?);
        }
        let between = match (mode, proxies.as_slice()) {
            (Mode::Sidecar | Mode::EnvoyCache | Mode::SidecarBoth, [outer, inner @ ..]) => {
                let caching = (mode == Mode::EnvoyCache).then(|| origin.addr());
                let inner = inner.first().map(|cgroup| (origin.pod(), cgroup));
                Between::Sidecars { _running: Sidecars::start(&clients, outer, inner, caching, threads)? }
            }
            (Mode::Nginx, [cgroup, ..]) => {
                Between::Cache(Cache::nginx(&cache_pod, cgroup, origin.addr(), threads)?)
            }
            (Mode::Varnish, [cgroup, ..]) => {
                Between::Cache(Cache::varnish(&cache_pod, cgroup, origin.addr())?)
            }
            (Mode::SidestepMiss | Mode::SidestepOff | Mode::Sidestep, [cgroup, ..]) => {
                let node = daemon::start(mode, std::mem::take(&mut clients), cgroup, &net, threads)?;
                Between::Daemon(Box::new(node))
            }
            _ => Between::Nothing,
        };
        let sizes = sizes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        Ok(Ok(Self {
            mode,
            between,
            proxies,
            clients,
            origin,
            _cache_pod: Some(cache_pod),
            _net: net,
            sizes,
        }))
    }

    /// Which mode it is.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What clients address: the origin, or the cache where they must know of it.
    pub fn addr(&self) -> SocketAddr {
        match &self.between {
            Between::Cache(cache) => cache.addr(),
            _ => self.origin.addr(),
        }
    }

    /// What stands before the name of each file in a target, without the `/` between.
    pub fn prefix(&self) -> &'static str {
        if self.mode == Mode::SidestepMiss { NOT_STORABLE } else { "" }
    }

    /// The clients, in order.
    fn clients(&self) -> &[Workload] {
        match &self.between {
            Between::Daemon(node) => node.workloads(),
            _ => &self.clients,
        }
    }

    /// A command of the `n`-th client, counted from 0, in its pod and its cgroup.
    pub fn client<S: AsRef<OsStr>>(&self, n: usize, words: impl IntoIterator<Item = S>) -> Result<Command> {
        Ok(self.clients().get(n).context("no such client")?.command(words))
    }

    /// The cgroup of each client.
    pub fn client_cgroups(&self) -> Vec<&Path> {
        self.clients().iter().map(|client| client.cgroup().path()).collect()
    }

    /// The cgroups of whatever stands between; none where nothing does.
    pub fn proxy_cgroups(&self) -> Vec<&Path> {
        self.proxies.iter().map(Cgroup::path).collect()
    }

    /// The cgroup of the origin.
    pub fn origin_cgroup(&self) -> &Path {
        self.origin.cgroup().path()
    }

    /// How many requests have reached the origin.
    pub fn origin_requests(&self) -> Result<u64> {
        self.origin.requests()
    }

    /// The daemon, in the modes that have one.
    pub fn node(&self) -> Option<&Node> {
        match &self.between {
            Between::Daemon(node) => Some(node),
            _ => None,
        }
    }

    /// Memory of all that stands between.
    pub fn memory(&self) -> Result<Memory> {
        let daemon = self.node().map(|node| node.process().pid());
        let store = match &self.between {
            Between::Cache(cache) => cache.folder(),
            _ => None,
        };
        Memory::read(&self.proxy_cgroups(), daemon, store)
    }
}

/// A program that the mode needs and that is not there.
fn missing(mode: Mode) -> Option<&'static str> {
    let has_sidecar = matches!(mode, Mode::Sidecar | Mode::SidecarBoth | Mode::EnvoyCache);
    let needed: [(&str, bool); 4] = [
        ("nginx", locate::on_path("nginx").is_some()),
        ("iptables", !has_sidecar || locate::on_path("iptables").is_some()),
        ("envoy", !has_sidecar || locate::tool("envoy").is_some()),
        ("varnishd", mode != Mode::Varnish || locate::on_path("varnishd").is_some()),
    ];
    needed.iter().find(|(_, is_there)| !is_there).map(|(name, _)| *name)
}
