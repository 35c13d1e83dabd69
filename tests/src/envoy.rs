//! A real Envoy: a proxy in front of one origin, or a sidecar as Istio wires it.
//!
//! Only its configuration and its words are made here; where it runs is left to the test.

use std::ffi::OsString;

use anyhow::Result;
use serde_json::{Value, json};

use crate::locate;
use crate::port;
use crate::scratch::Scratch;

/// The user whose connections a sidecar's rules leave alone, as Istio names it.
pub const SIDECAR_USER: u32 = 1337;

/// The port to which a sidecar's rules send every other connection, as Istio names it.
pub const SIDECAR_PORT: u16 = 15001;

/// The configuration of an Envoy with one worker.
#[derive(Debug)]
pub struct Envoy {
    scratch: Scratch,
    port: u16,
}

impl Envoy {
    /// A proxy on a free port of 127.0.0.1, for the origin on this port of 127.0.0.1.
    pub fn proxy(origin: u16) -> Result<Self> {
        let address = address(origin);
        let cluster = json!({
            "name": "origin", "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": {"cluster_name": "origin", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address}}]}
            ]},
        });
        Self::with(port::unused()?, cluster, &[])
    }

    /// A sidecar: it connects to whatever address a connection had before the rules sent it here.
    pub fn sidecar() -> Result<Self> {
        let cluster = json!({
            "name": "origin", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s",
        });
        let type_url = "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst";
        let filter = json!({
            "name": "envoy.filters.listener.original_dst", "typed_config": {"@type": type_url},
        });
        Self::with(SIDECAR_PORT, cluster, &[filter])
    }

    fn with(port: u16, cluster: Value, listener_filters: &[Value]) -> Result<Self> {
        let network = "type.googleapis.com/envoy.extensions.filters.network";
        let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
        let connection = json!({
            "@type": format!("{network}.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "all",
            "route_config": {"virtual_hosts": [
                {"name": "all", "domains": ["*"],
                 "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}]}
            ]},
            // Without this each answer says how long it took, and no two are the same.
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": router, "suppress_envoy_headers": true,
            }}],
        });
        let listener = json!({
            "name": "all", "address": address(port), "listener_filters": listener_filters,
            "filter_chains": [{"filters": [
                {"name": "envoy.filters.network.http_connection_manager", "typed_config": connection}
            ]}],
        });
        let scratch = Scratch::new()?;
        let all = json!({"static_resources": {"listeners": [listener], "clusters": [cluster]}});
        scratch.write("envoy.json", serde_json::to_vec(&all)?)?;
        Ok(Self { scratch, port })
    }

    /// The words that run it; nothing where Envoy is not installed.
    pub fn words(&self) -> Result<Option<Vec<OsString>>> {
        let Some(program) = locate::needed("envoy", locate::tool("envoy"))? else { return Ok(None) };
        // Hot restart would make the Envoys of one machine share memory.
        let words = ["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"];
        let mut all: Vec<OsString> =
            vec![program.into(), "-c".into(), self.scratch.file("envoy.json").into()];
        all.extend(words.iter().map(OsString::from));
        Ok(Some(all))
    }

    /// The port of 127.0.0.1 at which it listens.
    pub fn port(&self) -> u16 {
        self.port
    }
}

fn address(port: u16) -> Value {
    json!({"socket_address": {"address": "127.0.0.1", "port_value": port}})
}
