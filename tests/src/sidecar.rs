//! A network namespace with an nginx and, before every connection to it, an Envoy as Istio wires its sidecars: a user
//! of its own, and a rule of iptables that sends all other users' connections to it.
//!
//! All three are on one loopback device: a sidecar's path cannot be shorter.

use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result, ensure};

use crate::admin;
use crate::envoy::{ADMIN_PORT, ANSWERED, Envoy, INBOUND_PORT, NODE_PROXY_MARK, SIDECAR_PORT, SIDECAR_USER};
use crate::netns::{NodeNet, Pod};
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
        let Some(envoy) = config.words_as_sidecar()? else { return Ok(None) };
        let envoy = Process::of_words(net.enter().into_iter().chain(envoy))?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, SIDECAR_PORT));
        wait::wait_until(wait::PATIENCE, "the sidecar listens", || net.connect(addr).is_ok())
            .with_context(|| envoy.errors_so_far())?;

        redirect_outbound(net.enter())?;
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

/// Sends every connection that is made where these words enter to the sidecar there, but the sidecar's own.
pub fn redirect_outbound(enter: Vec<OsString>) -> Result<()> {
    let to = format!("REDIRECT --to-ports {SIDECAR_PORT}");
    nat(enter, &format!("-A OUTPUT -p tcp -m owner ! --uid-owner {SIDECAR_USER} -j {to}"))
}

/// Sends every connection that is made where these words enter to a node's proxy that listens there, but those that have its
/// mark.
pub fn redirect_unmarked(enter: Vec<OsString>) -> Result<()> {
    let to = format!("REDIRECT --to-ports {SIDECAR_PORT}");
    nat(enter, &format!("-A OUTPUT -p tcp -m mark ! --mark {NODE_PROXY_MARK:#x}/0xfff -j {to}"))
}

/// Leaves connections to 127.0.0.1 alone where these words enter, if it is said before the others are sent elsewhere.
pub fn spare_loopback(enter: Vec<OsString>) -> Result<()> {
    nat(enter, "-A OUTPUT -p tcp -d 127.0.0.1/32 -j RETURN")
}

/// Sends every connection that comes in where these words enter to the sidecar there.
pub fn redirect_inbound(enter: Vec<OsString>) -> Result<()> {
    nat(enter, &format!("-A PREROUTING -p tcp -j REDIRECT --to-ports {INBOUND_PORT}"))
}

/// How many requests the Envoy of a pod has answered with success.
pub fn answered(pod: &Pod) -> Result<u64> {
    let text = admin::text(
        pod.connect(SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT)))?,
        &format!("/stats?filter={ANSWERED}"),
    )?;
    let value = text.lines().find_map(|line| line.strip_prefix(ANSWERED)?.strip_prefix(": "));
    ensure!(value.is_some(), "no {ANSWERED}: {text}");
    Ok(value.unwrap_or_default().trim().parse()?)
}

fn nat(mut enter: Vec<OsString>, rule: &str) -> Result<()> {
    enter.extend(["iptables", "-t", "nat"].into_iter().chain(rule.split(' ')).map(OsString::from));
    let program = enter.remove(0);
    call(&program.to_string_lossy(), enter, "").map(drop)
}
