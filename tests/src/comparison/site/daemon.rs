//! Sidestep in a site: its daemon in the node's network, every client a workload of it.

use anyhow::Result;

use crate::cgroup::Cgroup;
use crate::comparison::plan::Mode;
use crate::netns::NodeNet;
use crate::node::{Node, Workload};

/// A running daemon, with the clients of the site.
#[derive(Debug)]
pub(super) struct Daemon {
    node: Node,
    cgroup: Cgroup,
}

impl Daemon {
    /// Starts the daemon and waits until every client is enrolled.
    pub(super) fn start(mode: Mode, clients: Vec<Workload>, net: &NodeNet, threads: u32) -> Result<Self> {
        let cgroup = Cgroup::new()?;
        let words = cgroup.enter().into_iter().chain(net.enter());
        let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let node = Node::configured_behind(&configuration(mode, threads), &words, clients)?;
        Ok(Self { node, cgroup })
    }

    pub(super) fn node(&self) -> &Node {
        &self.node
    }

    pub(super) fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }
}

/// As much of a store as the other caches have, and the mode's acceleration.
fn configuration(mode: Mode, threads: u32) -> String {
    let acceleration = if mode == Mode::SidestepOff { "off" } else { "auto" };
    format!("storeBytes: 512MiB\nworkerThreads: {threads}\nacceleration: {acceleration}\n")
}
