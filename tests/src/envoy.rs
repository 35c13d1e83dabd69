//! A real Envoy: a proxy in front of one origin, or a sidecar as Istio wires it.
//!
//! Only its configuration and its words are made here; where it runs is left to the test.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;

use anyhow::Result;
use serde_json::{Value, json};

use crate::locate;
use crate::port;
use crate::scratch::Scratch;

/// The user whose connections a sidecar's rules leave alone, as Istio names it.
pub const SIDECAR_USER: u32 = 1337;

/// The port to which a sidecar's rules send every other connection, as Istio names it.
pub const SIDECAR_PORT: u16 = 15001;

/// The mark of the connections of a node's proxy that its rules leave alone, as Istio has it in ambient mode.
pub const NODE_PROXY_MARK: u32 = 0x539;

/// The port to which its rules send every connection that comes from outside, as Istio names it.
pub const INBOUND_PORT: u16 = 15006;

/// The port of 127.0.0.1 where an Envoy with [`Envoy::admin`] speaks about itself, as Istio names it.
pub const ADMIN_PORT: u16 = 15000;

/// The figure of [`Envoy::admin`] that counts every request it answered with success.
pub const ANSWERED: &str = "http.all.downstream_rq_2xx";

/// The configuration of an Envoy, with one worker unless told otherwise.
#[derive(Debug)]
pub struct Envoy {
    scratch: Scratch,
    listens: (&'static str, u16),
    threads: u32,
    cluster: Value,
    further_clusters: Vec<Value>,
    routes: Value,
    listener_filters: Vec<Value>,
    http_filters: Vec<Value>,
    admin: Option<u16>,
    tells_times: bool,
}

impl Envoy {
    /// A proxy on a free port of 127.0.0.1, for the origin on this port of 127.0.0.1.
    pub fn proxy(origin: u16) -> Result<Self> {
        Self::with(("127.0.0.1", port::unused()?), fixed("127.0.0.1", origin), &[])
    }

    /// A sidecar: it connects to whatever address a connection had before the rules sent it here.
    pub fn sidecar() -> Result<Self> {
        Self::redirected(("127.0.0.1", SIDECAR_PORT))
    }

    /// A sidecar before a server: the same for connections that come from outside.
    pub fn inbound() -> Result<Self> {
        Self::redirected(("0.0.0.0", INBOUND_PORT))
    }

