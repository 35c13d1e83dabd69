//! A node that belongs to a cluster: which pods are served follows from labels, on a real API server.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use harness::cluster::{Cluster, PROMISED, PodSpec, RAW, SERVICES, SHOP, WEB, is_served};
use harness::origin::{Answer, Origin};
use harness::{sidecar, wait};
use serde_json::{Value, json};

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

    cluster.label(SHOP, "enabled")?;
    let took = cluster.becomes(&pod.name(), Some("enrolled"))?;

    ensure!(took < PROMISED, "enrolled after {took:?}");
    ensure!(is_served(&agent)?, "not served");
    ensure!(agent.get(SocketAddr::from((WEB, 80)), "/a")?.expect(200)?.is_hit(), "no hit");
    ensure!(!before.get("/a")?.expect(200)?.passed_through_cache(), "an open connection was moved");
    ensure!(cluster.origin.requests().len() == 4, "{} requests", cluster.origin.requests().len());

    cluster.label(SHOP, "")?;
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
    cluster.label(SHOP, "enabled")?;
    let (one, other) = (cluster.run("a")?, cluster.run("b")?);
    cluster.becomes(&one.name(), Some("enrolled"))?;
    cluster.becomes(&other.name(), Some("enrolled"))?;

    cluster.label(&format!("{SHOP}/pods/a"), "none")?;
    let took = cluster.becomes(&one.name(), None)?;

    ensure!(took < PROMISED, "gone after {took:?}");
    ensure!(!is_served(&one.agent("app")?)?, "still served");
    ensure!(is_served(&other.agent("app")?)?, "the other one is no longer served");
    cluster.label(&format!("{SHOP}/pods/a"), "")?;
    cluster.becomes(&one.name(), Some("enrolled")).map(drop)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn only_http_services_are_redirected() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(SHOP, "enabled")?;
    let _origin =
        Origin::http_on(cluster.kubelet.net().listen_as(RAW, 80)?, |_| Answer::ok("raw").max_age(600))?;
    let pod = cluster.run("a")?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    let agent = pod.agent("app")?;

    ensure!(is_served(&agent)?, "not served");
    let answer = agent.get(SocketAddr::from((RAW, 80)), "/a")?.expect(200)?;
    ensure!(!answer.passed_through_cache(), "redirected though not known to be HTTP: {}", answer.head_text());

    let patch = json!({ "spec": { "ports": [{ "port": 80, "appProtocol": "http" }] } });
    cluster.api.send("PATCH", &format!("{SERVICES}/raw"), Some(&patch))?;
    wait::wait_until(PROMISED, "a redirected service", || {
        agent.get(SocketAddr::from((RAW, 80)), "/a").is_ok_and(|answer| answer.passed_through_cache())
    })
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_proxys_container_is_never_redirected() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(SHOP, "enabled")?;
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
    cluster.label(SHOP, "enabled")?;
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
    cluster.label(SHOP, "enabled")?;
    let pod = cluster.run("a")?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    let agent = pod.agent("app")?;

    cluster.api.kill()?;
    for _ in 0..20 {
        ensure!(is_served(&agent)?, "no longer served");
        wait::pause(Duration::from_millis(100));
    }
    let watches = cluster.status()?["cluster"]["watches"].clone();
    let is_told = |watch: &Value| watch["isSynced"] == true && watch["trouble"].is_string();
    ensure!(watches.as_array().is_some_and(|all| all.iter().all(is_told)), "not told: {watches}");
    cluster.api.restart()?;
    cluster.label(SHOP, "")?;

    cluster.becomes(&pod.name(), None)?;
    ensure!(cluster.node.running(), "the node ended");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_pod_that_ends_is_forgotten() -> Result<()> {
    let Some(cluster) = Cluster::start()? else { return Ok(()) };
    cluster.label(SHOP, "enabled")?;
    let pod = cluster.run("a")?;
    let name = pod.name();
    cluster.becomes(&name, Some("enrolled"))?;

    pod.end(&cluster.api)?;

    cluster.becomes(&name, None).map(drop)
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_miss_goes_through_the_pods_own_sidecar_and_a_hit_does_not() -> Result<()> {
    // By the container alone: the proxy's user says nothing.
    let Some(cluster) = Cluster::configured("excludedUids: []\n")? else { return Ok(()) };
    cluster.label(SHOP, "enabled")?;
    let spec = PodSpec::new("shop", "meshed").container("istio-proxy");
    let pod = cluster.kubelet.run(&cluster.api, &spec)?;
    let Some(_sidecar) = pod.sidecar("istio-proxy")? else { return Ok(()) };
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    let agent = pod.agent("app")?;

    for _ in 0..10 {
        ensure!(is_served(&agent)?, "not served");
    }

    let through = sidecar::answered(pod.net())?;
    ensure!(through == 1, "{through} through the sidecar");
    let requests = cluster.origin.requests();
    ensure!(requests.len() == 1, "{} at the origin", requests.len());
    let host = requests.first().and_then(|request| request.field("host").map(str::to_owned));
    ensure!(host == Some(format!("{WEB}:80")), "{host:?}");
    Ok(())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_proxy_that_nobody_named_is_noticed_before_a_request_goes_round() -> Result<()> {
    let Some(cluster) = Cluster::configured("excludedUids: []\n")? else { return Ok(()) };
    cluster.label(SHOP, "enabled")?;
    let spec = PodSpec::new("shop", "meshed").container("mystery");
    let pod = cluster.kubelet.run(&cluster.api, &spec)?;
    let Some(_sidecar) = pod.sidecar("mystery")? else { return Ok(()) };
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    let agent = pod.agent("app")?;

    agent.get(SocketAddr::from((WEB, 80)), "/a")?.expect(200)?;

    let (state, reason) = cluster.state(&pod.name())?.context("unknown")?;
    ensure!(state == "failed" && reason.contains("proxyContainers"), "{state}: {reason}");
    ensure!(!is_served(&agent)?, "still served");
    ensure!(cluster.origin.requests().len() == 2, "{} at the origin", cluster.origin.requests().len());
    // It stays so, and is forgotten with the pod.
    wait::pause(Duration::from_secs(1));
    ensure!(!is_served(&agent)?, "served again");
    let name = pod.name();
    pod.end(&cluster.api)?;
    cluster.becomes(&name, None).map(drop)
}

/// The Events about a pod: type, reason and note of each.
fn events(cluster: &Cluster, pod: &str) -> Result<Vec<[String; 3]>> {
    let all = cluster.api.send("GET", "/apis/events.k8s.io/v1/namespaces/shop/events", None)?;
    let items = all["items"].as_array().context("no items")?;
    let of_pod = items.iter().filter(|event| event["regarding"]["name"] == pod);
    let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
    Ok(of_pod.map(|event| ["type", "reason", "note"].map(|field| text(event, field))).collect())
}

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_pod_that_cannot_be_served_has_an_event_that_says_why() -> Result<()> {
    let Some(cluster) = Cluster::enabled(&[])? else { return Ok(()) };
    let spec = PodSpec { host_network: true, ..PodSpec::new("shop", "on-the-node") };
    let pod = cluster.kubelet.run(&cluster.api, &spec)?;
    let fine = cluster.run("fine")?;
    cluster.becomes(&pod.name(), Some("failed"))?;
    cluster.becomes(&fine.name(), Some("enrolled"))?;

    let told = wait::poll(wait::PATIENCE, "an Event", || {
        events(&cluster, "on-the-node").ok().filter(|events| !events.is_empty())
    })?;

    let [kind, reason, note] = told.first().context("no Event")?;
    ensure!(told.len() == 1 && kind == "Warning" && reason == "CacheNotServed", "{told:?}");
    ensure!(note.contains("hostNetwork"), "{note}");
    ensure!(events(&cluster, "fine")?.is_empty(), "an Event about a pod with which nothing is wrong");
    let status = cluster.status()?;
    let figure = |name: &str| status["counters"][name].as_u64();
    ensure!(figure("enrolment_failures") == Some(1) && figure("workloads_served") == Some(1), "{status}");
    Ok(())
}

/// The right that the chart gives where pods are to be annotated.
const ANNOTATING: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: annotating }
rules: [{ apiGroups: [""], resources: [pods/status], verbs: [patch] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: annotating }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: annotating }
subjects: [{ kind: ServiceAccount, name: sidestep, namespace: sidestep }]
"#;

#[test]
#[ignore = "needs root, cgroup2 and bpf"]
fn a_pod_says_itself_what_has_become_of_it_where_that_is_wished_for() -> Result<()> {
    let Some(cluster) = Cluster::told(&["annotatePods: true"])? else { return Ok(()) };
    cluster.api.apply(ANNOTATING, &[])?;
    let pod = cluster.run("a")?;
    let says = |expected: Value| {
        wait::wait_until(PROMISED, &format!("{expected}"), || {
            let pod = cluster.api.send("GET", &format!("{SHOP}/pods/a"), None);
            pod.is_ok_and(|pod| pod["metadata"]["annotations"]["sidestep.dev/status"] == expected)
        })
    };

    cluster.label(SHOP, "enabled")?;
    cluster.becomes(&pod.name(), Some("enrolled"))?;
    says(json!("served"))?;
    cluster.label(SHOP, "sometimes")?;
    says(json!(
        "not served: the label sidestep.dev/cache has a value that is none of enabled, observe, none"
    ))?;
    cluster.label(SHOP, "")?;
    says(Value::Null)
}
