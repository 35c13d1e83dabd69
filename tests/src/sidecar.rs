//! A network namespace with an nginx and, before every connection to it, an Envoy as Istio wires its sidecars: a user
//! of its own, and a rule of iptables that sends all other users' connections to it.
//!
//! All three are on one loopback device: a sidecar's path cannot be shorter.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};

use crate::envoy::{Envoy, SIDECAR_PORT, SIDECAR_USER};
use crate::netns::NodeNet;
use crate::nginx::Nginx;
use crate::process::{Process, call};
use crate::wait;

/// A running sidecar and the origin behind it.
#[derive(Debug)]
pub struct Sidecar {
    nginx: Nginx,
    _envoy: Process,
    _config: Envoy,
    net: NodeNet,
}

impl Sidecar {
    /// Starts both; nothing where nginx or Envoy is not installed.
    pub fn before(files: &[(&str, Vec<u8>)]) -> Result<Option<Self>> {
        let net = NodeNet::new()?;
        let Some(nginx) = Nginx::measured_in(&net, files)? else { return Ok(None) };
        let config = Envoy::sidecar()?;
        let Some(envoy) = config.words()? else { return Ok(None) };
        let mut words = net.enter();
        words.extend(["setpriv".into(), format!("--reuid={SIDECAR_USER}").into()]);
        words.extend([format!("--regid={SIDECAR_USER}").into(), "--clear-groups".into(), "--".into()]);
        words.extend(envoy);
        let envoy = Process::of_words(words)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, SIDECAR_PORT));
        wait::wait_until(wait::PATIENCE, "the sidecar listens", || net.connect(addr).is_ok())
            .with_context(|| envoy.errors_so_far())?;

        let mut rule = net.enter();
        let words = format!(
            "iptables -t nat -A OUTPUT -p tcp -m owner ! --uid-owner {SIDECAR_USER} \
             -j REDIRECT --to-ports {SIDECAR_PORT}"
        );
        rule.extend(words.split_whitespace().map(OsString::from));
        let program = rule.remove(0);
        call(&program.to_string_lossy(), rule, "")?;
        Ok(Some(Self { nginx, _envoy: envoy, _config: config, net }))
    }

    /// The words that, put before a command, run it as a program of the pod.
    pub fn enter(&self) -> Vec<OsString> {
        self.net.enter()
    }

    /// The origin's port on 127.0.0.1 of the namespace.
    pub fn port(&self) -> u16 {
        self.nginx.port()
    }
}
