//! A node that belongs to a cluster: which pods are served follows from labels, on a real API server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::agent::Agent;
use harness::cluster::{ApiServer, Kubelet, NODE, PodSpec, RunningPod};
use harness::exec::STATE_DIR;
use harness::origin::{Answer, Origin};
use harness::process::Process;
use harness::scratch::Scratch;
use harness::{admin, locate, wait};
use serde_json::{Value, json};

/// What the issue promises from a label to its effect.
const PROMISED: Duration = Duration::from_secs(2);
/// The label.
const LABEL: &str = "sidestep.dev/cache";
/// The address of the Service `shop/web`.
const WEB: Ipv4Addr = Ipv4Addr::new(10, 96, 7, 7);

/// A cluster with a namespace `shop`, a Service in it, and a node's daemon.
struct Cluster {
    node: Process,
    scratch: Scratch,
    kubelet: Kubelet,
    origin: Origin,
    api: ApiServer,
}

impl Cluster {
    /// Nothing where there is no API server.
    fn start() -> Result<Option<Self>> {
        let Some(api) = ApiServer::start()? else { return Ok(None) };
        let kubelet = Kubelet::new()?;
        api.apply(&[
            namespace("shop"),
            service("web", WEB, "http"),
            service("raw", Ipv4Addr::new(10, 96, 7, 8), "tcp"),
        ])?;
        let origin =
            Origin::http_on(kubelet.net().listen_as(WEB, 80)?, |_| Answer::ok("fresh").max_age(600))?;
        let scratch = Scratch::new()?;
        // With the rights that are given in a cluster, and no others.
        api.apply_file(&locate::deployed("kubernetes/access.yaml"))?;
        let node = start_node(&scratch, &kubelet, api.service_account("sidestep", "sidestep")?)?;
        let cluster = Self { node, scratch, kubelet, origin, api };
        cluster.status()?;
        Ok(Some(cluster))
    }

    fn status(&self) -> Result<Value> {
        let socket = self.scratch.file("admin.sock");
        wait::poll(wait::PATIENCE, "an admin socket", || admin::get(&socket, "/v1/status").ok())
    }

    /// The state of a workload, and why it is in it.
    fn state(&self, name: &str) -> Result<Option<(String, String)>> {
        let status = self.status()?;
        let workloads = status["workloads"].as_array().context("no workloads")?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let found = workloads.iter().find(|one| one["name"] == name);
        Ok(found.map(|one| (text(&one["state"]), text(&one["reason"]))))
    }

    /// Waits until a workload is in this state (`None`: unknown); returns how long that took.
    fn becomes(&self, name: &str, state: Option<&str>) -> Result<Duration> {
        let begun = Instant::now();
        wait::wait_until(wait::PATIENCE, &format!("{name} {state:?}: {:?}", self.state(name)?), || {
            self.state(name).is_ok_and(|found| found.as_ref().map(|(state, _)| state.as_str()) == state)
        })?;
        Ok(begun.elapsed())
    }

    fn label(&self, what: &[&str], value: &str) -> Result<()> {
        let label = match value {
            "" => format!("{LABEL}-"),
            value => format!("{LABEL}={value}"),
        };
        let words = [&["label", "--overwrite"], what, &[&label]].concat();
        self.api.kubectl(&words).map(drop)
    }

    fn run(&self, name: &str) -> Result<RunningPod> {
        self.kubelet.run(&self.api, &PodSpec::new("shop", name))
    }
}

