//! How much memory whatever stands between the clients and the origin takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Memory of all proxies of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Proportional share of memory of all their processes, bytes.
    pub node_bytes: u64,
    /// Kernel memory of their maps, bytes; 0 where there are none.
    pub map_bytes: u64,
    /// What they store in files that are in memory, bytes, which no process's share holds; 0 but of nginx.
    pub file_bytes: u64,
}

impl Memory {
    /// Reads it: processes by cgroup, maps by the daemon that holds them, files by their folder.
    pub(super) fn read(cgroups: &[&Path], daemon: Option<i32>, folder: Option<&Path>) -> Result<Self> {
        let mut node_bytes = 0;
        for cgroup in cgroups {
            for pid in fs::read_to_string(cgroup.join("cgroup.procs"))?.lines() {
                // A process that has ended meanwhile has none.
                let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
                node_bytes += proportional_share(&rollup).with_context(|| format!("no Pss of {pid}"))?;
            }
        }
        let map_bytes = daemon.map(maps_of).transpose()?.unwrap_or_default();
        let file_bytes = folder.map(size_of).transpose()?.unwrap_or_default();
        Ok(Self { node_bytes, map_bytes, file_bytes })
    }
}

/// `Pss` of a `smaps_rollup`, in bytes.
fn proportional_share(rollup: &str) -> Option<u64> {
    let value = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(value.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// Kernel memory of the maps that a process holds, each counted once however many descriptors it has.
fn maps_of(pid: i32) -> Result<u64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))?.flatten() {
        // A descriptor may be closed meanwhile.
        maps.extend(fs::read_to_string(entry.path()).ok().as_deref().and_then(map));
    }
    Ok(maps.values().sum())
}

/// Number and bytes of the map of a descriptor, if it is one of a map.
fn map(fdinfo: &str) -> Option<(u64, u64)> {
    let field = |name: &str| {
        let value = fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().parse().ok()
    };
    Some((field("map_id")?, field("memlock")?))
}

/// Bytes of all files below a folder.
fn size_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)?.flatten() {
        // What is evicted meanwhile has none.
        let Ok(about) = entry.metadata() else { continue };
        bytes += if about.is_dir() { size_of(&entry.path()).unwrap_or_default() } else { about.len() };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_pss_and_not_one_of_its_parts() {
        let rollup = "5579 [rollup]\nRss:   9000 kB\nPss:     700 kB\nPss_Anon:  600 kB\n";
        assert_eq!(proportional_share(rollup), Some(700 << 10));
        assert_eq!(proportional_share("Pss_Anon:  600 kB\n"), None);
    }

    #[test]
    fn only_a_map_has_a_number_and_bytes() {
        let fdinfo = "pos:\t0\nmap_type:\t1\nmemlock:\t11096\nmap_id:\t39\nfrozen:\t0\n";
        assert_eq!(map(fdinfo), Some((39, 11_096)));
        assert_eq!(map("pos:\t0\nprog_id:\t7\nmemlock:\t4096\n"), None);
    }
}
