//! Caches that a site's clients address themselves, in a pod of their own before the origin: nginx and Varnish.
//!
//! Each may store 512 MB in memory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::place::Place;
use crate::cgroup::Cgroup;
use crate::netns::Pod;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{locate, nginx};

/// The port at which a cache is asked.
const PORT: u16 = 8080;

/// A running cache.
#[derive(Debug)]
pub(super) struct Cache {
    _process: Process,
    addr: SocketAddr,
    folder: Option<PathBuf>,
    _scratch: Scratch,
}

impl Cache {
    /// Starts nginx, which stores in files that are in memory.
    pub(super) fn nginx(pod: &Pod, cgroup: &Cgroup, origin: SocketAddr, threads: u32) -> Result<Self> {
        let program = locate::on_path("nginx").context("nginx is not installed")?;
        let (scratch, addr) = (Scratch::in_memory()?, SocketAddr::from((pod.address(), PORT)));
        let folder = scratch.file("stored");
        // Only a master starts what evicts.
        let main = format!("user root; worker_processes {threads};");
        let http = format!(
            "access_log off; sendfile on; tcp_nodelay on;\n\
             proxy_cache_path {} levels=1:2 keys_zone=stored:64m max_size=512m inactive=1h use_temp_path=off;\n\
             upstream origin {{ server {origin}; keepalive 256; keepalive_requests 100000000; }}\n\
             server {{ listen {addr} backlog=4096; location / {{ proxy_pass http://origin;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_cache stored; proxy_cache_lock on; }} }}",
            folder.display()
        );
        let words = nginx::words(&program, &scratch, &main, &http)?;
        Self::start(Place { pod, cgroup }, words, addr, scratch, Some(folder))
    }

    /// Starts Varnish, which has a thread for each connection, however many.
    pub(super) fn varnish(pod: &Pod, cgroup: &Cgroup, origin: SocketAddr) -> Result<Self> {
        let program = locate::on_path("varnishd").context("varnishd is not installed")?;
        // Its log is a file that it maps: on a disk the disk would be measured.
        let (scratch, addr) = (Scratch::in_memory()?, SocketAddr::from((pod.address(), PORT)));
        let (listens, origin) = (addr.to_string(), origin.to_string());
        let words = ["-F", "-j", "none", "-a", &listens, "-b", &origin, "-s", "malloc,512m"];
        let mut all = vec![program.into()];
        all.extend(words.map(Into::into));
        all.extend(["-p", "thread_pools=1", "-n"].map(Into::into));
        all.push(scratch.file("varnish").into());
        Self::start(Place { pod, cgroup }, all, addr, scratch, None)
    }

    fn start(
        place: Place<'_>,
        words: Vec<std::ffi::OsString>,
        addr: SocketAddr,
        scratch: Scratch,
        folder: Option<PathBuf>,
    ) -> Result<Self> {
        let mut process = place.start(words)?;
        place.listens(&mut process, addr)?;
        Ok(Self { _process: process, addr, folder, _scratch: scratch })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The folder of what it stores, where that is files.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }
}
