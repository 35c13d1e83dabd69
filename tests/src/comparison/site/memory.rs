//! How much memory whatever stands between the clients and the origin takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;

/// Memory of all proxies of a site.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Proportional share (PSS) of memory of all their processes, bytes, without what they map of `map_bytes`.
    pub node_bytes: u64,
    /// Resident memory (RSS) of all their processes, bytes, without the same: what many share is counted with each.
    pub resident_bytes: u64,
    /// Kernel memory of their maps, bytes; 0 where there are none.
    pub map_bytes: u64,
    /// What they store in files that are in memory, bytes, which no process's share holds; 0 but of nginx.
    pub file_bytes: u64,
}

impl Memory {
    /// Reads it: processes by cgroup, maps by the daemon that holds them, files by their folder.
    pub(super) fn read(cgroups: &[&Path], daemon: Option<i32>, folder: Option<&Path>) -> Result<Self> {
        let (mut node_bytes, mut resident_bytes) = (0, 0);
        for cgroup in cgroups {
            for pid in fs::read_to_string(cgroup.join("cgroup.procs"))?.lines() {
                // A process that has ended meanwhile has none.
                let Ok(mappings) = fs::read_to_string(format!("/proc/{pid}/smaps")) else { continue };
                let (share, resident) = shares(&mappings);
                node_bytes += share;
                resident_bytes += resident;
            }
        }
        let map_bytes = daemon.map(maps_of).transpose()?.unwrap_or_default();
        let file_bytes = folder.map(size_of).transpose()?.unwrap_or_default();
        Ok(Self { node_bytes, resident_bytes, map_bytes, file_bytes })
    }
}

/// `Pss` and `Rss` of all mappings of a `smaps` but those of BPF maps, in bytes.
fn shares(smaps: &str) -> (u64, u64) {
    let (mut share, mut resident, mut is_map) = (0, 0, false);
    for line in smaps.lines() {
        let bytes = |name: &str| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?.trim().strip_suffix(" kB")?;
            Some(value.parse::<u64>().ok()? << 10)
        };
        // The line that begins a mapping begins with its addresses: 7f12a0000000-7f12a0021000 rw-s …
        if line.split(' ').next().is_some_and(|word| word.contains('-')) {
            is_map = line.ends_with("bpf-map");
        } else if !is_map {
            share += bytes("Pss").unwrap_or_default();
            resident += bytes("Rss").unwrap_or_default();
        }
    }
    (share, resident)
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
    fn the_share_is_pss_and_not_one_of_its_parts_nor_that_of_a_map_of_the_kernel() {
        let smaps = "55c0-55d0 r-xp 00000000 fe:00 4242 /usr/bin/a\nRss:   9000 kB\nPss:     700 kB\nPss_Anon:  600 kB\n\
                     7f00-7f10 rw-s 00000000 00:0f 1065 anon_inode:bpf-map\nRss:   50 kB\nPss:     50 kB\n\
                     7f20-7f30 rw-p 00000000 00:00 0\nRss:   2 kB\nPss:     1 kB\n";
        assert_eq!(shares(smaps), (701 << 10, 9002 << 10));
    }

    #[test]
    fn only_a_map_has_a_number_and_bytes() {
        let fdinfo = "pos:\t0\nmap_type:\t1\nmemlock:\t11096\nmap_id:\t39\nfrozen:\t0\n";
        assert_eq!(map(fdinfo), Some((39, 11_096)));
        assert_eq!(map("pos:\t0\nprog_id:\t7\nmemlock:\t4096\n"), None);
    }
}
