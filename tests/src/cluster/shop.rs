//! A cluster with a namespace, Services in it, an origin, and a node's daemon that has the rights it would have.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::backend::Backend;
use super::kubelet::{Kubelet, PodSpec, RunningPod};
use super::manifest;
use super::server::{ApiServer, NODE};
use crate::agent::Agent;
use crate::exec::STATE_DIR;
use crate::origin::{Answer, Origin};
use crate::process::{self, Process};
use crate::scratch::Scratch;
use crate::{admin, locate, wait};

/// The namespace in which all of it is.
pub const SHOP: &str = "/api/v1/namespaces/shop";
/// Its Services.
pub const SERVICES: &str = "/api/v1/namespaces/shop/services";
/// The address of the Service `shop/web`, at which the origin is.
pub const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 7);
/// The address of the Service `shop/raw`, which is not known to speak HTTP, and at which nobody is.
pub const RAW: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 8);
/// The address of the Service `shop/api`, at which nobody is before a test puts a [`Backend`] there.
pub const API: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 9);
/// Its port.
const HTTP: u16 = 80;
/// The slices of its Services, as the API server that is tested with has them.
pub(super) const SLICES: &str = "/apis/discovery.k8s.io/v1beta1/namespaces/shop/endpointslices";
/// What is promised from a change of the cluster to its effect.
pub const PROMISED: Duration = Duration::from_secs(2);
/// The line of configuration by which what changes is stored again at once.
pub const AT_ONCE: &str = "storingPause: 0s";
/// The label.
const LABEL: &str = "sidestep.dev/cache";

/// A cluster with a namespace `shop`, Services in it, and a node's daemon.
#[derive(Debug)]
pub struct Cluster {
    /// The daemon.
    pub node: Process,
    scratch: Scratch,
    /// The kubelet of its node.
    pub kubelet: Kubelet,
    /// What answers at [`WEB`]: all of it fresh for ten minutes.
    pub origin: Origin,
    /// The API server.
    pub api: ApiServer,
}

impl Cluster {
    /// Nothing where there is no API server.
    pub fn start() -> Result<Option<Self>> {
        Self::configured("")
    }

    /// The same, with further lines of the node's configuration.
    pub fn configured(lines: &str) -> Result<Option<Self>> {
        Self::set_up(lines, &[AT_ONCE])
    }

    /// The same with its namespace labelled, and with further lines of what the node is told about its cluster.
    pub fn enabled(told: &[&str]) -> Result<Option<Self>> {
        let Some(cluster) = Self::told(told)? else { return Ok(None) };
        cluster.label(SHOP, "enabled")?;
        Ok(Some(cluster))
    }

    /// Nothing labelled, with further lines of what the node is told about its cluster.
    pub fn told(lines: &[&str]) -> Result<Option<Self>> {
        Self::set_up("", lines)
    }

    fn set_up(lines: &str, of_cluster: &[&str]) -> Result<Option<Self>> {
        let Some(api) = ApiServer::start()? else { return Ok(None) };
        let kubelet = Kubelet::new()?;
        api.create("/api/v1/namespaces", &namespace("shop"))?;
        for service in [service("web", WEB, "http"), service("raw", RAW, "tcp"), service("api", API, "http")]
        {
            api.create(SERVICES, &service)?;
        }
        let origin =
            Origin::http_on(kubelet.net().listen_as(WEB, 80)?, |_| Answer::ok("fresh").max_age(600))?;
        let scratch = Scratch::new()?;
        // With the rights that are given in a cluster, and no others.
        api.apply(&manifest::plain_before_surge()?, &[])?;
        let of_cluster: String = of_cluster.iter().map(|line| format!("  {line}\n")).collect();
        let lines = format!("{lines}kubernetes:\n{of_cluster}");
        let node = start_node(&lines, &scratch, &kubelet, api.service_account("sidestep", "sidestep")?)?;
        let cluster = Self { node, scratch, kubelet, origin, api };
        cluster.status()?;
        Ok(Some(cluster))
    }

    /// What its admin socket says at `/v1/status`.
    pub fn status(&self) -> Result<Value> {
        let socket = self.scratch.file("admin.sock");
        wait::poll(wait::PATIENCE, "an admin socket", || admin::get(&socket, "/v1/status").ok())
    }

    /// What `sidestep check` finds, with the rights that the daemon has.
    pub fn check(&self) -> Result<Value> {
        let mut words = manifest::confined()?.into_iter();
        let mut command = Command::new(words.next().context("no command")?);
        command.args(words).arg(locate::sidestep()?).args(["check", "-o", "json", "--config"]);
        command.arg(self.scratch.file("node.yaml")).env(STATE_DIR, self.scratch.file("state"));
        let output = process::run_with(&mut command, "", wait::PATIENCE)?;
        serde_json::from_slice(&output.stdout).with_context(|| output.errors())
    }

    /// The state of a workload, and why it is in it.
    pub fn state(&self, name: &str) -> Result<Option<(String, String)>> {
        let status = self.status()?;
        let workloads = status["workloads"].as_array().context("no workloads")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found = workloads.iter().find(|one| one["name"] == name);
        Ok(found.map(|one| (text(&one["state"]), text(&one["reason"]))))
    }

