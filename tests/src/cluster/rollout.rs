//! A real Deployment behind a Service, whose pods run on the node: the controllers are real, kubelet and kube-proxy are
//! steps that the test takes.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::backend::Backend;
use super::controllers::Controllers;
use super::kubelet::{PodSpec, RunningPod};
use super::server::NODE;
use super::shop::{Cluster, SERVICES, SHOP, SLICES};
use crate::process::{self, Process};
use crate::wait;

/// The address of its Service, `shop/front`.
pub const FRONT: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 10);
/// Where its pods listen.
const PORT: u16 = 8080;
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/shop/deployments";
/// How long controllers may take to roll something out on a busy machine.
const ROLLING: Duration = Duration::from_secs(60);

/// The Deployment `shop/front`; each of its pods answers as the version that its image names.
#[derive(Debug)]
pub struct Front<'a> {
    cluster: &'a Cluster,
    controllers: Controllers,
    /// By uid. The origin of a pod is dropped first: who is connected to it sees an end.
    running: HashMap<String, (Backend, RunningPod)>,
    routed: BTreeSet<SocketAddr>,
}

impl<'a> Front<'a> {
    /// Makes it, with one pod of version 1 to come; nothing where there are no controllers.
    pub fn start(cluster: &'a Cluster) -> Result<Option<Self>> {
        let Some(controllers) = Controllers::start(&cluster.api)? else { return Ok(None) };
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
        cluster.api.create("/api/v1/nodes", &node)?;
        cluster.kubelet.net().forward()?;
        cluster.api.create(SERVICES, &service())?;
        cluster.api.create(DEPLOYMENTS, &deployment())?;
        let mut front = Self { cluster, controllers, running: HashMap::new(), routed: BTreeSet::new() };
        front.rolled_out(|| Ok(()))?;
        Ok(Some(front))
    }

    /// Runs a command of kubectl about it.
    pub fn kubectl(&self, words: &[&str]) -> Result<()> {
        self.cluster.api.kubectl(&[&["--namespace=shop"], words].concat()).map(drop)
    }

    /// Waits until what was asked for is rolled out and what was before is gone; does something else again and again
    /// meanwhile.
    pub fn rolled_out(&mut self, mut meanwhile: impl FnMut() -> Result<()>) -> Result<()> {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(self.cluster.api.admin());
        command.args(["--namespace=shop", "rollout", "status", "deployment/front"]);
        command.arg(format!("--timeout={}s", ROLLING.as_secs()));
        let mut status = Process::start(&mut command)?;
        while status.running() {
            self.step()?;
            meanwhile()?;
        }
        status.finish(wait::PATIENCE)?.succeeded().with_context(|| self.controllers.errors_so_far())?;
        wait::poll(ROLLING, "no pod that is to end, and all others behind the Service", || {
            let is_done = self.step().and_then(|left| meanwhile().map(|()| left == 0));
            is_done.map_or_else(|error| Some(Err(error)), |is_done| is_done.then_some(Ok(())))
        })?
    }

    /// How many of its pods run.
    pub fn pods(&self) -> usize {
        self.running.len()
    }

    /// Does what kubelet and kube-proxy would do now; returns how many pods are not yet what they are to be.
    fn step(&mut self) -> Result<usize> {
        let pods = self.cluster.api.send("GET", &format!("{SHOP}/pods?labelSelector=app%3Dfront"), None)?;
        let pods = pods["items"].as_array().context("no list of pods")?;
        for pod in pods {
            let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
            if !is_ending(pod) && !self.running.contains_key(uid) {
                let started = self.started(pod)?;
                self.running.insert(uid.to_owned(), started);
            }
        }
        self.route()?;
        let mut left = 0;
        for pod in pods.iter().filter(|pod| is_ending(pod)) {
            let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
            left += 1;
            // A pod serves until nobody is led to it any more.
            let is_routed = |(_, pod): &(Backend, RunningPod)| self.routed.contains(&at(pod));
            if self.running.get(uid).is_some_and(|running| !is_routed(running))
                && let Some((origin, pod)) = self.running.remove(uid)
            {
                drop(origin);
                pod.end(&self.cluster.api)?;
            }
        }
        let unrouted = self.running.values().filter(|(_, pod)| !self.routed.contains(&at(pod))).count();
        Ok(left + unrouted)
    }

    /// Runs the pod of an object that a ReplicaSet made.
    fn started(&self, object: &Value) -> Result<(Backend, RunningPod)> {
        let image = object["spec"]["containers"][0]["image"].as_str().context("no image")?;
        let version = image.strip_prefix("front:").context("not its image")?.parse()?;
        let pod = self.cluster.kubelet.take_up(&self.cluster.api, &PodSpec::of(object)?, object.clone())?;
        let backend = Backend::on(pod.net().listen_at(PORT)?)?;
        backend.becomes(version);
        Ok((backend, pod))
    }

    /// Leads connections to the Service's address to the pods that are ready by its slices, as kube-proxy does.
    fn route(&mut self) -> Result<()> {
        let selector = "labelSelector=kubernetes.io%2Fservice-name%3Dfront";
        let slices = self.cluster.api.send("GET", &format!("{SLICES}?{selector}"), None)?;
        let slices = slices["items"].as_array().context("no list of slices")?;
        let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
        let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
        let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str());
        let routed = addresses.map(|address| Ok(SocketAddr::new(address.parse()?, PORT)));
        let routed = routed.collect::<Result<BTreeSet<_>>>()?;
        if routed == self.routed {
            return Ok(());
        }
        let mut words = self.cluster.kubelet.net().enter().into_iter();
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).arg("iptables-restore");
        process::run_with(&mut command, &rules(&routed)?, wait::PATIENCE)?.succeeded()?;
        self.routed = routed;
        Ok(())
    }
}

/// The table of addresses that leads the Service's to each of these with the same probability.
fn rules(routed: &BTreeSet<SocketAddr>) -> Result<String> {
    let mut rules = "*nat\n".to_owned();
    for (n, to) in routed.iter().enumerate() {
        let share = 1.0 / (routed.len() - n) as f64;
        writeln!(
            rules,
            "-A PREROUTING -d {FRONT}/32 -p tcp --dport 80 -m statistic --mode random --probability {share} \
             -j DNAT --to-destination {to}"
        )?;
    }
    rules.push_str("COMMIT\n");
    Ok(rules)
}

fn at(pod: &RunningPod) -> SocketAddr {
    SocketAddr::new(pod.net().address(), PORT)
}

fn is_ending(pod: &Value) -> bool {
    pod["metadata"]["deletionTimestamp"].is_string()
}

fn service() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "front" },
        "spec": {
            "clusterIP": FRONT,
            "selector": { "app": "front" },
            "ports": [{ "name": "http", "port": 80, "targetPort": PORT }],
        },
    })
}

/// One replica of version 1, on this node: there is no scheduler.
fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": { "name": "front" },
        "spec": {
            "replicas": 1,
            "selector": { "matchLabels": { "app": "front" } },
            "template": {
                "metadata": { "labels": { "app": "front" } },
                "spec": { "nodeName": NODE, "containers": [{ "name": "app", "image": "front:1" }] },
            },
        },
    })
}
