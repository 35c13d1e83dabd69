//! What is measured: the ways to reach the origin, and the loads, one factor at a time from a base.

use serde::{Deserialize, Serialize};

/// A way in which a pod's requests reach the origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing between them.
    #[default]
    Direct,
    /// A program that reads and writes, and nothing else.
    Relay,
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
pub const MODES: [(Mode, &str, &str); 10] = [
    (Mode::Direct, "direct", "direct"),
    (Mode::Relay, "relay", "a bare relay, which reads and writes only"),
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
    /// Keys that are asked for again and again: fewer where they would take more than 64 MB.
    pub keys: usize,
    /// Requests in a hundred that ask for what is cached; the others are for what nobody has asked for before.
    pub hits: u32,
    /// Whether each request has a connection of its own.
    pub is_new_connection: bool,
    /// Whether the application encrypts what it sends (TLS).
    pub is_encrypted: bool,
}

/// The base from which one factor at a time is changed.
pub const BASE: Load = Load {
    bytes: 1 << 10,
    connections: 16,
    keys: 1000,
    hits: 90,
    is_new_connection: false,
    is_encrypted: false,
};

/// One load, by a word that names it in the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Case {
    /// Such as `base`, `hits-99`, `size-16k`, `connections-1`, `relayed`.
    pub id: String,
    /// As a table says it, such as `1 KB, 16 connections, 99 % hits`.
    pub name: String,
    /// What is asked for, and how.
    pub load: Load,
    /// Rounds in turn with the other modes.
    pub rounds: u32,
    /// Whether idle cores go to sleep in it, as they do where a machine is left as it is.
    #[serde(default)]
    pub is_asleep: bool,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Every factor; at most an hour.
    Full,
    /// What the targets need; a few minutes.
    Quick,
}

impl Profile {
    /// Its word in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Quick => "quick",
        }
    }

    /// How long a closed and an open loop are measured in a round, seconds.
    pub fn seconds(self) -> (u64, u64) {
        match self {
            Self::Full => (1, 2),
            Self::Quick => (1, 1),
        }
    }

    /// Numbers of pods for which memory is measured.
    pub fn pods(self) -> &'static [u8] {
        match self {
            Self::Full => &[1, 10, 50, 100],
            Self::Quick => &[1, 10],
        }
    }

    /// The cases, one factor at a time from [`BASE`].
    pub fn cases(self) -> Vec<Case> {
        let hits = |hits| Load { hits, ..BASE };
        let one = |hits| Load { hits, connections: 1, ..BASE };
        let size = |bytes| Load { bytes, ..BASE };
        let connections = |connections| Load { connections, ..BASE };
        let (base, many, few) = if self == Self::Full { (5, 5, 3) } else { (0, 3, 0) };
        let cases = [
            ("base", BASE, base),
            ("hits-100", hits(100), many),
            ("one-hit", one(100), many),
            ("one-miss", one(0), many),
            ("hits-0", hits(0), few),
            ("hits-50", hits(50), few),
            ("hits-99", hits(99), few),
            ("size-16k", size(16 << 10), few),
            ("size-256k", size(256 << 10), few),
            ("size-1m", size(1 << 20), few),
            ("connections-1", connections(1), few),
            ("connections-128", connections(128), few),
            ("new-connection", Load { is_new_connection: true, ..BASE }, few),
            ("relayed", Load { is_encrypted: true, hits: 100, ..BASE }, few),
            ("one-hit-asleep", one(100), few),
            ("one-miss-asleep", one(0), few),
            ("hits-100-asleep", hits(100), few),
        ];
        let case = |(id, load, rounds): (&str, Load, u32)| {
            let is_asleep = id.ends_with("-asleep");
            let name = name(load) + if is_asleep { ", idle cores asleep" } else { "" };
            Case { id: id.to_owned(), name, load, rounds, is_asleep }
        };
        cases.into_iter().filter(|(.., rounds)| *rounds > 0).map(case).collect()
    }
}

/// What a table says of a load.
fn name(load: Load) -> String {
    let size = match load.bytes {
        bytes if bytes >= 1 << 20 => format!("{} MB", bytes >> 20),
        bytes => format!("{} KB", bytes >> 10),
    };
    let connections = match (load.connections, load.is_new_connection) {
        (1, false) => "1 connection".to_owned(),
        (n, false) => format!("{n} connections"),
        (n, true) => format!("{n} at once, a connection for each request"),
    };
    match load.is_encrypted {
        true => format!("{size}, {connections}, TLS"),
        false => format!("{size}, {connections}, {} % hits", load.hits),
    }
}

impl Load {
    /// The scheme of its targets.
    pub fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }

    /// Requests that are due in a second in its open loop: what the slowest mode can do without a queue.
    pub fn rate(&self) -> f64 {
        match self.bytes {
            bytes if bytes >= 1 << 20 => 100.0,
            bytes if bytes >= 256 << 10 => 300.0,
            _ if self.is_new_connection => 500.0,
            _ => 1000.0,
        }
    }
}

impl Load {
    /// Whether a mode is measured with it: what is encrypted is nothing to caches, and is left to who relays it; a bare
    /// relay says what it costs to be asked at all, where nothing is kept.
    pub fn fits(&self, mode: Mode) -> bool {
        match mode {
            Mode::Direct | Mode::SidestepOff | Mode::Sidestep => true,
            Mode::Relay => self.hits == 0,
            _ => !self.is_encrypted,
        }
    }
}

impl Mode {
    /// Whether it keeps answers.
    pub fn caches(self) -> bool {
        !matches!(self, Self::Direct | Self::Relay | Self::Sidecar | Self::SidecarBoth | Self::SidestepMiss)
    }

    /// Whether what it takes grows with the number of pods.
    pub fn is_per_pod(self) -> bool {
        matches!(self, Self::Direct | Self::Sidecar | Self::Sidestep | Self::SidestepOff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_factor_at_a_time_is_changed() {
        for case in
            Profile::Full.cases().iter().filter(|case| !case.id.starts_with("one-") && case.id != "relayed")
        {
            let load = case.load;
            let changed = [
                load.bytes != BASE.bytes,
                load.connections != BASE.connections,
                load.hits != BASE.hits,
                load.is_new_connection != BASE.is_new_connection,
            ];
            let count = changed.iter().filter(|changed| **changed).count();
            assert_eq!(count, usize::from(case.id != "base"), "{}", case.id);
        }
    }

    #[test]
    fn every_case_has_a_word_of_its_own() {
        let mut ids: Vec<String> = Profile::Full.cases().into_iter().map(|case| case.id).collect();
        ids.sort();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
        assert!(Profile::Quick.cases().len() < count);
    }

    #[test]
    fn every_mode_is_found_by_its_word() {
        for (mode, word, _) in MODES {
            assert_eq!(Mode::of(word), Some(mode));
        }
        assert_eq!(Mode::of("squid"), None);
    }
}