    /// Waits until a workload is in this state (`None`: unknown); returns how long that took.
    pub fn becomes(&self, name: &str, state: Option<&str>) -> Result<Duration> {
        let begun = Instant::now();
        wait::wait_until(wait::PATIENCE, &format!("{name} {state:?}: {:?}", self.state(name)?), || {
            self.state(name).is_ok_and(|found| found.as_ref().map(|(state, _)| state.as_str()) == state)
        })?;
        Ok(begun.elapsed())
    }

    /// Labels an object; an empty value takes the label away.
    pub fn label(&self, path: &str, value: &str) -> Result<()> {
        let value = if value.is_empty() { Value::Null } else { json!(value) };
        let patch = json!({ "metadata": { "labels": { LABEL: value } } });
        self.api.send("PATCH", path, Some(&patch)).map(drop)
    }

    /// Puts an origin of many minds at [`API`].
    pub fn backend(&self) -> Result<Backend> {
        Backend::on(self.kubelet.net().listen_as(API, HTTP)?)
    }

    /// Says that these pods, which are nowhere, are behind the Service `shop/api`: the name and the revision of each.
    pub fn behind_api(&self, pods: &[(&str, &str)]) -> Result<()> {
        let at = |number| Ipv4Addr::new(10, 244, 200, number);
        let pods: Vec<_> =
            (1..).zip(pods).map(|(number, (name, revision))| (*name, *revision, at(number))).collect();
        self.behind("api", &pods)
    }

    /// Says that these pods are behind a Service: the name, the revision and the address of each.
    pub fn behind(&self, service: &str, pods: &[(&str, &str, Ipv4Addr)]) -> Result<()> {
        let mut endpoints = Vec::new();
        for (name, revision, address) in pods {
            let path = format!("{SHOP}/pods/{name}");
            let pod = match self.api.send("GET", &path, None) {
                Ok(pod) => pod,
                Err(_) => self.api.create(&format!("{SHOP}/pods"), &elsewhere(name, revision))?,
            };
            endpoints.push(json!({
                "addresses": [address],
                "conditions": { "ready": true },
                "targetRef": { "kind": "Pod", "namespace": "shop", "name": name, "uid": pod["metadata"]["uid"] },
            }));
        }
        let name = format!("{service}-1");
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1beta1",
            "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": service } },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "http", "port": 8080 }],
        });
        let path = format!("{SLICES}/{name}");
        match self.api.send("GET", &path, None) {
            Ok(_) => self.api.send("PATCH", &path, Some(&slice)).map(drop),
            Err(_) => self.api.create(SLICES, &slice).map(drop),
        }
    }

    /// Makes a Service `shop/direct` whose name stands for the addresses of its pods.
    pub fn headless(&self) -> Result<()> {
        let mut service = service("direct", API, "http");
        service["spec"]["clusterIP"] = json!("None");
        self.api.create(SERVICES, &service).map(drop)
    }

    /// Runs a pod with a service account of its own.
    pub fn run_as(&self, name: &str, service_account: &str) -> Result<RunningPod> {
        let spec = PodSpec { service_account: service_account.to_owned(), ..PodSpec::new("shop", name) };
        let pod = self.kubelet.run(&self.api, &spec)?;
        self.becomes(&pod.name(), Some("enrolled"))?;
        Ok(pod)
    }

    /// Runs a pod with one container and no label in the namespace.
    pub fn run(&self, name: &str) -> Result<RunningPod> {
        self.kubelet.run(&self.api, &PodSpec::new("shop", name))
    }
}

fn start_node(lines: &str, scratch: &Scratch, kubelet: &Kubelet, kubeconfig: PathBuf) -> Result<Process> {
    let yaml = format!(
        "admin: {}\n{lines}  nodeName: {NODE}\n  kubeconfig: {}\n  cgroupRoot: {}\n",
        scratch.file("admin.sock").display(),
        kubeconfig.display(),
        kubelet.cgroup_root().display(),
    );
    let config = scratch.write("node.yaml", yaml)?;
    let mut words = manifest::confined()?.into_iter();
    let mut command = Command::new(words.next().context("no command")?);
    command
        .args(words)
        .arg(locate::sidestep()?)
        .arg("node")
        .arg("--config")
        .arg(config)
        .env(STATE_DIR, scratch.file("state"));
    Process::start(&mut command)
}

/// A pod of another node.
fn elsewhere(name: &str, revision: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "pod-template-hash": revision } },
        "spec": { "nodeName": "node-2", "containers": [{ "name": "app", "image": "none" }] },
    })
}

fn namespace(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } })
}

fn service(name: &str, address: Ipv4Addr, port: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "namespace": "shop", "name": name },
        "spec": { "clusterIP": address, "ports": [{ "name": port, "port": 80 }] },
    })
}

/// The port of HTTP at a Service's address.
pub fn http(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((address, HTTP))
}

/// Whether a new connection of the agent to [`WEB`] goes through the cache.
pub fn is_served(agent: &Agent) -> Result<bool> {
    Ok(agent.get(SocketAddr::from((WEB, 80)), "/a")?.expect(200)?.passed_through_cache())
}