fn start_node(scratch: &Scratch, kubelet: &Kubelet, kubeconfig: PathBuf) -> Result<Process> {
    let yaml = format!(
        "admin: {}\nkubernetes:\n  nodeName: {NODE}\n  kubeconfig: {}\n  cgroupRoot: {}\n",
        scratch.file("admin.sock").display(),
        kubeconfig.display(),
        kubelet.cgroup_root().display(),
    );
    let config = scratch.write("node.yaml", yaml)?;
    let mut command = Command::new(locate::sidestep()?);
    command.arg("node").arg("--config").arg(config).env(STATE_DIR, scratch.file("state"));
    Process::start(&mut command)
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

/// Whether a new connection to the Service goes through the cache.
fn is_served(agent: &Agent) -> Result<bool> {
    Ok(agent.get(SocketAddr::from((WEB, 80)), "/a")?.expect(200)?.passed_through_cache())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn labelling_a_namespace_serves_its_running_pods_and_unlabelling_leaves_them() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    let pod = cluster.run("a")?;
    let agent = pod.agent("app")?;
    ensure!(!is_served(&agent)?, "served without a label");
    // A connection that is there already.
    let before = agent.connect(SocketAddr::from((WEB, 80)))?;
    before.get("/a")?.expect(200)?;

    cluster.label(&["namespace", "shop"], "enabled")?;
    let took = cluster.becomes(&pod.name(), Some("enrolled"))?;

    ensure!(took < PROMISED, "enrolled after {took:?}");
    ensure!(is_served(&agent)?, "not served");
    ensure!(agent.get(SocketAddr::from((WEB, 80)), "/a")?.expect(200)?.is_hit(), "no hit");
    ensure!(!before.get("/a")?.expect(200)?.passed_through_cache(), "an open connection was moved");
    ensure!(cluster.origin.requests().len() == 4, "{} requests", cluster.origin.requests().len());

    cluster.label(&["namespace", "shop"], "")?;
    let took = cluster.becomes(&pod.name(), None)?;

    ensure!(took < PROMISED, "gone after {took:?}");
    ensure!(!is_served(&agent)?, "still served");
    println!("enrolled and left within {took:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_label_of_a_pod_wins_also_at_run_time() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(&["namespace", "shop"], "enabled")?;
    let (one, other) = (cluster.run("a")?, cluster.run("b")?);
    cluster.becomes(&one.name(), Some("enrolled"))?;
    cluster.becomes(&other.name(), Some("enrolled"))?;

    cluster.label(&["pod", "-n", "shop", "a"], "none")?;
    let took = cluster.becomes(&one.name(), None)?;

    ensure!(took < PROMISED, "gone after {took:?}");
    ensure!(!is_served(&one.agent("app")?)?, "still served");
    ensure!(is_served(&other.agent("app")?)?, "the other one is no longer served");
    cluster.label(&["pod", "-n", "shop", "a"], "")?;
    cluster.becomes(&one.name(), Some("enrolled")).map(drop)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn only_http_services_are_redirected() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(&["namespace", "shop"], "enabled")?;
    let raw = Ipv4Addr::new(10, 96, 7, 8);
    let _origin =
        Origin::http_on(cluster.kubelet.net().listen_as(raw, 80)?, |_| Answer::ok("raw").max_age(600))?;
    let pod = cluster.run("a")?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    let agent = pod.agent("app")?;

    ensure!(is_served(&agent)?, "not served");
    let answer = agent.get(SocketAddr::from((raw, 80)), "/a")?.expect(200)?;
    ensure!(!answer.passed_through_cache(), "redirected though not known to be HTTP: {}", answer.head_text());

    cluster.api.kubectl(&[
        "patch",
        "service",
        "-n",
        "shop",
        "raw",
        "-p",
        r#"{"spec":{"ports":[{"port":80,"appProtocol":"http"}]}}"#,
    ])?;
    wait::wait_until(PROMISED, "a redirected service", || {
        agent.get(SocketAddr::from((raw, 80)), "/a").is_ok_and(|answer| answer.passed_through_cache())
    })
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_proxys_container_is_never_redirected() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(&["namespace", "shop"], "enabled")?;
    let spec = PodSpec::new("shop", "meshed").container("istio-proxy");
    let pod = cluster.kubelet.run(&cluster.api, &spec)?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;

    ensure!(is_served(&pod.agent("app")?)?, "the application is not served");
    ensure!(!is_served(&pod.agent("istio-proxy")?)?, "the proxy was captured");
    // Restarted, it is in a cgroup that nobody has heard of.
    pod.add_container("istio-proxy again")?;
    ensure!(!is_served(&pod.agent("istio-proxy again")?)?, "a new container beside a proxy was captured");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn pods_that_are_left_alone_are_told_with_the_reason() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(&["namespace", "shop"], "enabled")?;
    let spec = PodSpec { host_network: true, ..PodSpec::new("shop", "host") };
    let pod = cluster.kubelet.run(&cluster.api, &spec)?;

    cluster.becomes(&pod.name(), Some("failed"))?;

    let (_, reason) = cluster.state(&pod.name())?.context("unknown")?;
    ensure!(reason.contains("hostNetwork"), "{reason}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn the_last_snapshot_stays_without_the_api_server_and_news_come_after_it() -> Result<()> {
    let Some(mut cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(&["namespace", "shop"], "enabled")?;
    let pod = cluster.run("a")?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    let agent = pod.agent("app")?;

    cluster.api.kill()?;
    for _ in 0..20 {
        ensure!(is_served(&agent)?, "no longer served");
        wait::pause(Duration::from_millis(100));
    }
    cluster.api.restart()?;
    cluster.label(&["namespace", "shop"], "")?;

    cluster.becomes(&pod.name(), None)?;
    ensure!(cluster.node.running(), "the node ended");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_pod_that_ends_is_forgotten() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(&["namespace", "shop"], "enabled")?;
    let pod = cluster.run("a")?;
    let name = pod.name();
    cluster.becomes(&name, Some("enrolled"))?;

    pod.end(&cluster.api)?;

    cluster.becomes(&name, None).map(drop)
}
