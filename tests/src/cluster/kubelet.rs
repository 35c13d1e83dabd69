//! A kubelet that makes what the daemon looks at: a tree of cgroups in kubelet's form, a network namespace for each pod,
//! a process that holds it, and the pod's status.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::server::{ApiServer, NODE};
use crate::agent::Agent;
use crate::cgroup::{self, Cgroup};
use crate::envoy::Envoy;
use crate::netns::{NodeNet, Pod};
use crate::process::Process;
use crate::scratch::unique_name;
use crate::{locate, sidecar, wait};

/// The name of the tree of pods, as systemd's driver has it.
pub const TREE: &str = "kubepods.slice";

/// Which pod is to be made.
#[derive(Clone, Debug)]
pub struct PodSpec {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: Vec<(String, String)>,
    /// Its containers, the first of which is the application.
    pub containers: Vec<String>,
    /// Whether it shares the node's network.
    pub host_network: bool,
}

impl PodSpec {
    /// A pod with one container and no label.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            service_account: "default".to_owned(),
            labels: Vec::new(),
            containers: vec!["app".to_owned()],
            host_network: false,
        }
    }

    /// With a label.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With a further container.
    pub fn container(mut self, name: &str) -> Self {
        self.containers.push(name.to_owned());
        self
    }

    /// The pod that an object of the API server's wants.
    pub fn of(object: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let metadata = &object["metadata"];
        let namespace = text(&metadata["namespace"]).context("no namespace")?;
        let mut spec = Self::new(&namespace, &text(&metadata["name"]).context("no name")?);
        spec.labels = metadata["labels"]
            .as_object()
            .into_iter()
            .flatten()
            .filter_map(|(name, value)| Some((name.clone(), text(value)?)))
            .collect();
        let containers = object["spec"]["containers"].as_array().context("no containers")?;
        spec.containers = containers.iter().filter_map(|container| text(&container["name"])).collect();
        spec.service_account = text(&object["spec"]["serviceAccountName"]).unwrap_or(spec.service_account);
        spec.host_network = object["spec"]["hostNetwork"] == true;
        Ok(spec)
    }

    fn object(&self) -> Value {
        let labels: serde_json::Map<String, Value> =
            self.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let containers: Vec<Value> =
            self.containers.iter().map(|name| json!({ "name": name, "image": "none" })).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "namespace": self.namespace, "name": self.name, "labels": labels },
            "spec": {
                "nodeName": NODE,
                "hostNetwork": self.host_network,
                "serviceAccountName": self.service_account,
                "containers": containers,
            },
        })
    }

    /// The path of its kind in its namespace.
    fn kind_path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.namespace)
    }

    fn path(&self) -> String {
        format!("{}/{}", self.kind_path(), self.name)
    }
}

/// The kubelet of the node.
#[derive(Debug)]
pub struct Kubelet {
    // Dropped first: what is in it ends with it.
    root: Cgroup,
    net: NodeNet,
    next: Cell<u8>,
}

impl Kubelet {
    /// A node without pods; its tree of cgroups is below one of the test's own.
    pub fn new() -> Result<Self> {
        let root = Cgroup::at(&cgroup::own()?.join(unique_name()))?;
        std::fs::create_dir(root.path().join(TREE))?;
        std::fs::create_dir(root.path().join(TREE).join("kubepods-burstable.slice"))?;
        Ok(Self { root, net: NodeNet::new()?, next: Cell::new(1) })
    }

    /// Where its tree is.
    pub fn cgroup_root(&self) -> &Path {
        self.root.path()
    }

    /// The node's network, in which origins are.
    pub fn net(&self) -> &NodeNet {
        &self.net
    }

    /// Makes the pod's object, the pod, and says in its status that it runs.
    pub fn run(&self, api: &ApiServer, spec: &PodSpec) -> Result<RunningPod> {
        let object = api.create(&spec.kind_path(), &spec.object())?;
        self.take_up(api, spec, object)
    }

