//! A node that belongs to a large and restless cluster: what it holds is bounded, and nothing is left of what went.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::cluster::{Cluster, NODE, SHOP};
use harness::leaks::{Held, cpu_seconds};
use harness::wait;
use serde_json::{Value, json};

/// Pods that come and go, and how many of them at once.
const CHURN: usize = 500;
const AT_ONCE: usize = 25;
/// Objects of a large cluster.
const SLICES: usize = 10_000;
const PODS: usize = 1_000;
const SERVICES: usize = 1_000;
/// What the daemon may take for them, kB, and how long it may compute while they come, seconds.
const MEMORY_MAX_KB: u64 = 64 << 10;
const CPU_MAX_S: f64 = 20.0;

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn pods_that_come_and_go_leave_nothing_behind() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    let pid = u32::try_from(cluster.node.pid())?;
    cluster.label(SHOP, "enabled")?;
    // Whatever is made at the first one only.
    let first = cluster.run("first")?;
    cluster.becomes(&first.name(), Some("enrolled"))?;
    let with_one = Held::by(pid)?;
    first.end(&cluster.api)?;
    cluster.becomes("shop/first", None)?;
    let before = settled(pid)?;
    let is_seen = |of: fn(&Held) -> usize| of(&with_one) > of(&before);
    ensure!(is_seen(|held| held.links), "links are not seen: {with_one:?} {before:?}");
    ensure!(is_seen(|held| held.namespaces), "namespaces are not seen: {with_one:?} {before:?}");
    ensure!(is_seen(|held| held.entries), "entries are not seen: {with_one:?} {before:?}");

    for wave in 0..CHURN / AT_ONCE {
        let pods = (0..AT_ONCE).map(|number| cluster.run(&format!("pod-{wave}-{number}")));
        let pods = pods.collect::<Result<Vec<_>>>()?;
        for pod in &pods {
            cluster.becomes(&pod.name(), Some("enrolled"))?;
        }
        for pod in pods {
            pod.end(&cluster.api)?;
        }
    }

    let is_empty = |status: &Value| status["workloads"].as_array().is_some_and(Vec::is_empty);
    wait::wait_until(wait::PATIENCE, "no workload", || {
        cluster.status().is_ok_and(|status| is_empty(&status))
    })?;
    let after = settled(pid)?;
    println!("{CHURN} pods came and went; before {before:?}, after {after:?}");
    // Connections to the API server come and go by themselves.
    ensure!(after.descriptors <= before.descriptors + 4, "{before:?} {after:?}");
    // Nor is one that the runtime keeps for a while after something that blocks.
    ensure!(after.threads <= before.threads + 1, "{before:?} {after:?}");
    let kept = |held: Held| (held.links, held.namespaces, held.entries);
    ensure!(kept(before) == kept(after), "{before:?} {after:?}");
    Ok(())
}

/// What it holds once that changes no more.
fn settled(pid: u32) -> Result<Held> {
    let mut last = Held::by(pid)?;
    wait::poll(wait::PATIENCE, "a daemon that holds the same for a second", || {
        wait::pause(Duration::from_secs(1));
        let now = Held::by(pid).ok()?;
        let is_same = now == last;
        last = now;
        is_same.then_some(now)
    })
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_large_cluster_takes_little() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    let pid = u32::try_from(cluster.node.pid())?;
    let memory = || cluster.node.memory_kb("VmRSS");
    let pod = cluster.run("a")?;
    cluster.label(&format!("{SHOP}/pods/a"), "enabled")?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    let destinations = || cluster.status().map(|status| status["cluster"]["destinations"].as_u64());
    let all = destinations()?.map(|before| before + SERVICES as u64);
    let (memory_before, cpu_before) = (memory()?, cpu_seconds(pid)?);

    for number in 0..SERVICES {
        cluster.api.create(&format!("{SHOP}/services"), &service(number))?;
    }
    for number in 0..SLICES {
        cluster
            .api
            .create("/apis/discovery.k8s.io/v1beta1/namespaces/shop/endpointslices", &slice(number))?;
    }
    for number in 0..PODS {
        cluster.api.create(&format!("{SHOP}/pods"), &bystander(number))?;
    }
    // Each kind is watched by itself: when the last of each was taken up, all were.
    wait::wait_until(wait::PATIENCE, "all Services", || destinations().is_ok_and(|found| found == all))?;
    cluster.label(&format!("{SHOP}/pods/a"), "")?;
    let took = cluster.becomes(&pod.name(), None)?;
    wait::settled(wait::PATIENCE, Duration::from_secs(2), "a daemon at rest", || {
        cpu_seconds(pid).map_or(0, |seconds| (seconds * 20.0) as u64)
    })?;

    let (memory_after, cpu_after) = (memory()?, cpu_seconds(pid)?);
    wait::pause(Duration::from_secs(5));
    let idle = (cpu_seconds(pid)? - cpu_after) / 5.0 * 100.0;
    let (grown, cpu) = (memory_after.saturating_sub(memory_before), cpu_after - cpu_before);
    println!(
        "{SERVICES} Services, {SLICES} EndpointSlices, {PODS} pods: {grown} kB and {cpu:.1} s of CPU; then {idle:.1} % of a core; {took:?}"
    );
    ensure!(grown < MEMORY_MAX_KB, "{grown} kB");
    ensure!(cpu < CPU_MAX_S, "{cpu} s");
    Ok(())
}

/// An HTTP Service at an address of its own.
fn service(number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": format!("service-{number}") },
        "spec": { "ports": [{ "name": "http", "port": 80 }, { "name": "metrics", "port": 9090 }] },
    })
}

/// Three endpoints, of a Service that is there for the first of them.
fn slice(number: usize) -> Value {
    let endpoint = |at: usize| {
        json!({
            "addresses": [format!("10.{}.{}.{at}", 100 + number / 250, number % 250)],
            "conditions": { "ready": true },
            "targetRef": {
                "kind": "Pod", "namespace": "shop", "name": format!("web-7d9c8b6f5d-{number}-{at}"),
                "uid": format!("00000000-0000-4000-8000-{number:08}{at:04}"),
            },
        })
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1beta1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": format!("service-{number}-abcde"),
            "labels": { "kubernetes.io/service-name": format!("service-{number}") },
        },
        "addressType": "IPv4",
        "endpoints": [endpoint(1), endpoint(2), endpoint(3)],
        "ports": [{ "name": "http", "port": 8080 }],
    })
}

/// A pod of this node that no label speaks of.
fn bystander(number: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": format!("bystander-{number}"), "labels": { "app": "bystander" } },
        "spec": {
            "nodeName": NODE,
            "containers": [{ "name": "app", "image": "none" }, { "name": "helper", "image": "none" }],
        },
    })
}
