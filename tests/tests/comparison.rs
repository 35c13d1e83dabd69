//! Each mode of the comparison is what it says it is: where its requests go, and what is left of it afterwards.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use harness::comparison::plan::Mode;
use harness::comparison::site::{Site, components};
use harness::locate;
use harness::process::run;
use harness::wait::PATIENCE;

const SIZES: [(&str, usize); 2] = [("1k", 1 << 10), ("16k", 16 << 10)];

/// Worker threads of every proxy.
const THREADS: u32 = 2;

/// Makes a site, lets it prove what it is and checks what it says about itself; skips it where a program is missing.
fn is_what_it_says(mode: Mode, clients: u8) -> Result<()> {
    let site = match Site::new(mode, clients, &SIZES, THREADS)? {
        Ok(site) => site,
        Err(why) => return locate::skip(&why),
    };
    site.check()?;
    every_client_reaches_it(&site)?;
    counts_its_memory(&site)?;
    let cgroups = [site.client_cgroups(), site.proxy_cgroups(), vec![site.origin_cgroup()]].concat();
    let cgroups: Vec<PathBuf> = cgroups.into_iter().map(PathBuf::from).collect();
    ensure!(site.client_cgroups().len() == usize::from(clients), "{cgroups:?}");
    ensure!(cgroups.iter().all(|cgroup| cgroup.join("cpu.stat").exists()), "{cgroups:?}");
    drop(site);
    ensure!(!cgroups.iter().any(|cgroup| cgroup.exists()), "left over: {cgroups:?}");
    Ok(())
}

/// A program of each client gets every file whole, in the client's own cgroup.
fn every_client_reaches_it(site: &Site) -> Result<()> {
    for (n, cgroup) in site.client_cgroups().iter().enumerate() {
        for (name, bytes) in SIZES {
            let url = format!("http://{}{}/{name}?client={n}", site.addr(), site.prefix());
            let script = "grep ^0:: /proc/self/cgroup && curl -sf \"$0\" | wc -c";
            let output = run(&mut site.client(n, ["sh", "-c", script, &url])?, PATIENCE)?.succeeded()?.text();
            let own = cgroup.file_name().unwrap_or_default().to_string_lossy();
            let mut lines = output.lines();
            ensure!(lines.next().is_some_and(|line| line.ends_with(&*own)), "{output:?} not in {own}");
            ensure!(lines.next() == Some(bytes.to_string().as_str()), "{url}: {output:?}");
        }
    }
    Ok(())
}

/// Memory is there where something stands between, and is the kernel's as well where maps are.
fn counts_its_memory(site: &Site) -> Result<()> {
    let memory = site.memory()?;
    println!("{}: {memory:?}", site.mode().word());
    let has_proxy = site.mode() != Mode::Direct;
    // A bare relay takes less than a megabyte.
    ensure!(has_proxy == (memory.node_bytes > 100 << 10), "{memory:?}");
    ensure!(site.node().is_some() == (memory.map_bytes > 1 << 20), "{memory:?}");
    ensure!((site.mode() == Mode::Nginx) == (memory.file_bytes > 0), "{memory:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn direct_requests_meet_nothing() -> Result<()> {
    is_what_it_says(Mode::Direct, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_bare_relay_passes_everything_on() -> Result<()> {
    is_what_it_says(Mode::Relay, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn requests_go_through_the_sidecar() -> Result<()> {
    is_what_it_says(Mode::Sidecar, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn requests_of_each_client_go_through_a_sidecar_of_its_own() -> Result<()> {
    is_what_it_says(Mode::Sidecar, 3)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn requests_go_through_a_sidecar_on_both_sides() -> Result<()> {
    is_what_it_says(Mode::SidecarBoth, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_sidecar_s_cache_filter_answers() -> Result<()> {
    is_what_it_says(Mode::EnvoyCache, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn nginx_answers_from_its_store() -> Result<()> {
    is_what_it_says(Mode::Nginx, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn varnish_answers_from_its_store() -> Result<()> {
    is_what_it_says(Mode::Varnish, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn sidestep_forwards_what_nobody_may_store() -> Result<()> {
    is_what_it_says(Mode::SidestepMiss, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_daemon_answers_where_acceleration_is_off() -> Result<()> {
    is_what_it_says(Mode::SidestepOff, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_kernel_answers_where_it_may() -> Result<()> {
    is_what_it_says(Mode::Sidestep, 1)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_kernel_answers_every_client_of_a_node() -> Result<()> {
    is_what_it_says(Mode::Sidestep, 3)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn every_program_has_a_version() -> Result<()> {
    let all = components();
    println!("{all:?}");
    for (name, version) in &all {
        let has_number = version.starts_with(|c: char| c.is_ascii_digit());
        ensure!(has_number || version == "not installed", "{name}: {version}");
    }
    Ok(())
}