    /// Makes the pod that an object wants, and says in its status that it runs and is ready.
    pub fn take_up(&self, api: &ApiServer, spec: &PodSpec, mut object: Value) -> Result<RunningPod> {
        let uid = object["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        // Numbers of pods that are gone are used again, as addresses are.
        let number = self.next.get();
        self.next.set(if number == u8::MAX { 1 } else { number + 1 });
        let net = self.net.pod_numbered(number)?;
        let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        let cgroup = self.root.path().join(TREE).join("kubepods-burstable.slice").join(slice);
        std::fs::create_dir(&cgroup)?;
        let sandbox = cgroup.join(format!("cri-containerd-{}.scope", id(&uid, "sandbox")));
        std::fs::create_dir(&sandbox)?;
        let mut statuses = Vec::new();
        for name in &spec.containers {
            std::fs::create_dir(cgroup.join(format!("cri-containerd-{}.scope", id(&uid, name))))?;
            statuses.push(json!({
                "name": name, "image": "none", "imageID": "none", "ready": true, "restartCount": 0,
                "containerID": format!("containerd://{}", id(&uid, name)),
                "state": { "running": { "startedAt": "2026-01-01T00:00:00Z" } },
            }));
        }
        let mut words: Vec<OsString> = cgroup::enter(&sandbox);
        words.extend(net.enter());
        words.extend(["sleep".into(), "infinity".into()]);
        let pause = Process::start(&mut command(words))?;
        object["status"] = json!({
            "phase": "Running",
            "conditions": [{ "type": "Ready", "status": "True" }],
            "podIP": net.address(),
            "podIPs": [{ "ip": net.address() }, { "ip": net.address_v6() }],
            "containerStatuses": statuses,
        });
        api.send("PUT", &format!("{}/status", spec.path()), Some(&object))?;
        Ok(RunningPod { spec: spec.clone(), uid, cgroup, net, pause })
    }
}

/// A pod that runs.
#[derive(Debug)]
pub struct RunningPod {
    spec: PodSpec,
    uid: String,
    cgroup: PathBuf,
    net: Pod,
    pause: Process,
}

impl RunningPod {
    /// As listings name it.
    pub fn name(&self) -> String {
        format!("{}/{}", self.spec.namespace, self.spec.name)
    }

    /// Its network namespace.
    pub fn net(&self) -> &Pod {
        &self.net
    }

    /// A command that will run in one of its containers.
    pub fn command<S: AsRef<OsStr>>(&self, container: &str, words: impl IntoIterator<Item = S>) -> Command {
        let mut all = cgroup::enter(&self.container(container));
        all.extend(self.net.enter());
        all.extend(words.into_iter().map(|word| word.as_ref().to_owned()));
        command(all)
    }

    /// Starts an agent in one of its containers.
    pub fn agent(&self, container: &str) -> Result<Agent> {
        let probe = locate::probe()?;
        Agent::over(Process::start(&mut self.command(container, [probe.as_os_str(), OsStr::new("agent")]))?)
    }

    /// Runs an Envoy in one of its containers that takes every other connection of the pod, as Istio wires it; nothing
    /// where Envoy is not installed.
    pub fn sidecar(&self, container: &str) -> Result<Option<(Process, Envoy)>> {
        self.sidecar_like(container, Envoy::sidecar()?)
    }

    /// The same, with more in its configuration.
    pub fn sidecar_like(&self, container: &str, envoy: Envoy) -> Result<Option<(Process, Envoy)>> {
        let envoy = envoy.admin().telling_times();
        let Some(words) = envoy.words_as_sidecar()? else { return Ok(None) };
        let process = self.proxied(self.command(container, words), &envoy)?;
        sidecar::redirect_outbound(self.net.enter())?;
        Ok(Some((process, envoy)))
    }

    /// Runs an Envoy of the node that listens in the pod and takes every connection of it that has not its mark, as Istio
    /// wires ambient mode; nothing where Envoy is not installed.
    pub fn node_proxy(&self, envoy: Envoy) -> Result<Option<(Process, Envoy)>> {
        let envoy = envoy.admin().telling_times().marking();
        let Some(words) = envoy.words()? else { return Ok(None) };
        let process = self.proxied(command(self.net.enter().into_iter().chain(words).collect()), &envoy)?;
        sidecar::redirect_unmarked(self.net.enter())?;
        Ok(Some((process, envoy)))
    }

    fn proxied(&self, mut command: Command, envoy: &Envoy) -> Result<Process> {
        let mut process = Process::start(&mut command)?;
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, envoy.port()));
        wait::poll(wait::PATIENCE, "the pod's proxy listens", || {
            (self.net.connect(addr).is_ok() || !process.running()).then_some(())
        })?;
        ensure!(process.running(), "{}", process.errors_so_far());
        sidecar::spare_loopback(self.net.enter())?;
        Ok(process)
    }

    /// Makes the cgroup of a container of which the API server has not heard.
    pub fn add_container(&self, name: &str) -> Result<()> {
        Ok(std::fs::create_dir(self.container(name))?)
    }

    fn container(&self, name: &str) -> PathBuf {
        self.cgroup.join(format!("cri-containerd-{}.scope", id(&self.uid, name)))
    }

    /// Ends it: its processes, its cgroups, its object.
    pub fn end(mut self, api: &ApiServer) -> Result<()> {
        self.pause.kill()?;
        drop(Cgroup::adopt(&self.cgroup));
        let now = json!({ "gracePeriodSeconds": 0 });
        api.send("DELETE", &self.spec.path(), Some(&now)).map(drop)
    }
}

/// A container's id: 64 hexadecimal digits, as containerd gives them.
fn id(uid: &str, container: &str) -> String {
    let mut hash = std::hash::DefaultHasher::new();
    std::hash::Hash::hash(&(uid, container), &mut hash);
    let digits = format!("{:016x}", std::hash::Hasher::finish(&hash));
    digits.repeat(4)
}

fn command(words: Vec<OsString>) -> Command {
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    command
}
