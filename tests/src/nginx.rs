//! A real nginx as an origin, with a configuration, ports and files of its own; and one that is a proxy.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Context, Result};

use crate::netns::NodeNet;
use crate::process::Process;
use crate::scratch::Scratch;
use crate::{locate, port, wait};

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
        let root = scratch.file("root");
        fs::create_dir(&root)?;
        for (name, content) in files {
            fs::write(root.join(name), content)?;
        }
        let dir = scratch.path().display();
        let log = if logs { format!("{dir}/access.log") } else { "off".to_owned() };
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log {log}; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
             fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
             keepalive_requests 100000000;\n\
             server {{ listen 127.0.0.1:{port} backlog=1024; root {dir}/root; expires 1h;\n\
             location /u/ {{ alias {dir}/root/; expires off; }}\n\
             location /n/ {{ alias {dir}/root/; expires off; add_header Cache-Control no-store; }} }} }}\n"
        );
        let config = scratch.write("nginx.conf", config)?;
        let mut words = net.map(NodeNet::enter).unwrap_or_default();
        words.extend([
            program.into(),
            "-e".into(),
            scratch.file("error.log").into(),
            "-c".into(),
            config.into(),
        ]);
        let process = Process::of_words(words)?;
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
}

impl Proxy {
    /// A proxy on a free port of 127.0.0.1, for the origin on this port of 127.0.0.1.
    pub fn to(origin: u16) -> Result<Self> {
        let (scratch, port) = (Scratch::new()?, port::unused()?);
        let dir = scratch.path().display();
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
             fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
             keepalive_requests 100000000;\n\
             upstream origin {{ server 127.0.0.1:{origin}; keepalive 16; keepalive_requests 100000000; }}\n\
             server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ proxy_pass http://origin;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}\n"
        );
        scratch.write("nginx.conf", config)?;
        Ok(Self { scratch, port })
    }

    /// The words that run it; nothing where nginx is not installed.
    pub fn words(&self) -> Result<Option<Vec<OsString>>> {
        let Some(program) = locate::needed("nginx", locate::on_path("nginx"))? else { return Ok(None) };
        let (log, config) = (self.scratch.file("error.log"), self.scratch.file("nginx.conf"));
        Ok(Some(vec![program.into(), "-e".into(), log.into(), "-c".into(), config.into()]))
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}
