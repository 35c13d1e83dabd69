//! What a process holds: what must be no more after something came and went than before.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use cache_common::redirect::Workload;

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Open descriptors of all kinds.
    pub descriptors: usize,
    /// Programs that are attached.
    pub links: usize,
    /// Network namespaces that are kept alive.
    pub namespaces: usize,
    /// Threads.
    pub threads: usize,
    /// Entries of the kernel's tables of workloads.
    pub entries: usize,
}

impl Held {
    /// By the daemon with this process id.
    pub fn by(pid: u32) -> Result<Self> {
        let process = Path::new("/proc").join(pid.to_string());
        let mut held = Self { threads: fs::read_dir(process.join("task"))?.count(), ..Self::default() };
        for entry in fs::read_dir(process.join("fd"))? {
            let entry = entry?;
            // Closed meanwhile.
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            held.descriptors += 1;
            held.links += usize::from(target.contains("bpf_link") || target.contains("bpf-link"));
            held.namespaces += usize::from(target.starts_with("net:["));
            if target.contains("bpf-map") {
                let info =
                    fs::read_to_string(process.join("fdinfo").join(entry.file_name())).unwrap_or_default();
                held.entries += entries(&info).unwrap_or(0);
            }
        }
        Ok(held)
    }
}

/// How many entries a map has that is one of the tables of workloads.
fn entries(info: &str) -> Result<usize> {
    let id = info.lines().find_map(|line| line.strip_prefix("map_id:")).context("no id")?;
    let map = MapData::from_id(id.trim().parse()?)?;
    Ok(match map.info()?.name_as_str() {
        Some("WORKLOADS") => {
            HashMap::<_, u64, Workload>::try_from(Map::HashMap(map))?.keys().filter_map(Result::ok).count()
        }
        Some("PENDING_BEGUN" | "PENDING_TAKEN") => {
            HashMap::<_, u64, u64>::try_from(Map::HashMap(map))?.keys().filter_map(Result::ok).count()
        }
        _ => 0,
    })
}

/// CPU time that a process has taken so far, seconds.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name")?;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    let ticks: f64 = ticks.collect::<Result<Vec<_>, _>>()?.iter().sum();
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("no clock")?;
    Ok(ticks / per_second as f64)
}
