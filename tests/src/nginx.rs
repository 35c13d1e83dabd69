//! A real nginx as an origin, with a configuration, ports and files of its own; and one that is a proxy.
//!
//! [`words`] runs any other, wherever a test wants it.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::netns::NodeNet;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{locate, port, wait};

/// One process for all: what dies with it is all of it.
pub const ONE_PROCESS: &str = "master_process off; worker_processes 1;";

/// The words that run an nginx in this folder, with these lines of its configuration and these of its `http` block.
pub fn words(program: &Path, scratch: &Scratch, main: &str, http: &str) -> Result<Vec<OsString>> {
    let dir = scratch.path().display();
    let config = format!(
        "daemon off; {main} pid {dir}/pid; error_log {dir}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         keepalive_requests 100000000;\n\
         {http} }}\n"
    );
    let config = scratch.write("nginx.conf", config)?;
    let log = scratch.file("error.log");
    Ok(vec![program.into(), "-e".into(), log.into(), "-c".into(), config.into()])
}

/// Puts `files` (name, content) into a folder of their own and returns its path.
pub fn root(scratch: &Scratch, files: &[(&str, Vec<u8>)]) -> Result<PathBuf> {
    let root = scratch.file("root");
    fs::create_dir(&root)?;
    for (name, content) in files {
        fs::write(root.join(name), content)?;
    }
    Ok(root)
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    scratch: Scratch,
    port: u16,
    _process: Process,
}

impl Nginx {
    /// Serves `files` (name, content), fresh for an hour; nothing where nginx is not installed.
    pub fn serving(files: &[(&str, Vec<u8>)]) -> Result<Option<Self>> {
        Self::start(files, true, None)
    }

    /// The same without an access log, for measurements.
    ///
    /// Below `/u/` nothing says how long it is fresh; below `/n/` nothing may be stored.
    pub fn measured(files: &[(&str, Vec<u8>)]) -> Result<Option<Self>> {
        Self::start(files, false, None)
    }

    /// The same in a network namespace.
    pub fn measured_in(net: &NodeNet, files: &[(&str, Vec<u8>)]) -> Result<Option<Self>> {
        Self::start(files, false, Some(net))
    }

    fn start(files: &[(&str, Vec<u8>)], logs: bool, net: Option<&NodeNet>) -> Result<Option<Self>> {
        let Some(program) = locate::needed("nginx", locate::on_path("nginx"))? else { return Ok(None) };
        let (scratch, port) = (Scratch::new()?, port::unused()?);
        let root = root(&scratch, files)?;
        let root = root.display();
        let log = scratch.file("access.log");
        let log = if logs { log.display().to_string() } else { "off".to_owned() };
        let http = format!(
            "access_log {log};\n\
             server {{ listen 127.0.0.1:{port} backlog=1024; root {root}; expires 1h;\n\
             location /u/ {{ alias {root}/; expires off; }}\n\
             location /n/ {{ alias {root}/; expires off; add_header Cache-Control no-store; }} }}"
        );
        let mut all = net.map(NodeNet::enter).unwrap_or_default();
        all.extend(words(&program, &scratch, ONE_PROCESS, &http)?);
        let process = Process::of_words(all)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listens = || match net {
            Some(net) => net.connect(addr).is_ok(),
            None => TcpStream::connect(addr).is_ok(),
        };
        wait::wait_until(wait::PATIENCE, "nginx listens", listens)
            .with_context(|| process.errors_so_far())?;
        Ok(Some(Self { scratch, port, _process: process }))
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many requests its access log holds.
    pub fn count(&self) -> Result<u64> {
        let log = fs::read_to_string(self.scratch.file("access.log"))?;
        Ok(log.lines().filter(|line| line.contains("HTTP/1")).count() as u64)
    }
}

/// The configuration of an nginx that passes everything on to an origin, over connections that it keeps.
#[derive(Debug)]
pub struct Proxy {
    scratch: Scratch,
    port: u16,
    origin: u16,
}

impl Proxy {
    /// A proxy on a free port of 127.0.0.1, for the origin on this port of 127.0.0.1.
    pub fn to(origin: u16) -> Result<Self> {
        Ok(Self { scratch: Scratch::new()?, port: port::unused()?, origin })
    }

    /// The words that run it; nothing where nginx is not installed.
    pub fn words(&self) -> Result<Option<Vec<OsString>>> {
        let Some(program) = locate::needed("nginx", locate::on_path("nginx"))? else { return Ok(None) };
        let Self { port, origin, .. } = self;
        let http = format!(
            "access_log off;\n\
             upstream origin {{ server 127.0.0.1:{origin}; keepalive 16; keepalive_requests 100000000; }}\n\
             server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ proxy_pass http://origin;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }}"
        );
        words(&program, &self.scratch, ONE_PROCESS, &http).map(Some)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}
