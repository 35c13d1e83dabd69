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
mod relay;
mod sidecars;

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::plan::{Load, Mode};
use crate::cgroup::Cgroup;
use crate::locate;
use crate::netns::{NodeNet, Pod};
use crate::node::{Node, Workload};

pub use components::components;
pub use memory::Memory;

use caches::Cache;
use daemon::Daemon;
use origin::Origin;
use relay::Relay;
use sidecars::Sidecars;

/// The prefix of what nobody may store.
const NOT_STORABLE: &str = "/n";

/// A running mode; all of it is gone once it is dropped.
#[derive(Debug)]
pub struct Site {
    mode: Mode,
    // What runs ends before what it runs in.
    between: Between,
    clients: Vec<Workload>,
    origin: Origin,
    _net: NodeNet,
    sizes: Vec<(String, usize)>,
}

/// What stands between the clients and the origin.
#[derive(Debug)]
enum Between {
    Nothing,
    Relay(Relay),
    Sidecars(Sidecars),
    Cache(Cache),
    /// The daemon, which holds the clients as its workloads.
    Daemon(Box<Daemon>),
}

impl Between {
    /// Starts it; `cache` is the pod of a cache that clients address.
    fn start(
        mode: Mode,
        clients: &mut Vec<Workload>,
        cache: Pod,
        origin: &Origin,
        net: &NodeNet,
        threads: u32,
    ) -> Result<Self> {
        Ok(match mode {
            Mode::Direct => Self::Nothing,
            Mode::Relay => Self::Relay(Relay::before(clients.first().context("no client")?, origin.addr())?),
            Mode::Sidecar => Self::Sidecars(Sidecars::before(clients, threads)?),
            Mode::SidecarBoth => Self::Sidecars(Sidecars::before_both(clients, origin.pod(), threads)?),
            Mode::EnvoyCache => Self::Sidecars(Sidecars::caching(clients, origin.addr(), threads)?),
            Mode::Nginx => Self::Cache(Cache::nginx(cache, origin.addr(), threads)?),
            Mode::Varnish => Self::Cache(Cache::varnish(cache, origin.addr())?),
            Mode::SidestepMiss | Mode::SidestepOff | Mode::Sidestep => {
                Self::Daemon(Box::new(Daemon::start(mode, std::mem::take(clients), net, threads)?))
            }
        })
    }

    fn cgroups(&self) -> Vec<&Cgroup> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Relay(relay) => vec![relay.cgroup()],
            Self::Sidecars(sidecars) => sidecars.cgroups(),
            Self::Cache(cache) => vec![cache.cgroup()],
            Self::Daemon(daemon) => vec![daemon.cgroup()],
        }
    }
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
        let (origin, cache) = (Origin::start(pod()?, sizes)?, pod()?);
        let ports = [origin::PORT, origin::ENCRYPTED_PORT];
        let client = |(n, pod)| Workload::of_pod(&format!("client-{n}"), pod, &ports);
        let mut clients: Vec<Workload> = pods.enumerate().map(client).collect::<Result<_>>()?;
        let between = Between::start(mode, &mut clients, cache, &origin, &net, threads)?;
        let sizes = sizes.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        Ok(Ok(Self { mode, between, clients, origin, _net: net, sizes }))
    }

    /// Which mode it is.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What clients address: the origin, or the cache or relay where they must know of it.
    pub fn addr(&self) -> SocketAddr {
        match &self.between {
            Between::Cache(cache) => cache.addr(),
            Between::Relay(_) => Relay::addr(),
            _ => self.origin.addr(),
        }
    }

    /// The same, or the origin's address for what is encrypted.
    pub fn addr_of(&self, load: Load) -> SocketAddr {
        if load.is_encrypted { self.origin.encrypted_addr() } else { self.addr() }
    }

    /// What stands before the `/` and the name of each file in a target.
    pub fn prefix(&self) -> &'static str {
        if self.mode == Mode::SidestepMiss { NOT_STORABLE } else { "" }
    }

    /// The clients, in order.
    fn clients(&self) -> &[Workload] {
        self.node().map_or(&self.clients, Node::workloads)
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
        self.between.cgroups().into_iter().map(Cgroup::path).collect()
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
            Between::Daemon(daemon) => Some(daemon.node()),
            _ => None,
        }
    }

    /// Memory of all that stands between.
    pub fn memory(&self) -> Result<Memory> {
        let daemon = self.node().map(|node| node.process().pid());
        let folder = match &self.between {
            Between::Cache(cache) => cache.folder(),
            _ => None,
        };
        Memory::read(&self.proxy_cgroups(), daemon, folder)
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