    fn redirected(listens: (&'static str, u16)) -> Result<Self> {
        let cluster = json!({
            "name": "origin", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "5s",
            "circuit_breakers": unlimited(),
        });
        let filter = json!({
            "name": "envoy.filters.listener.original_dst",
            "typed_config": {"@type": of_extension("filters.listener.original_dst.v3.OriginalDst")},
        });
        Self::with(listens, cluster, &[filter])
    }

    fn with(listens: (&'static str, u16), cluster: Value, listener_filters: &[Value]) -> Result<Self> {
        Ok(Self {
            scratch: Scratch::new()?,
            listens,
            threads: 1,
            cluster,
            further_clusters: Vec::new(),
            routes: json!([{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}]),
            listener_filters: listener_filters.to_vec(),
            http_filters: Vec::new(),
            admin: None,
            tells_times: false,
        })
    }

    /// Works with so many threads.
    pub fn threads(self, threads: u32) -> Self {
        Self { threads, ..self }
    }

    /// Stores what may be stored, in memory and for good (it evicts nothing), and forwards to this origin whatever address a connection had.
    ///
    /// The cache filter forwards on connections of no client, so that a cluster has no address to take over. Istio does
    /// the same for every service it knows.
    pub fn caching(mut self, origin: SocketAddr) -> Self {
        self.cluster = fixed(&origin.ip().to_string(), origin.port());
        let store = of_extension("http.cache.simple_http_cache.v3.SimpleHttpCacheConfig");
        let cache = json!({"name": "envoy.filters.http.cache", "typed_config": {
            "@type": of_extension("filters.http.cache.v3.CacheConfig"), "typed_config": {"@type": store},
        }});
        self.http_filters.push(cache);
        self
    }

    /// Routes requests so, to origins by name, as a mesh would tell it to; `origin` is wherever a connection went.
    pub fn routing(mut self, routes: Value, origins: &[(&str, SocketAddr)]) -> Self {
        self.routes = routes;
        for (name, at) in origins {
            let mut cluster = fixed(&at.ip().to_string(), at.port());
            cluster["name"] = json!(name);
            cluster["load_assignment"]["cluster_name"] = json!(name);
            self.further_clusters.push(cluster);
        }
        self
    }

    /// Answers so many of a hundred requests itself, with this status.
    pub fn aborting(mut self, percent: u32, status: u16) -> Self {
        self.http_filters.push(json!({"name": "envoy.filters.http.fault", "typed_config": {
            "@type": of_extension("filters.http.fault.v3.HTTPFault"),
            "abort": {"http_status": status, "percentage": {"numerator": percent, "denominator": "HUNDRED"}},
        }}));
        self
    }

    /// Marks its own connections as a node's proxy does ([`NODE_PROXY_MARK`]), which needs root.
    pub fn marking(mut self) -> Self {
        for cluster in [&mut self.cluster].into_iter().chain(&mut self.further_clusters) {
            // SOL_SOCKET, SO_MARK.
            let mark =
                json!({"level": 1, "name": 36, "int_value": NODE_PROXY_MARK, "state": "STATE_PREBIND"});
            cluster["upstream_bind_config"] =
                json!({"source_address": {"address": "0.0.0.0", "port_value": 0}, "socket_options": [mark]});
        }
        self
    }

    /// Says of each answer how long its upstream took, as Istio's do: no two are the same.
    pub fn telling_times(self) -> Self {
        Self { tells_times: true, ..self }
    }

    /// Speaks about itself at [`ADMIN_PORT`] of 127.0.0.1.
    pub fn admin(self) -> Self {
        Self { admin: Some(ADMIN_PORT), ..self }
    }

    fn json(&self) -> Value {
        let router = json!({"name": "envoy.filters.http.router", "typed_config": {
            "@type": of_extension("filters.http.router.v3.Router"), "suppress_envoy_headers": !self.tells_times,
        }});
        let http_filters: Vec<&Value> = self.http_filters.iter().chain([&router]).collect();
        let connection = json!({
            "@type": of_extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "all",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": self.routes}]},
            "http_filters": http_filters,
        });
        let (ip, port) = self.listens;
        let listener = json!({
            "name": "all", "address": address(ip, port), "listener_filters": self.listener_filters,
            "filter_chains": [{"filters": [
                {"name": "envoy.filters.network.http_connection_manager", "typed_config": connection}
            ]}],
        });
        let clusters: Vec<&Value> = [&self.cluster].into_iter().chain(&self.further_clusters).collect();
        let mut all = json!({"static_resources": {"listeners": [listener], "clusters": clusters}});
        if let Some(port) = self.admin {
            all["admin"] = json!({"address": address("127.0.0.1", port)});
        }
        all
    }

    /// The words that run it; nothing where Envoy is not installed.
    pub fn words(&self) -> Result<Option<Vec<OsString>>> {
        let Some(program) = locate::needed("envoy", locate::tool("envoy"))? else { return Ok(None) };
        let config = self.scratch.write("envoy.json", serde_json::to_vec(&self.json())?)?;
        // Hot restart would make the Envoys of one machine share memory.
        let words = ["--disable-hot-restart", "--log-level", "warn", "--concurrency"];
        let mut all: Vec<OsString> = vec![program.into(), "-c".into(), config.into()];
        all.extend(words.iter().map(OsString::from));
        all.push(self.threads.to_string().into());
        Ok(Some(all))
    }

    /// The same as the user [`SIDECAR_USER`], whom this needs root to become.
    pub fn words_as_sidecar(&self) -> Result<Option<Vec<OsString>>> {
        let user = [format!("--reuid={SIDECAR_USER}"), format!("--regid={SIDECAR_USER}")];
        let setpriv = ["setpriv", &user[0], &user[1], "--clear-groups", "--"].map(OsString::from);
        Ok(self.words()?.map(|words| setpriv.into_iter().chain(words).collect()))
    }

    /// The port at which it listens.
    pub fn port(&self) -> u16 {
        self.listens.1
    }
}

fn of_extension(name: &str) -> String {
    format!("type.googleapis.com/envoy.extensions.{name}")
}

/// A cluster of one address.
fn fixed(ip: &str, port: u16) -> Value {
    json!({
        "name": "origin", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": unlimited(),
        "load_assignment": {"cluster_name": "origin", "endpoints": [
            {"lb_endpoints": [{"endpoint": {"address": address(ip, port)}}]}
        ]},
    })
}

/// As many connections and requests as come, as Istio has it: of itself Envoy answers 503 beyond 1024.
fn unlimited() -> Value {
    let names = ["max_connections", "max_pending_requests", "max_requests", "max_retries"];
    json!({"thresholds": [names.map(|name| (name, u32::MAX)).into_iter().collect::<BTreeMap<_, _>>()]})
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}
