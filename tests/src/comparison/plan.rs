//! What is measured: the ways to reach the origin, and the loads, one factor at a time from a base.

use serde::{Deserialize, Serialize};

/// A way in which a pod's requests reach the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing between them.
    Direct,
    /// Envoy before the client, as Istio wires it.
    Sidecar,
    /// Envoy before the client and before the origin.
    SidecarBoth,
    /// Envoy before the client, with its cache filter.
    EnvoyCache,
    /// nginx as a cache that the client addresses itself.
    Nginx,
    /// Varnish as a cache that the client addresses itself.
    Varnish,
    /// Sidestep where nothing may be stored: every request is forwarded.
    SidestepMiss,
    /// Sidestep with `acceleration: off`: hits of the daemon.
    SidestepOff,
    /// Sidestep with `acceleration: auto`: hits inside the kernel.
    Sidestep,
}

/// Every mode with its word on the command line and its name in a table.
pub const MODES: [(Mode, &str, &str); 9] = [
    (Mode::Direct, "direct", "direct"),
    (Mode::Sidecar, "sidecar", "Envoy sidecar"),
    (Mode::SidecarBoth, "sidecar-both", "Envoy sidecars, both sides"),
    (Mode::EnvoyCache, "envoy-cache", "Envoy sidecar with its cache filter"),
    (Mode::Nginx, "nginx", "nginx cache, addressed explicitly"),
    (Mode::Varnish, "varnish", "Varnish, addressed explicitly"),
    (Mode::SidestepMiss, "sidestep-miss", "Sidestep, nothing storable"),
    (Mode::SidestepOff, "sidestep-off", "Sidestep, hits of the daemon"),
    (Mode::Sidestep, "sidestep", "Sidestep, hits inside the kernel"),
];

impl Mode {
    /// Its word on the command line.
    pub fn word(self) -> &'static str {
        MODES.iter().find(|(mode, ..)| *mode == self).map_or("", |(_, word, _)| word)
    }

    /// Its name in a table.
    pub fn name(self) -> &'static str {
        MODES.iter().find(|(mode, ..)| *mode == self).map_or("", |(.., name)| name)
    }

    /// The mode with this word.
    pub fn of(word: &str) -> Option<Self> {
        MODES.iter().find(|(_, known, _)| *known == word).map(|(mode, ..)| *mode)
    }
}

/// What a load is like.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Bytes of content.
    pub bytes: usize,
    /// Connections of each client.
    pub connections: u32,
    /// Requests in a hundred that ask for what is cached; the others are for what nobody has asked for before.
    pub hits: u32,
    /// Whether each request has a connection of its own.
    pub is_new_connection: bool,
    /// Pods that ask at once; 1 but where their number is the factor.
    pub pods: u32,
}

/// The base from which one factor at a time is changed.
pub const BASE: Load = Load { bytes: 1 << 10, connections: 16, hits: 90, is_new_connection: false, pods: 1 };

/// One load, by a word that names it in the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Such as `base`, `hits-99`, `size-16k`, `connections-1`, `pods-50`.
    pub id: String,
    /// As a table says it, such as `1 KB, 16 connections, 99 % hits`.
    pub name: String,
    /// What is asked for, and how.
    pub load: Load,
    /// Rounds in turn with the other modes.
    pub rounds: u32,
}
