//! Sidestep in a site: its daemon in the node's network, every client a workload of it.

use anyhow::Result;

use crate::cgroup::Cgroup;
use crate::comparison::plan::Mode;
use crate::netns::NodeNet;
use crate::node::{Node, Workload};

/// Starts the daemon and waits until every client is enrolled.
pub(super) fn start(
    mode: Mode,
    clients: Vec<Workload>,
    cgroup: &Cgroup,
    net: &NodeNet,
    threads: u32,
) -> Result<Node> {
    let words = cgroup.enter().into_iter().chain(net.enter());
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    Node::configured_behind(&configuration(mode, threads), &words, clients)
}

/// As much of a store as the other caches have, and the mode's acceleration.
fn configuration(mode: Mode, _threads: u32) -> String {
    let acceleration = if mode == Mode::SidestepOff { "off" } else { "auto" };
    format!("storeBytes: 512MiB\nacceleration: {acceleration}\n")
}
